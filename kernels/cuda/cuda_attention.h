/* kernels/cuda/cuda_attention.h -- what the attention kernels share. */
#ifndef LRD_CUDA_ATTENTION_H
#define LRD_CUDA_ATTENTION_H

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_tile.cuh"

/* Four warps. */
enum { ATTN_THREADS = 128, ATTN_WARPS = ATTN_THREADS / WARP };

/* A block has ROWS queries; with tensor cores a warp has two bands of 16, since what it reads of the other side from
 * shared memory then serves twice. Tiles that pass by have KEYS rows in the forward, STEP in the backward: all fit the
 * shared memory of every device, 99 KiB, at heads of 128. */
template <class T> struct attn_tiling_t {
    enum { BANDS = 2, ROWS = ATTN_WARPS * BANDS * 16, KEYS = 64, STEP = 32 };
};
template <> struct attn_tiling_t<float> {
    enum { BANDS = 1, ROWS = ATTN_WARPS * BANDS * 16, KEYS = 32, STEP = 8 };
};

/* The backward by keys has twice as many sums, which leave room for a second band in small heads only; with one band a
 * warp keeps its keys and values in registers as far as there are some (HELD, of the two). */
template <class T, int D> struct attn_keys_tiling_t {
    enum { BANDS = D <= 64 ? 2 : 1, ROWS = ATTN_WARPS * BANDS * 16 };
    enum { HELD = D <= 64 ? 0 : (D <= 96 ? 2 : 1) };
};
template <int D> struct attn_keys_tiling_t<float, D> {
    enum { BANDS = 1, ROWS = ATTN_WARPS * BANDS * 16, HELD = 0 };
};

/* Runs the statement with D as the head size in tiles: head_dim with zeros behind. */
#define CUDA_DISPATCH_HEAD(head_dim, ...) \
    do {                                  \
        if ((head_dim) <= 32) {           \
            constexpr int D = 32;         \
            __VA_ARGS__;                  \
        } else if ((head_dim) <= 64) {    \
            constexpr int D = 64;         \
            __VA_ARGS__;                  \
        } else if ((head_dim) <= 80) {    \
            constexpr int D = 80;         \
            __VA_ARGS__;                  \
        } else if ((head_dim) <= 96) {    \
            constexpr int D = 96;         \
            __VA_ARGS__;                  \
        } else {                          \
            constexpr int D = 128;        \
            __VA_ARGS__;                  \
        }                                 \
    } while (0)

/* ---- work lists: a block for each head and tile of `rows` rows of a sequence. The list is as long as the numbers of
 * tokens and of sequences say, whatever the lengths are: sequence s has the entries from (its first token / rows + s)
 * on, one for each tile that its tokens may touch, of which one at most is empty. */

static inline unsigned attn_blocks(int64_t tokens, int64_t n_seqs, int64_t heads, int64_t rows)
{
    return n_seqs > 0 ? (unsigned)((tokens / rows + n_seqs) * heads) : 0;
}

typedef struct attn_item {
    int sequence, head, first; /* first row; at or behind the sequence's end: nothing to do */
} attn_item_t;

/* This block's item, found by all warps alike. The heads of a tile follow each other; `backwards`: the last tiles of
 * sequences begin first. */
__device__ static __forceinline__ attn_item_t attn_find_item(const int32_t *cu_seqlens, int n_seqs,
                                                             int heads, int rows, bool backwards)
{
    const int at = (int)(backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x), entry = at / heads;
    const int t0 = cu_seqlens[0];
    int begun = 0; /* sequences whose entries begin here or before */
    for (int s = (int)threadIdx.x % WARP; s < n_seqs; s += WARP)
        begun += (cu_seqlens[s] - t0) / rows + s <= entry ? 1 : 0;
    const int sequence = warp_sum(begun) - 1;
    const int tile = entry - (cu_seqlens[sequence] - t0) / rows - sequence;
    return {sequence, at % heads, tile * rows};
}

/* ---- scores: scale * (q k - ratio * distance), as powers of 2 */

static constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

typedef struct attn_score {
    float ratio; /* the head's slope / scale */
    float scale; /* times log2(e) */
} attn_score_t;

__device__ static __forceinline__ attn_score_t attn_score_of(float slope, float scale)
{
    return {slope / scale, scale * LOG2_E};
}

/* Over the four lanes that share a row. */
__device__ static __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return fmaxf(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

__device__ static __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(FULL_WARP, x, 1);
    return x + __shfl_xor_sync(FULL_WARP, x, 2);
}

/* How much further than for the lane's first element it is from key to query for element i of piece n; a tile has rows
 * of COLS keys, or (by_keys) of COLS queries. */
template <int COLS, bool by_keys> __device__ static constexpr float attn_further(int n, int i)
{
    const int col = n % (COLS / 8) * 8 + i % 2, row = n / (COLS / 8) * 16 + i / 2 * 8;
    return (float)(by_keys ? col - row : row - col);
}

/* A query does not see the keys after it. behind: from the key to the query of the lane's first element. */
template <int COLS, int BANDS, bool by_keys>
__device__ static __forceinline__ void attn_mask(float (*s)[4], float behind)
{
    CUDA_UNROLL for (int n = 0; n < BANDS * COLS / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++)
        {
            const float distance = behind + attn_further<COLS, by_keys>(n, i);
            s[n][i] = distance >= 0 ? s[n][i] : -INFINITY;
        }
    }
}

#endif /* LRD_CUDA_ATTENTION_H */
