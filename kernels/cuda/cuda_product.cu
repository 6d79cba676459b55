/* cuBLASLt thinks in columns: a row-major [rows, cols] with ld is its [cols, rows]. So
 * y = x w' is y^ = w^' x^ with ^ for that view, and rows of x are cuBLASLt's columns. */
#include "kernels/cuda/cuda_choice.h"

static cudaDataType_t lt_type(lrd_dtype_t d)
{
    return d == LRD_F32 ? CUDA_R_32F : d == LRD_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

cublasLtEpilogue_t cuda_lt_epilogue(const cuda_product_t *p)
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

void cuda_lt_release(lt_product_t *lt)
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

bool cuda_lt_tf32(const cuda_backend_t *be, const cuda_product_t *p)
{
    return be->tf32 && p->x.dtype == LRD_F32;
}

/* So many matrices, each so many elements behind the one before. */
static lrd_status_t repeat(cublasLtMatrixLayout_t layout, int64_t n, int64_t stride)
{
    const int32_t count = (int32_t)n;
    LT_CALL(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                             sizeof count));
    LT_CALL(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                             &stride, sizeof stride));
    return LRD_OK;
}

lrd_status_t cuda_lt_describe(const cuda_backend_t *be, const cuda_product_t *p, int64_t rows,
                              lt_product_t *lt)
{
    const cudaDataType_t type = lt_type(p->x.dtype), out = lt_type(p->y.dtype);
    LT_CALL(cublasLtMatmulDescCreate(
        &lt->desc, cuda_lt_tf32(be, p) ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
        CUDA_R_32F));
    SET(CUBLASLT_MATMUL_DESC_TRANSA, p->transposed ? CUBLAS_OP_T : CUBLAS_OP_N);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, cuda_lt_epilogue(p));
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
    if (p->pieces > 0) {
        CUDA_TRY(repeat(lt->w, p->pieces, p->w.rows * p->w.ld));
        CUDA_TRY(repeat(lt->x, p->pieces, p->x.cols));
        CUDA_TRY(repeat(lt->y, p->pieces, rows * p->y.ld));
    }
    return LRD_OK;
}

lrd_status_t cuda_lt_multiply(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *lt,
                              const cublasLtMatmulAlgo_t *algo)
{
    const float one = 1, beta = p->accumulate ? 1 : 0;
    LT_CALL(cublasLtMatmul(cuda_backend_of(st)->products, lt->desc, &one, p->w.data, lt->w,
                           p->x.data, lt->x, &beta, p->y.data, lt->y, p->y.data, lt->y, algo,
                           p->workspace, CUDA_WORKSPACE, cuda_stream_of(st)));
    return LRD_OK;
}

lrd_status_t cuda_product_exists(lrd_stream_t *st, const cuda_product_t *p, bool *exists_out)
{
    product_choice_t *choice = NULL;
    CUDA_TRY(cuda_choose(st, p, &choice));
    *exists_out = choice->exists;
    return LRD_OK;
}

static lrd_status_t run(lrd_stream_t *st, const cuda_product_t *p, const lt_product_t *lt,
                        product_choice_t *choice)
{
    const cublasLtMatmulAlgo_t *algo = NULL;
    CUDA_TRY(cuda_choice_algo(cuda_backend_of(st), p, lt, choice, &algo));
    return cuda_lt_multiply(st, p, lt, algo);
}

lrd_status_t cuda_product_run(lrd_stream_t *st, const cuda_product_t *p)
{
    product_choice_t *choice = NULL;
    lt_product_t lt = {};
    if (p->x.rows == 0)
        return LRD_OK;
    CUDA_TRY(cuda_choose(st, p, &choice));
    CUDA_CHECK(choice->exists, LRD_ERR_UNSUPPORTED,
               "cuBLASLt has no algorithm for a product of [., %ld] and [%ld, %ld] in %s",
               (long)p->x.cols, (long)p->w.rows, (long)p->w.cols,
               p->x.dtype == LRD_F32 ? "float32" : "16 bit");
    lrd_status_t status = cuda_lt_describe(cuda_backend_of(st), p, p->x.rows, &lt);
    if (status == LRD_OK)
        status = run(st, p, &lt, choice);
    cuda_lt_release(&lt);
    return status;
}
