/* train/spread.h -- how a run is spread over its ranks: replicas, stages, and which layers each has. */
#ifndef LRD_TRAIN_SPREAD_H
#define LRD_TRAIN_SPREAD_H

#include "base/settings.h"
#include "lora/adapter.h"
#include "model/placement.h"

/* The placement of a replica on n_ranks ranks as parallel.data, pipeline and pipeline_chunks ask. */
lrd_status_t lrd_spread_find(const lrd_settings_t *settings, const lrd_model_config_t *config,
                             const lrd_adapter_t *adapter, int n_ranks,
                             lrd_placement_t *placement_out);

/* The part of an adapter that a stage has. */
lrd_status_t lrd_spread_part(const lrd_placement_t *placement, const lrd_adapter_t *whole,
                             int stage, lrd_adapter_t **part_out);

#endif /* LRD_TRAIN_SPREAD_H */
