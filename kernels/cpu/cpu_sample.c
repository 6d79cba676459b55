/* From logits to a token, one row on one thread. The vocabulary is read in one pass, which leaves
 * the largest score of each block of it; no step sorts it.
 *
 * Greedy: that pass alone, without writing the scores; the token lies in the first block whose peak
 * is the largest score.
 * top_k: the k-th largest peak is at most the k-th largest score, for k blocks hold a score of at
 * least that much. Only blocks with such a peak are looked at, and the selection is among the few
 * scores in them that reach it.
 * top_p: as below. Selections count scores, or add up their weights, by digits of their bits, so
 * that the time is linear whatever the scores are.
 */
#include "kernels/cpu/cpu_sample.h"

#include "base/philox.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_simd.h"

#include <float.h>
#include <math.h>
#include <omp.h>

enum { LANES = 16, WIDE = 64 }; /* of doubles, of floats */

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t blocks_of(int64_t n)
{
    return (n + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
}

/* Lays the arrays out from `base` (NULL: to measure) and returns their bytes. */
static size_t lay_out(sample_list_t *l, int64_t v, uint8_t *base)
{
    const int64_t blocks = blocks_of(v);
    size_t at = 0;
#define PART(field, count)                                       \
    do {                                                         \
        l->field = base != NULL ? (void *)(base + at) : NULL;    \
        at += cpu_round((size_t)(count) * sizeof *((l)->field)); \
    } while (0)
    PART(score, blocks * SAMPLE_BLOCK);
    PART(id, blocks * SAMPLE_BLOCK);
    PART(weight, blocks * SAMPLE_BLOCK);
    PART(sum, blocks);
    PART(peak, blocks);
    PART(bin, SAMPLE_BINS);
#undef PART
    return at;
}

size_t sample_row_bytes(int64_t v)
{
    sample_list_t l;
    return lay_out(&l, v, NULL);
}

void sample_lay_out(sample_list_t *l, int64_t v, void *memory)
{
    lay_out(l, v, memory);
}

size_t cpu_sample_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    return (size_t)smaller(be->n_threads, l->sequences) * sample_row_bytes(l->vocab);
}

static void penalize(float *s, const uint32_t *seen, int64_t n, float penalty)
{
    for (int64_t w = 0; w * 32 < n; w++) {
        for (uint32_t bits = seen[w]; bits != 0; bits &= bits - 1) {
            float *x = s + w * 32 + __builtin_ctz(bits);
            *x = *x < 0 ? *x * penalty : *x / penalty;
        }
    }
}

static bool any_seen(const uint32_t *seen, int64_t n)
{
    uint32_t bits = 0;
    for (int64_t w = 0; seen != NULL && w * 32 < n; w++)
        bits |= seen[w];
    return bits != 0;
}

/* Finite stays finite, +infinity becomes so, NaN and -infinity become -infinity. */
LRD_INLINE float clean(float x, float temperature)
{
    const float scaled = x / temperature;
    const float low = scaled < FLT_MAX ? scaled : FLT_MAX;
    const float y = low > -FLT_MAX ? low : -FLT_MAX;
    return x > -INFINITY ? y : -INFINITY;
}

LRD_INLINE float largest_of(const float *lane)
{
    float most = -INFINITY;
#pragma omp simd reduction(max : most)
    for (int k = 0; k < WIDE; k++)
        most = lane[k] > most ? lane[k] : most;
    if (most > -FLT_MAX)
        return most;
    /* A reduction of OpenMP may start at -FLT_MAX. */
    for (int k = 0; k < WIDE; k++) {
        if (lane[k] > -INFINITY)
            return most;
    }
    return -INFINITY;
}

/* A block's scores, which may be x itself; returns the largest. */
LRD_INLINE float load_block(const float *x, float temperature, float *s)
{
    float lane[WIDE];
    for (int k = 0; k < WIDE; k++)
        lane[k] = -INFINITY;
    for (int j = 0; j < SAMPLE_BLOCK; j += WIDE) {
        LRD_SIMD
        for (int k = 0; k < WIDE; k++) {
            const float y = clean(x[j + k], temperature);
            s[j + k] = y;
            lane[k] = y > lane[k] ? y : lane[k];
        }
    }
    return largest_of(lane);
}

/* The largest score of a block without division, scores not kept. */
LRD_INLINE float peak_of(const float *x)
{
    float lane[WIDE];
    for (int k = 0; k < WIDE; k++)
        lane[k] = -INFINITY;
    for (int j = 0; j < SAMPLE_BLOCK; j += WIDE) {
        LRD_SIMD
        for (int k = 0; k < WIDE; k++)
            lane[k] = x[j + k] > lane[k] ? x[j + k] : lane[k];
    }
    const float most = largest_of(lane);
    return most < FLT_MAX ? most : FLT_MAX;
}

/* Scores of n logits into s, the tail of the last block filled with -infinity; the largest score of
 * each block into peak; returns that of all. With keep false the scores of a block may be missing,
 * or stand where the next one's do. */
LRD_CLONES static float load(const float *logit, int64_t n, const uint32_t *seen,
                             const lrd_sample_row_t *row, bool keep, float *s, float *peak)
{
    float largest = -INFINITY;
    const float temperature = row->temperature > 0 ? row->temperature : 1.0f;
    for (int64_t b = 0; b * SAMPLE_BLOCK < n; b++) {
        const float *x = logit + b * SAMPLE_BLOCK;
        const int64_t width = smaller(n - b * SAMPLE_BLOCK, SAMPLE_BLOCK);
        const uint32_t *bits = seen != NULL ? seen + b * (SAMPLE_BLOCK / 32) : NULL;
        const bool penalized = any_seen(bits, width);
        if (penalized || width < SAMPLE_BLOCK) {
            memcpy(s, x, (size_t)width * sizeof *s);
            for (int64_t j = width; j < SAMPLE_BLOCK; j++)
                s[j] = -INFINITY;
            if (penalized)
                penalize(s, bits, width, row->repetition_penalty);
            x = s;
        }
        if (!keep)
            peak[b] = peak_of(x);
        else if (temperature == 1.0f)
            peak[b] = load_block(x, 1.0f, s); /* without divisions */
        else
            peak[b] = load_block(x, temperature, s);
        largest = peak[b] > largest ? peak[b] : largest;
        s += keep ? SAMPLE_BLOCK : 0;
    }
    return largest;
}

/* Only a largest score of FLT_MAX, which +infinity gives too, does not answer it. */
static bool any_finite(const float *logit, int64_t n, float largest)
{
    if (largest < FLT_MAX)
        return largest > -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(logit[i]))
            return true;
    }
    return false;
}

/* Weights, their sums by block, and the total, in a fixed order. */
LRD_CLONES static void weigh(sample_list_t *l)
{
    const int64_t blocks = blocks_of(l->n);
    const double largest = (double)l->largest;
    for (int64_t i = l->n; i < blocks * SAMPLE_BLOCK; i++)
        l->score[i] = -INFINITY;
    l->total = 0;
    for (int64_t b = 0; b < blocks; b++) {
        const float *s = l->score + b * SAMPLE_BLOCK;
        double *w = l->weight + b * SAMPLE_BLOCK;
        double lane[LANES] = {0};
        for (int j = 0; j < SAMPLE_BLOCK; j += LANES) {
            LRD_SIMD
            for (int k = 0; k < LANES; k++) {
                w[j + k] = exp_softmax_f64((double)s[j + k] - largest);
                lane[k] += w[j + k];
            }
        }
        double sum = 0;
        for (int k = 0; k < LANES; k++)
            sum += lane[k];
        l->sum[b] = sum;
        l->total += sum;
    }
}

/* Takes out what scores less than `least`. */
static void narrow(sample_list_t *l, float least)
{
    float *score = l->score;
    int32_t *ids = l->id;
    const bool all = l->all;
    int64_t kept = 0;
    for (int64_t b = 0; b * SAMPLE_BLOCK < l->n; b++) {
        if (all && l->peak[b] < least)
            continue;
        const int64_t end = smaller((b + 1) * SAMPLE_BLOCK, l->n);
        for (int64_t i = b * SAMPLE_BLOCK; i < end; i++) {
            const float s = score[i];
            const int32_t id = all ? (int32_t)i : ids[i];
            score[kept] = s; /* kept <= i */
            ids[kept] = id;
            kept += s >= least;
        }
    }
    l->n = kept;
    l->all = false;
}

/* Unsigned integers in the order of floats; -0 and 0 are one. */
static uint32_t key_of(float s)
{
    const uint32_t bits = f32_to_bits(s + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static float score_of(uint32_t key)
{
    return bits_to_f32(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* The score at which the mass from the largest score down reaches `limit`: what scores more has
 * less (*above_out), together with its equals it has no less; the least score when there is not as
 * much. A score's mass is its weight, or 1 (weight NULL). Digit by digit of the scores' keys: the
 * mass of each value of the digit, added up from the top. */
static float find_level(const float *score, const double *weight, int64_t n, double limit,
                        double *bin, double *above_out)
{
    static const int shifts[] = {21, 10, 0}, digits[] = {2048, 2048, 1024};
    uint32_t key = 0, known = 0;
    double above = 0;
    for (int d = 0; d < 3; d++) {
        const uint32_t mask = (uint32_t)digits[d] - 1;
        memset(bin, 0, (size_t)digits[d] * sizeof *bin);
        for (int64_t i = 0; i < n; i++) {
            const uint32_t k = key_of(score[i]);
            if ((k & known) == key)
                bin[k >> shifts[d] & mask] += weight != NULL ? weight[i] : 1.0;
        }
        int at = digits[d] - 1, next;
        while (at > 0 && bin[at] == 0)
            at--;
        while (above + bin[at] < limit) {
            for (next = at - 1; next >= 0 && bin[next] == 0;)
                next--;
            if (next < 0)
                break;
            above += bin[at];
            at = next;
        }
        key |= (uint32_t)at << shifts[d];
        known |= mask << shifts[d];
    }
    *above_out = above;
    return score_of(key);
}

/* The k-th largest score and its equals stay. */
static void keep_top_k(sample_list_t *l, int64_t k)
{
    const int64_t blocks = blocks_of(l->n);
    double above;
    float least = -FLT_MAX;
    if (blocks >= k)
        least = fmaxf(least, find_level(l->peak, NULL, blocks, (double)k, l->bin, &above));
    narrow(l, least);
    if (l->n > k)
        narrow(l, find_level(l->score, NULL, l->n, (double)k, l->bin, &above));
}

/* A token is dropped when it and all before it in ascending order have at most q = 1 - top_p of the
 * total. That is so whenever its own share is at most q / n: all before it have no more, and they
 * are n at most. So the first narrowing, which allows for rounding, drops nothing that would stay;
 * among the rest a token stays when those after it have less than top_p of the total, which is the
 * same condition from the other end and needs nothing of what is already dropped. */
static void keep_top_p(sample_list_t *l, double top_p)
{
    weigh(l);
    const double limit = top_p * l->total;
    const double share = (1.0 - top_p) * l->total / (double)l->n;
    const float cut = nextafterf((float)((double)l->largest + log(share) - 1e-9), -INFINITY);
    narrow(l, fminf(fmaxf(cut, -FLT_MAX), l->largest));
    weigh(l);
    double above;
    const float level = find_level(l->score, l->weight, l->n, limit, l->bin, &above);
    /* Of its equals as many as are needed, at least one. */
    int64_t equals = 0;
    for (int64_t i = 0; i < l->n; i++) {
        if (l->score[i] != level)
            continue;
        if (equals > 0 && above + (double)equals * l->weight[i] >= limit)
            l->score[i] = -INFINITY;
        else
            equals++;
    }
    narrow(l, level);
}

/* e^(score - largest) < min_p is dropped. */
static void keep_min_p(sample_list_t *l, double min_p)
{
    const double least = (double)l->largest + log(min_p);
    float cut = fmaxf((float)least, -FLT_MAX);
    if ((double)cut < least)
        cut = nextafterf(cut, INFINITY);
    narrow(l, fminf(cut, l->largest));
}

bool sample_process(sample_list_t *l, const lrd_sample_row_t *row, const uint32_t *seen,
                    const float *logit, int64_t v)
{
    l->n = v;
    l->all = true;
    l->largest =
        load(logit, v, row->repetition_penalty != 1.0f ? seen : NULL, row, true, l->score, l->peak);
    if (!any_finite(logit, v, l->largest))
        return false;
    if (row->top_k > 0 && row->top_k < v)
        keep_top_k(l, row->top_k);
    if (row->top_p < 1.0f)
        keep_top_p(l, (double)row->top_p);
    if (row->min_p > 0.0f)
        keep_min_p(l, (double)row->min_p);
    weigh(l);
    return true;
}

/* The largest score's lowest id; -1 where no logit is finite. */
static int32_t greedy(const sample_list_t *l, const lrd_sample_row_t *row, const uint32_t *seen,
                      const float *logit, int64_t v)
{
    float s[SAMPLE_BLOCK] = {0};
    if (row->repetition_penalty == 1.0f)
        seen = NULL;
    const float largest = load(logit, v, seen, row, false, s, l->peak);
    if (!any_finite(logit, v, largest))
        return -1;
    int64_t at = 0;
    while (l->peak[at / SAMPLE_BLOCK] < largest)
        at += SAMPLE_BLOCK;
    float peak;
    load(logit + at, smaller(v - at, SAMPLE_BLOCK), seen != NULL ? seen + at / 32 : NULL, row, true,
         s, &peak);
    for (int j = 0; j < SAMPLE_BLOCK; j++) {
        if (s[j] == largest)
            return (int32_t)(at + j);
    }
    return -1; /* not reached: the block holds it */
}

/* The first id whose cumulative weight exceeds u * total: the block by its sum, then within. */
static int32_t draw(const sample_list_t *l, double u)
{
    const double target = u * l->total;
    const int64_t blocks = blocks_of(l->n);
    double before = 0;
    int64_t b = 0;
    while (b + 1 < blocks && before + l->sum[b] <= target)
        before += l->sum[b++];
    int64_t i = b * SAMPLE_BLOCK;
    while (i + 1 < l->n && (before += l->weight[i]) <= target)
        i++;
    /* Sums within a block may round to less than the block's own: then the last that can be. */
    while (l->weight[i] == 0)
        i--;
    return l->all ? (int32_t)i : l->id[i];
}

static int32_t choose(sample_list_t *l, const lrd_sample_t *a, int64_t i)
{
    const lrd_sample_row_t *row = &a->row[i];
    const float *logit = mat_at(a->logits, i, 0);
    const int64_t v = a->logits.cols;
    uint32_t *seen = NULL;
    if (a->seen != NULL && row->slot >= 0)
        seen = a->seen + (int64_t)row->slot * ((v + 31) / 32);
    int32_t token = -1;
    if (!(row->temperature > 0))
        token = greedy(l, row, seen, logit, v);
    else if (sample_process(l, row, seen, logit, v))
        token = draw(l, lrd_sample_uniform(row->seed, row->request, row->index));
    if (seen != NULL && token >= 0)
        seen[token / 32] |= 1u << token % 32;
    return token;
}

lrd_status_t cpu_sample(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_sample_t *a)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = cpu_backend_of(st);
    const int64_t n = a->logits.rows, v = a->logits.cols;
    const int threads = (int)smaller(be->n_threads, n);
    const size_t part = sample_row_bytes(v);
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, (size_t)threads * part, 0, &s));
    if (n == 0)
        goto out;
    for (int64_t i = 0; i < n && a->seen != NULL; i++)
        LRD_CHECK(a->row[i].slot < a->n_slots, LRD_ERR_ARG, "sample: row %ld has slot %d of %d",
                  (long)i, a->row[i].slot, a->n_slots);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t i = 0; i < n; i++) {
        sample_list_t l;
        sample_lay_out(&l, v, s.shared + (size_t)omp_get_thread_num() * part);
        a->token[i] = choose(&l, a, i);
    }
out:
    return status;
}
