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

/* 16 bytes from global to shared memory on the side, zeros where nothing is `there`; they have landed after
 * copies_wait. */
__device__ static __forceinline__ void copy_aside(void *to, const void *from, bool there = true)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 16 : 0));
}

/* The same for 4 bytes. */
__device__ static __forceinline__ void copy_word_aside(void *to, const void *from, bool there)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(to)),
                 "l"(from), "r"(there ? 4 : 0));
}

__device__ static __forceinline__ void copies_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Two neighbours, rounded, as they lie in memory. */
__device__ static __forceinline__ uint32_t pack_pair(float low, float high, __nv_bfloat16)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return (uint32_t)__bfloat16_as_ushort(pair.x) | (uint32_t)__bfloat16_as_ushort(pair.y) << 16;
}

__device__ static __forceinline__ uint32_t pack_pair(float low, float high, __half)
{
    const __half2 pair = __floats2half2_rn(low, high);
    return (uint32_t)__half_as_ushort(pair.x) | (uint32_t)__half_as_ushort(pair.y) << 16;
}

/* 2^x within 2 units in the last place; 2^0 is 1. Results below 2^-126 are zero. */
__device__ static __forceinline__ float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
#else
#include "emu_tensor.h"
#endif

/* Two neighbours that are read at once. */
struct alignas(8) float_pair_t {
    float v[2];
};

/* Two neighbours to memory, rounded. `to` is a multiple of both. */
template <class T> __device__ static __forceinline__ void store_pair(float low, float high, T *to)
{
    *(uint32_t *)to = pack_pair(low, high, T());
}

__device__ static __forceinline__ void store_pair(float low, float high, float *to)
{
    to[0] = low;
    to[1] = high;
}

/* A warp's sums, `BANDS` times 16 rows of N columns, rounded, to a tile. */
template <class T, int N, int BANDS = 1>
__device__ static __forceinline__ void store_fragments(const float (*acc)[4], T *tile, int ld)
{
    const int lane = (int)threadIdx.x % WARP, row = lane / 4, col = lane % 4 * 2;
    CUDA_UNROLL for (int n = 0; n < BANDS * N / 8; n++)
    {
        T *to = tile + (n / (N / 8) * 16 + row) * ld + n % (N / 8) * 8 + col;
        store_pair(acc[n][0], acc[n][1], to);
        store_pair(acc[n][2], acc[n][3], to + 8 * ld);
    }
}

/* A warp's bands of 16 rows of K columns as the left side of a product: in registers, where the sums of a product before
 * lie as a left side has to, pair by pair; float32 in shared memory. */
template <class T, int K, int BANDS = 1> struct left_side_t {
    uint32_t part[K / 16][BANDS][4];

    __device__ __forceinline__ void read(const T *tile, int ld)
    {
        const int lane = (int)threadIdx.x % WARP;
        CUDA_UNROLL for (int k = 0; k < K / 16; k++)
        {
            CUDA_UNROLL for (int band = 0; band < BANDS; band++) load_matrices<false>(
                tile + (band * 16 + lane % 16) * ld + k * 16 + lane / 16 * 8, part[k][band]);
        }
    }

    /* Sums [BANDS][K / 8][4], rounded. place: what float32 needs. */
    __device__ __forceinline__ void take(const float (*sums)[4], T *place)
    {
        CUDA_UNROLL for (int k = 0; k < K / 16; k++)
        {
            CUDA_UNROLL for (int i = 0; i < BANDS * 4; i++)
            {
                const float *pair = sums[i / 4 * (K / 8) + k * 2 + i % 4 / 2] + i % 2 * 2;
                part[k][i / 4][i % 4] = pack_pair(pair[0], pair[1], T());
            }
        }
    }
};

template <int K> struct left_side_t<float, K, 1> {
    const float *rows = NULL;
    int ld = 0;

    __device__ __forceinline__ void read(const float *tile, int ld_of_tile)
    {
        rows = tile;
        ld = ld_of_tile;
    }

    /* place: [16][K] in shared memory of this warp's own. */
    __device__ __forceinline__ void take(const float (*sums)[4], float *place)
    {
        rows = place;
        ld = tile_ld<float>(K);
        __syncwarp(); /* whoever still reads what was there */
        store_fragments<float, K>(sums, place, ld);
        __syncwarp();
    }
};

/* acc[.][.] += A B for a warp's bands of 16 rows: A [BANDS * 16][K], and B [K][N], or [N][K] (b_transposed), in
 * shared memory with the leading dimensions of tiles. K and N are multiples of 16. A piece of B that is read serves
 * all bands. acc: [BANDS][N / 8][4]. */
template <class T, int N, int K, bool b_transposed, int BANDS = 1> struct warp_product_t {
    __device__ static __forceinline__ void add(float (*acc)[4], const T *a, int lda, const T *b,
                                               int ldb)
    {
        CUDA_UNROLL for (int k = 0; k < K; k += 16)
        {
            left_side_t<T, 16, BANDS> left;
            left.read(a + k, lda);
            add_step(acc, left.part[0], b, ldb, k);
        }
    }

    __device__ static __forceinline__ void add(float (*acc)[4], const left_side_t<T, K, BANDS> &a,
                                               const T *b, int ldb)
    {
        CUDA_UNROLL for (int k = 0; k < K; k += 16) add_step(acc, a.part[k / 16], b, ldb, k);
    }

  private:
    __device__ static __forceinline__ void add_step(float (*acc)[4], const uint32_t (*left)[4],
                                                    const T *b, int ldb, int k)
    {
        const int lane = (int)threadIdx.x % WARP;
        CUDA_UNROLL for (int n = 0; n < N; n += 16)
        {
            uint32_t right[4];
            if (b_transposed)
                load_matrices<false>(
                    b + (n + lane / 16 * 8 + lane % 8) * ldb + k + lane / 8 % 2 * 8, right);
            else
                load_matrices<true>(b + (k + lane % 16) * ldb + n + lane / 16 * 8, right);
            CUDA_UNROLL for (int band = 0; band < BANDS; band++)
            {
                float(*to)[4] = acc + band * (N / 8) + n / 8;
                tensor_multiply(to[0], left[band], right, T());
                tensor_multiply(to[1], left[band], right + 2, T());
            }
        }
    }
};

template <int N, int K, bool b_transposed> struct warp_product_t<float, N, K, b_transposed, 1> {
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

    __device__ static __forceinline__ void add(float (*acc)[4], const left_side_t<float, K> &a,
                                               const float *b, int ldb)
    {
        add(acc, a.rows, a.ld, b, ldb);
    }
};

/* The places of a tile's left sides that are taken from sums. */
template <class T> __host__ static constexpr size_t sums_bytes(int rows, int cols)
{
    return sizeof(T) == sizeof(float) ? tile_bytes<T>(rows, cols) : 0;
}

/* Fills a tile of ROWS rows, COLS columns from n_rows rows of d columns, zeros elsewhere, by the THREADS of a block.
 * `wide`: rows begin at multiples of 16 bytes, and d is a multiple of 8. The data is there after copies_wait and a
 * barrier. A thread keeps its place in the rows. */
template <int ROWS, int COLS, int THREADS, class T>
__device__ static __forceinline__ void load_tile(T *tile, const T *from, int64_t ld, int n_rows,
                                                 int d, bool wide)
{
    constexpr int PIECE = 16 / (int)sizeof(T), PER_ROW = COLS / PIECE, AT_ONCE = THREADS / PER_ROW;
    constexpr int LD = tile_ld<T>(COLS);
    const int first = (int)threadIdx.x / PER_ROW, col = (int)threadIdx.x % PER_ROW * PIECE;
    if (first >= AT_ONCE)
        return;
    T *to = tile + first * LD + col;
    from += first * ld + col;
    n_rows = col < d ? n_rows - first : 0;
    if (wide) {
        const int64_t step = AT_ONCE * ld;
        CUDA_UNROLL for (int row = 0; row < ROWS; row += AT_ONCE, from += step)
        {
            if (ROWS % AT_ONCE == 0 || first + row < ROWS)
                copy_aside(to + row * LD, from, row < n_rows);
        }
        return;
    }
    for (int row = 0; first + row < ROWS; row += AT_ONCE) {
        for (int c = 0; c < PIECE; c++) {
            from_f32(0.0f, &to[row * LD + c]);
            if (row < n_rows && col + c < d)
                to[row * LD + c] = from[row * ld + c];
        }
    }
}

/* A warp's sums, rounded, to BANDS * 16 rows of memory of which n_rows are there, d columns each, through a tile of
 * COLS columns that nobody else reads any more. */
template <class T, int COLS, int BANDS>
__device__ static __forceinline__ void store_rows(const float (*acc)[4], T *tile, T *to, int64_t ld,
                                                  int n_rows, int d, bool wide)
{
    constexpr int PIECE = 16 / (int)sizeof(T), PER_ROW = COLS / PIECE;
    __syncwarp();
    store_fragments<T, COLS, BANDS>(acc, tile, tile_ld<T>(COLS));
    __syncwarp();
    for (int i = (int)threadIdx.x % WARP; i < BANDS * 16 * PER_ROW; i += WARP) {
        const int row = i / PER_ROW, col = i % PER_ROW * PIECE;
        const T *from = tile + row * tile_ld<T>(COLS) + col;
        T *at = to + row * ld + col;
        if (row >= n_rows || col >= d)
            continue;
        if (wide)
            *(uint4 *)at = *(const uint4 *)from;
        for (int c = 0; !wide && c < PIECE; c++)
            at[c] = from[c];
    }
}

/* In a loop over tiles that ends at `end` and passes them through two places in turn: tile `at` is there when it
 * returns, and the next one on its way. load(first) begins to load a tile; the caller has begun with the first one. */
template <class F>
__device__ static __forceinline__ void turn_to_tile(int at, int step, int end, F load)
{
    copies_wait();
    __syncthreads(); /* it is there, and nobody reads the other any more */
    if (at + step < end)
        load(at + step);
}

#endif /* LRD_CUDA_TILE_CUH */
