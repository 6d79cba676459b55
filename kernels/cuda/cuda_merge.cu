/* out = w + scale * B A. A thread has one column of a few rows; the sum runs in ascending R with
 * fused steps, and what follows is rounded step by step as kernels/ops.h says. */
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256, ROWS = 8 };

template <class T> struct merge_t {
    const T *w;
    T *out; /* may be w */
    const float *a, *b;
    int64_t n, k, r, ld_w, ld_out, ld_a, ld_b;
    float scale;
};

template <class T> __global__ void __launch_bounds__(THREADS) merge_kernel(merge_t<T> m)
{
    const int64_t col = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    const int64_t row = (int64_t)blockIdx.y * ROWS;
    const int rows = m.n - row < ROWS ? (int)(m.n - row) : (int)ROWS;
    float sum[ROWS] = {0};
    if (col >= m.k)
        return;
    for (int64_t l = 0; l < m.r; l++) {
        const float a = m.a[l * m.ld_a + col];
        for (int i = 0; i < ROWS; i++)
            sum[i] = i < rows ? fmaf(m.b[(row + i) * m.ld_b + l], a, sum[i]) : 0.0f;
    }
    for (int i = 0; i < rows; i++) {
        const float w = to_f32(m.w[(row + i) * m.ld_w + col]);
        from_f32(__fadd_rn(w, __fmul_rn(sum[i], m.scale)), &m.out[(row + i) * m.ld_out + col]);
    }
}

lrd_status_t cuda_merge_weight(lrd_stream_t *st, lrd_scratch_t, const lrd_merge_weight_t *a)
{
    const dim3 grid((unsigned)cuda_ceil_div(a->w.cols, THREADS),
                    (unsigned)cuda_ceil_div(a->w.rows, ROWS));
    CUDA_DISPATCH(a->w.dtype, {
        const merge_t<T> m = {(const T *)a->w.data,
                              (T *)a->out.data,
                              (const float *)a->a.data,
                              (const float *)a->b.data,
                              a->w.rows,
                              a->w.cols,
                              a->a.rows,
                              a->w.ld,
                              a->out.ld,
                              a->a.ld,
                              a->b.ld,
                              a->scale};
        return cuda_launch(st, "merge_kernel", merge_kernel<T>, grid, THREADS, 0, m);
    });
}
