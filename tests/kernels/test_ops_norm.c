/* Embedding, residual addition and layer norm on a backend, against the reference. */
#include "op_support.h"

#include <math.h>
#include <string.h>

static void check_embed(lrd_dtype_t d, int64_t t, int64_t v, int64_t c, int64_t pad)
{
    uint64_t seed = (uint64_t)(t + c);
    int32_t token[64];
    for (int64_t i = 0; i < t; i++)
        token[i] = i == 0 ? (int32_t)(v - 1) : (int32_t)lrd_test_random_int(&seed, v);
    op_context("T %ld, V %ld, C %ld", (long)t, (long)v, (long)c);
    ref_mat_t table = op_random(&seed, v, c, 1), x = op_zeros(t, c), y = op_zeros(t, c);
    ref_mat_t gamma = op_random(&seed, 1, c, 1), beta = op_random(&seed, 1, c, 1);
    const lrd_mat_t w = op_put(table, d, pad), out = op_empty(t, c, d, pad);
    const lrd_mat_t g = op_put(gamma, d, 0), b = op_put(beta, d, 0);
    for (int64_t i = 0; i < t; i++)
        memcpy(x.v + i * c, table.v + token[i] * c, (size_t)c * sizeof(double));
    ref_layernorm(x, gamma, beta, 1e-5, y);
    assert_ok(lrd_embed_forward(op_st, op_scratch,
                                &(lrd_embed_fwd_t){op_upload(token, (size_t)t * sizeof *token),
                                                   lrd_const(w), lrd_const(g), lrd_const(b), 1e-5f,
                                                   out}));
    op_check("embed", OP_NORM, d, (double)c, out, y);
    op_free_all();
}

static void test_embed(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        check_embed(op_dtypes[k], 1, 1, 8, 0);
        check_embed(op_dtypes[k], 9, 31, 72, 5);
        check_embed(op_dtypes[k], 64, 257, 200, 0);
    }
}

/* How the residual addition is asked for. */
typedef enum norm_form {
    SUM_AND_NORM,
    SUM_INTO_X,
    SUM_INTO_DELTA,
    SUM_ALONE,
    NORM_ALONE,
    NORM_AND_COPY
} norm_form_t;

static void check_norm(lrd_dtype_t d, int64_t t, int64_t c, int64_t pad, norm_form_t form,
                       bool accumulate)
{
    uint64_t seed = (uint64_t)(t * c + form);
    const bool adds = form <= SUM_ALONE;
    op_context("T %ld, C %ld, form %d", (long)t, (long)c, (int)form);
    ref_mat_t x = op_random(&seed, t, c, 3), delta = op_random(&seed, t, c, 1);
    ref_mat_t gamma = op_random(&seed, 1, c, 1), beta = op_random(&seed, 1, c, 1);
    ref_mat_t y = op_zeros(t, c), sum = op_zeros(t, c);
    for (int64_t i = 0; i < t * c; i++)
        x.v[i] += 5; /* a mean to subtract */
    const lrd_mat_t dev_x = op_put(x, d, pad), dev_delta = op_put(delta, d, 0), none = {0};
    const lrd_mat_t g = op_put(gamma, d, 0), b = op_put(beta, d, 0);
    const lrd_mat_t res = form == SUM_INTO_X       ? dev_x
                          : form == SUM_INTO_DELTA ? dev_delta
                          : form == NORM_ALONE     ? none
                                                   : op_empty(t, c, d, pad);
    const lrd_mat_t out = form == SUM_ALONE ? none : op_empty(t, c, d, 0);
    float *mean = op_device((size_t)t * 4), *rstd = op_device((size_t)t * 4);
    const bool keep = form != SUM_ALONE;
    assert_ok(lrd_addnorm_forward(op_st, op_scratch,
                                  &(lrd_addnorm_fwd_t){lrd_const(dev_x),
                                                       lrd_const(adds ? dev_delta : none),
                                                       lrd_const(g), lrd_const(b), 1e-5f, res, out,
                                                       keep ? mean : NULL, keep ? rstd : NULL}));
    for (int64_t i = 0; i < t * c; i++)
        sum.v[i] = x.v[i] + (adds ? delta.v[i] : 0);
    if (form != NORM_ALONE)
        op_check("addnorm res", OP_COPY, d, 1, res, sum);
    if (form == SUM_ALONE) {
        op_free_all();
        return;
    }
    /* A norm sees what is stored. */
    ref_mat_t seen = form == NORM_ALONE ? x : op_get(res);
    ref_layernorm(seen, gamma, beta, 1e-5, y);
    op_check("addnorm y", OP_NORM, d, (double)c, out, y);

    ref_mat_t dy = op_random(&seed, t, c, 1), dx = op_zeros(t, c), old = op_random(&seed, t, c, 1);
    const lrd_mat_t dev_dy = op_put(dy, d, pad);
    const lrd_mat_t dres = accumulate ? op_put(old, d, pad) : dev_dy; /* may be dy itself */
    ref_layernorm_backward(dy, seen, gamma, 1e-5, dx);
    for (int64_t i = 0; accumulate && i < t * c; i++)
        dx.v[i] += old.v[i];
    assert_ok(lrd_norm_backward(op_st, op_scratch,
                                &(lrd_norm_bwd_t){lrd_const(dev_dy),
                                                  lrd_const(form == NORM_ALONE ? dev_x : res),
                                                  lrd_const(g), mean, rstd, accumulate, dres}));
    op_check("norm_backward", OP_NORM_BACKWARD, d, (double)c, dres, dx);
    op_free_all();
}

static void test_norm(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        check_norm(op_dtypes[k], 13, 104, 3, SUM_AND_NORM, true);
        check_norm(op_dtypes[k], 1, 8, 0, SUM_AND_NORM, false);
        check_norm(op_dtypes[k], 7, 33, 1, SUM_INTO_X, false);
        check_norm(op_dtypes[k], 7, 33, 1, SUM_INTO_DELTA, true);
        check_norm(op_dtypes[k], 5, 24, 2, SUM_ALONE, false);
        check_norm(op_dtypes[k], 300, 500, 4, NORM_ALONE, true);
        check_norm(op_dtypes[k], 3, 511, 4, NORM_AND_COPY, false);
        check_norm(op_dtypes[k], 1, 6144, 0, SUM_AND_NORM, true); /* two rows are 48 KiB */
    }
}

/* Statistics are those of the values: variance over C, with eps under the root. */
static void test_statistics(void **state)
{
    (void)state;
    const float x[2][4] = {{1, 2, 3, 6}, {7, 7, 7, 7}};
    const float one[4] = {1, 1, 1, 1}, zero[4] = {0};
    float mean[2], rstd[2], *dev_mean = op_device(8), *dev_rstd = op_device(8);
    const lrd_cmat_t in = {op_upload(x, sizeof x), 2, 4, 4, LRD_F32};
    const lrd_cmat_t g = {op_upload(one, sizeof one), 1, 4, 4, LRD_F32};
    const lrd_cmat_t b = {op_upload(zero, sizeof zero), 1, 4, 4, LRD_F32};
    const lrd_mat_t y = op_empty(2, 4, LRD_F32, 0);
    assert_ok(lrd_addnorm_forward(op_st, op_scratch,
                                  &(lrd_addnorm_fwd_t){.x = in,
                                                       .gamma = g,
                                                       .beta = b,
                                                       .eps = 0.25f,
                                                       .y = y,
                                                       .mean = dev_mean,
                                                       .rstd = dev_rstd}));
    op_download(dev_mean, mean, sizeof mean);
    op_download(dev_rstd, rstd, sizeof rstd);
    assert_true(mean[0] == 3 && mean[1] == 7);
    assert_true(fabs((double)rstd[0] - 1 / sqrt(3.5 + 0.25)) < 1e-7 && rstd[1] == 2);
    op_free_all();
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_embed), cmocka_unit_test(test_norm),
                                       cmocka_unit_test(test_statistics)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
