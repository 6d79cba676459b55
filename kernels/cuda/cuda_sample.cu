/* From logits to a token, one block of threads a row.
 *
 * Scores are written once. top_k selects by digits of the scores' bits, with integer counts; top_p by
 * bisection over them, among the few scores that its first, generous cut leaves. A list is thinned at
 * most once; later conditions are only compared. Sums are double, by segments of neighbouring entries
 * in order, so that a row's token does not depend on how many rows there are.
 */
#include "base/philox.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_device.cuh"

#include <float.h>

enum { THREADS = 256, DIGITS = 256 };

/* Scores of one row: all of them (id NULL: entry i is id i), or some in ascending order of ids. */
struct list_t {
    float *score;
    int32_t *id;
    int32_t n;
};

/* What the conditions leave of a list: scores of at least `least`, and of those equal to `level` the
 * ids up to `last`. */
struct kept_t {
    float most, least, level;
    int32_t last;
};

struct sample_t {
    const float *logits;
    int64_t ld;
    int32_t v, n_slots;
    const lrd_sample_row_t *row;
    uint32_t *seen;
    int32_t *token;
    float *score; /* [rows][v], as are the next: all scores, and those of a thinned list */
    float *thin_score;
    int32_t *thin_id;
};

__device__ static __forceinline__ int32_t id_of(const list_t &l, int32_t i)
{
    return l.id != NULL ? l.id[i] : i;
}

__device__ static __forceinline__ bool is_kept(const kept_t &k, float score, int32_t id)
{
    return score >= k.least && !(score == k.level && id > k.last);
}

__device__ static __forceinline__ double weight_of(const kept_t &k, float score)
{
    return exp((double)score - (double)k.most);
}

/* Unsigned integers in the order of floats; -0 and 0 are one. */
__device__ static __forceinline__ uint32_t key_of(float score)
{
    union {
        float f;
        uint32_t bits;
    } x;
    x.f = score + 0.0f;
    return x.bits >> 31 ? ~x.bits : x.bits | 0x80000000u;
}

__device__ static __forceinline__ float score_of(uint32_t key)
{
    union {
        float f;
        uint32_t bits;
    } x;
    x.bits = key >> 31 ? key & 0x7fffffffu : ~key;
    return x.f;
}

/* Finite stays finite, +infinity becomes so, NaN and -infinity become -infinity. */
__device__ static __forceinline__ float clean(float x, float temperature)
{
    return x > -INFINITY ? fmaxf(fminf(x / temperature, FLT_MAX), -FLT_MAX) : -INFINITY;
}

/* Scores of a row; the largest to all threads, and whether any logit is finite. */
__device__ static bool score_row(const float *logit, const lrd_sample_row_t &row,
                                 const uint32_t *seen, list_t *l, float *most_out)
{
    const float temperature = row.temperature > 0 ? row.temperature : 1.0f;
    const float penalty = row.repetition_penalty;
    float most = -INFINITY;
    int finite = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < l->n; i += THREADS) {
        float x = logit[i];
        finite |= x <= FLT_MAX && x >= -FLT_MAX;
        if (penalty != 1.0f && seen != NULL && (seen[i / 32] >> i % 32 & 1) != 0)
            x = x < 0 ? x * penalty : x / penalty;
        x = clean(x, temperature);
        l->score[i] = x;
        most = fmaxf(most, x);
    }
    *most_out = block_max(most);
    return block_sum(finite) > 0;
}

/* Each warp has a stretch of neighbouring entries, SEGMENTS segments of whole warps of entries, and takes an entry a lane at
 * a time, in order. */
enum { WARPS = THREADS / WARP, SEGMENTS = WARP };

__device__ static __forceinline__ int32_t segment_begin(const list_t &l, int32_t segment)
{
    const int32_t all = WARPS * SEGMENTS * WARP, length = (l.n + all - 1) / all * WARP;
    const int64_t begin = (int64_t)length * segment;
    return begin < l.n ? (int32_t)begin : l.n;
}

struct stretch_t {
    int32_t begin, end;
};

__device__ static __forceinline__ stretch_t own_stretch(const list_t &l)
{
    const int32_t first = (int32_t)threadIdx.x / WARP * SEGMENTS;
    return {segment_begin(l, first), segment_begin(l, first + SEGMENTS)};
}

/* Of entries that a warp takes at once: those chosen in lanes before this one, and in all of them. */
__device__ static __forceinline__ int32_t warp_before(bool chosen, int32_t *all_out)
{
    const unsigned lanes = __ballot_sync(FULL_WARP, chosen);
    *all_out = __popc(lanes);
    return __popc(lanes & ((1u << threadIdx.x % WARP) - 1));
}

/* How many entries `chosen` picks in the stretches before the warp's own, and in all. */
template <class F>
__device__ static __forceinline__ int32_t stretch_before(const list_t &l, int32_t *all_out,
                                                         F chosen)
{
    const stretch_t own = own_stretch(l);
    int32_t n = 0;
    for (int32_t i = own.begin + (int32_t)threadIdx.x % WARP; i < own.end; i += WARP)
        n += chosen(i);
    return __shfl_sync(FULL_WARP, block_before(n, all_out), 0);
}

/* Copies what is kept to `thin`, in order, and makes that the list. */
__device__ static void thin_out(list_t *l, const kept_t &k, float *score, int32_t *id)
{
    const auto kept = [&](int32_t i) { return is_kept(k, l->score[i], id_of(*l, i)); };
    const stretch_t own = own_stretch(*l);
    int32_t all, in_warp, before = stretch_before(*l, &all, kept);
    for (int32_t first = own.begin; first < own.end; first += WARP) {
        const int32_t i = first + (int32_t)threadIdx.x % WARP;
        const bool stays = i < own.end && kept(i);
        const int32_t at = before + warp_before(stays, &in_warp);
        if (stays) {
            score[at] = l->score[i];
            id[at] = id_of(*l, i);
        }
        before += in_warp;
    }
    __syncthreads(); /* before others read it */
    l->score = score;
    l->id = id;
    l->n = all;
}

/* The k-th largest score; -infinity where there are not as many. */
__device__ static float select_kth(const list_t &l, int32_t k)
{
    __shared__ int32_t bin[DIGITS];
    uint32_t key = 0, known = 0;
    int32_t above = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        __syncthreads();
        for (int i = (int)threadIdx.x; i < DIGITS; i += THREADS)
            bin[i] = 0;
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < l.n; i += THREADS) {
            const uint32_t own = key_of(l.score[i]);
            if ((own & known) == key)
                atomicAdd(&bin[own >> shift & (DIGITS - 1)], 1);
        }
        __syncthreads();
        uint32_t digit = DIGITS - 1;
        for (; digit > 0 && above + bin[digit] < k; digit--)
            above += bin[digit];
        key |= digit << shift;
        known |= (uint32_t)(DIGITS - 1) << shift;
    }
    return score_of(key);
}

/* Weights of the kept scores of at least (`or_equal`) or above `level`. */
__device__ static double mass(const list_t &l, const kept_t &k, float level, bool or_equal)
{
    double sum = 0;
    for (int32_t i = (int32_t)threadIdx.x; i < l.n; i += THREADS) {
        const float s = l.score[i];
        if (s >= k.least && (or_equal ? s >= level : s > level))
            sum += weight_of(k, s);
    }
    return block_sum(sum);
}

/* Of the entries equal to k->level as many as `n`, the lowest ids: sets k->last. */
__device__ static void keep_equals(const list_t &l, kept_t *k, int64_t n)
{
    __shared__ int32_t last;
    const auto equal = [&](int32_t i) { return l.score[i] == k->level; };
    const stretch_t own = own_stretch(l);
    int32_t all, in_warp, before = stretch_before(l, &all, equal);
    if (threadIdx.x == 0)
        last = INT32_MAX;
    __syncthreads();
    for (int32_t first = own.begin; first < own.end; first += WARP) {
        const int32_t i = first + (int32_t)threadIdx.x % WARP;
        const bool is_one = i < own.end && equal(i);
        if (before + warp_before(is_one, &in_warp) + 1 == n && is_one)
            last = id_of(l, i);
        before += in_warp;
    }
    __syncthreads();
    k->last = last;
}

/* A token stays when those of larger scores, and its equals of lower ids, have less than top_p of all
 * weights. Nothing whose own share is at most (1 - top_p) / n would: the first cut. */
__device__ static void keep_top_p(list_t *l, kept_t *k, double top_p, const sample_t &a)
{
    const double total = mass(*l, *k, k->least, true), limit = top_p * total;
    if (l->id == NULL) {
        const double share = (1.0 - top_p) * total / (double)l->n;
        const float cut = nextafterf((float)((double)k->most + log(share) - 1e-9), -INFINITY);
        k->least = fmaxf(k->least, fminf(cut, k->most));
        thin_out(l, *k, a.thin_score + (int64_t)blockIdx.x * a.v,
                 a.thin_id + (int64_t)blockIdx.x * a.v);
    }
    uint32_t key = 0;
    for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
        const float level = score_of(key | bit);
        if (level <= k->most && mass(*l, *k, level, true) >= limit)
            key |= bit;
    }
    const float level = fmaxf(score_of(key), k->least);
    const double above = mass(*l, *k, level, false), each = weight_of(*k, level);
    int64_t n = 1;
    while (n < l->n && above + (double)n * each < limit)
        n++;
    k->least = k->level = level;
    keep_equals(*l, k, n);
}

/* e^(score - most) < min_p is dropped. */
__device__ static void keep_min_p(kept_t *k, double min_p)
{
    const double least = (double)k->most + log(min_p);
    float cut = fmaxf((float)least, -FLT_MAX);
    if ((double)cut < least)
        cut = nextafterf(cut, INFINITY);
    k->least = fmaxf(k->least, fminf(cut, k->most));
}

/* The first id whose cumulative weight exceeds u of the total; by thread 0, segment by segment. */
__device__ static int32_t draw(const list_t &l, const kept_t &k, double u)
{
    __shared__ double sum[THREADS];
    const int32_t lane = (int32_t)threadIdx.x % WARP, first = (int32_t)threadIdx.x - lane;
    double total = 0, before = 0;
    __syncthreads();
    for (int32_t s = first; s < first + SEGMENTS; s++) {
        double own = 0;
        for (int32_t i = segment_begin(l, s) + lane; i < segment_begin(l, s + 1); i += WARP) {
            if (is_kept(k, l.score[i], id_of(l, i)))
                own += weight_of(k, l.score[i]);
        }
        own = warp_sum(own);
        if (lane == 0)
            sum[s] = own;
    }
    __syncthreads();
    if (threadIdx.x != 0)
        return -1;
    for (int t = 0; t < THREADS; t++)
        total += sum[t];
    int t = 0;
    while (t + 1 < THREADS && before + sum[t] <= u * total)
        before += sum[t++];
    int32_t token = -1, i = segment_begin(l, t);
    for (; i < l.n && before <= u * total; i++) {
        if (is_kept(k, l.score[i], id_of(l, i))) {
            before += weight_of(k, l.score[i]);
            token = id_of(l, i);
        }
    }
    /* Sums may round to less than u of the total at the very end: then the last that can be. */
    for (i = l.n - 1; token < 0; i--)
        token = is_kept(k, l.score[i], id_of(l, i)) ? id_of(l, i) : -1;
    return token;
}

/* The largest score's lowest id, to thread 0. */
__device__ static int32_t find_largest(const list_t &l, float most)
{
    __shared__ int32_t first[THREADS];
    int32_t at = INT32_MAX;
    for (int32_t i = (int32_t)threadIdx.x; i < l.n && at == INT32_MAX; i += THREADS)
        at = l.score[i] == most ? i : INT32_MAX;
    first[threadIdx.x] = at;
    __syncthreads();
    for (int t = 0; t < THREADS && threadIdx.x == 0; t++)
        at = first[t] < at ? first[t] : at;
    return at;
}

/* The token of a row, to thread 0. */
__device__ static int32_t choose(const sample_t &a, const lrd_sample_row_t &row,
                                 const uint32_t *seen)
{
    list_t l = {a.score + (int64_t)blockIdx.x * a.v, NULL, a.v};
    kept_t k = {0, -FLT_MAX, INFINITY, INT32_MAX};
    if (!score_row(a.logits + blockIdx.x * a.ld, row, seen, &l, &k.most))
        return -1;
    __syncthreads(); /* all scores are written */
    if (!(row.temperature > 0))
        return find_largest(l, k.most);
    if (row.top_k > 0 && row.top_k < a.v) {
        k.least = fmaxf(k.least, select_kth(l, row.top_k));
        thin_out(&l, k, a.thin_score + (int64_t)blockIdx.x * a.v,
                 a.thin_id + (int64_t)blockIdx.x * a.v);
    }
    if (row.top_p < 1.0f)
        keep_top_p(&l, &k, (double)row.top_p, a);
    if (row.min_p > 0.0f)
        keep_min_p(&k, (double)row.min_p);
    return draw(l, k, lrd_sample_uniform(row.seed, row.request, row.index));
}

/* A slot that `seen` does not have gives no token, as a row without a finite logit does. */
__global__ void __launch_bounds__(THREADS) sample_kernel(sample_t a)
{
    const lrd_sample_row_t row = a.row[blockIdx.x];
    uint32_t *seen = NULL;
    int32_t token = -1;
    if (a.seen != NULL && row.slot >= 0)
        seen = a.seen + (int64_t)row.slot * ((a.v + 31) / 32);
    if (seen == NULL || row.slot < a.n_slots)
        token = choose(a, row, seen);
    if (threadIdx.x != 0)
        return;
    a.token[blockIdx.x] = token;
    if (seen != NULL && token >= 0)
        seen[token / 32] |= 1u << token % 32;
}

static void lay_out(cuda_arena_t *arena, int64_t rows, int64_t v, sample_t *k)
{
    k->score = cuda_take<float>(arena, rows * v);
    k->thin_score = cuda_take<float>(arena, rows * v);
    k->thin_id = cuda_take<int32_t>(arena, rows * v);
}

size_t cuda_sample_scratch(const lrd_limits_t *l)
{
    cuda_arena_t arena = {};
    sample_t k;
    lay_out(&arena, l->sequences, l->vocab, &k);
    return arena.used;
}

lrd_status_t cuda_sample(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_sample_t *a)
{
    const int64_t rows = a->logits.rows, v = a->logits.cols;
    cuda_arena_t measured = {}, arena = {(uint8_t *)scratch.data, 0};
    sample_t k = {};
    lay_out(&measured, rows, v, &k);
    CUDA_TRY(cuda_check_scratch(&measured, scratch));
    lay_out(&arena, rows, v, &k);
    k.logits = (const float *)a->logits.data;
    k.ld = a->logits.ld;
    k.v = (int32_t)v;
    k.n_slots = a->n_slots;
    k.row = a->row;
    k.seen = a->seen;
    k.token = a->token;
    return cuda_launch(st, "sample_kernel", sample_kernel, dim3((unsigned)rows), THREADS, 0, k);
}
