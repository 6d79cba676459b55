#include "report/chart.h"

#include "base/json_writer.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 1000, HEIGHT = 1000, X_TICKS = 8, Y_TICKS = 7, MOST_COLUMNS = 600, MOST_READ = 400 };

/* What the lines of a chart share, and what each of them has at least. */
enum { ALL_COLUMNS = 1800, LEAST_COLUMNS = 150, ALL_READ = 1200, LEAST_READ = 100 };

/* A chart in the making. */
typedef struct plot {
    const lrd_chart_t *chart;
    lrd_axis_t x, y;
    size_t columns; /* that each line is drawn on */
    size_t read;    /* points of it that the script shows */
} plot_t;

static double across(const plot_t *p, double x)
{
    return lrd_axis_at(&p->x, x) * WIDTH;
}

static double down(const plot_t *p, double y)
{
    return (1 - fmax(-1, fmin(2, lrd_axis_at(&p->y, y)))) * HEIGHT;
}

/* What is to be seen; false: nothing. */
static bool find_range(const lrd_chart_t *c, double x[2], double y[2])
{
    x[0] = y[0] = INFINITY;
    x[1] = y[1] = -INFINITY;
    for (int i = 0; i < c->n_lines; i++) {
        const lrd_series_t *s = &c->line[i].series;
        double least, most;
        if (!lrd_series_range(s, &least, &most))
            continue;
        y[0] = fmin(y[0], least);
        y[1] = fmax(y[1], most);
        x[0] = fmin(x[0], s->x[0]);
        x[1] = fmax(x[1], s->x[s->n - 1]);
    }
    return y[0] <= y[1];
}

static lrd_axis_t choose_y(const lrd_chart_t *c, const double y[2])
{
    const bool marked = c->mark > 0 && c->mark < 10 * y[1] && c->mark * 10 > y[0];
    const double lo = marked ? fmin(y[0], c->mark) : y[0];
    const double hi = marked ? fmax(y[1], c->mark) : y[1];
    if (c->scale == LRD_SCALE_ZERO)
        return lrd_axis_round(LRD_AXIS_LINEAR, fmin(0, lo), fmax(0, hi), Y_TICKS);
    if (c->scale == LRD_SCALE_LOG2)
        return lrd_axis_round(LRD_AXIS_LOG2, lo, hi, Y_TICKS);
    if (c->scale == LRD_SCALE_AUTO && lo > 0 && hi > 8 * lo)
        return lrd_axis_round(LRD_AXIS_LOG, lo, hi, Y_TICKS);
    return lrd_axis_round(LRD_AXIS_LINEAR, lo, hi, Y_TICKS);
}

static void write_grid(const plot_t *p, lrd_html_t *h)
{
    lrd_html_raw(h, "<path class=\"grid\" d=\"");
    for (int i = 0; i < p->y.n_ticks; i++)
        lrd_html_print(h, "M0 %.1fH%d", down(p, p->y.tick[i]), WIDTH);
    lrd_html_raw(h, "\" />");
}

static lrd_status_t write_line(const plot_t *p, const lrd_line_t *line, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    static const char *const style[] = {"solid", "faint", "dots"};
    lrd_series_t thin = {0};
    LRD_TRY(lrd_series_thin(&line->series, p->x.lo, p->x.hi, p->columns, &thin));
    if (thin.n == 0)
        goto out;
    const bool dots = line->style == LRD_LINE_DOTS || thin.n == 1;
    lrd_html_print(h, "<path class=\"%s c%d\" d=\"", dots ? "dots" : style[line->style],
                   line->colour);
    for (size_t i = 0; i < thin.n; i++)
        lrd_html_print(h, "%c%.1f %.1f%s", i == 0 || dots ? 'M' : 'L', across(p, thin.x[i]),
                       down(p, thin.y[i]), dots ? "h0" : "");
    lrd_html_raw(h, "\" />");
out:
    lrd_series_release(&thin);
    return status;
}

/* Ticks at the lower edge where a value is not finite, one for a column. */
static void write_nonfinite(const plot_t *p, const lrd_line_t *line, lrd_html_t *h)
{
    double last = -1;
    if (lrd_series_count_nonfinite(&line->series) == 0)
        return;
    lrd_html_raw(h, "<path class=\"bad\" d=\"");
    for (size_t i = 0; i < line->series.n; i++) {
        const double at = round(fmax(0, fmin(WIDTH, across(p, line->series.x[i]))));
        if (isfinite(line->series.y[i]) || at == last)
            continue;
        lrd_html_print(h, "M%.0f %dV%d", at, HEIGHT, HEIGHT - 60);
        last = at;
    }
    lrd_html_raw(h, "\" />");
}

static void write_mark(const plot_t *p, lrd_html_t *h)
{
    const double mark = p->chart->mark;
    if (mark >= p->y.lo && mark <= p->y.hi && mark > 0)
        lrd_html_print(h, "<path class=\"mark\" d=\"M0 %.1fH%d\" />", down(p, mark), WIDTH);
}

static void put_reals(const plot_t *p, lrd_json_writer_t *w, const char *key, const lrd_series_t *s,
                      const double *value)
{
    const size_t every = s->n / p->read + 1;
    lrd_json_key(w, key);
    lrd_json_open(w, '[');
    for (size_t i = s->n > 0 ? (s->n - 1) % every : 0; i < s->n; i += every) {
        char text[LRD_NUMBER_BYTES];
        if (value == s->x) {
            lrd_json_real(w, value[i]);
        } else {
            lrd_format_number(value[i], text);
            lrd_json_text(w, text);
        }
    }
    lrd_json_close(w, ']');
}

/* What the script shows at the pointer: at most p->read points of a line, the last one among them. */
static lrd_status_t write_hover(const plot_t *p, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .indent = -1};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "lo");
    lrd_json_real(&w, p->x.lo);
    lrd_json_key(&w, "hi");
    lrd_json_real(&w, p->x.hi);
    lrd_json_key(&w, "of");
    lrd_json_text(&w, p->chart->x_label);
    lrd_json_key(&w, "lines");
    lrd_json_open(&w, '[');
    for (int i = 0; i < p->chart->n_lines; i++) {
        const lrd_line_t *line = &p->chart->line[i];
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "name");
        lrd_json_text(&w, line->label);
        put_reals(p, &w, "x", &line->series, line->series.x);
        put_reals(p, &w, "y", &line->series, line->series.y);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    lrd_html_raw(h, " data-hover=\"");
    lrd_html_bytes(h, text.data, text.size, text.size);
    lrd_html_raw(h, "\"");
out:
    lrd_buf_release(&text);
    return status;
}

/* The n-th part of all, within bounds. */
static size_t share(int all, int n, int least, int most)
{
    const int part = all / (n > 0 ? n : 1);
    return (size_t)(part < least ? least : part > most ? most : part);
}

static void write_legend(const lrd_chart_t *c, lrd_html_t *h)
{
    static const char *const style[] = {"solid", "faint", "dots"};
    lrd_html_raw(h, "<figcaption><b>");
    lrd_html_raw(h, c->title);
    lrd_html_raw(h, "</b>");
    if (c->about != NULL) {
        lrd_html_raw(h, " <span class=\"about\">");
        lrd_html_raw(h, c->about);
        lrd_html_raw(h, "</span>");
    }
    if (c->n_lines > 1)
        lrd_html_raw(h, "<span class=\"legend\">");
    for (int i = 0; c->n_lines > 1 && i < c->n_lines; i++) {
        if (c->line[i].series.n == 0)
            continue;
        lrd_html_print(h,
                       "<span><svg class=\"key\" viewBox=\"0 0 22 10\"><path class=\"%s c%d\" "
                       "d=\"M%s\" /></svg>",
                       style[c->line[i].style], c->line[i].colour,
                       c->line[i].style == LRD_LINE_DOTS ? "11 5h0" : "1 5H21");
        lrd_html_bytes(h, c->line[i].label, strlen(c->line[i].label), 60);
        lrd_html_raw(h, "</span>");
    }
    if (c->n_lines > 1)
        lrd_html_raw(h, "</span>");
    lrd_html_raw(h, "</figcaption>");
}

static void write_ticks(const plot_t *p, lrd_html_t *h)
{
    char text[LRD_AXIS_LABEL_BYTES];
    for (int i = 0; i < p->y.n_ticks; i++) {
        lrd_axis_label(&p->y, p->y.tick[i], text);
        lrd_html_print(h, "<span class=\"y\" style=\"top:%.2f%%\">%s</span>",
                       down(p, p->y.tick[i]) / HEIGHT * 100, text);
    }
    for (int i = 0; i < p->x.n_ticks; i++) {
        lrd_axis_label(&p->x, p->x.tick[i], text);
        lrd_html_print(h, "<span class=\"x\" style=\"left:%.2f%%\">%s</span>",
                       across(p, p->x.tick[i]) / WIDTH * 100, text);
    }
    const double mark = p->chart->mark;
    if (mark >= p->y.lo && mark <= p->y.hi && mark > 0)
        lrd_html_print(h, "<span class=\"marked\" style=\"top:%.2f%%\">%s</span>",
                       down(p, mark) / HEIGHT * 100, p->chart->mark_label);
}

/* The name of a line and the height, in percent, at which it stands. */
typedef struct name {
    const lrd_line_t *line;
    double top;
} name_t;

/* Names at the ends of lines, moved apart where they meet. */
static void place_names(const plot_t *p, name_t name[LRD_CHART_MAX_LINES], int *n_out)
{
    const double apart = 6.5;
    int n = 0;
    for (int i = 0; i < p->chart->n_lines; i++) {
        const lrd_series_t *s = &p->chart->line[i].series;
        size_t last = s->n;
        while (last > 0 && !isfinite(s->y[last - 1]))
            last--;
        if (last == 0)
            continue;
        const double top = down(p, s->y[last - 1]) / HEIGHT * 100;
        int at = n++;
        for (; at > 0 && name[at - 1].top > top; at--)
            name[at] = name[at - 1];
        name[at] = (name_t){&p->chart->line[i], top};
    }
    for (int i = 1; i < n; i++)
        name[i].top = fmax(name[i].top, name[i - 1].top + apart);
    if (n > 0)
        name[n - 1].top = fmin(name[n - 1].top, fmax(100, (n - 1) * apart));
    for (int i = n - 2; i >= 0; i--)
        name[i].top = fmin(name[i].top, name[i + 1].top - apart);
    *n_out = n;
}

static void write_names(const plot_t *p, lrd_html_t *h)
{
    name_t name[LRD_CHART_MAX_LINES];
    int n;
    place_names(p, name, &n);
    for (int i = 0; i < n; i++) {
        lrd_html_print(h, "<span class=\"name t%d\" style=\"top:%.2f%%\">", name[i].line->colour,
                       name[i].top);
        lrd_html_bytes(h, name[i].line->label, strlen(name[i].line->label), 40);
        lrd_html_raw(h, "</span>");
    }
}

static void write_remarks(const plot_t *p, lrd_html_t *h)
{
    const lrd_chart_t *c = p->chart;
    lrd_html_print(h, "<div class=\"below\">%s%s", c->x_label,
                   p->y.kind != LRD_AXIS_LINEAR ? "; logarithmic" : "");
    for (int i = 0; i < c->n_lines; i++) {
        const size_t bad = lrd_series_count_nonfinite(&c->line[i].series);
        if (bad == 0 || c->line[i].style == LRD_LINE_DOTS)
            continue;
        lrd_html_raw(h, "; <span class=\"badly\">");
        lrd_html_bytes(h, c->line[i].label, strlen(c->line[i].label), 60);
        lrd_html_print(h, ": %zu not finite</span>", bad);
    }
    lrd_html_raw(h, "</div>");
}

lrd_status_t lrd_chart_write(const lrd_chart_t *c, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    plot_t p = {.chart = c,
                .columns = share(ALL_COLUMNS, c->n_lines, LEAST_COLUMNS, MOST_COLUMNS),
                .read = share(ALL_READ, c->n_lines, LEAST_READ, MOST_READ)};
    double x[2], y[2];
    if (!find_range(c, x, y))
        goto out;
    p.x = lrd_axis_exact(x[0], x[1], X_TICKS, c->x_is_whole ? 1 : 0);
    p.y = choose_y(c, y);
    lrd_html_print(h, "<figure class=\"chart%s%s\" id=\"%s\">", c->is_wide ? " wide" : "",
                   c->names_at_lines ? " named" : "", c->id);
    write_legend(c, h);
    lrd_html_raw(h, "<div class=\"plot\"");
    LRD_TRY(write_hover(&p, h));
    lrd_html_print(h,
                   "><svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" "
                   "aria-label=\"%s\">",
                   WIDTH, HEIGHT, c->title);
    write_grid(&p, h);
    write_mark(&p, h);
    for (int pass = 0; pass < 2; pass++) { /* faint lines lie behind */
        for (int i = 0; i < c->n_lines; i++) {
            if ((c->line[i].style == LRD_LINE_FAINT) == (pass == 0))
                LRD_TRY(write_line(&p, &c->line[i], h));
        }
    }
    for (int i = 0; i < c->n_lines; i++)
        write_nonfinite(&p, &c->line[i], h);
    lrd_html_raw(h, "</svg>");
    write_ticks(&p, h);
    if (c->names_at_lines)
        write_names(&p, h);
    lrd_html_raw(h, "</div>");
    write_remarks(&p, h);
    lrd_html_raw(h, "</figure>\n");
    status = h->status;
out:
    return status;
}
