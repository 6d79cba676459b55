/* Rules between settings. Each function is one subject;
 * it sees values and whether they were written. */
#include "base/settings_private.h"

#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "squad.yaml:12: training.max_steps", "--set training.max_steps", or the key alone. */
typedef struct place {
    char text[512];
} place_t;

static place_t place_of(const lrd_settings_t *s, lrd_key_t key)
{
    place_t p;
    const char *name = s->name != NULL ? s->name : "";
    if (s->place[key] == LRD_PLACE_SET)
        snprintf(p.text, sizeof p.text, "--set %s", lrd_key_name(key));
    else if (s->place[key] > 0)
        snprintf(p.text, sizeof p.text, "%.400s:%d: %s", name, s->place[key], lrd_key_name(key));
    else
        snprintf(p.text, sizeof p.text, "%.400s%s%s", name, name[0] != '\0' ? ": " : "",
                 lrd_key_name(key));
    return p;
}

#define PLACE(key)   (place_of(s, LRD_KEY_##key).text)
#define WRITTEN(key) lrd_settings_written(s, LRD_KEY_##key)

static lrd_status_t check_batches(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(!WRITTEN(training_global_batch_size) ||
                  !WRITTEN(training_gradient_accumulation_steps),
              LRD_ERR_CONFIG,
              "%s: stands beside gradient_accumulation_steps, and both say how large an update is: "
              "leave one out",
              PLACE(training_global_batch_size));
    if (WRITTEN(training_max_tokens_per_micro_batch) && WRITTEN(training_global_batch_size) &&
        WRITTEN(training_per_device_train_batch_size))
        lrd_warn("%s: has no effect beside max_tokens_per_micro_batch and global_batch_size",
                 PLACE(training_per_device_train_batch_size));
out:
    return status;
}

static lrd_status_t check_schedule(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->training;
    if (t->max_steps > 0 && WRITTEN(training_max_steps) && WRITTEN(training_num_train_epochs))
        lrd_warn("%s: has no effect: max_steps %lld wins", PLACE(training_num_train_epochs),
                 (long long)t->max_steps);
    LRD_CHECK(t->warmup_steps < 1 || t->warmup_steps == floor(t->warmup_steps), LRD_ERR_CONFIG,
              "%s: %g is neither a whole number of updates nor a fraction below 1",
              PLACE(training_warmup_steps), t->warmup_steps);
    if (t->warmup_steps > 0 && t->warmup_ratio > 0)
        lrd_warn("%s: has no effect: warmup_steps %g wins", PLACE(training_warmup_ratio),
                 t->warmup_steps);
    if (t->lr_scheduler_type == LRD_SCHEDULE_CONSTANT &&
        (t->warmup_steps > 0 || t->warmup_ratio > 0))
        lrd_warn("%s: constant has no warm-up; constant_with_warmup has",
                 PLACE(training_lr_scheduler_type));
out:
    return status;
}

/* What `key` asks for compares generated answers. */
static lrd_status_t check_answers(const lrd_settings_t *s, bool asked, bool has_eval, lrd_key_t key)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(!asked || s->data.format == LRD_FORMAT_SQUAD, LRD_ERR_CONFIG,
              "%s: exact and f1 compare answers, which only data.format: squad has",
              place_of(s, key).text);
    LRD_CHECK(!asked || has_eval, LRD_ERR_CONFIG, "%s: needs evaluations: write eval_steps",
              place_of(s, key).text);
    LRD_CHECK(!asked || s->data.max_length > s->training.generation_max_new_tokens, LRD_ERR_CONFIG,
              "%s: answers of training.generation_max_new_tokens %lld leave no room for a question "
              "in data.max_length %lld",
              place_of(s, key).text, (long long)s->training.generation_max_new_tokens,
              (long long)s->data.max_length);
out:
    return status;
}

static lrd_status_t check_evaluation(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->training;
    const bool has_data = s->data.eval_file != NULL || s->data.validation_split > 0;
    const bool has_eval = t->eval_steps != LRD_SETTING_NULL;
    LRD_CHECK(s->data.eval_file == NULL || s->data.validation_split == 0, LRD_ERR_CONFIG,
              "%s: stands beside eval_file, and both say what to evaluate on: leave one out",
              PLACE(data_validation_split));
    LRD_CHECK(!has_eval || has_data, LRD_ERR_CONFIG,
              "%s: there is nothing to evaluate on: write data.eval_file or data.validation_split",
              PLACE(training_eval_steps));
    LRD_TRY(check_answers(s, t->metric_for_best_model != LRD_METRIC_LOSS, has_eval,
                          LRD_KEY_training_metric_for_best_model));
    LRD_TRY(check_answers(s, t->predict_with_generate, has_eval,
                          LRD_KEY_training_predict_with_generate));
    if (!t->load_best_model_at_end)
        goto out;
    LRD_CHECK(has_eval, LRD_ERR_CONFIG, "%s: needs evaluations: write eval_steps",
              PLACE(training_load_best_model_at_end));
    LRD_CHECK(t->save_steps % t->eval_steps == 0, LRD_ERR_CONFIG,
              "%s: needs a checkpoint at evaluated steps: save_steps %lld is not a multiple of "
              "eval_steps %lld",
              PLACE(training_load_best_model_at_end), (long long)t->save_steps,
              (long long)t->eval_steps);
out:
    return status;
}

static lrd_status_t check_data(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_data_settings_t *d = &s->data;
    LRD_CHECK(d->format != LRD_FORMAT_JSONL || WRITTEN(data_prompt_template), LRD_ERR_CONFIG,
              "%s: jsonl needs data.prompt_template, which names the members of a record",
              PLACE(data_format));
    LRD_CHECK(d->on_too_long != LRD_TOO_LONG_TRUNCATE_CONTEXT || d->format == LRD_FORMAT_SQUAD,
              LRD_ERR_CONFIG,
              "%s: truncate_context cuts the context, which only data.format: "
              "squad has; write drop or error",
              PLACE(data_on_too_long));
    if (d->format == LRD_FORMAT_TOKENIZED && WRITTEN(data_prompt_template))
        lrd_warn("%s: has no effect: the records are tokens already", PLACE(data_prompt_template));
    if (d->format == LRD_FORMAT_TOKENIZED && d->loss_on != LRD_LOSS_ON_ALL)
        lrd_warn("%s: has no effect: the records' labels say what counts", PLACE(data_loss_on));
    if (d->format != LRD_FORMAT_SQUAD && WRITTEN(data_no_answer_text))
        lrd_warn("%s: has no effect: only squad has questions without an answer",
                 PLACE(data_no_answer_text));
out:
    return status;
}

static lrd_status_t check_targets(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(s->lora.layers_to_transform.n == 0 || !s->lora.target_modules.is_single,
              LRD_ERR_CONFIG,
              "%s: cannot stand beside a target_modules that is a single text, as in PEFT: write "
              "target_modules as a list, or the layers into the regular expression",
              PLACE(lora_layers_to_transform));
out:
    return status;
}

static lrd_status_t check_resume(const lrd_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(!s->training.overwrite_output_dir ||
                  s->training.resume_from_checkpoint.kind != LRD_RESUME_NEWEST,
              LRD_ERR_CONFIG,
              "%s: starts anew, and resume_from_checkpoint: true goes on: leave "
              "one out",
              PLACE(training_overwrite_output_dir));
    if (s->training.hub_model_id != NULL && !s->training.push_to_hub)
        lrd_warn("%s: has no effect without push_to_hub: true", PLACE(training_hub_model_id));
out:
    return status;
}

lrd_status_t lrd_settings_check(const lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(check_batches(settings));
    LRD_TRY(check_schedule(settings));
    LRD_TRY(check_evaluation(settings));
    LRD_TRY(check_data(settings));
    LRD_TRY(check_targets(settings));
    LRD_TRY(check_resume(settings));
out:
    return status;
}
