/* The reference's gradients are those of its own forward: central differences in double. */
#include "op_reference.h"
#include "support/test_support.h"

#include <math.h>

static ref_mat_t random_mat(uint64_t *seed, int64_t rows, int64_t cols)
{
    ref_mat_t m = ref_new(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = lrd_test_random(seed);
    return m;
}

static double inner(ref_mat_t a, ref_mat_t b)
{
    double sum = 0;
    for (int64_t i = 0; i < a.rows * a.cols; i++)
        sum += a.v[i] * b.v[i];
    return sum;
}

/* grad is the gradient of f(context), which depends on x. */
static void check_gradient(ref_mat_t x, ref_mat_t grad, double (*f)(void *), void *context)
{
    const double h = 1e-5;
    for (int64_t i = 0; i < x.rows * x.cols; i++) {
        const double old = x.v[i];
        x.v[i] = old + h;
        const double high = f(context);
        x.v[i] = old - h;
        const double low = f(context);
        x.v[i] = old;
        assert_true(fabs((high - low) / (2 * h) - grad.v[i]) < 1e-8);
    }
}

typedef struct subject {
    ref_mat_t x, gamma, beta, w, g, y;
    const ref_attention_t *attention;
    const int32_t *target;
} subject_t;

static double attention_value(void *context)
{
    const subject_t *s = context;
    ref_attention(s->attention, s->x, s->y);
    return inner(s->y, s->g);
}

static void test_attention(void **state)
{
    (void)state;
    uint64_t seed = 1;
    static const int32_t cu[] = {0, 3, 3, 9};
    static const float slope[] = {0.5f, 0.25f};
    const ref_attention_t a = {cu, 3, 2, 4, slope, 0.7};
    subject_t s = {.x = random_mat(&seed, 9, 24),
                   .g = random_mat(&seed, 9, 8),
                   .y = ref_new(9, 8),
                   .attention = &a};
    ref_mat_t grad = ref_new(9, 24);
    ref_attention_backward(&a, s.x, s.g, grad);
    check_gradient(s.x, grad, attention_value, &s);
    ref_free(&s.x);
    ref_free(&s.g);
    ref_free(&s.y);
    ref_free(&grad);
}

static double norm_value(void *context)
{
    const subject_t *s = context;
    ref_layernorm(s->x, s->gamma, s->beta, 1e-2, s->y);
    return inner(s->y, s->g);
}

static void test_norm(void **state)
{
    (void)state;
    uint64_t seed = 2;
    subject_t s = {.x = random_mat(&seed, 3, 11),
                   .gamma = random_mat(&seed, 1, 11),
                   .beta = random_mat(&seed, 1, 11),
                   .g = random_mat(&seed, 3, 11),
                   .y = ref_new(3, 11)};
    ref_mat_t grad = ref_new(3, 11);
    ref_layernorm_backward(s.g, s.x, s.gamma, 1e-2, grad);
    check_gradient(s.x, grad, norm_value, &s);
    ref_mat_t *all[] = {&s.x, &s.gamma, &s.beta, &s.g, &s.y, &grad};
    for (size_t i = 0; i < 6; i++)
        ref_free(all[i]);
}

static double ce_value(void *context)
{
    const subject_t *s = context;
    return 0.75 * ref_linear_ce(s->x, s->w, s->target, 1, (ref_mat_t){0});
}

static void test_linear_ce(void **state)
{
    (void)state;
    uint64_t seed = 3;
    static const int32_t target[] = {4, -100, 0, 16};
    subject_t s = {.x = random_mat(&seed, 4, 5), .w = random_mat(&seed, 17, 5), .target = target};
    ref_mat_t grad = ref_new(4, 5);
    ref_linear_ce(s.x, s.w, target, 0.75, grad);
    check_gradient(s.x, grad, ce_value, &s);
    ref_free(&s.x);
    ref_free(&s.w);
    ref_free(&grad);
}

static void test_gelu(void **state)
{
    (void)state;
    for (double x = -6; x < 6; x += 0.37)
        assert_true(fabs((ref_gelu(x + 1e-5) - ref_gelu(x - 1e-5)) / 2e-5 - ref_gelu_slope(x)) <
                    1e-9);
    assert_true(fabs(ref_gelu_slope(-1) + 0.082964092) < 1e-7); /* hf-semantics.md, C.4: float32 */
}

/* y = (gelu(x) m) A' B' as a chain of the reference's parts: the products of ops.h's backward. */
typedef struct chain {
    ref_mat_t x, a, b, m, g, h, u, y;
} chain_t;

static double chain_value(void *context)
{
    const chain_t *c = context;
    for (int64_t i = 0; i < c->x.rows * c->x.cols; i++)
        c->h.v[i] = ref_gelu(c->x.v[i]) * c->m.v[i];
    ref_product(1, c->h, false, c->a, true, false, c->u);
    ref_product(2, c->u, false, c->b, true, false, c->y);
    return inner(c->y, c->g);
}

static void test_linear(void **state)
{
    (void)state;
    uint64_t seed = 4;
    enum { T = 5, K = 6, R = 3, N = 4 };
    chain_t c = {
        random_mat(&seed, T, K), random_mat(&seed, R, K), random_mat(&seed, N, R), ref_new(T, K),
        random_mat(&seed, T, N), ref_new(T, K),           ref_new(T, R),           ref_new(T, N)};
    ref_mat_t du = ref_new(T, R), da = ref_new(R, K), db = ref_new(N, R), dx = ref_new(T, K);
    for (int i = 0; i < T * K; i++)
        c.m.v[i] = i % 3 == 0 ? 0 : 1.5;
    chain_value(&c);
    ref_product(2, c.g, false, c.b, false, false, du);
    ref_product(2, c.g, true, c.u, false, false, db);
    ref_product(1, du, true, c.h, false, false, da);
    ref_product(1, du, false, c.a, false, false, dx);
    for (int i = 0; i < T * K; i++)
        dx.v[i] *= c.m.v[i] * ref_gelu_slope(c.x.v[i]);
    check_gradient(c.b, db, chain_value, &c);
    check_gradient(c.a, da, chain_value, &c);
    check_gradient(c.x, dx, chain_value, &c);
    ref_mat_t *all[] = {&c.x, &c.a, &c.b, &c.m, &c.g, &c.h, &c.u, &c.y, &du, &da, &db, &dx};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ref_free(all[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attention),
                                       cmocka_unit_test(test_norm),
                                       cmocka_unit_test(test_linear_ce),
                                       cmocka_unit_test(test_gelu), cmocka_unit_test(test_linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
