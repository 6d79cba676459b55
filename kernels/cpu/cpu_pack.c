#include "kernels/cpu/cpu_pack.h"

#include "kernels/cpu/cpu_simd.h"

#include <string.h>

/* Eight 32-bit lanes. GCC lowers them to what the machine has. */
typedef uint32_t v8u __attribute__((vector_size(32)));
typedef uint16_t v8h __attribute__((vector_size(16)));

LRD_INLINE v8u load8_f32(const void *src)
{
    v8u x;
    memcpy(&x, src, sizeof x);
    return x;
}

LRD_INLINE v8u load8_bf16(const void *src)
{
    v8h x;
    memcpy(&x, src, sizeof x);
    return __builtin_convertvector(x, v8u) << 16;
}

LRD_INLINE v8u load8_f16(const void *src)
{
    const uint16_t *h = src;
    v8u x;
    for (int i = 0; i < 8; i++)
        x[i] = f32_to_bits(f16_to_f32(h[i]));
    return x;
}

/* Transposes 8 x 8 in registers: interleave 32, 64, then 128 bits. */
LRD_INLINE void transpose8(v8u r[8])
{
    v8u t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        u[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* One kind of source, so that the inner loops have no branches on it. `step` is the bytes of a
 * source element; with pairs an "element" is a pair of bfloat16. All counts are in elements. */
typedef v8u (*load8_t)(const void *src);
typedef uint32_t (*load1_t)(const void *src);

LRD_INLINE uint32_t load1_f32(const void *src)
{
    uint32_t x;
    memcpy(&x, src, sizeof x);
    return x;
}

LRD_INLINE uint32_t load1_bf16(const void *src)
{
    uint16_t x;
    memcpy(&x, src, sizeof x);
    return (uint32_t)x << 16;
}

LRD_INLINE uint32_t load1_f16(const void *src)
{
    uint16_t x;
    memcpy(&x, src, sizeof x);
    return f32_to_bits(f16_to_f32(x));
}

enum { CACHE_LINE = 64 };

/* Asks for the eight rows that follow a panel's distance on: rows lie too far apart for the machine
 * to see what comes next (measured with one row to multiply: 33 instead of 17 GB/s on one core). */
LRD_INLINE void fetch_next_panel(const uint8_t *from, int64_t row_bytes)
{
    for (int i = 0; i < 8; i++)
        __builtin_prefetch(from + (MICRO_PANEL + i) * row_bytes, 0, 2);
}

/* One panel of n columns: dst[k][n] = src[n][k]. */
LRD_INLINE void panel_transposed(load8_t load8, load1_t load1, int64_t step, const uint8_t *src,
                                 int64_t row_stride, int64_t n, int64_t k, uint32_t *dst)
{
    for (int64_t n0 = 0; n0 < n; n0 += 8) {
        const int64_t nn = n - n0 < 8 ? n - n0 : 8;
        for (int64_t k0 = 0; k0 < k; k0 += 8) {
            const int64_t nk = k - k0 < 8 ? k - k0 : 8;
            const uint8_t *from = src + (n0 * row_stride + k0) * step;
            uint32_t *to = dst + k0 * MICRO_PANEL + n0;
            if (nk == 8 && nn == 8) {
                v8u r[8];
                if (k0 * step % CACHE_LINE == 0)
                    fetch_next_panel(from, row_stride * step);
                for (int i = 0; i < 8; i++)
                    r[i] = load8(from + i * row_stride * step);
                transpose8(r);
                for (int i = 0; i < 8; i++)
                    memcpy(to + i * MICRO_PANEL, &r[i], sizeof r[i]);
            } else {
                for (int64_t i = 0; i < nn; i++)
                    for (int64_t j = 0; j < nk; j++)
                        to[j * MICRO_PANEL + i] = load1(from + (i * row_stride + j) * step);
            }
        }
    }
}

/* One panel of n columns: dst[k][n] = src[k][n]. */
LRD_INLINE void panel_straight(load8_t load8, load1_t load1, int64_t step, const uint8_t *src,
                               int64_t row_stride, int64_t n, int64_t k, uint32_t *dst)
{
    for (int64_t j = 0; j < k; j++) {
        const uint8_t *from = src + j * row_stride * step;
        uint32_t *to = dst + j * MICRO_PANEL;
        int64_t i = 0;
        for (; i + 8 <= n; i += 8) {
            const v8u x = load8(from + i * step);
            memcpy(to + i, &x, sizeof x);
        }
        for (; i < n; i++)
            to[i] = load1(from + i * step);
    }
}

/* One panel of one pack: n columns from src. */
typedef void panel_t(const uint8_t *src, int64_t row_stride, bool transposed, int64_t n, int64_t k,
                     uint32_t *dst);

#define PANEL(name, load8, load1, step)                                                  \
    LRD_CLONES static void name(const uint8_t *src, int64_t row_stride, bool transposed, \
                                int64_t n, int64_t k, uint32_t *dst)                     \
    {                                                                                    \
        if (transposed)                                                                  \
            panel_transposed(load8, load1, step, src, row_stride, n, k, dst);            \
        else                                                                             \
            panel_straight(load8, load1, step, src, row_stride, n, k, dst);              \
    }

PANEL(panel_f32, load8_f32, load1_f32, 4)
PANEL(panel_bf16, load8_bf16, load1_bf16, 2)
PANEL(panel_f16, load8_f16, load1_f16, 2)

/* In a row of src two neighbours in k are one 32-bit element already; otherwise two rows are
 * interleaved. */
LRD_CLONES static void panel_pairs(const uint8_t *src, int64_t row_stride, bool transposed,
                                   int64_t n, int64_t k, uint32_t *dst)
{
    if (transposed) {
        /* A row may have an odd stride in bfloat16s: addresses are in bytes of 16-bit steps. */
        for (int64_t n0 = 0; n0 < n; n0 += 8) {
            const int64_t nn = n - n0 < 8 ? n - n0 : 8;
            for (int64_t k0 = 0; k0 < k / 2; k0 += 8) {
                const int64_t nk = k / 2 - k0 < 8 ? k / 2 - k0 : 8;
                const uint8_t *from = src + (n0 * row_stride + 2 * k0) * 2;
                uint32_t *to = dst + k0 * MICRO_PANEL + n0;
                if (nk == 8 && nn == 8) {
                    v8u r[8];
                    if (k0 * 4 % CACHE_LINE == 0)
                        fetch_next_panel(from, row_stride * 2);
                    for (int i = 0; i < 8; i++)
                        r[i] = load8_f32(from + i * row_stride * 2);
                    transpose8(r);
                    for (int i = 0; i < 8; i++)
                        memcpy(to + i * MICRO_PANEL, &r[i], sizeof r[i]);
                } else {
                    for (int64_t i = 0; i < nn; i++)
                        for (int64_t j = 0; j < nk; j++)
                            to[j * MICRO_PANEL + i] =
                                load1_f32(from + (i * row_stride + 2 * j) * 2);
                }
            }
        }
        return;
    }
    const uint16_t *rows = (const uint16_t *)src;
    for (int64_t j = 0; j < k; j += 2) {
        const uint16_t *low = rows + j * row_stride, *high = low + row_stride;
        uint32_t *to = dst + j / 2 * MICRO_PANEL;
        LRD_SIMD
        for (int64_t i = 0; i < n; i++)
            to[i] = (uint32_t)low[i] | (uint32_t)high[i] << 16;
    }
}

void pack_panels(const pack_t *p, uint32_t *dst, int64_t panel_stride)
{
    const int64_t element = (int64_t)lrd_dtype_bytes(p->dtype);
    const int64_t k = p->pairs ? p->k / 2 : p->k;
    panel_t *panel = p->pairs               ? panel_pairs
                     : p->dtype == LRD_BF16 ? panel_bf16
                     : p->dtype == LRD_F16  ? panel_f16
                                            : panel_f32;
    for (int64_t n0 = 0; n0 < p->n; n0 += MICRO_PANEL, dst += panel_stride) {
        const int64_t n = p->n - n0 < MICRO_PANEL ? p->n - n0 : MICRO_PANEL;
        const uint8_t *from =
            (const uint8_t *)p->src + n0 * (p->transposed ? p->row_stride : 1) * element;
        panel(from, p->row_stride, p->transposed, n, p->k, dst);
        for (int64_t j = 0; n < MICRO_PANEL && j < k; j++)
            memset(dst + j * MICRO_PANEL + n, 0, (size_t)(MICRO_PANEL - n) * 4);
    }
}
