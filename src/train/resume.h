/* train/resume.h -- from which checkpoint a run goes on, and whether it may. */
#ifndef LRD_TRAIN_RESUME_H
#define LRD_TRAIN_RESUME_H

#include "train/session.h"

/* Reads training.resume_from_checkpoint and output_dir: fills session->resumes,
 * checkpoint and history (an empty one when the run starts anew).
 * A damaged newest checkpoint is named and the one before it used. Changed settings are named;
 * LRD_ERR_CONFIG: they change what the run is, or output_dir holds checkpoints that nobody allowed
 * to overwrite. With leave, and without an interrupted run of these settings, it starts over. Rank 0
 * chooses, all ranks read: the output folder must be seen by all. Collective; failures are agreed on. */
lrd_status_t lrd_resume_find(lrd_session_t *session);

/* The update's size is that of the run's start. */
lrd_status_t lrd_resume_check_batch(const lrd_checkpoint_t *checkpoint,
                                    const lrd_training_settings_t *training,
                                    int64_t *records_per_update);

/* The data set is the same, and there is something left to do. */
lrd_status_t lrd_resume_check_data(const lrd_checkpoint_t *checkpoint, const char *data_key,
                                   int64_t n_updates);

#endif /* LRD_TRAIN_RESUME_H */
