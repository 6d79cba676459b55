/* train/travel.h -- how long the weights that are not kept on their devices are on their way. */
#ifndef LRD_TRAIN_TRAVEL_H
#define LRD_TRAIN_TRAVEL_H

#include "train/session.h"

/* Seconds that copies to the device take in an update of usual micro-batches, on the stage with the most of
 * them; computation goes on beside them. Measured with pinned memory: what lies in files takes as long at
 * least. 0: nothing travels. */
lrd_status_t lrd_travel_seconds(const lrd_session_t *session, int n_ranks, double *seconds_out);

#endif /* LRD_TRAIN_TRAVEL_H */
