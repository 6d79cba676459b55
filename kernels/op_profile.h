/* kernels/op_profile.h -- where the time of a run goes: seconds,
 * floating-point operations and bytes per op.
 *
 * Counted by the front functions while profiling is on; each op is then waited for, so that its
 * time is its own. One profile per process.
 */
#ifndef LRD_OP_PROFILE_H
#define LRD_OP_PROFILE_H

#include "kernels/ops.h"

typedef struct lrd_op_cost {
    double seconds;
    double flops; /* multiply and add counted as two; products and attention only */
    double bytes; /* what must at least be read and written once */
    int64_t calls;
} lrd_op_cost_t;

void lrd_profile_start(void); /* from zero */
void lrd_profile_stop(void);
bool lrd_profile_is_on(void);
lrd_op_cost_t lrd_profile_read(lrd_op_t op);
const char *lrd_op_name(lrd_op_t op);

/* Used by the front functions. */
void lrd_profile_add(lrd_op_t op, double seconds, double flops, double bytes);

#endif /* LRD_OP_PROFILE_H */
