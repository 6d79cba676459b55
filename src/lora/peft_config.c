#include "lora/peft.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

enum { MAX_CONFIG_BYTES = 4 << 20 };

/* Keys that say the same in PEFT's file and in section lora. */
static const char *const same[] = {
    "r",          "lora_alpha",   "lora_dropout",  "target_modules",      "exclude_modules",
    "use_rslora", "rank_pattern", "alpha_pattern", "layers_to_transform",
};

/* Keys whose every value but null, false, 0 and the empty ones changes what the adapter is. */
static const char *const refused[] = {
    "alora_invocation_tokens",
    "arrow_config",
    "enable_lora",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
};

/* Keys that are looked at elsewhere or make no difference to an adapter that is loaded. */
static const char *const known[] = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "loftq_config",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
};

#define IS_IN(key, list) is_in((key), (list), sizeof(list) / sizeof(list)[0])

static bool is_in(const char *key, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(key, list[i]) == 0)
            return true;
    return false;
}

/* What Python's bool() says. */
static bool is_set(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_STRING:
        return json_string_length(value) > 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) != 0;
    default:
        return json_is_true(value);
    }
}

static lrd_status_t check_kind(const json_t *config, const char *name)
{
    lrd_status_t status = LRD_OK;
    const char *type, *task, *bias;
    LRD_CHECK(json_is_object(config), LRD_ERR_FORMAT, "%s: expected an object, found %s", name,
              lrd_json_type_name(config));
    LRD_TRY(lrd_json_get_text(config, name, "peft_type", NULL, &type));
    LRD_TRY(lrd_json_get_text(config, name, "task_type", "CAUSAL_LM", &task));
    LRD_TRY(lrd_json_get_text(config, name, "bias", "none", &bias));
    LRD_CHECK(type != NULL, LRD_ERR_FORMAT, "%s: \"peft_type\" is missing", name);
    LRD_CHECK(strcmp(type, "LORA") == 0, LRD_ERR_UNSUPPORTED,
              "%s: peft_type \"%.80s\" is not supported, only \"LORA\"", name, type);
    LRD_CHECK(strcmp(task, "CAUSAL_LM") == 0, LRD_ERR_UNSUPPORTED,
              "%s: task_type \"%.80s\" is not supported, only \"CAUSAL_LM\"", name, task);
    LRD_CHECK(strcmp(bias, "none") == 0, LRD_ERR_UNSUPPORTED,
              "%s: bias \"%.80s\" is not supported, only \"none\"", name, bias);
out:
    return status;
}

/* BLOOM's blocks are in "h": with that name or none the layers are found alike. */
static lrd_status_t check_layers_pattern(const json_t *config, const char *name)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(config, "layers_pattern");
    if (value == NULL || !is_set(value))
        goto out;
    if (json_array_size(value) == 1)
        value = json_array_get(value, 0);
    const char *text = json_string_value(value);
    LRD_CHECK(text != NULL && strcmp(text, "h") == 0, LRD_ERR_UNSUPPORTED,
              "%s: layers_pattern is not supported, but for null and \"h\"", name);
out:
    return status;
}

/* How the parameters were made matters to a loaded adapter only where the base was changed too, or
 * B is not to be trained. */
static lrd_status_t read_init(const json_t *config, const char *name, const char **init_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(config, "init_lora_weights");
    const char *text = json_string_value(value);
    const char *init = "true";
    if (json_is_false(value) || json_is_null(value))
        init = "false";
    else if (text != NULL && strcasecmp(text, "gaussian") == 0)
        init = "gaussian";
    else if (text != NULL)
        LRD_CHECK(strcmp(text, "eva") == 0 || strcmp(text, "orthogonal") == 0, LRD_ERR_UNSUPPORTED,
                  "%s: init_lora_weights \"%.80s\" is not supported: such an adapter fits only a "
                  "base model that was changed with it. In PEFT, save it with "
                  "path_initial_model_for_weight_conversion",
                  name, text);
    else
        LRD_CHECK(value == NULL || json_is_true(value), LRD_ERR_FORMAT,
                  "%s: \"init_lora_weights\" is %s, expected true, false or a string", name,
                  lrd_json_type_name(value));
    *init_out = init;
out:
    return status;
}

static lrd_status_t warn_unknown(const json_t *config, const char *name)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t keys = {0};
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)config, key, value)
    {
        if (!IS_IN(key, same) && !IS_IN(key, refused) && !IS_IN(key, known))
            LRD_TRY(lrd_buf_printf(&keys, "%s%.80s", keys.size > 0 ? ", " : "", key));
    }
    if (keys.size > 0)
        lrd_warn("%s: unknown keys, ignored: %s", name, keys.data);
out:
    lrd_buf_release(&keys);
    return status;
}

/* {"lora": {...}} in our own terms; the caller owns it. */
static lrd_status_t translate(const json_t *config, const char *init, json_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    json_t *all = NULL, *lora;
    LRD_ALLOC(all, json_object());
    lora = json_object();
    LRD_CHECK(json_object_set_new(all, "lora", lora) == 0, LRD_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        json_t *value = json_object_get(config, same[i]);
        if (value == NULL)
            continue;
        LRD_CHECK(json_object_set(lora, same[i], value) == 0, LRD_ERR_NO_MEMORY, "out of memory");
    }
    LRD_CHECK(json_object_set_new(lora, "init_lora_weights", json_string(init)) == 0,
              LRD_ERR_NO_MEMORY, "out of memory");
    *settings_out = all;
    all = NULL;
out:
    json_decref(all);
    return status;
}

lrd_status_t lrd_peft_read_config(const char *folder, lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    json_t *config = NULL, *ours = NULL;
    char *path = NULL;
    const char *init = NULL;
    LRD_CHECK(lrd_folder_exists(folder), LRD_ERR_IO,
              "no adapter folder %s here, and a name of the Hub looks like ORG/NAME", folder);
    LRD_ALLOC(path, lrd_path_join(folder, "adapter_config.json"));
    LRD_TRY(lrd_json_read(path, MAX_CONFIG_BYTES, &config));
    LRD_TRY(check_kind(config, path));
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const json_t *value = json_object_get(config, refused[i]);
        LRD_CHECK(value == NULL || !is_set(value), LRD_ERR_UNSUPPORTED,
                  "%s: the adapter uses %s, which is not supported", path, refused[i]);
    }
    LRD_TRY(check_layers_pattern(config, path));
    LRD_TRY(read_init(config, path, &init));
    LRD_TRY(warn_unknown(config, path));
    LRD_TRY(translate(config, init, &ours));
    status = lrd_settings_read_json(ours, path, settings_out);
    if (status == LRD_ERR_CONFIG)
        status = LRD_ERR_FORMAT; /* the file is at fault; the recorded text names the key */
out:
    json_decref(config);
    json_decref(ours);
    lrd_free(path);
    return status;
}
