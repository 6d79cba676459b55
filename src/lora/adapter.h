/* lora/adapter.h -- an adapter's shape: which A and B there are,
 * and where they lie in one flat buffer.
 *
 *   item 0: A [r, n_in]  B [n_out, r]   item 1: A B   ...      float32, n_params in all
 *
 * Items stand in named_modules order, A before B: the order of torch's parameters. The adapter
 * itself holds no numbers; parameters, gradients and moments are flat buffers of n_params floats
 * that others own, on the host or on a device.
 */
#ifndef LRD_LORA_ADAPTER_H
#define LRD_LORA_ADAPTER_H

#include "base/dtype.h"
#include "lora/target.h"

typedef struct lrd_adapter_item {
    char *path; /* of the module it adapts; owned by the adapter */
    int layer, place;
    int64_t n_in, n_out, r;
    double alpha;
    double scale; /* alpha / r, or alpha / sqrt(r) with use_rslora */
    int64_t a, b; /* where A and B begin in the flat buffer */
    int whole;    /* its number in the whole adapter, of which this may be a part */
} lrd_adapter_item_t;

typedef struct lrd_adapter {
    lrd_adapter_item_t *items;
    int n_items;
    int64_t n_params;
    int64_t *begin; /* [2 n_items + 1] where each tensor begins: A, B, A, B, ..., n_params */
    int *find;      /* [n_layers][n_places] item, or -1; private */
    int n_layers, n_places;
    int lowest_layer, lowest_place; /* of the whole adapter's items */
} lrd_adapter_t;

/* From settings and the base model's modules; errors of lrd_targets_find. */
lrd_status_t lrd_adapter_create(const lrd_lora_settings_t *settings, const lrd_module_t *modules,
                                size_t n, const char *fallback, lrd_adapter_t **adapter_out);
void lrd_adapter_free(lrd_adapter_t *adapter); /* NULL is fine */

/* The part of an adapter that lies in some layers, keep[n_layers]: the same items in the same order,
 * in a flat buffer of its own. It may have none. */
lrd_status_t lrd_adapter_part(const lrd_adapter_t *whole, const bool *keep,
                              lrd_adapter_t **part_out);

/* Copies what is the part's out of a flat buffer of the whole, or into it. Host memory. */
void lrd_adapter_extract(const lrd_adapter_t *part, const lrd_adapter_t *whole, const float *from,
                         float *to_part);
void lrd_adapter_insert(const lrd_adapter_t *part, const lrd_adapter_t *whole,
                        const float *from_part, float *to);

/* The item of a block's linear; NULL: it has none, or adapter is NULL. */
const lrd_adapter_item_t *lrd_adapter_find(const lrd_adapter_t *adapter, int layer, int place);

/* Fresh parameters [n_params] as get_peft_model makes them right after torch.manual_seed(seed),
 * rounded to the base's dtype and back, as PEFT does for float16 and bfloat16 bases.
 * To the bit, for init_lora_weights gaussian to that of torch on x86 with AVX2:
 * elsewhere torch's own numbers differ in the last places (A of fewer than 16 elements: as exact
 * as libm's log1p, sin and cos). */
lrd_status_t lrd_adapter_init(const lrd_adapter_t *adapter, const lrd_lora_settings_t *settings,
                              lrd_dtype_t base_dtype, float *params);

#endif /* LRD_LORA_ADAPTER_H */
