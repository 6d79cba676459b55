/* Head and cross entropy in one op with bounded memory.
 *
 * Rows with a target are listed on the device, gathered, and taken a tile at a time: one product makes
 * the tile's logits in float32, one kernel turns them into losses and, in place, into the gradient of
 * the logits in the compute type, a second product makes dh. [T, V] is never stored.
 *
 * The second product has few outputs, [rows, c], and long sums, over V: they are cut into pieces, by V alone, so that
 * there is work for all of a device, and the pieces' sums are added in their order. No row's bits depend on the tile.
 */
#include "kernels/cuda/cuda_device.cuh"
#include "kernels/cuda/cuda_product.h"

enum { THREADS = 256, LIST_THREADS = 1024, TILE_UNIT = 128 };
/* A tile is planned for an eighth of the tokens, but not for fewer rows than this: with half of them, reading the
 * weights takes longer than multiplying by them. And for no more bytes than this. */
static const int64_t LEAST_ROWS = 256, MOST_BYTES = 1 << 30;
/* Sums over V: so many pieces, of whole units, and a rest. */
static const int64_t PIECES = 16, PIECE_UNIT = 64;

/* Shared by the kernels of one call; everything lies in scratch. */
typedef struct head {
    void *workspace;
    int32_t *row, *n_rows; /* rows with a target, ascending; how many */
    void *h;               /* [tile][c] of the compute type */
    float *logits;         /* [tile][v]; then gradients of the compute type, row begins unchanged */
    float *parts;          /* [count_parts(v)][rows][c]: dh */
    double *nll;           /* [T], in the order of `row` */
    int64_t tile;          /* rows at once */
} head_t;

/* Of V, the length of each of PIECES; 0: there is the rest alone. */
static int64_t piece_length(int64_t v)
{
    return v / PIECES / PIECE_UNIT * PIECE_UNIT;
}

/* Sums that are added up: those of the pieces, and of the rest. */
static int64_t count_parts(int64_t v)
{
    const int64_t length = piece_length(v);
    return (length > 0 ? PIECES : 0) + (PIECES * length < v ? 1 : 0);
}

static head_t lay_out(cuda_arena_t *arena, int64_t tile, int64_t tokens, int64_t c, int64_t v,
                      lrd_dtype_t dtype, bool backward)
{
    const int64_t element = dtype == LRD_F32 ? 4 : 2;
    head_t h;
    h.tile = tile;
    h.workspace = cuda_take<uint8_t>(arena, CUDA_WORKSPACE);
    h.row = cuda_take<int32_t>(arena, tokens);
    h.n_rows = cuda_take<int32_t>(arena, 1);
    h.h = cuda_take<uint8_t>(arena, tile * c * element);
    h.logits = cuda_take<float>(arena, tile * v);
    h.parts = cuda_take<float>(arena, backward ? count_parts(v) * tile * c : 0);
    h.nll = cuda_take<double>(arena, tokens);
    return h;
}

/* Bytes of scratch for each TILE_UNIT rows of a tile, and beside them. */
typedef struct need {
    int64_t unit, beside;
} need_t;

static need_t measure(int64_t tokens, int64_t c, int64_t v, lrd_dtype_t dtype, bool backward)
{
    cuda_arena_t none = {}, one = {};
    lay_out(&none, 0, tokens, c, v, dtype, backward);
    lay_out(&one, TILE_UNIT, tokens, c, v, dtype, backward);
    return {(int64_t)(one.used - none.used), (int64_t)none.used};
}

size_t cuda_linear_ce_scratch(const lrd_limits_t *l)
{
    const need_t need = measure(l->tokens, l->hidden, l->vocab, l->compute, l->training);
    const int64_t wanted = cuda_larger(l->tokens / 8, LEAST_ROWS) / TILE_UNIT,
                  most = cuda_smaller(cuda_ceil_div(l->tokens, TILE_UNIT), MOST_BYTES / need.unit);
    return (size_t)(need.beside + cuda_larger(cuda_smaller(wanted, most), 1) * need.unit);
}

/* As many rows as there is room for: the scratch may have been planned for more tokens, or for another op. */
static int64_t largest_tile(lrd_scratch_t scratch, const need_t *need)
{
    const int64_t units = ((int64_t)scratch.bytes - need->beside) / need->unit;
    return cuda_larger(units, 1) * TILE_UNIT;
}

/* One block: the rows with a target in order. */
__global__ void __launch_bounds__(LIST_THREADS)
    list_targets_kernel(const int32_t *target, int64_t tokens, int32_t *row, int32_t *n_rows,
                        float *token_nll)
{
    int32_t before = 0, all;
    for (int64_t t0 = 0; t0 < tokens; t0 += LIST_THREADS) {
        const int64_t t = t0 + threadIdx.x;
        const bool listed = t < tokens && target[t] >= 0;
        const int32_t at = before + block_before(listed ? 1 : 0, &all);
        if (t < tokens && token_nll != NULL)
            token_nll[t] = 0;
        if (listed)
            row[at] = (int32_t)t;
        before += all;
    }
    if (threadIdx.x == 0)
        *n_rows = before;
}

/* Row i of the tile from row row[first + i] of h; zeros behind the last. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    gather_kernel(const T *h, int64_t ld, const int32_t *row, const int32_t *n_rows, int64_t first,
                  T *tile, int64_t c, bool wide)
{
    const int64_t i = blockIdx.x;
    if (first + i < *n_rows)
        copy_row(h + row[first + i] * ld, tile + i * c, c, wide);
    else
        zero_row(tile + i * c, c, wide);
}

/* The tile's rows of dh, from the sums [n_parts][gridDim.x][c], to their places. */
template <class T>
__global__ void __launch_bounds__(THREADS)
    scatter_kernel(const float *parts, int64_t n_parts, int64_t c, const int32_t *row,
                   const int32_t *n_rows, int64_t first, T *dh, int64_t ld, bool wide)
{
    const int64_t i = blockIdx.x, rows = gridDim.x;
    if (first + i >= *n_rows)
        return;
    T *out = dh + row[first + i] * ld;
    for (int64_t j = threadIdx.x * PIECE; j < c; j += THREADS * PIECE) {
        float sum[PIECE], part[PIECE];
        load_piece(parts + i * c + j, c - j, wide, 0.0f, sum);
        for (int64_t p = 1; p < n_parts; p++) {
            load_piece(parts + (p * rows + i) * c + j, c - j, wide, 0.0f, part);
            for (int e = 0; e < PIECE; e++)
                sum[e] += part[e];
        }
        store_piece(out + j, c - j, wide, sum);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    zero_rows_kernel(const int32_t *target, T *dh, int64_t ld, int64_t c, bool wide)
{
    const int64_t t = blockIdx.x;
    if (target[t] < 0)
        zero_row(dh + t * ld, c, wide);
}

struct softmax_t {
    float *logits;
    int64_t v, first;
    const int32_t *row, *n_rows, *target;
    double *nll;
    float *token_nll;
    const lrd_step_state_t *state;
    const lrd_ce_call_t *call;
    bool wide;
};

/* A thread's two pieces of the THREADS * CHUNK logits from j0 on, and where each begins; -infinity beyond the row. */
__device__ static __forceinline__ int64_t piece_at(int64_t j0, int which)
{
    return j0 + (which * THREADS + (int64_t)threadIdx.x) * PIECE;
}

__device__ static __forceinline__ void load_logits(const float *x, int64_t j0, int64_t v, bool wide,
                                                   float *out)
{
    for (int p = 0; p < CHUNK / PIECE; p++) {
        const int64_t j = piece_at(j0, p);
        load_piece(x + j, v - j, wide, -INFINITY, out + p * PIECE);
    }
}

/* Largest logit and sum of exp(logit - largest) of a row, to all threads. */
__device__ static void row_statistics(const float *x, int64_t v, bool wide, float *most_out,
                                      double *sum_out)
{
    float most = -INFINITY, sum = 0;
    for (int64_t j0 = 0; j0 < v; j0 += THREADS * CHUNK) {
        float c[CHUNK], peak = most;
        load_logits(x, j0, v, wide, c);
        for (int i = 0; i < CHUNK; i++)
            peak = fmaxf(peak, c[i]);
        sum *= peak > most ? expf(most - peak) : 1.0f;
        most = peak;
        for (int i = 0; i < CHUNK; i++)
            sum += most > -INFINITY ? expf(c[i] - most) : 0.0f;
    }
    *most_out = block_max(most);
    /* A row of -inf alone has no largest value to subtract; threads without a logit have none. */
    const float shift = *most_out > -INFINITY ? *most_out : 0.0f;
    *sum_out = block_sum(most > -INFINITY ? (double)sum * exp((double)most - (double)shift) : 0.0);
    *most_out = shift;
}

/* One block a row. The gradient takes the place of the logits from the front: of 16-bit elements only
 * those of the same pass could still be unread, and all of a pass are read before one is written. */
template <class T, bool backward>
__global__ void __launch_bounds__(THREADS) cross_entropy_kernel(softmax_t k)
{
    const int64_t i = blockIdx.x;
    if (k.first + i >= *k.n_rows)
        return;
    float *x = k.logits + i * k.v;
    const int32_t t = k.row[k.first + i], target = k.target[t];
    const float target_logit = x[target];
    float most;
    double sum;
    row_statistics(x, k.v, k.wide, &most, &sum);
    if (threadIdx.x == 0) {
        const double loss = (double)most + log(sum) - (double)target_logit;
        k.nll[k.first + i] = loss;
        if (k.token_nll != NULL)
            k.token_nll[t] = (float)loss;
    }
    if (!backward)
        return;
    const float g = (float)((k.call != NULL ? k.call->inv_n_target : 1.0) *
                            (k.state != NULL ? (double)k.state->loss_scale : 1.0));
    const float factor = (float)((double)g / sum);
    T *out = (T *)x;
    for (int64_t j0 = 0; j0 < k.v; j0 += THREADS * CHUNK) {
        float c[CHUNK];
        load_logits(x, j0, k.v, k.wide, c);
        __syncthreads();
        for (int p = 0; p < CHUNK / PIECE; p++) {
            const int64_t j = piece_at(j0, p);
            float *piece = c + p * PIECE;
            for (int e = 0; e < PIECE; e++)
                piece[e] = expf(piece[e] - most) * factor - (j + e == target ? g : 0.0f);
            store_piece(out + j, k.v - j, k.wide, piece);
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    sum_nll_kernel(const double *nll, const int32_t *n_rows, const lrd_ce_call_t *call, double *out)
{
    double sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < *n_rows; i += THREADS)
        sum += nll[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        out[call != NULL ? call->number : 0] = sum;
}

/* Sums over `length` of V from v0 on, or one by one over `pieces` times as many, into the parts from `part` on. */
template <class T>
static lrd_status_t run_pieces(lrd_stream_t *st, const lrd_linear_ce_t *a, const head_t *h,
                               int64_t rows, int64_t v0, int64_t length, int64_t pieces,
                               int64_t part)
{
    const int64_t v = a->w->w.rows, c = a->h.cols;
    const lrd_cmat_t w = a->w->w;
    cuda_product_t p = {};
    p.x = {(const T *)h->logits + v0, rows, length, v * (int64_t)(sizeof(float) / sizeof(T)),
           a->h.dtype};
    p.w = {(const T *)w.data + v0 * w.ld, length, c, w.ld, w.dtype};
    p.pieces = pieces;
    p.y = {h->parts + part * rows * c, rows, c, c, LRD_F32};
    p.workspace = h->workspace;
    return cuda_product_run(st, &p);
}

template <class T>
static lrd_status_t tile_backward(lrd_stream_t *st, const lrd_linear_ce_t *a, const head_t *h,
                                  int64_t first, int64_t rows)
{
    const int64_t v = a->w->w.rows, c = a->h.cols, n_parts = count_parts(v);
    const int64_t length = piece_length(v), rest = v - PIECES * length;
    if (length > 0)
        CUDA_TRY(run_pieces<T>(st, a, h, rows, 0, length, PIECES, 0));
    if (rest > 0)
        CUDA_TRY(run_pieces<T>(st, a, h, rows, PIECES * length, rest, 0, n_parts - 1));
    return cuda_launch(st, "scatter_kernel", scatter_kernel<T>, dim3((unsigned)rows), THREADS, 0,
                       h->parts, n_parts, c, h->row, h->n_rows, first, (T *)a->dh.data, a->dh.ld,
                       is_wide(h->parts, c) && is_wide((const T *)a->dh.data, a->dh.ld));
}

template <class T>
static lrd_status_t run_tile(lrd_stream_t *st, const lrd_linear_ce_t *a, const head_t *h,
                             int64_t first, int64_t rows)
{
    const int64_t v = a->w->w.rows, c = a->h.cols;
    const bool backward = a->dh.data != NULL;
    const softmax_t k = {h->logits,
                         v,
                         first,
                         h->row,
                         h->n_rows,
                         a->target,
                         h->nll,
                         a->token_nll,
                         a->state,
                         a->call,
                         is_wide(h->logits, v)};
    CUDA_TRY(cuda_launch(st, "gather_kernel", gather_kernel<T>, dim3((unsigned)rows), THREADS, 0,
                         (const T *)a->h.data, a->h.ld, h->row, h->n_rows, first, (T *)h->h, c,
                         is_wide((const T *)a->h.data, a->h.ld) && is_wide((const T *)h->h, c)));
    cuda_product_t p = {};
    p.x = {h->h, rows, c, c, a->h.dtype};
    p.w = a->w->w;
    p.transposed = true;
    p.y = {h->logits, rows, v, v, LRD_F32};
    p.workspace = h->workspace;
    CUDA_TRY(cuda_product_run(st, &p));
    CUDA_TRY(cuda_launch(st, "cross_entropy_kernel",
                         backward ? cross_entropy_kernel<T, true> : cross_entropy_kernel<T, false>,
                         dim3((unsigned)rows), THREADS, 0, k));
    return backward ? tile_backward<T>(st, a, h, first, rows) : LRD_OK;
}

template <class T>
static lrd_status_t run(lrd_stream_t *st, const lrd_linear_ce_t *a, const head_t *h)
{
    const int64_t tokens = a->h.rows;
    CUDA_TRY(cuda_launch(st, "list_targets_kernel", list_targets_kernel, 1, LIST_THREADS, 0,
                         a->target, tokens, h->row, h->n_rows, a->token_nll));
    if (a->dh.data != NULL)
        CUDA_TRY(cuda_launch(st, "zero_rows_kernel", zero_rows_kernel<T>, dim3((unsigned)tokens),
                             THREADS, 0, a->target, (T *)a->dh.data, a->dh.ld, a->dh.cols,
                             is_wide((const T *)a->dh.data, a->dh.ld)));
    const int64_t n_rows = a->n_targets > 0 ? a->n_targets : tokens;
    for (int64_t first = 0; first < n_rows; first += h->tile)
        CUDA_TRY(run_tile<T>(st, a, h, first, cuda_smaller(h->tile, n_rows - first)));
    return cuda_launch(st, "sum_nll_kernel", sum_nll_kernel, 1, THREADS, 0, h->nll, h->n_rows,
                       a->call, a->nll);
}

lrd_status_t cuda_linear_ce(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_linear_ce_t *a)
{
    cuda_arena_t measured = {}, arena = {(uint8_t *)scratch.data, 0};
    const int64_t tokens = a->h.rows, c = a->h.cols, v = a->w->w.rows;
    const bool backward = a->dh.data != NULL;
    const need_t need = measure(tokens, c, v, a->h.dtype, backward);
    const int64_t tile = largest_tile(scratch, &need);
    lay_out(&measured, tile, tokens, c, v, a->h.dtype, backward);
    CUDA_TRY(cuda_check_scratch(&measured, scratch));
    const head_t h = lay_out(&arena, tile, tokens, c, v, a->h.dtype, backward);
    CUDA_DISPATCH(a->h.dtype, return run<T>(st, a, &h));
}
