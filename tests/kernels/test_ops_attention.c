/* Attention on a backend, forward and backward, against the reference. */
#include "op_support.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_HEADS = 8, MANY = 75 };

typedef struct attention_case {
    int heads, dim, n_seqs;
    const int32_t *cu;
    int64_t padding; /* rows behind the last sequence */
    int64_t pad;     /* elements between rows */
    double size;     /* of q, k and v */
    float slope;     /* of the first head */
} attention_case_t;

static int32_t longest_of(const attention_case_t *x)
{
    int32_t longest = 0;
    for (int s = 0; s < x->n_seqs; s++)
        longest = x->cu[s + 1] - x->cu[s] > longest ? x->cu[s + 1] - x->cu[s] : longest;
    return longest;
}

/* Rows behind the sequences hold NaN: nothing may come from them. */
static void poison(ref_mat_t m, int64_t from)
{
    for (int64_t i = from * m.cols; i < m.rows * m.cols; i++)
        m.v[i] = NAN;
}

static void check_real(const char *what, op_quantity_t q, lrd_dtype_t d, double n, lrd_mat_t have,
                       ref_mat_t want, int64_t rows)
{
    ref_mat_t got = op_get(have);
    got.rows = want.rows = rows;
    op_near(what, q, d, n, got, want);
}

/* The log-sum-exp is float32 whatever the type is; places behind the sequences are not looked at. */
static void check_lse(const float *lse, ref_mat_t want, int64_t real, double n)
{
    ref_mat_t got = op_zeros(want.rows, want.cols);
    float *host = malloc((size_t)(want.rows * want.cols) * sizeof *host);
    op_download(lse, host, (size_t)(want.rows * want.cols) * sizeof *host);
    for (int64_t i = 0; i < want.rows * want.cols; i++)
        got.v[i] = i % want.cols < real ? (double)host[i] : 0;
    free(host);
    op_near("log-sum-exp", OP_ATTENTION, LRD_F32, n, got, want);
}

static void check_attention(lrd_dtype_t d, const attention_case_t *x)
{
    uint64_t seed = (uint64_t)(x->heads * x->dim + x->n_seqs);
    const int64_t real = x->cu[x->n_seqs], t = real + x->padding, c = x->heads * x->dim;
    const int32_t longest = longest_of(x);
    float slope[MAX_HEADS];
    op_context("%d heads of %d, %ld tokens, %d sequences", x->heads, x->dim, (long)t, x->n_seqs);
    for (int h = 0; h < x->heads; h++)
        slope[h] = x->slope * powf(0.5f, (float)h);
    ref_mat_t qkv = op_random(&seed, t, 3 * c, x->size), dout = op_random(&seed, t, c, 1);
    ref_mat_t out = op_zeros(t, c), dqkv = op_zeros(t, 3 * c), lse = op_zeros(x->heads, t);
    poison(qkv, real);
    poison(dout, real);
    const lrd_mat_t dev_qkv = op_put(qkv, d, x->pad), dev_out = op_empty(t, c, d, x->pad);
    const lrd_mat_t dev_dout = op_put(dout, d, x->pad), dev_dqkv = op_empty(t, 3 * c, d, x->pad);
    const lrd_attn_fwd_t fwd = {
        .qkv = lrd_const(dev_qkv),
        .cu_seqlens = op_upload(x->cu, (size_t)(x->n_seqs + 1) * 4),
        .n_seqs = x->n_seqs,
        /* A device finds out itself: what it is told may be of another packing. */
        .max_seqlen = op_is_device() ? 0 : longest,
        .n_heads = x->heads,
        .head_dim = x->dim,
        .slope = op_upload(slope, (size_t)x->heads * 4),
        .scale = (float)(1 / sqrt(x->dim)),
        .out = dev_out,
        .lse = op_device((size_t)(x->heads * t) * 4)};
    const ref_attention_t ref = {x->cu, x->n_seqs, x->heads, x->dim, slope, (double)fwd.scale};
    lrd_attn_fwd_t without = fwd; /* evaluation keeps no lse */
    without.lse = NULL;
    assert_ok(lrd_attn_forward(op_st, op_scratch, &without));
    ref_attention(&ref, qkv, out);
    ref_attention_lse(&ref, qkv, lse);
    const double n = (double)(x->dim + longest);
    check_real("attention without lse", OP_ATTENTION, d, n, dev_out, out, real);
    assert_ok(lrd_attn_forward(op_st, op_scratch, &fwd));
    check_real("attention", OP_ATTENTION, d, n, dev_out, out, real);
    check_lse(fwd.lse, lse, real, n);
    assert_ok(lrd_attn_backward(op_st, op_scratch,
                                &(lrd_attn_bwd_t){fwd, lrd_const(dev_dout), dev_dqkv}));
    ref_attention_backward(&ref, qkv, dout, dqkv);
    check_real("attention backward", OP_ATTENTION_BACKWARD, d, n, dev_dqkv, dqkv, real);
    op_free_all();
}

static void test_heads(void **state)
{
    (void)state;
    static const int32_t cu[] = {0, 1, 1, 38, 40, 139}; /* one token, none, and more */
    static const attention_case_t cases[] = {
        {7, 8, 5, cu, 2, 0, 2, 0.5f},  {3, 64, 5, cu, 0, 8, 2, 0.5f}, {3, 80, 5, cu, 3, 0, 2, 0.5f},
        {1, 96, 5, cu, 1, 1, 2, 0.5f}, {1, 104, 5, cu, 0, 0, 2, 1},   {5, 128, 5, cu, 0, 0, 2, 1},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_attention(op_dtypes[k], &cases[i]);
    }
}

static void test_lengths(void **state)
{
    (void)state;
    static const int32_t one[] = {0, 1}, ones[] = {0, 1, 2, 3, 4}, none[] = {0, 0, 0},
                         blocks[] = {0, 63, 127, 192, 448}, edges[] = {0, 128, 255, 384, 641},
                         whole[] = {0, 300};
    int32_t many[MANY + 1] = {0}; /* of 0 to 6 tokens */
    for (int s = 0; s < MANY; s++)
        many[s + 1] = many[s] + s * 5 % 7;
    const attention_case_t cases[] = {
        {2, 16, 1, one, 0, 0, 1, 0.5f},   {3, 16, 4, ones, 5, 0, 1, 0.5f},
        {2, 8, 2, none, 3, 0, 1, 0.5f},   {3, 24, 4, blocks, 7, 0, 1, 0.25f},
        {1, 72, 4, edges, 1, 0, 1, 0.5f}, {3, 16, MANY, many, 4, 0, 1, 0.5f},
        {2, 40, 1, whole, 0, 3, 1, 0.1f}, {1, 16, 1, whole, 0, 0, 8, 0.001f}, /* peaked */
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_attention(op_dtypes[k], &cases[i]);
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_heads),
                                       cmocka_unit_test(test_lengths)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
