/* What BLOOM's config.json says, and the modules that follow from it. */
#include "base/json.h"
#include "base/mem.h"
#include "model/bloom_parts.h"

#include <math.h>
#include <stdio.h>

/* Settings of BLOOM's own dropouts: none of the published models has any. */
static lrd_status_t refuse_dropout(const json_t *json, const char *path)
{
    static const char *const keys[] = {"hidden_dropout", "attention_dropout"};
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double p;
        LRD_TRY(lrd_json_get_real(json, path, keys[i], 0, &p));
        LRD_CHECK(p == 0, LRD_ERR_UNSUPPORTED,
                  "%s: \"%s\" is %g: dropout inside the frozen base is not supported; set it to 0 "
                  "(the published "
                  "BLOOM models have 0) and use lora.lora_dropout",
                  path, keys[i], p);
    }
out:
    return status;
}

static lrd_status_t read_dtype(const json_t *json, const char *path, int *dtype_out)
{
    lrd_status_t status = LRD_OK;
    const char *name;
    LRD_TRY(lrd_json_get_text(json, path, "dtype", NULL, &name));
    if (name == NULL)
        LRD_TRY(lrd_json_get_text(json, path, "torch_dtype", NULL, &name));
    *dtype_out = name != NULL ? lrd_dtype_parse(name) : -1;
out:
    return status;
}

/* Sizes: n_embed wins over hidden_size, the aliases over n_layer and n_head, as in transformers. */
static lrd_status_t read_sizes(const json_t *json, const char *path, lrd_model_config_t *c)
{
    lrd_status_t status = LRD_OK;
    const int64_t most = 1 << 20;
    LRD_TRY(lrd_json_get_int(json, path, "hidden_size", 64, 1, most, &c->hidden));
    LRD_TRY(lrd_json_get_int(json, path, "n_embed", c->hidden, 1, most, &c->hidden));
    LRD_TRY(lrd_json_get_int(json, path, "n_layer", 2, 1, 65535, &c->n_layers));
    LRD_TRY(lrd_json_get_int(json, path, "num_hidden_layers", c->n_layers, 1, 65535, &c->n_layers));
    LRD_TRY(lrd_json_get_int(json, path, "n_head", 8, 1, most, &c->n_heads));
    LRD_TRY(lrd_json_get_int(json, path, "num_attention_heads", c->n_heads, 1, most, &c->n_heads));
    LRD_TRY(lrd_json_get_int(json, path, "vocab_size", 250880, 1, INT32_MAX, &c->vocab_size));
    LRD_CHECK(c->hidden % c->n_heads == 0, LRD_ERR_FORMAT,
              "%s: %lld heads do not divide the hidden size of %lld", path, (long long)c->n_heads,
              (long long)c->hidden);
    c->head_dim = c->hidden / c->n_heads;
    LRD_CHECK(c->head_dim <= 128 && c->head_dim % 8 == 0, LRD_ERR_UNSUPPORTED,
              "%s: a head size of %lld: multiples of 8 up to 128 are supported", path,
              (long long)c->head_dim);
    c->mlp = 4 * c->hidden;
out:
    return status;
}

lrd_status_t lrd_bloom_read_config(const json_t *json, const char *path, lrd_model_config_t *c)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(read_sizes(json, path, c));
    LRD_TRY(refuse_dropout(json, path));
    LRD_TRY(read_dtype(json, path, &c->dtype));
    LRD_TRY(lrd_json_get_real(json, path, "layer_norm_epsilon", 1e-5, &c->layer_norm_epsilon));
    LRD_CHECK(c->layer_norm_epsilon >= 0 && isfinite(c->layer_norm_epsilon), LRD_ERR_FORMAT,
              "%s: \"layer_norm_epsilon\" is %g, expected 0 or more", path, c->layer_norm_epsilon);
    LRD_TRY(lrd_json_get_bool(json, path, "apply_residual_connection_post_layernorm", false,
                              &c->residual_after_norm));
    LRD_TRY(lrd_json_get_bool(json, path, "tie_word_embeddings", true, &c->tie_word_embeddings));
    LRD_TRY(lrd_json_get_int(json, path, "bos_token_id", 1, -1, INT32_MAX, &c->bos_token_id));
    LRD_TRY(lrd_json_get_int(json, path, "eos_token_id", 2, -1, INT32_MAX, &c->eos_token_id));
    LRD_TRY(lrd_json_get_int(json, path, "pad_token_id", -1, -1, INT32_MAX, &c->pad_token_id));
out:
    return status;
}

/* A module of the list below: [block prefix] + name. */
typedef struct module_decl {
    const char *name, *class_name;
    lrd_module_kind_t kind;
    lrd_dim_t n_in, n_out;
    int place;
} module_decl_t;

static const module_decl_t before_blocks[] = {
    {"transformer", "BloomModel", LRD_MODULE_OTHER, 0, 0, -1},
    {"transformer.word_embeddings", "Embedding", LRD_MODULE_EMBEDDING, LRD_DIM_VOCAB,
     LRD_DIM_HIDDEN, -1},
    {"transformer.word_embeddings_layernorm", "LayerNorm", LRD_MODULE_OTHER, 0, 0, -1},
    {"transformer.h", "ModuleList", LRD_MODULE_OTHER, 0, 0, -1},
};

static const module_decl_t in_block[] = {
    {"", "BloomBlock", LRD_MODULE_OTHER, 0, 0, -1},
    {".input_layernorm", "LayerNorm", LRD_MODULE_OTHER, 0, 0, -1},
    {".self_attention", "BloomAttention", LRD_MODULE_OTHER, 0, 0, -1},
    {".self_attention.query_key_value", "Linear", LRD_MODULE_LINEAR, LRD_DIM_HIDDEN,
     LRD_DIM_3HIDDEN, QKV},
    {".self_attention.dense", "Linear", LRD_MODULE_LINEAR, LRD_DIM_HIDDEN, LRD_DIM_HIDDEN, DENSE},
    {".self_attention.attention_dropout", "Dropout", LRD_MODULE_OTHER, 0, 0, -1},
    {".post_attention_layernorm", "LayerNorm", LRD_MODULE_OTHER, 0, 0, -1},
    {".mlp", "BloomMLP", LRD_MODULE_OTHER, 0, 0, -1},
    {".mlp.dense_h_to_4h", "Linear", LRD_MODULE_LINEAR, LRD_DIM_HIDDEN, LRD_DIM_MLP, H_TO_4H},
    {".mlp.gelu_impl", "BloomGelu", LRD_MODULE_OTHER, 0, 0, -1},
    {".mlp.dense_4h_to_h", "Linear", LRD_MODULE_LINEAR, LRD_DIM_MLP, LRD_DIM_HIDDEN, H4_TO_H},
};

static const module_decl_t after_blocks[] = {
    {"transformer.ln_f", "LayerNorm", LRD_MODULE_OTHER, 0, 0, -1},
    {"lm_head", "Linear", LRD_MODULE_HEAD, LRD_DIM_HIDDEN, LRD_DIM_VOCAB, -1},
};

enum { MODULE_NAME_BYTES = 80 };

static void put_module(const lrd_model_config_t *c, const module_decl_t *d, const char *before,
                       int layer, lrd_module_t *module, char *name)
{
    snprintf(name, MODULE_NAME_BYTES, "%s%s", before, d->name);
    *module = (lrd_module_t){.path = name,
                             .class_name = d->class_name,
                             .kind = d->kind,
                             .n_in = d->n_in != 0 ? lrd_dim_size(c, d->n_in) : 0,
                             .n_out = d->n_out != 0 ? lrd_dim_size(c, d->n_out) : 0,
                             .layer = layer,
                             .place = d->place};
}

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

lrd_status_t lrd_bloom_list_modules(const lrd_model_config_t *c, lrd_module_t **modules_out,
                                    size_t *n_out)
{
    lrd_status_t status = LRD_OK;
    const size_t n =
        LENGTH(before_blocks) + (size_t)c->n_layers * LENGTH(in_block) + LENGTH(after_blocks);
    lrd_module_t *modules;
    LRD_ALLOC(modules, lrd_calloc(n, sizeof *modules + MODULE_NAME_BYTES));
    char *names = (char *)(modules + n);
    size_t at = 0;
    for (size_t i = 0; i < LENGTH(before_blocks); i++, at++)
        put_module(c, &before_blocks[i], "", -1, &modules[at], names + at * MODULE_NAME_BYTES);
    for (int layer = 0; layer < c->n_layers; layer++) {
        char before[32];
        snprintf(before, sizeof before, "transformer.h.%d", layer);
        for (size_t i = 0; i < LENGTH(in_block); i++, at++)
            put_module(c, &in_block[i], before, layer, &modules[at],
                       names + at * MODULE_NAME_BYTES);
    }
    for (size_t i = 0; i < LENGTH(after_blocks); i++, at++)
        put_module(c, &after_blocks[i], "", -1, &modules[at], names + at * MODULE_NAME_BYTES);
    *modules_out = modules;
    *n_out = n;
out:
    return status;
}
