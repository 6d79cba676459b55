/* comm/comm.h -- ranks: who they are, agreeing on success, exchanging bytes.
 *
 * One communicator spans all ranks of the job ("world"); lrd_comm_split makes smaller ones of it. A program that was not started by a
 * launcher has a world of one rank and never initializes MPI. Every function marked "Collective"
 * must be called by all ranks in the same order.
 *
 * How failures travel. Work between two collectives may fail on some ranks only. A phase (load,
 * tokenize, checkpoint, export) ends in lrd_agree: all ranks return the same status, and the cause
 * recorded on each is that of the lowest rank that failed, with its name. Inside a training step
 * there is no time for that: lrd_comm_abort ends the job. A failure of MPI itself ends it too, since
 * nothing can be agreed on any more; so does a rank that dies, stops, or makes no progress
 * (comm/watch.h). Each rank then leaves within seconds, with a non-zero exit code.
 */
#ifndef LRD_COMM_H
#define LRD_COMM_H

#include "base/status.h"
#include "base/stop.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lrd_comm lrd_comm_t;

/* Ends this process at once, as _exit does. */
typedef void lrd_leave_t(int exit_code);

/* Joins the world, which a process does once: MPI when the environment says that a launcher started
 * several ranks or this one of several (mpirun, srun --mpi=pmix), else a world of one. Tells
 * base/log.h this rank's number. A rank without memory joins like the others, who would wait for it:
 * its first lrd_agree fails. `leave` is for when the job has to end and nobody can be asked.
 * Collective. */
lrd_status_t lrd_comm_open(lrd_leave_t *leave, lrd_comm_t **comm_out);

/* From here on a rank that is silent for so long ends the job, and one that neither waits for others
 * nor makes progress (base/beat.h). Before, only silence does, and for a minute. */
lrd_status_t lrd_comm_limit_silence(lrd_comm_t *comm, double timeout_seconds);

/* From here on *stop becomes non-zero on all ranks, within a second, once it is on one. */
void lrd_comm_share_stop(lrd_comm_t *comm, volatile sig_atomic_t *stop);

/* Leaves the world; what was split off it ends with it. Collective, after every rank has agreed to
 * end. NULL is fine. */
void lrd_comm_close(lrd_comm_t *comm);

/* The ranks of the world that pass the same `group`, in their order there; the caller knows which of
 * how many it is. *part_out is the world's: it lives until the world is closed. Collective on the
 * world. */
lrd_status_t lrd_comm_split(lrd_comm_t *world, int group, int rank, int size,
                            lrd_comm_t **part_out);

/* A rank of a world that does not exist, to plan with: it agrees with itself, and what it exchanges
 * stays as it is. All of its ranks are on one host. Close it. */
lrd_status_t lrd_comm_imagine(int rank, int size, lrd_comm_t **comm_out);

int lrd_comm_rank(const lrd_comm_t *comm);
int lrd_comm_size(const lrd_comm_t *comm);
int lrd_comm_local_rank(const lrd_comm_t *comm); /* among the ranks of this host */
int lrd_comm_local_size(const lrd_comm_t *comm);
const char *lrd_comm_host(const lrd_comm_t *comm); /* this host's name */

/* All ranks return LRD_OK when all came with it; otherwise the status of the lowest rank that
 * failed, whose recorded cause, with its name, is now recorded on every rank. LRD_ERR_INTERRUPTED yields to any
 * other failure. Collective. */
lrd_status_t lrd_agree(lrd_comm_t *comm, lrd_status_t status);
#ifdef __clang_analyzer__ /* it does not see that a failure stays one */
static inline lrd_status_t lrd_agree_seen(lrd_comm_t *comm, lrd_status_t status)
{
    const lrd_status_t agreed = (lrd_agree)(comm, status);
    return agreed == LRD_OK ? status : agreed;
}
#define lrd_agree(comm, status) lrd_agree_seen(comm, status)
#endif

/* The same at the end of a phase that takes long: a rank whose *stop is non-zero (base/stop.h) takes part with
 * LRD_ERR_INTERRUPTED, so that all leave together. Collective. */
lrd_status_t lrd_agree_unless_stopped(lrd_comm_t *comm, lrd_status_t status,
                                      const lrd_stop_t *stop);

/* For a failure that this rank alone knows of, in a place where the others wait for it: logs the
 * recorded cause and ends the job with exit code 1. In a world of one it returns the status, for
 * the caller to pass on. */
lrd_status_t lrd_comm_abort(lrd_comm_t *comm, lrd_status_t status);

/* A message on its way; {0}: none. */
typedef struct lrd_message {
    int64_t handle; /* of the transport */
    bool pending;
} lrd_message_t;

/* Begins to send host memory to another rank, or to receive it, and returns at once. Messages of
 * the same tag (0 .. 32767) between two ranks arrive in the order in which they were sent. The
 * memory must stay, unchanged, until lrd_comm_wait. *message must not be pending. */
lrd_status_t lrd_comm_send(lrd_comm_t *comm, const void *data, size_t bytes, int to, int tag,
                           lrd_message_t *message);
lrd_status_t lrd_comm_receive(lrd_comm_t *comm, void *data, size_t bytes, int from, int tag,
                              lrd_message_t *message);

/* Returns when the message has left, or is there; at once where none is pending. Gives the processor
 * to others while it waits. */
lrd_status_t lrd_comm_wait(lrd_comm_t *comm, lrd_message_t *message);

/* Host memory. Sizes in bytes. Collective; a failure of MPI itself is LRD_ERR_COMM. */
lrd_status_t lrd_comm_broadcast(lrd_comm_t *comm, void *data, size_t bytes, int root);

/* all[offset[r]] .. all[offset[r + 1] - 1] receives what rank r passes as `mine`; offset[size + 1]
 * is equal on all ranks. mine may lie in place. Collective. */
lrd_status_t lrd_comm_all_gather(lrd_comm_t *comm, const void *mine, void *all,
                                 const size_t *offset);

/* The same of lengths that only the rank itself knows: all of it is *all_out (lrd_free it), rank r's part
 * from offset[r] to offset[r + 1] - 1, offset[size + 1] being filled in. Collective; failures are agreed
 * on. */
lrd_status_t lrd_comm_collect(lrd_comm_t *comm, const void *mine, size_t bytes, size_t *offset,
                              char **all_out);

/* Rank s receives what rank r has at send + send_offset[s] (send_offset[size + 1]),
 * at receive + receive_offset[r]. Collective. */
lrd_status_t lrd_comm_exchange(lrd_comm_t *comm, const void *send, const size_t *send_offset,
                               void *receive, const size_t *receive_offset);

/* data[n] becomes the sum over ranks, in whatever order MPI likes;
 * equal bits on all ranks. Collective. */
lrd_status_t lrd_comm_sum_f32(lrd_comm_t *comm, float *data, size_t n);

/* data[n] becomes the maximum over ranks. Collective. */
lrd_status_t lrd_comm_max_i64(lrd_comm_t *comm, int64_t *data, size_t n);

/* True when all ranks passed the same bytes. Collective. */
lrd_status_t lrd_comm_same(lrd_comm_t *comm, const void *data, size_t bytes, bool *same_out);

/* For tests. The environment variable LRD_FAULT=RANK:N:WHAT makes something happen to that rank as it
 * comes to its N-th meeting with the others, which every collective call is, counted from 1: a
 * signal (its number), or "fail": a phase that lrd_agree ends fails, any other call fails as MPI
 * would. Meetings so far; 0 unless the variable is set. */
long lrd_comm_meetings(void);

/* The message-passing library and its version, for people: text[96]. Needs no world. */
void lrd_comm_library(char text[96]);

#endif /* LRD_COMM_H */
