/* model/relay.h -- one micro-batch forward through layers that are spread over ranks.
 *
 * It goes from rank to rank, from device to device where the grid's row is connected so, else through pinned
 * host memory; each takes it through its own runs of layers, and the last one meets the head. One rank computes at a time. Where all layers are on one rank, that is one
 * call of what is done with the head.
 */
#ifndef LRD_MODEL_RELAY_H
#define LRD_MODEL_RELAY_H

#include "comm/grid.h"
#include "model/stage.h"

typedef struct lrd_relay {
    lrd_stage_t *stage;     /* borrowed */
    const lrd_grid_t *grid; /* borrowed; set by the owner before a run */
    void *data;             /* pinned: activations on their way; NULL: all layers are here */
    size_t bytes;
} lrd_relay_t;

/* What the rank with the head does with its last run of layers: lrd_stage_next and the like. */
typedef lrd_status_t lrd_relay_head_t(void *context, const lrd_micro_batch_t *batch);

/* Allocates pinned memory for the largest micro-batch of the stage. */
lrd_status_t lrd_relay_open(lrd_stage_t *stage, lrd_relay_t *relay_out);
void lrd_relay_close(lrd_relay_t *relay); /* {0} is fine; before the stage */

/* A micro-batch on its way. */
typedef struct lrd_relay_pass {
    const lrd_micro_batch_t *batch;
    lrd_status_t (*begin)(void *context); /* what is enqueued first on each rank; NULL: nothing */
    lrd_relay_head_t *head;
    void *context; /* of both */
    /* Keeps what lies between two messages, which comes again with the same key; the key's first word is
     * the relay's. NULL: it does not come again. */
    lrd_graphs_t *graphs;
    uint64_t *key;
    size_t n_words;
} lrd_relay_pass_t;

/* Enqueues what comes after the last message. A failure inside is this rank's alone: the others of the row
 * wait, so pass it to lrd_comm_abort. Collective on the grid's row. */
lrd_status_t lrd_relay_run(lrd_relay_t *relay, const lrd_relay_pass_t *pass);

#endif /* LRD_MODEL_RELAY_H */
