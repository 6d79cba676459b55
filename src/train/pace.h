/* train/pace.h -- what passes take on each rank, for the planner: counted where all devices are alike, measured
 * where they are not, so that unequal devices get unequal shares.
 */
#ifndef LRD_TRAIN_PACE_H
#define LRD_TRAIN_PACE_H

#include "train/calibrate.h"

/* In multiplications per token: a pure function of the model, the data and the kind of device, so that what
 * follows from it is the same in each run. */
lrd_pass_times_t lrd_pace_count(const lrd_session_t *session);

/* Do all ranks have the same kind of device, and as many threads? Collective. */
lrd_status_t lrd_pace_alike(const lrd_session_t *session, bool *alike_out);

/* times[ranks]: lrd_calibrate on all ranks at once, since those of a host share its memory. Says so.
 * Collective; failures are agreed on. */
lrd_status_t lrd_pace_measure(const lrd_session_t *session, lrd_pass_times_t *times);

/* times[n_stages] from by_rank[n_ranks]: each the slowest of the ranks that would hold the stage. */
void lrd_pace_of_stages(const lrd_pass_times_t *by_rank, int n_ranks, int n_stages,
                        lrd_pass_times_t *times);

#endif /* LRD_TRAIN_PACE_H */
