/* The head with cross entropy on a backend, against the reference. */
#include "op_support.h"

#include <math.h>

typedef struct head_case {
    int64_t t, c, v, pad;
    int every;        /* rows i with i % every == 1 are not targets; 0: all are, -1: none is */
    float loss_scale; /* 0: no clock */
} head_case_t;

static void check_losses(const char *what, const lrd_linear_ce_t *op, double want, const float *nll,
                         int64_t t)
{
    double got;
    op_download(op->nll, &got, sizeof got);
    /* Log-sum-exp and the target's logit are float32 values of up to about 20. */
    if (!(fabs(got - want) <= 1e-6 * fabs(want) + (double)t * 20 * 0x1p-24))
        fail_msg("%s: loss %.9g, expected %.9g", what, got, want);
    if (nll == NULL)
        return;
    for (int64_t i = 0; i < t; i++)
        got -= (double)nll[i];
    assert_true(fabs(got) <= (double)t * 20 * 0x1p-24); /* each rounded to float32 */
}

static void check_head(lrd_dtype_t d, const head_case_t *x)
{
    enum { MAX_T = 80 };
    uint64_t seed = (uint64_t)(x->t + x->v);
    const int64_t t = x->t, c = x->c, v = x->v;
    const double scale = 0.25 * (x->loss_scale > 0 ? (double)x->loss_scale : 1);
    int32_t target[MAX_T];
    float each[MAX_T];
    op_context("T %ld, C %ld, V %ld", (long)t, (long)c, (long)v);
    for (int64_t i = 0; i < t; i++)
        target[i] = x->every < 0 || (x->every > 0 && i % x->every == 1)
                        ? -100
                        : (int32_t)(i == 0 ? v - 1 : lrd_test_random_int(&seed, v));
    ref_mat_t h = op_random(&seed, t, c, 2), w = op_random(&seed, v, c, 0.5), dh = op_zeros(t, c);
    const lrd_mat_t dev_h = op_put(h, d, x->pad), dev_w = op_put(w, d, x->pad);
    const lrd_mat_t dev_dh = op_empty(t, c, d, x->pad);
    const lrd_weight_t weight = {lrd_const(dev_w)};
    const lrd_step_state_t clock = {.loss_scale = x->loss_scale};
    const lrd_ce_call_t call = {.inv_n_target = 0.25}, other = {.inv_n_target = 0.25, .number = 3};
    float *token_nll = op_device((size_t)t * 4);
    const lrd_linear_ce_t op = {.h = lrd_const(dev_h),
                                .w = &weight,
                                .target = op_upload(target, (size_t)t * 4),
                                .call = op_upload(&call, sizeof call),
                                .state = x->loss_scale > 0 ? op_upload(&clock, sizeof clock) : NULL,
                                .nll = op_device(8),
                                .token_nll = token_nll,
                                .dh = dev_dh};
    assert_ok(lrd_linear_ce(op_st, op_scratch, &op));
    const double want = ref_linear_ce(h, w, target, scale, dh);
    op_download(token_nll, each, (size_t)t * 4);
    check_losses("linear_ce", &op, want, each, t);
    ref_mat_t got = op_get(dev_dh);
    op_near("linear_ce dh", OP_HEAD_DH, d, (double)v, got, dh);
    for (int64_t i = 0; i < t; i++) {
        ref_mat_t row = {h.v + i * c, 1, c};
        const double alone = ref_linear_ce(row, w, &target[i], 1, (ref_mat_t){0});
        assert_true(fabs(alone - (double)each[i]) <= 40 * 0x1p-24 + 1e-6 * alone);
        for (int64_t j = 0; target[i] < 0 && j < c; j++)
            assert_true(got.v[i * c + j] == 0); /* zero, not nearly */
    }
    lrd_linear_ce_t told =
        op; /* the same, to the bit, when the host counts the targets, or bounds them */
    for (int64_t i = 0; i < t; i++)
        told.n_targets += target[i] >= 0;
    for (int more = 0; more < 2; more++, told.n_targets = (told.n_targets + t + 1) / 2) {
        told.dh = op_empty(t, c, d, x->pad);
        assert_ok(lrd_linear_ce(op_st, op_scratch, &told));
        assert_memory_equal(op_get(told.dh).v, got.v, (size_t)(t * c) * sizeof *got.v);
        check_losses("linear_ce with a count", &told, want, NULL, t);
    }
    lrd_linear_ce_t numbered = op;
    numbered.call = op_upload(&other, sizeof other);
    double *losses = op_device((size_t)(other.number + 1) * sizeof *losses);
    numbered.nll = losses;
    assert_ok(lrd_linear_ce(op_st, op_scratch, &numbered));
    numbered.nll = losses + other.number;
    check_losses("linear_ce with a number", &numbered, want, NULL, t);
    lrd_linear_ce_t without = op;
    without.dh = (lrd_mat_t){0};
    without.token_nll = NULL;
    assert_ok(lrd_linear_ce(op_st, op_scratch, &without));
    check_losses("linear_ce without dh", &without, want, NULL, t);
    op_free_all();
}

static void test_linear_ce(void **state)
{
    (void)state;
    static const head_case_t cases[] = {
        {37, 88, 3001, 0, 4, 8}, {1, 8, 5, 3, 0, 0},      {2, 24, 1, 0, 0, 1},
        {9, 40, 129, 0, -1, 2},  {65, 64, 513, 8, 0, 0},  {7, 17, 4099, 1, 3, 1024},
        {80, 24, 5003, 0, 2, 0}, {33, 12, 2048, 0, 3, 2}, /* whole pieces of V, no rest */
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_head(op_dtypes[k], &cases[i]);
    }
}

/* More rows than are taken at once where memory was planned for no more than this op. */
enum { MANY = 600, MANY_C = 24, MANY_V = 1100 };

typedef struct many {
    lrd_dtype_t d;
    lrd_mat_t h;
    const lrd_weight_t *w;
    const int32_t *target;
} many_t;

static void run_many(const many_t *m, lrd_scratch_t scratch, int64_t t, int64_t n_targets,
                     ref_mat_t *dh_out, float *token_nll_out, double *nll_out)
{
    lrd_linear_ce_t op = {.h = lrd_const(m->h),
                          .w = m->w,
                          .target = m->target,
                          .n_targets = n_targets,
                          .nll = op_device(8),
                          .token_nll = op_device((size_t)t * 4),
                          .dh = op_empty(t, MANY_C, m->d, 0)};
    op.h.rows = t;
    assert_ok(lrd_linear_ce(op_st, scratch, &op));
    *dh_out = op_get(op.dh);
    op_download(op.token_nll, token_nll_out, (size_t)t * 4);
    op_download(op.nll, nll_out, sizeof *nll_out);
}

/* The first t rows, told how many are targets or not, are what they are among all. */
static void check_first(const many_t *m, lrd_scratch_t scratch, int64_t t, const int32_t *target,
                        ref_mat_t want, const float *want_nll)
{
    float token_nll[MANY];
    double nll;
    ref_mat_t dh;
    int64_t n_targets = 0;
    for (int64_t i = 0; i < t; i++)
        n_targets += target[i] >= 0;
    for (int told = 0; told < 2; told++) {
        const op_mark_t mark = op_mark();
        op_context("%ld of %d rows, %zu bytes of scratch", (long)t, MANY, scratch.bytes);
        run_many(m, scratch, t, told ? n_targets : 0, &dh, token_nll, &nll);
        assert_memory_equal(dh.v, want.v, (size_t)(t * MANY_C) * sizeof *dh.v);
        assert_memory_equal(token_nll, want_nll, (size_t)t * sizeof *token_nll);
        op_free_to(mark);
    }
}

static void check_tiles(lrd_dtype_t d)
{
    static const int64_t some[] = {1, 7, 64, 257, MANY};
    uint64_t seed = 5;
    int32_t target[MANY];
    float token_nll[MANY];
    double nll;
    ref_mat_t h = op_random(&seed, MANY, MANY_C, 2), w = op_random(&seed, MANY_V, MANY_C, 0.5), dh,
              want = op_zeros(MANY, MANY_C);
    for (int64_t i = 0; i < MANY; i++)
        target[i] = i % 5 == 1 ? -100 : (int32_t)lrd_test_random_int(&seed, MANY_V);
    const lrd_weight_t weight = {lrd_const(op_put(w, d, 0))};
    const many_t m = {d, op_put(h, d, 0), &weight, op_upload(target, sizeof target)};
    const lrd_scratch_t tight = {op_scratch.data,
                                 lrd_scratch_bytes(op_be, &(lrd_limits_t){.tokens = MANY,
                                                                          .max_seqlen = 1,
                                                                          .hidden = MANY_C,
                                                                          .mlp = MANY_C,
                                                                          .vocab = MANY_V,
                                                                          .n_heads = 1,
                                                                          .head_dim = MANY_C,
                                                                          .rank = 1,
                                                                          .compute = d,
                                                                          .training = true})};
    assert_true(tight.bytes <= op_scratch.bytes);
    run_many(&m, tight, MANY, 0, &dh, token_nll, &nll);
    const double want_nll = ref_linear_ce(h, w, target, 1, want);
    op_near("linear_ce dh", OP_HEAD_DH, d, MANY_V, dh, want);
    assert_true(fabs(nll - want_nll) <= 1e-6 * want_nll);
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++) {
        check_first(&m, tight, some[i], target, dh, token_nll);
        check_first(&m, op_scratch, some[i], target, dh, token_nll);
    }
    op_free_all();
}

static void test_tiles(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++)
        check_tiles(op_dtypes[k]);
}

/* Logits far apart: the loss stays finite and exact. */
static void test_extremes(void **state)
{
    (void)state;
    enum { V = 300, C = 8 };
    ref_mat_t h = op_zeros(2, C), w = op_zeros(V, C), dh = op_zeros(2, C);
    h.v[0] = 1000;
    h.v[C] = -1000;
    for (int i = 0; i < V; i++)
        w.v[i * C] = (double)i / 16;
    const int32_t target[] = {V - 1, V - 1};
    const lrd_mat_t dev_h = op_put(h, LRD_F32, 0), dev_w = op_put(w, LRD_F32, 0);
    const lrd_mat_t dev_dh = op_empty(2, C, LRD_F32, 0);
    const lrd_weight_t weight = {lrd_const(dev_w)};
    const lrd_linear_ce_t op = {.h = lrd_const(dev_h),
                                .w = &weight,
                                .target = op_upload(target, sizeof target),
                                .nll = op_device(8),
                                .dh = dev_dh};
    double got;
    assert_ok(lrd_linear_ce(op_st, op_scratch, &op));
    const double want = ref_linear_ce(h, w, target, 1, dh);
    op_download(op.nll, &got, sizeof got);
    assert_true(fabs(got - want) <= 1e-6 * want);
    op_check("linear_ce dh", OP_HEAD_DH, LRD_F32, V, dev_dh, dh);
    op_free_all();
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear_ce),
                                       cmocka_unit_test(test_tiles),
                                       cmocka_unit_test(test_extremes)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
