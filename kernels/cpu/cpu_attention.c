/* Causal attention with ALiBi inside packed sequences.
 *
 * An item is one head of one sequence, on one thread: its q, k, v are gathered as float32 and
 * multiplied by the micro-kernels, the softmax stands between. Forward by blocks of queries against
 * all keys before them; backward by blocks of keys against all queries after them, on transposed
 * scores (' = transposed):
 *
 *     S' = K_j Q'     dP' = V_j dO'     dV_j = P' dO     dK_j = dS' Q     dQ += dS K_j
 */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_pack.h"
#include "kernels/cpu/cpu_simd.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { BLOCK = 64, MAX_HEAD = 128 };

/* What every item of one call needs to know. */
typedef struct attn {
    cpu_backend_t *be;
    const lrd_attn_fwd_t *a;
    const lrd_attn_bwd_t *b; /* NULL: forward */
    int64_t d, width;        /* head size; the same in whole panels: columns of a gathered row */
    int64_t rows;            /* tokens of the longest sequence, in whole panels */
    int64_t ld;              /* elements of a row of scores: rows + 16 against cache aliasing */
    cpu_scratch_t threads;
} attn_t;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t whole_panels(int64_t n)
{
    return pack_panels_of(n) * MICRO_PANEL;
}

/* Floats of one thread's scratch. */
static size_t thread_floats(int64_t length, int64_t d, bool backward)
{
    const int64_t rows = whole_panels(length), width = whole_panels(d), ld = rows + 16;
    if (backward)
        return (size_t)(5 * rows * width + 2 * rows * d + 2 * BLOCK * (ld + width) + 3 * rows);
    return (size_t)(2 * rows * width + rows * d + BLOCK * (ld + width) + rows);
}

size_t cpu_attn_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    return (size_t)be->n_threads *
           cpu_round(thread_floats(l->max_seqlen, l->head_dim, l->training) * sizeof(float));
}

static lrd_status_t setup(cpu_backend_t *be, lrd_scratch_t scratch, const lrd_attn_fwd_t *a,
                          const lrd_attn_bwd_t *b, attn_t *c)
{
    *c = (attn_t){.be = be, .a = a, .b = b, .d = a->head_dim};
    c->width = whole_panels(c->d);
    c->rows = whole_panels(a->max_seqlen);
    c->ld = c->rows + 16;
    return cpu_scratch_split(
        be, scratch, 0, thread_floats(a->max_seqlen, c->d, b != NULL) * sizeof(float), &c->threads);
}

/* Rows t0 .. t0 + length - 1 of a head's part of x, as float32 [length][width], zeros beyond d. */
static void gather(const attn_t *c, lrd_cmat_t x, int64_t t0, int64_t length, int64_t col,
                   float *out)
{
    for (int64_t i = 0; i < length; i++, out += c->width) {
        convert_to_f32(x.dtype, mat_at(x, t0 + i, col), out, c->d);
        memset(out + c->d, 0, (size_t)(c->width - c->d) * sizeof(float));
    }
}

/* The same rows as columns, in panels [length / 32][d][32]. */
static void gather_across(const attn_t *c, lrd_cmat_t x, int64_t t0, int64_t length, int64_t col,
                          float *out)
{
    pack_panels(&(pack_t){.dtype = x.dtype,
                          .transposed = true,
                          .src = mat_at(x, t0, col),
                          .row_stride = x.ld,
                          .n = length,
                          .k = c->d},
                (uint32_t *)out, c->d * MICRO_PANEL);
}

/* s[m][ld] = rows a [m][width] times n columns of a gather_across. */
static void multiply_scores(const attn_t *c, int64_t m, int64_t n, const float *a,
                            const float *across, float *s)
{
    c->be->isa->f32(&(micro_t){.n_rows = m,
                               .n_panels = pack_panels_of(n),
                               .k = c->d,
                               .a = a,
                               .a_row = c->width,
                               .a_step = 1,
                               .panel = across,
                               .panel_stride = c->d * MICRO_PANEL,
                               .panel_step = MICRO_PANEL,
                               .c = s,
                               .ldc = c->ld});
}

/* out[m][width] (+)= a(m, k) times rows b [k][width]. */
static void multiply_rows(const attn_t *c, int64_t m, int64_t k, const float *a, int64_t a_row,
                          int64_t a_step, const float *b, float *out, bool accumulate)
{
    c->be->isa->f32(&(micro_t){.n_rows = m,
                               .n_panels = c->width / MICRO_PANEL,
                               .k = k,
                               .a = a,
                               .a_row = a_row,
                               .a_step = a_step,
                               .panel = b,
                               .panel_stride = MICRO_PANEL,
                               .panel_step = c->width,
                               .c = out,
                               .ldc = c->width,
                               .accumulate = accumulate});
}

static void forward_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    const lrd_attn_fwd_t *a = c->a;
    const int64_t t0 = a->cu_seqlens[sequence], length = a->cu_seqlens[sequence + 1] - t0, d = c->d;
    const int64_t col = head * 3 * d;
    float *q = cpu_scratch_of_thread(&c->threads, thread), *v = q + c->rows * c->width,
          *k = v + c->rows * c->width;
    float *s = k + c->rows * d, *o = s + BLOCK * c->ld, *alibi = o + BLOCK * c->width;
    gather(c, a->qkv, t0, length, col, q);
    gather(c, a->qkv, t0, length, col + 2 * d, v);
    gather_across(c, a->qkv, t0, length, col + d, k);
    attn_alibi(a->slope[head], length, alibi);
    for (int64_t i0 = 0; i0 < length; i0 += BLOCK) {
        const int64_t n = smaller(i0 + BLOCK, length), n_rows = n - i0;
        float sum[BLOCK];
        multiply_scores(c, n_rows, n, q + i0 * c->width, k, s);
        for (int64_t i = 0; i < n_rows; i++) {
            const float most =
                attn_softmax(s + i * c->ld, i0 + i + 1, n, a->scale, alibi, alibi[i0 + i], &sum[i]);
            if (a->lse != NULL)
                a->lse[head * a->qkv.rows + t0 + i0 + i] = most + logf(sum[i]);
        }
        multiply_rows(c, n_rows, n, s, c->ld, 1, v, o, false);
        for (int64_t i = 0; i < n_rows; i++) {
            float *row = o + i * c->width;
            attn_scale(row, 1.0f / sum[i], d);
            convert_from_f32(a->out.dtype, row, mat_at_mut(a->out, t0 + i0 + i, head * d), d);
        }
    }
}

lrd_status_t cpu_attn_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    attn_t c;
    LRD_TRY(setup(be, scratch, a, NULL, &c));
    const int64_t n_items = (int64_t)a->n_seqs * a->n_heads;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t item = 0; item < n_items; item++)
        forward_item(&c, item / a->n_heads, item % a->n_heads, omp_get_thread_num());
out:
    return status;
}

/* One item's blocks in its thread's scratch. */
typedef struct item {
    int64_t t0, length, head;
    float *q, *k, *v, *dout, *dq;  /* [length][width] */
    float *q_across, *dout_across; /* panels [length / 32][d][32] */
    float *p, *ds;                 /* [BLOCK][ld]: keys by queries */
    float *dk, *dv;                /* [BLOCK][width] */
    float *alibi, *lse, *delta;    /* [length] */
} item_t;

static item_t lay_out_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    const int64_t rows = c->rows * c->width, across = c->rows * c->d;
    const int64_t t0 = c->a->cu_seqlens[sequence], length = c->a->cu_seqlens[sequence + 1] - t0;
    item_t x = {.t0 = t0, .length = length, .head = head};
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
    x.dv = x.dk + BLOCK * c->width;
    x.alibi = x.dv + BLOCK * c->width;
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
    gather(c, a->qkv, x->t0, x->length, col, x->q);
    gather(c, a->qkv, x->t0, x->length, col + d, x->k);
    gather(c, a->qkv, x->t0, x->length, col + 2 * d, x->v);
    gather(c, c->b->dout, x->t0, x->length, out_col, x->dout);
    gather_across(c, a->qkv, x->t0, x->length, col, x->q_across);
    gather_across(c, c->b->dout, x->t0, x->length, out_col, x->dout_across);
    attn_alibi(a->slope[x->head], x->length, x->alibi);
    for (int64_t i = 0; i < x->length; i++) {
        float out[MAX_HEAD];
        x->lse[i] = a->lse[x->head * a->qkv.rows + x->t0 + i];
        convert_to_f32(a->out.dtype, mat_at(lrd_const(a->out), x->t0 + i, out_col), out, d);
        x->delta[i] = dot(x->dout + i * c->width, out, d);
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

/* Keys j0 .. j0 + 63 against queries j0 .. length - 1. */
static void backward_block(const attn_t *c, item_t *x, int64_t j0)
{
    const lrd_attn_fwd_t *a = c->a;
    const int64_t d = c->d, ld = c->ld, n = x->length - j0, n_keys = smaller(n, BLOCK);
    const int64_t at = j0 * c->width, across = j0 * d, col = x->head * 3 * d;
    const lrd_mat_t dqkv = c->b->dqkv;
    multiply_scores(c, n_keys, n, x->k + at, x->q_across + across, x->p);
    multiply_scores(c, n_keys, n, x->v + at, x->dout_across + across, x->ds);
    for (int64_t j = 0; j < n_keys; j++)
        backward_row(x->p + j * ld, x->ds + j * ld, j, n, a->scale, x->alibi[j0 + j], x->alibi + j0,
                     x->lse + j0, x->delta + j0);
    multiply_rows(c, n_keys, n, x->p, ld, 1, x->dout + at, x->dv, false);
    multiply_rows(c, n_keys, n, x->ds, ld, 1, x->q + at, x->dk, false);
    multiply_rows(c, n, n_keys, x->ds, 1, ld, x->k + at, x->dq + at, j0 > 0);
    for (int64_t j = 0; j < n_keys; j++) {
        float *dk = x->dk + j * c->width, *dv = x->dv + j * c->width;
        const int64_t t = x->t0 + j0 + j;
        attn_scale(dk, a->scale, d);
        convert_from_f32(dqkv.dtype, dk, mat_at_mut(dqkv, t, col + d), d);
        convert_from_f32(dqkv.dtype, dv, mat_at_mut(dqkv, t, col + 2 * d), d);
    }
}

static void backward_item(const attn_t *c, int64_t sequence, int64_t head, int thread)
{
    item_t x = lay_out_item(c, sequence, head, thread);
    const lrd_mat_t dqkv = c->b->dqkv;
    load_item(c, &x);
    for (int64_t j0 = 0; j0 < x.length; j0 += BLOCK)
        backward_block(c, &x, j0);
    for (int64_t i = 0; i < x.length; i++) {
        float *dq = x.dq + i * c->width;
        attn_scale(dq, c->a->scale, c->d);
        convert_from_f32(dqkv.dtype, dq, mat_at_mut(dqkv, x.t0 + i, head * 3 * c->d), c->d);
    }
}

lrd_status_t cpu_attn_backward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_bwd_t *b)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    const lrd_attn_fwd_t *a = &b->fwd;
    attn_t c;
    LRD_TRY(setup(be, scratch, a, b, &c));
    const int64_t n_items = (int64_t)a->n_seqs * a->n_heads;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t item = 0; item < n_items; item++)
        backward_item(&c, item / a->n_heads, item % a->n_heads, omp_get_thread_num());
out:
    return status;
}
