#include "lora_support.h"

#include "support/test_support.h"

#include "base/mem.h"

#include <string.h>

static void add(bloom_modules_t *list, lrd_module_t module, char *path)
{
    assert_non_null(path);
    module.path = path;
    list->module = lrd_realloc_array(list->module, list->n + 1, sizeof *list->module);
    assert_non_null(list->module);
    list->module[list->n++] = module;
}

bloom_modules_t bloom_modules_make(int64_t hidden, int layers)
{
    static const struct {
        const char *name, *class_name;
        int place, in, out; /* in, out: in hidden sizes */
    } block[] = {
        {"", "BloomBlock", -1, 0, 0},
        {".input_layernorm", "LayerNorm", -1, 0, 0},
        {".self_attention", "BloomAttention", -1, 0, 0},
        {".self_attention.query_key_value", "Linear", 0, 1, 3},
        {".self_attention.dense", "Linear", 1, 1, 1},
        {".self_attention.attention_dropout", "Dropout", -1, 0, 0},
        {".post_attention_layernorm", "LayerNorm", -1, 0, 0},
        {".mlp", "BloomMLP", -1, 0, 0},
        {".mlp.dense_h_to_4h", "Linear", 2, 1, 4},
        {".mlp.gelu_impl", "BloomGelu", -1, 0, 0},
        {".mlp.dense_4h_to_h", "Linear", 3, 4, 1},
    };
    bloom_modules_t list = {0};
    const lrd_module_t other = {.kind = LRD_MODULE_OTHER, .layer = -1, .place = -1};
    lrd_module_t m = other;
    m.class_name = "BloomForCausalLM";
    add(&list, m, lrd_strdup(""));
    m.class_name = "BloomModel";
    add(&list, m, lrd_strdup("transformer"));
    m.class_name = "Embedding";
    m.kind = LRD_MODULE_EMBEDDING;
    add(&list, m, lrd_strdup("transformer.word_embeddings"));
    m.class_name = "LayerNorm";
    m.kind = LRD_MODULE_OTHER;
    add(&list, m, lrd_strdup("transformer.word_embeddings_layernorm"));
    m.class_name = "ModuleList";
    add(&list, m, lrd_strdup("transformer.h"));
    for (int layer = 0; layer < layers; layer++) {
        for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) {
            m = other;
            m.layer = layer;
            m.place = block[i].place;
            m.class_name = block[i].class_name;
            m.kind = block[i].place >= 0 ? LRD_MODULE_LINEAR : LRD_MODULE_OTHER;
            m.n_in = block[i].in * hidden;
            m.n_out = block[i].out * hidden;
            add(&list, m, lrd_asprintf("transformer.h.%d%s", layer, block[i].name));
        }
    }
    m = other;
    m.class_name = "LayerNorm";
    add(&list, m, lrd_strdup("transformer.ln_f"));
    m.class_name = "Linear";
    m.kind = LRD_MODULE_HEAD;
    m.n_in = hidden;
    m.n_out = 32;
    add(&list, m, lrd_strdup("lm_head"));
    return list;
}

void bloom_modules_free(bloom_modules_t *modules)
{
    for (size_t i = 0; i < modules->n; i++)
        lrd_free((void *)(uintptr_t)modules->module[i].path);
    lrd_free(modules->module);
    *modules = (bloom_modules_t){0};
}

lrd_settings_t *settings_from_yaml(const char *text)
{
    lrd_settings_t *settings = NULL;
    assert_ok(lrd_settings_parse(text, strlen(text), "test.yaml", &settings));
    return settings;
}

lrd_settings_t *settings_from_json(json_t *lora)
{
    lrd_settings_t *settings = NULL;
    json_t *all = json_pack("{s:O}", "lora", lora);
    assert_ok(lrd_settings_read_json(all, "test.json", &settings));
    json_decref(all);
    return settings;
}
