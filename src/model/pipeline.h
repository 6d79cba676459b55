/* model/pipeline.h -- micro-batches through the runs of layers that the ranks of a replica hold.
 *
 *   forward    x from the run below   -> the run's blocks (and the head's loss)  -> x to the run above
 *   backward   dx from the run above  -> the same blocks, gradients of A and B   -> dx to the run below
 *
 * in the order of comm/pipe_schedule.h. Activations travel through pinned host memory; the next one is
 * received while the pass before it is computed, and leaves while the next is. Or, where the grid's row is
 * connected so and each rank has one run, from device to device: between two passes, on the stream, what
 * the first has made leaves and what the second needs arrives. A replica on one rank is the case p = 1 of
 * the same loop: no messages, forward and backward in turn.
 */
#ifndef LRD_MODEL_PIPELINE_H
#define LRD_MODEL_PIPELINE_H

#include "base/stop.h"
#include "comm/grid.h"
#include "comm/pipe_schedule.h"
#include "model/feed.h"
#include "model/placement.h"
#include "model/stage.h"

typedef struct lrd_pipeline lrd_pipeline_t;

typedef struct lrd_pipeline_options {
    const lrd_grid_t *grid;
    const lrd_placement_t *placement;
    lrd_stage_t *stage; /* limits.places: lrd_pipeline_places */
    lrd_feed_t *feed;
    int64_t max_micro_batches; /* of an update, of one replica */
} lrd_pipeline_options_t;

/* What to do with the micro-batches of this replica. Every rank of it packs them all: who holds which
 * layers makes no difference to the data. */
typedef struct lrd_pipeline_work {
    int64_t n_micro_batches;
    bool training;
    /* Looked at between micro-batches where the replica is one rank, LRD_ERR_INTERRUPTED; NULL: never.
     * Stages that wait for each other finish what they have begun. */
    const lrd_stop_t *stop;
    lrd_stage_loss_t loss; /* nll: [n_micro_batches], written with the head alone */
    double inv_n_target;   /* training: 1 / targets of the whole update */
    void *context;
    lrd_status_t (*pack)(void *context, int64_t micro_batch, lrd_batch_t *batch_out);
    /* Training: before a run's backward pass, where its gradients go: sets stage->grads and
     * first_grad. Behind it, that they are there. Called in ascending order for each run. */
    lrd_status_t (*leaf)(void *context, int run);
    lrd_status_t (*leaf_done)(void *context, int run);
} lrd_pipeline_work_t;

/* The first run of the placement with a backward pass; their number: there is none. */
int lrd_pipeline_lowest(const lrd_placement_t *placement, const lrd_adapter_t *adapter);

/* How many micro-batches each run of a stage keeps at once: places[n_chunks]. */
void lrd_pipeline_places(const lrd_placement_t *placement, int lowest, int stage,
                         int64_t max_micro_batches, int64_t *places);

/* Allocates pinned memory. Everything it is given must outlive it. */
lrd_status_t lrd_pipeline_create(const lrd_pipeline_options_t *options,
                                 lrd_pipeline_t **pipeline_out);
void lrd_pipeline_destroy(lrd_pipeline_t *pipeline); /* NULL is fine */

size_t lrd_pipeline_pinned_bytes(const lrd_pipeline_t *pipeline);

/* Does the work, up to what the device still has to do for the last micro-batch. A failure inside is this rank's alone: the
 * other stages wait, so pass it to lrd_comm_abort. Collective on the grid's row. */
lrd_status_t lrd_pipeline_run(lrd_pipeline_t *pipeline, const lrd_pipeline_work_t *work);

/* Seconds that the last run took, and those of them spent on messages: waiting for them, and moving them. Where they go
 * from device to device both are the device's, by its own clock; else this rank's. */
typedef struct lrd_pipeline_time {
    double seconds, waited;
    bool on_device;
} lrd_pipeline_time_t;

lrd_pipeline_time_t lrd_pipeline_time(const lrd_pipeline_t *pipeline);

#endif /* LRD_MODEL_PIPELINE_H */
