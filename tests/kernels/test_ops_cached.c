/* Attention against a cache on a backend: sequences fed whole, in pieces and token by token, among
 * others, against the reference; and to the bit against each other. Single rows, among themselves and
 * beside pieces: to the bit against the same in other company, and on a CPU against all of these. */
#include "op_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SEQS = 5, MAX_T = 700, MAX_HEADS = 8, CAPACITY = 600 };

typedef struct cached_case {
    int heads, dim, n_seqs;
    int32_t length[MAX_SEQS]; /* of each sequence */
    int64_t pad;              /* elements between rows */
    float slope;              /* of the first head */
} cached_case_t;

/* The whole of a case on the device: a cache with more slots than sequences, taken from behind. */
typedef struct cached {
    const cached_case_t *x;
    lrd_dtype_t d;
    int32_t begin[MAX_SEQS + 1]; /* of each sequence among all rows */
    ref_mat_t qkv;               /* all rows */
    lrd_kv_cache_t cache;
    const float *slope;
    lrd_scratch_t scratch; /* a small part of op_scratch: cpu_checked poisons it for every op */
} cached_t;

static void copy_row(ref_mat_t to, int64_t i, ref_mat_t from, int64_t j)
{
    memcpy(to.v + i * to.cols, from.v + j * from.cols, (size_t)to.cols * sizeof(double));
}

/* What a call holds: sequence s brings rows at[s] .. at[s] + n[s] - 1 of its own. */
typedef struct step {
    int32_t at[MAX_SEQS], n[MAX_SEQS];
    bool single[MAX_SEQS];
    bool backwards;  /* the last sequence comes first */
    int32_t max_len; /* at least; 1 will do */
} step_t;

/* The sequences in the order of the call, single ones first; returns how many are. */
static int32_t put_in_order(const step_t *p, int n_seqs, int *order)
{
    int32_t n = 0, n_single = 0;
    for (int single = 1; single >= 0; single--) {
        for (int i = 0; i < n_seqs; i++) {
            const int s = p->backwards ? n_seqs - 1 - i : i;
            if (p->single[s] == (single == 1))
                order[n++] = s;
        }
        n_single = single == 1 ? n : n_single;
    }
    return n_single;
}

/* One call. Its rows go to `out`. */
static void call(const cached_t *c, const step_t *p, ref_mat_t out)
{
    const cached_case_t *x = c->x;
    int order[MAX_SEQS];
    int32_t cu[MAX_SEQS + 1] = {0}, at[MAX_SEQS], slot[MAX_SEQS], max_len = p->max_len;
    const int32_t n_single = put_in_order(p, x->n_seqs, order);
    for (int i = 0; i < x->n_seqs; i++) {
        const int s = order[i];
        cu[i + 1] = cu[i] + p->n[s];
        at[i] = p->at[s];
        slot[i] = c->cache.shape.n_slots - 1 - s;
        max_len = p->at[s] + p->n[s] > max_len ? p->at[s] + p->n[s] : max_len;
    }
    const int64_t t = cu[x->n_seqs], hd = x->heads * x->dim;
    const op_mark_t mark = op_mark();
    ref_mat_t rows = op_zeros(t, 3 * hd);
    for (int i = 0; i < x->n_seqs; i++) {
        for (int32_t r = 0; r < cu[i + 1] - cu[i]; r++)
            copy_row(rows, cu[i] + r, c->qkv, c->begin[order[i]] + at[i] + r);
    }
    const lrd_mat_t dev_out = op_empty(t, hd, c->d, x->pad);
    assert_ok(lrd_attn_cached(
        op_st, c->scratch,
        &(lrd_attn_cached_t){.qkv = lrd_const(op_put(rows, c->d, x->pad)),
                             .cu_seqlens = op_upload(cu, (size_t)(x->n_seqs + 1) * 4),
                             .cache_len = op_upload(at, (size_t)x->n_seqs * 4),
                             .slot = op_upload(slot, (size_t)x->n_seqs * 4),
                             .n_seqs = x->n_seqs,
                             .n_single = n_single,
                             .max_len = max_len,
                             .slope = c->slope,
                             .scale = (float)(1 / sqrt(x->dim)),
                             .cache = c->cache,
                             .out = dev_out}));
    const ref_mat_t got = op_get(dev_out);
    for (int i = 0; i < x->n_seqs; i++) {
        for (int32_t r = 0; r < cu[i + 1] - cu[i]; r++)
            copy_row(out, c->begin[order[i]] + at[i] + r, got, cu[i] + r);
    }
    op_free_to(mark);
}

/* A cache of NaN: what is read must have been entered. */
static void empty_cache(cached_t *c)
{
    const size_t bytes = lrd_kv_cache_bytes(op_be, &c->cache.shape);
    void *nan = malloc(bytes);
    memset(nan, 0xff, bytes);
    c->cache.data = op_upload(nan, bytes);
    free(nan);
}

/* Feeds everything: `piece` rows of each sequence at a time; sequence s starts s * lag calls late,
 * so that prompts meet single tokens of others. */
static void feed(cached_t *c, int32_t piece, int32_t lag, ref_mat_t out)
{
    step_t p = {.max_len = 1};
    empty_cache(c);
    for (int32_t step = 0;; step++) {
        int32_t sum = 0;
        bool waiting = false;
        for (int s = 0; s < c->x->n_seqs; s++) {
            const int32_t left = c->x->length[s] - p.at[s];
            p.n[s] = step < s * lag ? 0 : left < piece ? left : piece;
            waiting = waiting || (left > 0 && step < s * lag);
            sum += p.n[s];
        }
        if (sum == 0 && !waiting)
            return;
        if (sum > 0)
            call(c, &p, out);
        for (int s = 0; s < c->x->n_seqs; s++)
            p.at[s] += p.n[s];
    }
}

/* As generation does: of sequence `only` (negative: of all) the first prompt[s] rows, `piece` at a time, then
 * single ones; sequence s starts s calls late. */
static void generate(cached_t *c, const int32_t *prompt, int only, int32_t piece, step_t p,
                     ref_mat_t out)
{
    empty_cache(c);
    for (int32_t step = 0, sum = 1; sum > 0 || step < MAX_SEQS; step++) {
        sum = 0;
        for (int s = 0; s < c->x->n_seqs; s++) {
            const int32_t left = prompt[s] - p.at[s];
            const bool runs = step >= s && (only < 0 || s == only) && p.at[s] < c->x->length[s];
            p.single[s] = runs && left <= 0;
            p.n[s] = !runs ? 0 : left <= 0 ? 1 : left < piece ? left : piece;
            sum += p.n[s];
        }
        if (sum > 0)
            call(c, &p, out);
        for (int s = 0; s < c->x->n_seqs; s++)
            p.at[s] += p.n[s];
    }
}

/* The same sequences, packed, without a cache. */
static ref_mat_t without_cache(const cached_t *c)
{
    const cached_case_t *x = c->x;
    const int64_t hd = x->heads * x->dim;
    const lrd_mat_t out = op_empty(c->qkv.rows, hd, c->d, 0);
    int32_t longest = 0;
    for (int s = 0; s < x->n_seqs; s++)
        longest = x->length[s] > longest ? x->length[s] : longest;
    assert_ok(lrd_attn_forward(
        op_st, c->scratch,
        &(lrd_attn_fwd_t){.qkv = lrd_const(op_put(c->qkv, c->d, 0)),
                          .cu_seqlens = op_upload(c->begin, (size_t)(x->n_seqs + 1) * 4),
                          .n_seqs = x->n_seqs,
                          .max_seqlen = longest,
                          .n_heads = x->heads,
                          .head_dim = x->dim,
                          .slope = c->slope,
                          .scale = (float)(1 / sqrt(x->dim)),
                          .out = out}));
    return op_get(out);
}

static void same_bits(const char *how, ref_mat_t a, ref_mat_t b)
{
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        if (a.v[i] != b.v[i])
            fail_msg("%s: element %ld of row %ld is %g, fed whole %g", how, (long)(i % a.cols),
                     (long)(i / a.cols), b.v[i], a.v[i]);
    }
}

/* The case on the device; slope: of its heads, with room for MAX_HEADS. */
static cached_t make_cached(lrd_dtype_t d, const cached_case_t *x, float *slope)
{
    uint64_t seed = (uint64_t)(x->heads * x->dim);
    cached_t c = {.x = x, .d = d};
    for (int s = 0; s < x->n_seqs; s++)
        c.begin[s + 1] = c.begin[s] + x->length[s];
    for (int h = 0; h < x->heads; h++)
        slope[h] = x->slope * powf(0.5f, (float)h);
    op_context("%d heads of %d, %d sequences", x->heads, x->dim, x->n_seqs);
    c.qkv = op_random(&seed, c.begin[x->n_seqs], 3 * x->heads * x->dim, 2);
    const lrd_mat_t stored = op_put(c.qkv, d, 0); /* c.qkv becomes what is stored */
    (void)stored;
    c.scratch = op_scratch;
    c.scratch.bytes = lrd_scratch_bytes(op_be, &(lrd_limits_t){.tokens = 1,
                                                               .max_seqlen = CAPACITY,
                                                               .hidden = 8,
                                                               .mlp = 8,
                                                               .vocab = 1,
                                                               .n_heads = x->heads,
                                                               .head_dim = x->dim,
                                                               .cached_len = CAPACITY,
                                                               .sequences = x->n_seqs,
                                                               .compute = d});
    c.slope = op_upload(slope, (size_t)x->heads * 4);
    c.cache.shape = (lrd_kv_shape_t){x->n_seqs + 2, CAPACITY, x->heads, x->dim, d};
    return c;
}

static void near_reference(const cached_t *c, const float *slope, ref_mat_t have)
{
    const cached_case_t *x = c->x;
    const ref_attention_t ref = {c->begin, x->n_seqs, x->heads,
                                 x->dim,   slope,     (double)(float)(1 / sqrt(x->dim))};
    ref_mat_t want = op_zeros(have.rows, have.cols);
    ref_attention(&ref, c->qkv, want);
    op_near("attention against a cache", OP_ATTENTION, c->d, (double)(x->dim + CAPACITY), have,
            want);
}

static void check_cached(lrd_dtype_t d, const cached_case_t *x)
{
    float slope[MAX_HEADS];
    cached_t c = make_cached(d, x, slope);
    const int64_t t = c.qkv.rows, hd = x->heads * x->dim;
    ref_mat_t whole = op_zeros(t, hd), pieces = op_zeros(t, hd), single = op_zeros(t, hd);
    feed(&c, MAX_T, 0, whole);
    near_reference(&c, slope, whole);
    same_bits("without a cache", whole, without_cache(&c));
    feed(&c, 13, 2, pieces);
    same_bits("in pieces of 13", whole, pieces);
    feed(&c, 1, 3, single);
    same_bits("token by token", whole, single);
    op_free_all();
}

static void test_cached(void **state)
{
    (void)state;
    static const cached_case_t cases[] = {{3, 64, 3, {1, 64, 33}, 0, 0.5f},
                                          {2, 80, 4, {5, 131, 2, 32}, 8, 0.5f},
                                          {5, 8, 2, {100, 31}, 3, 0.25f},
                                          {1, 128, 5, {7, 1, 65, 40, 96}, 0, 1}};
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_cached(op_dtypes[k], &cases[i]);
    }
}

/* Rows of prompts have the bits of other pieces; single ones, on a CPU, too. */
static void same_as_pieces(const cached_t *c, const int32_t *prompt, ref_mat_t pieces,
                           ref_mat_t have)
{
    for (int s = 0; s < c->x->n_seqs; s++) {
        const int64_t rows = op_is_device() ? prompt[s] : c->x->length[s];
        const ref_mat_t a = {pieces.v + c->begin[s] * pieces.cols, rows, pieces.cols},
                        b = {have.v + c->begin[s] * have.cols, rows, have.cols};
        same_bits("beside single rows", a, b);
    }
}

static void check_single(lrd_dtype_t d, const cached_case_t *x, const int32_t *prompt)
{
    float slope[MAX_HEADS];
    cached_t c = make_cached(d, x, slope);
    const int64_t t = c.qkv.rows, hd = x->heads * x->dim;
    ref_mat_t pieces = op_zeros(t, hd), have = op_zeros(t, hd), other = op_zeros(t, hd);
    feed(&c, MAX_T, 0, pieces);
    generate(&c, prompt, -1, MAX_T, (step_t){.max_len = 1}, have);
    near_reference(&c, slope, have);
    same_as_pieces(&c, prompt, pieces, have);
    generate(&c, prompt, -1, 40, (step_t){.backwards = true, .max_len = 1}, other);
    same_bits("in another order", have, other);
    for (int s = 0; s < x->n_seqs; s++)
        generate(&c, prompt, s, 50, (step_t){.max_len = CAPACITY}, other);
    same_bits("alone", have, other);
    op_free_all();
}

/* Around the borders of pieces of keys, and where another way is taken: rows that begin anywhere. */
static void test_single(void **state)
{
    (void)state;
    static const cached_case_t cases[] = {{3, 64, 3, {12, 270, 67}, 0, 0.5f},
                                          {2, 80, 4, {260, 4, 131, 34}, 8, 0.5f},
                                          {5, 8, 2, {150, 20}, 0, 0.25f},
                                          {1, 128, 2, {130, 520}, 0, 1},
                                          {2, 40, 2, {40, 9}, 3, 0.5f}};
    static const int32_t prompt[][MAX_SEQS] = {
        {1, 250, 60}, {253, 1, 126, 31}, {127, 5}, {125, 508}, {33, 1}};
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_single(op_dtypes[k], &cases[i], prompt[i]);
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cached),
                                       cmocka_unit_test(test_single)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
