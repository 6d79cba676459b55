/* comm/comm_table.h -- what a transport implements. Private to src/comm. */
#ifndef LRD_COMM_TABLE_H
#define LRD_COMM_TABLE_H

#include "comm/comm.h"

/* Everything on host memory; see the functions of the same names in comm.h. */
typedef struct comm_table {
    lrd_status_t (*broadcast)(lrd_comm_t *c, void *data, size_t bytes, int root);
    lrd_status_t (*all_gather)(lrd_comm_t *c, const void *mine, void *all, const size_t *offset);
    lrd_status_t (*exchange)(lrd_comm_t *c, const void *send, const size_t *send_offset,
                             void *receive, const size_t *receive_offset);
    lrd_status_t (*sum_f32)(lrd_comm_t *c, float *data, size_t n);
    lrd_status_t (*max_i64)(lrd_comm_t *c, int64_t *data, size_t n);
    lrd_status_t (*send)(lrd_comm_t *c, const void *data, size_t bytes, int to, int tag,
                         lrd_message_t *message);
    lrd_status_t (*receive)(lrd_comm_t *c, void *data, size_t bytes, int from, int tag,
                            lrd_message_t *message);
    lrd_status_t (*test)(lrd_comm_t *c, lrd_message_t *message); /* clears `pending` when done */
    /* Fills *part, whose rank and size are set already. */
    lrd_status_t (*split)(lrd_comm_t *world, int group, lrd_comm_t *part);
    void (*abort)(lrd_comm_t *c, int exit_code);
    void (*close)(lrd_comm_t *c);
} comm_table_t;

enum { COMM_CAUSE_BYTES = 2048 };

struct lrd_comm {
    const comm_table_t *table;
    int rank, size, local_rank, local_size;
    int world_rank; /* for messages: that of the job's ranks, also in a part */
    char host[64];
    lrd_status_t joined;      /* LRD_ERR_NO_MEMORY: no memory for what the transport needs */
    int *ranges;              /* MPI's: [4 * size], so that no exchange needs memory */
    int64_t transport;        /* MPI's communicator */
    lrd_comm_t *parts, *next; /* what was split off the world: a list */
    struct watch *watch;      /* NULL: nobody watches */
    lrd_leave_t *leave;
};

/* A world of one: fills *c. */
void comm_self_open(lrd_comm_t *c);

/* A rank of a world that is not there: its transport alone. */
void comm_imagined_open(lrd_comm_t *c);

/* The launcher's world: fills *c. */
lrd_status_t comm_mpi_open(lrd_comm_t *c);

#endif /* LRD_COMM_TABLE_H */
