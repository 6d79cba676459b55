/* Philox4x32-10 against the known answers of the Random123 distribution (kat_vectors),
 * and dropout's threshold. */
#include "support/test_support.h"

#include "base/philox.h"

#include <math.h>

static void assert_philox(uint64_t key, const uint32_t c[4], const uint32_t expected[4])
{
    const lrd_philox_t r = lrd_philox4x32(key, c[0], c[1], c[2], c[3]);
    assert_memory_equal(r.x, expected, sizeof r.x);
}

static void test_known_answers(void **state)
{
    assert_philox(0, (const uint32_t[]){0, 0, 0, 0},
                  (const uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    assert_philox(UINT64_MAX, (const uint32_t[]){~0u, ~0u, ~0u, ~0u},
                  (const uint32_t[]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    /* The digits of pi, which also tell the order of the words of counter and key. */
    assert_philox(0x299f31d0a4093822,
                  (const uint32_t[]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                  (const uint32_t[]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

static void test_threshold(void **state)
{
    assert_int_equal(lrd_dropout_threshold(0.0f), 0); /* x >= 0 always: nothing is dropped */
    assert_int_equal(lrd_dropout_threshold(0.5f), 0x80000000u);
    assert_int_equal(lrd_dropout_threshold(0.25f), 0x40000000u);
    assert_int_equal(lrd_dropout_threshold(0x1p-32f), 1);
    assert_int_equal(lrd_dropout_threshold(0x1.fffffep-1f), 0xffffff00u);
    assert_int_equal(lrd_dropout_threshold(1.0f), 0xffffffffu);
}

/* The share that is dropped is p: within 5 standard deviations of a binomial,
 * for each of the four words. */
static void test_share_dropped(void **state)
{
    enum { N = 200000 };
    static const float ps[] = {0.05f, 0.1f, 0.5f, 0.9f};
    for (size_t k = 0; k < sizeof ps / sizeof ps[0]; k++) {
        const uint32_t threshold = lrd_dropout_threshold(ps[k]);
        int dropped[4] = {0};
        for (uint32_t i = 0; i < N; i++) {
            const lrd_philox_t r = lrd_philox4x32(42, i % 400, 7, 3, i / 400);
            for (int w = 0; w < 4; w++)
                dropped[w] += r.x[w] < threshold;
        }
        const double p = (double)ps[k];
        for (int w = 0; w < 4; w++)
            assert_true(fabs(dropped[w] - N * p) < 5 * sqrt(N * p * (1 - p)));
    }
}

/* Sampling's number is that of its counter, all 53 bits of it, and stays what it is. */
static void test_sample_uniform(void **state)
{
    assert_true(lrd_sample_uniform(0, 0, 0) == 0x1.98a4298ec786ap-1);
    assert_true(lrd_sample_uniform(42, 7, 1) == 0x1.a06bbc4beb698p-1);
    assert_true(lrd_sample_uniform(1ull << 63, 3ull << 40 | 5, UINT32_MAX) == 0x1.7333b58513e1ep-1);
    double least = 1, most = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        const double u = lrd_sample_uniform(42, i % 10, i);
        least = fmin(least, u);
        most = fmax(most, u);
    }
    assert_true(least >= 0 && most < 1);
    /* All of 100,000 numbers miss the lowest or the highest 1e-3 with a chance of 4e-44 each. */
    assert_true(least < 1e-3 && most > 1 - 1e-3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_share_dropped),
        cmocka_unit_test(test_sample_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
