/* tests/cuda/emulated/cuda_runtime.h -- CUDA's language and runtime for kernels that run on the CPU:
 * as much of them as kernels/cuda uses, under the same names.
 *
 * The runtime is one device with rules stricter than a GPU's (emu_device.cpp): work is done when
 * somebody waits for it, device memory is out of the host's reach at all other times, and copies
 * between host and device need pinned memory. Kernels run on fibers (emu_fiber.h).
 */
#ifndef LRD_EMULATED_CUDA_RUNTIME_H
#define LRD_EMULATED_CUDA_RUNTIME_H

#include "emu_fiber.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__   static

#define threadIdx    emu_thread_index
#define blockIdx     emu_block_index
#define blockDim     emu_block_size
#define gridDim      emu_grid_size

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};

static inline void __syncthreads()
{
    emu_barrier();
}

static inline void emu_nothing(void *const *, unsigned)
{
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    emu_together(mask, emu_nothing, nullptr);
}

typedef struct emu_shuffle {
    uint64_t value, taken;
    unsigned from;
} emu_shuffle_t;

static inline void emu_run_shuffle(void *const *brought, unsigned mask)
{
    for (unsigned i = 0; i < EMU_WARP; i++) {
        emu_shuffle_t *s = (emu_shuffle_t *)brought[i];
        if (s == nullptr)
            continue;
        if ((mask >> s->from & 1) == 0)
            emu_die("lane %u shuffles from lane %u, which is not in the mask", i, s->from);
        s->taken = ((const emu_shuffle_t *)brought[s->from])->value;
    }
}

template <class T> static inline T emu_shuffle_from(unsigned mask, T value, unsigned from)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves up to 8 bytes");
    emu_shuffle_t s = {0, 0, from};
    memcpy(&s.value, &value, sizeof value);
    emu_together(mask, emu_run_shuffle, &s);
    memcpy(&value, &s.taken, sizeof value);
    return value;
}

template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, unsigned with)
{
    return emu_shuffle_from(mask, value, emu_lane() ^ with);
}

template <class T> static inline T __shfl_sync(unsigned mask, T value, unsigned from)
{
    return emu_shuffle_from(mask, value, from % EMU_WARP);
}

typedef struct emu_ballot {
    bool chosen;
    unsigned lanes;
} emu_ballot_t;

static inline void emu_run_ballot(void *const *brought, unsigned)
{
    unsigned lanes = 0;
    for (unsigned i = 0; i < EMU_WARP; i++)
        lanes |= brought[i] != nullptr && ((const emu_ballot_t *)brought[i])->chosen ? 1u << i : 0;
    for (unsigned i = 0; i < EMU_WARP; i++) {
        if (brought[i] != nullptr)
            ((emu_ballot_t *)brought[i])->lanes = lanes;
    }
}

static inline unsigned __ballot_sync(unsigned mask, bool chosen)
{
    emu_ballot_t b = {chosen, 0};
    emu_together(mask, emu_run_ballot, &b);
    return b.lanes;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

/* One block runs at a time, and its fibers change at barriers only. */
template <class T> static inline T atomicAdd(T *at, T x)
{
    const T before = *at;
    *at = before + x;
    return before;
}

/* A load that passes by the caches. */
template <class T> static inline T __ldcs(const T *at)
{
    if ((uintptr_t)at % sizeof(T) != 0)
        emu_die("a load of %zu bytes from %p", sizeof(T), (const void *)at);
    return *at;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

/* ---- the runtime */

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901
} cudaError_t;

typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph_exec *cudaGraphExec_t;

typedef struct cudaUUID {
    char bytes[16];
} cudaUUID_t;

typedef struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    int major, minor, multiProcessorCount;
    size_t totalGlobalMem, sharedMemPerBlockOptin;
} cudaDeviceProp;

typedef enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
} cudaMemcpyKind;

enum {
    cudaStreamNonBlocking = 1,
    cudaHostAllocDefault = 0,
    cudaEventDefault = 0,
    cudaEventDisableTiming = 2
};
typedef enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 } cudaStreamCaptureMode;
typedef enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8
} cudaFuncAttribute;

#pragma GCC visibility push(default) /* for the emulated NCCL, which is a library of its own */
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaMalloc(void **ptr, size_t bytes);
cudaError_t cudaFree(void *ptr);
cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *ptr);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event); /* as cudaStreamQuery, up to its place */
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void *nodes, size_t *n); /* nodes NULL: counts */
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaStreamQuery(cudaStream_t stream); /* does what can be done at once */
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream);

/* Appends to the stream, or to the graph that it is captured into, what runs when somebody waits for it;
 * what it needs, it holds itself. The default stream (nullptr) is refused. */
cudaError_t emu_enqueue(cudaStream_t stream, std::function<void()> work);

bool emu_is_capturing(); /* some stream is */

/* The same for what waits for other processes: it is called until it answers true. Not in a graph. */
cudaError_t emu_enqueue_until(cudaStream_t stream, std::function<bool()> work);

/* Time as events measure it passes only so, while work runs. LRD_EMULATED_PACE=N: each piece of work takes a millisecond
 * more, and all takes N times as long. */
void emu_spend(double milliseconds);
double emu_clock();                    /* milliseconds */
void emu_pass_to(double milliseconds); /* the clock, unless it is later */

/* Memory of the device that CUDA's and other libraries take for themselves, beside cudaMalloc; false: there is not as
 * much. A graph takes EMU_NODE_BYTES for each piece of work, or LRD_EMULATED_NODE_BYTES; with
 * LRD_EMULATED_GRAPHS_STAY what graphs took that are gone is there for other graphs alone. */
enum { EMU_NODE_BYTES = 10 << 10 };
bool emu_take(size_t bytes);
void emu_give_back(size_t bytes);

/* True: the bytes lie in device memory, or in pinned host memory. */
bool emu_is_device(const void *ptr, size_t bytes);
bool emu_is_pinned(const void *ptr, size_t bytes);
#pragma GCC visibility pop

/* Shared memory that a launch may give a block without cudaFuncSetAttribute, of 48 KiB; and with it, on the smallest device
 * of compute capability 8.0 or later. What a kernel has of its own, which is not seen here, counts too: up to 1 KiB. */
enum { EMU_SHARED = 47 << 10, EMU_SHARED_OPT_IN = 99 << 10, EMU_BLOCK = 1024 };
cudaError_t emu_allow_shared(void (*kernel)(), size_t bytes);
cudaError_t emu_check_launch(void (*kernel)(), dim3 grid, dim3 block, size_t shared_bytes);

template <class... P>
static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int bytes)
{
    return emu_allow_shared((void (*)())kernel, (size_t)bytes);
}

/* What kernel<<<grid, block, shared_bytes, stream>>>(args...) is to nvcc. */
template <class... P, class... A>
static inline cudaError_t emu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                                     size_t shared_bytes, cudaStream_t stream, A... args)
{
    const cudaError_t error = emu_check_launch((void (*)())kernel, grid, block, shared_bytes);
    if (error != cudaSuccess)
        return error;
    const std::tuple<P...> held(args...);
    return emu_enqueue(stream, [=] {
        emu_run_grid(name, grid, block, shared_bytes, [&] { std::apply(kernel, held); });
    });
}

#endif /* LRD_EMULATED_CUDA_RUNTIME_H */
