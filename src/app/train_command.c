#include "app/answering.h"
#include "app/folders.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/settings.h"
#include "comm/cpus.h"
#include "train/trainer.h"

#include <stdio.h>
#include <string.h>

/* The repository of training.push_to_hub; lrd_free it. */
static lrd_status_t find_repo(lrd_hub_t *hub, const lrd_training_settings_t *t, char **repo_out)
{
    lrd_status_t status = LRD_OK;
    const char *named = t->hub_model_id != NULL ? t->hub_model_id : t->output_dir;
    if (t->hub_model_id != NULL && strchr(named, '/') != NULL)
        LRD_ALLOC(*repo_out, lrd_strdup(named));
    else
        LRD_TRY(lrd_hub_own_repo(hub, named, repo_out));
out:
    return status;
}

/* Whoever may not publish shall not learn it when the work is done. Makes the repository. */
static lrd_status_t prepare_push(const lrd_app_t *app, const lrd_training_settings_t *t,
                                 char **repo_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    if (!t->push_to_hub)
        goto out;
    LRD_TRY(lrd_hub_open(app->stop, &hub));
    LRD_TRY(find_repo(hub, t, repo_out));
    LRD_TRY(lrd_hub_create(hub, &(lrd_hub_push_t){.folder = t->output_dir,
                                                  .repo = *repo_out,
                                                  .is_private = t->hub_private_repo}));
out:
    lrd_hub_close(hub);
    return status;
}

/* Rank 0, after the work, which is safe in output_dir whatever happens here. */
static lrd_status_t push(const lrd_app_t *app, const lrd_training_settings_t *t, const char *repo)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    char *url = NULL, why[900];
    LRD_TRY(lrd_hub_open(app->stop, &hub));
    LRD_TRY(lrd_hub_push(hub, &(lrd_hub_push_t){.folder = t->output_dir, .repo = repo}, &url));
    lrd_info("The adapter is at %s", url);
out:
    lrd_free(url);
    lrd_hub_close(hub);
    if (status == LRD_OK)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    return lrd_fail(status, __FILE__, __LINE__,
                    "the training is done, but not published: %s. lora-dist push --adapter %s "
                    "--repo %s tries again",
                    why, t->output_dir, repo);
}

/* What the run stands on, before any of it. Collective. */
static lrd_status_t prepare(lrd_app_t *app, const lrd_settings_t *settings,
                            lrd_session_options_t *options, char **model, char **adapter,
                            lrd_data_files_t *data, char **repo)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_settings_require(settings, LRD_KEY_model_name_or_path));
    LRD_TRY(lrd_settings_require(settings, LRD_KEY_data_train_file));
    lrd_comm_share_stop(app->comm, app->stop);
    LRD_TRY(lrd_agree(app->comm,
                      lrd_comm_limit_silence(app->comm, settings->parallel.timeout_seconds)));
    LRD_TRY(lrd_cpus_threads(app->comm, app->cli->threads, &options->n_threads));
    if (lrd_comm_rank(app->comm) == 0)
        status = prepare_push(app, &settings->training, repo);
    LRD_TRY(lrd_agree_unless_stopped(app->comm, status, app->stop));
    LRD_TRY(lrd_find_data_files(app->comm, app->stop, settings, data));
    LRD_TRY(lrd_find_model(app, app->comm, settings, LRD_HUB_MODEL, model));
    LRD_TRY(lrd_find_adapter(app, app->comm, settings->lora.adapter_name_or_path, adapter));
    options->settings = settings;
    options->model_folder = *model;
    options->model_commit = lrd_hub_commit_if_any(*model);
    options->adapter_folder = *adapter;
    options->train_files = lrd_data_files_or_null(&data->train);
    options->eval_files = lrd_data_files_or_null(&data->eval);
out:
    return status;
}

lrd_status_t lrd_command_train(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    lrd_session_options_t options = {
        .comm = app->comm, .backend = app->cli->backend, .stop = app->stop};
    lrd_train_end_t end = LRD_TRAIN_NOT_BEGUN;
    lrd_app_answering_t state = {.generator = NULL};
    const lrd_answering_t answering = lrd_app_answering(&state);
    char *model = NULL, *adapter = NULL, *repo = NULL;
    lrd_data_files_t data = {.train = {0}};
    LRD_TRY(lrd_read_settings(app, &settings));
    status = prepare(app, settings, &options, &model, &adapter, &data, &repo);
    if (status == LRD_ERR_INTERRUPTED) {
        lrd_info("Interrupted while starting: nothing was trained. Run the same command again");
        lrd_error_clear();
        app->interrupted = true;
        status = LRD_OK;
        goto out;
    }
    LRD_TRY(status);
    if (lrd_app_answers(settings))
        options.answering = &answering;
    status = lrd_train(&options, &end);
    app->work_began = end != LRD_TRAIN_NOT_BEGUN;
    app->interrupted = end == LRD_TRAIN_INTERRUPTED;
    LRD_TRY(status);
    if (settings->training.push_to_hub && end == LRD_TRAIN_DONE) {
        if (lrd_comm_rank(app->comm) == 0)
            status = push(app, &settings->training, repo);
        status = lrd_agree(app->comm, status);
    }
out:
    lrd_data_files_release(&data);
    lrd_free(repo);
    lrd_free(adapter);
    lrd_free(model);
    lrd_settings_free(settings);
    return status;
}
