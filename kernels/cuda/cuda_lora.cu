#include "kernels/cuda/cuda_lora.h"

#include "base/philox.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, RANKS = CUDA_LORA_GROUP, COLUMNS = WARP * CHUNK };

/* Dropout as kernels see it; keep == 0: none. */
struct dropout_t {
    uint64_t seed;
    const uint64_t *row_key;
    uint32_t site, threshold;
    float keep; /* 1 / (1 - p) */
};

static dropout_t dropout_of(const lrd_dropout_t *d)
{
    dropout_t k = {};
    if (d != NULL && d->p > 0)
        k = {d->seed, d->row_key, d->site, lrd_dropout_threshold(d->p), 1.0f / (1.0f - d->p)};
    return k;
}

/* Multiplies columns j .. j + CHUNK - 1 of row t by dropout's mask; j a multiple of 4. */
__device__ static void apply_dropout(const dropout_t &d, int64_t t, int64_t j, float *x)
{
    if (d.keep == 0.0f)
        return;
    const uint64_t key = d.row_key[t];
    for (int q = 0; q < CHUNK / 4; q++) {
        const lrd_philox_t r = lrd_philox4x32(d.seed, (uint32_t)key, (uint32_t)(key >> 32), d.site,
                                              (uint32_t)(j / 4) + (uint32_t)q);
        for (int i = 0; i < 4; i++)
            x[4 * q + i] = r.x[i] >= d.threshold ? x[4 * q + i] * d.keep : 0.0f;
    }
}

/* Each of two lanes that lie `with` apart has N sums, and is left with one half of them, in front, the other lane's added:
 * the half that begins at the place that is returned. */
template <int N> __device__ static __forceinline__ int exchange_sums(float *sum, unsigned with)
{
    const bool upper = (threadIdx.x & with) != 0;
    CUDA_UNROLL for (int i = 0; i < N / 2; i++)
    {
        const float given = upper ? sum[i] : sum[i + N / 2];
        const float kept = upper ? sum[i + N / 2] : sum[i];
        sum[i] = kept + __shfl_xor_sync(FULL_WARP, given, with);
    }
    return upper ? N / 2 : 0;
}

/* ---- project: a warp has some rows, a lane a chunk of every COLUMNS columns */

enum { PROJECT_ROWS = WARP / RANKS };

template <class T> struct project_t {
    const T *x;
    int64_t ld_x, begin, end, cols;
    cuda_factor_t f;
    float scale;
    dropout_t drop;
    float *out;
    int64_t ld_out;
    T *rounded; /* NULL: not wanted */
    int64_t ld_rounded;
    bool wide;
};

/* Rows of columns in shared memory as load_split has them. Gap and distance of rows are such that a warp meets every bank
 * once: with a chunk or a piece each, with 32 neighbouring columns, and with 4 neighbouring columns of RANKS rows. */
__host__ __device__ static constexpr int split_gap(int columns)
{
    return columns / 2 + 16;
}

__host__ __device__ static constexpr int split_ld(int columns)
{
    return columns + 20;
}

enum { FACTOR_LD = split_ld(COLUMNS), FACTOR_GAP = split_gap(COLUMNS) };

/* Ranks r0 .. and columns j0 .. of a factor, zeros beyond its ends; whole groups of RANKS, up to its last one. */
template <int N_RANKS>
__device__ static void load_factor(const cuda_factor_t &f, int64_t cols, int64_t r0, int64_t j0,
                                   float (*tile)[FACTOR_LD])
{
    const bool by_rank = f.r_stride == 1; /* neighbours in memory to neighbouring threads */
    const int64_t left = (f.rank - r0 + RANKS - 1) / RANKS * RANKS;
    const int n = left < N_RANKS ? (int)left : N_RANKS;
    for (int i = (int)threadIdx.x; i < n * COLUMNS; i += THREADS) {
        const int group = i / (RANKS * COLUMNS) * RANKS, in_group = i % (RANKS * COLUMNS);
        const int r = group + (by_rank ? in_group % RANKS : in_group / COLUMNS);
        const int j = by_rank ? in_group / RANKS : in_group % COLUMNS;
        tile[r][split_place(FACTOR_GAP, j)] =
            r0 + r < f.rank && j0 + j < cols ? f.data[(r0 + r) * f.r_stride + (j0 + j) * f.j_stride]
                                             : 0.0f;
    }
}

template <class T> __global__ void __launch_bounds__(THREADS) project_kernel(project_t<T> k)
{
    __align__(16) __shared__ float tile[RANKS][FACTOR_LD];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t row = k.begin + ((int64_t)blockIdx.x * WARPS + warp) * PROJECT_ROWS;
    const int64_t r0 = (int64_t)blockIdx.y * RANKS;
    float sum[PROJECT_ROWS * RANKS] = {};
    for (int64_t j0 = 0; j0 < k.cols; j0 += COLUMNS) {
        const int64_t j = j0 + lane * CHUNK;
        float x[PROJECT_ROWS][CHUNK];
        __syncthreads();
        load_factor<RANKS>(k.f, k.cols, r0, j0, tile);
        __syncthreads();
        for (int i = 0; i < PROJECT_ROWS; i++) {
            const int64_t left = row + i < k.end ? k.cols - j : 0;
            load_chunk(k.x + (row + i) * k.ld_x + j, left, k.wide, x[i]);
            if (left > 0)
                apply_dropout(k.drop, row + i, j, x[i]);
        }
        for (int r = 0; r < RANKS; r++) {
            float f[CHUNK];
            load_split(tile[r], FACTOR_GAP, lane * CHUNK, f);
            for (int c = 0; c < CHUNK; c++)
                for (int i = 0; i < PROJECT_ROWS; i++)
                    sum[i * RANKS + r] = fmaf(x[i][c], f[c], sum[i * RANKS + r]);
        }
    }
    /* All PROJECT_ROWS * RANKS sums over the warp, one to each lane. */
    int own = exchange_sums<WARP>(sum, 16);
    own += exchange_sums<WARP / 2>(sum, 8);
    own += exchange_sums<WARP / 4>(sum, 4);
    own += exchange_sums<WARP / 8>(sum, 2);
    own += exchange_sums<WARP / 16>(sum, 1);
    const int i = own / RANKS, r = own % RANKS;
    if (row + i >= k.end)
        return;
    if (r0 + r < k.f.rank)
        k.out[(row + i) * k.ld_out + r0 + r] = k.scale * sum[0];
    if (k.rounded != NULL)
        from_f32(r0 + r < k.f.rank ? k.scale * sum[0] : 0.0f,
                 &k.rounded[(row + i) * k.ld_rounded + r0 + r]);
}

lrd_status_t cuda_lora_project(lrd_stream_t *st, lrd_cmat_t x, int64_t begin, int64_t end,
                               cuda_factor_t factor, float scale, const lrd_dropout_t *drop,
                               float *out, int64_t ld_out, lrd_mat_t rounded)
{
    const dim3 grid((unsigned)cuda_ceil_div(end - begin, WARPS * PROJECT_ROWS),
                    (unsigned)cuda_ceil_div(factor.rank, RANKS));
    CUDA_DISPATCH(x.dtype, {
        const T *data = (const T *)x.data;
        const project_t<T> k = {data,
                                x.ld,
                                begin,
                                end,
                                x.cols,
                                factor,
                                scale,
                                dropout_of(drop),
                                out,
                                ld_out,
                                (T *)rounded.data,
                                rounded.ld,
                                is_wide(data, x.ld)};
        return cuda_launch(st, "project_kernel", project_kernel<T>, grid, THREADS, 0, k);
    });
}

/* ---- round: a thread has an element */

template <class T>
__global__ void __launch_bounds__(THREADS)
    round_kernel(cuda_factor_t f, float scale, int64_t columns, int64_t rows, T *out, int64_t ld)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x, j = i / columns, r = i % columns;
    if (j < rows)
        from_f32(r < f.rank ? scale * f.data[r * f.r_stride + j * f.j_stride] : 0.0f,
                 &out[j * ld + r]);
}

lrd_status_t cuda_lora_round(lrd_stream_t *st, cuda_factor_t factor, float scale, lrd_mat_t out)
{
    const dim3 grid((unsigned)cuda_ceil_div(out.rows * out.cols, THREADS));
    CUDA_DISPATCH(out.dtype, {
        return cuda_launch(st, "round_kernel", round_kernel<T>, grid, THREADS, 0, factor, scale,
                           out.cols, out.rows, (T *)out.data, out.ld);
    });
}

/* ---- outer: a thread has a chunk of columns, all ranks of a group, every OUTER_LANES-th token */

enum {
    OUTER_CHUNKS = 8,
    OUTER_COLUMNS = OUTER_CHUNKS * CHUNK,
    OUTER_LANES = THREADS / OUTER_CHUNKS
};

/* Where an outer product goes: element (r, j) at data[place_of(r, j)], by rank if neighbours are those of one column. */
struct outer_shape_t {
    int64_t rank, cols;
    bool by_rank;
    __device__ int64_t place_of(int64_t r, int64_t j) const
    {
        return by_rank ? j * rank + r : r * cols + j;
    }
};

template <class T> struct outer_t {
    const T *x;
    int64_t ld_x, begin, end;
    const float *g;
    int64_t ld_g;
    outer_shape_t shape;
    dropout_t drop;
    float *partial; /* a shape for each tile */
    bool wide, wide_g;
};

template <class T>
__device__ static void outer_sums(const outer_t<T> &k, int64_t j, int64_t r0, float *sum)
{
    const int64_t tile = k.begin + (int64_t)blockIdx.y * CUDA_LORA_TILE, cols = k.shape.cols;
    const int64_t end = tile + CUDA_LORA_TILE < k.end ? tile + CUDA_LORA_TILE : k.end;
    for (int64_t t = tile + threadIdx.x / OUTER_CHUNKS; t < end && j < cols; t += OUTER_LANES) {
        const float *own_g = k.g + t * k.ld_g + r0;
        float x[CHUNK], g[RANKS];
        load_chunk(k.x + t * k.ld_x + j, cols - j, k.wide, x);
        apply_dropout(k.drop, t, j, x);
        load_chunk(own_g, k.shape.rank - r0, k.wide_g, g);
        for (int r = 0; r < RANKS; r++)
            for (int c = 0; c < CHUNK; c++)
                sum[r * CHUNK + c] = fmaf(g[r], x[c], sum[r * CHUNK + c]);
    }
}

enum { OUTER_LD = split_ld(OUTER_COLUMNS), OUTER_GAP = split_gap(OUTER_COLUMNS) };

template <class T> __global__ void __launch_bounds__(THREADS) outer_kernel(outer_t<T> k)
{
    __align__(16) __shared__ float part[WARPS][RANKS][OUTER_LD];
    const int64_t j0 = (int64_t)blockIdx.x * OUTER_COLUMNS, r0 = (int64_t)blockIdx.z * RANKS;
    const int chunk = (int)threadIdx.x % OUTER_CHUNKS, warp = (int)threadIdx.x / WARP;
    float sum[RANKS * CHUNK] = {};
    outer_sums(k, j0 + chunk * CHUNK, r0, sum);
    /* Lanes with equal chunk lie OUTER_CHUNKS apart: each of four gets two of the ranks. */
    int first = exchange_sums<RANKS * CHUNK>(sum, OUTER_CHUNKS);
    first += exchange_sums<RANKS * CHUNK / 2>(sum, 2 * OUTER_CHUNKS);
    for (int r = 0; r < RANKS / 4; r++)
        store_split(part[warp][first / CHUNK + r], OUTER_GAP, chunk * CHUNK, sum + r * CHUNK);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < OUTER_COLUMNS * RANKS; i += THREADS) {
        const int r = k.shape.by_rank ? i % RANKS : i / OUTER_COLUMNS;
        const int c = k.shape.by_rank ? i / RANKS : i % OUTER_COLUMNS;
        float s = 0;
        for (int w = 0; w < WARPS; w++)
            s += part[w][r][split_place(OUTER_GAP, c)];
        if (r0 + r < k.shape.rank && j0 + c < k.shape.cols)
            k.partial[(int64_t)blockIdx.y * k.shape.rank * k.shape.cols +
                      k.shape.place_of(r0 + r, j0 + c)] = s;
    }
}

__global__ void __launch_bounds__(THREADS)
    add_partials_kernel(const float *partial, int64_t tiles, int64_t n, int64_t width, float scale,
                        bool accumulate, float *dst, int64_t ld)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    float sum = 0;
    if (i >= n)
        return;
    for (int64_t tile = 0; tile < tiles; tile++)
        sum += partial[tile * n + i];
    float *to = dst + i / width * ld + i % width;
    *to = scale * sum + (accumulate ? *to : 0.0f);
}

lrd_status_t cuda_lora_add_partials(lrd_stream_t *st, const float *partial, int64_t tiles,
                                    int64_t n, int64_t width, float scale, bool accumulate,
                                    float *dst, int64_t ld)
{
    return cuda_launch(st, "add_partials_kernel", add_partials_kernel,
                       dim3((unsigned)cuda_ceil_div(n, THREADS)), THREADS, 0, partial, tiles, n,
                       width, scale, accumulate, dst, ld);
}

int64_t cuda_lora_partials(int64_t rows, int64_t cols, int64_t rank)
{
    return cuda_ceil_div(rows, CUDA_LORA_TILE) * cols * rank;
}

lrd_status_t cuda_lora_outer(lrd_stream_t *st, const cuda_outer_t *o)
{
    const int64_t tiles = cuda_ceil_div(o->end - o->begin, CUDA_LORA_TILE), cols = o->x.cols;
    const outer_shape_t shape = {o->rank, cols, o->r_stride == 1};
    const dim3 grid((unsigned)cuda_ceil_div(cols, OUTER_COLUMNS), (unsigned)tiles,
                    (unsigned)cuda_ceil_div(o->rank, RANKS));
    CUDA_DISPATCH(o->x.dtype, {
        const T *data = (const T *)o->x.data;
        const outer_t<T> k = {data,
                              o->x.ld,
                              o->begin,
                              o->end,
                              o->g,
                              o->ld_g,
                              shape,
                              dropout_of(o->drop),
                              o->partial,
                              is_wide(data, o->x.ld),
                              is_wide(o->g, o->ld_g)};
        CUDA_TRY(cuda_launch(st, "outer_kernel", outer_kernel<T>, grid, THREADS, 0, k));
    });
    return cuda_lora_add_partials(st, o->partial, tiles, o->rank * cols,
                                  shape.by_rank ? o->rank : cols, o->scale, true, o->dst,
                                  shape.by_rank ? o->j_stride : o->r_stride);
}

/* ---- finish: a warp has some rows, a lane a chunk of columns */

enum { FINISH_ROWS = 8, FINISH_RANKS = 16 };

template <class T, class Out> struct finish_t {
    int64_t begin, end, cols;
    const float *product;
    const T *bias, *derivative_at;
    const float *u;
    Out *pre, *y;
    int64_t ld_product, ld_u, ld_derivative_at, ld_pre, ld_y;
    cuda_factor_t f;
    float scale;
    dropout_t drop;
    bool accumulate, gelu, wide, wide_u;
};

/* sum[i][c] = sum over r of u[row + i, r] factor(r, j + c) */
template <class T, class Out>
__device__ static void expand(const finish_t<T, Out> &k, int64_t row, int64_t j0,
                              float (*sum)[CHUNK])
{
    __align__(16) __shared__ float tile[FINISH_RANKS][FACTOR_LD];
    const int lane = (int)threadIdx.x % WARP;
    for (int64_t r0 = 0; r0 < k.f.rank; r0 += FINISH_RANKS) {
        __syncthreads();
        load_factor<FINISH_RANKS>(k.f, k.cols, r0, j0, tile);
        __syncthreads();
        for (int r = 0; r < FINISH_RANKS && r0 + r < k.f.rank; r += PIECE) {
            float u[FINISH_ROWS][PIECE];
            for (int i = 0; i < FINISH_ROWS; i++)
                load_piece(k.u + (row + i) * k.ld_u + r0 + r,
                           row + i < k.end ? k.f.rank - r0 - r : 0, k.wide_u, 0.0f, u[i]);
            for (int p = 0; p < PIECE; p++) {
                float f[CHUNK];
                load_split(tile[r + p], FACTOR_GAP, lane * CHUNK, f);
                for (int i = 0; i < FINISH_ROWS; i++)
                    for (int c = 0; c < CHUNK; c++)
                        sum[i][c] = fmaf(u[i][p], f[c], sum[i][c]);
            }
        }
    }
}

/* One chunk of row t: `v` is the adapter's part, `bias` 0 where there is none. */
template <class T, class Out>
__device__ static void finish_chunk(const finish_t<T, Out> &k, int64_t t, int64_t j,
                                    const float *bias, float *v)
{
    const int64_t left = k.cols - j;
    float x[CHUNK];
    if (k.u != NULL)
        apply_dropout(k.drop, t, j, v);
    for (int c = 0; c < CHUNK; c++)
        v[c] *= k.scale;
    if (k.product != NULL) {
        load_chunk(k.product + (t - k.begin) * k.ld_product + j, left, k.wide, x);
        for (int c = 0; c < CHUNK; c++)
            v[c] += x[c];
    }
    for (int c = 0; c < CHUNK; c++)
        v[c] += bias[c];
    if (k.derivative_at != NULL) {
        load_chunk(k.derivative_at + t * k.ld_derivative_at + j, left, k.wide, x);
        for (int c = 0; c < CHUNK; c++)
            v[c] *= gelu_derivative(x[c]);
    }
    if (k.accumulate) {
        load_chunk((const Out *)k.y + t * k.ld_y + j, left, k.wide, x);
        for (int c = 0; c < CHUNK; c++)
            v[c] += x[c];
    }
    if (k.pre != NULL)
        store_chunk(k.pre + t * k.ld_pre + j, left, k.wide, v);
    for (int c = 0; c < CHUNK && k.gelu; c++)
        v[c] = gelu(v[c]);
    store_chunk(k.y + t * k.ld_y + j, left, k.wide, v);
}

template <class T, class Out>
__global__ void __launch_bounds__(THREADS) finish_kernel(finish_t<T, Out> k)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t j0 = (int64_t)blockIdx.x * COLUMNS, j = j0 + lane * CHUNK;
    const int64_t row = k.begin + ((int64_t)blockIdx.y * WARPS + warp) * FINISH_ROWS;
    float v[FINISH_ROWS][CHUNK] = {};
    float bias[CHUNK] = {0};
    if (k.u != NULL)
        expand(k, row, j0, v);
    if (k.bias != NULL && j < k.cols)
        load_chunk(k.bias + j, k.cols - j, k.wide, bias);
    CUDA_UNROLL for (int i = 0; i < FINISH_ROWS; i++)
    {
        if (row + i < k.end && j < k.cols)
            finish_chunk(k, row + i, j, bias, v[i]);
    }
}

template <class T, class Out> static lrd_status_t finish(lrd_stream_t *st, const cuda_finish_t *f)
{
    const dim3 grid((unsigned)cuda_ceil_div(f->y.cols, COLUMNS),
                    (unsigned)cuda_ceil_div(f->end - f->begin, WARPS * FINISH_ROWS));
    finish_t<T, Out> k = {f->begin,
                          f->end,
                          f->y.cols,
                          f->product,
                          (const T *)f->bias.data,
                          (const T *)f->derivative_at.data,
                          f->u,
                          (Out *)f->pre.data,
                          (Out *)f->y.data,
                          f->ld_product,
                          f->ld_u,
                          f->derivative_at.ld,
                          f->pre.ld,
                          f->y.ld,
                          f->factor,
                          f->u != NULL ? f->scale : 0.0f,
                          dropout_of(f->drop),
                          f->accumulate,
                          f->gelu,
                          false,
                          is_wide(f->u, f->ld_u)};
    k.wide = is_wide(k.product, k.ld_product) && is_wide(k.bias, 0) &&
             is_wide(k.derivative_at, k.ld_derivative_at) && is_wide(k.pre, k.ld_pre) &&
             is_wide(k.y, k.ld_y);
    return cuda_launch(st, "finish_kernel", finish_kernel<T, Out>, grid, THREADS, 0, k);
}

lrd_status_t cuda_linear_finish(lrd_stream_t *st, lrd_dtype_t compute, const cuda_finish_t *f)
{
    CUDA_DISPATCH(compute, {
        if (f->y.dtype == LRD_F32)
            return finish<T, float>(st, f);
        return finish<T, T>(st, f);
    });
}
