/* train/gather.h -- the state of a run, whichever ranks have it, as one. */
#ifndef LRD_TRAIN_GATHER_H
#define LRD_TRAIN_GATHER_H

#include "train/session.h"

/* On rank 0: parameters, moments and clock of the whole adapter, in its order; *memory_out is the
 * arrays' memory, to be freed. On the others: nothing (NULL). Collective; failures are agreed on. */
lrd_status_t lrd_gather_state(lrd_session_t *session, lrd_optimizer_state_t *state_out,
                              float **memory_out);

#endif /* LRD_TRAIN_GATHER_H */
