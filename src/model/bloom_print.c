/* BLOOM as PyTorch prints it, with PEFT's adapters. */
#include "base/json_writer.h"
#include "model/bloom_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A line of the printed tree, indented. */
static lrd_status_t line(lrd_buf_t *buf, int indent, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static lrd_status_t line(lrd_buf_t *buf, int indent, const char *format, ...)
{
    lrd_status_t status = LRD_OK;
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    LRD_TRY(lrd_buf_printf(buf, "%*s%s\n", indent, "", text));
out:
    return status;
}

/* An adapted linear as PEFT's lora.Linear prints it, or a plain one. */
static lrd_status_t print_linear(const lrd_model_config_t *c, const lrd_adapter_t *adapter,
                                 double dropout, int layer, int place, lrd_buf_t *buf, int indent)
{
    lrd_status_t status = LRD_OK;
    const lrd_linear_decl_t *linear = &c->family->linears[place];
    const lrd_tensor_decl_t *w = &c->family->block_tensors[linear->weight];
    const long long n_in = lrd_dim_size(c, w->shape[1]), n_out = lrd_dim_size(c, w->shape[0]);
    const char *name = strchr(linear->name, '.') + 1;
    const lrd_adapter_item_t *item =
        adapter != NULL ? lrd_adapter_find(adapter, layer, place) : NULL;
    if (item == NULL) {
        LRD_TRY(line(buf, indent, "(%s): Linear(in_features=%lld, out_features=%lld, bias=True)",
                     name, n_in, n_out));
        goto out;
    }
    char p[32], drop[64] = "Identity()";
    lrd_format_real(dropout, p);
    if (dropout > 0)
        snprintf(drop, sizeof drop, "Dropout(p=%s, inplace=False)", p);
    const long long r = item->r;
    LRD_TRY(line(buf, indent, "(%s): lora.Linear(", name));
    LRD_TRY(line(buf, indent + 2,
                 "(base_layer): Linear(in_features=%lld, out_features=%lld, bias=True)", n_in,
                 n_out));
    LRD_TRY(line(buf, indent + 2, "(lora_dropout): ModuleDict("));
    LRD_TRY(line(buf, indent + 4, "(default): %s", drop));
    LRD_TRY(line(buf, indent + 2, ")"));
    LRD_TRY(line(buf, indent + 2, "(lora_A): ModuleDict("));
    LRD_TRY(line(buf, indent + 4,
                 "(default): Linear(in_features=%lld, out_features=%lld, bias=False)", n_in, r));
    LRD_TRY(line(buf, indent + 2, ")"));
    LRD_TRY(line(buf, indent + 2, "(lora_B): ModuleDict("));
    LRD_TRY(line(buf, indent + 4,
                 "(default): Linear(in_features=%lld, out_features=%lld, bias=False)", r, n_out));
    LRD_TRY(line(buf, indent + 2, ")"));
    LRD_TRY(line(buf, indent + 2, "(lora_embedding_A): ParameterDict()"));
    LRD_TRY(line(buf, indent + 2, "(lora_embedding_B): ParameterDict()"));
    LRD_TRY(line(buf, indent + 2, "(lora_magnitude_vector): ModuleDict()"));
    LRD_TRY(line(buf, indent, ")"));
out:
    return status;
}

static lrd_status_t print_norm(const lrd_model_config_t *c, const char *name, lrd_buf_t *buf,
                               int indent)
{
    char eps[32];
    lrd_format_real(c->layer_norm_epsilon, eps);
    return line(buf, indent, "(%s): LayerNorm((%lld,), eps=%s, elementwise_affine=True, bias=True)",
                name, (long long)c->hidden, eps);
}

/* What stands between a block's parentheses. */
static lrd_status_t print_block(const lrd_model_config_t *c, const lrd_adapter_t *adapter,
                                double dropout, int layer, lrd_buf_t *buf, int indent)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(print_norm(c, "input_layernorm", buf, indent));
    LRD_TRY(line(buf, indent, "(self_attention): BloomAttention("));
    LRD_TRY(print_linear(c, adapter, dropout, layer, QKV, buf, indent + 2));
    LRD_TRY(print_linear(c, adapter, dropout, layer, DENSE, buf, indent + 2));
    LRD_TRY(line(buf, indent + 2, "(attention_dropout): Dropout(p=0.0, inplace=False)"));
    LRD_TRY(line(buf, indent, ")"));
    LRD_TRY(print_norm(c, "post_attention_layernorm", buf, indent));
    LRD_TRY(line(buf, indent, "(mlp): BloomMLP("));
    LRD_TRY(print_linear(c, adapter, dropout, layer, H_TO_4H, buf, indent + 2));
    LRD_TRY(line(buf, indent + 2, "(gelu_impl): BloomGelu()"));
    LRD_TRY(print_linear(c, adapter, dropout, layer, H4_TO_H, buf, indent + 2));
    LRD_TRY(line(buf, indent, ")"));
out:
    return status;
}

/* The list of blocks; equal neighbours stand as one, "(0-23): 24 x". */
static lrd_status_t print_blocks(const lrd_model_config_t *c, const lrd_adapter_t *adapter,
                                 double dropout, lrd_buf_t *buf, int indent)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t first = {0}, next = {0};
    for (int layer = 0, last; layer < c->n_layers; layer = last + 1) {
        lrd_buf_clear(&first);
        LRD_TRY(print_block(c, adapter, dropout, layer, &first, indent + 2));
        for (last = layer; last + 1 < c->n_layers; last++) {
            lrd_buf_clear(&next);
            LRD_TRY(print_block(c, adapter, dropout, last + 1, &next, indent + 2));
            if (strcmp(first.data, next.data) != 0)
                break;
        }
        if (last > layer)
            LRD_TRY(line(buf, indent, "(%d-%d): %d x BloomBlock(", layer, last, last - layer + 1));
        else
            LRD_TRY(line(buf, indent, "(%d): BloomBlock(", layer));
        LRD_TRY(lrd_buf_add_text(buf, first.data));
        LRD_TRY(line(buf, indent, ")"));
    }
out:
    lrd_buf_release(&next);
    lrd_buf_release(&first);
    return status;
}

lrd_status_t lrd_bloom_print(const lrd_model_config_t *c, const lrd_adapter_t *adapter,
                             double dropout, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    const int i = adapter != NULL ? 4 : 0;
    if (adapter != NULL) {
        LRD_TRY(line(buf, 0, "PeftModelForCausalLM("));
        LRD_TRY(line(buf, 2, "(base_model): LoraModel("));
    }
    LRD_TRY(line(buf, i, "%sBloomForCausalLM(", adapter != NULL ? "(model): " : ""));
    LRD_TRY(line(buf, i + 2, "(transformer): BloomModel("));
    LRD_TRY(line(buf, i + 4, "(word_embeddings): Embedding(%lld, %lld)", (long long)c->vocab_size,
                 (long long)c->hidden));
    LRD_TRY(print_norm(c, "word_embeddings_layernorm", buf, i + 4));
    LRD_TRY(line(buf, i + 4, "(h): ModuleList("));
    LRD_TRY(print_blocks(c, adapter, dropout, buf, i + 6));
    LRD_TRY(line(buf, i + 4, ")"));
    LRD_TRY(print_norm(c, "ln_f", buf, i + 4));
    LRD_TRY(line(buf, i + 2, ")"));
    LRD_TRY(line(buf, i + 2, "(lm_head): Linear(in_features=%lld, out_features=%lld, bias=False)",
                 (long long)c->hidden, (long long)c->vocab_size));
    for (int indent = i; indent >= 0; indent -= 2)
        LRD_TRY(line(buf, indent, ")"));
out:
    return status;
}
