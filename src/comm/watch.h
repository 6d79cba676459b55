/* comm/watch.h -- ranks watch each other, over connections of their own. Private to src/comm.
 *
 * MPI notices a dead rank late or never, and says nothing while a call waits. So each rank has a
 * thread that never touches MPI. Rank 0 has a TCP connection to every other rank; over it each tells
 * a few times a second that it lives, how much progress it has made (base/beat.h), whether it waits
 * for others, and whether it was asked to stop. The job is ended with a message that names the rank
 *
 *   lost      its connection has closed: it was killed, has crashed, or its host is gone
 *   silent    nothing was heard of it for the time limit: it is stopped, or cannot be reached
 *   stuck     it lives and does not wait, and has made no progress for the time limit
 *   all wait  every rank waits for the others, for the time limit: the network has lost something
 *
 * A whole job that is suspended and continued is none of these: time counts only while the watching
 * thread itself runs. A request to stop on one rank reaches all within a second.
 */
#ifndef LRD_COMM_WATCH_H
#define LRD_COMM_WATCH_H

#include "comm/comm_table.h"

typedef struct watch watch_t;

/* Connects the ranks and starts the thread. Where ranks cannot connect, that is said in a warning
 * and the run goes on unwatched: *watch_out is NULL. A world of one has no connections; it is
 * watched once there is a time limit. A rank without memory takes part (comm->joined). Collective. */
lrd_status_t watch_open(lrd_comm_t *comm, watch_t **watch_out);

/* Nobody is missed from here on. Frees it. NULL is fine. */
void watch_close(watch_t *watch);

/* See lrd_comm_limit_silence and lrd_comm_share_stop. NULL is fine. */
lrd_status_t watch_limit(watch_t *watch, double timeout_seconds);
void watch_share_stop(watch_t *watch, volatile sig_atomic_t *stop);

/* This rank waits for others, or no longer. NULL is fine. */
void watch_set_waiting(watch_t *watch, bool waiting);

/* This rank has said why the job ends, and ends it: the others need not look for a cause.
 * False: another cause has been given already. NULL is fine. */
bool watch_announce_end(watch_t *watch);

#endif /* LRD_COMM_WATCH_H */
