/* model/bloom_parts.h -- what the files of the BLOOM family share. Private to them. */
#ifndef LRD_MODEL_BLOOM_PARTS_H
#define LRD_MODEL_BLOOM_PARTS_H

#include "model/family.h"

/* Places of a block's linears. */
enum { QKV, DENSE, H_TO_4H, H4_TO_H, N_LINEARS };

/* lrd_family_t.read_config, list_modules, print. */
lrd_status_t lrd_bloom_read_config(const json_t *json, const char *path,
                                   lrd_model_config_t *config);
lrd_status_t lrd_bloom_list_modules(const lrd_model_config_t *config, lrd_module_t **modules_out,
                                    size_t *n_out);
lrd_status_t lrd_bloom_print(const lrd_model_config_t *config, const lrd_adapter_t *adapter,
                             double dropout, lrd_buf_t *buf);

#endif /* LRD_MODEL_BLOOM_PARTS_H */
