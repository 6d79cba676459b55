/* y = act(x W^T + bias + scale * u B^T) and its backward.
 *
 * Where there is room behind x and w, the adapter is some more columns of the one product: [x | u] [W | scale * B]^T,
 * by cuBLASLt, which also adds the bias and applies GELU, and there is no pass over y of our own. In 16 bit u and scale * B
 * are rounded for it, where the CPU back end keeps them in float32.
 *
 * Without room, and on the way back, where dropout's mask stands between u and x, the adapter's part is written
 * first, and the large product is added to it, as is GELU's derivative. In 16 bit this rounds the part once more.
 *
 * What cuBLASLt cannot do in its epilogue (odd leading dimensions, a derivative and an accumulation
 * in one) goes through a float32 product in tiles of rows and one pass over it. Single rows have a product of
 * their own (cuda_single.h), which is added to the adapter's part likewise.
 */
#include "kernels/cuda/cuda_lora.h"
#include "kernels/cuda/cuda_product.h"
#include "kernels/cuda/cuda_single.h"

enum { TILE_ROWS = 1024, AUX_LD = 8 /* what cuBLASLt asks of the leading dimension of aux */ };

static int64_t largest_rank(const lrd_lora_rows_t *lora)
{
    int64_t r = 0;
    for (int i = 0; lora != NULL && i < lora->n; i++) {
        if (lora->adapter[i].a.data != NULL)
            r = cuda_larger(r, lora->adapter[i].a.rows);
    }
    return r;
}

typedef struct layout {
    void *workspace;
    float *du, *partial, *product;
} layout_t;

/* cols: the most of x, dy and what is made. */
static layout_t lay_out(cuda_arena_t *arena, int64_t tokens, int64_t cols, int64_t rank,
                        bool direct)
{
    layout_t l;
    l.workspace = cuda_take<uint8_t>(arena, CUDA_WORKSPACE);
    l.du = cuda_take<float>(arena, tokens * rank);
    /* Tiles of several adapters are rounded up one by one, but each adapter has its turn. */
    l.partial =
        cuda_take<float>(arena, cuda_larger(cuda_lora_partials(tokens, cols, rank),
                                            cuda_lora_backward_partials(tokens, cols, rank)));
    l.product = cuda_take<float>(arena, direct ? 0 : cuda_smaller(tokens, TILE_ROWS) * cols);
    return l;
}

size_t cuda_linear_scratch(const lrd_limits_t *l)
{
    cuda_arena_t arena = {};
    lay_out(&arena, l->tokens, cuda_larger(l->mlp, 3 * l->hidden), l->rank, false);
    return arena.used;
}

static lrd_status_t take_scratch(lrd_scratch_t scratch, int64_t tokens, int64_t cols, int64_t rank,
                                 bool direct, layout_t *l_out)
{
    cuda_arena_t measured = {}, arena = {(uint8_t *)scratch.data, 0};
    lay_out(&measured, tokens, cols, rank, direct);
    CUDA_TRY(cuda_check_scratch(&measured, scratch));
    *l_out = lay_out(&arena, tokens, cols, rank, direct);
    return LRD_OK;
}

static lrd_mat_t rows_of(lrd_mat_t m, int64_t begin, int64_t end)
{
    if (m.data == NULL)
        return m;
    m.data = (uint8_t *)m.data + (size_t)(begin * m.ld) * (m.dtype == LRD_F32 ? 4 : 2);
    m.rows = end - begin;
    return m;
}

static lrd_cmat_t const_rows_of(lrd_cmat_t m, int64_t begin, int64_t end)
{
    const lrd_mat_t writable = {(void *)m.data, m.rows, m.cols, m.ld, m.dtype};
    return lrd_const(rows_of(writable, begin, end));
}

/* A [R, K] from the side of x, B [N, R] from the side of y. */
static cuda_factor_t factor_a(const lrd_lora_t *l)
{
    return {(const float *)l->a.data, l->a.ld, 1, l->a.rows};
}

static cuda_factor_t factor_b(const lrd_lora_t *l)
{
    return {(const float *)l->b.data, 1, l->b.ld, l->b.cols};
}

/* Finishes rows first .. last - 1 adapter by adapter; f is complete but for rows and adapter. With
 * `backward` the adapter's part is dropout'(u A), else scale * u B^T. */
static lrd_status_t finish_rows(lrd_stream_t *st, lrd_dtype_t compute, cuda_finish_t f,
                                const lrd_lora_rows_t *lora, bool backward, const float *u,
                                int64_t ld_u, int64_t first, int64_t last)
{
    const float *product = f.product;
    for (int i = 0; lora != NULL && i < lora->n; i++) {
        const lrd_lora_t *l = &lora->adapter[i];
        f.begin = cuda_larger(lora->row_begin[i], first);
        f.end = cuda_smaller(lora->row_begin[i + 1], last);
        if (f.begin >= f.end)
            continue;
        f.product = product != NULL ? product + (f.begin - first) * f.ld_product : NULL;
        f.u = NULL;
        if (l->a.data != NULL) {
            f.u = u;
            f.ld_u = ld_u;
            f.factor = backward ? factor_a(l) : factor_b(l);
            f.scale = backward ? 1.0f : l->scale;
            f.drop = backward ? &l->drop : NULL;
        }
        CUDA_TRY(cuda_linear_finish(st, compute, &f));
    }
    if (lora != NULL)
        return LRD_OK;
    f.begin = first;
    f.end = last;
    return cuda_linear_finish(st, compute, &f);
}

/* ---- forward */

/* Neighbouring rows that all have an adapter, or that all have none: what a row gets depends on
 * whether it has one, not on the other rows. */
typedef struct row_run {
    int64_t begin, end;
    bool adapted;
} row_run_t;

static bool has_adapter(const lrd_lora_rows_t *lora, int i)
{
    return lora->adapter[i].a.data != NULL;
}

/* The run that begins with adapter *at of the list; *at becomes the next one's. */
static row_run_t next_run(const lrd_lora_rows_t *lora, int *at)
{
    const int first = *at;
    while (*at < lora->n && has_adapter(lora, *at) == has_adapter(lora, first))
        ++*at;
    return {lora->row_begin[first], lora->row_begin[*at], has_adapter(lora, first)};
}

enum { ROOM_UNIT = 16 /* rows of 16 bit stay at multiples of 32 bytes */ };

int64_t cuda_lora_columns(int64_t rank)
{
    return cuda_ceil_div(rank, ROOM_UNIT) * ROOM_UNIT;
}

/* Columns by which the product is longer with the adapter in it; 0: it is written before. */
static int64_t joined_columns(const lrd_linear_fwd_t *a)
{
    const int64_t group = CUDA_LORA_GROUP;
    return a->x_room.data != NULL ? cuda_ceil_div(largest_rank(a->lora), group) * group : 0;
}

/* The product that makes all of y's rows, but for adapters' parts that are there before. */
static cuda_product_t whole_forward(const lrd_linear_fwd_t *a, row_run_t run, void *workspace)
{
    const int64_t joined = joined_columns(a);
    const bool there = run.adapted && joined == 0;
    cuda_product_t p = {};
    p.x = const_rows_of(a->x, run.begin, run.end);
    p.x.cols += joined;
    p.w = a->w->w;
    p.w.cols += joined;
    p.transposed = true;
    p.y = rows_of(a->y, run.begin, run.end);
    p.workspace = workspace;
    p.accumulate = there;
    p.bias = there ? NULL : a->bias.data;
    if (a->epilogue == LRD_EPILOGUE_GELU) {
        p.epilogue = a->pre.data != NULL ? CUDA_EPILOGUE_GELU_SAVED : CUDA_EPILOGUE_GELU;
        p.aux = rows_of(a->pre, run.begin, run.end);
    }
    return p;
}

/* cuBLASLt may be asked for y as it is. */
static bool can_be_direct(const lrd_linear_fwd_t *a, bool adapted)
{
    const bool one_dtype = a->y.dtype == a->x.dtype;
    if (a->epilogue == LRD_EPILOGUE_GELU) /* by y's columns too: the same bits without pre */
        return one_dtype && a->y.cols % AUX_LD == 0 &&
               (a->pre.data == NULL || a->pre.ld % AUX_LD == 0);
    return a->pre.data == NULL && (one_dtype || (a->bias.data == NULL && !adapted));
}

static lrd_status_t forward_tiles(lrd_stream_t *st, const lrd_linear_fwd_t *a, row_run_t run,
                                  const layout_t *l)
{
    const int64_t n = a->y.cols;
    for (int64_t t = run.begin; t < run.end; t += TILE_ROWS) {
        const int64_t end = cuda_smaller(t + TILE_ROWS, run.end);
        cuda_product_t p = {};
        p.x = const_rows_of(a->x, t, end);
        p.w = a->w->w;
        p.transposed = true;
        p.y = {l->product, end - t, n, n, LRD_F32};
        p.workspace = l->workspace;
        CUDA_TRY(cuda_product_run(st, &p));
        cuda_finish_t f = {};
        f.product = l->product;
        f.ld_product = n;
        f.bias = a->bias;
        f.gelu = a->epilogue == LRD_EPILOGUE_GELU;
        f.pre = a->pre;
        f.y = a->y;
        CUDA_TRY(finish_rows(st, a->x.dtype, f, a->lora, false, (const float *)a->u.data, a->u.ld,
                             t, end));
    }
    return LRD_OK;
}

/* y of the run's rows: the bias, and their adapters' parts. */
static lrd_status_t write_adapters(lrd_stream_t *st, const lrd_linear_fwd_t *a, row_run_t run)
{
    cuda_finish_t f = {};
    f.bias = a->bias;
    f.y = a->y;
    return finish_rows(st, a->x.dtype, f, a->lora, false, (const float *)a->u.data, a->u.ld,
                       run.begin, run.end);
}

static lrd_status_t forward_run(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_fwd_t *a,
                                row_run_t run)
{
    layout_t l;
    bool direct = false;
    if (run.begin == run.end)
        return LRD_OK;
    CUDA_TRY(take_scratch(scratch, run.end - run.begin, 0, 0, true, &l));
    const cuda_product_t p = whole_forward(a, run, l.workspace);
    if (can_be_direct(a, run.adapted))
        CUDA_TRY(cuda_product_exists(st, &p, &direct));
    if (!direct) {
        CUDA_TRY(take_scratch(scratch, run.end - run.begin, a->y.cols, 0, false, &l));
        return forward_tiles(st, a, run, &l);
    }
    if (p.accumulate)
        CUDA_TRY(write_adapters(st, a, run));
    return cuda_product_run(st, &p);
}

/* A run's single rows (cuda_single.h), and the others behind them. */
static lrd_status_t forward_both(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_fwd_t *a,
                                 row_run_t run)
{
    const int64_t n_single = cuda_single_takes_linear(a) ? a->n_single : 0;
    const int64_t border = cuda_larger(run.begin, cuda_smaller(n_single, run.end));
    const row_run_t single = {run.begin, border, run.adapted},
                    rest = {border, run.end, run.adapted};
    if (run.adapted && border > run.begin)
        CUDA_TRY(write_adapters(st, a, single));
    CUDA_TRY(cuda_single_linear(st, a, run.begin, border, run.adapted));
    return forward_run(st, scratch, a, rest);
}

static lrd_status_t fill_w_room(lrd_stream_t *st, const lrd_linear_fwd_t *a)
{
    const lrd_lora_t *lora = &a->lora->adapter[0];
    CUDA_CHECK(joined_columns(a) <= a->x_room.cols, LRD_ERR_SHAPE,
               "linear_forward: room of %ld columns for an adapter of rank %ld",
               (long)a->x_room.cols, (long)lora->a.rows);
    return cuda_lora_round(st, factor_b(lora), lora->scale, a->w_room);
}

lrd_status_t cuda_linear_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_fwd_t *a)
{
    if (a->bias.data != NULL)
        CUDA_SAME_DTYPE("linear_forward", a->x.dtype, a->bias.dtype);
    if (a->lora == NULL)
        return forward_both(st, scratch, a, {0, a->x.rows, false});
    if (a->x_room.data != NULL)
        CUDA_TRY(fill_w_room(st, a));
    for (int i = 0; i < a->lora->n; i++) {
        const lrd_lora_t *lora = &a->lora->adapter[i];
        if (has_adapter(a->lora, i))
            CUDA_TRY(cuda_lora_project(st, a->x, a->lora->row_begin[i], a->lora->row_begin[i + 1],
                                       factor_a(lora), 1.0f, &lora->drop, (float *)a->u.data,
                                       a->u.ld, a->x_room));
    }
    for (int at = 0; at < a->lora->n;)
        CUDA_TRY(forward_both(st, scratch, a, next_run(a->lora, &at)));
    return LRD_OK;
}

/* ---- backward */

/* du and dB of adapter i. */
static lrd_status_t backward_from_dy(lrd_stream_t *st, const lrd_linear_bwd_t *a, int i,
                                     int64_t rank, const layout_t *l)
{
    const lrd_lora_t *lora = &a->lora->adapter[i];
    const int64_t begin = a->lora->row_begin[i], end = a->lora->row_begin[i + 1];
    const float *u = (const float *)a->u.data;
    float *to = (float *)a->db[i].data;
    if (a->dy.dtype != LRD_F32) {
        const cuda_lora_backward_t b = {
            a->dy, begin,      end,         lora->a.rows, (const float *)lora->b.data,
            u,     lora->b.ld, a->u.ld,     lora->scale,  l->du,
            to,    rank,       a->db[i].ld, l->partial};
        return cuda_lora_backward(st, &b);
    }
    CUDA_TRY(cuda_lora_project(st, a->dy, begin, end, factor_b(lora), lora->scale, NULL, l->du,
                               rank, {}));
    const cuda_outer_t db = {a->dy,       begin, end, u, a->u.ld,     lora->a.rows,
                             lora->scale, NULL,  to,  1, a->db[i].ld, l->partial};
    return cuda_lora_outer(st, &db);
}

static lrd_status_t backward_lora(lrd_stream_t *st, const lrd_linear_bwd_t *a, int i, int64_t rank,
                                  const layout_t *l)
{
    const lrd_lora_t *lora = &a->lora->adapter[i];
    const int64_t begin = a->lora->row_begin[i], end = a->lora->row_begin[i + 1];
    CUDA_TRY(backward_from_dy(st, a, i, rank, l));
    const cuda_outer_t da = {a->x,        begin,       end,
                             l->du,       rank,        lora->a.rows,
                             1.0f,        &lora->drop, (float *)a->da[i].data,
                             a->da[i].ld, 1,           l->partial};
    return cuda_lora_outer(st, &da);
}

/* The product that makes all of dx, but for an adapter's part, which is there before. */
static cuda_product_t whole_backward(const lrd_linear_bwd_t *a, int64_t rank, const layout_t *l)
{
    cuda_product_t p = {};
    p.x = a->dy;
    p.w = a->w->w;
    p.y = a->dx;
    p.accumulate = a->accumulate_dx || rank > 0;
    p.workspace = l->workspace;
    if (a->pre.data != NULL) {
        p.epilogue = CUDA_EPILOGUE_GELU_DERIVATIVE;
        p.aux = {(void *)a->pre.data, a->pre.rows, a->pre.cols, a->pre.ld, a->pre.dtype};
    }
    return p;
}

static lrd_status_t backward_direct(lrd_stream_t *st, const lrd_linear_bwd_t *a, int64_t rank,
                                    const cuda_product_t *p, const layout_t *l)
{
    if (rank > 0) {
        cuda_finish_t f = {};
        f.accumulate = a->accumulate_dx;
        f.y = a->dx;
        CUDA_TRY(finish_rows(st, a->dy.dtype, f, a->lora, true, l->du, rank, 0, a->dy.rows));
    }
    return cuda_product_run(st, p);
}

static lrd_status_t backward_tiles(lrd_stream_t *st, const lrd_linear_bwd_t *a, int64_t rank,
                                   const layout_t *l)
{
    const int64_t k = a->dx.cols;
    for (int64_t t = 0; t < a->dy.rows; t += TILE_ROWS) {
        const int64_t end = cuda_smaller(t + TILE_ROWS, a->dy.rows);
        cuda_product_t p = {};
        p.x = const_rows_of(a->dy, t, end);
        p.w = a->w->w;
        p.y = {l->product, end - t, k, k, LRD_F32};
        p.workspace = l->workspace;
        CUDA_TRY(cuda_product_run(st, &p));
        cuda_finish_t f = {};
        f.product = l->product;
        f.ld_product = k;
        f.derivative_at = a->pre;
        f.accumulate = a->accumulate_dx;
        f.y = a->dx;
        CUDA_TRY(finish_rows(st, a->dy.dtype, f, a->lora, true, l->du, rank, t, end));
    }
    return LRD_OK;
}

lrd_status_t cuda_linear_backward(lrd_stream_t *st, lrd_scratch_t scratch,
                                  const lrd_linear_bwd_t *a)
{
    const int64_t rank = largest_rank(a->lora), n = a->w->w.rows, k = a->w->w.cols;
    const lrd_dtype_t d = a->dy.dtype;
    const bool aux_fits = a->pre.data == NULL || (a->pre.ld % AUX_LD == 0 && !a->accumulate_dx);
    bool direct = false;
    layout_t l;
    if (a->pre.data != NULL)
        CUDA_SAME_DTYPE("linear_backward", d, a->pre.dtype);
    if (a->lora != NULL)
        CUDA_SAME_DTYPE("linear_backward", d, a->x.dtype);
    CUDA_TRY(take_scratch(scratch, a->dy.rows, cuda_larger(n, k), rank, true, &l));
    const cuda_product_t p = whole_backward(a, rank, &l);
    if (a->dx.data != NULL && a->dx.dtype == d && aux_fits)
        CUDA_TRY(cuda_product_exists(st, &p, &direct));
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        if (a->lora->adapter[i].a.data != NULL)
            CUDA_TRY(backward_lora(st, a, i, rank, &l));
    }
    if (a->dx.data == NULL)
        return LRD_OK;
    if (direct)
        return backward_direct(st, a, rank, &p, &l);
    /* The same places as before, and a tile of float32 behind them. */
    CUDA_TRY(take_scratch(scratch, a->dy.rows, cuda_larger(n, k), rank, false, &l));
    return backward_tiles(st, a, rank, &l);
}
