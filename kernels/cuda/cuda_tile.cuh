/* kernels/cuda/cuda_tile.cuh -- products of tiles in shared memory, a warp at a time.
 *
 * 16-bit types use the tensor cores (mma.sync m16n8k16 with float32 sums), float32 plain fused
 * multiply-adds with the same place for every element: of an 8-column piece, lane l holds rows l / 4
 * and l / 4 + 8, columns 2 (l % 4) and the next, as c[0], c[1] and c[2], c[3].
 */
#ifndef LRD_CUDA_TILE_CUH
#define LRD_CUDA_TILE_CUH

#include "kernels/cuda/cuda_device.cuh"

/* Elements between rows of a tile of `cols` columns: no two rows of eight begin in one bank. */
template <class T> __device__ __host__ static constexpr int tile_ld(int cols)
{
    return cols + 16 / (int)sizeof(T);
}

template <class T> __host__ static constexpr size_t tile_bytes(int rows, int cols)
{
    return (size_t)(rows * tile_ld<T>(cols)) * sizeof(T);
}

#ifdef __CUDACC__
/* Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8, and
 * gets two elements of row l / 4 of each; `transposed`: of column l / 4. */
template <bool transposed>
__device__ static __forceinline__ void load_matrices(const void *row, uint32_t *out)
{
    const uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at));
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(at));
}

/* c += a b; a 16 x 16, b 16 x 8. */
__device__ static __forceinline__ void tensor_multiply(float *c, const uint32_t *a,
                                                       const uint32_t *b, __half)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ static __forceinline__ void tensor_multiply(float *c, const uint32_t *a,
                                                       const uint32_t *b, __nv_bfloat16)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* 16 bytes from global to shared memory on the side; they are there after copies_wait. */
__device__ static __forceinline__ void copy_aside(void *to, const void *from)
{
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((uint32_t)__cvta_generic_to_shared(to)),
        "l"(from));
}

__device__ static __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}
#else
#include "emu_tensor.h"
#endif

/* acc[n / 8][.] += A B for a warp's 16 rows: A [16][K], and B [K][N], or [N][K] (b_transposed), in
 * shared memory with the leading dimensions of tiles. K and N are multiples of 16. */
template <class T, int N, int K, bool b_transposed> struct warp_product_t {
    __device__ static __forceinline__ void add(float (*acc)[4], const T *a, int lda, const T *b,
                                               int ldb)
    {
        const int lane = (int)threadIdx.x % WARP;
        CUDA_UNROLL for (int k = 0; k < K; k += 16)
        {
            uint32_t left[4];
            load_matrices<false>(a + lane % 16 * lda + k + lane / 16 * 8, left);
            CUDA_UNROLL for (int n = 0; n < N; n += 16)
            {
                uint32_t right[4];
                if (b_transposed)
                    load_matrices<false>(
                        b + (n + lane / 16 * 8 + lane % 8) * ldb + k + lane / 8 % 2 * 8, right);
                else
                    load_matrices<true>(b + (k + lane % 16) * ldb + n + lane / 16 * 8, right);
                tensor_multiply(acc[n / 8], left, right, T());
                tensor_multiply(acc[n / 8 + 1], left, right + 2, T());
            }
        }
    }
};

template <int N, int K, bool b_transposed> struct warp_product_t<float, N, K, b_transposed> {
    __device__ static __forceinline__ void add(float (*acc)[4], const float *a, int lda,
                                               const float *b, int ldb)
    {
        const int lane = (int)threadIdx.x % WARP, row = lane / 4, col = lane % 4 * 2;
        for (int k = 0; k < K; k++) {
            const float above = a[row * lda + k], below = a[(row + 8) * lda + k];
            CUDA_UNROLL for (int n = 0; n < N; n += 8)
            {
                for (int i = 0; i < 2; i++) {
                    const float right =
                        b_transposed ? b[(n + col + i) * ldb + k] : b[k * ldb + n + col + i];
                    acc[n / 8][i] = fmaf(above, right, acc[n / 8][i]);
                    acc[n / 8][2 + i] = fmaf(below, right, acc[n / 8][2 + i]);
                }
            }
        }
    }
};

/* Fills a tile of `rows` rows, `cols` columns from n_rows rows of d columns, zeros elsewhere, by all
 * threads of a block. `wide`: rows begin at multiples of 16 bytes; d is a multiple of 8. The data is
 * there after copies_wait and a barrier. */
template <class T>
__device__ static void load_tile(T *tile, int rows, int cols, const T *from, int64_t ld, int n_rows,
                                 int d, bool wide)
{
    const int piece = 16 / (int)sizeof(T), per_row = cols / piece, to_ld = tile_ld<T>(cols);
    for (int i = (int)threadIdx.x; i < rows * per_row; i += (int)blockDim.x) {
        const int row = i / per_row, col = i % per_row * piece;
        T *to = tile + row * to_ld + col;
        const T *at = from + row * ld + col;
        if (row < n_rows && col < d && wide) {
            copy_aside(to, at);
        } else {
            for (int c = 0; c < piece; c++) {
                from_f32(0.0f, &to[c]);
                if (row < n_rows && col + c < d)
                    to[c] = at[c];
            }
        }
    }
}

/* In a loop over tiles of `step` rows that ends at `end` and passes them through `stages` places in turn: tile `at`
 * is there when it returns. load(first) begins to load a tile; with two places the caller has begun with the first one,
 * and each next one is on its way while one is in use. */
template <int stages, class F>
__device__ static __forceinline__ void turn_to_tile(int at, int step, int end, F load)
{
    if (stages == 1) {
        __syncthreads(); /* nobody reads the one before any more */
        load(at);
    }
    copies_wait();
    __syncthreads(); /* it is there; with two places, nobody reads the other any more */
    if (stages > 1 && at + step < end)
        load(at + step);
}

/* A warp's 16 rows of N columns of sums, rounded, to a tile. */
template <class T, int N>
__device__ static __forceinline__ void store_fragments(const float (*acc)[4], T *tile, int ld)
{
    const int lane = (int)threadIdx.x % WARP, row = lane / 4, col = lane % 4 * 2;
    CUDA_UNROLL for (int n = 0; n < N / 8; n++)
    {
        for (int i = 0; i < 4; i++)
            from_f32(acc[n][i], &tile[(row + i / 2 * 8) * ld + n * 8 + col + i % 2]);
    }
}

#endif /* LRD_CUDA_TILE_CUH */
