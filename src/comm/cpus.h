/* comm/cpus.h -- which cores a rank computes on. */
#ifndef LRD_COMM_CPUS_H
#define LRD_COMM_CPUS_H

#include "comm/comm.h"

/* Open MPI binds each of one or two ranks to a single core unless told otherwise, which leaves the
 * rest idle. Undoes that default, and only that: a binding asked for on the command line, or made
 * by Slurm, stands. Call before anything starts threads. */
void lrd_cpus_undo_default_binding(void);

/* Threads for this rank: `wanted` if > 0 (--threads), else OMP_NUM_THREADS, else the cores of its
 * own mask, divided among the ranks of the host that have the same mask. Of an
 * imagined world all ranks are here. Collective. */
lrd_status_t lrd_cpus_threads(lrd_comm_t *comm, int wanted, int *threads_out);

#endif /* LRD_COMM_CPUS_H */
