/* base/host_memory.h -- how much host memory this process may still take, and what says so.
 *
 * A machine's free memory is not what a job may have. Batch systems and containers put processes into groups
 * (cgroups) with limits, each inside another; one that goes beyond any of them is killed without a word. What is
 * left below a limit is the limit less what its group uses and cannot give back: cached files (those of mapped
 * weights among them) make way for programs, as in the system's own figure for the whole machine.
 *
 * Read are version 2 of the cgroups, version 1 and both beside each other, as this process sees them: a container
 * may see its own group alone.
 */
#ifndef LRD_BASE_HOST_MEMORY_H
#define LRD_BASE_HOST_MEMORY_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { LRD_MEMORY_BOUNDS = 16, LRD_MEMORY_BOUND_NAME = 320 };

typedef struct lrd_memory_bound {
    size_t free_bytes, total_bytes;
    /* Processes with this number share what is left, whatever container they see it from; 0: it is of this
     * process alone. Different on different machines. */
    uint64_t group;
    /* For people: "free memory of this machine", "memory limit of the job or container
     * (/sys/fs/cgroup/job_7/memory.max)", "limit of the address space (ulimit -v)". */
    char name[LRD_MEMORY_BOUND_NAME];
} lrd_memory_bound_t;

/* The machine's memory first; then what else holds. */
typedef struct lrd_host_memory {
    lrd_memory_bound_t bound[LRD_MEMORY_BOUNDS];
    int n;
} lrd_host_memory_t;

/* Limits that cannot be read do not count; LRD_ERR_DEVICE: not even the machine's memory can be. For tests:
 * LRD_SYSTEM_ROOT names a folder that has /proc and the cgroups in place of "/". */
lrd_status_t lrd_host_memory_read(lrd_host_memory_t *memory_out);

/* The bound that leaves the least to one of those that share it: sharing[i] processes share bound i, NULL: this one has
 * all alone. *bytes_out (may be NULL) is its part. */
const lrd_memory_bound_t *lrd_host_memory_least(const lrd_host_memory_t *memory, const int *sharing,
                                                size_t *bytes_out);

#endif /* LRD_BASE_HOST_MEMORY_H */
