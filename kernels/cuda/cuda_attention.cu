/* Causal attention with ALiBi inside packed sequences, and against a cache of keys and values.
 *
 * A block of threads has 64 queries of one head of one sequence and takes the keys before them in
 * tiles, from the first on, with a running maximum and sum. What a query gets depends on its
 * own sequence and place alone: tiles begin at the sequence's first key, and keys after the query
 * contribute exact zeros. So attention with a cache, in pieces or token by token, has the same bits. Single
 * rows go another way (cuda_single.h).
 */
#include "kernels/cuda/cuda_attention.h"

#include "kernels/cuda/cuda_single.h"
#include "kernels/cuda/cuda_tile.cuh"

/* Where a sequence's tensors are: packed rows, or slots of a cache. */
template <class T> struct attn_t {
    const T *qkv, *cache; /* cache: NULL without one, then keys and values are in qkv */
    T *out;
    float *lse; /* [heads][tokens], or NULL */
    const int32_t *cu_seqlens, *cache_len, *slot;
    const float *slope;
    int64_t ld_qkv, ld_out, tokens, capacity;
    int d, heads;
    float scale;
    bool wide;
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

/* A warp's running softmax; lane l has rows l / 4 and l / 4 + 8, as two entries. */
struct softmax_t {
    float most[2], sum[2];
};

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

/* Scores of one tile to exponentials; `shrink` is what earlier sums are multiplied with. position: of
 * the lane's first row in its sequence; first_key: of the tile. */
template <int KEYS>
__device__ static __forceinline__ void softmax_tile(float (*s)[4], softmax_t *x, float *shrink,
                                                    float scale, float slope, int position,
                                                    int first_key)
{
    const int col = first_key + (int)threadIdx.x % 4 * 2;
    float most[2] = {x->most[0], x->most[1]}, sum[2] = {0, 0};
    CUDA_UNROLL for (int n = 0; n < KEYS / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++)
        {
            const int behind = position + i / 2 * 8 - (col + n * 8 + i % 2);
            s[n][i] = behind >= 0 ? s[n][i] * scale - slope * (float)behind : -INFINITY;
            most[i / 2] = fmaxf(most[i / 2], s[n][i]);
        }
    }
    CUDA_UNROLL for (int r = 0; r < 2; r++)
    {
        most[r] = quad_max(most[r]);
        shrink[r] = expf(x->most[r] - most[r]);
        x->most[r] = most[r];
    }
    CUDA_UNROLL for (int n = 0; n < KEYS / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++)
        {
            s[n][i] = expf(s[n][i] - most[i / 2]);
            sum[i / 2] += s[n][i];
        }
    }
    CUDA_UNROLL for (int r = 0; r < 2; r++) x->sum[r] = x->sum[r] * shrink[r] + quad_sum(sum[r]);
}

/* Shared memory: queries, tiles of keys and of values, one or two of each, exponentials. */
template <class T, int D> struct attn_tiles_t {
    enum { KEYS = attn_tiling_t<T>::KEYS, STAGES = attn_tiling_t<T>::STAGES };
    T *q, *k, *v, *p;
};

template <class T, int D> __host__ static constexpr size_t attn_shared_bytes()
{
    typedef attn_tiles_t<T, D> tiles;
    return tile_bytes<T>(ATTN_ROWS, D) + 2 * tiles::STAGES * tile_bytes<T>(tiles::KEYS, D) +
           tile_bytes<T>(ATTN_ROWS, tiles::KEYS);
}

template <class T, int D> __device__ static attn_tiles_t<T, D> lay_out_tiles(unsigned char *shared)
{
    attn_tiles_t<T, D> m;
    m.q = (T *)shared;
    m.k = m.q + ATTN_ROWS * tile_ld<T>(D);
    m.v = m.k + m.STAGES * m.KEYS * tile_ld<T>(D);
    m.p = m.v + m.STAGES * m.KEYS * tile_ld<T>(D);
    return m;
}

template <class T, int D>
__device__ static void load_keys(const attn_t<T> &a, const attn_head_t<T> &h,
                                 const attn_tiles_t<T, D> &m, int first, int n_keys)
{
    const int at = first % (m.STAGES * m.KEYS) * tile_ld<T>(D);
    const int n = n_keys - first < m.KEYS ? n_keys - first : (int)m.KEYS;
    load_tile(m.k + at, m.KEYS, D, h.k + first * h.ld_kv, h.ld_kv, n, a.d, a.wide);
    load_tile(m.v + at, m.KEYS, D, h.v + first * h.ld_kv, h.ld_kv, n, a.d, a.wide);
}

/* o / sum to memory, and the log-sum-exp. row: of the warp's first among the new tokens. */
template <class T, int D>
__device__ static void store_rows(const attn_t<T> &a, int sequence, int head, int n_new, int row,
                                  const float (*o)[4], const softmax_t &x)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t t0 = a.cu_seqlens[sequence];
    CUDA_UNROLL for (int r = 0; r < 2; r++)
    {
        const int at = row + lane / 4 + r * 8;
        if (at >= n_new)
            continue;
        T *out = a.out + (t0 + at) * a.ld_out + (int64_t)head * a.d;
        const float factor = 1.0f / x.sum[r];
        CUDA_UNROLL for (int n = 0; n < D / 8; n++)
        {
            for (int i = 0; i < 2; i++) {
                const int col = n * 8 + lane % 4 * 2 + i;
                if (col < a.d)
                    from_f32(o[n][r * 2 + i] * factor, &out[col]);
            }
        }
        if (a.lse != NULL && lane % 4 == 0)
            a.lse[head * a.tokens + t0 + at] = x.most[r] + logf(x.sum[r]);
    }
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_forward_kernel(attn_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    constexpr int KEYS = attn_tiling_t<T>::KEYS, STAGES = attn_tiling_t<T>::STAGES;
    const int sequence = (int)blockIdx.z, head = (int)blockIdx.y;
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * ATTN_ROWS; /* the longest begin first */
    const attn_head_t<T> h = find_head(a, sequence, head);
    if (first >= h.n_new)
        return;
    const attn_tiles_t<T, D> m = lay_out_tiles<T, D>(shared);
    const int n_rows = h.n_new - first < ATTN_ROWS ? h.n_new - first : (int)ATTN_ROWS;
    const int n_keys = h.past + first + n_rows, ld = tile_ld<T>(D), ld_p = tile_ld<T>(KEYS);
    const int warp_row = (int)threadIdx.x / WARP * 16, lane = (int)threadIdx.x % WARP;
    float o[D / 8][4] = {};
    softmax_t x = {{-INFINITY, -INFINITY}, {0, 0}};
    load_tile(m.q, ATTN_ROWS, D, h.q + first * a.ld_qkv, a.ld_qkv, n_rows, a.d, a.wide);
    const auto load = [&](int at) { load_keys(a, h, m, at, n_keys); };
    if (STAGES > 1)
        load(0);
    for (int key = 0; key < n_keys; key += KEYS) {
        const int at = key % (STAGES * KEYS) * ld;
        float s[KEYS / 8][4] = {}, shrink[2];
        turn_to_tile<STAGES>(key, KEYS, n_keys, load);
        if (first + warp_row >= h.n_new)
            continue; /* a single new token keeps one warp busy, not four */
        warp_product_t<T, KEYS, D, true>::add(s, m.q + warp_row * ld, ld, m.k + at, ld);
        softmax_tile<KEYS>(s, &x, shrink, a.scale, a.slope[head],
                           h.past + first + warp_row + lane / 4, key);
        CUDA_UNROLL for (int n = 0; n < D / 8; n++)
        {
            for (int i = 0; i < 4; i++)
                o[n][i] *= shrink[i / 2];
        }
        store_fragments<T, KEYS>(s, m.p + warp_row * ld_p, ld_p);
        __syncwarp();
        warp_product_t<T, D, KEYS, false>::add(o, m.p + warp_row * ld_p, ld_p, m.v + at, ld);
        __syncwarp(); /* before the next tile's exponentials */
    }
    store_rows<T, D>(a, sequence, head, h.n_new, first + warp_row, o, x);
}

template <class T>
static lrd_status_t launch_forward(lrd_stream_t *st, attn_t<T> a, int64_t longest, int64_t n_seqs)
{
    const dim3 grid((unsigned)cuda_ceil_div(longest, ATTN_ROWS), (unsigned)a.heads,
                    (unsigned)n_seqs);
    CUDA_DISPATCH_HEAD(a.d, {
        return cuda_launch(st, "attn_forward_kernel", attn_forward_kernel<T, D>, grid, ATTN_THREADS,
                           attn_shared_bytes<T, D>(), a);
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
        k.wide = is_wide(k.qkv, k.ld_qkv);
        return launch_forward(st, k, a->max_seqlen, a->n_seqs);
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
        k.capacity = s->capacity;
        k.d = s->head_dim;
        k.heads = s->n_heads;
        k.scale = a->scale;
        k.wide = is_wide(k.qkv, k.ld_qkv) && is_wide(k.cache, 0);
        CUDA_TRY(cuda_launch(st, "enter_kernel", enter_kernel<T>,
                             dim3((unsigned)longest, (unsigned)n_seqs), ATTN_THREADS, 0, k, cache));
        return launch_forward(st, k, longest, n_seqs);
    });
}
