/* kernels/cpu/cpu_product.h -- matrix products y = x w' and y = x w.
 *
 *                     columns of w, 128 at a time
 *                    +------+------+------+------+       An item is a chunk of columns and some rows.
 *      rows of x     |      | item |      |      |       Its thread packs the chunk, some of k at a
 *                    |      |      |      |      |       time, multiplies the rows by it, and hands
 *                    +------+------+------+------+       finished float32 tiles to `emit` while they
 *                    |      |      |      |      |       are in its cache: bias, GELU, LoRA and
 *                    +------+------+------+------+       conversion happen there.
 *
 * Every element is one sum in ascending k (cpu_micro.h), so that a row's bits do not depend on the
 * other rows, nor on how the work is cut: items are as the number of threads and rows likes them.
 *
 * Two routes: `widened` multiplies in float32, whatever the operands are stored as; `native`
 * multiplies bfloat16 as it is, on machines where that is faster.
 */
#ifndef LRD_CPU_PRODUCT_H
#define LRD_CPU_PRODUCT_H

#include "kernels/cpu/cpu_backend.h"

enum { PRODUCT_COLS = 128 };

/* A finished tile: rows row .. row + n_rows - 1, columns col .. col + n_cols - 1 of the product,
 * float32. It lies inside one chunk of PRODUCT_COLS columns, and has room for PRODUCT_COLS. */
typedef struct product_tile {
    int64_t row, n_rows, col, n_cols;
    float *value; /* [n_rows][ld]; the emitter may change it */
    int64_t ld;
    int thread;
} product_tile_t;

typedef void (*product_emit_t)(void *context, const product_tile_t *tile);

typedef struct product {
    lrd_cmat_t x; /* [m, k] F32, BF16 or F16 */
    lrd_cmat_t w; /* transposed: [n, k], y = x w^T; else [k, n], y = x w */
    bool transposed;
    int64_t m, n, k;
    bool whole_chunks; /* every tile begins at a multiple of PRODUCT_COLS and fills its chunk */
    product_emit_t emit;
    void *context;
} product_t;

/* Bytes of scratch for one thread, and of shared scratch for products of at most m x k from a
 * compute dtype. */
size_t product_thread_bytes(void);
size_t product_shared_bytes(lrd_dtype_t compute, int64_t m, int64_t k);

/* True: bfloat16 operands of this product are to be multiplied as they are. */
bool product_is_native(const cpu_backend_t *be, lrd_dtype_t x, lrd_dtype_t w, int64_t n, int64_t k,
                       bool transposed);

/* Runs the product; shared and threads as sized above (threads: one part per thread). */
void product_run(cpu_backend_t *be, const product_t *p, void *shared, const cpu_scratch_t *threads);

#endif /* LRD_CPU_PRODUCT_H */
