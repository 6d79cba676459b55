/* kernels/cpu/cpu_product.h -- matrix products by oneDNN, cut so that threads do not change bits.
 *
 *            columns of w, PRODUCT_COLS at a time            An item is one column chunk and some
 * row tiles. Its thread
 *           +----+----+----+----+                            packs the chunk (k rows, PRODUCT_K at
 * a time), multiplies rows    | item        |     |                            each tile by it on
 * its own, and hands every finished of x,   +----+   ...  +-----+ float32 tile to `emit` while it
 * is still in cache: bias, PRODUCT_ROWS  |             |                            GELU, LoRA,
 * conversion happen there. at a time +---+-------------+
 *
 * Tiles and the order of sums depend on the shape alone. oneDNN runs on one thread here: its own
 * threading cuts sums by the number of threads.
 *
 * Two routes: `widened` multiplies in float32 (dnnl_sgemm), whatever the operands are stored as;
 * `native` multiplies bfloat16 as it is (a matmul primitive), on machines where that is faster.
 */
#ifndef LRD_CPU_PRODUCT_H
#define LRD_CPU_PRODUCT_H

#include "kernels/cpu/cpu_backend.h"

enum { PRODUCT_ROWS = 512, PRODUCT_COLS = 128, PRODUCT_K = 4096 };

/* A finished tile: rows row .. row + n_rows - 1, columns col .. col + n_cols - 1 of the product,
 * float32. */
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
    product_emit_t emit;
    void *context;
} product_t;

/* Bytes of scratch for one thread, and of shared scratch for products of at most m x k from a
 * compute dtype. */
size_t product_thread_bytes(int64_t m, int64_t k);
size_t product_shared_bytes(lrd_dtype_t compute, int64_t m, int64_t k);

/* True: bfloat16 operands of this product are to be multiplied as they are (where oneDNN has a
 * kernel for it). */
bool product_is_native(const cpu_backend_t *be, lrd_dtype_t x, lrd_dtype_t w, int64_t n, int64_t k,
                       bool transposed);

/* Runs the product; shared and threads as sized above (threads: one part per thread). */
lrd_status_t product_run(cpu_backend_t *be, const product_t *p, void *shared,
                         const cpu_scratch_t *threads);

/* oneDNN's compiled bfloat16 products, by shape. */
lrd_status_t product_cache_create(product_cache_t **cache_out);
void product_cache_destroy(product_cache_t *cache);

#endif /* LRD_CPU_PRODUCT_H */
