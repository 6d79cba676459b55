/* report/series.h -- numbers over the updates of a run, and what a chart makes of them. */
#ifndef LRD_REPORT_SERIES_H
#define LRD_REPORT_SERIES_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* x ascending and finite; y may be anything. */
typedef struct lrd_series {
    double *x, *y; /* owned */
    size_t n, capacity;
} lrd_series_t;

lrd_status_t lrd_series_add(lrd_series_t *series, double x, double y);
void lrd_series_release(lrd_series_t *series); /* {0} is fine */

/* Forgets what lies beyond x. */
void lrd_series_cut(lrd_series_t *series, double x);

/* The smallest and the largest y that are finite; false: there are none. */
bool lrd_series_range(const lrd_series_t *series, double *least_out, double *most_out);

/* How many are not finite. */
size_t lrd_series_count_nonfinite(const lrd_series_t *series);

/* Of each entry the mean of the finite ones among `window` around it; entries that have none are left
 * out. */
lrd_status_t lrd_series_smooth(const lrd_series_t *series, size_t window, lrd_series_t *smooth_out);

/* The window that suits it: a 25th of all entries; 0 where they are so few that each can be seen. */
size_t lrd_series_window(const lrd_series_t *series);

/* What can be seen of it on `columns` columns of pixels: of the finite values in each column the first, the
 * smallest, the largest and the last, in their order. So at most 4 x columns of them, none where
 * 4 x columns >= n are lost, and the line through them covers the same pixels. Column of x: the whole part
 * of (x - lo) / (hi - lo) * columns; x outside lo .. hi belongs to the nearest. */
lrd_status_t lrd_series_thin(const lrd_series_t *series, double lo, double hi, size_t columns,
                             lrd_series_t *thin_out);

#endif /* LRD_REPORT_SERIES_H */
