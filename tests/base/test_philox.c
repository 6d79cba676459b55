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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_share_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
