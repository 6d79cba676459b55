#include "train/output.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "lora/peft.h"
#include "train/gather.h"

#include <math.h>
#include <stdio.h>

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

/* Adapter, card and log of the run. */
static lrd_status_t write_adapter(const lrd_session_t *s, const char *folder, const float *params)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t about = {0};
    const lrd_history_facts_t facts = facts_of(s);
    LRD_TRY(describe(s, &about));
    LRD_TRY(lrd_peft_write(
        folder, s->adapter, s->lora, params,
        &(lrd_peft_card_t){.base_model = s->o.settings->model.name_or_path, .about = about.data}));
    LRD_TRY(lrd_history_write(&s->history, &facts, folder));
out:
    lrd_buf_release(&about);
    return status;
}

static lrd_status_t write_checkpoint(lrd_session_t *s, const lrd_optimizer_state_t *state,
                                     bool interrupted)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL, *partial = NULL;
    lrd_checkpoint_t c = {.optimizer = *state,
                          .step = s->history.global_step,
                          .n_updates = s->n_updates,
                          .records_per_update = s->records_per_update,
                          .loss_sum = s->history.loss_sum,
                          .loss_count = s->history.loss_count,
                          .interrupted = interrupted,
                          .settings = (lrd_settings_t *)s->o.settings};
    snprintf(c.data_key, sizeof c.data_key, "%s", s->data_key);
    snprintf(c.machine, sizeof c.machine, "%s", s->engine.machine);
    LRD_ALLOC(path, lrd_checkpoint_path(s->o.settings->training.output_dir, c.step));
    LRD_TRY(lrd_folder_begin(path, &partial));
    LRD_TRY(write_adapter(s, partial, c.optimizer.params));
    LRD_TRY(lrd_checkpoint_write(partial, s->adapter, &c));
    LRD_TRY(lrd_folder_commit(partial, path));
out:
    if (status != LRD_OK)
        lrd_folder_abandon(partial);
    lrd_free(partial);
    lrd_free(path);
    return status;
}

/* Removes the oldest checkpoints beyond the limit. */
static lrd_status_t rotate(const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    const int64_t newest = s->history.global_step;
    int64_t *steps = NULL;
    size_t n = 0;
    char *path = NULL;
    if (t->save_total_limit == LRD_SETTING_NULL)
        goto out;
    LRD_TRY(lrd_checkpoint_list(t->output_dir, &steps, &n));
    size_t left = n;
    for (size_t i = 0; i < n && left > (size_t)t->save_total_limit; i++) {
        const bool is_best = t->load_best_model_at_end && s->history.has_best &&
                             steps[i] == s->history.best_global_step;
        if (steps[i] == newest || is_best)
            continue;
        lrd_free(path);
        LRD_ALLOC(path, lrd_checkpoint_path(t->output_dir, steps[i]));
        LRD_TRY(lrd_folder_discard(path));
        left--;
    }
out:
    lrd_free(path);
    lrd_free(steps);
    return status;
}

lrd_status_t lrd_output_checkpoint(lrd_session_t *s, bool interrupted)
{
    lrd_status_t status = LRD_OK;
    lrd_optimizer_state_t state;
    float *memory = NULL;
    status = lrd_gather_state(s, &state, &memory);
    if (status != LRD_OK)
        return status; /* agreed on */
    if (lrd_comm_rank(s->o.comm) == 0) {
        LRD_TRY(write_checkpoint(s, &state, interrupted));
        LRD_TRY(rotate(s));
        lrd_info("Wrote %s/checkpoint-%lld", s->o.settings->training.output_dir,
                 (long long)s->history.global_step);
    }
out:
    lrd_free(memory);
    return lrd_agree(s->o.comm, status);
}

static const char *const metric_names[] = {
#define X(enumerator, name) name,
    LRD_METRIC_LIST(X)
#undef X
};

static lrd_status_t write_final(lrd_session_t *s, const lrd_optimizer_state_t *state)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    char *best = NULL, *path = NULL, *partial = NULL;
    if (t->load_best_model_at_end && s->history.has_best) {
        LRD_ALLOC(best, lrd_checkpoint_path(t->output_dir, s->history.best_global_step));
        LRD_TRY(lrd_peft_read_params(best, s->adapter, state->params));
        lrd_info("The best evaluation was at update %lld (eval_%s %.6g): its adapter is the result",
                 (long long)s->history.best_global_step, metric_names[t->metric_for_best_model],
                 s->history.best_metric);
    }
    LRD_ALLOC(path, lrd_path_join(t->output_dir, "adapter"));
    LRD_TRY(lrd_folder_begin(path, &partial));
    LRD_TRY(write_adapter(s, partial, state->params));
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
    lrd_optimizer_state_t state;
    float *memory = NULL;
    status = lrd_gather_state(s, &state, &memory);
    if (status != LRD_OK)
        return status; /* agreed on */
    if (lrd_comm_rank(s->o.comm) == 0)
        status = write_final(s, &state);
    lrd_free(memory);
    return lrd_agree(s->o.comm, status);
}
