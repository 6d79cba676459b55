/* train/output.h -- the folders that a run leaves behind. */
#ifndef LRD_TRAIN_OUTPUT_H
#define LRD_TRAIN_OUTPUT_H

#include "train/session.h"

/* checkpoint-N of the state on the device, N = history.global_step: the state is copied here, rank 0
 * writes it while the training goes on (train/saver.h). A failure, also of the checkpoint before, is
 * rank 0's alone and ends the job. */
lrd_status_t lrd_output_checkpoint(lrd_session_t *session, bool interrupted);

/* Whether a checkpoint that is being written has failed meanwhile, or output_dir is another run's now: that ends the
 * job. */
lrd_status_t lrd_output_check(lrd_session_t *session);

/* The end of the names under which `eval` keeps what it found, for a report. */
extern const char lrd_evaluation_ending[];

/* A run that starts where it may overwrite has made its first update: what earlier runs' adapters answered goes, records
 * and predictions, since it would pass for this run's. Only what `eval` wrote goes; of the base that is trained here it
 * stays, as does what cannot be removed, with a warning. The rest goes when there is something in its place: checkpoints
 * with the first one, the adapter in the end. Rank 0's business. */
void lrd_output_start_over(const lrd_session_t *session);

/* The last checkpoint stands, or why it does not. Collective. */
lrd_status_t lrd_output_settle(lrd_session_t *session);

/* After lrd_output_settle. Writes the finished adapter, its card and trainer_state.json into output_dir, all or none;
 * with load_best_model_at_end the adapter of the best evaluation. Collective. */
lrd_status_t lrd_output_final(lrd_session_t *session);

#endif /* LRD_TRAIN_OUTPUT_H */
