/* model/bloom_parts.h -- what the two files of the BLOOM family share. Private to them. */
#ifndef LRD_MODEL_BLOOM_PARTS_H
#define LRD_MODEL_BLOOM_PARTS_H

#include "model/family.h"

/* Places of a block's linears. */
enum { QKV, DENSE, H_TO_4H, H4_TO_H, N_LINEARS };

/* lrd_family_t.print. */
lrd_status_t lrd_bloom_print(const lrd_model_config_t *config, const lrd_adapter_t *adapter,
                             double dropout, lrd_buf_t *buf);

#endif /* LRD_MODEL_BLOOM_PARTS_H */
