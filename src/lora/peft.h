/* lora/peft.h -- adapters on disk, as PEFT reads and writes them:
 * adapter_config.json, adapter_model.safetensors, README.md.
 *
 * Source: peft 0.21.2; keys of the configuration are those of 0.6, so that every later version
 * reads it, and newer ones only where their value is not the default.
 */
#ifndef LRD_LORA_PEFT_H
#define LRD_LORA_PEFT_H

#include "base/settings.h"
#include "lora/adapter.h"

/* Reads <folder>/adapter_config.json into settings whose section lora says the same;
 * the other sections hold defaults. LRD_ERR_FORMAT, LRD_ERR_IO;
 * LRD_ERR_UNSUPPORTED: not a LoRA adapter of a causal language model, or one with something
 * that is not supported, by name (use_dora, bias, modules_to_save, lora_bias, fan_in_fan_out,
 * enable_lora, layer_replication, trainable_token_indices, an init that changes the base, ...).
 * Unknown keys are named in a warning. */
lrd_status_t lrd_peft_read_config(const char *folder, lrd_settings_t **settings_out);

/* Reads <folder>/adapter_model.safetensors into params[n_params]; F32, F16, BF16 and F64.
 * LRD_ERR_FORMAT: a shape that does not fit, a tensor that is missing, or one that fits nothing in
 * this adapter. LRD_ERR_UNSUPPORTED: only adapter_model.bin is there, with what to do. */
lrd_status_t lrd_peft_read_params(const char *folder, const lrd_adapter_t *adapter, float *params);

typedef struct lrd_peft_card {
    const char *base_model; /* base_model_name_or_path */
    const char *revision;   /* NULL: none */
    const char *about;      /* Markdown below the title, or NULL */
} lrd_peft_card_t;

/* Writes the three files into an existing folder (one under construction: base/file.h), byte for
 * byte as PEFT writes the tensors. */
lrd_status_t lrd_peft_write(const char *folder, const lrd_adapter_t *adapter,
                            const lrd_lora_settings_t *settings, const float *params,
                            const lrd_peft_card_t *card);

#endif /* LRD_LORA_PEFT_H */
