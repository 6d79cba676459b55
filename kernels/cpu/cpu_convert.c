#include "kernels/cpu/cpu_convert.h"

#include "kernels/cpu/cpu_simd.h"

#include <string.h>

LRD_CLONES static void bf16_to_f32_row(const uint16_t *src, float *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = bf16_to_f32(src[i]);
}

LRD_CLONES static void f16_to_f32_row(const uint16_t *src, float *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = f16_to_f32(src[i]);
}

LRD_CLONES static void f32_to_bf16_row(const float *src, uint16_t *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = f32_to_bf16(src[i]);
}

LRD_CLONES static void f32_to_f16_row(const float *src, uint16_t *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = f32_to_f16(src[i]);
}

LRD_CLONES static void add_f32_row(const float *src, float *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i];
}

LRD_CLONES static void add_bf16_row(const float *src, uint16_t *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = f32_to_bf16(bf16_to_f32(dst[i]) + src[i]);
}

LRD_CLONES static void add_f16_row(const float *src, uint16_t *dst, int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++)
        dst[i] = f32_to_f16(f16_to_f32(dst[i]) + src[i]);
}

void convert_to_f32(lrd_dtype_t dtype, const void *src, float *dst, int64_t n)
{
    if (dtype == LRD_BF16) {
        bf16_to_f32_row(src, dst, n);
    } else if (dtype == LRD_F16) {
        f16_to_f32_row(src, dst, n);
    } else if (dtype == LRD_F64) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)((const double *)src)[i];
    } else {
        memcpy(dst, src, (size_t)n * sizeof(float));
    }
}

void convert_from_f32(lrd_dtype_t dtype, const float *src, void *dst, int64_t n)
{
    if (dtype == LRD_BF16)
        f32_to_bf16_row(src, dst, n);
    else if (dtype == LRD_F16)
        f32_to_f16_row(src, dst, n);
    else
        memcpy(dst, src, (size_t)n * sizeof(float));
}

void add_from_f32(lrd_dtype_t dtype, const float *src, void *dst, int64_t n)
{
    if (dtype == LRD_BF16)
        add_bf16_row(src, dst, n);
    else if (dtype == LRD_F16)
        add_f16_row(src, dst, n);
    else
        add_f32_row(src, dst, n);
}
