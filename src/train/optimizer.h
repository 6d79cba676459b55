/* train/optimizer.h -- the adapter on the device, with what AdamW keeps beside it.
 *
 * One flat buffer each for parameters and moments, so that an update is one op. The clock (updates
 * taken, loss scale, gradient norm) lives on the device too: lrd_step_state_t.
 */
#ifndef LRD_TRAIN_OPTIMIZER_H
#define LRD_TRAIN_OPTIMIZER_H

#include "base/arena.h"
#include "base/settings.h"
#include "kernels/ops.h"
#include "lora/adapter.h"

typedef struct lrd_optimizer {
    const lrd_adapter_t *adapter;
    const lrd_training_settings_t *settings;
    lrd_stream_t *stream;
    bool scaler; /* float16: dynamic loss scale */
    int64_t n_updates;
    float *params, *m, *v;   /* device [n_params] */
    double *lr_table;        /* device [n_updates] */
    double *sumsq;           /* device [2 n_items] */
    lrd_step_state_t *state; /* device */
} lrd_optimizer_t;

/* What a checkpoint keeps: host copies, owned by the caller. */
typedef struct lrd_optimizer_state {
    float *params, *m, *v; /* [n_params] */
    lrd_step_state_t clock;
} lrd_optimizer_state_t;

/* The clock before the first update. */
lrd_step_state_t lrd_optimizer_fresh_clock(bool scaler);

/* Takes device memory (category "adapter", "optimizer"). */
void lrd_optimizer_layout(lrd_optimizer_t *o, lrd_arena_t *arena);

/* Uploads parameters, moments (NULL: zeros) and clock, and the learning rates. Synchronizes. */
lrd_status_t lrd_optimizer_upload(lrd_optimizer_t *o, const lrd_optimizer_state_t *state);

/* Downloads; state's arrays are allocated by the caller. Synchronizes. */
lrd_status_t lrd_optimizer_download(lrd_optimizer_t *o, lrd_optimizer_state_t *state);

/* One update from the sum of gradients (times the loss scale): norm, clock, AdamW. Enqueues. */
lrd_status_t lrd_optimizer_step(lrd_optimizer_t *o, const float *grads, lrd_scratch_t scratch);

#endif /* LRD_TRAIN_OPTIMIZER_H */
