/* y = act(x W^T + bias + scale * u B^T) and its backward: one product each, everything else in its
 * tiles. */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_lora.h"
#include "kernels/cpu/cpu_product.h"
#include "kernels/cpu/cpu_simd.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t largest_rank(const lrd_lora_rows_t *lora)
{
    int64_t r = 0;
    for (int i = 0; lora != NULL && i < lora->n; i++) {
        if (lora->adapter[i].a.data != NULL)
            r = larger(r, lora->adapter[i].a.rows);
    }
    return r;
}

/* Scratch of a linear: shared = [widened rows of x or dy][du][one factor]; thread =
 * [product][lora]. */
typedef struct layout {
    size_t widened, du, factor, product, lora;
} layout_t;

/* columns: of what is multiplied, x forward and dy backward. */
static layout_t layout_of(lrd_dtype_t compute, int64_t tokens, int64_t columns, int64_t r)
{
    return (layout_t){
        .widened = product_shared_bytes(compute, tokens, columns),
        .du = cpu_round((size_t)(tokens * r) * sizeof(float)),
        .factor = lora_factor_bytes(r, columns),
        .product = product_thread_bytes(),
        .lora = lora_thread_bytes(r, columns),
    };
}

size_t cpu_linear_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    const layout_t y = layout_of(l->compute, l->tokens, larger(l->mlp, 3 * l->hidden), l->rank);
    return y.widened + y.du + y.factor + (size_t)be->n_threads * (y.product + y.lora);
}

typedef struct forward {
    const lrd_linear_fwd_t *a;
    const cpu_scratch_t *threads;
    size_t lora_offset;
} forward_t;

LRD_CLONES static void add_row(float *y, const float *bias, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        y[j] += bias[j];
}

LRD_CLONES static void gelu_row(float *y, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        y[j] = gelu_f32(y[j]);
}

LRD_CLONES static void gelu_derivative_row(float *dx, const float *pre, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        dx[j] *= gelu_derivative_f32(pre[j]);
}

/* Asks for a tile's part of a row some rows ahead: parts lie a whole row apart, too far for the
 * machine to see what comes next. */
enum { AHEAD = 8, CACHE_LINE = 64 };

LRD_INLINE void fetch_ahead(lrd_cmat_t x, const product_tile_t *tile, int64_t i, bool to_write)
{
    if (i + AHEAD >= tile->n_rows)
        return;
    const uint8_t *from = mat_at(x, tile->row + i + AHEAD, tile->col);
    const int64_t bytes = tile->n_cols * (int64_t)lrd_dtype_bytes(x.dtype);
    for (int64_t b = 0; b < bytes; b += CACHE_LINE) {
        if (to_write)
            __builtin_prefetch(from + b, 1, 3);
        else
            __builtin_prefetch(from + b, 0, 3);
    }
}

static void forward_tile(void *context, const product_tile_t *tile)
{
    const forward_t *f = context;
    const lrd_linear_fwd_t *a = f->a;
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        const lrd_lora_t *lora = &a->lora->adapter[i];
        uint8_t *scratch =
            (uint8_t *)cpu_scratch_of_thread(f->threads, tile->thread) + f->lora_offset;
        if (lora->a.data != NULL)
            lora_expand(tile, a->lora->row_begin[i], a->lora->row_begin[i + 1], lora->b, true,
                        lora->scale, a->u.data, a->u.ld, NULL, scratch);
    }
    float bias[PRODUCT_COLS];
    if (a->bias.data != NULL)
        convert_to_f32(a->bias.dtype, mat_at(a->bias, 0, tile->col), bias, tile->n_cols);
    for (int64_t i = 0; i < tile->n_rows; i++) {
        float *y = tile->value + i * tile->ld;
        const int64_t t = tile->row + i;
        fetch_ahead(lrd_const(a->y), tile, i, true);
        if (a->pre.data != NULL)
            fetch_ahead(lrd_const(a->pre), tile, i, true);
        if (a->bias.data != NULL)
            add_row(y, bias, tile->n_cols);
        if (a->epilogue == LRD_EPILOGUE_GELU) {
            /* The activation sees what is stored, so that gelu_forward makes the same y from pre
             * again. */
            void *pre = mat_at_mut(a->pre.data != NULL ? a->pre : a->y, t, tile->col);
            convert_from_f32(a->y.dtype, y, pre, tile->n_cols);
            convert_to_f32(a->y.dtype, pre, y, tile->n_cols);
            gelu_row(y, tile->n_cols);
        }
        convert_from_f32(a->y.dtype, y, mat_at_mut(a->y, t, tile->col), tile->n_cols);
    }
}

lrd_status_t cpu_linear_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    const int64_t n = a->w->w.rows, k = a->w->w.cols, r = largest_rank(a->lora);
    const layout_t l = layout_of(a->x.dtype, a->x.rows, k, r);
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, l.widened + l.factor, l.product + l.lora, &s));
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        const lrd_lora_t *lora = &a->lora->adapter[i];
        if (lora->a.data == NULL)
            continue;
        const lora_factor_t f = lora_factor_make(lora->a, false, (float *)(s.shared + l.widened));
        lora_project(be, a->x, a->lora->row_begin[i], a->lora->row_begin[i + 1], f, 1.0f,
                     &lora->drop, a->u.data, a->u.ld, &s, l.product);
    }
    forward_t f = {a, &s, l.product};
    const product_t p = {.x = a->x,
                         .w = a->w->w,
                         .transposed = true,
                         .m = a->x.rows,
                         .n = n,
                         .k = k,
                         .emit = forward_tile,
                         .context = &f};
    product_run(be, &p, s.shared, &s);
out:
    return status;
}

typedef struct backward {
    const lrd_linear_bwd_t *a;
    const float *du;
    int64_t ldu;
    const cpu_scratch_t *threads;
    size_t lora_offset;
} backward_t;

static void backward_tile(void *context, const product_tile_t *tile)
{
    const backward_t *b = context;
    const lrd_linear_bwd_t *a = b->a;
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        const lrd_lora_t *lora = &a->lora->adapter[i];
        uint8_t *scratch =
            (uint8_t *)cpu_scratch_of_thread(b->threads, tile->thread) + b->lora_offset;
        if (lora->a.data != NULL)
            lora_expand(tile, a->lora->row_begin[i], a->lora->row_begin[i + 1], lora->a, false,
                        1.0f, b->du, b->ldu, &lora->drop, scratch);
    }
    for (int64_t i = 0; i < tile->n_rows; i++) {
        float *dx = tile->value + i * tile->ld;
        const int64_t t = tile->row + i;
        fetch_ahead(lrd_const(a->dx), tile, i, true);
        if (a->pre.data != NULL) {
            fetch_ahead(a->pre, tile, i, false);
            float pre[PRODUCT_COLS];
            convert_to_f32(a->pre.dtype, mat_at(a->pre, t, tile->col), pre, tile->n_cols);
            gelu_derivative_row(dx, pre, tile->n_cols);
        }
        if (a->accumulate_dx)
            add_from_f32(a->dx.dtype, dx, mat_at_mut(a->dx, t, tile->col), tile->n_cols);
        else
            convert_from_f32(a->dx.dtype, dx, mat_at_mut(a->dx, t, tile->col), tile->n_cols);
    }
}

/* dA and dB of one adapter, and its du. */
static void backward_lora(cpu_backend_t *be, const lrd_linear_bwd_t *a, int i, float *du,
                          int64_t ldu, float *factor, const cpu_scratch_t *s, size_t offset)
{
    const lrd_lora_t *lora = &a->lora->adapter[i];
    const int64_t begin = a->lora->row_begin[i], end = a->lora->row_begin[i + 1], r = lora->a.rows;
    const lora_factor_t f = lora_factor_make(lora->b, true, factor);
    lora_project(be, a->dy, begin, end, f, lora->scale, NULL, du, ldu, s, offset);
    lora_outer(be, a->dy, begin, end, a->u.data, a->u.ld, r, lora->scale, NULL, true, a->db[i], s,
               offset);
    lora_outer(be, a->x, begin, end, du, ldu, r, 1.0f, &lora->drop, false, a->da[i], s, offset);
}

lrd_status_t cpu_linear_backward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_bwd_t *a)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be = cpu_backend_of(st);
    const int64_t n = a->w->w.rows, k = a->w->w.cols, r = largest_rank(a->lora);
    const layout_t l = layout_of(a->dy.dtype, a->dy.rows, n, r);
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, l.widened + l.du + l.factor, l.product + l.lora, &s));
    float *du = (float *)(s.shared + l.widened);
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        if (a->lora->adapter[i].a.data != NULL)
            backward_lora(be, a, i, du, r, (float *)(s.shared + l.widened + l.du), &s, l.product);
    }
    if (a->dx.data != NULL) {
        backward_t b = {a, du, r, &s, l.product};
        const product_t p = {.x = a->dy,
                             .w = a->w->w,
                             .m = a->dy.rows,
                             .n = k,
                             .k = n,
                             .emit = backward_tile,
                             .context = &b};
        product_run(be, &p, s.shared, &s);
    }
out:
    return status;
}

lrd_status_t cpu_gelu_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_gelu_fwd_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t t = 0; t < a->pre.rows; t++) {
        for (int64_t j = 0; j < a->pre.cols; j += PRODUCT_COLS) {
            const int64_t n = a->pre.cols - j < PRODUCT_COLS ? a->pre.cols - j : PRODUCT_COLS;
            float y[PRODUCT_COLS];
            convert_to_f32(a->pre.dtype, mat_at(a->pre, t, j), y, n);
            gelu_row(y, n);
            convert_from_f32(a->y.dtype, y, mat_at_mut(a->y, t, j), n);
        }
    }
    return LRD_OK;
}
