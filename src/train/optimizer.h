/* train/optimizer.h -- the adapter on the device, with what AdamW keeps beside it.
 *
 * One flat buffer each for parameters and moments, so that an update is one op for each run of layers.
 * The clock (updates taken, loss scale, gradient norm) lives on the device too: lrd_step_state_t.
 *
 * Where the layers are spread over several ranks, each has its part of the adapter. The norm of the
 * gradient is of the whole: the stages exchange one sum of squares for each tensor, and all form the
 * norm from the same numbers in the same order, so that their clocks are equal to the bit.
 */
#ifndef LRD_TRAIN_OPTIMIZER_H
#define LRD_TRAIN_OPTIMIZER_H

#include "base/arena.h"
#include "base/settings.h"
#include "comm/grid.h"
#include "kernels/ops.h"
#include "lora/adapter.h"
#include "model/placement.h"

/* What a run of layers has of the adapter's part: neighbours in the flat buffer. */
typedef struct lrd_optimizer_run {
    int first_item, n_items;
    int64_t first, n; /* parameters */
    int64_t *begin;   /* [2 n_items + 1] of each tensor in the run's own gradient */
} lrd_optimizer_run_t;

typedef struct lrd_optimizer {
    const lrd_adapter_t *adapter; /* this rank's part */
    const lrd_adapter_t *whole;
    const lrd_grid_t *grid;
    lrd_optimizer_run_t *run; /* [n_runs] */
    int n_runs;
    int *tensor;         /* [2 whole->n_items] which tensor stands where after the exchange */
    size_t *offset;      /* [stages + 1] bytes of each stage's sums in it */
    double *pinned;      /* [4 whole->n_items] the sums as they were exchanged, and in order */
    size_t pinned_bytes; /* 0: one stage, no exchange */
    const lrd_training_settings_t *settings;
    lrd_stream_t *stream;
    bool scaler; /* float16: dynamic loss scale */
    int64_t n_updates;
    float *params, *m, *v;   /* device [n_params] */
    double *lr_table;        /* device [n_updates] */
    double *sumsq;           /* device [2 whole->n_items] */
    double *own_sumsq;       /* device [2 n_items]; sumsq itself on one stage */
    lrd_step_state_t *state; /* device */
} lrd_optimizer_t;

/* What a checkpoint keeps: host copies, owned by the caller. */
typedef struct lrd_optimizer_state {
    float *params, *m, *v; /* [n_params] */
    lrd_step_state_t clock;
} lrd_optimizer_state_t;

/* Fills in the runs and what the exchange needs; adapter, whole, grid, settings, stream, scaler and
 * n_updates are set. Close also after a
 * failure. */
lrd_status_t lrd_optimizer_open(lrd_optimizer_t *o, const lrd_runs_t *runs,
                                const lrd_placement_t *placement);
void lrd_optimizer_close(lrd_optimizer_t *o); /* {0} is fine */

/* The clock before the first update. */
lrd_step_state_t lrd_optimizer_fresh_clock(bool scaler);

/* Takes device memory (category "adapter", "optimizer"). */
void lrd_optimizer_layout(lrd_optimizer_t *o, lrd_arena_t *arena);

/* Uploads parameters, moments (NULL: zeros) and clock, and the learning rates. Synchronizes. */
lrd_status_t lrd_optimizer_upload(lrd_optimizer_t *o, const lrd_optimizer_state_t *state);

/* Downloads; state's arrays are allocated by the caller. Synchronizes. */
lrd_status_t lrd_optimizer_download(lrd_optimizer_t *o, lrd_optimizer_state_t *state);

/* One update from the sum of gradients (times the loss scale) of each run, grads[n_runs]: norm, clock,
 * AdamW. Enqueues; collective on the grid's row. */
lrd_status_t lrd_optimizer_step(lrd_optimizer_t *o, float *const *grads, lrd_scratch_t scratch);

#endif /* LRD_TRAIN_OPTIMIZER_H */
