/* train/evaluate.h -- eval_loss as one transformers process reports it, computed by all ranks.
 *
 * Batches of per_device_eval_batch_size records in file order; the loss of a batch is the mean over
 * its targets; eval_loss is the mean over records of their batch's loss. Batches without a target
 * are left out, as transformers 5.23 does.
 */
#ifndef LRD_TRAIN_EVALUATE_H
#define LRD_TRAIN_EVALUATE_H

#include "base/progress.h"
#include "data/loader.h"
#include "model/pipeline.h"

/* A piece of a batch that fits the stage's memory: neighbouring records. */
typedef struct lrd_eval_piece {
    int64_t batch, first, n;
    int64_t n_targets; /* known once it is packed */
} lrd_eval_piece_t;

typedef struct lrd_evaluator {
    const lrd_grid_t *grid;
    lrd_stage_t *stage;
    lrd_pipeline_t *pipeline;
    const lrd_dataset_t *set;
    const lrd_stop_t *stop;
    int64_t records_per_batch;
    double *nll; /* device [n_pieces] */
    /* Host memory. */
    int64_t n_batches, begin, end; /* in all; those of this replica */
    lrd_eval_piece_t *piece;       /* [n_pieces] of this replica */
    int64_t n_pieces;
    int64_t *record; /* [records_per_batch] */
    double *loss;    /* [n_batches]: mean over the batch's targets, NaN without any */
    size_t *offset;  /* [ranks + 1] of each rank's losses */
    double *pinned;  /* [n_pieces] */
    lrd_progress_t progress;
} lrd_evaluator_t;

/* Fills in the host memory; the members before it are set, `set` NULL where nothing is evaluated.
 * Close also after a failure. */
lrd_status_t lrd_evaluator_open(lrd_evaluator_t *evaluator);
void lrd_evaluator_close(lrd_evaluator_t *evaluator); /* {0} is fine */

void lrd_evaluator_layout(lrd_evaluator_t *evaluator, lrd_arena_t *arena);

/* Every batch is computed by one replica, in pieces that fit the stage's memory; all ranks combine all
 * batches in order, so that the result does not depend on their number. With a progress bar.
 * LRD_ERR_INTERRUPTED: some rank was asked to stop. Collective; failures are agreed on. */
lrd_status_t lrd_evaluate(lrd_evaluator_t *evaluator, double *loss_out);

#endif /* LRD_TRAIN_EVALUATE_H */
