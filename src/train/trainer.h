/* train/trainer.h -- a whole run: from settings to an adapter. */
#ifndef LRD_TRAIN_TRAINER_H
#define LRD_TRAIN_TRAINER_H

#include "train/session.h"

typedef enum lrd_train_end {
    LRD_TRAIN_NOT_BEGUN, /* failed before the first update */
    LRD_TRAIN_FAILED,
    LRD_TRAIN_INTERRUPTED, /* asked to stop: the same command again goes on */
    LRD_TRAIN_DONE
} lrd_train_end_t;

/* Trains. When options->stop of some rank becomes non-zero, what is in work is finished or dropped,
 * whichever is sooner, and LRD_OK returned with LRD_TRAIN_INTERRUPTED: all ranks have agreed, and a
 * checkpoint of all updates that were made stands (none is written before the first). Going on from
 * it gives the bytes of a run that was not interrupted; an evaluation that was dropped is made
 * first. All ranks return the same. Collective. */
lrd_status_t lrd_train(const lrd_session_options_t *options, lrd_train_end_t *end_out);

#endif /* LRD_TRAIN_TRAINER_H */
