/* Shares of an update's micro-batches: the split against every other one, and what moves it. */
#include "base/log.h"
#include "base/share.h"
#include "support/test_support.h"
#include "train/shares.h"

#include <math.h>
#include <string.h>

enum { MOST_REPLICAS = 4, MOST = 11, UPDATES = 8 * LRD_SHARES_WINDOW };

/* The soonest end of all splits of micro-batches begin[r] .. n - 1 among replicas r .. */
static double search(int64_t n, const double *pace, int n_replicas, double fill, int r,
                     int64_t *begin)
{
    const int64_t most = lrd_shares_most(n, n_replicas, true);
    double best = INFINITY;
    if (r == n_replicas)
        return begin[r] == n ? lrd_shares_end(begin, pace, n_replicas, fill) : INFINITY;
    for (int64_t share = 1; share <= most && begin[r] + share <= n; share++) {
        begin[r + 1] = begin[r] + share;
        best = fmin(best, search(n, pace, n_replicas, fill, r + 1, begin));
    }
    return best;
}

static void check_split(int64_t n, const double *pace, int n_replicas, double fill)
{
    int64_t begin[MOST_REPLICAS + 1], trial[MOST_REPLICAS + 1] = {0};
    lrd_shares_split(n, pace, n_replicas, fill, begin);
    assert_true(begin[0] == 0 && begin[n_replicas] == n);
    for (int r = 0; r < n_replicas; r++) {
        assert_true(begin[r + 1] > begin[r]);
        assert_true(begin[r + 1] - begin[r] <= lrd_shares_most(n, n_replicas, true));
    }
    const double have = lrd_shares_end(begin, pace, n_replicas, fill);
    const double want = search(n, pace, n_replicas, fill, 0, trial);
    if (have != want)
        fail_msg("%ld micro-batches on %d replicas end at %g, could at %g", (long)n, n_replicas,
                 have, want);
}

static void test_every_split(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int n_replicas = 1; n_replicas <= MOST_REPLICAS; n_replicas++) {
        for (int64_t n = n_replicas; n <= MOST; n++) {
            for (int i = 0; i < 40; i++) {
                double pace[MOST_REPLICAS];
                for (int r = 0; r < n_replicas; r++) /* some alike, some up to 8 times as slow */
                    pace[r] = (double)(1 + lrd_test_random_int(&seed, i % 2 == 0 ? 3 : 8));
                check_split(n, pace, n_replicas, 0);
                check_split(n, pace, n_replicas, 1.5);
            }
        }
    }
}

static void assert_shares(const int64_t *begin, int n_replicas, const int64_t *want)
{
    for (int r = 0; r < n_replicas; r++)
        assert_int_equal(begin[r + 1] - begin[r], want[r]);
}

/* Four replicas, the last one half as fast: docs/decisions.md has the same figures. */
static void test_half_as_fast(void **state)
{
    (void)state;
    const double pace[] = {1, 1, 1, 2};
    int64_t begin[5];
    lrd_shares_split(8, pace, 4, 0, begin);
    assert_shares(begin, 4, (int64_t[]){3, 2, 2, 1});
    assert_true(lrd_shares_end(begin, pace, 4, 0) == 3);
    lrd_shares_split(16, pace, 4, 0, begin);
    assert_shares(begin, 4, (int64_t[]){5, 5, 4, 2});
    assert_true(lrd_shares_end(begin, pace, 4, 0) == 5);
    lrd_shares_split(18, pace, 4, 0, begin);
    assert_shares(begin, 4, (int64_t[]){6, 5, 5, 2});
    lrd_shares_split(4, pace, 4, 0, begin);
    assert_shares(begin, 4, (int64_t[]){1, 1, 1, 1});
}

static void assert_even(const int64_t *begin, int64_t n, int n_replicas)
{
    for (int r = 0; r <= n_replicas; r++)
        assert_int_equal(begin[r], lrd_share_begin(n, r, n_replicas));
}

/* Nobody was measured, too few micro-batches, and how many memory is there for. */
static void test_even(void **state)
{
    (void)state;
    const double pace[] = {1, 5, 1, 2};
    int64_t begin[5];
    for (int64_t n = 0; n <= MOST; n++) {
        lrd_shares_split(n, NULL, 4, 0, begin);
        assert_even(begin, n, 4);
        lrd_shares_split(n, pace, 4, 0, begin);
        if (n < 4)
            assert_even(begin, n, 4);
        for (int r = 0; r < 4; r++) /* also what a larger update is prepared for */
            assert_true(begin[r + 1] - begin[r] <= lrd_shares_most(n + 3, 4, true));
    }
    assert_int_equal(lrd_shares_most(11, 4, false), 3);
    assert_int_equal(lrd_shares_most(11, 4, true), 6);
    assert_int_equal(lrd_shares_most(5, 4, true), 2);
    assert_int_equal(lrd_shares_most(4, 4, true), 1);
}

/* Updates of n micro-batches with these paces, each a little different. */
static void learn(lrd_shares_t *s, int64_t n, int n_updates, const double *pace, double noise,
                  uint64_t *seed)
{
    for (int u = 0; u < n_updates; u++) {
        double now[MOST_REPLICAS];
        for (int r = 0; r < s->n_replicas; r++)
            now[r] = pace[r] * (1 + noise * lrd_test_random(seed)); /* -1 .. 1 */
        lrd_shares_learn(s, n, now);
    }
}

static void test_learning(void **state)
{
    (void)state;
    const double alike[] = {1, 1, 1, 1}, slow[] = {1, 1, 1, 2};
    const int64_t want[] = {5, 5, 4, 2};
    uint64_t seed = 5;
    lrd_shares_t s;
    assert_ok(lrd_shares_open(4, 0, true, &s));
    assert_even(lrd_shares_of(&s, 16), 16, 4);
    /* The first update is none to learn from, and then a window must be full. */
    learn(&s, 16, LRD_SHARES_WINDOW, slow, 0, &seed);
    assert_even(lrd_shares_of(&s, 16), 16, 4);
    learn(&s, 16, 1, slow, 0, &seed);
    assert_shares(lrd_shares_of(&s, 16), 4, want);
    assert_even(lrd_shares_of(&s, 3), 3, 4); /* the short update at the end of an epoch */
    /* Noise moves nothing. */
    for (int i = 0; i < 200; i++) {
        learn(&s, 16, 1, slow, 0.03, &seed);
        assert_shares(lrd_shares_of(&s, 16), 4, want);
    }
    /* It is as fast as the others from now on. */
    learn(&s, 16, UPDATES, alike, 0.03, &seed);
    assert_even(lrd_shares_of(&s, 16), 16, 4);
    lrd_shares_close(&s);
}

/* What moves nothing: noise on replicas that are alike, an update in which one of them was held up, updates in
 * which some had nothing to do, and anything where shares are even. */
static void test_steady(void **state)
{
    (void)state;
    const double alike[] = {1, 1, 1, 1}, held_up[] = {1, 20, 1, 1}, idle[] = {1, 9, 1, 0};
    const double slow[] = {1, 1, 1, 2};
    uint64_t seed = 7;
    lrd_shares_t s;
    for (int64_t n = 8; n <= 64; n *= 2) {
        assert_ok(lrd_shares_open(4, 0, true, &s));
        for (int i = 0; i < 100; i++) {
            learn(&s, n, LRD_SHARES_WINDOW - 2, alike, 0.03, &seed);
            learn(&s, n, 2, held_up, 0.03, &seed);
            learn(&s, n, 3, idle, 0, &seed);
            assert_even(lrd_shares_of(&s, n), n, 4);
        }
        lrd_shares_close(&s);
    }
    assert_ok(lrd_shares_open(4, 0, false, &s));
    learn(&s, 16, UPDATES, slow, 0, &seed);
    assert_even(lrd_shares_of(&s, 16), 16, 4);
    lrd_shares_close(&s);
}

/* Speeds that come and go, now of one replica, now of another: work does not follow for ever, and one that
 * stays slow in the end is found all the same. */
static void test_restless(void **state)
{
    (void)state;
    const double slow[2][4] = {{2, 1, 1, 1}, {1, 1, 1, 2}};
    uint64_t seed = 9;
    for (int period = 3; period <= 96; period *= 2) {
        int changes = 0;
        int64_t before[5], most = 0;
        lrd_shares_t s;
        assert_ok(lrd_shares_open(4, 0, true, &s));
        memcpy(before, lrd_shares_of(&s, 16), sizeof before);
        for (int i = 0; i < 4000; i++) {
            learn(&s, 16, 1, slow[i / period % 2], 0.03, &seed);
            changes += memcmp(before, lrd_shares_of(&s, 16), sizeof before) != 0;
            memcpy(before, s.begin, sizeof before);
        }
        if (period <
            LRD_SHARES_LONGEST / 2) /* the windows of 5, 10, 20 and 40, and one by chance */
            assert_in_range(changes, 0, 5);
        learn(&s, 16, 3 * LRD_SHARES_LONGEST, slow[1], 0.03, &seed);
        lrd_shares_of(&s, 16);
        for (int r = 0; r < 3; r++)
            most = s.begin[r + 1] - s.begin[r] > most ? s.begin[r + 1] - s.begin[r] : most;
        assert_true(most == 5 && s.begin[4] - s.begin[3] == 2);
        lrd_shares_close(&s);
    }
}

static void test_settings(void **state)
{
    (void)state;
    lrd_parallel_settings_t x = {.shares = LRD_SHARES_AUTO,
                                 .reduction = LRD_REDUCTION_REPRODUCIBLE};
    assert_true(lrd_shares_move(&x, 2) && !lrd_shares_move(&x, 1));
    x.reduction = LRD_REDUCTION_FAST;
    assert_false(lrd_shares_move(&x, 2));
    x = (lrd_parallel_settings_t){.shares = LRD_SHARES_EVEN,
                                  .reduction = LRD_REDUCTION_REPRODUCIBLE};
    assert_false(lrd_shares_move(&x, 2));
}

int main(void)
{
    lrd_log_set_level(LRD_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split), cmocka_unit_test(test_half_as_fast),
        cmocka_unit_test(test_even),        cmocka_unit_test(test_learning),
        cmocka_unit_test(test_steady),      cmocka_unit_test(test_restless),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
