#include "app/folders.h"

#include "base/mem.h"
#include "lora/peft.h"
#include "model/weights.h"

/* The adapter to show: of --adapter, of the settings, or none (--model alone). */
static lrd_status_t choose_adapter(const lrd_app_t *app, const lrd_settings_t *settings,
                                   lrd_settings_t **read_out, const lrd_lora_settings_t **lora_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = app->cli;
    char *folder = NULL;
    const char *given = cli->config != NULL ? settings->lora.adapter_name_or_path : cli->adapter;
    *lora_out = cli->config != NULL ? &settings->lora : NULL;
    LRD_TRY(lrd_find_adapter(app, NULL, given, &folder));
    if (folder == NULL)
        goto out;
    LRD_TRY(lrd_peft_read_config(folder, read_out));
    *lora_out = &(*read_out)->lora;
out:
    lrd_free(folder);
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
    char *folder = NULL;
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL, &folder));
    LRD_TRY(lrd_model_config_read(folder, &config));
    LRD_TRY(choose_adapter(app, settings, &read, &lora));
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
    lrd_free(folder);
    lrd_settings_free(read);
    lrd_settings_free(settings);
    return status;
}
