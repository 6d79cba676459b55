/* comm/devcomm.h -- ranks exchange device memory without going through the host: NCCL.
 *
 * A group of ranks, each with a device of its own. Calls enqueue on the stream that the group was opened
 * with, in the same order on all ranks of it; none waits for the end of what it enqueues, though the
 * first of a kind waits for the other ranks' first: they connect then.
 *
 * How failures travel. Opening is agreed on by all. After that a failure is in the middle of an update:
 * it ends the job (lrd_comm_abort), named by the rank that has it, in the library's words. What a rank
 * does not notice itself, such as a peer that is gone, the others do: from opening to closing each
 * lrd_stream_sync of the stream counts as waiting for other ranks (comm/watch.h), and asks the library
 * for errors meanwhile.
 */
#ifndef LRD_COMM_DEVCOMM_H
#define LRD_COMM_DEVCOMM_H

#include "base/settings.h"
#include "comm/comm.h"
#include "kernels/ops.h"

typedef struct lrd_devcomm lrd_devcomm_t;

/* Will lrd_devcomm_choose say yes, as far as each rank knows alone? To plan by, also for ranks that are not there.
 * Collective; failures are agreed on. */
lrd_status_t lrd_devcomm_expect(lrd_comm_t *world, lrd_stream_t *stream,
                                const lrd_parallel_settings_t *settings, bool *likely_out);

/* Can the ranks of the world exchange device memory, and do the settings (parallel.transport) want it? Where
 * `auto` wanted it on GPUs, one line says why not. `nccl` where it cannot be is an error, and so are libraries that differ.
 * Collective. */
lrd_status_t lrd_devcomm_choose(lrd_comm_t *world, lrd_stream_t *stream,
                                const lrd_parallel_settings_t *settings, bool *use_out);

/* Device memory that the library takes for itself, beside what it is given: at most so much for a group of `size`
 * ranks, each of which exchanges messages with n_peers of them; collectives: and sums or gathers. Only where
 * lrd_devcomm_choose, or lrd_devcomm_expect, has said yes. */
size_t lrd_devcomm_reserve(int size, int n_peers, bool collectives);

/* Connects the ranks of `comm`; lrd_devcomm_choose has said that they can be. LRD_ERR_COMM, on all of them: a
 * rank has failed; LRD_ERR_PEER: they have not within timeout_seconds. comm and stream outlive it. Collective. */
lrd_status_t lrd_devcomm_open(lrd_comm_t *comm, lrd_stream_t *stream, double timeout_seconds,
                              lrd_devcomm_t **devcomm_out);

/* Does not wait long for ranks that do not close theirs. NULL is fine. */
void lrd_devcomm_close(lrd_devcomm_t *devcomm);

/* to[n] = the sum of from[n] over the ranks, in whatever order the library likes; equal bits on all ranks.
 * `to` may be `from`. Collective. */
lrd_status_t lrd_devcomm_sum_f32(lrd_devcomm_t *devcomm, const float *from, float *to, int64_t n);

/* all[r * n] .. all[(r + 1) * n - 1] = what rank r passes as mine[n]. mine may lie in place. Collective. */
lrd_status_t lrd_devcomm_all_gather_f32(lrd_devcomm_t *devcomm, const float *mine, float *all,
                                        int64_t n);

/* Device memory for another rank, or from it. */
typedef struct lrd_device_message {
    void *data;
    int64_t n; /* elements; > 0 */
    lrd_dtype_t dtype;
    int rank;
} lrd_device_message_t;

/* Sends and receives all of these at once. What goes from one rank to another arrives in the order in which it
 * is listed; the receiver lists as many, of the same n and dtype. Collective between those who are named. */
lrd_status_t lrd_devcomm_exchange(lrd_devcomm_t *devcomm, const lrd_device_message_t *send,
                                  int n_send, const lrd_device_message_t *receive, int n_receive);

/* What the library has taken so far: what the device had less of behind connecting, and behind the first call with
 * each rank and of each kind. */
size_t lrd_devcomm_taken(const lrd_devcomm_t *devcomm);

/* Between the two each call is timed by the device's clock, without a wait. The seconds are those of all of them:
 * the device has waited for the other ranks in them, and moved data. They must be over (lrd_stream_sync). */
void lrd_devcomm_start_clock(lrd_devcomm_t *devcomm);
lrd_status_t lrd_devcomm_read_clock(lrd_devcomm_t *devcomm, double *seconds_out);

/* The library and its version, for people: "NCCL 2.28.9". LRD_ERR_UNAVAILABLE: it is not here. */
lrd_status_t lrd_devcomm_library(char text[96]);

#endif /* LRD_COMM_DEVCOMM_H */
