/* kernels/cpu/cpu_lora.h -- the low-rank half of a linear: thin products, with dropout made
 * on the way. All sums run in a fixed order; R is handled eight at a time.
 */
#ifndef LRD_CPU_LORA_H
#define LRD_CPU_LORA_H

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_product.h"

enum { LORA_TOKENS = 1024 }; /* dA and dB are summed over tiles of at most this many tokens */

/* A factor copied for the loops below: [R rounded up to 8][columns rounded up to 16], zeros in the
 * margin. */
typedef struct lora_factor {
    const float *value;
    int64_t r, ld;
} lora_factor_t;

size_t lora_factor_bytes(int64_t r, int64_t columns);
/* From m [R, columns] (transposed == false) or [columns, R]. value: lora_factor_bytes. */
lora_factor_t lora_factor_make(lrd_cmat_t m, bool transposed, float *value);

/* Bytes of thread scratch that the functions below need, for rank r and rows of k columns. */
size_t lora_thread_bytes(int64_t r, int64_t k);

/* u[t, i] = scale * sum_j dropout(x)[t, j] f[i, j] for rows begin .. end - 1 of x; u has ldu
 * columns a row. drop may be NULL. `offset`: where this use's part of each thread's scratch begins.
 */
void lora_project(cpu_backend_t *be, lrd_cmat_t x, int64_t begin, int64_t end, lora_factor_t f,
                  float scale, const lrd_dropout_t *drop, float *u, int64_t ldu,
                  const cpu_scratch_t *threads, size_t offset);

/* tile[t, j] += scale * mask(t, j) * sum_i u[t, i] m(i, j) for the tile's rows within begin .. end
 * - 1, where m is [R, columns] (transposed == false) or [columns, R]. drop NULL: mask is 1. Runs on
 * the calling thread. */
void lora_expand(const product_tile_t *tile, int64_t begin, int64_t end, lrd_cmat_t m,
                 bool transposed, float scale, const float *u, int64_t ldu,
                 const lrd_dropout_t *drop, void *thread_scratch);

/* out += scale * u^T dropout(x) over rows begin .. end - 1: [R, columns], or [columns, R] when
 * transposed. */
void lora_outer(cpu_backend_t *be, lrd_cmat_t x, int64_t begin, int64_t end, const float *u,
                int64_t ldu, int64_t r, float scale, const lrd_dropout_t *drop, bool transposed,
                lrd_mat_t out, const cpu_scratch_t *threads, size_t offset);

#endif /* LRD_CPU_LORA_H */
