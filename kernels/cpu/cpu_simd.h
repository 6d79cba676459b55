/* kernels/cpu/cpu_simd.h -- what the CPU backend's loops share: cloning per instruction set,
 * element conversions and the exponential, all written so that the compiler vectorizes them.
 */
#ifndef LRD_CPU_SIMD_H
#define LRD_CPU_SIMD_H

#include "base/dtype.h"

#include <stdint.h>
#include <string.h>

/* A function compiled for AVX-512, for AVX2 + FMA, and for any x86-64; the loader picks one.
 * Helpers that it calls are LRD_INLINE, so that they are compiled along with it. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)
#define LRD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LRD_CLONES
#endif
#define LRD_INLINE       static inline __attribute__((always_inline))

#define LRD_PRAGMA(text) _Pragma(#text)
#define LRD_SIMD         LRD_PRAGMA(omp simd)

LRD_INLINE float bits_to_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

LRD_INLINE uint32_t f32_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* The conversions of base/dtype.h without branches. */
LRD_INLINE float bf16_to_f32(uint16_t x)
{
    return bits_to_f32((uint32_t)x << 16);
}

LRD_INLINE uint16_t f32_to_bf16(float f)
{
    const uint32_t bits = f32_to_bits(f);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const uint32_t quiet = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

LRD_INLINE float f16_to_f32(uint16_t x)
{
    /* Exponent and fraction moved in place, then 2^112 puts the exponent's bias right, subnormals
     * included. */
    const uint32_t magnitude = (uint32_t)(x & 0x7fffu) << 13, sign = (uint32_t)(x & 0x8000u) << 16;
    const uint32_t finite = f32_to_bits(bits_to_f32(magnitude) * 0x1p112f);
    const uint32_t special = magnitude | 0x7f800000u;
    return bits_to_f32(sign | (magnitude >= 0x0f800000u ? special : finite));
}

LRD_INLINE uint16_t f32_to_f16(float f)
{
    const uint32_t bits = f32_to_bits(f), sign = bits >> 16 & 0x8000u,
                   magnitude = bits & 0x7fffffffu;
    /* Below 2^-14 adding 0.5 aligns the fraction and rounds it to even; above, the carry of integer
     * rounding does. */
    const uint32_t small = f32_to_bits(bits_to_f32(magnitude) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
    uint32_t h = magnitude < 0x38800000u ? small : normal;
    h = magnitude >= 0x477ff000u ? 0x7c00u : h;
    h = magnitude > 0x7f800000u ? 0x7e00u : h;
    return (uint16_t)(sign | h);
}

/* (e^r - 1 - r) / r^2 on [-ln 2 / 2, ln 2 / 2], fitted for least relative error of e^r. */
LRD_INLINE float exp_polynomial(float r)
{
    float p = 1.9790350e-4f;
    p = p * r + 1.3944661e-3f;
    p = p * r + 8.3334967e-3f;
    p = p * r + 4.1666295e-2f;
    p = p * r + 1.6666666e-1f;
    return p * r + 0.5f;
}

/* e^x to 1.2 units in the last place; 0 below -87.3, infinity above 88.7, NaN for NaN. */
LRD_INLINE float exp_f32(float x)
{
    const float magic =
        12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    const float high = x > 88.72283f ? 88.72283f : x;
    const float clamped = high < -87.33654f ? -87.33654f : high;
    const float shifted = clamped * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
    const float y = exp_polynomial(r) * (r * r) + r + 1.0f;
    /* 2^n in two factors, since n reaches 128. */
    const int32_t e = (int32_t)(f32_to_bits(shifted) - f32_to_bits(magic));
    const int32_t half = e >> 1;
    const float scaled = y * bits_to_f32((uint32_t)(half + 127) << 23) *
                         bits_to_f32((uint32_t)(e - half + 127) << 23);
    return x < -87.33654f ? 0.0f : x > 88.72283f ? bits_to_f32(0x7f800000u) : scaled;
}

/* e^x for softmax, x at most a little above 0: 0 below -64, where it is less than 2e-28 of the
 * whole. That also keeps what it is multiplied with from becoming subnormal, which would cost a
 * hundred times the time. */
LRD_INLINE float exp_softmax(float x)
{
    const float magic = 12582912.0f;
    const float clamped = x < -64.0f ? -64.0f : x;
    const float shifted = clamped * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
    const float y = exp_polynomial(r) * (r * r) + r + 1.0f;
    const float scaled = y * bits_to_f32((f32_to_bits(shifted) - f32_to_bits(magic) + 127u) << 23);
    return x < -64.0f ? 0.0f : scaled;
}

/* The same in double, to 1 unit in the last place, for x of at most 0: 0 below -700. Taylor to
 * r^13 / 13!, whose remainder is 4e-18 on [-ln 2 / 2, ln 2 / 2]. */
LRD_INLINE double exp_softmax_f64(double x)
{
    const double magic = 0x1.8p52;
    const double clamped = x < -700.0 ? -700.0 : x;
    const double shifted = clamped * 0x1.71547652b82fep0 + magic;
    const double n = shifted - magic;
    const double r = (clamped - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    const double y = p * (r * r) + r + 1.0;
    uint64_t from, to;
    memcpy(&from, &magic, sizeof from);
    memcpy(&to, &shifted, sizeof to);
    const uint64_t power = (to - from + 1023u) << 52;
    double scale;
    memcpy(&scale, &power, sizeof scale);
    return x < -700.0 ? 0.0 : y * scale;
}

/* Megatron's tanh form of GELU is x * s with s = sigmoid(2 z), z = 0.79788456 x (1 + 0.044715 x^2),
 * since (1 + tanh z) / 2 = sigmoid(2 z). So no digits cancel for large negative x. */
LRD_INLINE float gelu_sigmoid(float x)
{
    const float z2 = 1.59576912f * x * (1.0f + 0.044715f * x * x);
    return 1.0f / (1.0f + exp_f32(-z2));
}

LRD_INLINE float gelu_f32(float x)
{
    return x * gelu_sigmoid(x);
}

/* d gelu / dx = s + x * 2 s (1 - s) * (0.79788456 + 0.1070322243 x^2). Beyond |x| = 30 s (1 - s) is
 * zero and the polynomial is held there, so that 0 times infinity does not arise. */
LRD_INLINE float gelu_derivative_f32(float x)
{
    const float s = gelu_sigmoid(x);
    const float low = x < -30.0f ? -30.0f : x;
    const float c = low > 30.0f ? 30.0f : low;
    return s + x * (2.0f * s * (1.0f - s)) * (0.79788456f + 0.1070322243f * c * c);
}

#endif /* LRD_CPU_SIMD_H */
