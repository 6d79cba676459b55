/* A model with an adapter folded in. */
#include "app/folders.h"

#include "base/mem.h"
#include "lora/peft.h"
#include "model/merge.h"

#include <string.h>

lrd_status_t lrd_command_merge(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = app->cli;
    lrd_settings_t *settings = NULL, *adapter_settings = NULL;
    lrd_model_config_t config;
    lrd_adapter_t *adapter = NULL;
    lrd_backend_t *backend = NULL;
    lrd_stream_t *stream = NULL;
    lrd_merge_t *merge = NULL;
    char *model_folder = NULL, *adapter_folder = NULL;
    int n_threads;
    LRD_TRY(lrd_threads_alone(app, &n_threads));
    LRD_CHECK(cli->dtype == NULL || strcmp(cli->dtype, "auto") == 0, LRD_ERR_ARG,
              "--dtype %s: a merged model has the element types of its base", cli->dtype);
    LRD_TRY(lrd_cli_read_settings(cli, &settings));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL, &model_folder));
    LRD_TRY(lrd_find_adapter(app, NULL, cli->adapter, &adapter_folder));
    LRD_TRY(lrd_model_config_read(model_folder, &config));
    LRD_TRY(lrd_peft_read_config(adapter_folder, &adapter_settings));
    LRD_TRY(lrd_model_adapter_create(&config, &adapter_settings->lora, &adapter));
    LRD_TRY(lrd_backend_open(cli->backend, &(lrd_backend_options_t){0, n_threads, NULL}, &backend));
    LRD_TRY(lrd_stream_create(backend, &stream));
    LRD_TRY(lrd_merge_open(&(lrd_merge_spec_t){.model = model_folder,
                                               .adapter_folder = adapter_folder,
                                               .out = cli->out,
                                               .model_name = cli->model,
                                               .adapter_name = cli->adapter,
                                               .config = &config,
                                               .adapter = adapter,
                                               .stream = stream,
                                               .stop = app->stop},
                           &merge));
    app->work_began = true;
    LRD_TRY(lrd_merge_write(merge));
out:
    lrd_merge_close(merge);
    lrd_stream_destroy(stream);
    lrd_backend_close(backend);
    lrd_adapter_free(adapter);
    lrd_free(adapter_folder);
    lrd_free(model_folder);
    lrd_settings_free(adapter_settings);
    lrd_settings_free(settings);
    return status;
}
