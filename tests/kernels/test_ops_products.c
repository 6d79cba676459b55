/* How products are computed where there is a choice: found by timing, kept in a file, used by runs; and float32
 * with operands rounded to TF32. */
#include "kernels/tuning.h"
#include "op_support.h"

#include "base/buf.h"
#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { T = 40, FEW = 8 /* too few for the emulated device's fastest algorithm */, K = 96, N = 64 };

static lrd_mat_t dev_x, dev_w;
static ref_mat_t x, w;
static const char *file;

static bool is_emulated(void)
{
    char about[256];
    assert_ok(lrd_backend_describe(op_be, about, sizeof about));
    return strstr(about, "emulated device") != NULL;
}

static void reopen(const lrd_product_options_t *products, lrd_dtype_t d)
{
    uint64_t seed = 7;
    op_close();
    op_open(products);
    x = op_random(&seed, T, K, 1);
    w = op_random(&seed, N, K, 1);
    dev_x = op_put(x, d, 0);
    dev_w = op_put(w, d, 0);
}

/* y = x w' of the first rows. */
static lrd_status_t multiply(int64_t rows, lrd_mat_t *y_out)
{
    const lrd_weight_t weight = {lrd_const(dev_w)};
    lrd_cmat_t in = lrd_const(dev_x);
    in.rows = rows;
    *y_out = op_empty(rows, N, LRD_F32, 0); /* where the order of a sum shows */
    return lrd_linear_forward(op_st, op_scratch,
                              &(lrd_linear_fwd_t){.x = in, .w = &weight, .y = *y_out});
}

static void product(int64_t rows, float *bits)
{
    lrd_mat_t y;
    assert_ok(multiply(rows, &y));
    op_download(y.data, bits, (size_t)rows * N * sizeof *bits);
}

static void write_tuning(const lrd_tuning_t *tuning)
{
    lrd_buf_t text = {0};
    assert_ok(lrd_tuning_write(tuning, &text));
    assert_ok(lrd_file_write(file, text.data, text.size));
    lrd_buf_release(&text);
}

static size_t tune(lrd_tuning_t *tuning, lrd_choice_t choice[4])
{
    float bits[T * N];
    reopen(&(lrd_product_options_t){.tunes = true}, LRD_BF16);
    product(T, bits);
    assert_ok(lrd_backend_tuned(op_be, tuning));
    assert_true(tuning->n <= 4);
    memcpy(choice, tuning->choice, tuning->n * sizeof *choice);
    tuning->choice = choice;
    for (size_t i = 0; i < tuning->n; i++)
        assert_true(choice[i].seconds > 0 && choice[i].seconds <= choice[i].rule_seconds);
    return tuning->n;
}

static void test_tuning(void **state)
{
    (void)state;
    const lrd_product_options_t from_file = {.tuning_file = file};
    float plain[T * N], plain_few[FEW * N], tuned[T * N], tuned_few[FEW * N];
    lrd_tuning_t tuning;
    lrd_choice_t choice[4];
    lrd_mat_t y;
    if (op_is_checked())
        return; /* it has no choice */
    reopen(NULL, LRD_BF16);
    product(T, plain);
    product(FEW, plain_few);
    if (tune(&tuning, choice) == 0)
        return; /* nor has this processor */
    write_tuning(&tuning);
    reopen(&from_file, LRD_BF16);
    ref_mat_t want = op_zeros(T, N);
    ref_linear(x, w, (ref_mat_t){0}, want);
    assert_ok(multiply(T, &y));
    op_check("y", OP_LINEAR, LRD_F32, K, y, want);
    product(T, tuned);
    product(FEW, tuned_few);
    if (is_emulated()) { /* its algorithms sum in different orders */
        assert_memory_not_equal(tuned, plain, sizeof plain);
        assert_memory_equal(tuned_few, plain_few, sizeof plain_few);
        assert_true(fabs(choice[0].rule_seconds / choice[0].seconds - 3) < 1e-6);
    }
    reopen(&from_file, LRD_BF16); /* in the other order */
    product(FEW, plain_few);
    product(T, plain);
    assert_memory_equal(tuned, plain, sizeof plain);
    assert_memory_equal(tuned_few, plain_few, sizeof plain_few);
}

/* Files that are not this machine's, or not a back end's at all. */
static void test_refusals(void **state)
{
    (void)state;
    const lrd_product_options_t from_file = {.tuning_file = file};
    const lrd_backend_options_t options = {0, op_threads, &from_file};
    const char *name = op_be->ops->name;
    static const char incomplete[] = "{\"machine\": \"m\", \"products\": [{\"product\": \"p\"}]}";
    lrd_tuning_t tuning;
    lrd_choice_t choice[4];
    lrd_backend_t *be = NULL;
    lrd_mat_t y;
    if (op_is_checked() || tune(&tuning, choice) == 0)
        return;
    char *route = choice[0].route;
    memset(route, 'f', strlen(route));
    write_tuning(&tuning);
    if (op_is_device()) {
        reopen(&from_file, LRD_BF16);
        assert_fails(multiply(T, &y), LRD_ERR_CONFIG, "make one anew with lora-dist tune");
    } else {
        assert_fails(lrd_backend_open(name, &options, &be), LRD_ERR_FORMAT,
                     "expected native or widened");
    }
    snprintf(tuning.machine, sizeof tuning.machine, "another machine");
    write_tuning(&tuning);
    assert_fails(lrd_backend_open(name, &options, &be), LRD_ERR_CONFIG,
                 "was made for \"another machine\"");
    assert_ok(lrd_file_write(file, incomplete, strlen(incomplete)));
    assert_fails(lrd_backend_open(name, &options, &be), LRD_ERR_FORMAT,
                 "products[0]: \"route\" is missing or empty");
    reopen(NULL, LRD_BF16);
}

/* Rounding both operands to TF32 loses at most 2^-10 of each where hardware cuts, 2^-11 where it rounds, so
 * each term up to 2^-9 and a little of its size. That is more than float32 ever loses here: some element shows
 * it. 16-bit operands are exact in TF32. */
static void test_tf32(void **state)
{
    (void)state;
    const lrd_product_options_t tf32 = {.tf32 = true};
    float plain[T * N], same[T * N];
    lrd_backend_t *be = NULL;
    lrd_mat_t y;
    if (!op_is_device()) {
        assert_fails(
            lrd_backend_open(op_be->ops->name, &(lrd_backend_options_t){0, op_threads, &tf32}, &be),
            LRD_ERR_UNSUPPORTED, "training.tf32: true needs a GPU");
        return;
    }
    reopen(NULL, LRD_BF16);
    product(T, plain);
    reopen(&tf32, LRD_BF16);
    product(T, same);
    assert_memory_equal(plain, same, sizeof plain);
    reopen(&tf32, LRD_F32);
    ref_mat_t want = op_zeros(T, N);
    ref_linear(x, w, (ref_mat_t){0}, want);
    assert_ok(multiply(T, &y));
    const ref_mat_t have = op_get(y);
    bool shows = false;
    for (int i = 0; i < T * N; i++) {
        double terms = 0;
        for (int k = 0; k < K; k++)
            terms += fabs(x.v[i / N * K + k] * w.v[i % N * K + k]);
        const double off = fabs(have.v[i] - want.v[i]);
        assert_true(off <= (0x1p-9 + 0x1p-18) * terms);
        shows = shows || off > K * 0x1p-24 * terms;
    }
    assert_true(shows);
    reopen(NULL, LRD_BF16);
}

/* The library sees how a bias is aligned when it is asked for an algorithm; that serves all others of its kind. */
static void test_bias_anywhere(void **state)
{
    (void)state;
    uint64_t seed = 8;
    reopen(NULL, LRD_BF16);
    ref_mat_t bias = op_random(&seed, 2, N, 1), want = op_zeros(T, N);
    memcpy(bias.v + N, bias.v, N * sizeof *bias.v);
    const lrd_mat_t rows = op_put(bias, LRD_BF16, 8); /* at 0 and at 144 bytes */
    const lrd_weight_t weight = {lrd_const(dev_w)};
    bias.rows = 1;
    ref_linear(x, w, bias, want);
    for (int row = 0; row < 2; row++) {
        const lrd_cmat_t b = {(const uint16_t *)rows.data + row * rows.ld, 1, N, rows.ld, LRD_BF16};
        const lrd_mat_t y = op_empty(T, N, LRD_BF16, 0);
        assert_ok(lrd_linear_forward(
            op_st, op_scratch,
            &(lrd_linear_fwd_t){.x = lrd_const(dev_x), .w = &weight, .bias = b, .y = y}));
        op_check("y", OP_LINEAR, LRD_BF16, K, y, want);
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    file = lrd_test_temporary("tuning.json");
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_tuning),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_tf32),
                                       cmocka_unit_test(test_bias_anywhere)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
