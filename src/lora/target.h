/* lora/target.h -- which linears get an adapter, and with what rank: PEFT's rules.
 *
 * Source: peft 0.21.2. Two differences: regular expressions are Oniguruma's, in its Python syntax;
 * and a list of 20 names or more is taken as it is (PEFT first shortens it where it can,
 * after which layers_to_transform also filters modules that were named by their whole path).
 */
#ifndef LRD_LORA_TARGET_H
#define LRD_LORA_TARGET_H

#include "base/settings.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum lrd_module_kind {
    LRD_MODULE_OTHER,
    LRD_MODULE_EMBEDDING,
    LRD_MODULE_LINEAR,
    LRD_MODULE_HEAD /* a linear that "all-linear" leaves out */
} lrd_module_kind_t;

/* A module of the base model, in named_modules order. */
typedef struct lrd_module {
    const char *path;       /* "transformer.h.3.self_attention.query_key_value" */
    const char *class_name; /* "Linear", for messages */
    lrd_module_kind_t kind;
    int64_t n_in, n_out; /* of linears */
    int layer;           /* block it belongs to, -1: none */
    int place;           /* of a block's linears: its number in the block, else -1 */
} lrd_module_t;

/* A module that is to be adapted. */
typedef struct lrd_target {
    size_t module; /* number in the list given */
    int64_t r;
    double alpha;
} lrd_target_t;

/* The targets among n modules, in their order; the caller frees *targets_out with lrd_free.
 * target_modules, exclude_modules, layers_to_transform, r, rank_pattern, lora_alpha and
 * alpha_pattern mean what they mean in PEFT; target_modules null stands for `fallback`.
 * LRD_ERR_CONFIG: nothing matches, a regular expression is malformed. LRD_ERR_UNSUPPORTED: a module
 * that matches cannot be adapted here (the head, an embedding, a norm); the message names it. A
 * rank or alpha pattern that matches no target is a warning. */
lrd_status_t lrd_targets_find(const lrd_lora_settings_t *settings, const lrd_module_t *modules,
                              size_t n, const char *fallback, lrd_target_t **targets_out,
                              size_t *n_out);

#endif /* LRD_LORA_TARGET_H */
