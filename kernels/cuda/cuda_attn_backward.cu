/* Backward of causal attention with ALiBi. Two kernels, each of which makes the scores again from the
 * forward's log-sum-exp, so that every sum has one owner and one order:
 *
 *   keys:     a block has 64 keys and takes the queries from them on in tiles, on transposed
 *             scores (' = transposed):  S' = K Q'   dP' = V dO'   dV += P' dO   dK += dS' Q
 *   queries:  a block has 64 queries and takes the keys up to them in tiles:
 *             S = Q K'   dP = dO V'   dQ += dS K
 *
 * with P = exp(S - lse), dS = P (dP - delta), delta = dot product of dO and the forward's output.
 */
#include "kernels/cuda/cuda_attention.h"

#include "kernels/cuda/cuda_tile.cuh"

template <class T> struct attn_backward_t {
    const T *qkv, *out, *dout;
    T *dqkv;
    const float *lse, *slope; /* lse: [heads][tokens], as is delta */
    float *delta;
    const int32_t *cu_seqlens;
    int64_t ld_qkv, ld_out, ld_dout, ld_dqkv, tokens;
    int d, heads;
    float scale;
    bool wide_qkv, wide_dout;
};

/* One warp for each token and head. */
template <class T>
__global__ void __launch_bounds__(ATTN_THREADS) delta_kernel(attn_backward_t<T> a)
{
    const int64_t t = blockIdx.x;
    const int lane = (int)threadIdx.x % WARP;
    for (int head = (int)threadIdx.x / WARP; head < a.heads; head += ATTN_THREADS / WARP) {
        float sum = 0;
        for (int j = lane; j < a.d; j += WARP)
            sum = fmaf(to_f32(a.dout[t * a.ld_dout + head * a.d + j]),
                       to_f32(a.out[t * a.ld_out + head * a.d + j]), sum);
        sum = warp_sum(sum);
        if (lane == 0)
            a.delta[head * a.tokens + t] = sum;
    }
}

/* One head of one sequence: its rows of everything. */
template <class T> struct backward_head_t {
    const T *q, *k, *v, *dout;
    T *dq;
    const float *lse, *delta;
    int length;
    float slope;
};

template <class T>
__device__ static backward_head_t<T> find_backward_head(const attn_backward_t<T> &a)
{
    const int sequence = (int)blockIdx.z, head = (int)blockIdx.y;
    const int64_t t0 = a.cu_seqlens[sequence];
    backward_head_t<T> h;
    h.length = (int)(a.cu_seqlens[sequence + 1] - t0);
    h.q = a.qkv + t0 * a.ld_qkv + (int64_t)head * 3 * a.d;
    h.k = h.q + a.d;
    h.v = h.q + 2 * a.d;
    h.dout = a.dout + t0 * a.ld_dout + (int64_t)head * a.d;
    h.dq = a.dqkv + t0 * a.ld_dqkv + (int64_t)head * 3 * a.d;
    h.lse = a.lse + head * a.tokens + t0;
    h.delta = a.delta + head * a.tokens + t0;
    h.slope = a.slope[head];
    return h;
}

/* Shared memory: 64 rows of two tensors that stay, one or two tiles each of two that pass by, and a piece each of P
 * and dS. */
template <class T, int D> struct backward_tiles_t {
    enum { STEP = attn_tiling_t<T>::STEP, STAGES = attn_tiling_t<T>::STAGES };
    T *stay[2], *pass[2], *p, *ds;
};

template <class T, int D> __host__ static constexpr size_t backward_shared_bytes()
{
    typedef backward_tiles_t<T, D> tiles;
    return 2 * tile_bytes<T>(ATTN_ROWS, D) + 2 * tiles::STAGES * tile_bytes<T>(tiles::STEP, D) +
           2 * tile_bytes<T>(ATTN_ROWS, tiles::STEP);
}

template <class T, int D>
__device__ static backward_tiles_t<T, D> lay_out_backward(unsigned char *shared)
{
    backward_tiles_t<T, D> m;
    m.stay[0] = (T *)shared;
    m.stay[1] = m.stay[0] + ATTN_ROWS * tile_ld<T>(D);
    m.pass[0] = m.stay[1] + ATTN_ROWS * tile_ld<T>(D);
    m.pass[1] = m.pass[0] + m.STAGES * m.STEP * tile_ld<T>(D);
    m.p = m.pass[1] + m.STAGES * m.STEP * tile_ld<T>(D);
    m.ds = m.p + ATTN_ROWS * tile_ld<T>(m.STEP);
    return m;
}

/* Rows first .. of two tensors into their place among the tiles that pass by. */
template <class T, int D>
__device__ static void load_pass(const attn_backward_t<T> &a, const backward_tiles_t<T, D> &m,
                                 const T *x, int64_t ld_x, bool wide_x, const T *y, int64_t ld_y,
                                 bool wide_y, int first, int length)
{
    const int at = first % (m.STAGES * m.STEP) * tile_ld<T>(D);
    const int n = length - first < m.STEP ? length - first : (int)m.STEP;
    load_tile(m.pass[0] + at, m.STEP, D, x + first * ld_x, ld_x, n, a.d, wide_x);
    load_tile(m.pass[1] + at, m.STEP, D, y + first * ld_y, ld_y, n, a.d, wide_y);
}

template <class T, int D>
__device__ static void load_stay(const attn_backward_t<T> &a, const backward_tiles_t<T, D> &m,
                                 const T *x, int64_t ld_x, bool wide_x, const T *y, int64_t ld_y,
                                 bool wide_y, int first, int length)
{
    const int n = length - first < ATTN_ROWS ? length - first : (int)ATTN_ROWS;
    load_tile(m.stay[0], ATTN_ROWS, D, x + first * ld_x, ld_x, n, a.d, wide_x);
    load_tile(m.stay[1], ATTN_ROWS, D, y + first * ld_y, ld_y, n, a.d, wide_y);
}

/* s = P, dp = dS of one element: query and key by their places. */
__device__ static __forceinline__ void backward_element(float *s, float *dp, float scale,
                                                        float slope, int query, int key, int length,
                                                        float lse, float delta)
{
    const int behind = query - key;
    const bool seen = behind >= 0 && query < length;
    *s = seen ? expf(*s * scale - slope * (float)behind - lse) : 0.0f;
    *dp = seen ? *s * (*dp - delta) : 0.0f;
}

/* A warp's 16 rows times factor to rows `row` .. of a sequence. */
template <class T, int D>
__device__ static void store_gradient(T *to, int64_t ld, int row, int length, int d, float factor,
                                      const float (*acc)[4])
{
    const int lane = (int)threadIdx.x % WARP;
    CUDA_UNROLL for (int n = 0; n < D / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++)
        {
            const int at = row + lane / 4 + i / 2 * 8, col = n * 8 + lane % 4 * 2 + i % 2;
            if (at < length && col < d)
                from_f32(acc[n][i] * factor, &to[at * ld + col]);
        }
    }
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_backward_keys_kernel(attn_backward_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    constexpr int STEP = attn_tiling_t<T>::STEP, STAGES = attn_tiling_t<T>::STAGES;
    const backward_head_t<T> h = find_backward_head(a);
    const int first = (int)blockIdx.x * ATTN_ROWS;
    if (first >= h.length)
        return;
    const backward_tiles_t<T, D> m = lay_out_backward<T, D>(shared);
    const int lane = (int)threadIdx.x % WARP, warp_row = (int)threadIdx.x / WARP * 16;
    const int ld = tile_ld<T>(D), ld_p = tile_ld<T>(STEP);
    T *const p = m.p + warp_row * ld_p, *const ds = m.ds + warp_row * ld_p;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    load_stay(a, m, h.k, a.ld_qkv, a.wide_qkv, h.v, a.ld_qkv, a.wide_qkv, first, h.length);
    const auto load = [&](int at) {
        load_pass(a, m, h.q, a.ld_qkv, a.wide_qkv, h.dout, a.ld_dout, a.wide_dout, at, h.length);
    };
    if (STAGES > 1)
        load(first);
    for (int query = first; query < h.length; query += STEP) {
        const int at = query % (STAGES * STEP) * ld;
        float s[STEP / 8][4] = {}, dp[STEP / 8][4] = {};
        turn_to_tile<STAGES>(query, STEP, h.length, load);
        warp_product_t<T, STEP, D, true>::add(s, m.stay[0] + warp_row * ld, ld, m.pass[0] + at, ld);
        warp_product_t<T, STEP, D, true>::add(dp, m.stay[1] + warp_row * ld, ld, m.pass[1] + at,
                                              ld);
        CUDA_UNROLL for (int n = 0; n < STEP / 8; n++)
        {
            CUDA_UNROLL for (int i = 0; i < 4; i++)
            {
                const int key = first + warp_row + lane / 4 + i / 2 * 8;
                const int q = query + n * 8 + lane % 4 * 2 + i % 2;
                const int q_read = q < h.length ? q : h.length - 1;
                backward_element(&s[n][i], &dp[n][i], a.scale, h.slope, q, key, h.length,
                                 h.lse[q_read], h.delta[q_read]);
            }
        }
        store_fragments<T, STEP>(s, p, ld_p);
        store_fragments<T, STEP>(dp, ds, ld_p);
        __syncwarp();
        warp_product_t<T, D, STEP, false>::add(dv, p, ld_p, m.pass[1] + at, ld);
        warp_product_t<T, D, STEP, false>::add(dk, ds, ld_p, m.pass[0] + at, ld);
        __syncwarp(); /* before the next tile's P and dS */
    }
    store_gradient<T, D>(h.dq + a.d, a.ld_dqkv, first + warp_row, h.length, a.d, a.scale, dk);
    store_gradient<T, D>(h.dq + 2 * a.d, a.ld_dqkv, first + warp_row, h.length, a.d, 1.0f, dv);
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_backward_queries_kernel(attn_backward_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    constexpr int STEP = attn_tiling_t<T>::STEP, STAGES = attn_tiling_t<T>::STAGES;
    const backward_head_t<T> h = find_backward_head(a);
    const int first = (int)(gridDim.x - 1 - blockIdx.x) * ATTN_ROWS; /* the longest begin first */
    if (first >= h.length)
        return;
    const backward_tiles_t<T, D> m = lay_out_backward<T, D>(shared);
    const int n_keys = first + ATTN_ROWS < h.length ? first + ATTN_ROWS : h.length;
    const int lane = (int)threadIdx.x % WARP, warp_row = (int)threadIdx.x / WARP * 16;
    const int ld = tile_ld<T>(D), ld_p = tile_ld<T>(STEP);
    T *const ds = m.ds + warp_row * ld_p;
    float dq[D / 8][4] = {}, lse[2], delta[2];
    CUDA_UNROLL for (int r = 0; r < 2; r++)
    {
        const int q = first + warp_row + lane / 4 + r * 8, q_read = q < h.length ? q : h.length - 1;
        lse[r] = h.lse[q_read];
        delta[r] = h.delta[q_read];
    }
    load_stay(a, m, h.q, a.ld_qkv, a.wide_qkv, h.dout, a.ld_dout, a.wide_dout, first, h.length);
    const auto load = [&](int at) {
        load_pass(a, m, h.k, a.ld_qkv, a.wide_qkv, h.v, a.ld_qkv, a.wide_qkv, at, n_keys);
    };
    if (STAGES > 1)
        load(0);
    for (int key = 0; key < n_keys; key += STEP) {
        const int at = key % (STAGES * STEP) * ld;
        float s[STEP / 8][4] = {}, dp[STEP / 8][4] = {};
        turn_to_tile<STAGES>(key, STEP, n_keys, load);
        warp_product_t<T, STEP, D, true>::add(s, m.stay[0] + warp_row * ld, ld, m.pass[0] + at, ld);
        warp_product_t<T, STEP, D, true>::add(dp, m.stay[1] + warp_row * ld, ld, m.pass[1] + at,
                                              ld);
        CUDA_UNROLL for (int n = 0; n < STEP / 8; n++)
        {
            CUDA_UNROLL for (int i = 0; i < 4; i++) backward_element(
                &s[n][i], &dp[n][i], a.scale, h.slope, first + warp_row + lane / 4 + i / 2 * 8,
                key + n * 8 + lane % 4 * 2 + i % 2, h.length, lse[i / 2], delta[i / 2]);
        }
        store_fragments<T, STEP>(dp, ds, ld_p);
        __syncwarp();
        warp_product_t<T, D, STEP, false>::add(dq, ds, ld_p, m.pass[0] + at, ld);
        __syncwarp(); /* before the next tile's dS */
    }
    store_gradient<T, D>(h.dq, a.ld_dqkv, first + warp_row, h.length, a.d, a.scale, dq);
}

static float *take_delta(cuda_arena_t *arena, int64_t tokens, int64_t heads)
{
    return cuda_take<float>(arena, tokens * heads);
}

size_t cuda_attn_scratch(const lrd_limits_t *l)
{
    cuda_arena_t arena = {};
    if (l->training)
        take_delta(&arena, l->tokens, l->n_heads);
    return arena.used;
}

template <class T>
static lrd_status_t launch_backward(lrd_stream_t *st, const lrd_attn_bwd_t *b, attn_backward_t<T> k)
{
    const dim3 grid((unsigned)cuda_ceil_div(b->fwd.max_seqlen, ATTN_ROWS), (unsigned)k.heads,
                    (unsigned)b->fwd.n_seqs);
    CUDA_TRY(cuda_launch(st, "delta_kernel", delta_kernel<T>, dim3((unsigned)k.tokens),
                         ATTN_THREADS, 0, k));
    CUDA_DISPATCH_HEAD(k.d, {
        const size_t shared = backward_shared_bytes<T, D>();
        CUDA_TRY(cuda_launch(st, "attn_backward_keys_kernel", attn_backward_keys_kernel<T, D>, grid,
                             ATTN_THREADS, shared, k));
        return cuda_launch(st, "attn_backward_queries_kernel", attn_backward_queries_kernel<T, D>,
                           grid, ATTN_THREADS, shared, k);
    });
}

lrd_status_t cuda_attn_backward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_bwd_t *b)
{
    const lrd_attn_fwd_t *a = &b->fwd;
    cuda_arena_t arena = {(uint8_t *)scratch.data, 0};
    float *delta = take_delta(&arena, a->qkv.rows, a->n_heads);
    CUDA_TRY(cuda_check_scratch(&arena, scratch));
    CUDA_SAME_DTYPE("attn_backward", a->qkv.dtype, a->out.dtype);
    CUDA_SAME_DTYPE("attn_backward", a->qkv.dtype, b->dout.dtype);
    CUDA_SAME_DTYPE("attn_backward", a->qkv.dtype, b->dqkv.dtype);
    CUDA_DISPATCH(a->qkv.dtype, {
        attn_backward_t<T> k;
        k.qkv = (const T *)a->qkv.data;
        k.out = (const T *)a->out.data;
        k.dout = (const T *)b->dout.data;
        k.dqkv = (T *)b->dqkv.data;
        k.lse = a->lse;
        k.slope = a->slope;
        k.delta = delta;
        k.cu_seqlens = a->cu_seqlens;
        k.ld_qkv = a->qkv.ld;
        k.ld_out = a->out.ld;
        k.ld_dout = b->dout.ld;
        k.ld_dqkv = b->dqkv.ld;
        k.tokens = a->qkv.rows;
        k.d = a->head_dim;
        k.heads = a->n_heads;
        k.scale = a->scale;
        k.wide_qkv = is_wide(k.qkv, k.ld_qkv);
        k.wide_dout = is_wide(k.dout, k.ld_dout);
        return launch_backward(st, b, k);
    });
}
