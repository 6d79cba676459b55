#include "app/answering.h"
#include "app/command.h"

#include "base/settings.h"
#include "comm/cpus.h"
#include "train/trainer.h"

/* A settings file that ranks read differently (a copy per host) would train nonsense. */
static lrd_status_t check_same(lrd_comm_t *comm, const lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .indent = -1};
    bool same = false;
    LRD_TRY(lrd_agree(comm, lrd_settings_write_json(settings, &w)));
    LRD_TRY(lrd_comm_same(comm, text.data, text.size, &same));
    LRD_CHECK(same, LRD_ERR_CONFIG, "%s: the ranks do not read the same settings",
              settings->name != NULL ? settings->name : "the command line");
out:
    lrd_buf_release(&text);
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
    LRD_TRY(lrd_agree(app->comm, lrd_cli_read_settings(app->cli, &settings)));
    LRD_TRY(check_same(app->comm, settings));
    lrd_comm_share_stop(app->comm, app->stop);
    LRD_TRY(lrd_agree(app->comm,
                      lrd_comm_limit_silence(app->comm, settings->parallel.timeout_seconds)));
    LRD_TRY(lrd_cpus_threads(app->comm, app->cli->threads, &options.n_threads));
    options.settings = settings;
    if (lrd_app_answers(settings))
        options.answering = &answering;
    status = lrd_train(&options, &end);
    app->work_began = end != LRD_TRAIN_NOT_BEGUN;
    app->interrupted = end == LRD_TRAIN_INTERRUPTED;
out:
    lrd_settings_free(settings);
    return status;
}
