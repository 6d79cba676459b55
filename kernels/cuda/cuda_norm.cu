/* Embedding, residual addition and layer norm: one block of threads a row. Each thread keeps its
 * chunks of the row in shared memory as float32, so that global memory is read and written once. */
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256 };

/* A row of float32 in shared memory; chunks beyond its end are whole. */
static size_t row_bytes(int64_t c)
{
    return (size_t)(cuda_ceil_div(c, CHUNK) * CHUNK) * sizeof(float);
}

/* Shared memory holds n rows, and what sums over a block need. */
static lrd_status_t check_rows(lrd_stream_t *st, int n, int64_t c)
{
    const size_t of_sums = 1024, most = cuda_backend_of(st)->properties.sharedMemPerBlockOptin;
    CUDA_CHECK(n * row_bytes(c) + of_sums <= most, LRD_ERR_UNSUPPORTED,
               "cuda: a norm over %ld elements does not fit the %zu bytes of shared memory that a "
               "block may have "
               "on this device",
               (long)c, most);
    return LRD_OK;
}

/* Words from a row's begin to its second pieces (load_split). */
__device__ static __forceinline__ int64_t row_gap(int64_t c)
{
    return (c + CHUNK - 1) / CHUNK * PIECE;
}

/* Mean and 1 / sqrt(variance + eps) of the row, to every thread. Each reads its own chunks only. */
__device__ static void statistics(const float *row, int64_t c, float eps, float *mean_out,
                                  float *rstd_out)
{
    float sum = 0, square = 0, x[CHUNK];
    for (int64_t j = threadIdx.x * CHUNK; j < c; j += THREADS * CHUNK) {
        load_split(row, row_gap(c), j, x);
        for (int i = 0; i < CHUNK; i++)
            sum += j + i < c ? x[i] : 0.0f;
    }
    const float mean = block_sum(sum) / (float)c;
    for (int64_t j = threadIdx.x * CHUNK; j < c; j += THREADS * CHUNK) {
        load_split(row, row_gap(c), j, x);
        for (int i = 0; i < CHUNK; i++)
            square += j + i < c ? (x[i] - mean) * (x[i] - mean) : 0.0f;
    }
    *mean_out = mean;
    *rstd_out = 1.0f / sqrtf(block_sum(square) / (float)c + eps);
}

/* y = (row - mean) * rstd * gamma + beta */
template <class T>
__device__ static void normalize(const float *row, int64_t c, float mean, float rstd,
                                 const T *gamma, const T *beta, T *y, bool wide)
{
    for (int64_t j = threadIdx.x * CHUNK; j < c; j += THREADS * CHUNK) {
        float x[CHUNK], g[CHUNK], b[CHUNK];
        load_split(row, row_gap(c), j, x);
        load_chunk(gamma + j, c - j, wide, g);
        load_chunk(beta + j, c - j, wide, b);
        for (int i = 0; i < CHUNK; i++)
            g[i] = (x[i] - mean) * rstd * g[i] + b[i];
        store_chunk(y + j, c - j, wide, g);
    }
}

/* Pointers with the elements between their rows. */
template <class T> struct embed_t {
    const int32_t *token;
    const T *table, *gamma, *beta;
    T *y;
    int64_t c, ld_table, ld_y;
    float eps;
    bool wide;
};

template <class T> __global__ void __launch_bounds__(THREADS) embed_kernel(embed_t<T> k)
{
    CUDA_DYNAMIC_SHARED(shared);
    float *row = (float *)shared;
    const int64_t t = blockIdx.x;
    const T *x = k.table + k.token[t] * k.ld_table;
    for (int64_t j = threadIdx.x * CHUNK; j < k.c; j += THREADS * CHUNK) {
        float chunk[CHUNK];
        load_chunk(x + j, k.c - j, k.wide, chunk);
        store_split(row, row_gap(k.c), j, chunk);
    }
    float mean, rstd;
    statistics(row, k.c, k.eps, &mean, &rstd);
    normalize(row, k.c, mean, rstd, k.gamma, k.beta, k.y + t * k.ld_y, k.wide);
}

lrd_status_t cuda_embed_forward(lrd_stream_t *st, lrd_scratch_t, const lrd_embed_fwd_t *a)
{
    CUDA_TRY(check_rows(st, 1, a->y.cols));
    CUDA_SAME_DTYPE("embed_forward", a->y.dtype, a->table.dtype);
    CUDA_SAME_DTYPE("embed_forward", a->y.dtype, a->gamma.dtype);
    CUDA_SAME_DTYPE("embed_forward", a->y.dtype, a->beta.dtype);
    CUDA_DISPATCH(a->y.dtype, {
        embed_t<T> k = {a->token,
                        (const T *)a->table.data,
                        (const T *)a->gamma.data,
                        (const T *)a->beta.data,
                        (T *)a->y.data,
                        a->y.cols,
                        a->table.ld,
                        a->y.ld,
                        a->eps,
                        false};
        k.wide = is_wide(k.table, k.ld_table) && is_wide(k.gamma, 0) && is_wide(k.beta, 0) &&
                 is_wide(k.y, k.ld_y);
        return cuda_launch(st, "embed_kernel", embed_kernel<T>, dim3((unsigned)a->y.rows), THREADS,
                           row_bytes(k.c), k);
    });
}

template <class T> struct addnorm_t {
    const T *x, *delta, *gamma, *beta; /* delta, and with y == NULL gamma and beta, may be NULL */
    T *res, *y;                        /* each may be NULL */
    float *mean, *rstd;                /* each may be NULL */
    int64_t c, ld_x, ld_delta, ld_res, ld_y;
    float eps;
    bool wide;
};

template <class T> __global__ void __launch_bounds__(THREADS) addnorm_kernel(addnorm_t<T> k)
{
    CUDA_DYNAMIC_SHARED(shared);
    float *row = (float *)shared;
    const int64_t t = blockIdx.x;
    for (int64_t j = threadIdx.x * CHUNK; j < k.c; j += THREADS * CHUNK) {
        float x[CHUNK], d[CHUNK];
        load_chunk(k.x + t * k.ld_x + j, k.c - j, k.wide, x);
        if (k.delta != NULL) {
            load_chunk(k.delta + t * k.ld_delta + j, k.c - j, k.wide, d);
            for (int i = 0; i < CHUNK; i++)
                x[i] = as_stored<T>(x[i] + d[i]); /* the norm sees what is stored */
        }
        if (k.res != NULL)
            store_chunk(k.res + t * k.ld_res + j, k.c - j, k.wide, x);
        store_split(row, row_gap(k.c), j, x);
    }
    if (k.y == NULL)
        return;
    float mean, rstd;
    statistics(row, k.c, k.eps, &mean, &rstd);
    normalize(row, k.c, mean, rstd, k.gamma, k.beta, k.y + t * k.ld_y, k.wide);
    if (threadIdx.x == 0 && k.mean != NULL)
        k.mean[t] = mean;
    if (threadIdx.x == 0 && k.rstd != NULL)
        k.rstd[t] = rstd;
}

lrd_status_t cuda_addnorm_forward(lrd_stream_t *st, lrd_scratch_t, const lrd_addnorm_fwd_t *a)
{
    const lrd_dtype_t d = a->x.dtype;
    CUDA_TRY(check_rows(st, 1, a->x.cols));
    if (a->delta.data != NULL)
        CUDA_SAME_DTYPE("addnorm_forward", d, a->delta.dtype);
    if (a->res.data != NULL)
        CUDA_SAME_DTYPE("addnorm_forward", d, a->res.dtype);
    if (a->y.data != NULL) {
        CUDA_SAME_DTYPE("addnorm_forward", d, a->y.dtype);
        CUDA_SAME_DTYPE("addnorm_forward", d, a->gamma.dtype);
        CUDA_SAME_DTYPE("addnorm_forward", d, a->beta.dtype);
    }
    CUDA_DISPATCH(d, {
        addnorm_t<T> k = {(const T *)a->x.data,
                          (const T *)a->delta.data,
                          (const T *)a->gamma.data,
                          (const T *)a->beta.data,
                          (T *)a->res.data,
                          (T *)a->y.data,
                          a->mean,
                          a->rstd,
                          a->x.cols,
                          a->x.ld,
                          a->delta.ld,
                          a->res.ld,
                          a->y.ld,
                          a->eps,
                          false};
        k.wide = is_wide(k.x, k.ld_x) && is_wide(k.delta, k.ld_delta) && is_wide(k.gamma, 0) &&
                 is_wide(k.beta, 0) && is_wide(k.res, k.ld_res) && is_wide(k.y, k.ld_y);
        return cuda_launch(st, "addnorm_kernel", addnorm_kernel<T>, dim3((unsigned)a->x.rows),
                           THREADS, row_bytes(k.c), k);
    });
}

template <class T> struct norm_backward_t {
    const T *dy, *res, *gamma;
    const float *mean, *rstd;
    T *dres;
    int64_t c, ld_dy, ld_res, ld_dres;
    bool accumulate, wide;
};

/* dres (+)= rstd * (d - mean of d - xhat * mean of d xhat), d = dy gamma, xhat = (res - mean) rstd.
 * dres may be dy: a thread writes its chunks after having read them. */
template <class T>
__global__ void __launch_bounds__(THREADS) norm_backward_kernel(norm_backward_t<T> k)
{
    CUDA_DYNAMIC_SHARED(shared);
    const int64_t t = blockIdx.x, gap = row_gap(k.c);
    float *d = (float *)shared, *xhat = d + 2 * gap;
    const float mean = k.mean[t], rstd = k.rstd[t];
    float sum_d = 0, sum_dx = 0;
    for (int64_t j = threadIdx.x * CHUNK; j < k.c; j += THREADS * CHUNK) {
        float dy[CHUNK], x[CHUNK], g[CHUNK];
        load_chunk(k.dy + t * k.ld_dy + j, k.c - j, k.wide, dy);
        load_chunk(k.res + t * k.ld_res + j, k.c - j, k.wide, x);
        load_chunk(k.gamma + j, k.c - j, k.wide, g); /* zero beyond the row, and d with it */
        for (int i = 0; i < CHUNK; i++) {
            g[i] *= dy[i];
            x[i] = (x[i] - mean) * rstd;
            sum_d += g[i];
            sum_dx += g[i] * x[i];
        }
        store_split(d, gap, j, g);
        store_split(xhat, gap, j, x);
    }
    const float mean_d = block_sum(sum_d) / (float)k.c, mean_dx = block_sum(sum_dx) / (float)k.c;
    for (int64_t j = threadIdx.x * CHUNK; j < k.c; j += THREADS * CHUNK) {
        T *dres = k.dres + t * k.ld_dres + j;
        float out[CHUNK] = {0}, own_d[CHUNK], x[CHUNK];
        load_split(d, gap, j, own_d);
        load_split(xhat, gap, j, x);
        if (k.accumulate)
            load_chunk((const T *)dres, k.c - j, k.wide, out);
        for (int i = 0; i < CHUNK; i++)
            out[i] += rstd * (own_d[i] - mean_d - x[i] * mean_dx);
        store_chunk(dres, k.c - j, k.wide, out);
    }
}

lrd_status_t cuda_norm_backward(lrd_stream_t *st, lrd_scratch_t, const lrd_norm_bwd_t *a)
{
    CUDA_TRY(check_rows(st, 2, a->dy.cols));
    CUDA_SAME_DTYPE("norm_backward", a->dy.dtype, a->res.dtype);
    CUDA_SAME_DTYPE("norm_backward", a->dy.dtype, a->gamma.dtype);
    CUDA_SAME_DTYPE("norm_backward", a->dy.dtype, a->dres.dtype);
    CUDA_DISPATCH(a->dy.dtype, {
        norm_backward_t<T> k = {(const T *)a->dy.data,
                                (const T *)a->res.data,
                                (const T *)a->gamma.data,
                                a->mean,
                                a->rstd,
                                (T *)a->dres.data,
                                a->dy.cols,
                                a->dy.ld,
                                a->res.ld,
                                a->dres.ld,
                                a->accumulate,
                                false};
        k.wide = is_wide(k.dy, k.ld_dy) && is_wide(k.res, k.ld_res) && is_wide(k.gamma, 0) &&
                 is_wide(k.dres, k.ld_dres);
        return cuda_launch(st, "norm_backward_kernel", norm_backward_kernel<T>,
                           dim3((unsigned)a->dy.rows), THREADS, 2 * row_bytes(k.c), k);
    });
}
