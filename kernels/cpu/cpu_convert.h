/* kernels/cpu/cpu_convert.h -- rows of elements from and to float32. */
#ifndef LRD_CPU_CONVERT_H
#define LRD_CPU_CONVERT_H

#include "base/dtype.h"
#include "kernels/ops.h"

#include <stddef.h>
#include <stdint.h>

/* dst[i] = (float)src[i]; src of F32, BF16, F16 or F64. */
void convert_to_f32(lrd_dtype_t dtype, const void *src, float *dst, int64_t n);

/* dst[i] = src[i] rounded to nearest even; dst of F32, BF16 or F16. */
void convert_from_f32(lrd_dtype_t dtype, const float *src, void *dst, int64_t n);

/* dst[i] += src[i], rounded once. */
void add_from_f32(lrd_dtype_t dtype, const float *src, void *dst, int64_t n);

/* Element (row, col) of a matrix. */
static inline const void *mat_at(lrd_cmat_t m, int64_t row, int64_t col)
{
    return (const uint8_t *)m.data + (size_t)(row * m.ld + col) * lrd_dtype_bytes(m.dtype);
}

static inline void *mat_at_mut(lrd_mat_t m, int64_t row, int64_t col)
{
    return (uint8_t *)m.data + (size_t)(row * m.ld + col) * lrd_dtype_bytes(m.dtype);
}

#endif /* LRD_CPU_CONVERT_H */
