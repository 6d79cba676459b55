/* report/axis.h -- the ends and the round numbers of an axis, and where on it a value lies. */
#ifndef LRD_REPORT_AXIS_H
#define LRD_REPORT_AXIS_H

#include <stdbool.h>

enum { LRD_AXIS_MAX_TICKS = 24, LRD_AXIS_LABEL_BYTES = 24 };

typedef enum lrd_axis_kind {
    LRD_AXIS_LINEAR,
    LRD_AXIS_LOG, /* ticks are 1, 2, 5 times a power of ten, or powers of ten alone */
    LRD_AXIS_LOG2 /* powers of two */
} lrd_axis_kind_t;

typedef struct lrd_axis {
    lrd_axis_kind_t kind;
    double lo, hi; /* lo < hi; the ends */
    double tick[LRD_AXIS_MAX_TICKS];
    int n_ticks;  /* ascending, all within the ends */
    int decimals; /* that tell linear ticks apart; negative: a power of ten that divides them */
} lrd_axis_t;

/* Values lo .. hi are to be seen (finite, lo <= hi; of a logarithmic axis lo > 0, else it becomes a linear
 * one). Ticks are `step` apart, 1, 2 or 5 times a power of ten, at most `most` (3 .. 20) of them.
 *
 * round:  the ends are ticks, the nearest that lie not within lo .. hi
 * exact:  the ends are lo and hi themselves, ticks lie between; none are less than `least_step` apart */
lrd_axis_t lrd_axis_round(lrd_axis_kind_t kind, double lo, double hi, int most);
lrd_axis_t lrd_axis_exact(double lo, double hi, int most, double least_step);

/* 0 at lo, 1 at hi, exactly; beyond them on the same line. Of a logarithmic axis value > 0. */
double lrd_axis_at(const lrd_axis_t *axis, double value);

/* What stands at a tick: "0.25", "12k", "2e-5". */
void lrd_axis_label(const lrd_axis_t *axis, double tick, char text[LRD_AXIS_LABEL_BYTES]);

#endif /* LRD_REPORT_AXIS_H */
