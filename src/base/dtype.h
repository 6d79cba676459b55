/* base/dtype.h -- element types of tensors, on disk and in memory. */
#ifndef LRD_BASE_DTYPE_H
#define LRD_BASE_DTYPE_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* enumerator, bytes, name in safetensors, name in settings and config.json ("": it has none) */
#define LRD_DTYPE_LIST(X)              \
    X(LRD_F32, 4, "F32", "float32")    \
    X(LRD_BF16, 2, "BF16", "bfloat16") \
    X(LRD_F16, 2, "F16", "float16")    \
    X(LRD_F64, 8, "F64", "float64")    \
    X(LRD_I64, 8, "I64", "")           \
    X(LRD_U64, 8, "U64", "")           \
    X(LRD_I32, 4, "I32", "")           \
    X(LRD_U32, 4, "U32", "")           \
    X(LRD_I16, 2, "I16", "")           \
    X(LRD_U16, 2, "U16", "")           \
    X(LRD_I8, 1, "I8", "")             \
    X(LRD_U8, 1, "U8", "")             \
    X(LRD_BOOL, 1, "BOOL", "")

typedef enum lrd_dtype {
#define X(name, bytes, file_name, setting_name) name,
    LRD_DTYPE_LIST(X)
#undef X
} lrd_dtype_t;

size_t lrd_dtype_bytes(lrd_dtype_t dtype);
const char *lrd_dtype_file_name(lrd_dtype_t dtype);    /* "BF16" */
const char *lrd_dtype_setting_name(lrd_dtype_t dtype); /* "bfloat16", or "" */

/* From either name. Negative: no such dtype. */
int lrd_dtype_parse(const char *name);

/* One value at a time; IEEE round to nearest, ties to even; NaN stays NaN.
 * Loops over many values live in kernels/. */
static inline float lrd_bf16_to_f32(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t lrd_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40u); /* quiet NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float lrd_f16_to_f32(uint16_t x)
{
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, exponent = x >> 10 & 0x1fu,
                   fraction = x & 0x3ffu;
    uint32_t bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        const float tiny = (float)fraction * 0x1p-24f; /* subnormal: exact */
        memcpy(&bits, &tiny, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t lrd_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000u);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u); /* NaN */
    if (bits >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (bits <
        0x38800000u) { /* below 2^-14: subnormal; adding 0.5 aligns and rounds the fraction */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f;
        memcpy(&bits, &magnitude, sizeof bits);
        return (uint16_t)(sign | (uint16_t)(bits - 0x3f000000u));
    }
    bits += 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (uint16_t)((bits - 0x38000000u) >> 13));
}

#ifdef __cplusplus
}
#endif
#endif /* LRD_BASE_DTYPE_H */
