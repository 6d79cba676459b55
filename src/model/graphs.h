/* model/graphs.h -- passes that come again and again are launched as graphs.
 *
 * A pass is known by its key: every value of the host that its ops and copies are given, pointers
 * included. The first time it runs as it stands, the second time it is taken down, and from then on it is
 * one launch. Where as many graphs are kept as may be, it takes the place of the one that was not asked for
 * the longest, if that was not since it was asked for itself; else it runs as it stands. So passes that come
 * once cost no graph its place, and of more passes in turn than are kept some are graphs all the time. One that
 * is larger than memory was set aside for always runs as it stands. Only where the backend has graphs
 * (lrd_has_graphs).
 */
#ifndef LRD_MODEL_GRAPHS_H
#define LRD_MODEL_GRAPHS_H

#include "kernels/ops.h"

typedef struct lrd_graphs lrd_graphs_t;

/* Enqueues the pass. It must do the same whenever it is called with the same key, and wait for nothing. */
typedef lrd_status_t lrd_graphs_pass_t(void *context);

/* What memory is set aside for. */
typedef struct lrd_graphs_limits {
    int n;            /* graphs at once, fewer if they are larger than usual */
    int64_t n_blocks; /* of the longest pass */
    int64_t n_uses;   /* adapters that act in one, at most */
    int64_t n_nodes;  /* that all passes through blocks have, if every one comes; 0: nobody knows */
    size_t n_words;   /* of the longest key */
} lrd_graphs_limits_t;

/* Borrows the stream. The caller destroys it. */
lrd_status_t lrd_graphs_create(lrd_stream_t *stream, const lrd_graphs_limits_t *limits,
                               lrd_graphs_t **graphs_out);
void lrd_graphs_destroy(lrd_graphs_t *graphs); /* NULL is fine; waits for the stream */

/* Enqueues a pass in one way or another. */
lrd_status_t lrd_graphs_run(lrd_graphs_t *graphs, const uint64_t *key, size_t n_words,
                            lrd_graphs_pass_t *pass, void *context);

/* Nodes of a block, up and down, with adapters on so many of its linears. */
int64_t lrd_graphs_nodes_up(int64_t n_adapted);
int64_t lrd_graphs_nodes_down(int64_t n_adapted);

/* Device memory that they take at most. NULL: 0. */
size_t lrd_graphs_reserve(const lrd_graphs_t *graphs);

/* What they have taken of it, by what the device had less of behind the first launch of each, and has again behind its
 * end: the most at once, and now. NULL: nothing. */
typedef struct lrd_graphs_taken {
    size_t most, now;
} lrd_graphs_taken_t;
lrd_graphs_taken_t lrd_graphs_taken(const lrd_graphs_t *graphs);

/* Forgets all passes, whatever it returns: memory that they use is going to be freed, or used otherwise.
 * Waits for the stream. */
lrd_status_t lrd_graphs_forget(lrd_graphs_t *graphs);

#endif /* LRD_MODEL_GRAPHS_H */
