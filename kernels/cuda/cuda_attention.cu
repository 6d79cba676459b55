/* Causal attention with ALiBi inside packed sequences, and against a cache of keys and values.
 *
 * A block of threads has a tile of queries of one head of one sequence and takes the keys before them in
 * tiles, from the first on, with a running maximum and sum. What a query gets depends on its
 * own sequence and place alone: tiles of keys begin at the sequence's first, and keys after the query
 * contribute exact zeros. So attention with a cache, in pieces or token by token, has the same bits. Single
 * rows go another way (cuda_single.h).
 */
#include "kernels/cuda/cuda_attention.h"

#include "kernels/cuda/cuda_single.h"

/* Where a sequence's tensors are: packed rows, or slots of a cache. */
template <class T> struct attn_t {
    const T *qkv, *cache; /* cache: NULL without one, then keys and values are in qkv */
    T *out;
    float *lse; /* [heads][tokens], or NULL */
    const int32_t *cu_seqlens, *cache_len, *slot;
    const float *slope;
    int64_t ld_qkv, ld_out, tokens, capacity;
    int d, heads, n_seqs;
    float scale;
    bool wide, wide_out;
};

/* One head of one sequence; rows of q are new tokens, rows of k and v are positions. */
template <class T> struct attn_head_t {
    const T *q, *k, *v;
    int64_t ld_kv;
    int n_new, past;
};

template <class T>
__device__ static attn_head_t<T> find_head(const attn_t<T> &a, int sequence, int head)
{
    attn_head_t<T> h;
    const int64_t t0 = a.cu_seqlens[sequence];
    h.n_new = (int)(a.cu_seqlens[sequence + 1] - t0);
    h.q = a.qkv + t0 * a.ld_qkv + (int64_t)head * 3 * a.d;
    if (a.cache == NULL) {
        h.past = 0;
        h.k = h.q + a.d;
        h.v = h.q + 2 * a.d;
        h.ld_kv = a.ld_qkv;
    } else {
        const int64_t slot = a.slot[sequence], part = a.heads * a.capacity * a.d;
        h.past = a.cache_len[sequence];
        h.k = a.cache + 2 * slot * part + head * a.capacity * a.d;
        h.v = h.k + part;
        h.ld_kv = a.d;
    }
    return h;
}

/* A warp's running softmax; lane l has rows l / 4 and l / 4 + 8 of each band, as two entries. most: of scores before
 * their scale; sum: of the lane's own columns. */
template <int BANDS> struct softmax_t {
    float most[BANDS * 2], sum[BANDS * 2];
};

/* Scores [BANDS][KEYS / 8][4] of one tile to exponentials; `shrink` is what earlier sums are multiplied with. behind:
 * from the lane's first key to its first row. */
template <int KEYS, int BANDS>
__device__ static __forceinline__ void softmax_tile(float (*s)[4], softmax_t<BANDS> *x,
                                                    float *shrink, attn_score_t score, float behind)
{
    CUDA_UNROLL for (int row = 0; row < BANDS * 2; row++)
    {
        float most = x->most[row], sum = 0;
        CUDA_UNROLL for (int e = 0; e < KEYS / 4; e++)
        {
            const int n = row / 2 * (KEYS / 8) + e / 2, i = row % 2 * 2 + e % 2;
            s[n][i] = fmaf(-score.ratio, behind + attn_further<KEYS, false>(n, i), s[n][i]);
            most = fmaxf(most, s[n][i]);
        }
        most = quad_max(most);
        /* Rounded alike, so that a maximum that stays gives 2^0. */
        const float base = __fmul_rn(most, score.scale);
        shrink[row] = fast_exp2(__fmul_rn(x->most[row], score.scale) - base);
        x->most[row] = most;
        CUDA_UNROLL for (int e = 0; e < KEYS / 4; e++)
        {
            const int n = row / 2 * (KEYS / 8) + e / 2, i = row % 2 * 2 + e % 2;
            s[n][i] = fast_exp2(fmaf(s[n][i], score.scale, -base));
            sum += s[n][i];
        }
        x->sum[row] = fmaf(x->sum[row], shrink[row], sum);
    }
}

/* Shared memory: queries, a tile of keys, one of values; exponentials in float32. */
template <class T, int D> struct attn_tiles_t {
    T *q, *k, *v, *p;
};

template <class T, int D> __host__ static constexpr size_t attn_shared_bytes()
{
    typedef attn_tiling_t<T> tiling;
    return tile_bytes<T>(tiling::ROWS, D) + 2 * tile_bytes<T>(tiling::KEYS, D) +
           sums_bytes<T>(tiling::ROWS, tiling::KEYS);
}

template <class T, int D> __device__ static attn_tiles_t<T, D> lay_out_tiles(unsigned char *shared)
{
    typedef attn_tiling_t<T> tiling;
    attn_tiles_t<T, D> m;
    m.q = (T *)shared;
    m.k = m.q + tiling::ROWS * tile_ld<T>(D);
    m.v = m.k + tiling::KEYS * tile_ld<T>(D);
    m.p = m.v + tiling::KEYS * tile_ld<T>(D);
    return m;
}

/* Sums [BANDS][D / 8][4], a factor for each of the lane's rows. */
template <int D, int BANDS>
__device__ static __forceinline__ void scale_rows(float (*o)[4], const float *factor)
{
    CUDA_UNROLL for (int n = 0; n < BANDS * D / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++) o[n][i] *= factor[n / (D / 8) * 2 + i / 2];
    }
}

/* o / sum to memory, and the log-sum-exp. row: of the warp's first among the new tokens. */
template <class T, int D, int BANDS>
__device__ static void store_output(const attn_t<T> &a, attn_item_t item, int n_new, int row,
                                    float (*o)[4], const softmax_t<BANDS> &x, float scale, T *tile)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t t0 = a.cu_seqlens[item.sequence];
    float factor[BANDS * 2];
    CUDA_UNROLL for (int r = 0; r < BANDS * 2; r++)
    {
        const float sum = quad_sum(x.sum[r]);
        const int at = row + lane / 4 + r * 8;
        factor[r] = 1.0f / sum;
        if (a.lse != NULL && lane % 4 == 0 && at < n_new)
            a.lse[item.head * a.tokens + t0 + at] = fmaf(x.most[r] * scale, LN_2, logf(sum));
    }
    scale_rows<D, BANDS>(o, factor);
    store_rows<T, D, BANDS>(o, tile, a.out + (t0 + row) * a.ld_out + (int64_t)item.head * a.d,
                            a.ld_out, n_new - row, a.d, a.wide_out);
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_forward_kernel(attn_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    constexpr int KEYS = attn_tiling_t<T>::KEYS, BANDS = attn_tiling_t<T>::BANDS,
                  ROWS = attn_tiling_t<T>::ROWS;
    const attn_item_t item = attn_find_item(a.cu_seqlens, a.n_seqs, a.heads, ROWS, true);
    const attn_head_t<T> h = find_head(a, item.sequence, item.head);
    if (item.first >= h.n_new)
        return;
    const attn_tiles_t<T, D> m = lay_out_tiles<T, D>(shared);
    const attn_score_t score = attn_score_of(a.slope[item.head], a.scale);
    const int n_rows = h.n_new - item.first < ROWS ? h.n_new - item.first : (int)ROWS;
    const int n_keys = h.past + item.first + n_rows, ld = tile_ld<T>(D);
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int warp_row = warp * BANDS * 16, position = h.past + item.first + warp_row;
    T *const q = m.q + warp_row * ld, *const p = m.p + warp_row * tile_ld<T>(KEYS);
    float o[BANDS * D / 8][4] = {};
    softmax_t<BANDS> x;
    CUDA_UNROLL for (int r = 0; r < BANDS * 2; r++)
    {
        x.most[r] = -INFINITY;
        x.sum[r] = 0;
    }
    const auto load = [&](T *tile, const T *from, int key) {
        load_tile<KEYS, D, ATTN_THREADS>(tile, from + key * h.ld_kv, h.ld_kv, n_keys - key, a.d,
                                         a.wide);
    };
    load_tile<ROWS, D, ATTN_THREADS>(m.q, h.q + item.first * a.ld_qkv, a.ld_qkv, n_rows, a.d,
                                     a.wide);
    load(m.k, h.k, 0);
    for (int key = 0; key < n_keys; key += KEYS) {
        /* Rows that are there, and keys that one of them sees. */
        const bool busy = warp_row < n_rows && key < position + BANDS * 16;
        left_side_t<T, KEYS, BANDS> weights;
        copies_wait();
        __syncthreads(); /* the keys are there, and nobody reads the values any more */
        load(m.v, h.v, key);
        if (busy) {
            const float behind = (float)(position + lane / 4 - key - lane % 4 * 2);
            float s[BANDS * KEYS / 8][4] = {}, shrink[BANDS * 2];
            warp_product_t<T, KEYS, D, true, BANDS>::add(s, q, ld, m.k, ld);
            if (key + KEYS - 1 > position)
                attn_mask<KEYS, BANDS, false>(s, behind);
            softmax_tile<KEYS, BANDS>(s, &x, shrink, score, behind);
            weights.take(s, p);
            scale_rows<D, BANDS>(o, shrink);
        }
        copies_wait();
        __syncthreads(); /* the values are there, and nobody reads the keys any more */
        if (key + KEYS < n_keys)
            load(m.k, h.k, key + KEYS);
        if (busy)
            warp_product_t<T, D, KEYS, false, BANDS>::add(o, weights, m.v, ld);
    }
    if (warp_row < n_rows)
        store_output<T, D, BANDS>(a, item, h.n_new, item.first + warp_row, o, x, score.scale, q);
}

template <class T> static lrd_status_t launch_forward(lrd_stream_t *st, attn_t<T> a)
{
    const unsigned blocks = attn_blocks(a.tokens, a.n_seqs, a.heads, attn_tiling_t<T>::ROWS);
    CUDA_DISPATCH_HEAD(a.d, {
        return cuda_launch(st, "attn_forward_kernel", attn_forward_kernel<T, D>, dim3(blocks),
                           ATTN_THREADS, attn_shared_bytes<T, D>(), a);
    });
}

lrd_status_t cuda_attn_forward(lrd_stream_t *st, lrd_scratch_t, const lrd_attn_fwd_t *a)
{
    CUDA_SAME_DTYPE("attn_forward", a->qkv.dtype, a->out.dtype);
    CUDA_DISPATCH(a->qkv.dtype, {
        attn_t<T> k = {};
        k.qkv = (const T *)a->qkv.data;
        k.out = (T *)a->out.data;
        k.lse = a->lse;
        k.cu_seqlens = a->cu_seqlens;
        k.slope = a->slope;
        k.ld_qkv = a->qkv.ld;
        k.ld_out = a->out.ld;
        k.tokens = a->qkv.rows;
        k.d = a->head_dim;
        k.heads = a->n_heads;
        k.scale = a->scale;
        k.n_seqs = a->n_seqs;
        k.wide = is_wide(k.qkv, k.ld_qkv);
        k.wide_out = is_wide(k.out, k.ld_out);
        return launch_forward(st, k);
    });
}

/* ---- with a cache: [slot][keys, values][head][capacity][d] */

size_t cuda_kv_cache_bytes(const lrd_backend_t *, const lrd_kv_shape_t *s)
{
    const int64_t elements = 2 * (int64_t)s->n_slots * s->n_heads * s->capacity * s->head_dim;
    return (size_t)elements * (s->dtype == LRD_F32 ? 4 : 2);
}

/* A block enters one new token's keys and values; its tokens are those of sequence blockIdx.y. */
template <class T>
__global__ void __launch_bounds__(ATTN_THREADS) enter_kernel(attn_t<T> a, T *cache)
{
    const int64_t t0 = a.cu_seqlens[blockIdx.y], n_new = a.cu_seqlens[blockIdx.y + 1] - t0;
    const int64_t part = a.heads * a.capacity * a.d;
    T *keys = cache + 2 * a.slot[blockIdx.y] * part;
    for (int64_t i = blockIdx.x; i < n_new; i += gridDim.x) {
        const T *row = a.qkv + (t0 + i) * a.ld_qkv;
        const int64_t position = a.cache_len[blockIdx.y] + i;
        for (int c = (int)threadIdx.x; c < a.heads * a.d; c += ATTN_THREADS) {
            const int head = c / a.d, j = c % a.d;
            const int64_t to = (head * a.capacity + position) * a.d + j;
            keys[to] = row[head * 3 * a.d + a.d + j];
            keys[part + to] = row[head * 3 * a.d + 2 * a.d + j];
        }
    }
}

lrd_status_t cuda_attn_cached(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_cached_t *a)
{
    const lrd_kv_shape_t *s = &a->cache.shape;
    const int32_t n_single = cuda_single_takes_attn(a) ? a->n_single : 0;
    const int32_t n_seqs = a->n_seqs - n_single;
    const int64_t longest = cuda_smaller(a->qkv.rows - n_single, a->max_len);
    CUDA_SAME_DTYPE("attn_cached", a->qkv.dtype, a->out.dtype);
    if (n_single > 0)
        CUDA_TRY(cuda_single_attn(st, scratch, a));
    CUDA_DISPATCH(a->qkv.dtype, {
        attn_t<T> k = {};
        T *cache = (T *)a->cache.data;
        k.qkv = (const T *)a->qkv.data;
        k.cache = cache;
        k.out = (T *)a->out.data;
        k.cu_seqlens = a->cu_seqlens + n_single;
        k.cache_len = a->cache_len + n_single;
        k.slot = a->slot + n_single;
        k.slope = a->slope;
        k.ld_qkv = a->qkv.ld;
        k.ld_out = a->out.ld;
        k.tokens = a->qkv.rows;
        k.capacity = s->capacity;
        k.d = s->head_dim;
        k.heads = s->n_heads;
        k.scale = a->scale;
        k.n_seqs = n_seqs;
        k.wide = is_wide(k.qkv, k.ld_qkv) && is_wide(k.cache, 0);
        k.wide_out = is_wide(k.out, k.ld_out);
        CUDA_TRY(cuda_launch(st, "enter_kernel", enter_kernel<T>,
                             dim3((unsigned)longest, (unsigned)n_seqs), ATTN_THREADS, 0, k, cache));
        return launch_forward(st, k);
    });
}
