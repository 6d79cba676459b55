/* Few rows times weights as they lie: 16 rows of w by 16 elements of k at a time go through
 * registers, where they are transposed and multiplied, while the memory fetches the next ones. */
#include "kernels/cpu/cpu_micro.h"
#include "kernels/cpu/cpu_simd.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512dq")))
#define BF16   __attribute__((target("avx512f,avx512dq,avx512bf16")))
#define UNROLL LRD_PRAGMA(GCC unroll 16)

/* 16 x 16: interleaves elements of 32 bits, then of 64, 128 and 256. */
AVX512 LRD_INLINE void transpose16(__m512 r[16])
{
    __m512 t[16];
    UNROLL
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL
    for (int i = 0; i < 16; i += 4) {
        UNROLL
        for (int j = 0; j < 2; j++) {
            const __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    /* r[4 g + c] holds columns c, 4 + c, 8 + c, 12 + c of rows 4 g .. 4 g + 3, 128 bits each. */
    UNROLL
    for (int c = 0; c < 4; c++) {
        const __m512 a0 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
        const __m512 a1 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        const __m512 b0 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
        const __m512 b1 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_f32x4(a0, b0, 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(a1, b1, 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(a0, b0, 0xdd);
        t[12 + c] = _mm512_shuffle_f32x4(a1, b1, 0xdd);
    }
    UNROLL
    for (int i = 0; i < 16; i++)
        r[i] = t[i];
}

/* `rows` rows (a constant where it is called) from row i on: their sums come from c and go back. */
#define GROUP(name, attribute, broadcast, multiply_add)                                      \
    attribute LRD_INLINE void name(const micro_direct_t *m, int64_t i, int rows, int64_t k0, \
                                   const __m512 w[16])                                       \
    {                                                                                        \
        const int32_t *a = (const int32_t *)m->a + i * m->a_row + k0;                        \
        float *c = m->c + i * m->ldc;                                                        \
        __m512 acc[8];                                                                       \
        UNROLL                                                                               \
        for (int r = 0; r < rows; r++)                                                       \
            acc[r] = _mm512_loadu_ps(c + r * m->ldc);                                        \
        UNROLL                                                                               \
        for (int k = 0; k < 16; k++) {                                                       \
            UNROLL                                                                           \
            for (int r = 0; r < rows; r++)                                                   \
                acc[r] = multiply_add(acc[r], broadcast(a + r * m->a_row + k), w[k]);        \
        }                                                                                    \
        UNROLL                                                                               \
        for (int r = 0; r < rows; r++)                                                       \
            _mm512_storeu_ps(c + r * m->ldc, acc[r]);                                        \
    }

#define BROADCAST_F32(p)   _mm512_castsi512_ps(_mm512_set1_epi32(*(p)))
#define FMA_F32(c, a, b)   _mm512_fmadd_ps(a, b, c)
#define BROADCAST_PAIRS(p) (__m512bh) _mm512_set1_epi32(*(p))
#define DOT_PAIRS(c, a, b) _mm512_dpbf16_ps(c, a, (__m512bh)_mm512_castps_si512(b))

GROUP(group_f32, AVX512, BROADCAST_F32, FMA_F32)
GROUP(group_pairs, BF16, BROADCAST_PAIRS, DOT_PAIRS)

AVX512 LRD_INLINE __m512 load_32(const uint8_t *p)
{
    return _mm512_loadu_ps(p);
}

AVX512 LRD_INLINE __m512 load_bf16(const uint8_t *p)
{
    const __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}

AVX512 LRD_INLINE __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* step: bytes of an element of w. The rows 16 further on are asked for ahead of time. */
#define DIRECT(name, attribute, load, step, group)                            \
    attribute static void name(const micro_direct_t *m)                       \
    {                                                                         \
        for (int64_t k = 0; k < m->k; k += DIRECT_K) {                        \
            const uint8_t *from = m->w + k * (step);                          \
            __m512 w[16];                                                     \
            UNROLL                                                            \
            for (int j = 0; j < 16; j++) {                                    \
                const uint8_t *row = from + j * m->w_row_bytes;               \
                __builtin_prefetch(row + DIRECT_COLS * m->w_row_bytes, 0, 2); \
                w[j] = load(row);                                             \
            }                                                                 \
            transpose16(w);                                                   \
            int64_t i = 0;                                                    \
            for (; i + 8 <= m->n_rows; i += 8)                                \
                group(m, i, 8, k, w);                                         \
            if (i + 4 <= m->n_rows) {                                         \
                group(m, i, 4, k, w);                                         \
                i += 4;                                                       \
            }                                                                 \
            if (i + 2 <= m->n_rows) {                                         \
                group(m, i, 2, k, w);                                         \
                i += 2;                                                       \
            }                                                                 \
            if (i < m->n_rows)                                                \
                group(m, i, 1, k, w);                                         \
        }                                                                     \
    }

DIRECT(direct_f32, AVX512, load_32, 4, group_f32)
DIRECT(direct_bf16, AVX512, load_bf16, 2, group_f32)
DIRECT(direct_f16, AVX512, load_f16, 2, group_f32)
DIRECT(direct_pairs, BF16, load_32, 4, group_pairs)

void micro_direct_avx512(const micro_direct_t *m)
{
    if (m->dtype == LRD_BF16)
        direct_bf16(m);
    else if (m->dtype == LRD_F16)
        direct_f16(m);
    else
        direct_f32(m);
}

void micro_direct_bf16(const micro_direct_t *m)
{
    if (m->pairs)
        direct_pairs(m);
    else
        micro_direct_avx512(m);
}

#endif
