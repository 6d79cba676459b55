/* tests/lora/lora_support.h -- the module list of a BLOOM model, and adapters for it. */
#ifndef LRD_TESTS_LORA_SUPPORT_H
#define LRD_TESTS_LORA_SUPPORT_H

#include "base/settings.h"
#include "lora/adapter.h"

#include <jansson.h>

typedef struct bloom_modules {
    lrd_module_t *module;
    size_t n;
} bloom_modules_t;

/* All modules that named_modules of BloomForCausalLM gives; places 0 to 3 are query_key_value,
 * dense, dense_h_to_4h, dense_4h_to_h. */
bloom_modules_t bloom_modules_make(int64_t hidden, int layers);
void bloom_modules_free(bloom_modules_t *modules);

/* Settings from "lora: {...}" in YAML, or from the JSON of section lora. */
lrd_settings_t *settings_from_yaml(const char *text);
lrd_settings_t *settings_from_json(json_t *lora);

#endif /* LRD_TESTS_LORA_SUPPORT_H */
