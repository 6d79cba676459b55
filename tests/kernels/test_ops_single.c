/* Single rows of linears (kernels/ops.h) on a backend: against the reference in the shapes of BLOOM's models, an
 * eighth of them, and in odd ones; and to the bit against the same rows among any number, in another order,
 * beside rows that are not single. On a CPU they have the bits of those, too. */
#include "op_support.h"

#include <string.h>

enum { R = 5, SCALE = 2 };

typedef struct single_case {
    int64_t k, n;
    int32_t rows;
    bool gelu, f32_out, no_bias, adapted;
    int64_t pad;
} single_case_t;

/* A linear and its input, as stored and on the device. */
typedef struct single {
    const single_case_t *x;
    lrd_dtype_t d;
    ref_mat_t in, w, bias, a, b;
    lrd_mat_t dev_in, dev_w, dev_bias, dev_a, dev_b;
} single_t;

static single_t make_single(const single_case_t *x, lrd_dtype_t d)
{
    uint64_t seed = (uint64_t)(x->k * 31 + x->n);
    single_t s = {.x = x, .d = d};
    op_context("%d rows, K %ld, N %ld", x->rows, (long)x->k, (long)x->n);
    s.in = op_random(&seed, x->rows, x->k, 1);
    s.w = op_random(&seed, x->n, x->k, 0.3);
    s.dev_in = op_put(s.in, d, x->pad);
    s.dev_w = op_put(s.w, d, x->pad);
    if (!x->no_bias) {
        s.bias = op_random(&seed, 1, x->n, 1);
        s.dev_bias = op_put(s.bias, d, 0);
    }
    s.a = op_random(&seed, R, x->k, 0.3);
    s.b = op_random(&seed, x->n, R, 0.3);
    s.dev_a = op_put(s.a, LRD_F32, 0);
    s.dev_b = op_put(s.b, LRD_F32, 0);
    return s;
}

/* Rows `first` .. of the input, n of them, the first n_single of which are single. The adapter is on rows
 * begin[0] .. begin[1] - 1 of the input. */
static ref_mat_t run(const single_t *s, lrd_mat_t in, int32_t first, int32_t n, int32_t n_single,
                     const int32_t *begin)
{
    const single_case_t *x = s->x;
    const lrd_weight_t weight = {lrd_const(s->dev_w)};
    const lrd_lora_t lora[3] = {
        [1] = {.a = lrd_const(s->dev_a), .b = lrd_const(s->dev_b), .scale = SCALE}};
    int32_t border[4] = {0, begin[0] - first, begin[1] - first, n};
    for (int i = 1; i < 3; i++)
        border[i] = border[i] < 0 ? 0 : border[i] > n ? n : border[i];
    const lrd_lora_rows_t rows = {3, lora, border};
    const lrd_mat_t y = op_empty(n, x->n, x->f32_out ? LRD_F32 : s->d, x->pad);
    in.data = (uint8_t *)in.data + (size_t)(first * in.ld) * lrd_dtype_bytes(in.dtype);
    in.rows = n;
    assert_ok(lrd_linear_forward(
        op_st, op_scratch,
        &(lrd_linear_fwd_t){.x = lrd_const(in),
                            .w = &weight,
                            .bias = lrd_const(s->dev_bias),
                            .lora = x->adapted ? &rows : NULL,
                            .n_single = n_single,
                            .epilogue = x->gelu ? LRD_EPILOGUE_GELU : LRD_EPILOGUE_NONE,
                            .y = y,
                            .u = x->adapted ? op_empty(n, R, LRD_F32, 0) : (lrd_mat_t){0}}));
    return op_get(y);
}

static void check_reference(const single_case_t *x, lrd_dtype_t d)
{
    const single_t s = make_single(x, d);
    const int32_t all[] = {0, x->rows};
    const ref_mat_t have = run(&s, s.dev_in, 0, x->rows, x->rows, all);
    ref_mat_t want = op_zeros(x->rows, x->n), u = op_zeros(x->rows, R);
    ref_linear(s.in, s.w, s.bias, want);
    if (x->adapted) {
        ref_product(1, s.in, false, s.a, true, false, u);
        ref_product(SCALE, u, false, s.b, true, true, want);
    }
    for (int64_t i = 0; x->gelu && i < want.rows * want.cols; i++)
        want.v[i] = ref_gelu(want.v[i]);
    op_near("single rows", x->gelu ? OP_LINEAR_GELU : OP_LINEAR, x->f32_out ? LRD_F32 : d,
            (double)(x->k + R), have, want);
    op_free_all();
}

static void test_reference(void **state)
{
    (void)state;
    static const single_case_t cases[] = {
        {128, 384, 1, .adapted = true}, /* bloom-560m: query_key_value and so on, the head */
        {128, 128, 16, .pad = 0},
        {128, 512, 33, .gelu = true},
        {512, 128, 8, .pad = 0},
        {128, 1003, 9, .f32_out = true, .no_bias = true},
        {256, 768, 2, .adapted = true}, /* bloom-1b7 */
        {320, 960, 4, .adapted = true}, /* bloom-3b */
        {320, 1280, 1, .gelu = true, .adapted = true},
        {1280, 320, 17, .pad = 0},
        {320, 1001, 32, .f32_out = true, .no_bias = true},
        {512, 512, 5, .pad = 8}, /* bloom-7b1 */
        {512, 160, 65, .gelu = true},
        {8, 1, 1, .pad = 0},
        {8, 70, 40, .no_bias = true, .adapted = true},
        {40, 13, 3, .gelu = true, .pad = 16},
        {264, 31, 7, .f32_out = true, .adapted = true},
        {37, 21, 6, .gelu = true}, /* rows that begin anywhere */
        {64, 48, 18, .adapted = true, .pad = 3},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_reference(&cases[i], op_dtypes[k]);
    }
}

/* Rows 0 .. n - 1 of have are rows from, from + by, ... of want. */
static void same_rows(const char *how, ref_mat_t have, int64_t n, ref_mat_t want, int64_t from,
                      int64_t by)
{
    for (int64_t i = 0; i < n; i++) {
        if (memcmp(have.v + i * have.cols, want.v + (from + i * by) * want.cols,
                   (size_t)have.cols * sizeof *have.v) != 0)
            fail_msg("%s: row %ld of %ld has other bits", how, (long)i, (long)have.rows);
    }
}

static void check_rows(const single_case_t *x, lrd_dtype_t d)
{
    const single_t s = make_single(x, d);
    const int32_t all[] = {0, x->rows}, t = x->rows;
    const ref_mat_t single = run(&s, s.dev_in, 0, t, t, all);
    for (int32_t n = 1; n <= 33; n++) {
        const op_mark_t mark = op_mark();
        same_rows("fewer", run(&s, s.dev_in, 0, n, n, all), n, single, 0, 1);
        same_rows("alone", run(&s, s.dev_in, n, 1, 1, all), 1, single, n, 1);
        op_free_to(mark);
    }
    ref_mat_t backwards = op_zeros(t, x->k);
    for (int32_t i = 0; i < t; i++)
        memcpy(backwards.v + i * x->k, s.in.v + (t - 1 - i) * x->k,
               (size_t)x->k * sizeof *backwards.v);
    same_rows("in another order", run(&s, op_put(backwards, d, x->pad), 0, t, t, all), t, single,
              t - 1, -1);
    op_free_all();
}

/* Single rows before others, with borders of adapters on either side. */
static void check_mixed(const single_case_t *x, lrd_dtype_t d)
{
    static const int32_t n_single[] = {1, 10, 33, 50, 69}, adapted[] = {10, 50};
    const single_t s = make_single(x, d);
    const int32_t t = x->rows;
    const ref_mat_t single = run(&s, s.dev_in, 0, t, t, adapted),
                    others = run(&s, s.dev_in, 0, t, 0, adapted);
    if (!op_is_device())
        same_rows("not single", others, t, single, 0, 1);
    for (size_t i = 0; i < sizeof n_single / sizeof n_single[0]; i++) {
        const int32_t n = n_single[i];
        const ref_mat_t have = run(&s, s.dev_in, 0, t, n, adapted);
        const ref_mat_t behind = {have.v + n * have.cols, t - n, have.cols};
        same_rows("before others", have, n, single, 0, 1);
        same_rows("behind single ones", behind, t - n, others, n, 1);
    }
    op_free_all();
}

static void test_company(void **state)
{
    (void)state;
    static const single_case_t cases[] = {
        {136, 40, 70, .adapted = true},
        {136, 40, 70, .gelu = true, .adapted = true},
        {64, 24, 70, .f32_out = true, .no_bias = true},
        {44, 24, 70, .pad = 1},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            check_rows(&cases[i], op_dtypes[k]);
            check_mixed(&cases[i], op_dtypes[k]);
        }
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference),
                                       cmocka_unit_test(test_company)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
