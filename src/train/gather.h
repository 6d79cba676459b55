/* train/gather.h -- the state of a run, whichever ranks have it, as one. */
#ifndef LRD_TRAIN_GATHER_H
#define LRD_TRAIN_GATHER_H

#include "train/session.h"

/* Parameters, moments and clock of the whole adapter, in its order, into the arrays of *whole on rank 0;
 * the other ranks' *whole is left alone. A failure inside is this rank's alone: pass it to
 * lrd_comm_abort. Collective on the first replica. */
lrd_status_t lrd_gather_state(lrd_session_t *session, lrd_optimizer_state_t *whole);

#endif /* LRD_TRAIN_GATHER_H */
