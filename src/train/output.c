#include "train/output.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "lora/peft.h"
#include "train/gather.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What the model card says below its title. */
static lrd_status_t describe(const lrd_session_t *s, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    LRD_TRY(lrd_buf_printf(
        text,
        "A LoRA adapter of `%s`, trained on %lld records of `%s` for %lld updates of %lld records "
        "(learning rate %g, %s).",
        x->model.name_or_path, (long long)d->n_records, lrd_path_base(d->name),
        (long long)s->history.global_step, (long long)s->records_per_update,
        x->training.learning_rate, lrd_dtype_setting_name(s->engine.weights->dtype)));
out:
    return status;
}

static lrd_history_facts_t facts_of(const lrd_session_t *s)
{
    const int64_t per_epoch = lrd_loader_updates_per_epoch(s->loader);
    return (lrd_history_facts_t){.training = &s->o.settings->training,
                                 .max_steps = s->n_updates,
                                 .n_epochs = (s->n_updates + per_epoch - 1) / per_epoch};
}

/* Was the base named by its repository, not by a folder? */
static bool is_named(const lrd_session_t *s)
{
    return strcmp(s->o.settings->model.name_or_path, s->o.model_folder) != 0;
}

/* All but the state, which lrd_gather_state has put there. */
static lrd_status_t take_snapshot(lrd_session_t *s, bool interrupted)
{
    lrd_status_t status = LRD_OK;
    lrd_snapshot_t *x = &s->saver.snapshot;
    lrd_checkpoint_t *c = &x->checkpoint;
    const lrd_training_settings_t *t = &s->o.settings->training;
    const lrd_history_facts_t facts = facts_of(s);
    x->settings = s->o.settings;
    x->lora = s->lora;
    x->adapter = s->adapter;
    x->best_step =
        t->load_best_model_at_end && s->history.has_best ? s->history.best_global_step : -1;
    x->alone = s->starts_over;
    x->revision = is_named(s) ? s->o.model_commit : NULL;
    s->starts_over = false;
    *c = (lrd_checkpoint_t){.optimizer = c->optimizer,
                            .step = s->history.global_step,
                            .n_updates = s->n_updates,
                            .records_per_update = s->records_per_update,
                            .loss_sum = s->history.loss_sum,
                            .loss_count = s->history.loss_count,
                            .interrupted = interrupted,
                            .base = s->base,
                            .settings = (lrd_settings_t *)s->o.settings};
    snprintf(c->data_key, sizeof c->data_key, "%s", s->data_key);
    snprintf(c->machine, sizeof c->machine, "%s", s->engine.machine);
    x->about.size = x->history.size = 0;
    LRD_TRY(describe(s, &x->about));
    LRD_TRY(lrd_history_print(&s->history, &facts, &x->history));
out:
    return status;
}

lrd_status_t lrd_output_checkpoint(lrd_session_t *s, bool interrupted)
{
    lrd_status_t status = LRD_OK;
    const bool writes = lrd_comm_rank(s->o.comm) == 0;
    if (writes)
        LRD_TRY(lrd_saver_wait(&s->saver));
    const double begun = lrd_clock_seconds();
    LRD_TRY(lrd_gather_state(s, &s->saver.snapshot.checkpoint.optimizer));
    if (!writes)
        goto out;
    LRD_TRY(take_snapshot(s, interrupted));
    LRD_TRY(lrd_saver_start(&s->saver));
    lrd_debug("checkpoint-%lld: taken in %.2f ms", (long long)s->history.global_step,
              1e3 * (lrd_clock_seconds() - begun));
out:
    return lrd_comm_abort(s->o.comm, status);
}

lrd_status_t lrd_output_check(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_saver_poll(&s->saver));
    LRD_TRY(lrd_claim_check(s->claim));
out:
    return lrd_comm_abort(s->o.comm, status);
}

lrd_status_t lrd_output_settle(lrd_session_t *s)
{
    return lrd_agree(s->o.comm, lrd_saver_wait(&s->saver));
}

const char lrd_evaluation_ending[] = ".evaluation.json";

static void remove_file(const char *path)
{
    if (unlink(path) != 0 && errno != ENOENT)
        lrd_warn("cannot remove %s: %s; a report will show it as this run's", path,
                 strerror(errno));
}

/* A record of an evaluation, as `eval` writes it, of something else than this base alone. */
static bool is_of_another_run(const lrd_session_t *s, const json_t *record)
{
    const char *model = json_string_value(json_object_get(record, "model"));
    const json_t *adapter = json_object_get(record, "adapter");
    if (model == NULL || adapter == NULL || !json_is_object(json_object_get(record, "metrics")) ||
        !json_is_array(json_object_get(record, "examples")))
        return false;
    return !json_is_null(adapter) || strcmp(model, s->o.settings->model.name_or_path) != 0;
}

static lrd_status_t remove_evaluation(const lrd_session_t *s, const char *file)
{
    enum { MOST_BYTES = 64 << 20 };
    lrd_status_t status = LRD_OK;
    const char *folder = s->o.settings->training.output_dir;
    char *path = NULL, *predictions = NULL;
    json_t *record = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, file));
    if (lrd_json_read(path, MOST_BYTES, &record) != LRD_OK)
        lrd_error_clear(); /* `eval` did not write it like that */
    if (!is_of_another_run(s, record))
        goto out;
    const char *name = json_string_value(json_object_get(record, "predictions"));
    if (name != NULL && strchr(name, '/') == NULL) {
        LRD_ALLOC(predictions, lrd_path_join(folder, name));
        remove_file(predictions);
    }
    remove_file(path);
out:
    json_decref(record);
    lrd_free(predictions);
    lrd_free(path);
    return status;
}

static bool is_evaluation(const char *file)
{
    const size_t n = strlen(file), m = strlen(lrd_evaluation_ending);
    return n > m && strcmp(file + n - m, lrd_evaluation_ending) == 0;
}

void lrd_output_start_over(const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    if (lrd_comm_rank(s->o.comm) != 0 || !s->o.settings->training.overwrite_output_dir)
        goto out;
    LRD_TRY(lrd_folder_list(s->o.settings->training.output_dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        if (is_evaluation(names.name[i]))
            LRD_TRY(remove_evaluation(s, names.name[i]));
    }
out:
    if (status != LRD_OK) {
        lrd_warn("a report may show evaluations of an earlier run as this one's: %s",
                 lrd_error_text(status));
        lrd_error_clear();
    }
    lrd_names_free(&names);
}

static const char *const metric_names[] = {
#define X(enumerator, name) name,
    LRD_METRIC_LIST(X)
#undef X
};

/* In the memory of snapshots, none of which is under way any more. */
static lrd_status_t write_final(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    const lrd_snapshot_t *x = &s->saver.snapshot;
    float *params = x->checkpoint.optimizer.params;
    char *best = NULL, *path = NULL, *partial = NULL;
    LRD_TRY(lrd_claim_check(s->claim));
    LRD_TRY(take_snapshot(s, false));
    if (t->load_best_model_at_end && s->history.has_best) {
        LRD_ALLOC(best, lrd_checkpoint_path(t->output_dir, s->history.best_global_step));
        LRD_TRY(lrd_peft_read_params(best, s->adapter, params));
        lrd_info("The best evaluation was at update %lld (eval_%s %.6g): its adapter is the result",
                 (long long)s->history.best_global_step, metric_names[t->metric_for_best_model],
                 s->history.best_metric);
    }
    LRD_ALLOC(path, lrd_path_join(t->output_dir, "adapter"));
    LRD_TRY(lrd_folder_begin(path, &partial));
    LRD_TRY(lrd_snapshot_write_adapter(x, partial));
    LRD_TRY(lrd_folder_merge(partial, t->output_dir));
out:
    if (status != LRD_OK)
        lrd_folder_abandon(partial);
    lrd_free(partial);
    lrd_free(path);
    lrd_free(best);
    return status;
}

lrd_status_t lrd_output_final(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(
        lrd_comm_abort(s->o.comm, lrd_gather_state(s, &s->saver.snapshot.checkpoint.optimizer)));
    if (lrd_comm_rank(s->o.comm) == 0)
        status = write_final(s);
    status = lrd_agree(s->o.comm, status);
out:
    return status;
}
