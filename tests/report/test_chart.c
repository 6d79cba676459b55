/* Charts stay small however many numbers there are, and draw them where the axes say. */
#include "support/test_support.h"

#include "report/chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state = 1;

static lrd_series_t noise(size_t n)
{
    lrd_series_t s = {0};
    for (size_t i = 0; i < n; i++)
        assert_ok(lrd_series_add(&s, (double)i + 1, 2 + lrd_test_random(&state)));
    return s;
}

static lrd_buf_t draw(const lrd_chart_t *chart)
{
    lrd_buf_t buf = {0};
    lrd_html_t h = {.buf = &buf};
    assert_ok(lrd_chart_write(chart, &h));
    return buf;
}

static lrd_chart_t chart_of(const lrd_line_t *line, int n)
{
    return (lrd_chart_t){.id = "x",
                         .title = "X",
                         .x_label = "update",
                         .line = line,
                         .n_lines = n,
                         .x_is_whole = true};
}

static void many_points_make_no_large_page(void **unused)
{
    (void)unused;
    lrd_line_t line[12];
    for (int i = 0; i < 12; i++)
        line[i] = (lrd_line_t){"noise", noise(100000), LRD_LINE_SOLID, i};
    const lrd_chart_t one = chart_of(line, 1), all = chart_of(line, 12);
    lrd_buf_t a = draw(&one), b = draw(&all);
    /* 600 columns of 4 points, or 12 x 150; to read 400 values, or 12 x 100: 14 and 32 bytes each. */
    assert_true(a.size < 600 * 4 * 14 + 400 * 32 + 4000);
    assert_true(b.size < 12 * 150 * 4 * 14 + 12 * 100 * 32 + 8000);
    lrd_buf_release(&a);
    lrd_buf_release(&b);
    for (int i = 0; i < 12; i++)
        lrd_series_release(&line[i].series);
}

/* The points of the first line of a class. */
static size_t read_path(const char *page, const char *which, double *x, double *y, size_t most)
{
    char start[64];
    size_t n = 0;
    snprintf(start, sizeof start, "<path class=\"%s\" d=\"", which);
    const char *svg = strstr(page, "preserveAspectRatio"), *at = strstr(svg, start);
    assert_non_null(at);
    at += strlen(start);
    while (*at != '"' && n < most) {
        char *end;
        assert_true(*at == 'M' || *at == 'L');
        x[n] = strtod(at + 1, &end);
        y[n++] = strtod(end, &end);
        at = end;
    }
    return n;
}

static void points_lie_where_the_axes_say(void **unused)
{
    (void)unused;
    lrd_series_t s = {0};
    double x[300], y[300];
    for (int i = 1; i <= 200; i++)
        assert_ok(lrd_series_add(&s, i, 3 + 2.5 * lrd_test_random(&state)));
    s.y[7] = 0.5; /* the ends: least and most are seen, and ticks are 0 .. 6 */
    s.y[9] = 5.9;
    const lrd_line_t line = {"a", s, LRD_LINE_SOLID, 0};
    lrd_chart_t chart = chart_of(&line, 1);
    chart.scale = LRD_SCALE_ZERO;
    lrd_buf_t page = draw(&chart);
    assert_int_equal(read_path(page.data, "solid c0", x, y, 300), 200);
    for (int i = 0; i < 200; i++) {
        assert_true(fabs(x[i] - i / 199.0 * 1000) <= 0.05 + 1e-9);
        assert_true(fabs(y[i] - (1 - s.y[i] / 6) * 1000) <= 0.05 + 1e-9);
    }
    assert_true(x[0] == 0 && x[199] == 1000);
    lrd_buf_release(&page);
    lrd_series_release(&s);
}

static void what_is_not_finite_is_marked(void **unused)
{
    (void)unused;
    lrd_series_t s = noise(50), none = {0};
    s.y[10] = NAN;
    s.y[20] = INFINITY;
    const lrd_line_t line = {"a <b>", s, LRD_LINE_SOLID, 0};
    lrd_chart_t chart = chart_of(&line, 1);
    lrd_buf_t page = draw(&chart);
    assert_non_null(strstr(page.data, "<path class=\"bad\" d=\"M204 1000V940M408 1000V940\" />"));
    assert_non_null(strstr(page.data, "a &lt;b&gt;: 2 not finite"));
    assert_null(strstr(page.data, "<b>a"));
    assert_non_null(strstr(page.data, "&quot;NaN&quot;"));
    lrd_buf_release(&page);
    for (size_t i = 0; i < s.n; i++)
        s.y[i] = NAN;
    page = draw(&chart); /* nothing to draw */
    assert_int_equal(page.size, 0);
    const lrd_line_t empty = {"a", none, LRD_LINE_SOLID, 0};
    chart.line = &empty;
    page = draw(&chart);
    assert_int_equal(page.size, 0);
    lrd_series_release(&s);
}

static void names_do_not_meet(void **unused)
{
    (void)unused;
    lrd_line_t line[12];
    double top[12];
    size_t n = 0;
    for (int i = 0; i < 12; i++) {
        line[i] = (lrd_line_t){"name", {0}, LRD_LINE_SOLID, i};
        assert_ok(lrd_series_add(&line[i].series, 1, i));
        assert_ok(lrd_series_add(&line[i].series, 2, 3 + 1e-3 * i));
    }
    lrd_chart_t chart = chart_of(line, 12);
    chart.names_at_lines = true;
    lrd_buf_t page = draw(&chart);
    for (const char *at = page.data; (at = strstr(at, "<span class=\"name ")) != NULL; at++)
        top[n++] = strtod(strstr(at, "top:") + 4, NULL);
    assert_int_equal(n, 12);
    for (size_t i = 1; i < n; i++)
        assert_true(top[i] - top[i - 1] >= 6.49);
    assert_true(top[11] <= 100.01 && top[0] >= 0);
    lrd_buf_release(&page);
    for (int i = 0; i < 12; i++)
        lrd_series_release(&line[i].series);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_points_make_no_large_page),
        cmocka_unit_test(points_lie_where_the_axes_say),
        cmocka_unit_test(what_is_not_finite_is_marked),
        cmocka_unit_test(names_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
