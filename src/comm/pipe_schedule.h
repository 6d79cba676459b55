/* comm/pipe_schedule.h -- who computes what when, where one model's layers are spread over ranks.
 *
 * A replica is p ranks (stages) with v runs of layers each. Run k = chunk * p + stage; run 0 begins
 * with the embedding, run p v - 1 ends with the head:
 *
 *            stage 0   stage 1   stage 2          a micro-batch goes 0 1 2 3 4 5 forward
 *   chunk 0   run 0     run 1     run 2           and 5 4 3 2 1 0 backward
 *   chunk 1   run 3     run 4     run 5
 *
 * v = 1 is 1F1B: a stage runs ahead by as many forward passes as there are stages behind it, then
 * alternates, so that stage s keeps at most p - s micro-batches. v > 1 is interleaved: micro-batches
 * go through the chunks in groups of p to 2 p - 1, and a stage waits 1 / v as long for the first
 * and the last of them.
 *
 * The order of a stage's actions is a pure function of the shape. Of each run the micro-batches come
 * in ascending order, forward and backward, so that those it keeps are neighbours.
 */
#ifndef LRD_COMM_PIPE_SCHEDULE_H
#define LRD_COMM_PIPE_SCHEDULE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_pipe_shape {
    int n_stages, n_chunks;  /* p, v; with p = 1, v is 1 */
    int64_t n_micro_batches; /* m; 0: there is nothing to do */
    int lowest; /* the first run with a backward pass; p v: none has, as in evaluation */
} lrd_pipe_shape_t;

typedef struct lrd_pipe_action {
    bool backward;
    int chunk;
    int64_t micro_batch;
} lrd_pipe_action_t;

/* A place in a stage's list of actions. */
typedef struct lrd_pipe_cursor {
    lrd_pipe_shape_t shape;
    int stage;
    int64_t n_forward, n_backward; /* behind us, backward passes that nobody needs included */
} lrd_pipe_cursor_t;

void lrd_pipe_begin(lrd_pipe_cursor_t *cursor, lrd_pipe_shape_t shape, int stage);

/* The stage's next action; false: that was the last one. */
bool lrd_pipe_next(lrd_pipe_cursor_t *cursor, lrd_pipe_action_t *action_out);

/* How many micro-batches a stage keeps of a chunk at once, in any update of up to n_micro_batches:
 * whose pass forward has begun and whose pass backward has not ended. 1 without a backward pass. */
int64_t lrd_pipe_in_flight(lrd_pipe_shape_t shape, int stage, int chunk);

/* The fewest buffers for messages from one run to the next, in any update of up to n_micro_batches,
 * with which no stage waits for ever where a message leaves its buffer only when it is received:
 * groups of more than p micro-batches pile up before the next chunk. */
int64_t lrd_pipe_buffers(lrd_pipe_shape_t shape);

/* What the passes of the usual micro-batch take. */
typedef struct lrd_pipe_cost {
    const double *forward, *backward; /* [p v] seconds of each run */
    double hop;         /* seconds from the end of a pass until another stage has it */
    const double *size; /* [m] how much longer a micro-batch takes than that; NULL: all as long */
} lrd_pipe_cost_t;

/* Seconds of all actions of all stages, each as early as it can be, and the part of them that the
 * stages compute, 0 to 1. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_pipe_predict(lrd_pipe_shape_t shape, const lrd_pipe_cost_t *cost,
                              double *seconds_out, double *utilisation_out);

#endif /* LRD_COMM_PIPE_SCHEDULE_H */
