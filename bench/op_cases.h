/* bench/op_cases.h -- the ops of a training step and of generation on random data, for programs that measure them.
 *
 * Shapes of a BLOOM block and head (by default bloom-3b's), T tokens in sequences of L. A step of generation:
 * single rows of 1, 8 and 32 sequences, each with P tokens in its cache.
 */
#ifndef LRD_OP_CASES_H
#define LRD_OP_CASES_H

#include "kernels/ops.h"

typedef struct op_shapes {
    const char *backend, *dtype_name;
    int hidden, heads, vocab, tokens, length, context, rank, repeat, n_threads;
    lrd_dtype_t dtype; /* of dtype_name */
} op_shapes_t;

/* Fills it from the command line, with defaults; false: the usage is wrong, and was printed. */
bool op_shapes_read(op_shapes_t *shapes_out, int argc, char **argv);

/* A tensor that is another one of `copies` each time: the weights of a whole model stay in no cache either. */
typedef struct op_rotation {
    void **data;
    uint8_t *first;
    size_t bytes;
    int64_t copies;
} op_rotation_t;

/* One op, ready to run. */
typedef struct op_case {
    const char *label;
    double flops, bytes; /* as kernels/op_count.c counts them: the least that the op must do */
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    lrd_op_t op;
    const void *args;
    const op_rotation_t *rotation; /* of a tensor of args, or NULL */
} op_case_t;

/* time: counts from 0. */
lrd_status_t op_case_enqueue(const op_case_t *c, int64_t time);

/* What is done with each case. `about`: the device, for people. */
typedef struct op_user {
    lrd_status_t (*begin)(struct op_user *user, const char *about);
    lrd_status_t (*use)(struct op_user *user, const op_case_t *c);
} op_user_t;

/* Opens the back end, makes the tensors, gives every case to `user`, releases all. */
lrd_status_t op_cases_run(const op_shapes_t *shapes, op_user_t *user);

#endif /* LRD_OP_CASES_H */
