/* Attention of single rows against a cache.
 *
 * The keys of a sequence are cut into pieces of 128, from the first on. A block has a piece of one head and leaves
 * its largest score, the sum of its exponentials and the sum of its values by them; a second kernel puts
 * the pieces of each head together, in order. Where all sequences are one piece the block itself writes the
 * result: the same bits, since a single piece is multiplied by exp(0). The cut is the same for all.
 *
 * A key's chunks of 8 elements go to neighbouring lanes, and keys that lie side by side to one warp: every load is
 * of 16 bytes, or two of them in float32, without a gap.
 */
#include "kernels/cuda/cuda_single.h"

#include "kernels/cuda/cuda_attention.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, PIECE = 128 };

template <class T> struct single_t {
    const T *qkv;
    T *cache, *out; /* cache: [slot][keys, values][head][capacity][d] */
    float *partial; /* [sequence][head][piece][d + 2]: values, exponentials, score */
    const int32_t *cache_len, *slot;
    const float *slope;
    int64_t ld_qkv, ld_out, capacity;
    int d, heads, pieces;
    float scale;
};

/* LANES have a key's chunks; a warp takes GROUPS keys at once, EACH times, AT_ONCE loads ahead of their use. */
template <class T, int D> struct single_tiling_t {
    enum { LANES = D <= 32 ? 4 : D <= 64 ? 8 : 16, GROUPS = WARP / LANES };
    enum { EACH = PIECE / (WARPS * GROUPS), MOST = 16 / sizeof(T) };
    enum { AT_ONCE = (int)EACH < (int)MOST ? (int)EACH : (int)MOST };
};

/* One head of one sequence. The new token's key and value are in qkv, those before in the cache. */
template <class T> struct single_head_t {
    const T *q, *own_k, *own_v;
    T *keys, *values;
    int past;
};

template <class T>
__device__ static single_head_t<T> find_single(const single_t<T> &a, int sequence, int head)
{
    single_head_t<T> h;
    const int64_t part = a.heads * a.capacity * a.d;
    h.q = a.qkv + sequence * a.ld_qkv + (int64_t)head * 3 * a.d;
    h.own_k = h.q + a.d;
    h.own_v = h.own_k + a.d;
    h.keys = a.cache + 2 * a.slot[sequence] * part + head * a.capacity * a.d;
    h.values = h.keys + part;
    h.past = a.cache_len[sequence];
    return h;
}

/* The lane's chunks of AT_ONCE rows of keys or values, zeros where there are none; key: its first. */
template <class T, int D>
__device__ static __forceinline__ void load_rows(const T *cached, const T *own, int past, int d,
                                                 int key, chunk_t<T> *rows)
{
    typedef single_tiling_t<T, D> tiling;
    const int at = (int)threadIdx.x % tiling::LANES * CHUNK;
    CUDA_UNROLL for (int i = 0; i < tiling::AT_ONCE; i++)
    {
        const int k = key + i * WARPS * tiling::GROUPS;
        const uint4 *from = (const uint4 *)((k == past ? own : cached + (int64_t)k * d) + at);
        const bool there = k <= past && at < d;
        CUDA_UNROLL for (int w = 0; w < (int)(sizeof rows->words / 16); w++) rows[i].words[w] =
            there ? from[w] : uint4{};
    }
}

/* Scores of the lane's keys, -infinity beyond the last; returns the largest of the warp. */
template <class T, int D>
__device__ static __forceinline__ float score_keys(const single_t<T> &a, const single_head_t<T> &h,
                                                   int key, float slope, float *score)
{
    typedef single_tiling_t<T, D> tiling;
    const int at = (int)threadIdx.x % tiling::LANES * CHUNK;
    float q[CHUNK] = {}, most = -INFINITY;
    if (at < a.d)
        load_chunk(h.q + at, CHUNK, true, q);
    CUDA_UNROLL for (int first = 0; first < tiling::EACH; first += tiling::AT_ONCE)
    {
        chunk_t<T> rows[tiling::AT_ONCE];
        const int step = WARPS * tiling::GROUPS;
        load_rows<T, D>(h.keys, h.own_k, h.past, a.d, key + first * step, rows);
        CUDA_UNROLL for (int i = 0; i < tiling::AT_ONCE; i++)
        {
            const int behind = h.past - (key + (first + i) * step);
            float s = 0;
            CUDA_UNROLL for (int c = 0; c < CHUNK; c++) s =
                fmaf(q[c], to_f32(rows[i].element[c]), s);
            CUDA_UNROLL for (unsigned with = 1; with < tiling::LANES; with *= 2) s +=
                __shfl_xor_sync(FULL_WARP, s, with);
            s = behind >= 0 ? s * a.scale - slope * (float)behind : -INFINITY;
            score[first + i] = s;
            most = fmaxf(most, s);
        }
    }
    return warp_max(most);
}

/* Adds the lane's keys' values, by their weights, to o. */
template <class T, int D>
__device__ static __forceinline__ void add_values(const single_t<T> &a, const single_head_t<T> &h,
                                                  int key, const float *weight, float *o)
{
    typedef single_tiling_t<T, D> tiling;
    CUDA_UNROLL for (int first = 0; first < tiling::EACH; first += tiling::AT_ONCE)
    {
        chunk_t<T> rows[tiling::AT_ONCE];
        load_rows<T, D>(h.values, h.own_v, h.past, a.d, key + first * WARPS * tiling::GROUPS, rows);
        CUDA_UNROLL for (int i = 0; i < tiling::AT_ONCE; i++)
        {
            CUDA_UNROLL for (int c = 0; c < CHUNK; c++) o[c] =
                fmaf(weight[first + i], to_f32(rows[i].element[c]), o[c]);
        }
    }
}

/* x of the groups of lanes of a warp, added up; each of them gets the sum. */
template <int LANES> __device__ static __forceinline__ float sum_groups(float x)
{
    CUDA_UNROLL for (unsigned with = LANES; with < WARP; with *= 2) x +=
        __shfl_xor_sync(FULL_WARP, x, with);
    return x;
}

template <class T>
__device__ static __forceinline__ void store_single(const single_t<T> &a, int column, float o,
                                                    float sum)
{
    from_f32(o * (1.0f / sum), &a.out[blockIdx.z * a.ld_out + (int64_t)blockIdx.y * a.d + column]);
}

template <class T> __device__ static float *partial_of(const single_t<T> &a, int piece)
{
    return a.partial +
           (((int64_t)blockIdx.z * a.heads + blockIdx.y) * a.pieces + piece) * (a.d + 2);
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS, 2) single_attn_kernel(single_t<T> a)
{
    typedef single_tiling_t<T, D> tiling;
    __shared__ float part_o[WARPS][D], part_sum[WARPS];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int first = (int)blockIdx.x * PIECE, column = (int)threadIdx.x;
    const single_head_t<T> h = find_single(a, (int)blockIdx.z, (int)blockIdx.y);
    if (first > h.past)
        return;
    if (h.past < first + PIECE && column < a.d) {
        h.keys[(int64_t)h.past * a.d + column] = h.own_k[column];
        h.values[(int64_t)h.past * a.d + column] = h.own_v[column];
    }
    const int key = first + warp * tiling::GROUPS + lane / tiling::LANES;
    float weight[tiling::EACH], o[CHUNK] = {}, sum = 0;
    const float most = block_max(score_keys<T, D>(a, h, key, a.slope[blockIdx.y], weight));
    CUDA_UNROLL for (int i = 0; i < tiling::EACH; i++)
    {
        weight[i] = expf(weight[i] - most);
        sum += weight[i];
    }
    add_values<T, D>(a, h, key, weight, o);
    sum = sum_groups<tiling::LANES>(sum);
    CUDA_UNROLL for (int c = 0; c < CHUNK; c++)
    {
        o[c] = sum_groups<tiling::LANES>(o[c]);
        if (lane * CHUNK + c < a.d)
            part_o[warp][lane * CHUNK + c] = o[c];
    }
    part_sum[warp] = sum;
    __syncthreads();
    if (column >= a.d)
        return;
    float all = part_o[0][column];
    sum = part_sum[0];
    for (int w = 1; w < WARPS; w++) {
        all += part_o[w][column];
        sum += part_sum[w];
    }
    if (a.pieces == 1) {
        store_single(a, column, all, sum);
        return;
    }
    float *to = partial_of(a, (int)blockIdx.x);
    to[column] = all;
    to[a.d] = sum;
    to[a.d + 1] = most;
}

/* A thread has a column of one head of one sequence. */
template <class T> __global__ void __launch_bounds__(THREADS) single_pieces_kernel(single_t<T> a)
{
    const int column = (int)threadIdx.x, n = a.cache_len[blockIdx.z] / PIECE + 1;
    if (column >= a.d)
        return;
    float most = -INFINITY, o = 0, sum = 0;
    for (int i = 0; i < n; i++)
        most = fmaxf(most, partial_of(a, i)[a.d + 1]);
    for (int i = 0; i < n; i++) {
        const float *from = partial_of(a, i);
        const float factor = expf(from[a.d + 1] - most);
        o = i == 0 ? factor * from[column] : fmaf(factor, from[column], o);
        sum = i == 0 ? factor * from[a.d] : fmaf(factor, from[a.d], sum);
    }
    store_single(a, column, o, sum);
}

static float *take_partial(cuda_arena_t *arena, int64_t rows, int64_t heads, int64_t max_len,
                           int64_t d)
{
    const int64_t pieces = cuda_ceil_div(max_len, PIECE);
    return cuda_take<float>(arena, pieces > 1 ? rows * heads * pieces * (d + 2) : 0);
}

size_t cuda_single_attn_scratch(const lrd_limits_t *l)
{
    cuda_arena_t arena = {};
    take_partial(&arena, l->sequences, l->n_heads, l->cached_len, l->head_dim);
    return arena.used;
}

bool cuda_single_takes_attn(const lrd_attn_cached_t *a)
{
    CUDA_DISPATCH(a->qkv.dtype, {
        return is_wide((const T *)a->qkv.data, a->qkv.ld) && is_wide((const T *)a->cache.data, 0);
    });
}

lrd_status_t cuda_single_attn(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_cached_t *a)
{
    const lrd_kv_shape_t *s = &a->cache.shape;
    cuda_arena_t measured = {}, arena = {(uint8_t *)scratch.data, 0};
    take_partial(&measured, a->n_single, s->n_heads, a->max_len, s->head_dim);
    CUDA_TRY(cuda_check_scratch(&measured, scratch));
    CUDA_DISPATCH(a->qkv.dtype, {
        single_t<T> k = {};
        k.qkv = (const T *)a->qkv.data;
        k.cache = (T *)a->cache.data;
        k.out = (T *)a->out.data;
        k.partial = take_partial(&arena, a->n_single, s->n_heads, a->max_len, s->head_dim);
        k.cache_len = a->cache_len;
        k.slot = a->slot;
        k.slope = a->slope;
        k.ld_qkv = a->qkv.ld;
        k.ld_out = a->out.ld;
        k.capacity = s->capacity;
        k.d = s->head_dim;
        k.heads = s->n_heads;
        k.pieces = (int)cuda_ceil_div(a->max_len, PIECE);
        k.scale = a->scale;
        const dim3 heads(1, (unsigned)k.heads, (unsigned)a->n_single);
        const dim3 grid((unsigned)k.pieces, heads.y, heads.z);
        CUDA_DISPATCH_HEAD(k.d, {
            CUDA_TRY(cuda_launch(st, "single_attn_kernel", single_attn_kernel<T, D>, grid, THREADS,
                                 0, k));
        });
        if (k.pieces == 1)
            return LRD_OK;
        return cuda_launch(st, "single_pieces_kernel", single_pieces_kernel<T>, heads, 128, 0, k);
    });
}
