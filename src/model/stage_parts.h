/* model/stage_parts.h -- what the two files of a stage share. Private to them. */
#ifndef LRD_MODEL_STAGE_PARTS_H
#define LRD_MODEL_STAGE_PARTS_H

#include "model/stage.h"

/* Of the longest key of a pass. */
enum { LRD_STAGE_KEY_WORDS = 11 };

/* The block keeps its activations for the backward pass. */
static inline bool lrd_stage_keeps(const lrd_stage_t *s, int layer)
{
    return s->limits.training && layer >= s->lowest_layer;
}

#endif /* LRD_MODEL_STAGE_PARTS_H */
