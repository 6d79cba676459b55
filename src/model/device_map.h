/* model/device_map.h -- maps of modules to devices, as accelerate has them, made into placements.
 *
 * A map says for each of these parts on which device it is:
 *   0              the embedding             2 .. L + 1     the blocks
 *   1              its norm                  L + 2, L + 3   the final norm, the head
 */
#ifndef LRD_MODEL_DEVICE_MAP_H
#define LRD_MODEL_DEVICE_MAP_H

#include "base/settings.h"
#include "model/placement.h"

/* Parts of a map. */
static inline int lrd_device_map_parts(const lrd_model_config_t *config)
{
    return (int)config->n_layers + 4;
}

/* What accelerate 1.15's infer_auto_device_map makes of devices with so much memory, after
 * get_balanced_memory where balanced: device[parts], LRD_DEVICE_CPU for what fits none, as much as `host`
 * bytes, LRD_DEVICE_DISK for the rest. It counts weights alone, element_bytes each. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_device_map_infer(const lrd_model_config_t *config, size_t element_bytes, bool tied,
                                  bool balanced, const int64_t *memory, int n_devices, int64_t host,
                                  int *device);

/* parallel.device_map as a map of modules. LRD_ERR_CONFIG: a part has no device, a name is no module, or
 * stands for a piece of a block. */
lrd_status_t lrd_device_map_read(const lrd_device_map_t *map, const lrd_model_config_t *config,
                                 int *device);

/* The placement of a map: device d is stage d. The head is computed where the last block is, also where a
 * map has it beside the embedding it is tied to; a block on no device where the one before it is.
 * LRD_ERR_CONFIG: embedding or head on no device, devices without layers, or layers that do not go round
 * the devices in order. */
lrd_status_t lrd_device_map_place(const lrd_model_config_t *config, const int *device,
                                  lrd_placement_t *placement_out);

#endif /* LRD_MODEL_DEVICE_MAP_H */
