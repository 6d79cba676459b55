/* What happens once an update: norm, clock, AdamW; and the small element-wise ops. */
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256, MOST_BLOCKS = 2048 };

/* Blocks for n items, one a thread, the rest in strides. */
static dim3 blocks_for(int64_t n)
{
    return dim3((unsigned)cuda_smaller(cuda_ceil_div(n, THREADS), MOST_BLOCKS));
}

#define FOR_EACH(i, n)                                                     \
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < (n); \
         i += (int64_t)gridDim.x * THREADS)

/* Tensors of one launch; their bounds travel as an argument of the kernel. */
enum { SUMSQ_TENSORS = 128 };

struct bounds_t {
    int64_t begin[SUMSQ_TENSORS + 1];
};

__global__ void __launch_bounds__(THREADS) sumsq_kernel(const float *x, bounds_t b, double *out)
{
    double sum = 0;
    for (int64_t i = b.begin[blockIdx.x] + threadIdx.x; i < b.begin[blockIdx.x + 1]; i += THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

lrd_status_t cuda_sumsq(lrd_stream_t *st, lrd_scratch_t, const lrd_sumsq_t *a)
{
    for (int32_t first = 0; first < a->n_tensors; first += SUMSQ_TENSORS) {
        const int32_t n = (int32_t)cuda_smaller(a->n_tensors - first, SUMSQ_TENSORS);
        bounds_t b;
        for (int32_t i = 0; i <= n; i++)
            b.begin[i] = a->begin[first + i];
        CUDA_TRY(cuda_launch(st, "sumsq_kernel", sumsq_kernel, dim3((unsigned)n), THREADS, 0, a->x,
                             b, a->out + first));
    }
    return LRD_OK;
}

/* torch.amp.GradScaler's constants. */
#define SCALE_BACKOFF         0.5f
#define SCALE_GROWTH          2.0f
#define SCALE_GROWTH_INTERVAL 2000

__device__ static void finish_bad(lrd_step_state_t *s, bool scaler)
{
    const bool searching = scaler && s->loss_scale > 1.0f;
    s->bad_in_a_row += searching ? 0 : 1;
    s->good_steps = 0;
    if (scaler)
        s->loss_scale *= SCALE_BACKOFF;
}

__global__ void step_finish_kernel(const double *sumsq, int32_t n, float max_norm, bool scaler,
                                   lrd_step_state_t *s)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += sumsq[i];
    const double norm = sqrt(sum) / (double)s->loss_scale;
    s->grad_norm = norm;
    s->bad = !(norm <= 1.7976931348623157e308);
    if (s->bad) {
        finish_bad(s, scaler);
        return;
    }
    const double clip = max_norm > 0 ? fmin(1.0, (double)max_norm / (norm + 1e-6)) : 1.0;
    s->grad_factor = (float)(clip / (double)s->loss_scale);
    s->bad_in_a_row = 0;
    s->adam_t++;
    if (scaler && ++s->good_steps == SCALE_GROWTH_INTERVAL) {
        const float grown = s->loss_scale * SCALE_GROWTH;
        s->loss_scale = grown <= 3.402823466e38f ? grown : s->loss_scale;
        s->good_steps = 0;
    }
}

lrd_status_t cuda_step_finish(lrd_stream_t *st, lrd_scratch_t, const lrd_step_finish_t *a)
{
    return cuda_launch(st, "step_finish_kernel", step_finish_kernel, 1, 1, 0, a->sumsq,
                       a->n_tensors, a->max_norm, a->scaler, a->state);
}

struct adam_factors_t {
    float decay, one_minus_beta1, beta2, one_minus_beta2, root_correction2, eps, step_size, factor;
};

__device__ static void adam_factors(const lrd_adamw_t *a, adam_factors_t *k)
{
    const double t = (double)a->state->adam_t, lr = a->lr_table[a->state->adam_t - 1];
    k->decay = (float)(1.0 - lr * a->weight_decay);
    k->one_minus_beta1 = (float)(1.0 - a->beta1);
    k->beta2 = (float)a->beta2;
    k->one_minus_beta2 = (float)(1.0 - a->beta2);
    k->root_correction2 = (float)sqrt(1.0 - pow(a->beta2, t));
    k->eps = (float)a->eps;
    k->step_size = (float)(lr / (1.0 - pow(a->beta1, t)));
    k->factor = a->state->grad_factor;
}

__global__ void __launch_bounds__(THREADS) adamw_kernel(lrd_adamw_t a)
{
    __shared__ adam_factors_t k;
    if (a.state->bad)
        return;
    if (threadIdx.x == 0)
        adam_factors(&a, &k);
    __syncthreads();
    FOR_EACH(i, a.n)
    {
        const float g = a.g[i] * k.factor;
        const float m = a.m[i] + k.one_minus_beta1 * (g - a.m[i]);
        const float v = a.v[i] * k.beta2 + k.one_minus_beta2 * (g * g);
        a.m[i] = m;
        a.v[i] = v;
        a.p[i] = a.p[i] * k.decay - k.step_size * (m / (sqrtf(v) / k.root_correction2 + k.eps));
    }
}

lrd_status_t cuda_adamw(lrd_stream_t *st, lrd_scratch_t, const lrd_adamw_t *a)
{
    return cuda_launch(st, "adamw_kernel", adamw_kernel, blocks_for(a->n), THREADS, 0, *a);
}

__global__ void __launch_bounds__(THREADS) add_kernel(float *dst, const float *src, int64_t n)
{
    FOR_EACH(i, n) dst[i] += src[i];
}

lrd_status_t cuda_add(lrd_stream_t *st, lrd_scratch_t, const lrd_add_t *a)
{
    return cuda_launch(st, "add_kernel", add_kernel, blocks_for(a->n), THREADS, 0, a->dst, a->src,
                       a->n);
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    gather_rows_kernel(const T *x, int64_t ld_x, const int32_t *row, T *y, int64_t ld_y, int64_t c,
                       bool wide)
{
    copy_row(x + row[blockIdx.x] * ld_x, y + blockIdx.x * ld_y, c, wide);
}

lrd_status_t cuda_gather_rows(lrd_stream_t *st, lrd_scratch_t, const lrd_gather_rows_t *a)
{
    CUDA_DISPATCH(a->x.dtype, {
        const T *x = (const T *)a->x.data;
        T *y = (T *)a->y.data;
        return cuda_launch(st, "gather_rows_kernel", gather_rows_kernel<T>,
                           dim3((unsigned)a->y.rows), THREADS, 0, x, a->x.ld, a->row, y, a->y.ld,
                           a->y.cols, is_wide(x, a->x.ld) && is_wide(y, a->y.ld));
    });
}

__device__ static __forceinline__ float to_f32(double x)
{
    return (float)x;
}

template <class From, class To>
__global__ void __launch_bounds__(THREADS) cast_kernel(const From *src, To *dst, int64_t n)
{
    FOR_EACH(i, n) from_f32(to_f32(src[i]), &dst[i]);
}

template <class From> static lrd_status_t cast_from(lrd_stream_t *st, const lrd_cast_t *a)
{
    CUDA_DISPATCH(a->dst_dtype, {
        return cuda_launch(st, "cast_kernel", cast_kernel<From, T>, blocks_for(a->n), THREADS, 0,
                           (const From *)a->src, (T *)a->dst, a->n);
    });
}

lrd_status_t cuda_cast(lrd_stream_t *st, lrd_scratch_t, const lrd_cast_t *a)
{
    if (a->src_dtype == LRD_F64)
        return cast_from<double>(st, a);
    CUDA_DISPATCH(a->src_dtype, return cast_from<T>(st, a));
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    gelu_kernel(const T *pre, int64_t ld_pre, T *y, int64_t ld_y, int64_t c, bool wide)
{
    const int64_t t = blockIdx.x;
    for (int64_t j = ((int64_t)blockIdx.y * THREADS + threadIdx.x) * CHUNK; j < c;
         j += (int64_t)gridDim.y * THREADS * CHUNK) {
        float x[CHUNK];
        load_chunk(pre + t * ld_pre + j, c - j, wide, x);
        for (int i = 0; i < CHUNK; i++)
            x[i] = gelu(x[i]);
        store_chunk(y + t * ld_y + j, c - j, wide, x);
    }
}

lrd_status_t cuda_gelu_forward(lrd_stream_t *st, lrd_scratch_t, const lrd_gelu_fwd_t *a)
{
    const dim3 grid((unsigned)a->pre.rows, (unsigned)cuda_ceil_div(a->pre.cols, THREADS * CHUNK));
    CUDA_DISPATCH(a->pre.dtype, {
        const T *pre = (const T *)a->pre.data;
        T *y = (T *)a->y.data;
        return cuda_launch(st, "gelu_kernel", gelu_kernel<T>, grid, THREADS, 0, pre, a->pre.ld, y,
                           a->y.ld, a->pre.cols, is_wide(pre, a->pre.ld) && is_wide(y, a->y.ld));
    });
}
