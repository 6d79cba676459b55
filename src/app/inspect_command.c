#include "app/command.h"

#include "base/mem.h"
#include "lora/peft.h"
#include "model/weights.h"

/* The adapter to show: of --adapter, of the settings, or none (--model alone). */
static lrd_status_t choose_adapter(const lrd_cli_t *cli, const lrd_settings_t *settings,
                                   lrd_settings_t **read_out, const lrd_lora_settings_t **lora_out)
{
    lrd_status_t status = LRD_OK;
    const char *folder = cli->config != NULL ? settings->lora.adapter_name_or_path : cli->adapter;
    *lora_out = cli->config != NULL ? &settings->lora : NULL;
    if (folder == NULL)
        goto out;
    LRD_TRY(lrd_peft_read_config(folder, read_out));
    *lora_out = &(*read_out)->lora;
out:
    return status;
}

lrd_status_t lrd_command_inspect(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL, *read = NULL;
    const lrd_lora_settings_t *lora = NULL;
    lrd_model_config_t config;
    lrd_adapter_t *adapter = NULL;
    lrd_weights_t *weights = NULL;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    if (app->cli->config != NULL)
        LRD_TRY(lrd_settings_require(settings, LRD_KEY_model_name_or_path));
    const char *folder = app->cli->config != NULL ? settings->model.name_or_path : app->cli->model;
    LRD_TRY(lrd_model_config_read(folder, &config));
    LRD_TRY(choose_adapter(app->cli, settings, &read, &lora));
    if (lora != NULL)
        LRD_TRY(lrd_model_adapter_create(&config, lora, &adapter));
    LRD_TRY(config.family->print(&config, adapter, lora != NULL ? lora->lora_dropout : 0, &text));
    LRD_TRY(lrd_weights_open(folder, &config, NULL, -1, &weights));
    if (adapter != NULL)
        LRD_TRY(lrd_model_print_trainable(&config, weights->tied, adapter, &text));
    else
        LRD_TRY(lrd_buf_printf(&text, "all params: %lld",
                               (long long)lrd_model_count_parameters(&config, weights->tied)));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_buf_release(&text);
    lrd_weights_close(weights);
    lrd_adapter_free(adapter);
    lrd_settings_free(read);
    lrd_settings_free(settings);
    return status;
}
