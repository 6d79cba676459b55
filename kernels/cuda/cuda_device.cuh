/* kernels/cuda/cuda_device.cuh -- what kernels share: element types, wide loads and stores, sums
 * over warps and blocks. */
#ifndef LRD_CUDA_DEVICE_CUH
#define LRD_CUDA_DEVICE_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
/* Shared memory of the size that the launch gives, aligned to 128 bytes. */
#define CUDA_DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
/* Before a loop whose arrays must stay in registers. */
#define CUDA_UNROLL               _Pragma("unroll")
#else
#define CUDA_UNROLL
#define CUDA_DYNAMIC_SHARED(name) unsigned char *const name = emu_dynamic_shared()
#endif

enum { WARP = 32 };
#define FULL_WARP 0xffffffffu

__device__ static __forceinline__ float to_f32(float x)
{
    return x;
}

__device__ static __forceinline__ float to_f32(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}

__device__ static __forceinline__ float to_f32(__half x)
{
    return __half2float(x);
}

/* Round to nearest even. */
__device__ static __forceinline__ void from_f32(float x, float *out)
{
    *out = x;
}

__device__ static __forceinline__ void from_f32(float x, __nv_bfloat16 *out)
{
    *out = __float2bfloat16_rn(x);
}

__device__ static __forceinline__ void from_f32(float x, __half *out)
{
    *out = __float2half_rn(x);
}

/* x as it would be read back from memory of type T. */
template <class T> __device__ static __forceinline__ float as_stored(float x)
{
    T rounded;
    from_f32(x, &rounded);
    return to_f32(rounded);
}

/* Elements that a thread moves at once: 16 bytes of a 16-bit type, 32 of float32. */
enum { CHUNK = 8 };

/* Rows may be read in chunks: they begin at multiples of 16 bytes. */
template <class T> static inline bool is_wide(const T *data, int64_t ld)
{
    return (uintptr_t)data % 16 == 0 && ld * (int64_t)sizeof(T) % 16 == 0;
}

template <class T> union chunk_t {
    uint4 words[CHUNK * sizeof(T) / 16];
    T element[CHUNK];
    __device__ chunk_t()
    {
    }
};

/* x[0 .. min(left, CHUNK) - 1] as float32, zeros behind. */
template <class T>
__device__ static __forceinline__ void load_chunk(const T *x, int64_t left, bool wide, float *out)
{
    if (wide && left >= CHUNK) {
        chunk_t<T> c;
        for (int i = 0; i < (int)(sizeof c.words / 16); i++)
            c.words[i] = ((const uint4 *)x)[i];
        for (int i = 0; i < CHUNK; i++)
            out[i] = to_f32(c.element[i]);
    } else {
        for (int i = 0; i < CHUNK; i++)
            out[i] = i < left ? to_f32(x[i]) : 0.0f;
    }
}

template <class T>
__device__ static __forceinline__ void store_chunk(T *x, int64_t left, bool wide, const float *in)
{
    if (wide && left >= CHUNK) {
        chunk_t<T> c;
        for (int i = 0; i < CHUNK; i++)
            from_f32(in[i], &c.element[i]);
        for (int i = 0; i < (int)(sizeof c.words / 16); i++)
            ((uint4 *)x)[i] = c.words[i];
    } else {
        for (int i = 0; i < CHUNK && i < left; i++)
            from_f32(in[i], &x[i]);
    }
}

/* A row of c elements by all threads of a block. */
template <class T>
__device__ static __forceinline__ void copy_row(const T *from, T *to, int64_t c, bool wide)
{
    const int64_t words = wide ? c * (int64_t)sizeof(T) / 16 : 0;
    for (int64_t i = threadIdx.x; i < words; i += blockDim.x)
        ((uint4 *)to)[i] = ((const uint4 *)from)[i];
    for (int64_t j = words * 16 / (int64_t)sizeof(T) + threadIdx.x; j < c; j += blockDim.x)
        to[j] = from[j];
}

template <class T> __device__ static __forceinline__ void zero_row(T *to, int64_t c, bool wide)
{
    const float zero[CHUNK] = {0};
    for (int64_t j = threadIdx.x * CHUNK; j < c; j += blockDim.x * CHUNK)
        store_chunk(to + j, c - j, wide, zero);
}

/* Half a chunk: 16 bytes of float32, 8 of a 16-bit type. Neighbouring threads that move neighbouring pieces of float32 leave
 * no gaps within a request, as they would with chunks. */
enum { PIECE = CHUNK / 2 };

template <class T> struct piece_word {
    typedef uint2 type;
};
template <> struct piece_word<float> {
    typedef uint4 type;
};

template <class T> union piece_t {
    typename piece_word<T>::type word;
    T element[PIECE];
    __device__ piece_t()
    {
    }
};

/* x[0 .. min(left, PIECE) - 1], `fill` behind. */
__device__ static __forceinline__ void load_piece(const float *x, int64_t left, bool wide,
                                                  float fill, float *out)
{
    if (wide && left >= PIECE) {
        piece_t<float> p;
        p.word = *(const uint4 *)x;
        for (int i = 0; i < PIECE; i++)
            out[i] = p.element[i];
    } else {
        for (int i = 0; i < PIECE; i++)
            out[i] = i < left ? x[i] : fill;
    }
}

template <class T>
__device__ static __forceinline__ void store_piece(T *x, int64_t left, bool wide, const float *in)
{
    if (wide && left >= PIECE) {
        piece_t<T> p;
        for (int i = 0; i < PIECE; i++)
            from_f32(in[i], &p.element[i]);
        *(typename piece_word<T>::type *)x = p.word;
    } else {
        for (int i = 0; i < PIECE && i < left; i++)
            from_f32(in[i], &x[i]);
    }
}

/* A row of float32 in shared memory, in which threads have chunks: all first pieces, then all second ones, `gap` words
 * from the row's begin, so that threads with neighbouring chunks move neighbouring 16 bytes. */
__device__ static __forceinline__ void load_split(const float *row, int64_t gap, int64_t j,
                                                  float *out)
{
    load_piece(row + j / 2, PIECE, true, 0.0f, out);
    load_piece(row + gap + j / 2, PIECE, true, 0.0f, out + PIECE);
}

__device__ static __forceinline__ void store_split(float *row, int64_t gap, int64_t j,
                                                   const float *in)
{
    store_piece(row + j / 2, PIECE, true, in);
    store_piece(row + gap + j / 2, PIECE, true, in + PIECE);
}

/* Where column j of such a row is. */
__device__ static __forceinline__ int split_place(int gap, int j)
{
    return j / PIECE % 2 * gap + j / CHUNK * PIECE + j % PIECE;
}

template <class T> __device__ static __forceinline__ T warp_sum(T x)
{
    for (unsigned with = WARP / 2; with > 0; with /= 2)
        x += __shfl_xor_sync(FULL_WARP, x, with);
    return x;
}

__device__ static __forceinline__ float warp_max(float x)
{
    for (unsigned with = WARP / 2; with > 0; with /= 2)
        x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, with));
    return x;
}

/* Over all threads of a block, whole warps and at most 1,024, in a fixed order; all of them get the
 * sum. */
template <class T> __device__ static T block_sum(T x)
{
    __shared__ T part[WARP];
    const unsigned n_warps = blockDim.x / WARP;
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    T sum = part[0];
    for (unsigned i = 1; i < n_warps; i++)
        sum += part[i];
    return sum;
}

/* Sum over the threads before this one, and in *all_out over all; whole warps, at most 1,024. */
__device__ static __forceinline__ int32_t block_before(int32_t x, int32_t *all_out)
{
    __shared__ int32_t part[WARP];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int32_t upto = x, before = 0, all = 0;
    for (unsigned step = 1; step < WARP; step *= 2) {
        const int32_t other = __shfl_sync(FULL_WARP, upto, (lane - step) % WARP);
        upto += lane >= step ? other : 0;
    }
    __syncthreads();
    if (lane == WARP - 1)
        part[warp] = upto;
    __syncthreads();
    for (unsigned w = 0; w < blockDim.x / WARP; w++) {
        before += w < warp ? part[w] : 0;
        all += part[w];
    }
    *all_out = all;
    return before + upto - x;
}

__device__ static __forceinline__ float block_max(float x)
{
    __shared__ float part[WARP];
    const unsigned n_warps = blockDim.x / WARP;
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % WARP == 0)
        part[threadIdx.x / WARP] = x;
    __syncthreads();
    float most = part[0];
    for (unsigned i = 1; i < n_warps; i++)
        most = fmaxf(most, part[i]);
    return most;
}

/* Megatron's tanh form of GELU as x * sigmoid(2 z), z = 0.79788456 x (1 + 0.044715 x^2): no digits
 * cancel for large negative x. */
__device__ static __forceinline__ float gelu_sigmoid(float x)
{
    const float z2 = 1.59576912f * x * (1.0f + 0.044715f * x * x);
    return 1.0f / (1.0f + expf(-z2));
}

__device__ static __forceinline__ float gelu(float x)
{
    return x * gelu_sigmoid(x);
}

/* s (1 - s) is zero beyond |x| = 30, where the polynomial is held: 0 times infinity does not
 * arise. */
__device__ static __forceinline__ float gelu_derivative(float x)
{
    const float s = gelu_sigmoid(x), c = fminf(fmaxf(x, -30.0f), 30.0f);
    return s + x * (2.0f * s * (1.0f - s)) * (0.79788456f + 0.1070322243f * c * c);
}

#endif /* LRD_CUDA_DEVICE_CUH */
