/* train/forecast.h -- how long an update takes: the run's own schedule and micro-batches, with the times of its
 * passes.
 */
#ifndef LRD_TRAIN_FORECAST_H
#define LRD_TRAIN_FORECAST_H

#include "train/calibrate.h"

typedef struct lrd_forecast {
    double seconds;     /* of an update, the mean of the first few; in the unit of the times */
    double utilisation; /* the part of it that stages compute, 0 to 1 */
} lrd_forecast_t;

/* On n_ranks ranks placed like this, whose stages take times[n_stages]. The slowest replica counts. What is
 * not there: the network between hosts, and what an update costs beside its passes. */
lrd_status_t lrd_forecast(const lrd_session_t *session, const lrd_placement_t *placement,
                          int n_ranks, const lrd_pass_times_t *times, lrd_forecast_t *forecast_out);

#endif /* LRD_TRAIN_FORECAST_H */
