/* train/calibrate.h -- how long passes take on this machine: one block and the head are run on a
 * micro-batch of the run's usual size, with weights that are zero. */
#ifndef LRD_TRAIN_CALIBRATE_H
#define LRD_TRAIN_CALIBRATE_H

#include "train/session.h"

/* Seconds of a usual micro-batch. */
typedef struct lrd_pass_times {
    double forward, backward; /* of a block */
    double head;              /* loss and gradient */
} lrd_pass_times_t;

/* The session has its data and placement. A model too wide to try is replaced by a narrower one, and the
 * times scaled by the number of multiplications. */
lrd_status_t lrd_calibrate(const lrd_session_t *session, lrd_pass_times_t *times_out);

/* Seconds of an update of usual micro-batches, and the part of it that stages compute. */
lrd_status_t lrd_calibrate_predict(const lrd_session_t *session, const lrd_pass_times_t *times,
                                   int n_ranks, double *seconds_out, double *utilisation_out);

#endif /* LRD_TRAIN_CALIBRATE_H */
