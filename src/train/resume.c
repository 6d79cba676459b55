#include "train/resume.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* Keys that say where and how, not what is computed. */
static bool is_harmless(lrd_key_t key)
{
    static const char *const names[] = {
        "model.name_or_path",
        "data.train_file",
        "data.eval_file",
        "data.cache_dir",
        "training.output_dir",
        "training.overwrite_output_dir",
        "training.logging_steps",
        "training.save_steps",
        "training.eval_steps",
        "training.predict_with_generate",
        "training.generation_max_new_tokens",
        "training.save_total_limit",
        "training.push_to_hub",
        "training.hub_model_id",
        "training.hub_private_repo",
        "training.max_nonfinite_steps",
        "training.resume_from_checkpoint",
        "training.per_device_eval_batch_size",
        "training.gradient_accumulation_steps",
        "training.gradient_checkpointing",
        "training.global_batch_size",
        "parallel.",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t n = strlen(names[i]);
        if (strncmp(lrd_key_name(key), names[i], n) == 0 &&
            (names[i][n - 1] == '.' || lrd_key_name(key)[n] == '\0'))
            return true;
    }
    return false;
}

/* Keys whose change leaves the data order and the adapter's shape as they are: named, allowed. */
static bool is_allowed(lrd_key_t key)
{
    static const char *const names[] = {"training.max_steps",
                                        "training.num_train_epochs",
                                        "training.learning_rate",
                                        "training.weight_decay",
                                        "training.max_grad_norm",
                                        "training.lr_scheduler_type",
                                        "training.warmup_steps",
                                        "training.warmup_ratio",
                                        "training.load_best_model_at_end",
                                        "training.metric_for_best_model",
                                        "model.revision"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(lrd_key_name(key), names[i]) == 0)
            return true;
    }
    return false;
}

typedef struct changes {
    lrd_buf_t named, refused;
    lrd_status_t status;
} changes_t;

static void note_change(void *user, lrd_key_t key, const char *before, const char *now)
{
    changes_t *c = user;
    if (is_harmless(key) || c->status != LRD_OK)
        return;
    lrd_buf_t *list = is_allowed(key) ? &c->named : &c->refused;
    c->status = lrd_buf_printf(list, "%s%s was %s, is %s", list->size > 0 ? "; " : "",
                               lrd_key_name(key), before, now);
}

/* Both files of a checkpoint that going on needs. */
static lrd_status_t read_folder(lrd_session_t *s, const char *folder)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_checkpoint_read(folder, s->adapter, &s->checkpoint));
    LRD_TRY(lrd_history_read(folder, &s->history));
    s->history.loss_sum = s->checkpoint.loss_sum;
    s->history.loss_count = s->checkpoint.loss_count;
out:
    return status;
}

static void forget(lrd_session_t *s)
{
    lrd_checkpoint_release(&s->checkpoint);
    lrd_history_release(&s->history);
}

/* The newest checkpoint that can be read, of the n; *folder_out stays NULL: there is none. */
static lrd_status_t read_newest(lrd_session_t *s, const int64_t *steps, size_t n, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    const char *output_dir = s->o.settings->training.output_dir;
    char *folder = NULL;
    while (n > 0) {
        lrd_free(folder);
        LRD_ALLOC(folder, lrd_checkpoint_path(output_dir, steps[--n]));
        const lrd_status_t read = read_folder(s, folder);
        if (read == LRD_OK) {
            *folder_out = folder;
            folder = NULL;
            goto out;
        }
        forget(s);
        if (read != LRD_ERR_FORMAT && read != LRD_ERR_IO)
            LRD_TRY(read);
        lrd_warn("%s cannot be used: %s", folder, lrd_error_text(read));
        lrd_error_clear();
    }
out:
    lrd_free(folder);
    return status;
}

/* A start in a folder that holds checkpoints needs leave. */
static lrd_status_t check_overwrite(const lrd_session_t *s, bool any)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    LRD_CHECK(
        !any || t->overwrite_output_dir, LRD_ERR_CONFIG,
        "%s holds checkpoints of an earlier run. Write training.overwrite_output_dir: true to "
        "start anew, training.resume_from_checkpoint: true to go on, or another output_dir",
        t->output_dir);
out:
    return status;
}

/* Another base is another run. Its name may stay while what it stands for changes, and the other way round. */
static lrd_status_t compare_base(const lrd_session_t *s, lrd_buf_t *refused)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_identity_t *before = &s->checkpoint.base, *now = &s->base;
    const char *separator = refused->size > 0 ? "; " : "";
    if (before->commit[0] != '\0' && now->commit[0] != '\0') {
        if (strcmp(before->commit, now->commit) != 0)
            LRD_TRY(lrd_buf_printf(refused,
                                   "%sthe base model was commit %s, is commit %s (model.revision: "
                                   "\"%s\" names that of the run)",
                                   separator, before->commit, now->commit, before->commit));
    } else if (before->fingerprint[0] != '\0' &&
               strcmp(before->fingerprint, now->fingerprint) != 0) {
        LRD_TRY(lrd_buf_printf(
            refused, "%sthe base model in %s has another config.json or other weights%s%s",
            separator, s->o.model_folder, before->commit[0] != '\0' ? " than commit " : "",
            before->commit));
    }
out:
    return status;
}

/* Whether the run goes on from what was read from `folder`. */
static lrd_status_t may_go_on(const lrd_session_t *s, const char *folder, bool *goes_on_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    const bool is_asked = t->resume_from_checkpoint.kind != LRD_RESUME_INTERRUPTED;
    changes_t changes = {.status = LRD_OK};
    *goes_on_out = is_asked || s->checkpoint.interrupted;
    if (!*goes_on_out)
        goto out;
    LRD_TRY(lrd_settings_compare(s->checkpoint.settings, s->o.settings, note_change, &changes));
    LRD_TRY(changes.status);
    LRD_TRY(compare_base(s, &changes.refused));
    if (changes.refused.size > 0 && !is_asked && t->overwrite_output_dir) {
        *goes_on_out = false; /* it was another run, which may be overwritten */
        goto out;
    }
    LRD_CHECK(
        changes.refused.size == 0, LRD_ERR_CONFIG,
        "%s is of a run with other settings: %s. Go on with the settings of that run, or start "
        "anew: overwrite_output_dir: true and resume_from_checkpoint: false",
        folder, changes.refused.data);
    if (changes.named.size > 0)
        lrd_warn("Going on from %s with changed settings: %s", folder, changes.named.data);
    lrd_info("Going on from %s: %lld of %lld updates are done", folder,
             (long long)s->checkpoint.step, (long long)s->checkpoint.n_updates);
out:
    lrd_buf_release(&changes.named);
    lrd_buf_release(&changes.refused);
    return status;
}

/* Rank 0's: from where the run goes on; NULL: it starts. */
static lrd_status_t choose(lrd_session_t *s, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = &s->o.settings->training;
    const lrd_resume_t *resume = &t->resume_from_checkpoint;
    char *folder = NULL;
    bool goes_on = false;
    int64_t *steps = NULL;
    size_t n = 0;
    LRD_TRY(lrd_checkpoint_tidy(t->output_dir));
    if (resume->kind == LRD_RESUME_FOLDER) {
        LRD_CHECK(lrd_folder_exists(resume->folder), LRD_ERR_CONFIG,
                  "training.resume_from_checkpoint: no folder %s here. Name the folder of a "
                  "checkpoint (output_dir/checkpoint-N), or write true to go on from the newest in "
                  "%s, or null to start",
                  resume->folder, t->output_dir);
        LRD_ALLOC(folder, lrd_strdup(resume->folder));
        LRD_TRY(read_folder(s, folder));
    } else {
        LRD_TRY(lrd_checkpoint_list(t->output_dir, &steps, &n));
    }
    if (n > 0 && resume->kind != LRD_RESUME_NEVER) {
        status = read_newest(s, steps, n, &folder);
        if (status == LRD_ERR_CONFIG && resume->kind == LRD_RESUME_INTERRUPTED &&
            t->overwrite_output_dir) { /* of another adapter, which may be overwritten */
            lrd_error_clear();
            status = LRD_OK;
        }
        LRD_TRY(status);
    }
    if (folder != NULL)
        LRD_TRY(may_go_on(s, folder, &goes_on));
    if (goes_on) {
        *folder_out = folder;
        folder = NULL;
        goto out;
    }
    forget(s);
    LRD_TRY(check_overwrite(s, n > 0)); /* also where all of them are damaged */
    s->starts_over = n > 0;
    if (resume->kind == LRD_RESUME_NEWEST)
        lrd_info("No checkpoint in %s: starting", t->output_dir);
out:
    lrd_free(steps);
    lrd_free(folder);
    return status;
}

lrd_status_t lrd_resume_find(lrd_session_t *s)
{
    enum { PATH_BYTES = 4096 };
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = s->o.comm;
    char *folder = NULL, chosen[PATH_BYTES] = "";
    bool same = true;
    if (lrd_comm_rank(comm) == 0)
        status = choose(s, &folder);
    if (status == LRD_OK && folder != NULL &&
        (size_t)snprintf(chosen, sizeof chosen, "%s", folder) >= sizeof chosen)
        status = lrd_fail(LRD_ERR_CONFIG, __FILE__, __LINE__, "%s: the path is too long", folder);
    lrd_free(folder);
    LRD_TRY(lrd_agree(comm, status));
    LRD_TRY(lrd_comm_broadcast(comm, chosen, sizeof chosen, 0));
    s->resumes = chosen[0] != '\0';
    if (!s->resumes)
        status = lrd_history_create(&s->history);
    else if (lrd_comm_rank(comm) != 0)
        status = read_folder(s, chosen);
    LRD_TRY(lrd_agree(comm, status));
    if (s->resumes)
        LRD_TRY(lrd_comm_same(comm, s->checkpoint.optimizer.params,
                              (size_t)s->adapter->n_params * sizeof(float), &same));
    LRD_CHECK(same, LRD_ERR_FORMAT, "%s: the ranks do not see the same checkpoint there", chosen);
out:
    return status;
}

lrd_status_t lrd_resume_check_batch(const lrd_checkpoint_t *c, const lrd_training_settings_t *t,
                                    int64_t *records_per_update)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(t->global_batch_size == LRD_SETTING_NULL ||
                  t->global_batch_size == c->records_per_update,
              LRD_ERR_CONFIG,
              "training.global_batch_size: %lld: the run to go on with has updates of %lld records",
              (long long)t->global_batch_size, (long long)c->records_per_update);
    if (*records_per_update != c->records_per_update)
        lrd_info("Updates keep the %lld records that they had when the run began",
                 (long long)c->records_per_update);
    *records_per_update = c->records_per_update;
out:
    return status;
}

lrd_status_t lrd_resume_check_data(const lrd_checkpoint_t *c, const char *data_key,
                                   int64_t n_updates)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(strcmp(c->data_key, data_key) == 0, LRD_ERR_CONFIG,
              "the training data is not that of the run to go on with: file, tokenizer or prompt "
              "have changed");
    LRD_CHECK(c->step <= n_updates, LRD_ERR_CONFIG,
              "the run to go on with has done %lld updates, and %lld are asked for: raise "
              "training.max_steps",
              (long long)c->step, (long long)n_updates);
out:
    return status;
}
