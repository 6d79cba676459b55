/* Answers, checkpoints, settings, and what there is to remark. */
#include "report/page.h"

#include "report/pyjson.h"

#include <string.h>

enum { MOST_EXAMPLES = 24, MOST_WARNINGS = 100 }; /* whatever stands in a file */

static void text_cell(lrd_html_t *h, const char *text)
{
    lrd_html_raw(h, "<td>");
    if (text != NULL)
        lrd_html_bytes(h, text, strlen(text), 400);
    lrd_html_raw(h, "</td>");
}

static void percent_cell(lrd_html_t *h, const json_t *metrics, const char *key)
{
    double value;
    lrd_html_raw(h, "<td class=\"num\">");
    if (lrd_pyjson_real(metrics, key, &value))
        lrd_html_print(h, "%.1f", value);
    lrd_html_raw(h, "</td>");
}

static void scores(const lrd_facts_t *f, lrd_html_t *h)
{
    size_t i;
    const json_t *e;
    lrd_html_raw(
        h, "<div class=\"card\"><table>\n<tr><th>answers</th><th>by</th><th>questions of</th><th "
           "class=\"num\">questions</th><th class=\"num\">exact</th><th class=\"num\">F1</th><th "
           "class=\"num\">F1, answerable</th><th class=\"num\">F1, without answer</th></tr>\n");
    json_array_foreach(f->evaluations, i, e)
    {
        const json_t *metrics = json_object_get(e, "metrics");
        const char *adapter = lrd_pyjson_text(e, "adapter");
        double total;
        lrd_html_raw(h, "<tr>");
        text_cell(h, lrd_pyjson_text(e, "name"));
        text_cell(h, adapter != NULL ? adapter : "the base alone");
        text_cell(h, lrd_pyjson_text(e, "data"));
        lrd_html_raw(h, "<td class=\"num\">");
        if (lrd_pyjson_real(metrics, "total", &total))
            lrd_html_number(h, total);
        lrd_html_raw(h, "</td>");
        percent_cell(h, metrics, "exact");
        percent_cell(h, metrics, "f1");
        percent_cell(h, metrics, "HasAns_f1");
        percent_cell(h, metrics, "NoAns_f1");
        lrd_html_raw(h, "</tr>\n");
    }
    lrd_html_raw(h, "</table></div>\n");
}

static void gold_cell(lrd_html_t *h, const json_t *answers)
{
    size_t i, shown = 0;
    const json_t *answer;
    lrd_html_raw(h, "<td>");
    json_array_foreach(answers, i, answer)
    {
        bool again = false;
        for (size_t k = 0; k < i && !again; k++)
            again = json_equal(json_array_get(answers, k), answer);
        if (!json_is_string(answer) || again)
            continue;
        lrd_html_raw(h, shown++ > 0 ? " <span class=\"soft\">or</span> " : "");
        lrd_html_bytes(h, json_string_value(answer), json_string_length(answer), 400);
    }
    if (shown == 0)
        lrd_html_raw(h, "<span class=\"soft\">no answer</span>");
    lrd_html_raw(h, "</td>");
}

static void examples(const json_t *e, lrd_html_t *h)
{
    size_t i;
    const json_t *x;
    lrd_html_raw(h, lrd_pyjson_text(e, "adapter") != NULL
                        ? "<details open=\"open\"><summary>Some answers of "
                        : "<details><summary>Some answers of ");
    lrd_html_text(h, lrd_pyjson_text(e, "name"));
    lrd_html_raw(
        h,
        "</summary><div class=\"in\"><table>\n<tr><th></th><th>question</th><th>answer given</th>"
        "<th>right answer</th><th class=\"num\">F1</th></tr>\n");
    json_array_foreach(json_object_get(e, "examples"), i, x)
    {
        if (i == MOST_EXAMPLES)
            break;
        double exact = 0, f1 = 0;
        const char *said = lrd_pyjson_text(x, "prediction");
        lrd_pyjson_real(x, "exact", &exact);
        lrd_pyjson_real(x, "f1", &f1);
        lrd_html_raw(h, exact == 1 ? "<tr><td class=\"right\">\xe2\x9c\x93</td>"
                                   : "<tr><td class=\"wrong\">\xe2\x9c\x97</td>");
        text_cell(h, lrd_pyjson_text(x, "question"));
        if (said == NULL || said[0] == '\0')
            lrd_html_raw(h, "<td><span class=\"soft\">no answer</span></td>");
        else
            text_cell(h, said);
        gold_cell(h, json_object_get(x, "answers"));
        lrd_html_print(h, "<td class=\"num\">%.0f</td></tr>\n", 100 * f1);
    }
    lrd_html_raw(h, "</table></div></details>\n");
}

void lrd_page_answers(const lrd_facts_t *f, lrd_html_t *h)
{
    size_t i;
    const json_t *e;
    if (json_array_size(f->evaluations) == 0)
        return;
    lrd_html_raw(h, "<h2>Answers</h2>\n");
    scores(f, h);
    json_array_foreach(f->evaluations, i, e)
    {
        if (json_array_size(json_object_get(e, "examples")) > 0)
            examples(e, h);
    }
}

static bool loss_at(const lrd_facts_t *f, double step, double *value_out)
{
    const lrd_series_t *s = &f->curve[LRD_CURVE_EVAL_LOSS];
    for (size_t i = 0; i < s->n; i++) {
        if (s->x[i] == step) {
            *value_out = s->y[i];
            return true;
        }
    }
    return false;
}

static void checkpoints(const lrd_facts_t *f, lrd_html_t *h)
{
    double best = -1, loss;
    lrd_pyjson_real(f->state, "best_global_step", &best);
    lrd_html_raw(h,
                 "<h2>Checkpoints</h2>\n<div class=\"card\"><table "
                 "id=\"checkpoints\">\n<tr><th>folder</th><th "
                 "class=\"num\">evaluation loss</th><th class=\"num\">size</th><th></th></tr>\n");
    for (size_t i = 0; i < f->n_checkpoints; i++) {
        const lrd_kept_t *c = &f->checkpoint[i];
        char text[LRD_NUMBER_BYTES];
        lrd_format_bytes(c->bytes, text);
        lrd_html_print(h, "<tr><td><code>checkpoint-%lld</code></td><td class=\"num\">",
                       (long long)c->step);
        if (loss_at(f, (double)c->step, &loss))
            lrd_html_number(h, loss);
        lrd_html_print(h, "</td><td class=\"num\">%s</td><td>%s</td></tr>\n", text,
                       !c->is_whole              ? "<span class=\"wrong\">files are missing</span>"
                       : (double)c->step == best ? "<span class=\"right\">the best</span>"
                                                 : "");
    }
    lrd_html_raw(h, "</table></div>\n");
}

static void resumes(const lrd_facts_t *f, lrd_html_t *h)
{
    size_t i;
    const json_t *line;
    json_array_foreach(f->resumes, i, line)
    {
        double step;
        lrd_html_raw(h, "<p>Went on after update ");
        if (lrd_pyjson_real(line, "step", &step))
            lrd_html_number(h, step);
        lrd_html_print(h, " on %zu rank%s, ", json_array_size(json_object_get(line, "ranks")),
                       json_array_size(json_object_get(line, "ranks")) == 1 ? "" : "s");
        lrd_html_text(h, lrd_pyjson_text(line, "time"));
        lrd_html_raw(h, ".</p>\n");
    }
}

void lrd_page_kept(const lrd_facts_t *f, lrd_html_t *h)
{
    if (f->n_checkpoints > 0)
        checkpoints(f, h);
    resumes(f, h);
}

/* A table of a JSON object's members. */
static lrd_status_t members(const json_t *object, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const char *key;
    const json_t *value;
    lrd_html_raw(h, "<table>\n");
    json_object_foreach((json_t *)object, key, value)
    {
        lrd_html_raw(h, "<tr><td class=\"mono\">");
        lrd_html_bytes(h, key, strlen(key), 200);
        lrd_html_raw(h, json_is_null(value) ? "</td><td class=\"soft\"><pre>" : "</td><td><pre>");
        LRD_TRY(lrd_page_value(value, h));
        lrd_html_raw(h, "</pre></td></tr>\n");
    }
    lrd_html_raw(h, "</table>\n");
out:
    return status;
}

lrd_status_t lrd_page_settings(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const json_t *settings = json_object_get(f->start, "settings"), *section;
    const json_t *software = json_object_get(f->start, "software");
    const char *name;
    if (!json_is_object(settings) && !json_is_object(software) && f->config == NULL)
        goto out;
    lrd_html_raw(h, "<h2>Settings</h2>\n");
    if (json_is_object(settings)) {
        lrd_html_raw(h, "<details id=\"settings\"><summary>All settings of the run</summary><div "
                        "class=\"in\">\n");
        json_object_foreach((json_t *)settings, name, section)
        {
            lrd_html_raw(h, "<h3>");
            lrd_html_bytes(h, name, strlen(name), 200);
            lrd_html_raw(h, "</h3>\n");
            LRD_TRY(members(section, h));
        }
        lrd_html_raw(h, "</div></details>\n");
    }
    if (json_is_object(software)) {
        lrd_html_raw(h, "<details id=\"software\"><summary>Libraries and environment</summary><div "
                        "class=\"in\">\n");
        LRD_TRY(members(software, h));
        lrd_html_raw(h, "</div></details>\n");
    }
    if (f->config != NULL) {
        lrd_html_raw(h, "<details><summary>adapter_config.json</summary><div class=\"in\">\n");
        LRD_TRY(members(f->config, h));
        lrd_html_raw(h, "</div></details>\n");
    }
out:
    return status;
}

static void remark(lrd_html_t *h, const char *text, double step)
{
    lrd_html_raw(h, "<p class=\"remark\">");
    if (step > 0)
        lrd_html_print(h, "<span class=\"soft\">after update %.0f:</span> ", step);
    lrd_html_text(h, text);
    lrd_html_raw(h, "</p>\n");
}

void lrd_page_remarks(const lrd_facts_t *f, lrd_html_t *h)
{
    size_t i;
    const json_t *x;
    if (json_array_size(f->warnings) > 0 || f->skipped > 0)
        lrd_html_raw(h, "<h2>Warnings of the run</h2>\n");
    if (f->skipped > 0)
        lrd_html_print(
            h, "<p class=\"remark\">%.0f update%s skipped: loss or gradient was not finite.</p>\n",
            f->skipped, f->skipped == 1 ? " was" : "s were");
    json_array_foreach(f->warnings, i, x)
    {
        if (i == MOST_WARNINGS)
            break;
        double step = 0;
        lrd_pyjson_real(x, "step", &step);
        remark(h, lrd_pyjson_text(x, "text"), step);
    }
    if (json_array_size(f->remarks) > 0)
        lrd_html_raw(h, "<h2>What is missing here</h2>\n");
    json_array_foreach(f->remarks, i, x) remark(h, json_string_value(x), 0);
}
