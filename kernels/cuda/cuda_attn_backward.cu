/* Backward of causal attention with ALiBi. Two kernels, each of which makes the scores again from the
 * forward's log-sum-exp, so that every sum has one owner and one order:
 *
 *   keys:     a block has a tile of keys and takes the queries from them on in tiles, on transposed
 *             scores (' = transposed):  S' = K Q'   dP' = V dO'   dV += P' dO   dK += dS' Q
 *   queries:  a block has a tile of queries and takes the keys up to them in tiles:
 *             dP = dO V'   S = Q K'   dQ += dS K
 *
 * with P = exp(S - lse), dS = P (dP - delta), delta = dot product of dO and the forward's output.
 */
#include "kernels/cuda/cuda_attention.h"

template <class T> struct attn_backward_t {
    const T *qkv, *out, *dout;
    T *dqkv;
    const float *lse, *slope; /* lse: [heads][tokens], as is delta */
    float *delta;
    const int32_t *cu_seqlens;
    int64_t ld_qkv, ld_out, ld_dout, ld_dqkv, tokens;
    int d, heads, n_seqs;
    float scale;
    bool wide_qkv, wide_out, wide_dout, wide_dqkv;
};

/* A block has a few tokens of one head; four lanes share a row. */
enum { DELTA_TOKENS = ATTN_THREADS / 4 };

template <class T>
__global__ void __launch_bounds__(ATTN_THREADS) delta_kernel(attn_backward_t<T> a)
{
    const int head = (int)blockIdx.x % a.heads;
    const int64_t t = (int64_t)blockIdx.x / a.heads * DELTA_TOKENS + threadIdx.x / 4;
    const int64_t row = t < a.tokens ? t : a.tokens - 1;
    const T *const dout = a.dout + row * a.ld_dout + (int64_t)head * a.d;
    const T *const out = a.out + row * a.ld_out + (int64_t)head * a.d;
    float sum = 0;
    for (int j = (int)threadIdx.x % 4 * CHUNK; j < a.d; j += 4 * CHUNK) {
        float x[CHUNK], y[CHUNK];
        load_chunk(dout + j, CHUNK, a.wide_dout, x);
        load_chunk(out + j, CHUNK, a.wide_out, y);
        CUDA_UNROLL for (int i = 0; i < CHUNK; i++) sum = fmaf(x[i], y[i], sum);
    }
    sum = quad_sum(sum);
    if (threadIdx.x % 4 == 0 && t < a.tokens)
        a.delta[head * a.tokens + t] = sum;
}

/* One head of one sequence: its rows of everything. */
template <class T> struct backward_head_t {
    const T *q, *k, *v, *dout;
    T *dq;
    const float *lse, *delta;
    int length;
    attn_score_t score;
};

template <class T>
__device__ static backward_head_t<T> find_backward_head(const attn_backward_t<T> &a,
                                                        attn_item_t item)
{
    const int64_t t0 = a.cu_seqlens[item.sequence];
    backward_head_t<T> h;
    h.length = (int)(a.cu_seqlens[item.sequence + 1] - t0);
    h.q = a.qkv + t0 * a.ld_qkv + (int64_t)item.head * 3 * a.d;
    h.k = h.q + a.d;
    h.v = h.q + 2 * a.d;
    h.dout = a.dout + t0 * a.ld_dout + (int64_t)item.head * a.d;
    h.dq = a.dqkv + t0 * a.ld_dqkv + (int64_t)item.head * 3 * a.d;
    h.lse = a.lse + item.head * a.tokens + t0;
    h.delta = a.delta + item.head * a.tokens + t0;
    h.score = attn_score_of(a.slope[item.head], a.scale);
    return h;
}

/* Shared memory of the backward by keys: rows of two tensors that stay; tiles of two that pass by with their columns of
 * log-sum-exp and delta, two of each in turn; P and dS in float32. */
template <class T, int D> struct keys_tiles_t {
    T *k, *v, *q, *dout, *p, *ds;
    float *lse, *delta;
};

template <class T, int D> __host__ static constexpr size_t keys_shared_bytes()
{
    typedef attn_tiling_t<T> tiling;
    constexpr int ROWS = attn_keys_tiling_t<T, D>::ROWS;
    return 2 * tile_bytes<T>(ROWS, D) + 4 * tile_bytes<T>(tiling::STEP, D) +
           2 * sums_bytes<T>(ROWS, tiling::STEP) + 4 * tiling::STEP * sizeof(float);
}

template <class T, int D> __device__ static keys_tiles_t<T, D> lay_out_keys(unsigned char *shared)
{
    typedef attn_tiling_t<T> tiling;
    constexpr int ROWS = attn_keys_tiling_t<T, D>::ROWS;
    keys_tiles_t<T, D> m;
    m.lse = (float *)shared;
    m.delta = m.lse + 2 * tiling::STEP;
    m.k = (T *)(m.delta + 2 * tiling::STEP);
    m.v = m.k + ROWS * tile_ld<T>(D);
    m.q = m.v + ROWS * tile_ld<T>(D);
    m.dout = m.q + 2 * tiling::STEP * tile_ld<T>(D);
    m.p = m.dout + 2 * tiling::STEP * tile_ld<T>(D);
    m.ds = m.p + ROWS * tile_ld<T>(tiling::STEP);
    return m;
}

/* Queries first .. with all that belongs to them into their place; zeros behind the sequence's end, so that their P and
 * dS multiply zeros. */
template <class T, int D>
__device__ static __forceinline__ void load_queries(const attn_backward_t<T> &a,
                                                    const backward_head_t<T> &h,
                                                    const keys_tiles_t<T, D> &m, int first)
{
    constexpr int STEP = attn_tiling_t<T>::STEP;
    const int at = first % (2 * STEP), n = h.length - first, i = (int)threadIdx.x % STEP;
    load_tile<STEP, D, ATTN_THREADS>(m.q + at * tile_ld<T>(D), h.q + first * a.ld_qkv, a.ld_qkv, n,
                                     a.d, a.wide_qkv);
    load_tile<STEP, D, ATTN_THREADS>(m.dout + at * tile_ld<T>(D), h.dout + first * a.ld_dout,
                                     a.ld_dout, n, a.d, a.wide_dout);
    if ((int)threadIdx.x < STEP)
        copy_word_aside(m.lse + at + i, h.lse + first + i, i < n);
    else if ((int)threadIdx.x < 2 * STEP)
        copy_word_aside(m.delta + at + i, h.delta + first + i, i < n);
}

/* A warp's rows of a tensor that stays as the left side of products: held in registers, or read every time. */
template <class T, int D, int BANDS, bool held> struct staying_rows_t {
    left_side_t<T, D, BANDS> rows;

    __device__ __forceinline__ explicit staying_rows_t(const T *tile)
    {
        rows.read(tile, tile_ld<T>(D));
    }
    template <int N> __device__ __forceinline__ void multiply(float (*acc)[4], const T *b) const
    {
        warp_product_t<T, N, D, true, BANDS>::add(acc, rows, b, tile_ld<T>(D));
    }
};

template <class T, int D, int BANDS> struct staying_rows_t<T, D, BANDS, false> {
    const T *tile;

    __device__ __forceinline__ explicit staying_rows_t(const T *rows) : tile(rows)
    {
    }
    template <int N> __device__ __forceinline__ void multiply(float (*acc)[4], const T *b) const
    {
        warp_product_t<T, N, D, true, BANDS>::add(acc, tile, tile_ld<T>(D), b, tile_ld<T>(D));
    }
};

/* s = P, dp = dS of one element from its scores. */
__device__ static __forceinline__ void backward_element(float *s, float *dp, attn_score_t score,
                                                        float behind, float lse, float delta)
{
    *s = fast_exp2(fmaf(fmaf(-score.ratio, behind, *s), score.scale, lse * -LOG2_E));
    *dp = *s * (*dp - delta);
}

/* A warp's bands of keys; lse and delta of the tile's queries. */
template <int STEP, int BANDS>
__device__ static __forceinline__ void backward_by_keys(float (*s)[4], float (*dp)[4],
                                                        attn_score_t score, float behind,
                                                        const float *lse, const float *delta)
{
    const int col = (int)threadIdx.x % 4 * 2;
    CUDA_UNROLL for (int n = 0; n < STEP / 8; n++)
    {
        const float_pair_t of_lse = *(const float_pair_t *)(lse + n * 8 + col);
        const float_pair_t of_delta = *(const float_pair_t *)(delta + n * 8 + col);
        CUDA_UNROLL for (int i = 0; i < BANDS * 4; i++)
        {
            const int piece = i / 4 * (STEP / 8) + n;
            backward_element(&s[piece][i % 4], &dp[piece][i % 4], score,
                             behind + attn_further<STEP, true>(piece, i % 4), of_lse.v[i % 2],
                             of_delta.v[i % 2]);
        }
    }
}

template <int N> __device__ static __forceinline__ void scale_sums(float (*acc)[4], float factor)
{
    CUDA_UNROLL for (int n = 0; n < N; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++) acc[n][i] *= factor;
    }
}

/* Of a warp's keys, through the rows that these had. first: of the block. */
template <class T, int D, int BANDS>
__device__ static __forceinline__ void store_key_gradients(const attn_backward_t<T> &a,
                                                           const backward_head_t<T> &h,
                                                           const keys_tiles_t<T, D> &m, int first,
                                                           int warp_row, float (*dk)[4],
                                                           const float (*dv)[4])
{
    const int at = first + warp_row, n_rows = h.length - at;
    T *const to = h.dq + a.d + at * a.ld_dqkv;
    scale_sums<BANDS * D / 8>(dk, a.scale);
    store_rows<T, D, BANDS>(dk, m.k + warp_row * tile_ld<T>(D), to, a.ld_dqkv, n_rows, a.d,
                            a.wide_dqkv);
    store_rows<T, D, BANDS>(dv, m.v + warp_row * tile_ld<T>(D), to + a.d, a.ld_dqkv, n_rows, a.d,
                            a.wide_dqkv);
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_backward_keys_kernel(attn_backward_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    typedef attn_keys_tiling_t<T, D> tiling;
    constexpr int STEP = attn_tiling_t<T>::STEP, BANDS = tiling::BANDS, ROWS = tiling::ROWS;
    const attn_item_t item = attn_find_item(a.cu_seqlens, a.n_seqs, a.heads, ROWS, false);
    const backward_head_t<T> h = find_backward_head(a, item);
    if (item.first >= h.length)
        return;
    const keys_tiles_t<T, D> m = lay_out_keys<T, D>(shared);
    const int n_rows = h.length - item.first < ROWS ? h.length - item.first : (int)ROWS;
    const int lane = (int)threadIdx.x % WARP, warp_row = (int)threadIdx.x / WARP * BANDS * 16;
    const int ld = tile_ld<T>(D), ld_p = tile_ld<T>(STEP), first = item.first + warp_row;
    float dk[BANDS * D / 8][4] = {}, dv[BANDS * D / 8][4] = {};
    load_tile<ROWS, D, ATTN_THREADS>(m.k, h.k + item.first * a.ld_qkv, a.ld_qkv, n_rows, a.d,
                                     a.wide_qkv);
    load_tile<ROWS, D, ATTN_THREADS>(m.v, h.v + item.first * a.ld_qkv, a.ld_qkv, n_rows, a.d,
                                     a.wide_qkv);
    const auto load = [&](int at) { load_queries(a, h, m, at); };
    load(item.first);
    copies_wait();
    __syncthreads();
    const staying_rows_t<T, D, BANDS, (tiling::HELD > 0)> k(m.k + warp_row * ld);
    const staying_rows_t<T, D, BANDS, (tiling::HELD > 1)> v(m.v + warp_row * ld);
    for (int query = item.first; query < h.length; query += STEP) {
        const int at = query % (2 * STEP);
        float s[BANDS * STEP / 8][4] = {}, dp[BANDS * STEP / 8][4] = {};
        turn_to_tile(query, STEP, h.length, load);
        if (warp_row >= n_rows || query + STEP <= first)
            continue; /* no keys, or none that these queries see */
        const T *const q = m.q + at * ld, *const dout = m.dout + at * ld;
        const float behind = (float)(query + lane % 4 * 2 - first - lane / 4);
        left_side_t<T, STEP, BANDS> p, ds;
        k.template multiply<STEP>(s, q);
        v.template multiply<STEP>(dp, dout);
        if (query < first + BANDS * 16 - 1)
            attn_mask<STEP, BANDS, true>(s, behind);
        backward_by_keys<STEP, BANDS>(s, dp, h.score, behind, m.lse + at, m.delta + at);
        p.take(s, m.p + warp_row * ld_p);
        ds.take(dp, m.ds + warp_row * ld_p);
        warp_product_t<T, D, STEP, false, BANDS>::add(dv, p, dout, ld);
        warp_product_t<T, D, STEP, false, BANDS>::add(dk, ds, q, ld);
    }
    if (warp_row >= n_rows)
        return;
    store_key_gradients<T, D, BANDS>(a, h, m, item.first, warp_row, dk, dv);
}

/* Shared memory of the backward by queries: rows of two tensors that stay, a tile of values, one of keys; dS in
 * float32. */
template <class T, int D> struct queries_tiles_t {
    T *q, *dout, *v, *k, *ds;
};

template <class T, int D> __host__ static constexpr size_t queries_shared_bytes()
{
    typedef attn_tiling_t<T> tiling;
    return 2 * tile_bytes<T>(tiling::ROWS, D) + 2 * tile_bytes<T>(tiling::STEP, D) +
           sums_bytes<T>(tiling::ROWS, tiling::STEP);
}

template <class T, int D>
__device__ static queries_tiles_t<T, D> lay_out_queries(unsigned char *shared)
{
    typedef attn_tiling_t<T> tiling;
    queries_tiles_t<T, D> m;
    m.q = (T *)shared;
    m.dout = m.q + tiling::ROWS * tile_ld<T>(D);
    m.v = m.dout + tiling::ROWS * tile_ld<T>(D);
    m.k = m.v + tiling::STEP * tile_ld<T>(D);
    m.ds = m.k + tiling::STEP * tile_ld<T>(D);
    return m;
}

/* A warp's bands of queries; lse and delta of its lane's rows. */
template <int STEP, int BANDS>
__device__ static __forceinline__ void backward_by_queries(float (*s)[4], float (*dp)[4],
                                                           attn_score_t score, float behind,
                                                           const float *lse, const float *delta)
{
    CUDA_UNROLL for (int n = 0; n < BANDS * STEP / 8; n++)
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++)
        {
            const int row = n / (STEP / 8) * 2 + i / 2;
            backward_element(&s[n][i], &dp[n][i], score, behind + attn_further<STEP, false>(n, i),
                             lse[row], delta[row]);
        }
    }
}

/* Of the lane's rows in a warp's bands from `first` on; behind the end the last one's. */
template <int BANDS>
__device__ static __forceinline__ void read_column(const float *column, int first, int length,
                                                   float *out)
{
    CUDA_UNROLL for (int r = 0; r < BANDS * 2; r++)
    {
        const int row = first + (int)threadIdx.x % WARP / 4 + r * 8;
        out[r] = column[row < length ? row : length - 1];
    }
}

template <class T, int D>
__global__ void __launch_bounds__(ATTN_THREADS) attn_backward_queries_kernel(attn_backward_t<T> a)
{
    CUDA_DYNAMIC_SHARED(shared);
    constexpr int STEP = attn_tiling_t<T>::STEP, BANDS = attn_tiling_t<T>::BANDS,
                  ROWS = attn_tiling_t<T>::ROWS;
    const attn_item_t item = attn_find_item(a.cu_seqlens, a.n_seqs, a.heads, ROWS, true);
    const backward_head_t<T> h = find_backward_head(a, item);
    if (item.first >= h.length)
        return;
    const queries_tiles_t<T, D> m = lay_out_queries<T, D>(shared);
    const int n_rows = h.length - item.first < ROWS ? h.length - item.first : (int)ROWS;
    const int n_keys = item.first + n_rows, ld = tile_ld<T>(D);
    const int lane = (int)threadIdx.x % WARP, warp_row = (int)threadIdx.x / WARP * BANDS * 16;
    const int first = item.first + warp_row;
    float dq[BANDS * D / 8][4] = {}, lse[BANDS * 2], delta[BANDS * 2];
    read_column<BANDS>(h.lse, first, h.length, lse);
    read_column<BANDS>(h.delta, first, h.length, delta);
    const auto load = [&](T *tile, const T *from, int key) {
        load_tile<STEP, D, ATTN_THREADS>(tile, from + key * a.ld_qkv, a.ld_qkv, n_keys - key, a.d,
                                         a.wide_qkv);
    };
    load_tile<ROWS, D, ATTN_THREADS>(m.q, h.q + item.first * a.ld_qkv, a.ld_qkv, n_rows, a.d,
                                     a.wide_qkv);
    load_tile<ROWS, D, ATTN_THREADS>(m.dout, h.dout + item.first * a.ld_dout, a.ld_dout, n_rows,
                                     a.d, a.wide_dout);
    load(m.v, h.v, 0);
    copies_wait();
    __syncthreads();
    const staying_rows_t<T, D, BANDS, (D <= 64)> q(m.q + warp_row * ld);
    const staying_rows_t<T, D, BANDS, false> dout(m.dout + warp_row * ld);
    for (int key = 0; key < n_keys; key += STEP) {
        const bool busy = warp_row < n_rows && key < first + BANDS * 16;
        float s[BANDS * STEP / 8][4] = {}, dp[BANDS * STEP / 8][4] = {};
        copies_wait();
        __syncthreads(); /* the values are there, and nobody reads the keys any more */
        load(m.k, h.k, key);
        if (busy)
            dout.template multiply<STEP>(dp, m.v);
        copies_wait();
        __syncthreads(); /* the keys are there, and nobody reads the values any more */
        if (key + STEP < n_keys)
            load(m.v, h.v, key + STEP);
        if (!busy)
            continue;
        const float behind = (float)(first + lane / 4 - key - lane % 4 * 2);
        q.template multiply<STEP>(s, m.k);
        if (key + STEP - 1 > first)
            attn_mask<STEP, BANDS, false>(s, behind);
        backward_by_queries<STEP, BANDS>(s, dp, h.score, behind, lse, delta);
        left_side_t<T, STEP, BANDS> ds;
        ds.take(dp, m.ds + warp_row * tile_ld<T>(STEP));
        warp_product_t<T, D, STEP, false, BANDS>::add(dq, ds, m.k, ld);
    }
    if (warp_row >= n_rows)
        return;
    scale_sums<BANDS * D / 8>(dq, a.scale);
    store_rows<T, D, BANDS>(dq, m.q + warp_row * ld, h.dq + first * a.ld_dqkv, a.ld_dqkv,
                            n_rows - warp_row, a.d, a.wide_dqkv);
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

template <class T> static lrd_status_t launch_backward(lrd_stream_t *st, attn_backward_t<T> k)
{
    typedef attn_tiling_t<T> tiling;
    const unsigned by_queries = attn_blocks(k.tokens, k.n_seqs, k.heads, tiling::ROWS);
    const int64_t deltas = cuda_ceil_div(k.tokens, DELTA_TOKENS) * k.heads;
    CUDA_TRY(cuda_launch(st, "delta_kernel", delta_kernel<T>, dim3((unsigned)deltas), ATTN_THREADS,
                         0, k));
    CUDA_DISPATCH_HEAD(k.d, {
        const int64_t key_rows = attn_keys_tiling_t<T, D>::ROWS;
        const unsigned by_keys = attn_blocks(k.tokens, k.n_seqs, k.heads, key_rows);
        CUDA_TRY(cuda_launch(st, "attn_backward_keys_kernel", attn_backward_keys_kernel<T, D>,
                             dim3(by_keys), ATTN_THREADS, keys_shared_bytes<T, D>(), k));
        return cuda_launch(st, "attn_backward_queries_kernel", attn_backward_queries_kernel<T, D>,
                           dim3(by_queries), ATTN_THREADS, queries_shared_bytes<T, D>(), k);
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
        k.n_seqs = a->n_seqs;
        k.scale = a->scale;
        k.wide_qkv = is_wide(k.qkv, k.ld_qkv);
        k.wide_out = is_wide(k.out, k.ld_out);
        k.wide_dout = is_wide(k.dout, k.ld_dout);
        k.wide_dqkv = is_wide(k.dqkv, k.ld_dqkv);
        return launch_backward(st, k);
    });
}
