/* comm/alike.h -- what ranks must have alike to give the bits that they promise, and not to wait for each other for
 * ever: a difference ends the run before its work begins. */
#ifndef LRD_COMM_ALIKE_H
#define LRD_COMM_ALIKE_H

#include "comm/comm.h"

/* facts: lines "what<tab>value", this rank's. LRD_ERR_CONFIG, on all ranks: the first fact that is not the same on all
 * of them, with its values and who has which. Collective. */
lrd_status_t lrd_alike_check(lrd_comm_t *comm, const char *facts);

#endif /* LRD_COMM_ALIKE_H */
