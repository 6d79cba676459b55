/* kernels/cuda/cuda_choice.h -- which of cuBLASLt's algorithms takes a product.
 *
 * One for each kind of product, whatever the number of rows: the library's first for NOMINAL_ROWS; or, by
 * a tuning file, the one that lora-dist tune found fastest. For numbers of rows that it does not take, the
 * library's first for that number. Nothing is timed in a run, and no choice depends on what ran before.
 */
#ifndef LRD_CUDA_CHOICE_H
#define LRD_CUDA_CHOICE_H

#include "kernels/cuda/cuda_product.h"

#define LT_CALL(call)                                                                          \
    do {                                                                                       \
        const cublasStatus_t called = (call);                                                  \
        CUDA_CHECK(called == CUBLAS_STATUS_SUCCESS, LRD_ERR_DEVICE, "cuBLASLt: %s: %s", #call, \
                   cublasLtGetStatusString(called));                                           \
    } while (0)

/* What cuBLASLt wants to know about one product. */
typedef struct lt_product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
} lt_product_t;

/* cuda_product.cu. Release also what could be described only in part; {} is fine. */
cublasLtEpilogue_t cuda_lt_epilogue(const cuda_product_t *p);
bool cuda_lt_tf32(const cuda_backend_t *be, const cuda_product_t *p);
lrd_status_t cuda_lt_describe(const cuda_backend_t *be, const cuda_product_t *p, int64_t rows,
                              lt_product_t *lt);
void cuda_lt_release(lt_product_t *lt);
lrd_status_t cuda_lt_multiply(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *lt,
                              const cublasLtMatmulAlgo_t *algo);

/* What an algorithm is chosen for; rows are not among it. */
typedef struct product_key {
    int64_t n, k, ld_x, ld_w, ld_y;
    int32_t dtype, y_dtype, transposed, accumulate, epilogue, tf32, pieces;
    uint32_t alignment; /* of all addresses together, at most one load's */
} product_key_t;

typedef struct product_choice {
    product_key_t key;
    bool exists; /* the library has an algorithm for it */
    cublasLtMatmulAlgo_t algo;
    int64_t rows; /* the number that was seen last, and its algorithm; 0: none yet */
    cublasLtMatmulAlgo_t rows_algo;
    float ms, rule_ms; /* where it was timed */
    struct product_choice *next;
} product_choice_t;

/* The choice for a product: made once, then remembered. */
lrd_status_t cuda_choose(lrd_stream_t *st, const cuda_product_t *p, product_choice_t **choice_out);

/* The algorithm for the product's own number of rows; lt describes it. */
lrd_status_t cuda_choice_algo(cuda_backend_t *be, const cuda_product_t *p, const lt_product_t *lt,
                              product_choice_t *choice, const cublasLtMatmulAlgo_t **algo_out);

#endif /* LRD_CUDA_CHOICE_H */
