/* model/family.h -- what a model family declares, and what the rest of the program makes of it.
 *
 * A family (BLOOM) is one file that knows its config keys, its tensors' names and shapes, its
 * modules as PyTorch prints them, and the forward and backward pass of a block. Loading, memory
 * layout, adapters, the stage runner and generation work from this declaration alone.
 */
#ifndef LRD_MODEL_FAMILY_H
#define LRD_MODEL_FAMILY_H

#include "base/arena.h"
#include "base/buf.h"
#include "kernels/ops.h"
#include "lora/adapter.h"
#include "lora/target.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_family lrd_family_t;
typedef struct lrd_stage lrd_stage_t; /* model/stage.h */

/* config.json as the program uses it. */
typedef struct lrd_model_config {
    const lrd_family_t *family;
    int64_t vocab_size, hidden, n_layers, n_heads, head_dim, mlp;
    double layer_norm_epsilon;
    bool residual_after_norm; /* apply_residual_connection_post_layernorm */
    bool tie_word_embeddings;
    int64_t bos_token_id, eos_token_id, pad_token_id; /* -1: none */
    int dtype;                                        /* lrd_dtype_t it names, or -1 */
} lrd_model_config_t;

/* A dimension of a tensor, by what it is. */
typedef enum lrd_dim {
    LRD_DIM_NONE,
    LRD_DIM_HIDDEN,
    LRD_DIM_3HIDDEN,
    LRD_DIM_MLP,
    LRD_DIM_VOCAB
} lrd_dim_t;

int64_t lrd_dim_size(const lrd_model_config_t *config, lrd_dim_t dim);

/* A tensor of a part (embedding, one block, head). Its name in a file is
 * [prefix] + name, or [prefix] + block prefix + layer + "." + name. */
typedef struct lrd_tensor_decl {
    const char *name;
    lrd_dim_t shape[2]; /* shape[1] == LRD_DIM_NONE: a vector */
} lrd_tensor_decl_t;

/* What a linear takes in the forward pass: one of the stage's buffers, or what the block itself keeps. */
typedef enum lrd_linear_input {
    LRD_INPUT_OWN,
    LRD_INPUT_NORM,
    LRD_INPUT_NORM2,
    LRD_INPUT_MLP
} lrd_linear_input_t;

/* A linear of a block: what adapters attach to. */
typedef struct lrd_linear_decl {
    const char *name; /* in the block: "self_attention.query_key_value" */
    int weight, bias; /* numbers in block_tensors */
    lrd_linear_input_t input;
} lrd_linear_decl_t;

enum { LRD_MAX_LINEARS = 8 };

/* The residual stream between blocks: the sum x + delta is formed by the next norm, which needs to
 * read it anyway. delta.data == NULL: x alone. */
typedef struct lrd_residual {
    lrd_mat_t x, delta; /* [T, C] */
} lrd_residual_t;

/* An adapter's shape with its numbers on the device. */
typedef struct lrd_adapter_use {
    const lrd_adapter_t *adapter; /* NULL: the base alone */
    float *params;                /* device [n_params] */
} lrd_adapter_use_t;

/* One packed micro-batch on the device. Generation fills the lower half: its sequences are new
 * tokens behind those that their slots of the stage's cache hold. */
typedef struct lrd_micro_batch {
    const int32_t *token;      /* [T] */
    const int32_t *target;     /* [T], negative: none; NULL when no loss is asked for */
    const lrd_ce_call_t *call; /* what the head is told; NULL as target */
    const uint64_t *row_key;   /* [T]; NULL without dropout */
    const int32_t *cu_seqlens; /* [S + 1] */
    int64_t n_tokens;
    int64_t n_targets; /* no more rows of `target` are one; 0: not known */
    int32_t n_seqs, max_seqlen;

    const int32_t *cache_len; /* [S]; NULL: no cache, attention inside the sequences alone */
    const int32_t *slot;      /* [S] */
    int32_t max_len;          /* no cache_len + new tokens is more */
    int32_t n_single; /* the first so many sequences bring one row, a single one (kernels/ops.h) */

    /* Host: which adapter acts on which rows, use[i] on use_begin[i] .. use_begin[i + 1] - 1. */
    const lrd_adapter_use_t *use;
    const int32_t *use_begin; /* [n_uses + 1] */
    int32_t n_uses;           /* 0: the stage's own adapter on all rows */
} lrd_micro_batch_t;

struct lrd_family {
    const char *model_type;   /* in config.json */
    const char *prefix;       /* "transformer.": before every name, or before none */
    const char *block_prefix; /* "h." */
    const lrd_tensor_decl_t *embed_tensors, *block_tensors,
        *final_tensors; /* final: before the head */
    int n_embed_tensors, n_block_tensors, n_final_tensors;
    const char *head_name; /* "lm_head.weight", [V, C]; without the prefix; absent when tied */
    int word_embeddings;   /* number of the [V, C] table in embed_tensors */
    const lrd_linear_decl_t *linears; /* places of a block, in module order */
    int n_linears;
    const char *default_target; /* PEFT's choice for this family, a linear's last name */
    size_t block_state_bytes;   /* of the struct that one block's saved activations are kept in */

    /* Reads and checks config.json. path is for messages. */
    lrd_status_t (*read_config)(const json_t *json, const char *path, lrd_model_config_t *config);

    /* All modules in named_modules order; *modules_out and the names are one block for lrd_free. */
    lrd_status_t (*list_modules)(const lrd_model_config_t *config, lrd_module_t **modules_out,
                                 size_t *n_out);

    /* Appends the model as PyTorch prints it; adapter may be NULL. */
    lrd_status_t (*print)(const lrd_model_config_t *config, const lrd_adapter_t *adapter,
                          double dropout, lrd_buf_t *buf);

    /* Values that the stage keeps on the device beside the weights: ALiBi slopes [n_heads]. */
    void (*head_slopes)(const lrd_model_config_t *config, float *slope);

    /* Takes the memory of one block's saved activations (category "activations"), for up to
     * stage->limits.tokens. layer < 0: of none in particular, with room for every adapter where the
     * stage computes blocks again. What is computed again lies in stage->work_state. */
    void (*layout_block)(const lrd_stage_t *stage, int layer, lrd_arena_t *arena, void *state);

    /* The block's input alone; and a whole state that takes its input from one that has it. */
    void (*layout_input)(const lrd_stage_t *stage, lrd_arena_t *arena, void *state);
    void (*borrow_input)(void *state, const void *input_state);

    /* Where the block's input is kept: the stage's first block gets it from the embedding (or from
     * another stage) in place. */
    lrd_mat_t (*block_input)(const void *state);

    lrd_status_t (*embed_forward)(lrd_stage_t *stage, const lrd_micro_batch_t *batch, lrd_mat_t x);

    /* One block forward: reads *residual, leaves its own. */
    lrd_status_t (*block_forward)(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                  void *state, lrd_residual_t *residual);

    /* One block backward: d [T, C] is the gradient of its output and becomes that of its input;
     * accumulates the adapter's gradients. Nothing below the lowest adapter is computed. */
    lrd_status_t (*block_backward)(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                   void *state, lrd_mat_t d);
};

extern const lrd_family_t lrd_family_bloom;

/* The family of a model_type, or NULL. */
const lrd_family_t *lrd_family_find(const char *model_type);

/* Reads <folder>/config.json. LRD_ERR_UNSUPPORTED names a family or a feature that is not there. */
lrd_status_t lrd_model_config_read(const char *folder, lrd_model_config_t *config_out);

/* The adapter that the settings ask for on this model (lrd_adapter_create). */
lrd_status_t lrd_model_adapter_create(const lrd_model_config_t *config,
                                      const lrd_lora_settings_t *settings,
                                      lrd_adapter_t **adapter_out);

/* Appends PEFT's line: "trainable params: 786,432 || all params: ... || trainable%: 0.1404". */
lrd_status_t lrd_model_print_trainable(const lrd_model_config_t *config, bool tied,
                                       const lrd_adapter_t *adapter, lrd_buf_t *buf);

/* Parameters of the base model, a tied head counted once. */
int64_t lrd_model_count_parameters(const lrd_model_config_t *config, bool tied);

#endif /* LRD_MODEL_FAMILY_H */
