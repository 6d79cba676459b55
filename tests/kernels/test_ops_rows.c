/* A row of a forward op, or of dx, has the same bits among any number of rows: what a prompt cut in pieces, a
 * batch of requests and a training on any number of ranks rest on. Rows without a gradient, as those that fill up a
 * micro-batch, change no bit of an adapter's. */
#include "op_support.h"

#include <string.h>

enum { T = 200, C = 64, F = 256, R = 8, V = 520 };

/* Everything that a row needs, on the device. */
typedef struct model {
    lrd_dtype_t d;
    lrd_mat_t x, delta, w, bias, head, gamma, a, b;
    const uint64_t *key;
    const int32_t *target;
} model_t;

/* Outputs of the first n rows. */
enum { LINEAR, ADAPTED_LINEAR, ADAPTER, ACTIVATED, RESIDUAL, NORM, TOKEN_LOSS, LOGITS, OUTPUTS };
static const char *const output_names[OUTPUTS] = {
    "linear", "linear with an adapter", "u", "linear with GELU", "residual", "norm", "loss",
    "logits"};

static model_t make_model(lrd_dtype_t d)
{
    model_t m = {.d = d};
    uint64_t seed = 21, key[T];
    int32_t target[T];
    for (int i = 0; i < T; i++) {
        key[i] = (uint64_t)i << 16;
        target[i] = i * 7 % V;
    }
    m.x = op_put(op_random(&seed, T, C, 1), d, 0);
    m.delta = op_put(op_random(&seed, T, C, 1), d, 0);
    m.w = op_put(op_random(&seed, F, C, 0.3), d, 0);
    m.bias = op_put(op_random(&seed, 1, F, 1), d, 0);
    m.head = op_put(op_random(&seed, V, C, 0.3), d, 0);
    m.gamma = op_put(op_random(&seed, 1, C, 1), d, 0);
    m.a = op_put(op_random(&seed, R, C, 0.3), LRD_F32, 0);
    m.b = op_put(op_random(&seed, F, R, 0.3), LRD_F32, 0);
    m.key = op_upload(key, sizeof key);
    m.target = op_upload(target, sizeof target);
    return m;
}

static lrd_cmat_t first(lrd_mat_t m, int64_t n)
{
    m.rows = n;
    return lrd_const(m);
}

static void run_linears(const model_t *m, int32_t n, lrd_mat_t *out)
{
    const int32_t begin[] = {0, n};
    const lrd_weight_t weight = {lrd_const(m->w)}, head = {lrd_const(m->head)};
    const lrd_lora_t lora = {lrd_const(m->a), lrd_const(m->b), 2, {0.1f, 4, 42, m->key}};
    const lrd_lora_rows_t rows = {1, &lora, begin};
    lrd_linear_fwd_t op = {
        .x = first(m->x, n), .w = &weight, .bias = lrd_const(m->bias), .y = out[LINEAR]};
    assert_ok(lrd_linear_forward(op_st, op_scratch, &op));
    op.y = out[ACTIVATED];
    op.epilogue = LRD_EPILOGUE_GELU;
    assert_ok(lrd_linear_forward(op_st, op_scratch, &op));
    op.y = out[ADAPTED_LINEAR];
    op.epilogue = LRD_EPILOGUE_NONE;
    op.lora = &rows;
    op.u = out[ADAPTER];
    assert_ok(lrd_linear_forward(op_st, op_scratch, &op));
    assert_ok(lrd_linear_forward(op_st, op_scratch,
                                 &(lrd_linear_fwd_t){.x = op.x, .w = &head, .y = out[LOGITS]}));
}

static void run_first(const model_t *m, int32_t n, lrd_mat_t *out)
{
    static const int64_t cols[OUTPUTS] = {F, F, R, F, C, C, 1, V};
    const lrd_weight_t head = {lrd_const(m->head)};
    for (int i = 0; i < OUTPUTS; i++)
        out[i] = op_empty(n, cols[i],
                          i == ADAPTER || i == TOKEN_LOSS || i == LOGITS ? LRD_F32 : m->d, 0);
    run_linears(m, n, out);
    assert_ok(lrd_addnorm_forward(op_st, op_scratch,
                                  &(lrd_addnorm_fwd_t){.x = first(m->x, n),
                                                       .delta = first(m->delta, n),
                                                       .gamma = lrd_const(m->gamma),
                                                       .beta = lrd_const(m->gamma),
                                                       .eps = 1e-5f,
                                                       .res = out[RESIDUAL],
                                                       .y = out[NORM]}));
    assert_ok(lrd_linear_ce(op_st, op_scratch,
                            &(lrd_linear_ce_t){.h = first(m->x, n),
                                               .w = &head,
                                               .target = m->target,
                                               .nll = op_device(8),
                                               .token_nll = out[TOKEN_LOSS].data}));
}

/* Rows without an adapter, then rows with one, then again without, in one batch. */
static void check_mixed(const model_t *m, const lrd_mat_t *all)
{
    enum { FROM = 70, TO = 150 };
    const int32_t begin[] = {0, FROM, TO, T};
    const lrd_weight_t weight = {lrd_const(m->w)};
    const lrd_lora_t lora[3] = {[1] = {lrd_const(m->a), lrd_const(m->b), 2, {0.1f, 4, 42, m->key}}};
    const lrd_lora_rows_t rows = {3, lora, begin};
    const lrd_mat_t y = op_empty(T, F, m->d, 0), u = op_empty(T, R, LRD_F32, 0);
    assert_ok(lrd_linear_forward(op_st, op_scratch,
                                 &(lrd_linear_fwd_t){.x = lrd_const(m->x),
                                                     .w = &weight,
                                                     .bias = lrd_const(m->bias),
                                                     .lora = &rows,
                                                     .y = y,
                                                     .u = u}));
    const ref_mat_t have = op_get(y), without = op_get(all[LINEAR]),
                    with = op_get(all[ADAPTED_LINEAR]);
    for (int64_t t = 0; t < T; t++) {
        const double *want = (t >= FROM && t < TO ? with.v : without.v) + t * F;
        if (memcmp(have.v + t * F, want, F * sizeof *want) != 0)
            fail_msg("%s: row %ld has other bits beside rows of another adapter",
                     lrd_dtype_setting_name(m->d), (long)t);
    }
}

static void test_rows(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 2, 7, 16, 33, 64, 127, 129};
    for (int k = 0; k < 3; k++) {
        lrd_mat_t all[OUTPUTS], some[OUTPUTS];
        const model_t m = make_model(op_dtypes[k]);
        run_first(&m, T, all);
        check_mixed(&m, all);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            const op_mark_t mark = op_mark();
            run_first(&m, sizes[s], some);
            for (int i = 0; i < OUTPUTS; i++) {
                const ref_mat_t have = op_get(some[i]), want = op_get(all[i]);
                if (memcmp(have.v, want.v, (size_t)(have.rows * have.cols) * sizeof *have.v) != 0)
                    fail_msg("%s, %s: the first %d rows have other bits than among %d",
                             output_names[i], lrd_dtype_setting_name(op_dtypes[k]), sizes[s], T);
            }
            op_free_to(mark);
        }
        op_free_all();
    }
}

/* A linear's backward pass over rows 0 .. n - 1, an adapter on those from `first` to `last`. */
typedef struct backward {
    lrd_mat_t dx, da, db;
} backward_t;

static backward_t run_backward(const model_t *m, lrd_mat_t dy, lrd_mat_t u, int32_t n, int32_t from,
                               int32_t to)
{
    const int32_t begin[] = {0, from, to, n};
    const lrd_weight_t weight = {lrd_const(m->w)};
    const lrd_lora_t lora[3] = {[1] = {lrd_const(m->a), lrd_const(m->b), 2, {0.1f, 4, 42, m->key}}};
    const lrd_lora_rows_t rows = {3, lora, begin};
    const backward_t b = {op_empty(n, C, m->d, 0), op_put(op_zeros(R, C), LRD_F32, 0),
                          op_put(op_zeros(F, R), LRD_F32, 0)};
    const lrd_mat_t da[3] = {[1] = b.da}, db[3] = {[1] = b.db};
    assert_ok(lrd_linear_backward(op_st, op_scratch,
                                  &(lrd_linear_bwd_t){.dy = first(dy, n),
                                                      .w = &weight,
                                                      .lora = &rows,
                                                      .x = first(m->x, n),
                                                      .u = first(u, n),
                                                      .da = da,
                                                      .db = db,
                                                      .dx = b.dx}));
    return b;
}

static void check_same(const char *what, lrd_dtype_t d, lrd_mat_t have, lrd_mat_t want,
                       int64_t from, int64_t to)
{
    const ref_mat_t x = op_get(have), y = op_get(want);
    const size_t bytes = (size_t)((to - from) * have.cols) * sizeof *x.v;
    if (memcmp(x.v + from * have.cols, y.v + from * have.cols, bytes) != 0)
        fail_msg("%s, %s: rows %ld to %ld have other bits", lrd_dtype_setting_name(d), what,
                 (long)from, (long)to);
}

static void test_backward_rows(void **state)
{
    (void)state;
    static const int32_t some[][3] = {{1, 0, 1},     {7, 0, 7},    {65, 0, 65},
                                      {129, 0, 129}, {T, 70, 150}, {T, 199, T}};
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 5;
        const model_t m = make_model(op_dtypes[k]);
        const lrd_mat_t dy = op_put(op_random(&seed, T, F, 1), m.d, 0);
        const lrd_mat_t u = op_put(op_random(&seed, T, R, 1), LRD_F32, 0);
        const backward_t all = run_backward(&m, dy, u, T, 0, T);
        for (size_t s = 0; s < sizeof some / sizeof some[0]; s++) {
            const op_mark_t mark = op_mark();
            const backward_t b = run_backward(&m, dy, u, some[s][0], some[s][1], some[s][2]);
            check_same("dx", m.d, b.dx, all.dx, some[s][1], some[s][2]);
            op_free_to(mark);
        }
        op_free_all();
    }
}

static void test_without_gradient(void **state)
{
    (void)state;
    enum { N = 130 };
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 6;
        const model_t m = make_model(op_dtypes[k]);
        ref_mat_t gradient = op_random(&seed, T, F, 1), low = op_random(&seed, T, R, 1);
        for (int i = N * F; i < T * F; i++)
            gradient.v[i] = 0;
        for (int i = N * R; i < T * R; i++)
            low.v[i] *= 1000; /* larger than all that count */
        const lrd_mat_t dy = op_put(gradient, m.d, 0), u = op_put(low, LRD_F32, 0);
        const backward_t few = run_backward(&m, dy, u, N, 0, N),
                         all = run_backward(&m, dy, u, T, 0, T);
        check_same("dA", m.d, all.da, few.da, 0, R);
        check_same("dB", m.d, all.db, few.db, 0, F);
        op_free_all();
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows),
                                       cmocka_unit_test(test_backward_rows),
                                       cmocka_unit_test(test_without_gradient)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
