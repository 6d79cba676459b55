/* comm/reduce.h -- the sum of the micro-batches' gradients over all ranks, once an update.
 *
 *   begin(M)           M micro-batches in the update, each rank has a contiguous share of them
 *     buffer = leaf()  zeroed; the backward pass accumulates one micro-batch's gradient into it. Always
 *                      the same, so that a pass may be repeated as it was (lrd_graph_begin)
 *     leaf_done()      again for each micro-batch of the share
 *   end(&sum)          all ranks hold the same bits
 *
 * reproducible: one binary tree over the micro-batches (comm/tree.h), whatever the number of ranks and
 * whatever their shares.
 * A rank keeps its partial nodes in a few buffers. At the end each rank receives, of every rank's
 * maximal nodes, one slice of the parameters, adds them up in the tree's order, and gives the
 * result to all: about twice the data that a plain all-reduce moves when ranks hold one node each,
 * which they do when M is a power of two times their number.
 *
 * fast: each rank sums its own, then one all-reduce.
 *
 * All of it on the devices where they are connected (comm/devcomm.h): end() then enqueues, and waits for
 * nothing. Else MPI moves it: in place on back ends that read host memory, through pinned copies on others.
 */
#ifndef LRD_COMM_REDUCE_H
#define LRD_COMM_REDUCE_H

#include "base/arena.h"
#include "comm/devcomm.h"
#include "comm/tree.h"
#include "kernels/ops.h"

typedef struct lrd_reduce lrd_reduce_t;

typedef struct lrd_reduce_options {
    lrd_comm_t *comm;
    lrd_devcomm_t *devices; /* of the ranks of comm, on this stream; NULL: MPI moves the data */
    lrd_stream_t *stream;
    int64_t n;          /* floats of a gradient */
    int64_t max_leaves; /* micro-batches that an update may have */
    /* A rank's share of them may be any of up to so many; 0: shares are even (base/share.h). */
    int64_t max_share;
    bool reproducible;
} lrd_reduce_options_t;

/* Host side only; follow with layout. The caller destroys it. */
lrd_status_t lrd_reduce_create(const lrd_reduce_options_t *options, lrd_reduce_t **reduce_out);
void lrd_reduce_destroy(lrd_reduce_t *reduce); /* NULL is fine */

/* Takes its device memory from the arena (category "gradients");
 * may be called twice, measuring first. */
void lrd_reduce_layout(lrd_reduce_t *reduce, lrd_arena_t *arena);

/* Pinned host memory that it holds beside the arena. */
size_t lrd_reduce_pinned_bytes(const lrd_reduce_t *reduce);

/* An update of n_leaves micro-batches begins; rank r's are begin[r] .. begin[r + 1] - 1, the same
 * begin[ranks + 1] on all of them, which stays until the end. Not collective. */
void lrd_reduce_begin(lrd_reduce_t *reduce, int64_t n_leaves, const int64_t *begin);

/* A zeroed device buffer [n] for the next micro-batch of the share. */
lrd_status_t lrd_reduce_leaf(lrd_reduce_t *reduce, float **buffer_out);
lrd_status_t lrd_reduce_leaf_done(lrd_reduce_t *reduce);

/* The sum, in device memory [n], valid until the next begin.
 * Ranks without a micro-batch take part. Collective. */
lrd_status_t lrd_reduce_end(lrd_reduce_t *reduce, float **sum_out);

#endif /* LRD_COMM_REDUCE_H */
