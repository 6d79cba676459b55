/* Causal attention with ALiBi inside packed sequences.
 *
 * An item is one head of one sequence, on one thread: its q, k, v are gathered as float32, products
 * of 64-row blocks go to dnnl_sgemm, the softmax is ours. Forward by blocks of queries against all
 * keys before them; backward by blocks of keys against all queries after them, on transposed scores
 * (' = transposed):
 *
 *     S' = K_j Q'     dP' = V_j dO'     dV_j = P' dO     dK_j = dS' Q     dQ += dS K_j
 */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_pack.h"
#include "kernels/cpu/cpu_simd.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { BLOCK = 64, MAX_HEAD = 128 };

/* A log-sum-exp that leaves no probability: exp(any score - this) == 0. */
static const float no_query = 1e30f;

/* What every item of one call needs to know. */
typedef struct attn {
    cpu_backend_t *be;
    const lrd_attn_fwd_t *a;
    const lrd_attn_bwd_t *b; /* NULL: forward */
    int64_t d;
    int64_t rows; /* tokens of the longest sequence, rounded up to BLOCK */
    int64_t ld;   /* elements of a row of scores: rows + 16 against cache aliasing */
    cpu_scratch_t threads;
} attn_t;

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Floats of one thread's scratch. */
static size_t thread_floats(int64_t length, int64_t d, bool backward)
{
    const int64_t rows = round_up(length, BLOCK), ld = rows + 16;
    if (backward)
        return (size_t)(5 * rows * d + 2 * d * ld + 2 * BLOCK * ld + 2 * BLOCK * d + 3 * rows);
    return (size_t)(2 * rows * d + d * ld + BLOCK * ld + BLOCK * d + rows);
}

size_t cpu_attn_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    return (size_t)be->n_threads *
           cpu_round(thread_floats(l->max_seqlen, l->head_dim, l->training) * sizeof(float));
}

static lrd_status_t setup(cpu_backend_t *be, lrd_scratch_t scratch, const lrd_attn_fwd_t *a,
                          const lrd_attn_bwd_t *b, attn_t *c)
{
    *c = (attn_t){
        .be = be, .a = a, .b = b, .d = a->head_dim, .rows = round_up(a->max_seqlen, BLOCK)};
    c->ld = c->rows + 16;
    return cpu_scratch_split(
        be, scratch, 0, thread_floats(a->max_seqlen, c->d, b != NULL) * sizeof(float), &c->threads);
}

/* c[m, n] = a b + beta c, row-major; a transposed when trans_a is 'T'. False: oneDNN failed. */
static bool multiply(char trans_a, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
                     const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    return dnnl_sgemm(trans_a, 'N', m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc) == dnnl_success;
}

/* Rows t0 .. t0 + length - 1 of a head's part of x, as float32, zeros up to `padded` rows. */
static void gather(lrd_cmat_t x, int64_t t0, int64_t length, int64_t padded, int64_t col, int64_t d,
                   float *out)
{
    for (int64_t i = 0; i < length; i++)
        convert_to_f32(x.dtype, mat_at(x, t0 + i, col), out + i * d, d);
    memset(out + length * d, 0, (size_t)((padded - length) * d) * sizeof(float));
}

/* The same rows as columns: out[d][ld], zeros up to c->rows columns. */
static void gather_across(const attn_t *c, lrd_cmat_t x, int64_t t0, int64_t length, int64_t col,
                          float *out)
{
    const pack_layout_t layout = {.panel = c->rows, .ld = c->ld, .k_rounded = c->d};
    pack_block(&layout, x.dtype, mat_at(x, t0, col), x.ld, true, length, c->d, out);
}

/* ALiBi as transformers tabulates it: slope * position, rounded to float32. */
static void alibi_table(float slope, int64_t n, float *out)
{
    for (int64_t j = 0; j < n; j++)
        out[j] = slope * (float)j;
}

/* Softmax of s[j] * scale + (alibi[j] - alibi_i) over j < n, left unnormalized in s; zeros up to
 * padded. The bias is taken relative to the diagonal: scores stay small and keep their digits. */
LRD_CLONES static float softmax_row(float *s, int64_t n, int64_t padded, float scale,
                                    const float *alibi, float alibi_i, float *sum_out)
{
    float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) {
        const float x = s[j] * scale + (alibi[j] - alibi_i);
        s[j] = x;
        most = x > most ? x : most;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        const float e = exp_softmax(s[j] - most);
        s[j] = e;
        sum += e;
    }
    for (int64_t j = n; j < padded; j++)
        s[j] = 0;
    *sum_out = sum;
    return most;
}

LRD_CLONES static void scale_row(float *x, float factor, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        x[j] *= factor;
}

static bool forward_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    const lrd_attn_fwd_t *a = c->a;
    const int64_t t0 = a->cu_seqlens[sequence], length = a->cu_seqlens[sequence + 1] - t0, d = c->d;
    const int64_t padded = round_up(length, BLOCK), col = head * 3 * d;
    float *q = cpu_scratch_of_thread(&c->threads, thread), *v = q + c->rows * d,
          *k = v + c->rows * d;
    float *s = k + d * c->ld, *o = s + BLOCK * c->ld, *alibi = o + BLOCK * d;
    gather(a->qkv, t0, length, padded, col, d, q);
    gather(a->qkv, t0, length, padded, col + 2 * d, d, v);
    gather_across(c, a->qkv, t0, length, col + d, k);
    alibi_table(a->slope[head], length, alibi);
    for (int64_t i0 = 0; i0 < length; i0 += BLOCK) {
        const int64_t n = i0 + BLOCK, n_rows = length - i0 < BLOCK ? length - i0 : BLOCK;
        float sum[BLOCK];
        if (!multiply('N', BLOCK, n, d, q + i0 * d, d, k, c->ld, 0, s, c->ld))
            return false;
        for (int64_t i = 0; i < n_rows; i++) {
            const float most =
                softmax_row(s + i * c->ld, i0 + i + 1, n, a->scale, alibi, alibi[i0 + i], &sum[i]);
            if (a->lse != NULL)
                a->lse[head * a->qkv.rows + t0 + i0 + i] = most + logf(sum[i]);
        }
        /* Rows beyond the sequence hold scores of zero queries: finite, and never stored. */
        if (!multiply('N', BLOCK, d, n, s, c->ld, v, d, 0, o, d))
            return false;
        for (int64_t i = 0; i < n_rows; i++) {
            scale_row(o + i * d, 1.0f / sum[i], d);
            convert_from_f32(a->out.dtype, o + i * d, mat_at_mut(a->out, t0 + i0 + i, head * d), d);
        }
    }
    return true;
}

lrd_status_t cpu_attn_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    attn_t c;
    LRD_TRY(setup(be, scratch, a, NULL, &c));
    const int64_t n_items = (int64_t)a->n_seqs * a->n_heads;
    bool failed = false;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads) reduction(|| : failed)
    for (int64_t item = 0; item < n_items; item++)
        failed =
            !forward_item(&c, item / a->n_heads, item % a->n_heads, omp_get_thread_num()) || failed;
    LRD_CHECK(!failed, LRD_ERR_DEVICE, "oneDNN failed in attention");
out:
    return status;
}

/* One item's blocks in its thread's scratch. */
typedef struct item {
    int64_t t0, length, padded, head;
    float *q, *k, *v, *dout, *dq;  /* [padded][d] */
    float *q_across, *dout_across; /* [d][ld] */
    float *p, *ds;                 /* [BLOCK][ld]: keys by queries */
    float *dk, *dv;                /* [BLOCK][d] */
    float *alibi, *lse, *delta;    /* [padded] */
} item_t;

static item_t lay_out_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    const int64_t rows = c->rows * c->d, across = c->d * c->ld;
    const int64_t t0 = c->a->cu_seqlens[sequence], length = c->a->cu_seqlens[sequence + 1] - t0;
    item_t x = {.t0 = t0, .length = length, .padded = round_up(length, BLOCK), .head = head};
    x.q = cpu_scratch_of_thread(&c->threads, thread);
    x.k = x.q + rows;
    x.v = x.k + rows;
    x.dout = x.v + rows;
    x.dq = x.dout + rows;
    x.q_across = x.dq + rows;
    x.dout_across = x.q_across + across;
    x.p = x.dout_across + across;
    x.ds = x.p + BLOCK * c->ld;
    x.dk = x.ds + BLOCK * c->ld;
    x.dv = x.dk + BLOCK * c->d;
    x.alibi = x.dv + BLOCK * c->d;
    x.lse = x.alibi + c->rows;
    x.delta = x.lse + c->rows;
    return x;
}

LRD_CLONES static float dot(const float *x, const float *y, int64_t n)
{
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++)
        sum += x[j] * y[j];
    return sum;
}

static void load_item(const attn_t *c, item_t *x)
{
    const lrd_attn_fwd_t *a = c->a;
    const int64_t d = c->d, col = x->head * 3 * d, out_col = x->head * d;
    gather(a->qkv, x->t0, x->length, x->padded, col, d, x->q);
    gather(a->qkv, x->t0, x->length, x->padded, col + d, d, x->k);
    gather(a->qkv, x->t0, x->length, x->padded, col + 2 * d, d, x->v);
    gather(c->b->dout, x->t0, x->length, x->padded, out_col, d, x->dout);
    gather_across(c, a->qkv, x->t0, x->length, col, x->q_across);
    gather_across(c, c->b->dout, x->t0, x->length, out_col, x->dout_across);
    alibi_table(a->slope[x->head], x->padded, x->alibi);
    for (int64_t i = 0; i < x->padded; i++) {
        float out[MAX_HEAD];
        x->lse[i] = no_query;
        x->delta[i] = 0;
        if (i >= x->length)
            continue;
        x->lse[i] = a->lse[x->head * a->qkv.rows + x->t0 + i];
        convert_to_f32(a->out.dtype, mat_at(lrd_const(a->out), x->t0 + i, out_col), out, d);
        x->delta[i] = dot(x->dout + i * d, out, d);
    }
}

/* p = exp(score - lse), ds = p (dp - delta) for one key and queries first .. n - 1; both zero
 * before first. */
LRD_CLONES static void backward_row(float *p, float *ds, int64_t first, int64_t n, float scale,
                                    float alibi_j, const float *alibi, const float *lse,
                                    const float *delta)
{
    for (int64_t i = 0; i < first; i++)
        p[i] = ds[i] = 0;
    LRD_SIMD
    for (int64_t i = first; i < n; i++) {
        const float e = exp_softmax(p[i] * scale + (alibi_j - alibi[i]) - lse[i]);
        p[i] = e;
        ds[i] = e * (ds[i] - delta[i]);
    }
}

/* Keys j0 .. j0 + 63 against queries j0 .. padded - 1. */
static bool backward_block(const attn_t *c, item_t *x, int64_t j0)
{
    const lrd_attn_fwd_t *a = c->a;
    const int64_t d = c->d, ld = c->ld, n = x->padded - j0, col = x->head * 3 * d;
    const lrd_mat_t dqkv = c->b->dqkv;
    bool ok = multiply('N', BLOCK, n, d, x->k + j0 * d, d, x->q_across + j0, ld, 0, x->p, ld) &&
              multiply('N', BLOCK, n, d, x->v + j0 * d, d, x->dout_across + j0, ld, 0, x->ds, ld);
    for (int64_t j = 0; ok && j < BLOCK; j++)
        backward_row(x->p + j * ld, x->ds + j * ld, j, n, a->scale, x->alibi[j0 + j], x->alibi + j0,
                     x->lse + j0, x->delta + j0);
    ok = ok && multiply('N', BLOCK, d, n, x->p, ld, x->dout + j0 * d, d, 0, x->dv, d) &&
         multiply('N', BLOCK, d, n, x->ds, ld, x->q + j0 * d, d, 0, x->dk, d) &&
         multiply('T', n, d, BLOCK, x->ds, ld, x->k + j0 * d, d, j0 == 0 ? 0.0f : 1.0f,
                  x->dq + j0 * d, d);
    const int64_t n_rows = x->length - j0 < BLOCK ? x->length - j0 : BLOCK;
    for (int64_t j = 0; ok && j < n_rows; j++) {
        scale_row(x->dk + j * d, a->scale, d);
        convert_from_f32(dqkv.dtype, x->dk + j * d, mat_at_mut(dqkv, x->t0 + j0 + j, col + d), d);
        convert_from_f32(dqkv.dtype, x->dv + j * d, mat_at_mut(dqkv, x->t0 + j0 + j, col + 2 * d),
                         d);
    }
    return ok;
}

static bool backward_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    item_t x = lay_out_item(c, sequence, head, thread);
    const int64_t d = c->d;
    load_item(c, &x);
    for (int64_t j0 = 0; j0 < x.length; j0 += BLOCK) {
        if (!backward_block(c, &x, j0))
            return false;
    }
    for (int64_t i = 0; i < x.length; i++) {
        scale_row(x.dq + i * d, c->a->scale, d);
        convert_from_f32(c->b->dqkv.dtype, x.dq + i * d,
                         mat_at_mut(c->b->dqkv, x.t0 + i, head * 3 * d), d);
    }
    return true;
}

lrd_status_t cpu_attn_backward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_bwd_t *b)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    const lrd_attn_fwd_t *a = &b->fwd;
    attn_t c;
    LRD_TRY(setup(be, scratch, a, b, &c));
    const int64_t n_items = (int64_t)a->n_seqs * a->n_heads;
    bool failed = false;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads) reduction(|| : failed)
    for (int64_t item = 0; item < n_items; item++)
        failed = !backward_item(&c, item / a->n_heads, item % a->n_heads, omp_get_thread_num()) ||
                 failed;
    LRD_CHECK(!failed, LRD_ERR_DEVICE, "oneDNN failed in attention");
out:
    return status;
}
