/* Several runs side by side: what came of each, in which settings they differ, their curves together. */
#include "report/page.h"

#include "base/json_writer.h"
#include "report/chart.h"
#include "report/pyjson.h"
#include "report/results.h"

#include <math.h>
#include <string.h>

enum { MOST_RUNS = LRD_CHART_COLOURS };

static const char this_program[] = "lora-dist";

static void name_cell(lrd_html_t *h, const lrd_facts_t *f, int i)
{
    lrd_html_print(
        h,
        "<th class=\"run t%d\"><svg class=\"key\" viewBox=\"0 0 22 10\"><path class=\"solid c%d\" "
        "d=\"M1 5H21\" fill=\"none\" /></svg>",
        i, i);
    lrd_html_bytes(h, f->name, strlen(f->name), 48);
    lrd_html_raw(h, "</th>");
}

/* A column of results. */
typedef struct result {
    const char *fact, *heading;
    bool (*get)(const lrd_facts_t *facts, double *value_out);
    void (*write)(lrd_html_t *h, double value);
    int better; /* 1: the largest is the best, -1: the smallest, 0: neither */
} result_t;

static bool get_loss(const lrd_facts_t *f, double *value)
{
    return lrd_result_last(f, LRD_CURVE_LOSS, value);
}

static bool get_eval_loss(const lrd_facts_t *f, double *value)
{
    double step;
    return lrd_result_best(f, LRD_CURVE_EVAL_LOSS, false, value, &step);
}

static bool get_exact(const lrd_facts_t *f, double *value)
{
    double f1;
    return lrd_result_answers(f, value, &f1);
}

static bool get_f1(const lrd_facts_t *f, double *value)
{
    double exact;
    return lrd_result_answers(f, &exact, value);
}

static bool get_seconds(const lrd_facts_t *f, double *value)
{
    *value = f->seconds;
    return f->seconds > 0;
}

static bool get_ranks(const lrd_facts_t *f, double *value)
{
    *value = (double)json_array_size(json_object_get(f->start, "ranks"));
    return *value > 0;
}

static bool get_trainable(const lrd_facts_t *f, double *value)
{
    *value = (double)f->trainable;
    return f->trainable > 0;
}

static bool get_step(const lrd_facts_t *f, double *value)
{
    *value = (double)f->step;
    return f->step > 0;
}

static void write_percent(lrd_html_t *h, double value)
{
    lrd_html_print(h, "%.1f", value);
}

static void write_seconds(lrd_html_t *h, double value)
{
    char text[LRD_NUMBER_BYTES];
    lrd_format_seconds(value, text);
    lrd_html_raw(h, text);
}

static void write_bytes(lrd_html_t *h, double value)
{
    char text[LRD_NUMBER_BYTES];
    lrd_format_bytes(value, text);
    lrd_html_raw(h, text);
}

static void write_rounded(lrd_html_t *h, double value)
{
    lrd_html_number(h, round(value));
}

static const result_t results[] = {
    {"step", "updates", get_step, lrd_html_number, 0},
    {"loss", "last loss", get_loss, lrd_html_number, 0},
    {"eval_loss", "best eval. loss", get_eval_loss, lrd_html_number, -1},
    {"exact", "exact", get_exact, write_percent, 1},
    {"f1", "F1", get_f1, write_percent, 1},
    {"trainable", "parameters", get_trainable, lrd_html_number, 0},
    {"seconds", "time", get_seconds, write_seconds, 0},
    {"ranks", "ranks", get_ranks, lrd_html_number, 0},
    {"tokens_per_second", "tokens/s", lrd_result_token_rate, write_rounded, 1},
    {"peak_bytes", "peak memory", lrd_result_peak, write_bytes, -1},
};
enum { N_RESULTS = sizeof results / sizeof results[0] };

/* The best of all runs, NaN where there is none or only one has a value; *n_out: runs that have one. */
static double best_of(const result_t *r, const lrd_facts_t *f, int n, int *n_out)
{
    double best = NAN, value;
    *n_out = 0;
    for (int i = 0; i < n; i++) {
        if (!r->get(&f[i], &value))
            continue;
        ++*n_out;
        if (isfinite(value) && (isnan(best) || value * r->better > best * r->better))
            best = value;
    }
    return r->better != 0 && *n_out > 1 ? best : NAN;
}

static void result_cell(lrd_html_t *h, const result_t *r, const lrd_facts_t *f, double best)
{
    double value;
    char exact[32];
    if (!r->get(f, &value)) {
        lrd_html_raw(h, "<td class=\"num soft\">\xe2\x80\x93</td>");
        return;
    }
    lrd_format_real(value, exact);
    lrd_html_print(h, "<td class=\"num%s\" data-fact=\"%s\" data-value=\"%s\">",
                   value == best ? " best" : "", r->fact, exact);
    r->write(h, value);
    lrd_html_raw(h, "</td>");
}

static void table_of_results(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    double best[N_RESULTS];
    int known[N_RESULTS];
    lrd_html_raw(h, "<div class=\"card\"><table id=\"results\">\n<tr><th>run</th><th></th>");
    for (int r = 0; r < N_RESULTS; r++) {
        best[r] = best_of(&results[r], f, n, &known[r]);
        if (known[r] > 0)
            lrd_html_print(h, "<th class=\"num\">%s</th>", results[r].heading);
    }
    lrd_html_raw(h, "</tr>\n");
    for (int i = 0; i < n; i++) {
        lrd_html_raw(h, "<tr>");
        name_cell(h, &f[i], i);
        lrd_html_raw(h, "<td>");
        lrd_page_outcome(&f[i], h);
        lrd_html_raw(h, "</td>");
        for (int r = 0; r < N_RESULTS; r++) {
            if (known[r] > 0)
                result_cell(h, &results[r], &f[i], best[r]);
        }
        lrd_html_raw(h, "</tr>\n");
    }
    lrd_html_raw(h, "</table></div>\n");
}

/* A setting; of no section: the version of a library, or of this program. */
static const json_t *value_of(const lrd_facts_t *f, const char *section, const char *key)
{
    if (section != NULL)
        return lrd_facts_setting(f, section, key);
    return strcmp(key, this_program) == 0
               ? json_object_get(f->start, "version")
               : json_object_get(json_object_get(f->start, "software"), key);
}

/* Does some run have another value? Those of which such things are not known do not count. */
static bool differs(const lrd_facts_t *f, int n, const char *section, const char *key)
{
    const json_t *first = NULL;
    for (int i = 0; i < n; i++) {
        const json_t *value = value_of(&f[i], section, key);
        if (json_object_get(f[i].start, section != NULL ? "settings" : "software") == NULL)
            continue;
        if (first == NULL)
            first = value;
        if (value == NULL || !json_equal(value, first))
            return true;
    }
    return false;
}

static lrd_status_t value_row(const lrd_facts_t *f, int n, const char *section, const char *key,
                              lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_html_raw(h, "<tr><td class=\"mono\">");
    if (section != NULL) {
        lrd_html_bytes(h, section, strlen(section), 100);
        lrd_html_raw(h, ".");
    }
    lrd_html_bytes(h, key, strlen(key), 100);
    lrd_html_raw(h, "</td>");
    for (int i = 0; i < n; i++) {
        const json_t *value = value_of(&f[i], section, key);
        lrd_html_raw(h, "<td><pre>");
        if (value != NULL)
            LRD_TRY(lrd_page_value(value, h));
        else
            lrd_html_raw(h, "\xe2\x80\x93");
        lrd_html_raw(h, "</pre></td>");
    }
    lrd_html_raw(h, "</tr>\n");
out:
    return status;
}

/* The rows; the keys are those of the first run whose settings are known. */
static lrd_status_t setting_rows(const lrd_facts_t *f, int n, const lrd_facts_t *keys, int *n_out,
                                 lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const char *section, *key;
    const json_t *value;
    json_t *members;
    json_object_foreach(json_object_get(keys->start, "settings"), section, members)
    {
        json_object_foreach(members, key, value)
        {
            if (strcmp(key, "output_dir") == 0 || strcmp(key, "overwrite_output_dir") == 0 ||
                !differs(f, n, section, key))
                continue;
            ++*n_out;
            LRD_TRY(value_row(f, n, section, key, h));
        }
    }
out:
    return status;
}

static void open_values(const lrd_facts_t *f, int n, const char *heading, const char *id,
                        lrd_html_t *h)
{
    lrd_html_print(h, "<h2>%s</h2>\n<div class=\"card\"><table id=\"%s\">\n<tr><th></th>", heading,
                   id);
    for (int i = 0; i < n; i++)
        name_cell(h, &f[i], i);
    lrd_html_raw(h, "</tr>\n");
}

static lrd_status_t table_of_settings(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const lrd_facts_t *keys = NULL;
    int rows = 0;
    for (int i = n - 1; i >= 0; i--)
        keys = f[i].start != NULL ? &f[i] : keys;
    if (keys == NULL)
        goto out;
    open_values(f, n, "Settings that differ", "settings", h);
    LRD_TRY(setting_rows(f, n, keys, &rows, h));
    if (rows == 0)
        lrd_html_print(h, "<tr><td colspan=\"%d\">none but the folders</td></tr>\n", n + 1);
    lrd_html_raw(h, "</table></div>\n");
out:
    return status;
}

static lrd_status_t software_row(const lrd_facts_t *f, int n, const char *key, int *rows,
                                 lrd_html_t *h)
{
    if (!differs(f, n, NULL, key))
        return LRD_OK;
    if (++*rows == 1)
        open_values(f, n, "Software that differs", "software", h);
    return value_row(f, n, NULL, key, h);
}

/* Not there where all have the same. A run on another back end names others than the first. */
static lrd_status_t table_of_software(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    int rows = 0;
    LRD_TRY(software_row(f, n, this_program, &rows, h));
    for (int i = 0; i < n; i++) {
        const char *key;
        json_t *value;
        json_object_foreach(json_object_get(f[i].start, "software"), key, value)
        {
            bool is_known = false;
            for (int before = 0; before < i; before++)
                is_known = is_known || value_of(&f[before], NULL, key) != NULL;
            if (!is_known)
                LRD_TRY(software_row(f, n, key, &rows, h));
        }
    }
    if (rows > 0)
        lrd_html_raw(h, "</table></div>\n");
out:
    return status;
}

/* The curves of all runs, smooth ones of what is rough; over_time: over the seconds of updates. */
static lrd_status_t overlay(const lrd_facts_t *f, int n, lrd_curve_t curve, bool over_time,
                            lrd_chart_t chart, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_line_t line[MOST_RUNS];
    lrd_series_t smooth[MOST_RUNS] = {{0}};
    double longest = 0, seconds;
    for (int i = 0; i < n; i++)
        longest = fmax(longest, lrd_result_last(&f[i], LRD_CURVE_TIME, &seconds) ? seconds : 0);
    const double unit = longest > 3 * 3600 ? 3600 : 60;
    const bool is_rough = curve != LRD_CURVE_EVAL_LOSS && curve != LRD_CURVE_LEARNING_RATE;
    for (int i = 0; i < n; i++) {
        const lrd_series_t *s = &f[i].curve[curve], *time = &f[i].curve[LRD_CURVE_TIME];
        const size_t window = is_rough ? lrd_series_window(s) : 0;
        LRD_TRY(lrd_series_smooth(s, window > 0 ? window : 1, &smooth[i]));
        size_t kept = 0;
        for (size_t k = 0, t = 0; over_time && k < smooth[i].n; k++) {
            while (t < time->n && time->x[t] < smooth[i].x[k])
                t++;
            if (t == time->n || time->x[t] != smooth[i].x[k])
                continue;
            smooth[i].y[kept] = smooth[i].y[k];
            smooth[i].x[kept++] = time->y[t] / unit;
        }
        smooth[i].n = over_time ? kept : smooth[i].n;
        line[i] = (lrd_line_t){f[i].name, smooth[i], LRD_LINE_SOLID, i};
    }
    chart.line = line;
    chart.n_lines = n;
    chart.x_label = !over_time ? "update" : unit > 60 ? "hours of updates" : "minutes of updates";
    chart.x_is_whole = !over_time;
    LRD_TRY(lrd_chart_write(&chart, h));
out:
    for (int i = 0; i < n; i++)
        lrd_series_release(&smooth[i]);
    return status;
}

static lrd_status_t overlays(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(overlay(f, n, LRD_CURVE_LOSS, false,
                    (lrd_chart_t){.id = "loss",
                                  .title = "Loss",
                                  .about = "mean over neighbouring entries",
                                  .is_wide = true,
                                  .names_at_lines = true},
                    h));
    LRD_TRY(overlay(f, n, LRD_CURVE_EVAL_LOSS, false,
                    (lrd_chart_t){.id = "eval_loss", .title = "Evaluation loss"}, h));
    LRD_TRY(overlay(f, n, LRD_CURVE_LOSS, true,
                    (lrd_chart_t){.id = "loss_over_time", .title = "Loss over time"}, h));
    LRD_TRY(overlay(
        f, n, LRD_CURVE_EVAL_F1, false,
        (lrd_chart_t){.id = "f1", .title = "F1 at evaluations", .scale = LRD_SCALE_ZERO}, h));
    LRD_TRY(overlay(f, n, LRD_CURVE_GRAD_NORM, false,
                    (lrd_chart_t){.id = "grad_norm", .title = "Gradient norm"}, h));
    LRD_TRY(overlay(
        f, n, LRD_CURVE_LEARNING_RATE, false,
        (lrd_chart_t){.id = "learning_rate", .title = "Learning rate", .scale = LRD_SCALE_ZERO},
        h));
    LRD_TRY(overlay(
        f, n, LRD_CURVE_TOKEN_RATE, false,
        (lrd_chart_t){.id = "token_rate", .title = "Tokens a second", .scale = LRD_SCALE_ZERO}, h));
out:
    return status;
}

static void remarks_of_all(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    bool any = false;
    for (int i = 0; i < n; i++) {
        size_t k;
        const json_t *x;
        json_array_foreach(f[i].remarks, k, x)
        {
            lrd_html_raw(h, any ? "" : "<h2>What is missing here</h2>\n");
            any = true;
            lrd_html_raw(h, "<p class=\"remark\"><b>");
            lrd_html_bytes(h, f[i].name, strlen(f[i].name), 80);
            lrd_html_raw(h, "</b>: ");
            lrd_html_text(h, json_string_value(x));
            lrd_html_raw(h, "</p>\n");
        }
    }
}

lrd_status_t lrd_page_compare(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_html_print(h, "<h1>%d runs</h1>\n<h2>Results</h2>\n", n);
    table_of_results(f, n, h);
    LRD_TRY(table_of_settings(f, n, h));
    LRD_TRY(table_of_software(f, n, h));
    lrd_html_raw(h, "<h2>Course</h2>\n<div class=\"charts\">\n");
    LRD_TRY(overlays(f, n, h));
    lrd_html_raw(h, "</div>\n");
    remarks_of_all(f, n, h);
    status = h->status;
out:
    return status;
}
