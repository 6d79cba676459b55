/* cuBLASLt thinks in columns: a row-major [rows, cols] with ld is its [cols, rows]. So
 * y = x w' is y^ = w^' x^ with ^ for that view, and rows of x are cuBLASLt's columns. */
#include "kernels/cuda/cuda_product.h"

#include <stdlib.h>

/* Rows for which the library is asked for its algorithm, whatever the number of rows is. */
enum { NOMINAL_ROWS = 1024 };

/* No more is told of addresses, so that rows further down meet the same algorithm: what one load or
 * one transfer of the tensor memory accelerator wants. */
enum { MOST_ALIGNMENT = 16 };

#define LT_CALL(call)                                                                          \
    do {                                                                                       \
        const cublasStatus_t called = (call);                                                  \
        CUDA_CHECK(called == CUBLAS_STATUS_SUCCESS, LRD_ERR_DEVICE, "cuBLASLt: %s: %s", #call, \
                   cublasLtGetStatusString(called));                                           \
    } while (0)

static cudaDataType_t lt_type(lrd_dtype_t d)
{
    return d == LRD_F32 ? CUDA_R_32F : d == LRD_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static cublasLtEpilogue_t lt_epilogue(const cuda_product_t *p)
{
    const bool bias = p->bias != NULL;
    switch (p->epilogue) {
    case CUDA_EPILOGUE_GELU:
        return bias ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_GELU;
    case CUDA_EPILOGUE_GELU_SAVED:
        return bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case CUDA_EPILOGUE_GELU_DERIVATIVE:
        return CUBLASLT_EPILOGUE_DGELU;
    case CUDA_EPILOGUE_NONE:
        break;
    }
    return bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

/* What cuBLASLt wants to know about one product. */
typedef struct lt_product {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
} lt_product_t;

static void release(lt_product_t *lt)
{
    if (lt->desc != NULL)
        cublasLtMatmulDescDestroy(lt->desc);
    if (lt->w != NULL)
        cublasLtMatrixLayoutDestroy(lt->w);
    if (lt->x != NULL)
        cublasLtMatrixLayoutDestroy(lt->x);
    if (lt->y != NULL)
        cublasLtMatrixLayoutDestroy(lt->y);
}

#define SET(attribute, value)                                                             \
    do {                                                                                  \
        const auto held = (value);                                                        \
        LT_CALL(cublasLtMatmulDescSetAttribute(lt->desc, attribute, &held, sizeof held)); \
    } while (0)

static lrd_status_t describe(const cuda_product_t *p, int64_t rows, lt_product_t *lt)
{
    const cudaDataType_t type = lt_type(p->x.dtype), out = lt_type(p->y.dtype);
    LT_CALL(cublasLtMatmulDescCreate(&lt->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    SET(CUBLASLT_MATMUL_DESC_TRANSA, p->transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, lt_epilogue(p));
    if (p->bias != NULL) {
        SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p->bias);
        SET(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, out);
    }
    if (p->aux.data != NULL) {
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p->aux.data);
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p->aux.ld);
    }
    LT_CALL(cublasLtMatrixLayoutCreate(&lt->w, type, (uint64_t)p->w.cols, (uint64_t)p->w.rows,
                                       p->w.ld));
    LT_CALL(cublasLtMatrixLayoutCreate(&lt->x, type, (uint64_t)p->x.cols, (uint64_t)rows, p->x.ld));
    LT_CALL(cublasLtMatrixLayoutCreate(&lt->y, out, (uint64_t)p->y.cols, (uint64_t)rows, p->y.ld));
    return LRD_OK;
}

/* What an algorithm is chosen for; rows are not among it. */
typedef struct product_key {
    int64_t n, k, ld_x, ld_w, ld_y;
    int32_t dtype, y_dtype, transposed, accumulate, epilogue;
    uint32_t alignment; /* of all addresses together, at most MOST_ALIGNMENT */
} product_key_t;

typedef struct product_choice {
    product_key_t key;
    bool exists; /* the library has an algorithm for it */
    cublasLtMatmulAlgo_t algo;
    struct product_choice *next;
} product_choice_t;

static product_key_t key_of(const cuda_product_t *p)
{
    product_key_t key;
    const uintptr_t all = (uintptr_t)p->x.data | (uintptr_t)p->w.data | (uintptr_t)p->y.data |
                          (uintptr_t)p->bias | (uintptr_t)p->aux.data | MOST_ALIGNMENT;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.n = p->y.cols;
    key.k = p->x.cols;
    key.ld_x = p->x.ld;
    key.ld_w = p->w.ld;
    key.ld_y = p->y.ld;
    key.dtype = p->x.dtype;
    key.y_dtype = p->y.dtype;
    key.transposed = p->transposed;
    key.accumulate = p->accumulate;
    key.epilogue = lt_epilogue(p);
    key.alignment = (uint32_t)(all & -all);
    return key;
}

static lrd_status_t ask(cuda_backend_t *be, const cuda_product_t *p, const lt_product_t *lt,
                        cublasLtMatmulPreference_t preference, product_choice_t *choice)
{
    const uint64_t workspace = CUDA_WORKSPACE;
    const uint32_t no_split = CUBLASLT_REDUCTION_SCHEME_NONE;
    const uint32_t alignment = key_of(p).alignment;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    static const cublasLtMatmulPreferenceAttributes_t addresses[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    LT_CALL(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace));
    LT_CALL(cublasLtMatmulPreferenceSetAttribute(
        preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &no_split, sizeof no_split));
    for (cublasLtMatmulPreferenceAttributes_t at : addresses)
        LT_CALL(cublasLtMatmulPreferenceSetAttribute(preference, at, &alignment, sizeof alignment));
    const cublasStatus_t error = cublasLtMatmulAlgoGetHeuristic(
        be->products, lt->desc, lt->w, lt->x, lt->y, lt->y, preference, 1, &found, &n);
    choice->exists = error == CUBLAS_STATUS_SUCCESS && n == 1;
    if (choice->exists)
        choice->algo = found.algo;
    return LRD_OK;
}

static lrd_status_t ask_nominal(cuda_backend_t *be, const cuda_product_t *p,
                                product_choice_t *choice)
{
    lt_product_t lt = {};
    cublasLtMatmulPreference_t preference;
    LT_CALL(cublasLtMatmulPreferenceCreate(&preference));
    lrd_status_t status = describe(p, NOMINAL_ROWS, &lt);
    if (status == LRD_OK)
        status = ask(be, p, &lt, preference, choice);
    release(&lt);
    cublasLtMatmulPreferenceDestroy(preference);
    return status;
}

/* The algorithm for a product: asked for once, then remembered. */
static lrd_status_t choose(cuda_backend_t *be, const cuda_product_t *p,
                           const product_choice_t **choice_out)
{
    product_choice_t asked = {};
    asked.key = key_of(p);
    for (const product_choice_t *c = be->choices; c != NULL; c = c->next) {
        if (memcmp(&c->key, &asked.key, sizeof asked.key) == 0) {
            *choice_out = c;
            return LRD_OK;
        }
    }
    CUDA_TRY(ask_nominal(be, p, &asked));
    product_choice_t *c = (product_choice_t *)malloc(sizeof *c);
    CUDA_CHECK(c != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    asked.next = be->choices;
    *c = asked;
    be->choices = c;
    *choice_out = c;
    return LRD_OK;
}

lrd_status_t cuda_product_exists(lrd_stream_t *st, const cuda_product_t *p, bool *exists_out)
{
    const product_choice_t *choice = NULL;
    CUDA_TRY(choose(cuda_backend_of(st), p, &choice));
    *exists_out = choice->exists;
    return LRD_OK;
}

void cuda_product_forget(cuda_backend_t *be)
{
    while (be->choices != NULL) {
        product_choice_t *c = be->choices;
        be->choices = c->next;
        free(c);
    }
}

static lrd_status_t multiply(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *lt,
                             const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1, beta = p->accumulate ? 1 : 0;
    LT_CALL(cublasLtMatmul(cuda_backend_of(st)->products, lt->desc, &one, p->w.data, lt->w,
                           p->x.data, lt->x, &beta, p->y.data, lt->y, p->y.data, lt->y, algo,
                           p->workspace, CUDA_WORKSPACE, cuda_stream_of(st)));
    return LRD_OK;
}

lrd_status_t cuda_product_run(lrd_stream_t *st, const cuda_product_t *p)
{
    const product_choice_t *choice = NULL;
    lt_product_t lt = {};
    if (p->x.rows == 0)
        return LRD_OK;
    CUDA_TRY(choose(cuda_backend_of(st), p, &choice));
    CUDA_CHECK(choice->exists, LRD_ERR_UNSUPPORTED,
               "cuBLASLt has no algorithm for a product of [., %ld] and [%ld, %ld] in %s",
               (long)p->x.cols, (long)p->w.rows, (long)p->w.cols,
               p->x.dtype == LRD_F32 ? "float32" : "16 bit");
    lrd_status_t status = describe(p, p->x.rows, &lt);
    if (status == LRD_OK)
        status = multiply(st, p, &lt, &choice->algo);
    release(&lt);
    return status;
}
