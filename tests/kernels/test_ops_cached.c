/* Attention against a cache on a backend: sequences fed whole, in pieces and token by token, among
 * others, against the reference; and to the bit against each other. */
#include "op_support.h"

#include <math.h>
#include <string.h>

enum { MAX_SEQS = 5, MAX_T = 400, MAX_HEADS = 8 };

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

/* One call: sequence s brings rows at[s] .. at[s] + n[s] - 1 of its own. Rows go to `out`. */
static void call(const cached_t *c, const int32_t *at, const int32_t *n, ref_mat_t out)
{
    const cached_case_t *x = c->x;
    int32_t cu[MAX_SEQS + 1] = {0}, slot[MAX_SEQS], max_len = 1;
    for (int s = 0; s < x->n_seqs; s++) {
        cu[s + 1] = cu[s] + n[s];
        slot[s] = c->cache.shape.n_slots - 1 - s;
        max_len = at[s] + n[s] > max_len ? at[s] + n[s] : max_len;
    }
    const int64_t t = cu[x->n_seqs], hd = x->heads * x->dim;
    const op_mark_t mark = op_mark();
    ref_mat_t rows = op_zeros(t, 3 * hd);
    for (int s = 0; s < x->n_seqs; s++) {
        for (int32_t i = 0; i < n[s]; i++)
            copy_row(rows, cu[s] + i, c->qkv, c->begin[s] + at[s] + i);
    }
    const lrd_mat_t dev_out = op_empty(t, hd, c->d, x->pad);
    assert_ok(lrd_attn_cached(
        op_st, c->scratch,
        &(lrd_attn_cached_t){.qkv = lrd_const(op_put(rows, c->d, x->pad)),
                             .cu_seqlens = op_upload(cu, (size_t)(x->n_seqs + 1) * 4),
                             .cache_len = op_upload(at, (size_t)x->n_seqs * 4),
                             .slot = op_upload(slot, (size_t)x->n_seqs * 4),
                             .n_seqs = x->n_seqs,
                             .max_len = max_len,
                             .slope = c->slope,
                             .scale = (float)(1 / sqrt(x->dim)),
                             .cache = c->cache,
                             .out = dev_out}));
    const ref_mat_t got = op_get(dev_out);
    for (int s = 0; s < x->n_seqs; s++) {
        for (int32_t i = 0; i < n[s]; i++)
            copy_row(out, c->begin[s] + at[s] + i, got, cu[s] + i);
    }
    op_free_to(mark);
}

/* Feeds everything: `piece` rows of each sequence at a time; sequence s starts s * lag calls late,
 * so that prompts meet single tokens of others. */
static void feed(const cached_t *c, int32_t piece, int32_t lag, ref_mat_t out)
{
    int32_t at[MAX_SEQS] = {0}, n[MAX_SEQS];
    for (int32_t step = 0;; step++) {
        int32_t sum = 0;
        bool waiting = false;
        for (int s = 0; s < c->x->n_seqs; s++) {
            const int32_t left = c->x->length[s] - at[s];
            n[s] = step < s * lag ? 0 : left < piece ? left : piece;
            waiting = waiting || (left > 0 && step < s * lag);
            sum += n[s];
        }
        if (sum == 0 && !waiting)
            return;
        if (sum > 0)
            call(c, at, n, out);
        for (int s = 0; s < c->x->n_seqs; s++)
            at[s] += n[s];
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

static void check_cached(lrd_dtype_t d, const cached_case_t *x)
{
    uint64_t seed = (uint64_t)(x->heads * x->dim);
    float slope[MAX_HEADS];
    cached_t c = {.x = x, .d = d};
    for (int s = 0; s < x->n_seqs; s++)
        c.begin[s + 1] = c.begin[s] + x->length[s];
    for (int h = 0; h < x->heads; h++)
        slope[h] = x->slope * powf(0.5f, (float)h);
    const int64_t t = c.begin[x->n_seqs], hd = x->heads * x->dim;
    op_context("%d heads of %d, %d sequences", x->heads, x->dim, x->n_seqs);
    c.qkv = op_random(&seed, t, 3 * hd, 2);
    const lrd_mat_t stored = op_put(c.qkv, d, 0); /* c.qkv becomes what is stored */
    (void)stored;
    c.scratch = op_scratch;
    c.scratch.bytes = lrd_scratch_bytes(op_be, &(lrd_limits_t){.tokens = 1,
                                                               .max_seqlen = 131,
                                                               .hidden = 8,
                                                               .mlp = 8,
                                                               .vocab = 1,
                                                               .n_heads = x->heads,
                                                               .head_dim = x->dim,
                                                               .cached_len = 131,
                                                               .compute = d});
    c.slope = op_upload(slope, (size_t)x->heads * 4);
    c.cache.shape = (lrd_kv_shape_t){x->n_seqs + 2, 131, x->heads, x->dim, d};
    c.cache.data = op_device(lrd_kv_cache_bytes(op_be, &c.cache.shape));
    ref_mat_t whole = op_zeros(t, hd), pieces = op_zeros(t, hd), single = op_zeros(t, hd);
    feed(&c, MAX_T, 0, whole);
    const ref_attention_t ref = {c.begin, x->n_seqs, x->heads,
                                 x->dim,  slope,     (double)(float)(1 / sqrt(x->dim))};
    ref_mat_t want = op_zeros(t, hd);
    ref_attention(&ref, c.qkv, want);
    op_near("attention against a cache", OP_ATTENTION, d, (double)(x->dim + 131), whole, want);
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

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cached)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
