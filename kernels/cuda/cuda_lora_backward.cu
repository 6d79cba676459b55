/* du and dB of an adapter from one reading of dy, on tensor cores.
 *
 * A block has BLOCK_ROWS rows and BLOCK_COLS columns of dy. They pass through shared memory in tiles, down the rows and
 * then on to the next columns. Of each tile a warp multiplies 16 rows with B and, transposed, a quarter of the columns
 * with u. Sums over the rest of a row, and over the other rows, are added by cuda_lora_add_partials: a row's sums are
 * made in pieces of TILE_COLS and BLOCK_COLS columns, whatever rows there are beside it.
 *
 * B and u are float32, and are split into terms of dy's type, which is exact itself. bfloat16: three terms of 8 bits are
 * all of a float32. float16: two of 11 bits, the second times 2^11, so that it is in range where the first is. The first
 * leaves at most 2^-11 |v| of a number v, of which the second leaves less than 2^-12, or 2^-25 below the normal numbers:
 * in all 2^-23 |v|, or 2^-36 where that is more. v is B in units of 2^-8 and u in units of 2^4: so B, which a training
 * begins with zeros, counts from 2^-44 to 2^8, and u from 2^-32 to 2^20. Nothing is scaled by what the data
 * is, so that a row without a gradient changes no bit. First terms and the others have sums of their own, since tensor
 * cores cut off what does not fit: sums of first terms have at most 16 additions.
 */
#include "kernels/cuda/cuda_lora.h"
#include "kernels/cuda/cuda_tile.cuh"

enum {
    THREADS = 128,
    BAND = 16, /* rows or columns of dy for a product */
    RANKS = 8,
    TILE_ROWS = THREADS / WARP * BAND,
    TILE_COLS = 128,
    TILES = 4, /* of rows */
    BLOCK_ROWS = TILES * TILE_ROWS,
    BLOCK_COLS = 512,
    WARP_COLS = TILE_COLS / (THREADS / WARP),
    PASS_RANKS = 32 /* of a launch: bounds the partial sums */
};

/* How values are split: times `b_up` or `u_up`, what a term leaves times `step`. */
template <class T> struct split_t {
    enum { TERMS = 3 };
    static constexpr float step = 1, b_up = 1, u_up = 1;
};
template <> struct split_t<__half> {
    enum { TERMS = 2 };
    static constexpr float step = 0x1p11f, b_up = 0x1p8f, u_up = 0x1p-4f;
};

template <class T> union pair_t {
    uint32_t word;
    T element[2];
    __device__ pair_t()
    {
    }
};

/* Two neighbours: of each term a word, `stride` words apart. */
template <class T>
__device__ static __forceinline__ void split_pair(float low, float high, uint32_t *term, int stride)
{
    CUDA_UNROLL for (int i = 0; i < split_t<T>::TERMS; i++)
    {
        pair_t<T> pair;
        pair.word = term[i * stride] = pack_pair(low, high, T());
        low = (low - to_f32(pair.element[0])) * split_t<T>::step;
        high = (high - to_f32(pair.element[1])) * split_t<T>::step;
    }
}

template <class T> struct backward_t {
    const T *dy;
    const float *b, *u;
    int64_t ld_dy, ld_b, ld_u, rows, cols;
    int ranks;
    float *du, *db; /* [column blocks][rows][ranks], [row blocks][cols][ranks] */
    bool wide, wide_u;
};

template <class T> struct shared_t {
    T tile[2][TILE_ROWS * tile_ld<T>(TILE_COLS)];
    T u[split_t<T>::TERMS][BLOCK_ROWS][RANKS];
    float du[TILES][THREADS][PIECE]; /* each thread's own */
};

/* What a block has of the whole. */
struct part_t {
    int64_t row, col;
    int rank, n_rows, n_cols, n_ranks;
};

template <class T> __device__ static part_t find_part(const backward_t<T> &k)
{
    part_t p;
    p.rank = (int)blockIdx.x * RANKS;
    p.col = (int64_t)blockIdx.y * BLOCK_COLS;
    p.row = (int64_t)blockIdx.z * BLOCK_ROWS;
    p.n_ranks = k.ranks - p.rank < RANKS ? k.ranks - p.rank : RANKS;
    p.n_cols = k.cols - p.col < BLOCK_COLS ? (int)(k.cols - p.col) : BLOCK_COLS;
    p.n_rows = k.rows - p.row < BLOCK_ROWS ? (int)(k.rows - p.row) : BLOCK_ROWS;
    return p;
}

/* All of the block's u, zeros elsewhere. */
template <class T>
__device__ static void split_u(const backward_t<T> &k, const part_t &p, T (*to)[BLOCK_ROWS][RANKS])
{
    constexpr int TERMS = split_t<T>::TERMS;
    for (int row = (int)threadIdx.x; row < BLOCK_ROWS; row += THREADS) {
        float v[CHUNK];
        uint32_t term[TERMS][CHUNK / 2];
        load_chunk(k.u + (p.row + row) * k.ld_u + p.rank, row < p.n_rows ? p.n_ranks : 0, k.wide_u,
                   v);
        CUDA_UNROLL for (int i = 0; i < CHUNK; i += 2) split_pair<T>(
            v[i] * split_t<T>::u_up, v[i + 1] * split_t<T>::u_up, &term[0][i / 2], CHUNK / 2);
        CUDA_UNROLL for (int i = 0; i < TERMS; i++)
        {
            const uint4 words = {term[i][0], term[i][1], term[i][2], term[i][3]};
            *(uint4 *)to[i][row] = words;
        }
    }
}

/* A lane's part of TILE_COLS rows of B, as right sides of products over BAND of them. */
template <class T> struct b_terms_t {
    uint32_t band[TILE_COLS / BAND][split_t<T>::TERMS][2];

    __device__ __forceinline__ void read(const backward_t<T> &k, const part_t &p, int first)
    {
        const int lane = (int)threadIdx.x % WARP, rank = lane / 4, col = first + lane % 4 * 2;
        const float *from = k.b + (p.col + col) * k.ld_b + p.rank + rank;
        const int left = rank < p.n_ranks ? p.n_cols - col : 0;
        CUDA_UNROLL for (int i = 0; i < TILE_COLS; i += 8, from += 8 * k.ld_b)
        {
            const float low = i < left ? from[0] : 0.0f, high = i + 1 < left ? from[k.ld_b] : 0.0f;
            split_pair<T>(low * split_t<T>::b_up, high * split_t<T>::b_up,
                          &band[i / BAND][0][i / 8 % 2], 2);
        }
    }
};

/* A warp's sums of BAND rows or columns of dy and RANKS ranks. */
template <class T> struct sums_t {
    float first[4], others[4];

    /* The terms of the right side are `stride` words apart. */
    __device__ __forceinline__ void add(const uint32_t *left, const uint32_t *right, int stride)
    {
        CUDA_UNROLL for (int i = 0; i < split_t<T>::TERMS; i++)
            tensor_multiply(i == 0 ? first : others, left, right + i * stride, T());
    }

    /* What they add up to, from values that were split times `up`. */
    __device__ __forceinline__ void take(float up, float *out) const
    {
        CUDA_UNROLL for (int i = 0; i < 4; i++) out[i] =
            (first[i] + others[i] * (1.0f / split_t<T>::step)) * (1.0f / up);
    }
};

/* du of the warp's band of rows of a tile. */
template <class T>
__device__ static __forceinline__ void multiply_rows(const T *tile, const b_terms_t<T> &b,
                                                     float *du)
{
    constexpr int LD = tile_ld<T>(TILE_COLS);
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    sums_t<T> sums = {};
    CUDA_UNROLL for (int i = 0; i < TILE_COLS / BAND; i++)
    {
        uint32_t left[4];
        load_matrices<false>(tile + (warp * BAND + lane % 16) * LD + i * BAND + lane / 16 * 8,
                             left);
        sums.add(left, b.band[i][0], 2);
    }
    sums.take(split_t<T>::b_up, du);
}

/* dB of the warp's columns += that of a tile's rows. u: the first term's, of those rows. */
template <class T>
__device__ static __forceinline__ void add_columns(const T *tile, const T (*u)[RANKS],
                                                   sums_t<T> *sums)
{
    constexpr int LD = tile_ld<T>(TILE_COLS), TERMS = split_t<T>::TERMS;
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    tile += (lane / 16 * 8 + lane % 8) * LD + warp * WARP_COLS + lane / 8 % 2 * 8;
    CUDA_UNROLL for (int row = 0; row < TILE_ROWS; row += 2 * BAND)
    {
        uint32_t right[TERMS][4], left[4];
        CUDA_UNROLL for (int i = 0; i < TERMS; i++)
            load_matrices<true>(u[i * BLOCK_ROWS + row + lane], right[i]);
        CUDA_UNROLL for (int i = 0; i < 2; i++)
        {
            CUDA_UNROLL for (int j = 0; j < WARP_COLS / BAND; j++)
            {
                load_matrices<true>(tile + (row + i * BAND) * LD + j * BAND, left);
                sums[j].add(left, right[0] + 2 * i, 4);
            }
        }
    }
}

/* A warp's band of sums to rows of `ranks`, of which n_rows and n_ranks are there. */
__device__ static __forceinline__ void store_band(const float *sums, float *to, int ranks,
                                                  int n_rows, int n_ranks)
{
    const int lane = (int)threadIdx.x % WARP, rank = lane % 4 * 2;
    to += lane / 4 * ranks + rank;
    CUDA_UNROLL for (int i = 0; i < 4; i += 2, to += 8 * ranks)
    {
        if (lane / 4 + i * 4 >= n_rows || rank >= n_ranks)
            continue;
        if (ranks % 2 == 0) {
            const float_pair_t pair = {{sums[i], sums[i + 1]}};
            *(float_pair_t *)to = pair;
        } else {
            to[0] = sums[i];
            if (rank + 1 < n_ranks)
                to[1] = sums[i + 1];
        }
    }
}

template <class T>
__device__ static __forceinline__ void store_du(const backward_t<T> &k, const part_t &p,
                                                const float (*du)[THREADS][PIECE])
{
    const int warp = (int)threadIdx.x / WARP;
    for (int row = warp * BAND; row < p.n_rows; row += TILE_ROWS) {
        float band[PIECE];
        load_piece(du[row / TILE_ROWS][threadIdx.x], PIECE, true, 0.0f, band);
        store_band(band, k.du + (blockIdx.y * k.rows + p.row + row) * k.ranks + p.rank, k.ranks,
                   p.n_rows - row, p.n_ranks);
    }
}

/* Of the warp's columns, from `first` on. */
template <class T>
__device__ static __forceinline__ void store_db(const backward_t<T> &k, const part_t &p, int first,
                                                const sums_t<T> *sums)
{
    CUDA_UNROLL for (int j = 0; j < WARP_COLS / BAND; j++)
    {
        const int col = first + (int)threadIdx.x / WARP * WARP_COLS + j * BAND;
        float band[4];
        sums[j].take(split_t<T>::u_up, band);
        store_band(band, k.db + (blockIdx.z * k.cols + p.col + col) * k.ranks + p.rank, k.ranks,
                   p.n_cols - col, p.n_ranks);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS, 4) lora_backward_kernel(backward_t<T> k)
{
    CUDA_DYNAMIC_SHARED(bytes);
    shared_t<T> &s = *(shared_t<T> *)bytes;
    const part_t p = find_part(k);
    const int per = (p.n_rows + TILE_ROWS - 1) / TILE_ROWS;
    const int n = (p.n_cols + TILE_COLS - 1) / TILE_COLS * per;
    const auto load = [&](int at) {
        const int row = at % per * TILE_ROWS, col = at / per * TILE_COLS;
        load_tile<TILE_ROWS, TILE_COLS, THREADS>(s.tile[at % 2],
                                                 k.dy + (p.row + row) * k.ld_dy + p.col + col,
                                                 k.ld_dy, p.n_rows - row, p.n_cols - col, k.wide);
    };
    b_terms_t<T> b;
    sums_t<T> db[WARP_COLS / BAND];
    load(0);
    split_u(k, p, s.u);
    for (int at = 0; at < n; at++) {
        const int i = at % per, col = at / per * TILE_COLS;
        float *own = s.du[i][threadIdx.x], du[PIECE], before[PIECE] = {0};
        if (i == 0) {
            b.read(k, p, col);
            CUDA_UNROLL for (int j = 0; j < WARP_COLS / BAND; j++) db[j] = {};
        }
        turn_to_tile(at, 1, n, load);
        multiply_rows(s.tile[at % 2], b, du);
        if (col > 0)
            load_piece(own, PIECE, true, 0.0f, before);
        CUDA_UNROLL for (int j = 0; j < PIECE; j++) du[j] += before[j];
        store_piece(own, PIECE, true, du);
        add_columns(s.tile[at % 2], &s.u[0][i * TILE_ROWS], db);
        if (i == per - 1)
            store_db(k, p, col, db);
    }
    store_du(k, p, s.du);
}

int64_t cuda_lora_backward_partials(int64_t rows, int64_t cols, int64_t rank)
{
    return (cuda_ceil_div(cols, BLOCK_COLS) * rows + cuda_ceil_div(rows, BLOCK_ROWS) * cols) *
           cuda_smaller(rank, PASS_RANKS);
}

/* Ranks first .. first + ranks - 1. */
template <class T>
static lrd_status_t run_pass(lrd_stream_t *st, const cuda_lora_backward_t *o, int64_t first,
                             int64_t ranks)
{
    const int64_t rows = o->end - o->begin, cols = o->dy.cols;
    const int64_t row_blocks = cuda_ceil_div(rows, BLOCK_ROWS),
                  col_blocks = cuda_ceil_div(cols, BLOCK_COLS);
    float *du = o->partial, *db = du + col_blocks * rows * ranks;
    const T *dy = (const T *)o->dy.data + o->begin * o->dy.ld;
    const float *u = o->u + o->begin * o->ld_u + first;
    const backward_t<T> k = {dy,
                             o->b + first,
                             u,
                             o->dy.ld,
                             o->ld_b,
                             o->ld_u,
                             rows,
                             cols,
                             (int)ranks,
                             du,
                             db,
                             is_wide(dy, o->dy.ld) && cols % CHUNK == 0,
                             is_wide(u, o->ld_u)};
    const dim3 grid((unsigned)cuda_ceil_div(ranks, RANKS), (unsigned)col_blocks,
                    (unsigned)row_blocks);
    CUDA_TRY(cuda_launch(st, "lora_backward_kernel", lora_backward_kernel<T>, grid, THREADS,
                         sizeof(shared_t<T>), k));
    CUDA_TRY(cuda_lora_add_partials(st, du, col_blocks, rows * ranks, ranks, o->scale, false,
                                    o->du + o->begin * o->ld_du + first, o->ld_du));
    return cuda_lora_add_partials(st, db, row_blocks, cols * ranks, ranks, o->scale, true,
                                  o->db + first, o->ld_db);
}

lrd_status_t cuda_lora_backward(lrd_stream_t *st, const cuda_lora_backward_t *o)
{
    for (int64_t first = 0; first < o->rank; first += PASS_RANKS) {
        const int64_t ranks = cuda_smaller(o->rank - first, PASS_RANKS);
        if (o->dy.dtype == LRD_BF16)
            CUDA_TRY(run_pass<__nv_bfloat16>(st, o, first, ranks));
        else
            CUDA_TRY(run_pass<__half>(st, o, first, ranks));
    }
    return LRD_OK;
}
