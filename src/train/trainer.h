/* train/trainer.h -- a whole run: from settings to an adapter. */
#ifndef LRD_TRAIN_TRAINER_H
#define LRD_TRAIN_TRAINER_H

#include "train/session.h"

#include <signal.h>

typedef enum lrd_train_end {
    LRD_TRAIN_NOT_BEGUN, /* failed before the first update */
    LRD_TRAIN_FAILED,
    LRD_TRAIN_INTERRUPTED, /* asked to stop; a checkpoint stands */
    LRD_TRAIN_DONE
} lrd_train_end_t;

/* Trains. *stop becomes non-zero when this rank is asked to stop (a signal): the update
 * in work is finished, a checkpoint written, and LRD_OK returned with LRD_TRAIN_INTERRUPTED.
 * All ranks return the same. Collective. */
lrd_status_t lrd_train(const lrd_session_options_t *options, const volatile sig_atomic_t *stop,
                       lrd_train_end_t *end_out);

#endif /* LRD_TRAIN_TRAINER_H */
