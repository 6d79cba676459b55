/* kernels/op_check.h -- what the front functions check, and what they count, op by op. */
#ifndef LRD_OP_CHECK_H
#define LRD_OP_CHECK_H

#include "kernels/ops.h"

/* LRD_OK, or LRD_ERR_ARG / LRD_ERR_SHAPE with a message that names op, argument and values.
 * Reads no device memory. */
#define OP(name, args) lrd_status_t lrd_check_##name(const args *a);
LRD_OP_LIST(OP)
#undef OP

/* Floating-point operations and least bytes of a call, for the profile. Attention is counted with
 * the longest sequence for all, causally. linear_ce counts all rows where it is not told how many are targets. */
#define OP(name, args) void lrd_count_##name(const args *a, double *flops_out, double *bytes_out);
LRD_OP_LIST(OP)
#undef OP

#endif /* LRD_OP_CHECK_H */
