/* kernels/cuda/cuda_product.h -- products with a weight, by cuBLASLt. */
#ifndef LRD_CUDA_PRODUCT_H
#define LRD_CUDA_PRODUCT_H

#include "kernels/cuda/cuda_backend.h"

typedef enum cuda_epilogue {
    CUDA_EPILOGUE_NONE,
    CUDA_EPILOGUE_GELU,           /* y = gelu(v) */
    CUDA_EPILOGUE_GELU_SAVED,     /* aux = v, y = gelu(v) */
    CUDA_EPILOGUE_GELU_DERIVATIVE /* y = v * gelu'(aux) */
} cuda_epilogue_t;

/* y = epilogue(v), v = x w' (transposed, w [n, k]) or x w (w [k, n]), plus bias, plus y itself.
 *
 * In pieces: a sum of pieces * k terms, k at a time, without bias and epilogue, not transposed. x and w are of the
 * first piece; those of the next are the next k columns of x, and the next k rows of w. y [pieces][x.rows, n] is the
 * sums one by one, a piece's rows behind those of the piece before. */
typedef struct cuda_product {
    lrd_cmat_t x, w; /* of one compute dtype */
    bool transposed;
    int64_t pieces;   /* 0: one, the whole */
    lrd_mat_t y;      /* of that dtype, or F32 */
    const void *bias; /* [n] of y's dtype, or NULL */
    bool accumulate;
    cuda_epilogue_t epilogue;
    lrd_mat_t aux;   /* of y's dtype; ld a multiple of 8 */
    void *workspace; /* CUDA_WORKSPACE bytes */
} cuda_product_t;

enum { CUDA_WORKSPACE = 32 << 20 };

/* Enqueues it. A row's bits do not depend on how many rows there are, as far as cuBLASLt's kernels
 * treat rows alike: one algorithm serves all numbers of rows, and none splits the sums. */
lrd_status_t cuda_product_run(lrd_stream_t *st, const cuda_product_t *p);

/* Whether the library can do it, with that epilogue, those types and leading dimensions. Asks for
 * every number of rows at once, and reads no data. */
lrd_status_t cuda_product_exists(lrd_stream_t *st, const cuda_product_t *p, bool *exists_out);

#endif /* LRD_CUDA_PRODUCT_H */
