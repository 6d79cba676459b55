/* Products of a few rows with a weight.
 *
 * A block has 16 or 32 rows of W and up to 32 rows of x (float32: 16; more are taken in groups, each of which
 * reads W anew). Its warps share k: of the pieces of 64 bytes of every row, warp w has the ones w, w + 8, ...
 * in this order, and the warps' sums are added in the order of warps. None of this depends on the rows, and
 * a tensor core forms each column of its product by itself: a row of x has the same bits in any company.
 *
 * W goes from memory to registers, some pieces ahead of their use. Of each piece lane l has 16 bytes of rows
 * l / 4 and l / 4 + 8. The order of k inside a product is free: these bytes are the lane's part of two products
 * m16n8k16, as they lie, and x, taken likewise, fits them.
 */
#include "kernels/cuda/cuda_single.h"

#include "kernels/cuda/cuda_tile.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP };

struct few_t {
    const void *x, *w, *bias; /* bias: NULL for none */
    void *y;
    int64_t ld_x, ld_w, ld_y, n;
    int k, rows;
    bool y_f32, accumulate, gelu;
};

template <class T> union lane_bytes_t {
    uint4 words;
    uint32_t pair[4]; /* of 16-bit elements */
    T element[16 / sizeof(T)];
    __device__ lane_bytes_t()
    {
    }
};

/* ROWS: as many rows of x, or fewer. AHEAD: pieces of W on their way. */
template <class T, int ROWS> struct few_tiling_t {
    enum { TILES = ROWS > 16 ? 2 : 1, W_ROWS = 16 * TILES };
    enum { EACH = 16 / (int)sizeof(T), PIECE = 4 * EACH }; /* elements of a lane, of its row */
    enum { AHEAD = sizeof(T) == 4 ? 16 / ROWS : 4 / TILES };
    enum { LD = W_ROWS + 4 }; /* of sums in shared memory: a row's four lanes use different banks */
};

/* A lane's part of a piece of W: of each tile a row, and the one 8 below. */
template <class T, int ROWS> struct few_weights_t {
    lane_bytes_t<T> tile[few_tiling_t<T, ROWS>::TILES][2];
};

/* A warp's sums of products with ROWS rows of x; those beyond the last are copies of it. */
template <class T, int ROWS> struct few_sums_t {
    typedef few_tiling_t<T, ROWS> tiling;
    int x[ROWS / 8]; /* where the lane's rows begin */
    float sum[tiling::TILES][ROWS / 8][4];

    __device__ __forceinline__ few_sums_t(const few_t &a, int lane) : sum{}
    {
        CUDA_UNROLL for (int i = 0; i < ROWS / 8; i++)
        {
            const int r = i * 8 + lane / 4;
            x[i] = (r < a.rows ? r : a.rows - 1) * (int)a.ld_x;
        }
    }

    /* A piece, the lane's bytes of which begin at k. */
    __device__ __forceinline__ void add(const few_t &a, const few_weights_t<T, ROWS> &w, int k)
    {
        CUDA_UNROLL for (int r = 0; r < ROWS / 8; r++)
        {
            lane_bytes_t<T> right;
            right.words = uint4{};
            if (k < a.k)
                right.words = *(const uint4 *)((const T *)a.x + (x[r] + k));
            CUDA_UNROLL for (int t = 0; t < tiling::TILES; t++)
            {
                CUDA_UNROLL for (int p = 0; p < 4; p += 2)
                {
                    const uint32_t *above = w.tile[t][0].pair + p, *below = w.tile[t][1].pair + p;
                    const uint32_t left[] = {above[0], below[0], above[1], below[1]};
                    tensor_multiply(sum[t][r], left, right.pair + p, T());
                }
            }
        }
    }

    /* to: [ROWS][LD] */
    __device__ __forceinline__ void store(float *to, int lane) const
    {
        CUDA_UNROLL for (int t = 0; t < tiling::TILES; t++)
        {
            CUDA_UNROLL for (int r = 0; r < ROWS / 8; r++)
            {
                CUDA_UNROLL for (int i = 0; i < 4; i++)
                    to[(r * 8 + lane % 4 * 2 + i % 2) * tiling::LD + t * 16 + lane / 4 +
                       i / 2 * 8] = sum[t][r][i];
            }
        }
    }
};

/* float32: a lane multiplies its two rows of W with all rows of x, at its own k; the four of a row are added
 * at the end. */
template <int ROWS> struct few_sums_t<float, ROWS> {
    typedef few_tiling_t<float, ROWS> tiling;
    float sum[2][ROWS];

    __device__ __forceinline__ few_sums_t(const few_t &, int) : sum{}
    {
    }

    __device__ __forceinline__ void add(const few_t &a, const few_weights_t<float, ROWS> &w, int k)
    {
        const float *x = (const float *)a.x + k;
        CUDA_UNROLL for (int r = 0; r < ROWS; r++)
        {
            lane_bytes_t<float> right;
            right.words = uint4{};
            if (k < a.k)
                right.words = *(const uint4 *)x;
            x += r + 1 < a.rows ? a.ld_x : 0;
            CUDA_UNROLL for (int i = 0; i < tiling::EACH; i++)
            {
                for (int j = 0; j < 2; j++)
                    sum[j][r] = fmaf(w.tile[0][j].element[i], right.element[i], sum[j][r]);
            }
        }
    }

    __device__ __forceinline__ void store(float *to, int lane) const
    {
        CUDA_UNROLL for (int r = 0; r < ROWS; r++)
        {
            CUDA_UNROLL for (int j = 0; j < 2; j++)
            {
                float all = sum[j][r];
                all += __shfl_xor_sync(FULL_WARP, all, 1);
                all += __shfl_xor_sync(FULL_WARP, all, 2);
                if (lane % 4 == r % 4)
                    to[r * tiling::LD + lane / 4 + j * 8] = all;
            }
        }
    }
};

/* The lane's part of a piece, zeros beyond the end; it leaves the caches first, since it comes once. from: the
 * block's rows of W; row: where the lane's begin. */
template <class T, int ROWS>
__device__ static __forceinline__ void load_piece(const few_t &a, const T *from, const int *row,
                                                  int k, few_weights_t<T, ROWS> *w)
{
    CUDA_UNROLL for (int i = 0; i < few_tiling_t<T, ROWS>::TILES * 2; i++)
    {
        lane_bytes_t<T> *to = &w->tile[i / 2][i % 2];
        to->words = k < a.k ? __ldcs((const uint4 *)(from + (row[i] + k))) : uint4{};
    }
}

/* A warp's pieces, with rows from `first` of W. */
template <class T, int ROWS>
__device__ static __forceinline__ void add_pieces(const few_t &a, int64_t first, int warp, int lane,
                                                  few_sums_t<T, ROWS> *sums)
{
    typedef few_tiling_t<T, ROWS> tiling;
    const int step = WARPS * tiling::PIECE, mine = lane % 4 * tiling::EACH;
    const T *from = (const T *)a.w + first * a.ld_w;
    few_weights_t<T, ROWS> w[tiling::AHEAD];
    int row[tiling::TILES * 2];
    CUDA_UNROLL for (int i = 0; i < tiling::TILES * 2; i++)
    {
        const int n = i * 8 + lane / 4;
        row[i] = (first + n < a.n ? n : (int)(a.n - 1 - first)) * (int)a.ld_w;
    }
    int k = warp * tiling::PIECE + mine;
    CUDA_UNROLL for (int i = 0; i < tiling::AHEAD; i++)
        load_piece(a, from, row, k + i * step, &w[i]);
    for (; k - mine < a.k; k += tiling::AHEAD * step) {
        CUDA_UNROLL for (int i = 0; i < tiling::AHEAD; i++)
        {
            sums->add(a, w[i], k + i * step);
            load_piece(a, from, row, k + (i + tiling::AHEAD) * step, &w[i]);
        }
    }
}

template <class T>
__device__ static __forceinline__ void finish(const few_t &a, int64_t row, int64_t n, float v)
{
    const int64_t at = row * a.ld_y + n;
    if (a.bias != NULL)
        v += to_f32(((const T *)a.bias)[n]);
    if (a.accumulate)
        v += a.y_f32 ? ((const float *)a.y)[at] : to_f32(((const T *)a.y)[at]);
    if (a.gelu)
        v = gelu(v);
    if (a.y_f32)
        ((float *)a.y)[at] = v;
    else
        from_f32(v, &((T *)a.y)[at]);
}

template <class T, int ROWS> __global__ void __launch_bounds__(THREADS, 2) few_rows_kernel(few_t a)
{
    typedef few_tiling_t<T, ROWS> tiling;
    __shared__ float part[WARPS][ROWS * tiling::LD];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t first = (int64_t)blockIdx.x * tiling::W_ROWS;
    few_sums_t<T, ROWS> sums(a, lane);
    add_pieces(a, first, warp, lane, &sums);
    sums.store(part[warp], lane);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < ROWS * tiling::W_ROWS; i += THREADS) {
        const int row = i / tiling::W_ROWS, n = i % tiling::W_ROWS;
        if (row >= a.rows || first + n >= a.n)
            continue;
        float v = 0; /* whatever zeros a warp added beyond the end, a sum of -0 becomes 0 */
        for (int w = 0; w < WARPS; w++)
            v += part[w][row * tiling::LD + n];
        finish<T>(a, row, first + n, v);
    }
}

template <class T, int ROWS> static lrd_status_t launch(lrd_stream_t *st, const few_t &a)
{
    const int64_t blocks = cuda_ceil_div(a.n, few_tiling_t<T, ROWS>::W_ROWS);
    return cuda_launch(st, "few_rows_kernel", few_rows_kernel<T, ROWS>, dim3((unsigned)blocks),
                       THREADS, 0, a);
}

/* Rows may be read 16 bytes at a time, to their ends. */
template <class T> static bool is_in_16s(lrd_cmat_t m)
{
    return is_wide((const T *)m.data, m.ld) && m.cols * (int64_t)sizeof(T) % 16 == 0;
}

bool cuda_single_takes_linear(const lrd_linear_fwd_t *a)
{
    CUDA_DISPATCH(a->x.dtype, { return is_in_16s<T>(a->x) && is_in_16s<T>(a->w->w); });
}

template <class T>
static lrd_status_t multiply(lrd_stream_t *st, const lrd_linear_fwd_t *a, int64_t begin,
                             int64_t end, few_t f)
{
    const int64_t most = sizeof(T) == 4 ? 16 : 32, y_bytes = f.y_f32 ? 4 : (int64_t)sizeof(T);
    for (int64_t t = begin; t < end; t += most) {
        f.x = (const T *)a->x.data + t * f.ld_x;
        f.y = (uint8_t *)a->y.data + t * f.ld_y * y_bytes;
        f.rows = (int)cuda_smaller(most, end - t);
        if (f.rows <= 8)
            CUDA_TRY((launch<T, 8>(st, f)));
        else if (f.rows <= 16)
            CUDA_TRY((launch<T, 16>(st, f)));
        else if constexpr (sizeof(T) == 2)
            CUDA_TRY((launch<T, 32>(st, f)));
    }
    return LRD_OK;
}

lrd_status_t cuda_single_linear(lrd_stream_t *st, const lrd_linear_fwd_t *a, int64_t begin,
                                int64_t end, bool accumulate)
{
    few_t f = {};
    f.w = a->w->w.data;
    f.bias = accumulate ? NULL : a->bias.data;
    f.ld_x = a->x.ld;
    f.ld_w = a->w->w.ld;
    f.ld_y = a->y.ld;
    f.n = a->w->w.rows;
    f.k = (int)a->w->w.cols;
    f.y_f32 = a->y.dtype == LRD_F32;
    f.accumulate = accumulate;
    f.gelu = a->epilogue == LRD_EPILOGUE_GELU;
    CUDA_DISPATCH(a->x.dtype, { return multiply<T>(st, a, begin, end, f); });
}
