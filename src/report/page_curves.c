/* The curves of one run, and their numbers. */
#include "report/page.h"

#include "base/json_writer.h"
#include "report/chart.h"
#include "report/pyjson.h"

#include <math.h>

enum { MOST_ROWS = 60 };

/* Loss as it was, smooth, and at evaluations. */
static lrd_status_t loss_chart(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const lrd_series_t *loss = &f->curve[LRD_CURVE_LOSS];
    const size_t window = lrd_series_window(loss);
    const bool smooths = window > 0;
    lrd_series_t smooth = {0};
    lrd_line_t line[3] = {
        {"each entry", *loss, smooths ? LRD_LINE_FAINT : LRD_LINE_SOLID, 0},
        {"mean over neighbours", {0}, LRD_LINE_SOLID, 0},
        {"evaluation", f->curve[LRD_CURVE_EVAL_LOSS], LRD_LINE_DOTS, 1},
    };
    if (smooths)
        LRD_TRY(lrd_series_smooth(loss, window, &smooth));
    line[1].series = smooth;
    LRD_TRY(lrd_chart_write(&(lrd_chart_t){.id = "loss",
                                           .title = "Loss",
                                           .x_label = "update",
                                           .line = line,
                                           .n_lines = 3,
                                           .scale = LRD_SCALE_AUTO,
                                           .is_wide = true,
                                           .x_is_whole = true},
                            h));
out:
    lrd_series_release(&smooth);
    return status;
}

/* One curve, with its smooth line if it is a rough one. */
static lrd_status_t plain_chart(const lrd_facts_t *f, lrd_curve_t curve, lrd_chart_t chart,
                                const char *name, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const lrd_series_t *s = &f->curve[curve];
    const bool is_rough = curve != LRD_CURVE_LEARNING_RATE && curve != LRD_CURVE_LOSS_SCALE;
    const bool smooths = is_rough && lrd_series_window(s) > 0;
    lrd_series_t smooth = {0};
    lrd_line_t line[2] = {{name, *s, smooths ? LRD_LINE_FAINT : LRD_LINE_SOLID, 0},
                          {"mean over neighbours", {0}, LRD_LINE_SOLID, 0}};
    if (smooths)
        LRD_TRY(lrd_series_smooth(s, lrd_series_window(s), &smooth));
    line[1].series = smooth;
    chart.x_label = "update";
    chart.x_is_whole = true;
    chart.line = line;
    chart.n_lines = smooths ? 2 : 1;
    LRD_TRY(lrd_chart_write(&chart, h));
out:
    lrd_series_release(&smooth);
    return status;
}

static lrd_status_t answers_chart(const lrd_facts_t *f, lrd_html_t *h)
{
    const lrd_line_t line[] = {
        {"exact match", f->curve[LRD_CURVE_EVAL_EXACT], LRD_LINE_SOLID, 0},
        {"F1", f->curve[LRD_CURVE_EVAL_F1], LRD_LINE_SOLID, 1},
    };
    if (line[0].series.n < 2)
        return LRD_OK;
    return lrd_chart_write(&(lrd_chart_t){.id = "answers",
                                          .title = "Answers",
                                          .about = "percent, at evaluations",
                                          .x_label = "update",
                                          .line = line,
                                          .n_lines = 2,
                                          .scale = LRD_SCALE_ZERO,
                                          .x_is_whole = true},
                           h);
}

static void cell(lrd_html_t *h, const lrd_facts_t *f, lrd_curve_t curve, double step, size_t *at)
{
    const lrd_series_t *s = &f->curve[curve];
    while (*at < s->n && s->x[*at] < step)
        ++*at;
    if (*at == s->n || s->x[*at] != step) {
        lrd_html_raw(h, "<td class=\"num\"></td>");
        return;
    }
    char exact[32];
    lrd_format_real(s->y[*at], exact);
    lrd_html_print(h, "<td class=\"num\" data-value=\"%s\">", exact);
    lrd_html_number(h, s->y[*at]);
    lrd_html_raw(h, "</td>");
}

/* Entries of the history, evenly taken where there are many, the last one among them; unrounded in data-value. */
static void numbers(const lrd_facts_t *f, lrd_html_t *h)
{
    static const lrd_curve_t column[] = {LRD_CURVE_LOSS,          LRD_CURVE_GRAD_NORM,
                                         LRD_CURVE_LEARNING_RATE, LRD_CURVE_EVAL_LOSS,
                                         LRD_CURVE_TOKEN_RATE,    LRD_CURVE_UPDATE_TIME};
    enum { COLUMNS = sizeof column / sizeof column[0] };
    const lrd_series_t *loss = &f->curve[LRD_CURVE_LOSS];
    const size_t every = (loss->n + MOST_ROWS - 1) / MOST_ROWS;
    size_t at[COLUMNS] = {0};
    if (loss->n == 0)
        return;
    lrd_html_print(
        h,
        "<details id=\"numbers\"><summary>The numbers%s</summary><div class=\"in\"><table>\n"
        "<tr><th class=\"num\">update</th><th class=\"num\">loss</th><th class=\"num\">gradient "
        "norm</th><th class=\"num\">learning rate</th><th class=\"num\">evaluation loss</th>"
        "<th class=\"num\">tokens/s</th><th class=\"num\">seconds an update</th></tr>\n",
        every > 1 ? ", some of them" : "");
    for (size_t i = (loss->n - 1) % every; i < loss->n; i += every) {
        lrd_html_print(h, "<tr data-step=\"%.0f\"><td class=\"num\">", loss->x[i]);
        lrd_html_number(h, loss->x[i]);
        lrd_html_raw(h, "</td>");
        for (int c = 0; c < COLUMNS; c++)
            cell(h, f, column[c], loss->x[i], &at[c]);
        lrd_html_raw(h, "</tr>\n");
    }
    lrd_html_raw(h, "</table></div></details>\n");
}

lrd_status_t lrd_page_curves(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    double mark = 0;
    if (f->curve[LRD_CURVE_LOSS].n == 0 && f->curve[LRD_CURVE_EVAL_LOSS].n == 0)
        goto out;
    lrd_pyjson_number(lrd_facts_setting(f, "training", "max_grad_norm"), &mark);
    lrd_html_raw(h, "<h2>Course</h2>\n<div class=\"charts\">\n");
    LRD_TRY(loss_chart(f, h));
    LRD_TRY(answers_chart(f, h));
    LRD_TRY(plain_chart(f, LRD_CURVE_GRAD_NORM,
                        (lrd_chart_t){.id = "grad_norm",
                                      .title = "Gradient norm",
                                      .scale = LRD_SCALE_AUTO,
                                      .mark = mark,
                                      .mark_label = "clipped above this"},
                        "gradient norm", h));
    LRD_TRY(plain_chart(
        f, LRD_CURVE_LEARNING_RATE,
        (lrd_chart_t){.id = "learning_rate", .title = "Learning rate", .scale = LRD_SCALE_ZERO},
        "learning rate", h));
    LRD_TRY(plain_chart(
        f, LRD_CURVE_TOKEN_RATE,
        (lrd_chart_t){.id = "token_rate", .title = "Tokens a second", .scale = LRD_SCALE_ZERO},
        "tokens/s", h));
    LRD_TRY(plain_chart(
        f, LRD_CURVE_UPDATE_TIME,
        (lrd_chart_t){.id = "update_time", .title = "Seconds an update", .scale = LRD_SCALE_ZERO},
        "seconds", h));
    LRD_TRY(plain_chart(
        f, LRD_CURVE_LOSS_SCALE,
        (lrd_chart_t){.id = "loss_scale", .title = "Loss scale", .scale = LRD_SCALE_LOG2},
        "loss scale", h));
    lrd_html_raw(h, "</div>\n");
    numbers(f, h);
    status = h->status;
out:
    return status;
}
