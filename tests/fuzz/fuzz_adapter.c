/* An adapter's folder as PEFT leaves it: two bytes tell how much of the input is adapter_config.json,
 * the rest is adapter_model.safetensors. The configuration is read and applied to the modules of a
 * small model; the file is read into an adapter of that shape, and into one that is always there. */
#include "fuzz/fuzz_folder.h"

#include "base/log.h"
#include "base/mem.h"
#include "lora/peft.h"

#include <string.h>

static const lrd_module_t modules[] = {
    {"", "BloomForCausalLM", LRD_MODULE_OTHER, 0, 0, -1, -1},
    {"transformer.word_embeddings", "Embedding", LRD_MODULE_EMBEDDING, 0, 0, -1, -1},
    {"transformer.h.0.self_attention.query_key_value", "Linear", LRD_MODULE_LINEAR, 4, 12, 0, 0},
    {"transformer.h.0.mlp.dense_h_to_4h", "Linear", LRD_MODULE_LINEAR, 4, 16, 0, 2},
    {"lm_head", "Linear", LRD_MODULE_HEAD, 4, 9, -1, -1},
};
enum { N_MODULES = sizeof modules / sizeof modules[0] };

/* Read twice into different memory: every number comes from the file. */
static void read_params(const lrd_adapter_t *adapter)
{
    const size_t bytes = (size_t)adapter->n_params * sizeof(float);
    float *once = lrd_malloc(bytes), *twice = lrd_malloc(bytes);
    FUZZ_CHECK(once != NULL && twice != NULL);
    memset(once, 1, bytes);
    memset(twice, 2, bytes);
    if (lrd_peft_read_params(fuzz_folder, adapter, once) == LRD_OK) {
        FUZZ_CHECK(lrd_peft_read_params(fuzz_folder, adapter, twice) == LRD_OK);
        FUZZ_CHECK(memcmp(once, twice, bytes) == 0);
    }
    lrd_free(twice);
    lrd_free(once);
    lrd_error_clear();
}

static void check_adapter(const lrd_lora_settings_t *lora)
{
    lrd_adapter_t *adapter = NULL;
    if (lrd_adapter_create(lora, modules, N_MODULES, "query_key_value", &adapter) == LRD_OK) {
        FUZZ_CHECK(adapter->n_items > 0 && adapter->n_items <= 2);
        FUZZ_CHECK(adapter->begin[2 * adapter->n_items] == adapter->n_params);
        read_params(adapter);
    } else {
        FUZZ_CHECK(adapter == NULL);
    }
    lrd_adapter_free(adapter);
    lrd_error_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_settings_t *settings = NULL, *defaults = NULL;
    if (size < 2)
        return 0;
    lrd_log_set_level(LRD_LOG_ERROR);
    size_t config = data[0] + 256u * data[1];
    config = config < size - 2 ? config : size - 2;
    fuzz_folder_put("adapter_config.json", data + 2, config);
    fuzz_folder_put("adapter_model.safetensors", data + 2 + config, size - 2 - config);
    if (lrd_peft_read_config(fuzz_folder, &settings) == LRD_OK)
        check_adapter(&settings->lora);
    else
        FUZZ_CHECK(settings == NULL);
    lrd_error_clear();
    FUZZ_CHECK(lrd_settings_create(&defaults) == LRD_OK);
    defaults->lora.r = 2;
    check_adapter(&defaults->lora);
    lrd_settings_free(defaults);
    lrd_settings_free(settings);
    return 0;
}
