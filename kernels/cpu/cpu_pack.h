/* kernels/cpu/cpu_pack.h -- weights copied block by block into the layout that the product kernels
 * read fastest.
 *
 * A block is n columns of a product's right-hand side and k rows (the dimension summed over).
 * Layouts: plain    [k][ld] float32 pairs    [n / 64][k / 2][64][2] bfloat16, pairs of k side by
 * side: oneDNN's blocked layout BA16a64b2a Rows and columns beyond k and n, up to what the layout
 * rounds to, are zero.
 */
#ifndef LRD_CPU_PACK_H
#define LRD_CPU_PACK_H

#include "kernels/ops.h"

enum { PACK_PANEL = 64 };

typedef struct pack_layout {
    bool pairs;        /* bfloat16, two rows side by side; else float32 */
    int64_t panel;     /* columns of a panel: 64 with pairs, else all of them */
    int64_t ld;        /* 32-bit elements between rows of a panel (pairs of rows, with pairs) */
    int64_t k_rounded; /* rows of a panel: k, with pairs rounded up to 32 */
} pack_layout_t;

pack_layout_t pack_layout_plain(int64_t n, int64_t k);
pack_layout_t pack_layout_pairs(int64_t k);

/* Bytes of a packed block. */
size_t pack_bytes(const pack_layout_t *layout, int64_t n);

/* Packs the block whose right-hand side is element (k, n) = src[k * row_stride + n] (transposed ==
 * false) or src[n * row_stride + k] (transposed == true). src of F32, BF16 or F16; of BF16 with
 * pairs. */
void pack_block(const pack_layout_t *layout, lrd_dtype_t dtype, const void *src, int64_t row_stride,
                bool transposed, int64_t n, int64_t k, void *dst);

#endif /* LRD_CPU_PACK_H */
