/* Series: what is thinned out loses nothing that could be seen; means are those of the definition. */
#include "support/test_support.h"

#include "report/series.h"

#include <math.h>

static uint64_t state = 1;

/* Steps that now and then leave some out, values of all kinds. */
static lrd_series_t draw(size_t n, int nonfinite_in)
{
    lrd_series_t s = {0};
    double x = 0;
    for (size_t i = 0; i < n; i++) {
        const bool bad = nonfinite_in > 0 && lrd_test_random_int(&state, nonfinite_in) == 0;
        const double y = lrd_test_random(&state) * pow(10, 3 * lrd_test_random(&state));
        x +=
            (double)(1 + (lrd_test_random_int(&state, 20) == 0) * lrd_test_random_int(&state, 300));
        assert_ok(lrd_series_add(&s, x, bad ? (i % 2 == 0 ? NAN : -INFINITY) : y));
    }
    return s;
}

static size_t column_of(double x, double lo, double hi, size_t columns)
{
    const double at = floor((x - lo) / (hi - lo) * (double)columns);
    return at < 0 ? 0 : at >= (double)columns ? columns - 1 : (size_t)at;
}

static bool has(const lrd_series_t *s, double x, double y)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->x[i] == x && s->y[i] == y)
            return true;
    }
    return false;
}

/* Each column's first, last, smallest and largest value are kept. */
static void check_thin(const lrd_series_t *s, double lo, double hi, size_t columns)
{
    lrd_series_t thin;
    assert_ok(lrd_series_thin(s, lo, hi, columns, &thin));
    assert_true(thin.n <= 4 * columns);
    for (size_t i = 0, k = 0; i < thin.n; i++, k++) { /* of the series, in its order */
        while (k < s->n && !(s->x[k] == thin.x[i] && s->y[k] == thin.y[i]))
            k++;
        assert_true(k < s->n);
    }
    for (size_t i = 0; i < s->n;) {
        const size_t column = column_of(s->x[i], lo, hi, columns);
        size_t least = s->n, most = s->n, first = s->n, last = s->n;
        for (; i < s->n && column_of(s->x[i], lo, hi, columns) == column; i++) {
            if (!isfinite(s->y[i]))
                continue;
            first = first == s->n ? i : first;
            least = least == s->n || s->y[i] < s->y[least] ? i : least;
            most = most == s->n || s->y[i] > s->y[most] ? i : most;
            last = i;
        }
        if (first == s->n)
            continue;
        assert_true(has(&thin, s->x[first], s->y[first]) && has(&thin, s->x[last], s->y[last]));
        assert_true(has(&thin, s->x[least], s->y[least]) && has(&thin, s->x[most], s->y[most]));
    }
    lrd_series_release(&thin);
}

static void thinning_keeps_extremes(void **unused)
{
    (void)unused;
    for (int round = 0; round < 60; round++) {
        lrd_series_t s =
            draw((size_t)lrd_test_random_int(&state, 3000) + 1, round % 3 == 0 ? 7 : 0);
        const double hi = s.x[s.n - 1] + 1;
        check_thin(&s, s.x[0], hi, 1 + (size_t)lrd_test_random_int(&state, 300));
        check_thin(&s, hi / 3, hi / 2, 50); /* some lie beyond the ends */
        lrd_series_release(&s);
    }
}

static void thinning_leaves_short_ones_alone(void **unused)
{
    (void)unused;
    lrd_series_t s = {0}, thin;
    for (int i = 0; i < 300; i++)
        assert_ok(lrd_series_add(&s, i, lrd_test_random(&state)));
    assert_ok(lrd_series_thin(&s, 0, 299, 600, &thin));
    assert_int_equal(thin.n, s.n);
    assert_memory_equal(thin.y, s.y, s.n * sizeof *s.y);
    lrd_series_release(&thin);
    lrd_series_release(&s);
}

static void means_are_those_of_their_window(void **unused)
{
    (void)unused;
    for (int round = 0; round < 40; round++) {
        lrd_series_t s = draw((size_t)lrd_test_random_int(&state, 400), round % 2 == 0 ? 3 : 0);
        const size_t window = 1 + (size_t)lrd_test_random_int(&state, 30);
        lrd_series_t smooth;
        assert_ok(lrd_series_smooth(&s, window, &smooth));
        size_t at = 0;
        for (size_t i = 0; i < s.n; i++) {
            long double sum = 0;
            size_t n = 0;
            for (size_t k = 0; k < s.n; k++) { /* from i - (window - 1) / 2 to i + window / 2 */
                if (k + (window - 1) / 2 >= i && k <= i + window / 2 && isfinite(s.y[k])) {
                    sum += s.y[k];
                    n++;
                }
            }
            if (n == 0)
                continue;
            assert_true(smooth.x[at] == s.x[i]);
            /* Values below 1e3, fewer than 400 of them: sums below 4e5 with half an ulp each. */
            assert_true(fabs(smooth.y[at] - (double)(sum / n)) <= 400 * 4e5 * 0x1p-52);
            at++;
        }
        assert_int_equal(at, smooth.n);
        lrd_series_release(&smooth);
        lrd_series_release(&s);
    }
}

static void ranges_and_cuts(void **unused)
{
    (void)unused;
    lrd_series_t s = {0};
    double least, most;
    assert_false(lrd_series_range(&s, &least, &most));
    assert_ok(lrd_series_add(&s, 1, NAN));
    assert_false(lrd_series_range(&s, &least, &most));
    assert_ok(lrd_series_add(&s, 2, -4));
    assert_ok(lrd_series_add(&s, 3, INFINITY));
    assert_ok(lrd_series_add(&s, 5, 9));
    assert_true(lrd_series_range(&s, &least, &most));
    assert_true(least == -4 && most == 9);
    assert_int_equal(lrd_series_count_nonfinite(&s), 2);
    lrd_series_cut(&s, 3);
    assert_int_equal(s.n, 3);
    lrd_series_cut(&s, 0);
    assert_int_equal(s.n, 0);
    lrd_series_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thinning_keeps_extremes),
        cmocka_unit_test(thinning_leaves_short_ones_alone),
        cmocka_unit_test(means_are_those_of_their_window),
        cmocka_unit_test(ranges_and_cuts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
