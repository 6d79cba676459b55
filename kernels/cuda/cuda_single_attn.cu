/* Attention of single rows against a cache.
 *
 * The keys of a sequence are cut into pieces of 256, from the first on; a block has a piece of one head. Its warps
 * take keys in turn, several at once, and keep a running largest score, a sum of exponentials and a sum
 * of values weighted by them. These parts of warps, and then, in a second kernel, the parts of pieces, are put
 * together in their order. Where the call is of one piece the block itself writes the result: the same bits,
 * since a single part is multiplied by exp(0). The cut is the same for all.
 *
 * A key's chunks of 8 elements go to neighbouring lanes, and keys that lie side by side to one warp: every load is
 * of 16 bytes, two of them in float32, without a gap.
 */
#include "kernels/cuda/cuda_single.h"

#include "kernels/cuda/cuda_attention.h"
#include "kernels/cuda/cuda_device.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, KEYS_PER_PIECE = 256 };

template <class T> struct single_t {
    const T *qkv;
    T *cache, *out; /* cache: [slot][keys, values][head][capacity][d] */
    float *partial; /* [sequence][head][piece] parts */
    const int32_t *cache_len, *slot;
    const float *slope;
    int64_t ld_qkv, ld_out, capacity;
    int d, heads, pieces;
    float scale;
};

/* LANES have a key's chunks; a warp takes GROUPS keys at once, and in a batch AT_ONCE times as many, whose
 * loads come before their use. A lane has EACH keys of a piece. */
template <class T, int D> struct single_tiling_t {
    enum { LANES = D <= 32 ? 4 : D <= 64 ? 8 : 16, GROUPS = WARP / LANES };
    enum { EACH = KEYS_PER_PIECE / (WARPS * GROUPS), MOST = 16 / sizeof(T) };
    enum { AT_ONCE = (int)EACH < (int)MOST ? (int)EACH : (int)MOST };
    enum { NEXT = WARPS * GROUPS }; /* keys from a lane's one to its next */
    enum { BATCH = AT_ONCE * NEXT };
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
        const int k = key + i * tiling::NEXT;
        const uint4 *from = (const uint4 *)((k == past ? own : cached + (int64_t)k * d) + at);
        const bool there = k <= past && at < d;
        CUDA_UNROLL for (int w = 0; w < (int)(sizeof rows->words / 16); w++) rows[i].words[w] =
            there ? from[w] : uint4{};
    }
}

/* The lane's chunk of what a warp has of a head so far; `most` is the warp's, the sums are of the lane's keys. */
struct single_sums_t {
    float most, sum, o[CHUNK];
};

/* Adds a batch of keys, of which the warp's first is there; key: the lane's first. */
template <class T, int D>
__device__ static __forceinline__ void add_batch(const single_t<T> &a, const single_head_t<T> &h,
                                                 int key, float slope, const float *q,
                                                 single_sums_t *x)
{
    typedef single_tiling_t<T, D> tiling;
    chunk_t<T> keys[tiling::AT_ONCE], values[tiling::AT_ONCE];
    float score[tiling::AT_ONCE], most = x->most;
    load_rows<T, D>(h.keys, h.own_k, h.past, a.d, key, keys);
    load_rows<T, D>(h.values, h.own_v, h.past, a.d, key, values);
    CUDA_UNROLL for (int i = 0; i < tiling::AT_ONCE; i++)
    {
        const int behind = h.past - (key + i * tiling::NEXT);
        float s = 0;
        CUDA_UNROLL for (int c = 0; c < CHUNK; c++) s = fmaf(q[c], to_f32(keys[i].element[c]), s);
        CUDA_UNROLL for (unsigned with = 1; with < tiling::LANES; with *= 2) s +=
            __shfl_xor_sync(FULL_WARP, s, with);
        score[i] = behind >= 0 ? s * a.scale - slope * (float)behind : -INFINITY;
        most = fmaxf(most, score[i]);
    }
    CUDA_UNROLL for (unsigned with = tiling::LANES; with < WARP; with *= 2) most =
        fmaxf(most, __shfl_xor_sync(FULL_WARP, most, with));
    const float shrink = expf(x->most - most);
    x->most = most;
    x->sum *= shrink;
    CUDA_UNROLL for (int c = 0; c < CHUNK; c++) x->o[c] *= shrink;
    CUDA_UNROLL for (int i = 0; i < tiling::AT_ONCE; i++)
    {
        const float weight = expf(score[i] - most);
        x->sum += weight;
        CUDA_UNROLL for (int c = 0; c < CHUNK; c++) x->o[c] =
            fmaf(weight, to_f32(values[i].element[c]), x->o[c]);
    }
}

/* A part of a head, in memory: d sums of values, the sum of exponentials, the largest score. */
__host__ __device__ static constexpr int part_size(int d)
{
    return d + 2;
}

/* Adds up the warp's lanes into its part. */
template <class T, int D>
__device__ static __forceinline__ void store_warp(const single_sums_t &x, int d, float *part)
{
    typedef single_tiling_t<T, D> tiling;
    const int lane = (int)threadIdx.x % WARP;
    float all[CHUNK + 1];
    CUDA_UNROLL for (int c = 0; c <= CHUNK; c++)
    {
        all[c] = c < CHUNK ? x.o[c] : x.sum;
        CUDA_UNROLL for (unsigned with = tiling::LANES; with < WARP; with *= 2) all[c] +=
            __shfl_xor_sync(FULL_WARP, all[c], with);
        if (c < CHUNK && lane * CHUNK + c < d)
            part[lane * CHUNK + c] = all[c];
    }
    if (lane == 0) {
        part[d] = all[CHUNK];
        part[d + 1] = x.most;
    }
}

/* One column of n parts, put together: to the result where `to` is NULL, else to a part. */
template <class T>
__device__ static __forceinline__ void join_parts(const single_t<T> &a, const float *part, int n,
                                                  float *to)
{
    const int column = (int)threadIdx.x, size = part_size(a.d);
    float most = part[a.d + 1], o = 0, sum = 0;
    for (int i = 1; i < n; i++)
        most = fmaxf(most, part[i * size + a.d + 1]);
    for (int i = 0; i < n; i++) {
        const float *from = part + i * size;
        const float factor = expf(from[a.d + 1] - most);
        o = i == 0 ? factor * from[column] : fmaf(factor, from[column], o);
        sum = i == 0 ? factor * from[a.d] : fmaf(factor, from[a.d], sum);
    }
    if (to == NULL) {
        T *out = a.out + blockIdx.z * a.ld_out + (int64_t)blockIdx.y * a.d;
        from_f32(o * (1.0f / sum), &out[column]);
        return;
    }
    to[column] = o;
    to[a.d] = sum;
    to[a.d + 1] = most;
}

template <class T> __device__ static float *parts_of_head(const single_t<T> &a)
{
    const int64_t head = (int64_t)blockIdx.z * a.heads + blockIdx.y;
    return a.partial + head * a.pieces * part_size(a.d);
}

template <class T, int D>
__global__ void __launch_bounds__(THREADS, 2) single_attn_kernel(single_t<T> a)
{
    typedef single_tiling_t<T, D> tiling;
    __shared__ float part[WARPS * part_size(D)];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int first = (int)blockIdx.x * KEYS_PER_PIECE, column = (int)threadIdx.x;
    const single_head_t<T> h = find_single(a, (int)blockIdx.z, (int)blockIdx.y);
    if (first > h.past)
        return;
    if (h.past < first + KEYS_PER_PIECE && column < a.d) {
        h.keys[(int64_t)h.past * a.d + column] = h.own_k[column];
        h.values[(int64_t)h.past * a.d + column] = h.own_v[column];
    }
    float q[CHUNK] = {};
    single_sums_t x = {-INFINITY, 0, {}};
    if (lane % tiling::LANES * CHUNK < a.d)
        load_chunk(h.q + lane % tiling::LANES * CHUNK, CHUNK, true, q);
    const int end = h.past < first + KEYS_PER_PIECE ? h.past + 1 : first + KEYS_PER_PIECE;
    for (int key = first + warp * tiling::GROUPS; key < end; key += tiling::BATCH)
        add_batch<T, D>(a, h, key + lane / tiling::LANES, a.slope[blockIdx.y], q, &x);
    store_warp<T, D>(x, a.d, part + warp * part_size(a.d));
    __syncthreads();
    if (column < a.d)
        join_parts(a, part, WARPS,
                   a.pieces == 1 ? NULL : parts_of_head(a) + blockIdx.x * part_size(a.d));
}

template <class T> __global__ void __launch_bounds__(THREADS) single_pieces_kernel(single_t<T> a)
{
    if ((int)threadIdx.x < a.d)
        join_parts(a, parts_of_head(a), a.cache_len[blockIdx.z] / KEYS_PER_PIECE + 1, NULL);
}

static float *take_partial(cuda_arena_t *arena, int64_t rows, int64_t heads, int64_t max_len,
                           int64_t d)
{
    const int64_t pieces = cuda_ceil_div(max_len, KEYS_PER_PIECE);
    return cuda_take<float>(arena, pieces > 1 ? rows * heads * pieces * part_size((int)d) : 0);
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
        k.pieces = (int)cuda_ceil_div(a->max_len, KEYS_PER_PIECE);
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
