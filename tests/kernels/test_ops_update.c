/* What happens once an update on a backend: norm, clock, AdamW; additions and casts. */
#include "op_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void test_sumsq(void **state)
{
    (void)state;
    /* As many tensors as a model of 40 blocks has with adapters on all its linears. */
    enum { N = 20011, TENSORS = 320 };
    int64_t begin[TENSORS + 1] = {0, 1, 1, 18, 9000, 9015};
    for (int i = 6; i <= TENSORS; i++)
        begin[i] = i < TENSORS ? begin[i - 1] + i % 30 : N;
    uint64_t seed = 17;
    float *x = malloc(N * sizeof *x);
    double *out = op_device(TENSORS * sizeof *out), got[TENSORS];
    for (int i = 0; i < N; i++)
        x[i] = (float)(lrd_test_random(&seed) * pow(10, (double)lrd_test_random_int(&seed, 30)));
    const float *dev_x = op_upload(x, N * sizeof *x);
    assert_ok(lrd_sumsq(op_st, op_scratch, &(lrd_sumsq_t){dev_x, begin, TENSORS, out}));
    op_download(out, got, sizeof got);
    for (int i = 0; i < TENSORS; i++) {
        long double want = 0;
        for (int64_t j = begin[i]; j < begin[i + 1]; j++)
            want += (long double)x[j] * (long double)x[j];
        assert_true(fabsl((long double)got[i] - want) <= want * 1e-12L);
    }
    free(x);
    op_free_all();
}

/* One step_finish: the clock before, what came, the clock after. */
typedef struct clock_case {
    float max_norm;
    bool scaler;
    float scale, scale_after;
    int32_t good, good_after, in_a_row, in_a_row_after;
    double sums[3];
    bool bad;
    double factor; /* grad_factor after; checked when good */
} clock_case_t;

static void check_clock(const clock_case_t *c)
{
    lrd_step_state_t s = {.adam_t = 6,
                          .loss_scale = c->scale,
                          .grad_factor = 0.125f,
                          .good_steps = c->good,
                          .bad_in_a_row = c->in_a_row};
    lrd_step_state_t *dev = op_upload(&s, sizeof s);
    const double *sums = op_upload(c->sums, sizeof c->sums);
    assert_ok(lrd_step_finish(op_st, op_scratch,
                              &(lrd_step_finish_t){sums, 3, c->max_norm, c->scaler, dev}));
    op_download(dev, &s, sizeof s);
    assert_int_equal(s.bad != 0, c->bad);
    assert_int_equal(s.adam_t, c->bad ? 6 : 7);
    assert_true(s.loss_scale == c->scale_after);
    assert_int_equal(s.good_steps, c->good_after);
    assert_int_equal(s.bad_in_a_row, c->in_a_row_after);
    const double norm = sqrt(c->sums[0] + c->sums[1] + c->sums[2]) / (double)c->scale;
    if (c->bad) {
        assert_false(isfinite(s.grad_norm));
    } else {
        assert_true(fabs(s.grad_norm - norm) <= 1e-14 * norm);
        assert_true(fabs((double)s.grad_factor - c->factor) <= 1e-7 * c->factor);
    }
    op_free_all();
}

/* torch.nn.utils.clip_grad_norm_: coefficient max / (norm + 1e-6), at most 1.
 * torch.amp.GradScaler: halves and starts counting anew on a bad update,
 * doubles after 2,000 good ones, if that is finite. */
static void test_clock(void **state)
{
    (void)state;
    const float top = 0x1p127f;
    const clock_case_t cases[] = {
        {1, false, 1, 1, 0, 0, 0, 0, {9, 16, 0}, false, 1 / (5 + 1e-6)},
        {6, false, 1, 1, 0, 0, 3, 0, {9, 16, 0}, false, 1},
        {5, false, 1, 1, 0, 0, 0, 0, {9, 16, 0}, false, 5 / (5 + 1e-6)},
        {0, false, 1, 1, 0, 0, 0, 0, {9e10, 16, 1}, false, 1},
        {-1, false, 1, 1, 0, 0, 0, 0, {9e10, 16, 1}, false, 1},
        {1, false, 1, 1, 0, 0, 0, 0, {0, 0, 0}, false, 1},
        /* scaled: norm 5 is 10 / 2 */
        {1, true, 2, 2, 5, 6, 1, 0, {36, 64, 0}, false, 1 / (5 + 1e-6) / 2},
        {1, true, 4, 8, 1999, 0, 0, 0, {0, 1, 0}, false, 1 / 4.0},
        {1, true, top, top, 1999, 0, 0, 0, {0, 1, 0}, false, 0x1p-127},
        {1, true, 65536, 32768, 1999, 0, 0, 0, {1, INFINITY, 0}, true, 0},
        {1, true, 1024, 512, 17, 0, 2, 2, {1, NAN, 0}, true, 0},
        {1, true, 1, 0.5f, 17, 0, 2, 3, {NAN, 1, INFINITY}, true, 0}, /* no search any more */
        {1, false, 1, 1, 0, 0, 4, 5, {NAN, 1, 1}, true, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        check_clock(&cases[i]);
}

enum { N = 4099, UPDATES = 7 };

typedef struct adam {
    double p[N], m[N], v[N];
} adam_t;

static void adam_update(adam_t *a, const float *g, double factor, double lr, double decay, int t)
{
    for (int i = 0; i < N; i++) {
        const double x = (double)g[i] * factor;
        a->m[i] = 0.9 * a->m[i] + (1 - 0.9) * x;
        a->v[i] = 0.95 * a->v[i] + (1 - 0.95) * x * x;
        a->p[i] = a->p[i] * (1 - lr * decay) -
                  lr / (1 - pow(0.9, t)) * a->m[i] / (sqrt(a->v[i] / (1 - pow(0.95, t))) + 1e-8);
    }
}

/* Updates of 2e-2 at most in float32: each loses a few roundoffs of p and of itself. */
static void check_state(const float *p, const float *m, const float *v, const adam_t *a)
{
    static float got[3][N];
    op_download(p, got[0], sizeof got[0]);
    op_download(m, got[1], sizeof got[1]);
    op_download(v, got[2], sizeof got[2]);
    for (int i = 0; i < N; i++) {
        assert_true(fabs((double)got[0][i] - a->p[i]) <= UPDATES * (0x1p-24 + 0.1 * 0x1p-20));
        assert_true(fabs((double)got[1][i] - a->m[i]) <= 0x1p-20);
        assert_true(fabs((double)got[2][i] - a->v[i]) <= 0x1p-20);
    }
}

/* A run of updates as a whole: bad ones leave parameters, moments and Adam's t alone. */
static void check_run(bool scaler, float max_norm, double decay)
{
    static adam_t a;
    static float host[N], g[N];
    const float zero[N] = {0};
    const double lr[UPDATES] = {0, 0.01, 0.02, 0.01, 0.005, 0.02, 0.01};
    const int64_t begin[] = {0, 1, 500, N};
    uint64_t seed = 5;
    memset(&a, 0, sizeof a);
    for (int i = 0; i < N; i++)
        a.p[i] = (double)(host[i] = (float)lrd_test_random(&seed));
    float *p = op_upload(host, sizeof host), *m = op_upload(zero, sizeof zero),
          *v = op_upload(zero, sizeof zero);
    const double *table = op_upload(lr, sizeof lr);
    lrd_step_state_t s = {.loss_scale = scaler ? 16 : 1};
    lrd_step_state_t *clock = op_upload(&s, sizeof s);
    double *sums = op_device(3 * sizeof *sums), scale = (double)s.loss_scale;
    int t = 0;
    for (int update = 0; t < UPDATES; update++) {
        const bool bad = update == 0 || update == 3 || update == 4;
        double norm = 0;
        for (int i = 0; i < N; i++) {
            g[i] = (float)(lrd_test_random(&seed) * scale);
            norm += (double)g[i] * (double)g[i];
        }
        if (bad)
            g[update * 1000] = update == 3 ? NAN : -INFINITY;
        float *dev_g = op_upload(g, sizeof g);
        assert_ok(lrd_sumsq(op_st, op_scratch, &(lrd_sumsq_t){dev_g, begin, 3, sums}));
        assert_ok(lrd_step_finish(op_st, op_scratch,
                                  &(lrd_step_finish_t){sums, 3, max_norm, scaler, clock}));
        assert_ok(
            lrd_adamw(op_st, op_scratch,
                      &(lrd_adamw_t){p, m, v, dev_g, N, table, 0.9, 0.95, 1e-8, decay, clock}));
        op_download(clock, &s, sizeof s);
        assert_int_equal(s.bad != 0, bad);
        if (!bad) {
            norm = sqrt(norm) / scale;
            t++;
            const double clip = max_norm > 0 ? fmin(1, (double)max_norm / (norm + 1e-6)) : 1;
            adam_update(&a, g, clip / scale, lr[t - 1], decay, t);
        }
        scale *= bad && scaler ? 0.5 : 1;
        assert_true((double)s.loss_scale == scale);
        assert_int_equal(s.adam_t, t);
        check_state(p, m, v, &a);
    }
    op_free_all();
}

static void test_adamw(void **state)
{
    (void)state;
    check_run(false, 0, 0);
    check_run(false, 1, 0.01);
    check_run(true, 0.5f, 0.1);
}

static void test_add(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 1, 15, 4096, 4097, 10001};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        const int64_t n = sizes[k];
        uint64_t seed = k;
        ref_mat_t x = op_random(&seed, 1, n, 1e3), y = op_random(&seed, 1, n, 1);
        const lrd_mat_t dst = op_put(x, LRD_F32, 0), src = op_put(y, LRD_F32, 0);
        assert_ok(lrd_add(op_st, (lrd_scratch_t){0}, &(lrd_add_t){dst.data, src.data, n}));
        const ref_mat_t got = op_get(dst);
        for (int64_t i = 0; i < n; i++)
            assert_true(got.v[i] == (double)((float)x.v[i] + (float)y.v[i]));
        op_free_all();
    }
}

static void test_gather_rows(void **state)
{
    (void)state;
    enum { TAKEN = 7, ROWS = 5, C = 67 };
    static const int32_t row[TAKEN] = {4, 0, 0, 3, 1, 4, 2};
    uint64_t seed = 3;
    for (int k = 0; k < 3; k++) {
        ref_mat_t x = op_random(&seed, ROWS, C, 2);
        const lrd_mat_t dev_x = op_put(x, op_dtypes[k], 5), y = op_empty(TAKEN, C, op_dtypes[k], 2);
        const lrd_gather_rows_t op = {lrd_const(dev_x), op_upload(row, sizeof row), y};
        assert_ok(lrd_gather_rows(op_st, (lrd_scratch_t){0}, &op));
        const ref_mat_t got = op_get(y);
        for (int64_t i = 0; i < TAKEN; i++)
            assert_memory_equal(got.v + i * C, x.v + (int64_t)row[i] * C, C * sizeof(double));
        lrd_gather_rows_t none = op;
        none.y.rows = 0;
        assert_ok(lrd_gather_rows(op_st, (lrd_scratch_t){0}, &none));
        op_free_all();
    }
}

static uint64_t element(const void *data, int64_t i, lrd_dtype_t d)
{
    return d == LRD_F32 ? ((const uint32_t *)data)[i] : ((const uint16_t *)data)[i];
}

static float value(const void *data, int64_t i, lrd_dtype_t d)
{
    if (d == LRD_F64)
        return (float)((const double *)data)[i];
    if (d == LRD_F32)
        return ((const float *)data)[i];
    const uint16_t x = ((const uint16_t *)data)[i];
    return d == LRD_F16 ? lrd_f16_to_f32(x) : lrd_bf16_to_f32(x);
}

static bool is_nan(uint64_t bits, lrd_dtype_t d)
{
    return d == LRD_F32    ? (bits & 0x7fffffffu) > 0x7f800000u
           : d == LRD_BF16 ? (bits & 0x7fffu) > 0x7f80u
                           : (bits & 0x7fffu) > 0x7c00u;
}

/* Every 16-bit pattern, and 32- and 64-bit ones around every rounding boundary. */
static void check_cast(lrd_dtype_t from, lrd_dtype_t to)
{
    enum { COUNT = 65536 };
    uint64_t seed = 11;
    uint8_t *src = malloc(COUNT * 8), *dst = malloc(COUNT * 4);
    for (int i = 0; i < COUNT; i++) {
        const uint32_t tails[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff, 0x1000, 0x0fff};
        const uint32_t bits = (uint32_t)i << 16 | tails[lrd_test_random_int(&seed, 8)];
        const uint16_t half = (uint16_t)i;
        float f;
        memcpy(&f, &bits, sizeof f);
        const double wide = (double)f * (1 + 0x1p-30 * lrd_test_random(&seed));
        if (from == LRD_F64)
            memcpy(src + i * 8, &wide, 8);
        else if (from == LRD_F32)
            memcpy(src + i * 4, &bits, 4);
        else
            memcpy(src + i * 2, &half, 2);
    }
    const size_t from_bytes = COUNT * lrd_dtype_bytes(from), to_bytes = COUNT * lrd_dtype_bytes(to);
    const void *dev_src = op_upload(src, from_bytes);
    void *dev_dst = op_device(to_bytes);
    assert_ok(
        lrd_cast(op_st, (lrd_scratch_t){0}, &(lrd_cast_t){dev_src, from, dev_dst, to, COUNT}));
    op_download(dev_dst, dst, to_bytes);
    for (int64_t i = 0; i < COUNT; i++) {
        const float f = value(src, i, from);
        uint32_t want;
        memcpy(&want, &f, sizeof want);
        want = to == LRD_F32 ? want : to == LRD_F16 ? lrd_f32_to_f16(f) : lrd_f32_to_bf16(f);
        const uint64_t got = element(dst, i, to);
        if (got != want && !(is_nan(got, to) && isnan(f)))
            fail_msg("%s to %s: %g became %lx, expected %x", lrd_dtype_file_name(from),
                     lrd_dtype_file_name(to), (double)f, (unsigned long)got, want);
    }
    free(src);
    free(dst);
    op_free_all();
}

static void test_cast(void **state)
{
    (void)state;
    static const lrd_dtype_t from[] = {LRD_F32, LRD_BF16, LRD_F16, LRD_F64};
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 3; k++)
            check_cast(from[i], op_dtypes[k]);
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sumsq),       cmocka_unit_test(test_clock),
        cmocka_unit_test(test_adamw),       cmocka_unit_test(test_add),
        cmocka_unit_test(test_gather_rows), cmocka_unit_test(test_cast)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
