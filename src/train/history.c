#include "train/history.h"

#include "base/file.h"
#include "base/json.h"
#include "base/json_writer.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

const char lrd_history_file[] = "trainer_state.json";

lrd_status_t lrd_history_create(lrd_history_t *h)
{
    lrd_status_t status = LRD_OK;
    *h = (lrd_history_t){0};
    LRD_ALLOC(h->log, json_array());
out:
    return status;
}

void lrd_history_release(lrd_history_t *h)
{
    json_decref(h->log);
    *h = (lrd_history_t){0};
}

/* jansson has no NaN: a number that is not finite is kept as null, which the writer turns back. */
static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static lrd_status_t append(lrd_history_t *h, json_t *entry)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(entry != NULL && json_array_append(h->log, entry) == 0, LRD_ERR_NO_MEMORY,
              "out of memory for the log of the run");
out:
    json_decref(entry);
    return status;
}

lrd_status_t lrd_history_log_step(lrd_history_t *h, double grad_norm, double learning_rate,
                                  double *loss_out)
{
    lrd_status_t status = LRD_OK;
    const double loss = h->loss_count > 0 ? h->loss_sum / (double)h->loss_count : 0.0;
    LRD_TRY(append(h, json_pack("{s:o, s:o, s:o, s:o, s:I}", "epoch", real(h->epoch), "grad_norm",
                                real(grad_norm), "learning_rate", real(learning_rate), "loss",
                                real(loss), "step", (json_int_t)h->global_step)));
    h->loss_sum = 0;
    h->loss_count = 0;
    if (loss_out != NULL)
        *loss_out = loss;
out:
    return status;
}

static json_t *pack_eval(const lrd_history_t *h, const lrd_eval_result_t *r)
{
    const json_int_t step = (json_int_t)h->global_step;
    if (!r->has_answers)
        return json_pack("{s:o, s:o, s:I}", "epoch", real(h->epoch), "eval_loss", real(r->loss),
                         "step", step);
    return json_pack("{s:o, s:o, s:o, s:o, s:I}", "epoch", real(h->epoch), "eval_exact",
                     real(r->exact), "eval_f1", real(r->f1), "eval_loss", real(r->loss), "step",
                     step);
}

lrd_status_t lrd_history_log_eval(lrd_history_t *h, const lrd_eval_result_t *r, lrd_metric_t metric)
{
    lrd_status_t status = LRD_OK;
    const double value = metric == LRD_METRIC_EXACT ? r->exact
                         : metric == LRD_METRIC_F1  ? r->f1
                                                    : r->loss;
    const bool better = metric == LRD_METRIC_LOSS ? value < h->best_metric : value > h->best_metric;
    LRD_TRY(append(h, pack_eval(h, r)));
    if (isfinite(value) && (!h->has_best || better)) {
        h->has_best = true;
        h->best_metric = value;
        h->best_global_step = h->global_step;
    }
out:
    return status;
}

bool lrd_history_has_eval(const lrd_history_t *h, int64_t step)
{
    for (size_t i = json_array_size(h->log); i > 0; i--) {
        const json_t *entry = json_array_get(h->log, i - 1);
        if (json_integer_value(json_object_get(entry, "step")) == step &&
            json_object_get(entry, "eval_loss") != NULL)
            return true;
    }
    return false;
}

static void write_log(lrd_json_writer_t *w, const json_t *log)
{
    size_t i;
    json_t *entry;
    lrd_json_open(w, '[');
    json_array_foreach(log, i, entry)
    {
        const char *key;
        json_t *value;
        lrd_json_open(w, '{');
        json_object_foreach(entry, key, value)
        {
            lrd_json_key(w, key);
            if (json_is_null(value)) /* see real() */
                lrd_json_real(w, NAN);
            else
                lrd_json_value(w, value);
        }
        lrd_json_close(w, '}');
    }
    lrd_json_close(w, ']');
}

static void write_best(lrd_json_writer_t *w, const lrd_history_t *h)
{
    lrd_json_key(w, "best_global_step");
    if (h->has_best)
        lrd_json_int(w, h->best_global_step);
    else
        lrd_json_null(w);
    lrd_json_key(w, "best_metric");
    if (h->has_best)
        lrd_json_real(w, h->best_metric);
    else
        lrd_json_null(w);
}

lrd_status_t lrd_history_print(const lrd_history_t *h, const lrd_history_facts_t *f, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = buf, .indent = 2};
    const int64_t eval_steps = f->training->eval_steps;
    lrd_json_open(&w, '{');
    write_best(&w, h);
    lrd_json_key(&w, "epoch");
    lrd_json_real(&w, h->epoch);
    lrd_json_key(&w, "eval_steps");
    lrd_json_int(&w, eval_steps != LRD_SETTING_NULL ? eval_steps : 500);
    lrd_json_key(&w, "global_step");
    lrd_json_int(&w, h->global_step);
    lrd_json_key(&w, "log_history");
    write_log(&w, h->log);
    lrd_json_key(&w, "logging_steps");
    lrd_json_int(&w, f->training->logging_steps);
    lrd_json_key(&w, "max_steps");
    lrd_json_int(&w, f->max_steps);
    lrd_json_key(&w, "num_train_epochs");
    lrd_json_int(&w, f->n_epochs);
    lrd_json_key(&w, "save_steps");
    lrd_json_int(&w, f->training->save_steps);
    lrd_json_key(&w, "train_batch_size");
    lrd_json_int(&w, f->training->per_device_train_batch_size);
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(buf, "\n"));
out:
    return status;
}

/* jansson refuses NaN and Infinity, which Python and this file write bare. */
static void quote_nonfinite(lrd_buf_t *text)
{
    static const char *const names[] = {": NaN", ": Infinity", ": -Infinity"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t n = strlen(names[i]);
        for (char *at = text->data; (at = strstr(at, names[i])) != NULL; at += n)
            memcpy(at, ":null        ", n); /* as long as the name */
    }
}

lrd_status_t lrd_history_read(const char *folder, lrd_history_t *history_out)
{
    lrd_status_t status = LRD_OK;
    lrd_history_t h = {0};
    lrd_buf_t text = {0};
    json_t *json = NULL;
    char *path = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, lrd_history_file));
    LRD_TRY(lrd_file_read(path, (size_t)1 << 30, &text));
    if (text.size > 0)
        quote_nonfinite(&text);
    LRD_TRY(lrd_json_parse(text.data != NULL ? text.data : "", text.size, path, &json));
    const json_t *log = json_object_get(json, "log_history");
    LRD_CHECK(json_is_array(log), LRD_ERR_FORMAT, "%s: \"log_history\" is not a list", path);
    h.log = json_incref((json_t *)log);
    LRD_TRY(lrd_json_get_int(json, path, "global_step", 0, 0, INT64_MAX, &h.global_step));
    LRD_TRY(lrd_json_get_real(json, path, "epoch", 0, &h.epoch));
    LRD_TRY(
        lrd_json_get_int(json, path, "best_global_step", -1, -1, INT64_MAX, &h.best_global_step));
    LRD_TRY(lrd_json_get_real(json, path, "best_metric", 0, &h.best_metric));
    h.has_best = h.best_global_step >= 0;
    *history_out = h;
    h = (lrd_history_t){0};
out:
    lrd_history_release(&h);
    json_decref(json);
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}
