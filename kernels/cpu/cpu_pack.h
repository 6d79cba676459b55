/* kernels/cpu/cpu_pack.h -- the right-hand side of a product in the layout of cpu_micro.h.
 *
 *   panel[p][k][j] = element (k, 32 p + j)       float32; columns beyond n are zero
 *   panel[p][k][j] = elements (2 k, 32 p + j) and (2 k + 1, 32 p + j)     pairs of bfloat16
 */
#ifndef LRD_CPU_PACK_H
#define LRD_CPU_PACK_H

#include "kernels/cpu/cpu_micro.h"
#include "kernels/ops.h"

static inline int64_t pack_panels_of(int64_t n)
{
    return (n + MICRO_PANEL - 1) / MICRO_PANEL;
}

/* Element (k, n) of the right-hand side is src[k * row_stride + n], or src[n * row_stride + k] when
 * transposed: n columns, k elements to sum over. */
typedef struct pack {
    lrd_dtype_t dtype; /* of src: F32, BF16, F16 */
    bool pairs;        /* of BF16 as it is, k even; else widened to float32 */
    bool transposed;
    const void *src;
    int64_t row_stride, n, k;
} pack_t;

/* dst[pack_panels_of(n)][k, or k / 2 with pairs][32], panel_stride elements of 32 bits apart. */
void pack_panels(const pack_t *p, uint32_t *dst, int64_t panel_stride);

#endif /* LRD_CPU_PACK_H */
