/* train/schedule.h -- the learning rate of every update, as transformers' schedulers give it. */
#ifndef LRD_TRAIN_SCHEDULE_H
#define LRD_TRAIN_SCHEDULE_H

#include "base/settings.h"

#include <stdint.h>

/* Warm-up updates of a run of `total`: warmup_steps, as a fraction when below 1,
 * rounded up; else warmup_ratio. */
int64_t lrd_schedule_warmup(const lrd_training_settings_t *settings, int64_t total);

/* lr[k], k = 0 .. total - 1: what update k + 1 uses. k counts updates that were made,
 * not those that were skipped. */
void lrd_schedule_fill(const lrd_training_settings_t *settings, int64_t total, double *lr);

#endif /* LRD_TRAIN_SCHEDULE_H */
