/* Head and cross entropy in one op with bounded memory.
 *
 * Rows with a target are gathered and taken HEAD_BYTES worth of logits at a time. One product makes
 * the logits chunk by chunk; what stays of a chunk are its largest logit, its sum of exponentials
 * and the exponentials e themselves. Once all chunks are known, softmax - onehot = e * exp(chunk's
 * largest - log-sum-exp) - onehot is formed block by block and multiplied by the weights again.
 * Every logit is computed once and exponentiated once.
 */
#include "base/beat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_product.h"
#include "kernels/cpu/cpu_simd.h"

#include <math.h>
#include <string.h>

enum { HEAD_ROW_UNIT = 64, HEAD_BLOCK = 4096 };
static const int64_t HEAD_BYTES = 512 << 20;

typedef struct chunk_stat {
    float most, sum; /* of exp(logit - most) */
} chunk_stat_t;

/* One call. Rows are those of the tile in work, in gathered order. */
typedef struct head {
    cpu_backend_t *be;
    const lrd_linear_ce_t *a;
    int64_t v, c, n_chunks, rows; /* rows: capacity of a tile */
    lrd_dtype_t
        e_dtype;  /* of exponentials: BF16 when the second product takes it as it is, else F32 */
    int32_t *row; /* [targets] token of each gathered row */
    uint8_t *h, *e, *block, *product;
    chunk_stat_t *stat;  /* [rows][n_chunks] */
    float *target_logit; /* [rows] */
    double *lse;         /* [rows] */
    float *dh;           /* [rows][c] */
    cpu_scratch_t threads;
    const int32_t *tile_row; /* row + first of the tile */
    int64_t tile_rows;
} head_t;

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Lays the shared scratch out from `base` (NULL: to measure) and returns its bytes. */
static size_t lay_out(head_t *h, int64_t tokens, lrd_dtype_t compute, bool backward, uint8_t *base)
{
    const int64_t element = (int64_t)lrd_dtype_bytes(h->e_dtype);
    const int64_t fit = HEAD_BYTES / (h->v * element) / HEAD_ROW_UNIT * HEAD_ROW_UNIT;
    h->rows = smaller(tokens, larger(fit, HEAD_ROW_UNIT));
    h->n_chunks = (h->v + PRODUCT_COLS - 1) / PRODUCT_COLS;
    size_t at = 0;
#define PART(field, bytes)                                    \
    do {                                                      \
        h->field = base != NULL ? (void *)(base + at) : NULL; \
        at += cpu_round((size_t)(bytes));                     \
    } while (0)
    PART(row, tokens * 4);
    PART(h, h->rows * h->c * (int64_t)lrd_dtype_bytes(compute));
    PART(stat, h->rows * h->n_chunks * (int64_t)sizeof(chunk_stat_t));
    PART(target_logit, h->rows * 4);
    PART(lse, h->rows * 8);
    PART(product, product_shared_bytes(compute, h->rows, larger(h->c, HEAD_BLOCK)));
    if (backward) {
        PART(e, h->rows * h->v * element);
        PART(block, h->rows * HEAD_BLOCK * element);
        PART(dh, h->rows * h->c * 4);
    }
#undef PART
    return at;
}

static lrd_dtype_t exponential_dtype(const cpu_backend_t *be, lrd_dtype_t compute, int64_t c)
{
    return product_is_native(be, compute, compute, c, HEAD_BLOCK, false) ? LRD_BF16 : LRD_F32;
}

size_t cpu_linear_ce_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    head_t h = {.be = (cpu_backend_t *)be, .v = l->vocab, .c = l->hidden};
    h.e_dtype = exponential_dtype(be, l->compute, l->hidden);
    const size_t shared = lay_out(&h, l->tokens, l->compute, l->training, NULL);
    return shared + (size_t)be->n_threads * product_thread_bytes();
}

/* Largest value, then exponentials in place and their sum. */
LRD_CLONES static chunk_stat_t exponentials(float *x, int64_t n)
{
    float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++)
        most = x[j] > most ? x[j] : most;
    /* A row of -inf alone has no largest value to subtract. */
    const float shift = most > -INFINITY ? most : 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        x[j] = exp_softmax(x[j] - shift);
        sum += x[j];
    }
    return (chunk_stat_t){shift, sum};
}

static void logits_tile(void *context, const product_tile_t *tile)
{
    head_t *h = context;
    for (int64_t i = 0; i < tile->n_rows; i++) {
        float *x = tile->value + i * tile->ld;
        const int64_t r = tile->row + i, target = h->a->target[h->tile_row[r]] - tile->col;
        if (target >= 0 && target < tile->n_cols)
            h->target_logit[r] = x[target];
        h->stat[r * h->n_chunks + tile->col / PRODUCT_COLS] = exponentials(x, tile->n_cols);
        if (h->e != NULL)
            convert_from_f32(h->e_dtype, x,
                             h->e + (r * h->v + tile->col) * (int64_t)lrd_dtype_bytes(h->e_dtype),
                             tile->n_cols);
    }
}

/* From the chunks' statistics: log-sum-exp of a row, in chunk order. */
static double log_sum_exp(const chunk_stat_t *stat, int64_t n)
{
    float most = stat[0].most;
    double sum = 0;
    for (int64_t i = 1; i < n; i++)
        most = stat[i].most > most ? stat[i].most : most;
    for (int64_t i = 0; i < n; i++)
        sum += (double)stat[i].sum * exp((double)stat[i].most - (double)most);
    return (double)most + log(sum);
}

LRD_CLONES static void scale_row(float *x, float factor, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        x[j] *= factor;
}

/* Rows of g * (softmax - onehot) for vocabulary entries v0 .. v0 + n - 1, into h->block. */
static void gradient_block(const head_t *h, int64_t v0, int64_t n, float g)
{
    const int64_t element = (int64_t)lrd_dtype_bytes(h->e_dtype);
#pragma omp parallel for schedule(static) num_threads(h->be->n_threads)
    for (int64_t r = 0; r < h->tile_rows; r++) {
        const int64_t target = h->a->target[h->tile_row[r]] - v0;
        for (int64_t j = 0; j < n; j += PRODUCT_COLS) {
            const int64_t width = smaller(n - j, PRODUCT_COLS);
            const chunk_stat_t *stat = &h->stat[r * h->n_chunks + (v0 + j) / PRODUCT_COLS];
            float x[PRODUCT_COLS];
            convert_to_f32(h->e_dtype, h->e + (r * h->v + v0 + j) * element, x, width);
            scale_row(x, (float)((double)g * exp((double)stat->most - h->lse[r])), width);
            if (target >= j && target < j + width)
                x[target - j] -= g;
            convert_from_f32(h->e_dtype, x, h->block + (r * HEAD_BLOCK + j) * element, width);
        }
    }
}

static void gradient_tile(void *context, const product_tile_t *tile)
{
    const head_t *h = context;
    for (int64_t i = 0; i < tile->n_rows; i++)
        add_from_f32(LRD_F32, tile->value + i * tile->ld,
                     h->dh + (tile->row + i) * h->c + tile->col, tile->n_cols);
}

static void tile_backward(head_t *h)
{
    const lrd_linear_ce_t *a = h->a;
    const float g = (float)((a->call != NULL ? a->call->inv_n_target : 1.0) *
                            (a->state != NULL ? (double)a->state->loss_scale : 1.0));
    memset(h->dh, 0, (size_t)(h->tile_rows * h->c) * sizeof(float));
    for (int64_t v0 = 0; v0 < h->v; v0 += HEAD_BLOCK) {
        const int64_t n = smaller(h->v - v0, HEAD_BLOCK);
        gradient_block(h, v0, n, g);
        const product_t p = {
            .x = {h->block, h->tile_rows, n, HEAD_BLOCK, h->e_dtype},
            .w = {mat_at(a->w->w, v0, 0), n, h->c, a->w->w.ld, a->w->w.dtype},
            .m = h->tile_rows,
            .n = h->c,
            .k = n,
            .emit = gradient_tile,
            .context = h,
        };
        product_run(h->be, &p, h->product, &h->threads);
    }
    for (int64_t r = 0; r < h->tile_rows; r++)
        convert_from_f32(a->dh.dtype, h->dh + r * h->c, mat_at_mut(a->dh, h->tile_row[r], 0), h->c);
}

/* Adds the tile's losses to *nll. */
static void tile_forward(head_t *h, double *nll)
{
    const lrd_linear_ce_t *a = h->a;
    const size_t row_bytes = (size_t)h->c * lrd_dtype_bytes(a->h.dtype);
    for (int64_t r = 0; r < h->tile_rows; r++)
        memcpy(h->h + (size_t)r * row_bytes, mat_at(a->h, h->tile_row[r], 0), row_bytes);
    const product_t p = {
        .x = {h->h, h->tile_rows, h->c, h->c, a->h.dtype},
        .w = a->w->w,
        .transposed = true,
        .m = h->tile_rows,
        .n = h->v,
        .k = h->c,
        .whole_chunks = true, /* statistics are kept for each */
        .emit = logits_tile,
        .context = h,
    };
    product_run(h->be, &p, h->product, &h->threads);
#pragma omp parallel for schedule(static) num_threads(h->be->n_threads)
    for (int64_t r = 0; r < h->tile_rows; r++)
        h->lse[r] = log_sum_exp(h->stat + r * h->n_chunks, h->n_chunks);
    for (int64_t r = 0; r < h->tile_rows; r++) {
        const double loss = h->lse[r] - (double)h->target_logit[r];
        *nll += loss;
        if (a->token_nll != NULL)
            a->token_nll[h->tile_row[r]] = (float)loss;
    }
}

lrd_status_t cpu_linear_ce(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_ce_t *a)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    head_t h = {.be = be, .a = a, .v = a->w->w.rows, .c = a->h.cols};
    h.e_dtype = exponential_dtype(be, a->h.dtype, h.c);
    const bool backward = a->dh.data != NULL;
    const size_t shared = lay_out(&h, a->h.rows, a->h.dtype, backward, NULL);
    LRD_TRY(cpu_scratch_split(be, scratch, shared, product_thread_bytes(), &h.threads));
    lay_out(&h, a->h.rows, a->h.dtype, backward, h.threads.shared);
    int64_t n_targets = 0;
    double nll = 0;
    for (int64_t t = 0; t < a->h.rows; t++) {
        if (a->target[t] >= 0)
            h.row[n_targets++] = (int32_t)t;
        else if (backward)
            memset(mat_at_mut(a->dh, t, 0), 0, (size_t)h.c * lrd_dtype_bytes(a->dh.dtype));
    }
    if (a->token_nll != NULL)
        memset(a->token_nll, 0, (size_t)a->h.rows * sizeof(float));
    for (int64_t first = 0; first < n_targets; first += h.rows) {
        lrd_beat(); /* a long batch under a large vocabulary takes minutes */
        h.tile_row = h.row + first;
        h.tile_rows = smaller(n_targets - first, h.rows);
        tile_forward(&h, &nll);
        if (backward)
            tile_backward(&h);
    }
    a->nll[a->call != NULL ? a->call->number : 0] = nll;
out:
    return status;
}
