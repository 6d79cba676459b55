/* cuBLASLt of the emulated device: column-major products in float32, one term of a sum after the
 * other, in an order that the algorithm says. Sizes, types and addresses are checked when a product is
 * asked for. */
#include "cublasLt.h"

#include "base/dtype.h"
#include "emu_traffic.h"

#include <cstdlib>
#include <vector>

struct emu_lt_handle {
    int products;
};

struct emu_lt_desc {
    cublasComputeType_t compute;
    cublasOperation_t transpose_a;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    void *aux;
    int64_t aux_ld;
    int bias_type;
};

struct emu_lt_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
    int32_t batches;
    int64_t stride;
};

struct emu_lt_preference {
    uint64_t workspace;
    bool may_split;
    uint32_t alignment;
};

namespace
{
/* What a product needs when it runs, held by value. */
struct job_t {
    emu_lt_desc desc;
    emu_lt_layout a, b, d;
    const void *a_data, *b_data;
    void *d_data, *workspace;
    size_t workspace_bytes;
    float alpha, beta;
    int64_t k;
    uint64_t algorithm;
};

/* The algorithms, in the order in which they are recommended: their bits differ, and their times are made
 * up. */
enum { ASCENDING, ODD_LAST, DESCENDING, N_ALGORITHMS };
const double milliseconds[N_ALGORITHMS] = {3, 1, 2};

bool takes(uint64_t algorithm, const emu_lt_layout &d)
{
    return algorithm < N_ALGORITHMS && (algorithm != ODD_LAST || d.cols >= 16);
}

int64_t term(const job_t &j, int64_t i)
{
    if (j.algorithm == ODD_LAST)
        return i < (j.k + 1) / 2 ? 2 * i : 2 * (i - (j.k + 1) / 2) + 1;
    return j.algorithm == DESCENDING ? j.k - 1 - i : i;
}

/* To the ten bits behind the leading one, ties to even. */
float to_tf32(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0xfff + (bits >> 13 & 1)) & ~0x1fffu;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float operand(const job_t &j, float x)
{
    return j.desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? to_tf32(x) : x;
}

size_t bytes_of(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

/* Elements from the first to behind the last of one of the batch. */
int64_t reach(const emu_lt_layout &l)
{
    return (l.cols - 1) * l.ld + l.rows;
}

size_t extent(const emu_lt_layout &l)
{
    return (size_t)((l.batches - 1) * l.stride + reach(l)) * bytes_of(l.type);
}

float get(const void *data, int64_t i, int type)
{
    const uint16_t *half = (const uint16_t *)data;
    return type == CUDA_R_32F   ? ((const float *)data)[i]
           : type == CUDA_R_16F ? lrd_f16_to_f32(half[i])
                                : lrd_bf16_to_f32(half[i]);
}

void put(void *data, int64_t i, int type, float x)
{
    if (type == CUDA_R_32F)
        ((float *)data)[i] = x;
    else
        ((uint16_t *)data)[i] = type == CUDA_R_16F ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
}

double gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
}

double gelu_derivative(double x)
{
    const double t = tanh(0.79788456 * x * (1 + 0.044715 * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * 0.79788456 * (1 + 3 * 0.044715 * x * x);
}

bool has(const job_t &j, cublasLtEpilogue_t what)
{
    return (j.desc.epilogue & what) == what;
}

void finish_element(const job_t &j, int64_t row, int64_t col, float sum)
{
    const int64_t at = col * j.d.ld + row, aux = col * j.desc.aux_ld + row;
    const int type = j.d.type;
    float v = j.alpha * sum;
    if (j.beta != 0)
        v += j.beta * get(j.d_data, at, type);
    if (has(j, CUBLASLT_EPILOGUE_BIAS))
        v += get(j.desc.bias, row, j.desc.bias_type);
    if (has(j, CUBLASLT_EPILOGUE_DGELU)) {
        v = (float)((double)v * gelu_derivative((double)get(j.desc.aux, aux, type)));
    } else if (has(j, CUBLASLT_EPILOGUE_GELU)) {
        if (has(j, CUBLASLT_EPILOGUE_GELU_AUX))
            put(j.desc.aux, aux, type, v);
        v = (float)gelu((double)v);
    }
    put(j.d_data, at, type, v);
}

/* A as [k][rows of D] in float32, so that the inner loop runs along rows. */
std::vector<float> widen_a(const job_t &j)
{
    std::vector<float> a((size_t)(j.k * j.d.rows));
    const bool t = j.desc.transpose_a == CUBLAS_OP_T;
    for (int64_t col = 0; col < j.a.cols; col++)
        for (int64_t row = 0; row < j.a.rows; row++) {
            const int64_t k = t ? row : col, m = t ? col : row;
            a[(size_t)(k * j.d.rows + m)] = operand(j, get(j.a_data, col * j.a.ld + row, j.a.type));
        }
    return a;
}

void run_one(const job_t &j)
{
    if (!EMU_PRODUCTS) { /* zeros, where results would be */
        for (int64_t col = 0; col < j.d.cols; col++)
            memset((char *)j.d_data + (size_t)(col * j.d.ld) * bytes_of(j.d.type), 0,
                   (size_t)j.d.rows * bytes_of(j.d.type));
        return;
    }
    const std::vector<float> a = widen_a(j);
    std::vector<float> sum((size_t)j.d.rows);
    for (int64_t col = 0; col < j.d.cols; col++) {
        sum.assign((size_t)j.d.rows, 0);
        for (int64_t i = 0; i < j.k; i++) {
            const int64_t k = term(j, i);
            const float b = operand(j, get(j.b_data, col * j.b.ld + k, j.b.type));
            const float *from = &a[(size_t)(k * j.d.rows)];
            for (int64_t m = 0; m < j.d.rows; m++)
                sum[(size_t)m] += from[m] * b;
        }
        for (int64_t m = 0; m < j.d.rows; m++)
            finish_element(j, m, col, sum[(size_t)m]);
    }
}

void run(const job_t &all)
{
    if (EMU_PRODUCTS) {
        emu_spend(milliseconds[all.algorithm]);
        memset(all.workspace, 0xff, all.workspace_bytes < 4096 ? all.workspace_bytes : 4096);
    }
    for (int64_t i = 0; i < all.d.batches; i++) {
        job_t j = all;
        j.a_data = (const char *)all.a_data + (size_t)(i * j.a.stride) * bytes_of(j.a.type);
        j.b_data = (const char *)all.b_data + (size_t)(i * j.b.stride) * bytes_of(j.b.type);
        j.d_data = (char *)all.d_data + (size_t)(i * j.d.stride) * bytes_of(j.d.type);
        run_one(j);
    }
}

/* As many of each; what is written does not overlap, nor does an epilogue belong to it. */
bool batches_agree(const emu_lt_desc &desc, const emu_lt_layout &a, const emu_lt_layout &b,
                   const emu_lt_layout &d)
{
    return a.batches == d.batches && b.batches == d.batches && d.batches >= 1 &&
           (d.batches == 1 || (d.stride >= reach(d) && desc.epilogue == CUBLASLT_EPILOGUE_DEFAULT));
}

bool shapes_agree(const emu_lt_desc &desc, const emu_lt_layout &a, const emu_lt_layout &b,
                  const emu_lt_layout &d)
{
    const bool t = desc.transpose_a == CUBLAS_OP_T;
    const bool aux_ok = (desc.epilogue & 128) == 0 ||
                        (desc.aux != nullptr && desc.aux_ld % 8 == 0 && desc.aux_ld >= d.rows);
    const bool bias_ok = (desc.epilogue & CUBLASLT_EPILOGUE_BIAS) == 0 ||
                         (desc.bias != nullptr && desc.bias_type == d.type);
    return (t ? a.cols : a.rows) == d.rows && (t ? a.rows : a.cols) == b.rows && b.cols == d.cols &&
           a.type == b.type && (d.type == a.type || d.type == CUDA_R_32F) && a.ld >= a.rows &&
           b.ld >= b.rows && d.ld >= d.rows && aux_ok && bias_ok && batches_agree(desc, a, b, d);
}

bool on_device(const job_t &j)
{
    const bool bias_ok =
        !has(j, CUBLASLT_EPILOGUE_BIAS) ||
        emu_is_device(j.desc.bias, (size_t)j.d.rows * bytes_of((cudaDataType_t)j.desc.bias_type));
    const emu_lt_layout aux = {j.d.type, j.d.rows, j.d.cols, j.desc.aux_ld, 1, 0};
    const bool aux_ok = (j.desc.epilogue & 128) == 0 || emu_is_device(j.desc.aux, extent(aux));
    return emu_is_device(j.a_data, extent(j.a)) && emu_is_device(j.b_data, extent(j.b)) &&
           emu_is_device(j.d_data, extent(j.d)) && bias_ok && aux_ok &&
           emu_is_device(j.workspace, j.workspace_bytes);
}

/* Of what an epilogue reads and writes beside the product: at most a page. */
uint64_t alignment_of(const emu_lt_desc &desc)
{
    const uintptr_t all = (uintptr_t)desc.bias | (uintptr_t)desc.aux | 4096;
    return all & -all;
}
} // namespace

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS         ? "success"
           : status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported"
                                                   : "invalid value";
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new emu_lt_handle();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion()
{
    return 130000;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t)
{
    *desc = new emu_lt_desc();
    (*desc)->compute = compute;
    (*desc)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

template <class T> static cublasStatus_t take(T *field, const void *value, size_t bytes)
{
    if (bytes != sizeof *field)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&desc->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take(&desc->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return take(&desc->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        return take(&desc->aux, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        return take(&desc->aux_ld, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return take(&desc->bias_type, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    *layout = new emu_lt_layout{type, (int64_t)rows, (int64_t)cols, ld, 1, 0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute,
                                                const void *value, size_t bytes)
{
    return attribute == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT ? take(&layout->batches, value, bytes)
                                                           : take(&layout->stride, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new emu_lt_preference{0, true, 256};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    uint32_t mask = 0;
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        if (take(&mask, value, bytes) != CUBLAS_STATUS_SUCCESS)
            return CUBLAS_STATUS_INVALID_VALUE;
        preference->may_split = mask != CUBLASLT_REDUCTION_SCHEME_NONE;
        return CUBLAS_STATUS_SUCCESS;
    default:
        return take(&preference->alignment, value, bytes);
    }
}

/* The algorithm remembers how much workspace and alignment it was promised, of bias and aux by their addresses. With
 * LRD_EMULATED_BARE_PRODUCTS set there is none that has an epilogue, and the library says so in its second way. While a graph is captured there is
 * none at all: what is chosen must have been chosen before. */
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t *found, int *n_found)
{
    const bool bare = desc->epilogue == CUBLASLT_EPILOGUE_DEFAULT;
    if (!shapes_agree(*desc, *a, *b, *d) || preference->may_split || emu_is_capturing())
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *n_found = 0;
    if (getenv("LRD_EMULATED_BARE_PRODUCTS") != nullptr && !bare) {
        found[(*n_found)++] = {{}, 0, CUBLAS_STATUS_NOT_SUPPORTED};
        return CUBLAS_STATUS_SUCCESS;
    }
    for (uint64_t id = 0; id < N_ALGORITHMS && *n_found < wanted; id++) {
        if (takes(id, *d))
            found[(*n_found)++] = {
                {{preference->workspace, preference->alignment, id, alignment_of(*desc)}},
                preference->workspace,
                CUBLAS_STATUS_SUCCESS};
    }
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                                       cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                       cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                       const cublasLtMatmulAlgo_t *algo,
                                       cublasLtMatmulHeuristicResult_t *result)
{
    if (!shapes_agree(*desc, *a, *b, *d) || !takes(algo->data[2], *d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *result = {*algo, algo->data[0], CUBLAS_STATUS_SUCCESS};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t layout_a, const void *b,
                              cublasLtMatrixLayout_t layout_b, const void *beta, const void *c,
                              cublasLtMatrixLayout_t layout_c, void *d,
                              cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    job_t j = {*desc,
               *layout_a,
               *layout_b,
               *layout_d,
               a,
               b,
               d,
               workspace,
               workspace_bytes,
               *(const float *)alpha,
               *(const float *)beta,
               layout_b->rows,
               algo->data[2]};
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)d;
    if (!shapes_agree(j.desc, j.a, j.b, j.d) || c != d || layout_c != layout_d || !on_device(j))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (workspace_bytes < algo->data[0] || all % algo->data[1] != 0 ||
        alignment_of(j.desc) < algo->data[3] || !takes(j.algorithm, j.d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    handle->products++;
    return emu_enqueue(stream, [j] { run(j); }) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                               : CUBLAS_STATUS_EXECUTION_FAILED;
}
