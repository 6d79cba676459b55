/* train/calibrate.h -- how long passes take on this rank: the embedding, some blocks and the head are run on
 * a micro-batch of the run's usual size, with weights that are zero.
 */
#ifndef LRD_TRAIN_CALIBRATE_H
#define LRD_TRAIN_CALIBRATE_H

#include "train/session.h"

/* What a usual micro-batch takes; in seconds where it was measured. */
typedef struct lrd_pass_times {
    double embed;
    double forward, backward; /* of a block */
    double lowest_backward;   /* of the lowest block with adapters, which passes nothing on */
    double head;              /* loss and gradient */
    double copy;              /* its activations between device and host memory */
} lrd_pass_times_t;

/* A few seconds. The session has its data and knows what it computes again. A model too wide to try is
 * replaced by a narrower one, and the times are scaled by the number of multiplications. */
lrd_status_t lrd_calibrate(const lrd_session_t *session, lrd_pass_times_t *times_out);

/* Tokens of the usual micro-batch. */
double lrd_calibrate_usual_tokens(const lrd_session_t *session);

#endif /* LRD_TRAIN_CALIBRATE_H */
