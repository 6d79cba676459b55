/* What a run was, and what came of it. */
#include "report/page.h"

#include "base/file.h"
#include "base/json_writer.h"
#include "report/pyjson.h"
#include "report/results.h"

#include <math.h>
#include <string.h>

const char *lrd_outcome_word(lrd_outcome_t outcome)
{
    static const char *const word[] = {
        [LRD_OUTCOME_DONE] = "finished",         [LRD_OUTCOME_INTERRUPTED] = "interrupted",
        [LRD_OUTCOME_FAILED] = "failed",         [LRD_OUTCOME_OPEN] = "no end recorded",
        [LRD_OUTCOME_UNKNOWN] = "end not known",
    };
    return word[outcome];
}

static const char *outcome_class(lrd_outcome_t outcome)
{
    static const char *const name[] = {
        [LRD_OUTCOME_DONE] = "done",       [LRD_OUTCOME_INTERRUPTED] = "interrupted",
        [LRD_OUTCOME_FAILED] = "failed",   [LRD_OUTCOME_OPEN] = "open",
        [LRD_OUTCOME_UNKNOWN] = "unknown",
    };
    return name[outcome];
}

void lrd_page_outcome(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_html_print(h, "<span class=\"pill %s\">%s</span>", outcome_class(f->outcome),
                   lrd_outcome_word(f->outcome));
}

lrd_status_t lrd_page_value(const json_t *value, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .utf8 = true};
    size_t i;
    const json_t *item;
    bool is_words = json_array_size(value) > 0;
    json_array_foreach(value, i, item) is_words = is_words && json_is_string(item);
    if (is_words) {
        json_array_foreach(value, i, item)
        {
            lrd_html_raw(h, i > 0 ? ", " : "");
            lrd_html_bytes(h, json_string_value(item), json_string_length(item), 0);
        }
        goto out;
    }
    if (json_is_string(value)) {
        lrd_html_bytes(h, json_string_value(value), json_string_length(value), 0);
        goto out;
    }
    lrd_json_value(&w, value);
    LRD_TRY(lrd_json_writer_status(&w));
    lrd_html_bytes(h, text.data, text.size, 0);
out:
    lrd_buf_release(&text);
    return status;
}

/* A tile: lines are our own markup, or numbers. The value stands unrounded in data-value. */
static void open_tile(lrd_html_t *h, const char *fact, double value, const char *what)
{
    char exact[32];
    lrd_format_real(value, exact);
    lrd_html_print(
        h,
        "<div class=\"tile\" data-fact=\"%s\" data-value=\"%s\"><div class=\"what\">%s</div>"
        "<div class=\"value\">",
        fact, exact, what);
}

static void close_tile(lrd_html_t *h, const char *format, double a, double b)
{
    char x[LRD_NUMBER_BYTES], y[LRD_NUMBER_BYTES];
    lrd_format_number(a, x);
    lrd_format_number(b, y);
    lrd_html_raw(h, "</div><div class=\"more\">");
    for (const char *at = format; *at != '\0'; at++) {
        if (*at == '@')
            lrd_html_raw(h, at == strchr(format, '@') ? x : y);
        else
            lrd_html_print(h, "%c", *at);
    }
    lrd_html_raw(h, "</div></div>\n");
}

static void loss_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    const lrd_series_t *loss = &f->curve[LRD_CURVE_LOSS];
    double best, step;
    if (loss->n == 0)
        return;
    open_tile(h, "loss", loss->y[loss->n - 1], "Training loss, first to last");
    lrd_html_raw(h, "<small>");
    lrd_html_number(h, loss->y[0]);
    lrd_html_raw(h, " \xe2\x86\x92</small> ");
    lrd_html_number(h, loss->y[loss->n - 1]);
    if (lrd_result_best(f, LRD_CURVE_LOSS, false, &best, &step))
        close_tile(h, "lowest @, at update @", best, step);
    else
        close_tile(h, "never finite", 0, 0);
}

static void eval_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    double best, step, last;
    if (!lrd_result_best(f, LRD_CURVE_EVAL_LOSS, false, &best, &step) ||
        !lrd_result_last(f, LRD_CURVE_EVAL_LOSS, &last))
        return;
    open_tile(h, "eval_loss", best, "Best evaluation loss");
    lrd_html_number(h, best);
    close_tile(h, best == last ? "at update @" : "at update @; @ at the end", step, last);
}

/* With what the base answers, if it was asked. */
static void answers_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    double exact, f1, base_exact = NAN, base_f1 = NAN;
    size_t i;
    const json_t *e;
    if (!lrd_result_answers(f, &exact, &f1))
        return;
    json_array_foreach(f->evaluations, i, e)
    {
        if (json_is_null(json_object_get(e, "adapter"))) {
            lrd_pyjson_real(json_object_get(e, "metrics"), "exact", &base_exact);
            lrd_pyjson_real(json_object_get(e, "metrics"), "f1", &base_f1);
        }
    }
    open_tile(h, "f1", f1, "Exact match / F1");
    lrd_html_print(h, "%.1f <small>/</small> %.1f <small>%%</small>", exact, f1);
    lrd_html_raw(h, "</div><div class=\"more\">");
    if (isfinite(base_exact) && isfinite(base_f1))
        lrd_html_print(h, "the base alone: %.1f / %.1f %%", base_exact, base_f1);
    else
        lrd_html_raw(h, "at the last evaluation");
    lrd_html_raw(h, "</div></div>\n");
}

static void time_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    char text[LRD_NUMBER_BYTES], hours[LRD_NUMBER_BYTES];
    const double ranks = (double)json_array_size(json_object_get(f->start, "ranks"));
    if (f->seconds <= 0)
        return;
    lrd_format_seconds(f->seconds, text);
    open_tile(h, "seconds", f->seconds, "Time");
    lrd_html_raw(h, text);
    lrd_html_raw(h, "</div><div class=\"more\">");
    lrd_format_number(f->rank_seconds / 3600, hours);
    lrd_html_print(h, "on %.0f rank%s: %s rank-hours</div></div>\n", ranks, ranks == 1 ? "" : "s",
                   hours);
}

static void rate_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    double rate, share;
    if (!lrd_result_token_rate(f, &rate))
        return;
    open_tile(h, "tokens_per_second", rate, "Tokens a second");
    lrd_html_number(h, round(rate));
    if (json_array_size(json_object_get(f->start, "ranks")) > 1 && lrd_result_waiting(f, &share))
        close_tile(h, "ranks waited @ % of the time", round(share * 1000) / 10, 0);
    else
        close_tile(h, "all ranks together", 0, 0);
}

static void tokens_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    double epoch;
    if (f->tokens <= 0)
        return;
    open_tile(h, "tokens", f->tokens, "Tokens seen");
    lrd_html_number(h, f->tokens);
    if (lrd_pyjson_real(f->state, "epoch", &epoch) || lrd_result_last(f, LRD_CURVE_EPOCH, &epoch))
        close_tile(h, epoch == 1 ? "@ epoch" : "@ epochs", round(epoch * 100) / 100, 0);
    else
        close_tile(h, "", 0, 0);
}

static void adapter_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    char text[LRD_NUMBER_BYTES] = "none yet";
    double base;
    if (f->adapter_bytes <= 0 && f->trainable == 0)
        return;
    open_tile(h, "trainable", (double)f->trainable, "Adapter");
    if (f->adapter_bytes > 0)
        lrd_format_bytes(f->adapter_bytes, text);
    lrd_html_raw(h, text);
    if (lrd_pyjson_real(json_object_get(f->start, "model"), "parameters", &base) && base > 0)
        close_tile(h, "@ parameters trained, @ % of all", (double)f->trainable,
                   (double)f->trainable / (base + (double)f->trainable) * 100);
    else
        close_tile(h, "@ parameters", (double)f->trainable, 0);
}

static void memory_tile(const lrd_facts_t *f, lrd_html_t *h)
{
    char text[LRD_NUMBER_BYTES];
    double peak;
    if (!lrd_result_peak(f, &peak))
        return;
    open_tile(h, "peak_bytes", peak, "Peak memory of a rank");
    lrd_format_bytes(peak, text);
    lrd_html_raw(h, text);
    close_tile(h, "resident in host memory", 0, 0);
}

static void word(lrd_html_t *h, const char *before, const char *text, const char *behind)
{
    if (text == NULL)
        return;
    lrd_html_raw(h, before);
    lrd_html_raw(h, "<code>");
    lrd_html_text(h, text);
    lrd_html_raw(h, "</code>");
    lrd_html_raw(h, behind);
}

static lrd_status_t value(lrd_html_t *h, const char *before, const json_t *x)
{
    lrd_status_t status = LRD_OK;
    if (x == NULL || json_is_null(x))
        goto out;
    lrd_html_raw(h, before);
    lrd_html_raw(h, "<code>");
    LRD_TRY(lrd_page_value(x, h));
    lrd_html_raw(h, "</code>");
out:
    return status;
}

/* "LoRA of rank 8 on bloom-3b: ..." */
static lrd_status_t subject(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    const json_t *model = json_object_get(f->start, "model");
    double layers, parameters;
    const char *base = json_string_value(lrd_facts_setting(f, "model", "name_or_path"));
    if (base == NULL)
        base = lrd_pyjson_text(f->config, "base_model_name_or_path");
    if (base == NULL && f->config == NULL)
        goto out;
    lrd_html_raw(h, "<p>A LoRA adapter");
    word(h, " of ", base, "");
    if (lrd_pyjson_real(model, "parameters", &parameters) &&
        lrd_pyjson_real(model, "layers", &layers)) {
        lrd_html_raw(h, " (");
        lrd_html_number(h, parameters);
        lrd_html_raw(h, " parameters in ");
        lrd_html_number(h, layers);
        lrd_html_raw(h, " layers");
        if (lrd_pyjson_text(model, "dtype") != NULL)
            lrd_html_raw(h, ", ");
        lrd_html_text(h, lrd_pyjson_text(model, "dtype"));
        lrd_html_raw(h, ")");
    }
    LRD_TRY(value(h, "; r ", json_object_get(f->config, "r")));
    LRD_TRY(value(h, ", alpha ", json_object_get(f->config, "lora_alpha")));
    LRD_TRY(value(h, ", dropout ", json_object_get(f->config, "lora_dropout")));
    LRD_TRY(value(h, ", on ", json_object_get(f->config, "target_modules")));
    lrd_html_raw(h, ".</p>\n");
out:
    return status;
}

/* "Trained on train.json, ..." */
static void lesson(const lrd_facts_t *f, lrd_html_t *h)
{
    const json_t *data = json_object_get(f->start, "data");
    const char *file = json_string_value(lrd_facts_setting(f, "data", "train_file"));
    double records, tokens, each;
    if (file == NULL || !lrd_pyjson_real(data, "records", &records) ||
        !lrd_pyjson_real(data, "tokens", &tokens))
        return;
    word(h, "<p>Trained on ", lrd_path_base(file), ": ");
    lrd_html_number(h, records);
    lrd_html_raw(h, " records of ");
    lrd_html_number(h, tokens);
    lrd_html_raw(h, " tokens");
    if (lrd_pyjson_real(f->start, "records_per_update", &each)) {
        lrd_html_raw(h, ", ");
        lrd_html_number(h, each);
        lrd_html_raw(h, " records an update");
    }
    lrd_html_raw(h, ".</p>\n");
}

static void go_on(const lrd_facts_t *f, lrd_html_t *h)
{
    const lrd_kept_t *newest = NULL;
    for (size_t i = 0; i < f->n_checkpoints; i++)
        newest = f->checkpoint[i].is_whole ? &f->checkpoint[i] : newest;
    if (newest == NULL)
        lrd_html_raw(h, " There is no checkpoint to go on from.");
    else if (f->outcome == LRD_OUTCOME_INTERRUPTED)
        lrd_html_print(
            h, " <code>checkpoint-%lld</code> stands: the same command again goes on from it.",
            (long long)newest->step);
    else
        lrd_html_print(
            h,
            " <code>checkpoint-%lld</code> stands: <code>training.resume_from_checkpoint: "
            "true</code> goes on from it.",
            (long long)newest->step);
}

/* How far it came, and how to go on. */
static void ending(const lrd_facts_t *f, lrd_html_t *h)
{
    const char *began = lrd_pyjson_text(f->start, "time"), *why = lrd_pyjson_text(f->end, "why");
    lrd_html_raw(h, "<p data-fact=\"step\" data-value=\"");
    lrd_html_print(h, "%lld\">", (long long)f->step);
    lrd_html_number(h, (double)f->step);
    if (f->max_steps > 0) {
        lrd_html_raw(h, " of ");
        lrd_html_number(h, (double)f->max_steps);
    }
    lrd_html_raw(h, f->step == 1 ? " update" : " updates");
    if (f->outcome == LRD_OUTCOME_OPEN)
        lrd_html_raw(h, " so far; it still runs, or was killed");
    lrd_html_raw(h, ".");
    if (f->outcome != LRD_OUTCOME_DONE)
        go_on(f, h);
    if (began != NULL) {
        const bool again = json_array_size(f->resumes) > 0;
        lrd_html_raw(h, again ? " Last started " : " Started ");
        lrd_html_text(h, began);
        word(h, " by lora-dist ", lrd_pyjson_text(f->start, "version"), ".");
    }
    lrd_html_raw(h, "</p>\n");
    if (why != NULL) {
        lrd_html_raw(h, "<p class=\"remark\">");
        lrd_html_text(h, why);
        lrd_html_raw(h, "</p>\n");
    }
}

lrd_status_t lrd_page_head(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_html_raw(h, "<h1>");
    lrd_html_bytes(h, f->name, strlen(f->name), 120);
    lrd_page_outcome(f, h);
    lrd_html_raw(h, "</h1>\n");
    LRD_TRY(subject(f, h));
    lesson(f, h);
    ending(f, h);
    lrd_html_raw(h, "<div class=\"tiles\">\n");
    loss_tile(f, h);
    eval_tile(f, h);
    answers_tile(f, h);
    time_tile(f, h);
    rate_tile(f, h);
    tokens_tile(f, h);
    adapter_tile(f, h);
    memory_tile(f, h);
    lrd_html_raw(h, "</div>\n");
    status = h->status;
out:
    return status;
}
