/* kernels/cuda/cuda_backend.h -- the CUDA back end's own state, and how its ops launch kernels.
 *
 * C++17 written as C, with templates for element types. The files are compiled by nvcc, and once
 * more for the CPU by tests/cuda, whose headers stand in for CUDA's.
 *
 * An op launches kernels on its stream and waits for nothing. Sums run in an order that the shapes
 * alone decide; no kernel adds floating-point numbers atomically.
 */
#ifndef LRD_CUDA_BACKEND_H
#define LRD_CUDA_BACKEND_H

#include "kernels/ops.h"

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <utility>

/* Tensors of an op's arguments must have one element type; the kernels are made for one. */
#define CUDA_SAME_DTYPE(op, dtype, other)               \
    CUDA_CHECK((dtype) == (other), LRD_ERR_UNSUPPORTED, \
               "cuda: %s: " #other " differs from the other tensors' element type", op)

/* A function of this back end that fails returns at once: nothing here needs to be released. */
#define CUDA_CHECK(condition, code, ...)                              \
    do {                                                              \
        if (!(condition))                                             \
            return lrd_fail((code), __FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

#define CUDA_TRY(call)                     \
    do {                                   \
        const lrd_status_t tried = (call); \
        if (tried != LRD_OK)               \
            return tried;                  \
    } while (0)

/* A call of CUDA's runtime. */
#define CUDA_CALL(call)                                          \
    do {                                                         \
        const cudaError_t called = (call);                       \
        if (called != cudaSuccess)                               \
            return cuda_fail(called, __FILE__, __LINE__, #call); \
    } while (0)

/* Records what CUDA said of a call. Where the device has no memory left for what CUDA takes itself, which no plan
 * counts, that is LRD_ERR_NO_MEMORY, with what is left and what to set; else LRD_ERR_DEVICE. */
lrd_status_t cuda_fail(cudaError_t error, const char *file, int line, const char *call);

typedef struct cuda_backend {
    lrd_backend_t base;
    int device;
    cudaDeviceProp properties;
    cublasLtHandle_t products;
    bool tf32, tunes; /* as lrd_product_options_t */
    /* cuda_choice.cu: algorithms chosen so far; what a tuning file says; what cuda_tuned last listed. */
    struct product_choice *choices;
    lrd_choice_t *tuned, *listed;
    size_t n_tuned;
} cuda_backend_t;

/* cuda_choice.cu */
lrd_status_t cuda_tuned(lrd_backend_t *backend, lrd_tuning_t *tuning_out);
void cuda_choices_forget(cuda_backend_t *be); /* frees all of that */

/* What algorithms are good for: the device and cuBLASLt's version. text[160]. */
void cuda_machine(const cuda_backend_t *be, char text[160]);

typedef struct cuda_stream {
    lrd_stream_t base;
    cudaStream_t stream;
} cuda_stream_t;

typedef struct cuda_event {
    lrd_event_t base;
    cudaEvent_t event;
} cuda_event_t;

static inline cudaEvent_t cuda_event_of(lrd_event_t *event)
{
    return ((cuda_event_t *)event)->event;
}

typedef struct cuda_graph {
    lrd_graph_t base;
    cudaGraphExec_t graph;
} cuda_graph_t;

static inline cudaStream_t cuda_stream_of(lrd_stream_t *st)
{
    return ((cuda_stream_t *)st)->stream;
}

static inline cuda_backend_t *cuda_backend_of(lrd_stream_t *st)
{
    return (cuda_backend_t *)st->backend;
}

static inline int64_t cuda_ceil_div(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

static inline int64_t cuda_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t cuda_larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* kernel<<<grid, block, shared_bytes>>>(args...) on the op's stream, checked. An empty grid is
 * nothing to do. */
template <class... P, class... A>
static lrd_status_t cuda_launch(lrd_stream_t *st, const char *name, void (*kernel)(P...), dim3 grid,
                                dim3 block, size_t shared_bytes, A... args)
{
    const size_t without_asking = 47 << 10; /* 48, with what the kernel has of its own */
    if (grid.x == 0 || grid.y == 0 || grid.z == 0)
        return LRD_OK;
    if (shared_bytes > without_asking)
        CUDA_CALL(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       (int)shared_bytes));
#ifdef __CUDACC__
    kernel<<<grid, block, shared_bytes, cuda_stream_of(st)>>>(static_cast<P>(args)...);
    const cudaError_t error = cudaGetLastError();
#else
    const cudaError_t error = emu_launch(name, kernel, grid, block, shared_bytes,
                                         cuda_stream_of(st), static_cast<P>(args)...);
#endif
    CUDA_CHECK(error == cudaSuccess || error == cudaErrorMemoryAllocation, LRD_ERR_DEVICE,
               "CUDA: kernel %s with %u x %u x %u blocks of %u threads and %zu bytes of shared "
               "memory: %s",
               name, grid.x, grid.y, grid.z, block.x * block.y * block.z, shared_bytes,
               cudaGetErrorString(error));
    return error == cudaSuccess ? LRD_OK : cuda_fail(error, __FILE__, __LINE__, name);
}

/* Runs the statement with T as the element type of a compute dtype. */
#define CUDA_DISPATCH(dtype, ...)    \
    do {                             \
        switch (dtype) {             \
        case LRD_F32: {              \
            typedef float T;         \
            __VA_ARGS__;             \
        } break;                     \
        case LRD_BF16: {             \
            typedef __nv_bfloat16 T; \
            __VA_ARGS__;             \
        } break;                     \
        default: {                   \
            typedef __half T;        \
            __VA_ARGS__;             \
        } break;                     \
        }                            \
    } while (0)

/* Scratch is cut front to back; the same calls measure it (base NULL) and lay it out. */
typedef struct cuda_arena {
    uint8_t *base; /* NULL: to measure */
    size_t used;
} cuda_arena_t;

template <class T> static T *cuda_take(cuda_arena_t *arena, int64_t count)
{
    T *at = arena->base != NULL ? (T *)(arena->base + arena->used) : NULL;
    arena->used += ((size_t)count * sizeof(T) + 255) / 256 * 256;
    return at;
}

static inline lrd_status_t cuda_check_scratch(const cuda_arena_t *arena, lrd_scratch_t scratch)
{
    CUDA_CHECK(arena->used <= scratch.bytes, LRD_ERR_ARG,
               "an op needs %zu bytes of scratch, %zu were given: its shapes exceed the limits it "
               "was sized for",
               arena->used, scratch.bytes);
    return LRD_OK;
}

/* What each family of ops needs at most; lrd_scratch_bytes is the largest. */
size_t cuda_linear_scratch(const lrd_limits_t *limits);
size_t cuda_attn_scratch(const lrd_limits_t *limits);
size_t cuda_single_attn_scratch(const lrd_limits_t *limits);
size_t cuda_linear_ce_scratch(const lrd_limits_t *limits);
size_t cuda_sample_scratch(const lrd_limits_t *limits);

size_t cuda_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *shape);
int64_t cuda_lora_columns(int64_t rank);

/* The table of this back end. */
const lrd_ops_t *lrd_cuda_ops();

#define OP(name, args) \
    lrd_status_t cuda_##name(lrd_stream_t *st, lrd_scratch_t scratch, const args *a);
LRD_OP_LIST(OP)
#undef OP

#endif /* LRD_CUDA_BACKEND_H */
