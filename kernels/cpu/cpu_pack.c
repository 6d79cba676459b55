#include "kernels/cpu/cpu_pack.h"

#include "kernels/cpu/cpu_simd.h"

#include <string.h>

/* Eight 32-bit lanes. GCC lowers them to what the machine has. */
typedef uint32_t v8u __attribute__((vector_size(32)));
typedef uint16_t v8h __attribute__((vector_size(16)));

pack_layout_t pack_layout_plain(int64_t n, int64_t k)
{
    const int64_t columns = (n + 15) / 16 * 16;
    return (pack_layout_t){false, columns, columns + 16, k}; /* + 16: no power-of-two stride */
}

pack_layout_t pack_layout_pairs(int64_t k)
{
    return (pack_layout_t){true, PACK_PANEL, PACK_PANEL, (k + 31) / 32 * 32};
}

size_t pack_bytes(const pack_layout_t *layout, int64_t n)
{
    const int64_t n_panels = (n + layout->panel - 1) / layout->panel;
    const int64_t rows = layout->pairs ? layout->k_rounded / 2 : layout->k_rounded;
    return (size_t)(n_panels * rows * layout->ld) * 4;
}

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

/* One panel of `n` columns: dst[k][n] = src[n][k]. */
LRD_INLINE void panel_transposed(load8_t load8, load1_t load1, int64_t step, const uint8_t *src,
                                 int64_t row_stride, int64_t n, int64_t k, uint32_t *dst,
                                 int64_t ld)
{
    for (int64_t k0 = 0; k0 < k; k0 += 8) {
        const int64_t nk = k - k0 < 8 ? k - k0 : 8;
        for (int64_t n0 = 0; n0 < n; n0 += 8) {
            const int64_t nn = n - n0 < 8 ? n - n0 : 8;
            const uint8_t *from = src + (n0 * row_stride + k0) * step;
            uint32_t *to = dst + k0 * ld + n0;
            if (nk == 8 && nn == 8) {
                v8u r[8];
                for (int i = 0; i < 8; i++)
                    r[i] = load8(from + i * row_stride * step);
                transpose8(r);
                for (int i = 0; i < 8; i++)
                    memcpy(to + i * ld, &r[i], sizeof r[i]);
            } else {
                for (int64_t i = 0; i < nn; i++)
                    for (int64_t j = 0; j < nk; j++)
                        to[j * ld + i] = load1(from + (i * row_stride + j) * step);
            }
        }
    }
}

/* One panel of `n` columns: dst[k][n] = src[k][n]. */
LRD_INLINE void panel_straight(load8_t load8, load1_t load1, int64_t step, const uint8_t *src,
                               int64_t row_stride, int64_t n, int64_t k, uint32_t *dst, int64_t ld)
{
    for (int64_t j = 0; j < k; j++) {
        const uint8_t *from = src + j * row_stride * step;
        uint32_t *to = dst + j * ld;
        int64_t i = 0;
        for (; i + 8 <= n; i += 8) {
            const v8u x = load8(from + i * step);
            memcpy(to + i, &x, sizeof x);
        }
        for (; i < n; i++)
            to[i] = load1(from + i * step);
    }
}

/* One panel of pairs from straight rows: dst[k / 2][n] = {src[k][n], src[k + 1][n]}. A last odd row
 * pairs with 0. */
LRD_INLINE void panel_pairs_straight(const uint16_t *src, int64_t row_stride, int64_t n, int64_t k,
                                     uint32_t *dst, int64_t ld)
{
    for (int64_t j = 0; j < k; j += 2) {
        const uint16_t *low = src + j * row_stride;
        const uint16_t *high = low + row_stride;
        uint32_t *to = dst + j / 2 * ld;
        if (j + 1 < k) {
            LRD_SIMD
            for (int64_t i = 0; i < n; i++)
                to[i] = (uint32_t)low[i] | (uint32_t)high[i] << 16;
        } else {
            for (int64_t i = 0; i < n; i++)
                to[i] = low[i];
        }
    }
}

LRD_CLONES static void pack_panel_f32(const uint8_t *src, int64_t row_stride, bool transposed,
                                      int64_t n, int64_t k, uint32_t *dst, int64_t ld)
{
    if (transposed)
        panel_transposed(load8_f32, load1_f32, 4, src, row_stride, n, k, dst, ld);
    else
        panel_straight(load8_f32, load1_f32, 4, src, row_stride, n, k, dst, ld);
}

LRD_CLONES static void pack_panel_bf16(const uint8_t *src, int64_t row_stride, bool transposed,
                                       int64_t n, int64_t k, uint32_t *dst, int64_t ld)
{
    if (transposed)
        panel_transposed(load8_bf16, load1_bf16, 2, src, row_stride, n, k, dst, ld);
    else
        panel_straight(load8_bf16, load1_bf16, 2, src, row_stride, n, k, dst, ld);
}

LRD_CLONES static void pack_panel_f16(const uint8_t *src, int64_t row_stride, bool transposed,
                                      int64_t n, int64_t k, uint32_t *dst, int64_t ld)
{
    if (transposed)
        panel_transposed(load8_f16, load1_f16, 2, src, row_stride, n, k, dst, ld);
    else
        panel_straight(load8_f16, load1_f16, 2, src, row_stride, n, k, dst, ld);
}

/* Transposed pairs are 32-bit elements already: a pair of k lies side by side in a row of src. */
LRD_CLONES static void pack_panel_pairs(const uint8_t *src, int64_t row_stride, bool transposed,
                                        int64_t n, int64_t k, uint32_t *dst, int64_t ld)
{
    if (!transposed) {
        panel_pairs_straight((const uint16_t *)src, row_stride, n, k, dst, ld);
        return;
    }
    const int64_t whole = k / 2;
    for (int64_t k0 = 0; k0 < whole; k0 += 8) {
        const int64_t nk = whole - k0 < 8 ? whole - k0 : 8;
        for (int64_t n0 = 0; n0 < n; n0 += 8) {
            const int64_t nn = n - n0 < 8 ? n - n0 : 8;
            uint32_t *to = dst + k0 * ld + n0;
            if (nk == 8 && nn == 8) {
                v8u r[8];
                for (int i = 0; i < 8; i++)
                    r[i] = load8_f32(src + ((n0 + i) * row_stride + 2 * k0) * 2);
                transpose8(r);
                for (int i = 0; i < 8; i++)
                    memcpy(to + i * ld, &r[i], sizeof r[i]);
            } else {
                for (int64_t i = 0; i < nn; i++)
                    for (int64_t j = 0; j < nk; j++)
                        to[j * ld + i] =
                            load1_f32(src + ((n0 + i) * row_stride + 2 * (k0 + j)) * 2);
            }
        }
    }
    if (k % 2 != 0) {
        for (int64_t i = 0; i < n; i++)
            dst[whole * ld + i] = load1_bf16(src + (i * row_stride + k - 1) * 2) >> 16;
    }
}

/* Zeros what rounding added to a panel: columns n .. panel - 1, rows k .. k_rounded - 1. */
static void clear_margin(const pack_layout_t *l, int64_t n, int64_t k, uint32_t *dst)
{
    const int64_t rows = l->pairs ? l->k_rounded / 2 : l->k_rounded,
                  filled = l->pairs ? (k + 1) / 2 : k;
    if (n < l->panel) {
        for (int64_t j = 0; j < filled; j++)
            memset(dst + j * l->ld + n, 0, (size_t)(l->panel - n) * 4);
    }
    if (rows > filled)
        memset(dst + filled * l->ld, 0, (size_t)((rows - filled) * l->ld) * 4);
}

void pack_block(const pack_layout_t *layout, lrd_dtype_t dtype, const void *src, int64_t row_stride,
                bool transposed, int64_t n, int64_t k, void *dst)
{
    const int64_t rows = layout->pairs ? layout->k_rounded / 2 : layout->k_rounded;
    const int64_t element = (int64_t)lrd_dtype_bytes(dtype);
    for (int64_t n0 = 0; n0 < n; n0 += layout->panel) {
        const int64_t nn = n - n0 < layout->panel ? n - n0 : layout->panel;
        const uint8_t *from = (const uint8_t *)src + n0 * (transposed ? row_stride : 1) * element;
        uint32_t *to = (uint32_t *)dst + n0 / layout->panel * rows * layout->ld;
        if (layout->pairs)
            pack_panel_pairs(from, row_stride, transposed, nn, k, to, layout->ld);
        else if (dtype == LRD_BF16)
            pack_panel_bf16(from, row_stride, transposed, nn, k, to, layout->ld);
        else if (dtype == LRD_F16)
            pack_panel_f16(from, row_stride, transposed, nn, k, to, layout->ld);
        else
            pack_panel_f32(from, row_stride, transposed, nn, k, to, layout->ld);
        clear_margin(layout, nn, k, to);
    }
}
