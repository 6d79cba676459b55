/* Axes: ticks are round, cover what is to be seen and no more, and their labels say what they are; places are
 * exact at both ends. */
#include "support/test_support.h"

#include "base/json_writer.h"
#include "report/axis.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CASES = 20000 };

static uint64_t state = 1;

static double uniform(double lo, double hi)
{
    return lo + (hi - lo) * (lrd_test_random(&state) + 1) / 2;
}

/* A range of any size in any place. */
static void draw_range(double *lo, double *hi)
{
    const double size = pow(10, uniform(-12, 12));
    *lo = lrd_test_random(&state) * size;
    *hi = *lo + size * pow(10, uniform(-5, 1));
}

/* Digits that a number needs to be read back as itself. */
static int count_digits(double value)
{
    char text[32];
    int digits = 0, zeros = 0;
    lrd_format_real(fabs(value), text);
    for (const char *at = text; *at != '\0' && *at != 'e'; at++) {
        if (*at == '.' || (*at == '0' && digits == 0))
            continue;
        zeros = *at == '0' ? zeros + 1 : 0;
        digits++;
    }
    return digits - zeros;
}

/* The distance between ticks is 1, 2 or 5 times a power of ten, and each is a multiple of it. */
static void check_linear_ticks(const lrd_axis_t *a)
{
    const double step = (a->tick[a->n_ticks - 1] - a->tick[0]) / (a->n_ticks - 1);
    const double m = step / pow(10, floor(log10(step) + 1e-6));
    assert_true(fabs(m - 1) < 1e-5 || fabs(m - 2) < 1e-5 || fabs(m - 5) < 1e-5);
    for (int i = 0; i < a->n_ticks; i++) {
        const double k = a->tick[i] / step;
        assert_true(fabs(k - round(k)) < 1e-4);
        assert_true(count_digits(a->tick[i]) <= 8);
        assert_true(i == 0 || a->tick[i] > a->tick[i - 1]);
    }
}

/* A label, read as a number. */
static double read_label(const char *text)
{
    char *end;
    const double value = strtod(text, &end);
    const char *units = "kMGT", *unit = *end != '\0' ? strchr(units, *end) : NULL;
    assert_true(*end == '\0' || (unit != NULL && end[1] == '\0'));
    return unit != NULL ? value * pow(1000, (double)(unit - units + 1)) : value;
}

static void check_labels(const lrd_axis_t *a)
{
    for (int i = 0; i < a->n_ticks; i++) {
        char text[LRD_AXIS_LABEL_BYTES];
        lrd_axis_label(a, a->tick[i], text);
        const double size = a->kind == LRD_AXIS_LINEAR ? a->hi - a->lo : a->tick[i];
        if (fabs(read_label(text) - a->tick[i]) > 1e-6 * size)
            fail_msg("%.17g is called %s", a->tick[i], text);
    }
}

static void check_places(const lrd_axis_t *a)
{
    assert_true(lrd_axis_at(a, a->lo) == 0);
    assert_true(lrd_axis_at(a, a->hi) == 1);
    for (int i = 1; i < a->n_ticks; i++)
        assert_true(lrd_axis_at(a, a->tick[i]) > lrd_axis_at(a, a->tick[i - 1]));
}

static void round_axes_cover_their_range(void **unused)
{
    (void)unused;
    for (int n = 0; n < CASES; n++) {
        double lo, hi;
        const int most = 3 + (int)lrd_test_random_int(&state, 18);
        draw_range(&lo, &hi);
        const lrd_axis_t a = lrd_axis_round(LRD_AXIS_LINEAR, lo, hi, most);
        assert_in_range(a.n_ticks, 2, most);
        assert_true(a.lo == a.tick[0] && a.hi == a.tick[a.n_ticks - 1]);
        assert_true(a.lo <= lo && a.hi >= hi);
        assert_true(a.tick[1] > lo && a.tick[a.n_ticks - 2] < hi);
        check_linear_ticks(&a);
        check_labels(&a);
        check_places(&a);
    }
}

static void exact_axes_end_where_they_are_told(void **unused)
{
    (void)unused;
    for (int n = 0; n < CASES; n++) {
        double lo, hi;
        const int most = 3 + (int)lrd_test_random_int(&state, 18);
        draw_range(&lo, &hi);
        const lrd_axis_t a = lrd_axis_exact(lo, hi, most, 0);
        assert_true(a.lo == lo && a.hi == hi);
        assert_in_range(a.n_ticks, 1, most);
        assert_true(a.tick[0] >= lo && a.tick[a.n_ticks - 1] <= hi);
        if (a.n_ticks > 2)
            check_linear_ticks(&a);
        check_labels(&a);
        check_places(&a);
    }
}

static void updates_have_no_halves(void **unused)
{
    (void)unused;
    for (int hi = 1; hi < 400; hi++) {
        const lrd_axis_t a = lrd_axis_exact(1, hi, 8, 1);
        assert_in_range(a.n_ticks, 1, 8);
        for (int i = 0; i < a.n_ticks; i++)
            assert_true(a.tick[i] == floor(a.tick[i]));
    }
}

static bool is_power(double value, double base)
{
    const double k = log(value) / log(base);
    return fabs(k - round(k)) < 1e-9;
}

static void logarithmic_axes_have_round_ticks(void **unused)
{
    (void)unused;
    for (int n = 0; n < CASES; n++) {
        const lrd_axis_kind_t kind = n % 2 == 0 ? LRD_AXIS_LOG : LRD_AXIS_LOG2;
        const int most = 3 + (int)lrd_test_random_int(&state, 18);
        const double lo = pow(10, uniform(-30, 30)), hi = lo * pow(10, uniform(0, 40));
        const lrd_axis_t a = lrd_axis_round(kind, lo, hi, most);
        assert_int_equal(a.kind, kind);
        assert_in_range(a.n_ticks, 2, most);
        assert_true(a.lo <= lo && a.hi >= hi && a.tick[1] > lo && a.tick[a.n_ticks - 2] < hi);
        for (int i = 0; i < a.n_ticks; i++) {
            const double t = a.tick[i];
            if (kind == LRD_AXIS_LOG2)
                assert_true(is_power(t, 2));
            else
                assert_true(is_power(t, 10) || is_power(t / 2, 10) || is_power(t / 5, 10));
            assert_true(i == 0 || t > a.tick[i - 1]);
        }
        if (kind == LRD_AXIS_LOG)
            check_labels(&a);
        check_places(&a);
    }
}

static void odd_ranges(void **unused)
{
    (void)unused;
    const double range[][2] = {
        {0, 0},          {5, 5},        {-3, -3},           {1e15, 1e15 + 0.25},
        {-1e308, 1e308}, {0, 1e-320},   {1e-300, 1.1e-300}, {-1e-9, 1e-9},
        {0.1, 0.1},      {65536, 65536}};
    for (size_t i = 0; i < sizeof range / sizeof range[0]; i++) {
        for (int kind = LRD_AXIS_LINEAR; kind <= LRD_AXIS_LOG2; kind++) {
            const lrd_axis_t a = lrd_axis_round((lrd_axis_kind_t)kind, range[i][0], range[i][1], 7);
            assert_in_range(a.n_ticks, 2, 7);
            assert_true(a.lo < a.hi);
            assert_true(a.lo <= fmax(range[i][0], -1e300) && a.hi >= fmin(range[i][1], 1e300));
            check_places(&a);
        }
        const lrd_axis_t a = lrd_axis_exact(range[i][0], range[i][1], 7, 0);
        assert_true(a.lo < a.hi && a.n_ticks <= 7);
    }
    /* Nothing of a logarithm's where there is none. */
    assert_int_equal(lrd_axis_round(LRD_AXIS_LOG, 0, 10, 7).kind, LRD_AXIS_LINEAR);
    assert_int_equal(lrd_axis_round(LRD_AXIS_LOG2, -1, 10, 7).kind, LRD_AXIS_LINEAR);
}

static void labels_as_people_write_them(void **unused)
{
    (void)unused;
    const struct {
        lrd_axis_kind_t kind;
        double lo, hi, tick;
        const char *label;
    } c[] = {
        {LRD_AXIS_LINEAR, 0, 1, 0.2, "0.2"},
        {LRD_AXIS_LINEAR, 0, 7, 2, "2"},
        {LRD_AXIS_LINEAR, 0, 1, 0, "0"},
        {LRD_AXIS_LINEAR, 0, 20000, 5000, "5k"},
        {LRD_AXIS_LINEAR, 0, 2e-5, 5e-6, "5e-6"},
        {LRD_AXIS_LINEAR, 0, 3e6, 1e6, "1.0M"},
        {LRD_AXIS_LINEAR, 0, 12000, 2000, "2k"},
        {LRD_AXIS_LINEAR, -1, 1, -0.5, "-0.5"},
        {LRD_AXIS_LINEAR, 12000, 13000, 12500, "12.5k"},
        {LRD_AXIS_LOG, 0.1, 100, 10, "10"},
        {LRD_AXIS_LOG, 0.001, 1, 0.02, "0.02"},
        {LRD_AXIS_LOG, 1e-7, 1, 1e-6, "1e-6"},
        {LRD_AXIS_LOG, 1, 1e6, 1e5, "100k"},
        {LRD_AXIS_LOG2, 1024, 65536, 32768, "32768"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        const lrd_axis_t a = lrd_axis_round(c[i].kind, c[i].lo, c[i].hi, 7);
        char text[LRD_AXIS_LABEL_BYTES];
        lrd_axis_label(&a, c[i].tick, text);
        assert_string_equal(text, c[i].label);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_axes_cover_their_range),
        cmocka_unit_test(exact_axes_end_where_they_are_told),
        cmocka_unit_test(updates_have_no_halves),
        cmocka_unit_test(logarithmic_axes_have_round_ticks),
        cmocka_unit_test(odd_ranges),
        cmocka_unit_test(labels_as_people_write_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
