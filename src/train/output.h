/* train/output.h -- the folders that a run leaves behind. */
#ifndef LRD_TRAIN_OUTPUT_H
#define LRD_TRAIN_OUTPUT_H

#include "train/session.h"

/* Writes checkpoint-N of the state on the device, N = history.global_step, and removes old ones
 * beyond save_total_limit: never this one, never the best. Rank 0 writes. Collective. */
lrd_status_t lrd_output_checkpoint(lrd_session_t *session, bool interrupted);

/* Writes the finished adapter, its card and trainer_state.json into output_dir, all or none;
 * with load_best_model_at_end the adapter of the best evaluation. Collective. */
lrd_status_t lrd_output_final(lrd_session_t *session);

#endif /* LRD_TRAIN_OUTPUT_H */
