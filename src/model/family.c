#include "model/family.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

static const lrd_family_t *const families[] = {&lrd_family_bloom};

const lrd_family_t *lrd_family_find(const char *model_type)
{
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        if (strcmp(families[i]->model_type, model_type) == 0)
            return families[i];
    }
    return NULL;
}

int64_t lrd_dim_size(const lrd_model_config_t *config, lrd_dim_t dim)
{
    switch (dim) {
    case LRD_DIM_NONE:
        return 1;
    case LRD_DIM_HIDDEN:
        return config->hidden;
    case LRD_DIM_3HIDDEN:
        return 3 * config->hidden;
    case LRD_DIM_MLP:
        return config->mlp;
    case LRD_DIM_VOCAB:
        return config->vocab_size;
    }
    return 0;
}

lrd_status_t lrd_model_config_read(const char *folder, lrd_model_config_t *config_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    json_t *json = NULL;
    const char *type;
    LRD_CHECK(lrd_folder_exists(folder), LRD_ERR_IO,
              "no model folder %s here, and a name of the Hub looks like bigscience/bloom-560m",
              folder);
    LRD_ALLOC(path, lrd_path_join(folder, "config.json"));
    LRD_TRY(lrd_json_read(path, 1 << 20, &json));
    LRD_CHECK(json_is_object(json), LRD_ERR_FORMAT, "%s: expected an object", path);
    LRD_TRY(lrd_json_get_text(json, path, "model_type", NULL, &type));
    LRD_CHECK(type != NULL, LRD_ERR_FORMAT,
              "%s: \"model_type\" is missing: not a Hugging Face model", path);
    const lrd_family_t *family = lrd_family_find(type);
    LRD_CHECK(family != NULL, LRD_ERR_UNSUPPORTED,
              "%s: model_type \"%s\" is not supported; bloom is", path, type);
    lrd_model_config_t config = {.family = family};
    LRD_TRY(family->read_config(json, path, &config));
    *config_out = config;
out:
    json_decref(json);
    lrd_free(path);
    return status;
}

static int64_t count(const lrd_model_config_t *config, const lrd_tensor_decl_t *tensor, int n)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += lrd_dim_size(config, tensor[i].shape[0]) * lrd_dim_size(config, tensor[i].shape[1]);
    return sum;
}

int64_t lrd_model_count_parameters(const lrd_model_config_t *config, bool tied)
{
    const lrd_family_t *f = config->family;
    return count(config, f->embed_tensors, f->n_embed_tensors) +
           config->n_layers * count(config, f->block_tensors, f->n_block_tensors) +
           count(config, f->final_tensors, f->n_final_tensors) +
           (tied ? 0 : config->vocab_size * config->hidden);
}

lrd_status_t lrd_model_adapter_create(const lrd_model_config_t *config,
                                      const lrd_lora_settings_t *settings,
                                      lrd_adapter_t **adapter_out)
{
    lrd_status_t status = LRD_OK;
    lrd_module_t *modules = NULL;
    size_t n = 0;
    LRD_TRY(config->family->list_modules(config, &modules, &n));
    LRD_TRY(lrd_adapter_create(settings, modules, n, config->family->default_target, adapter_out));
out:
    lrd_free(modules);
    return status;
}

/* 1234567 as "1,234,567". */
static void group_digits(int64_t value, char text[32])
{
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%lld", (long long)value);
    int at = 0;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
}

lrd_status_t lrd_model_print_trainable(const lrd_model_config_t *config, bool tied,
                                       const lrd_adapter_t *adapter, lrd_buf_t *buf)
{
    const int64_t trainable = adapter->n_params;
    const int64_t all = lrd_model_count_parameters(config, tied) + trainable;
    char a[32], b[32];
    group_digits(trainable, a);
    group_digits(all, b);
    return lrd_buf_printf(buf, "trainable params: %s || all params: %s || trainable%%: %.4f", a, b,
                          100.0 * (double)trainable / (double)all);
}
