/* train/step.h -- one update: micro-batches, one reduction, one optimizer step, one small exchange.
 *
 *   for each micro-batch of this replica's share: upload, forward, loss, backward into a leaf
 *   vote                                        does anyone want to stop: the update is dropped
 *   reduce the leaves over all replicas         the flat A/B gradient, the only large exchange
 *   norm, clip, loss scale, AdamW               on the device, alike on all ranks
 *   exchange                                    losses of the micro-batches, who wants to stop, and what a
 *                                               token took on each replica, for the shares of the next updates
 */
#ifndef LRD_TRAIN_STEP_H
#define LRD_TRAIN_STEP_H

#include "comm/reduce.h"
#include "data/loader.h"
#include "model/pipeline.h"
#include "train/optimizer.h"
#include "train/shares.h"

typedef struct lrd_stepper {
    const lrd_grid_t *grid;
    lrd_stage_t *stage;
    lrd_pipeline_t *pipeline;
    lrd_reduce_t **reduce; /* [runs of the stage]; NULL: the run has no adapters */
    lrd_optimizer_t *optimizer;
    lrd_shares_t *shares;
    const lrd_dataset_t *set;
    const lrd_stop_t *stop;
    int64_t max_micro_batches; /* of an update */
    double *nll;               /* device [max_micro_batches]: this replica's, in its order */
    double *pinned;            /* [max_micro_batches] and, behind it, the clock */
    size_t pinned_bytes;
    /* Timers around an update, and behind its micro-batches, where devices are connected or are timed for the shares;
     * else NULL. */
    lrd_event_t *begun, *computed, *ended;
    float **grads;       /* [runs] the sums of an update */
    double *news;        /* [max_micro_batches + 4 ranks]: the exchange */
    size_t *news_offset; /* [ranks + 1] */
    double *pace;        /* [replicas] of the update behind us: lrd_shares_learn */
    /* The update in work. */
    const lrd_update_t *update;
    const int64_t *begin; /* [replicas + 1] of their micro-batches */
    double
        seconds; /* of this rank's micro-batches, by its host's clock; where devices are timed by theirs: 0 */
} lrd_stepper_t;

/* What an update was; equal on all ranks. */
typedef struct lrd_step_result {
    double loss;            /* mean over the update's targets; 0 when it has none */
    lrd_step_state_t clock; /* after the update */
    bool stop;              /* some rank was asked to stop */
    double busy;            /* the part of their time in which stages did not wait for each other */
    double waited; /* seconds in which this rank waited for others or exchanged with them */
    /* By its device's clock: seconds of the update, and those in which the device did that; 0 where devices are
     * not connected. */
    double device_seconds, device_waited;
    bool reshared; /* replicas have other shares from the next update on (train/shares.h) */
    bool dropped;  /* ... before its micro-batches were done: nothing has changed, no loss */
} lrd_step_result_t;

/* Fills in what it allocates; the members above it are the caller's. */
lrd_status_t lrd_stepper_open(lrd_stepper_t *stepper);
void lrd_stepper_close(lrd_stepper_t *stepper); /* {0} is fine */
void lrd_stepper_layout(lrd_stepper_t *stepper, lrd_arena_t *arena);

/* Runs an update. Where a rank with micro-batches left is asked to stop, all drop it; later, it is
 * finished. A failure inside is this rank's alone: pass it to lrd_comm_abort. Collective. */
lrd_status_t lrd_stepper_run(lrd_stepper_t *stepper, const lrd_update_t *update,
                             lrd_step_result_t *result_out);

#endif /* LRD_TRAIN_STEP_H */
