/* base/stop.h -- leaving long work early.
 *
 * A flag that becomes non-zero when this process is asked to stop: by a signal, or by another rank
 * that was (comm/comm.h). Long loops look at it; NULL stands for "never".
 */
#ifndef LRD_BASE_STOP_H
#define LRD_BASE_STOP_H

#include "base/status.h"

#include <signal.h>
#include <stddef.h>

typedef volatile sig_atomic_t lrd_stop_t;

/* The function goes on, or fails with LRD_ERR_INTERRUPTED. */
#define LRD_CHECK_STOP(stop)                                             \
    LRD_CHECK((stop) == NULL || *(stop) == 0, LRD_ERR_INTERRUPTED, "%s", \
              lrd_status_text(LRD_ERR_INTERRUPTED))

#endif /* LRD_BASE_STOP_H */
