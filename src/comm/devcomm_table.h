/* comm/devcomm_table.h -- what moves device memory between ranks: a plugin (kernels/plugin.h) around NCCL.
 * Private to src/comm.
 *
 * A group is a communicator, a stream the device library's own handle. No call waits for other ranks: what
 * takes its time only begins, and `poll` tells when it is over; until then nothing else may be asked of the
 * group. Work is enqueued when `poll` has said so. Failures are LRD_ERR_COMM, in the library's words, or
 * LRD_ERR_NO_MEMORY where it has found no device memory for itself.
 */
#ifndef LRD_COMM_DEVCOMM_TABLE_H
#define LRD_COMM_DEVCOMM_TABLE_H

#include "comm/devcomm.h"

/* A plugin built against another version of this file or of comm/devcomm.h is refused. */
enum { DEVCOMM_ABI_VERSION = 2 };
#define DEVCOMM_ENTRY "lrd_devcomm_entry"

enum { DEVCOMM_ID_BYTES = 128 };

typedef struct devcomm_table {
    uint32_t abi_version;
    void (*library)(char text[96]);
    void (*software)(char text[LRD_SOFTWARE]); /* what ranks must have alike (comm/alike.h) */
    size_t (*reserve)(int size, int n_peers, bool collectives); /* lrd_devcomm_reserve */
    lrd_status_t (*make_id)(unsigned char id[DEVCOMM_ID_BYTES]);
    lrd_status_t (*open)(const unsigned char id[DEVCOMM_ID_BYTES], int rank, int size,
                         void **group_out);
    lrd_status_t (*poll)(void *group, bool *ready_out);
    lrd_status_t (*sum_f32)(void *group, void *stream, const float *from, float *to, size_t n);
    lrd_status_t (*all_gather_f32)(void *group, void *stream, const float *mine, float *all,
                                   size_t n);
    lrd_status_t (*exchange)(void *group, void *stream, const lrd_device_message_t *send,
                             int n_send, const lrd_device_message_t *receive, int n_receive);
    bool (*is_done)(void *stream);       /* all that was enqueued, or it has failed */
    lrd_status_t (*finish)(void *group); /* poll, then destroy */
    void (*destroy)(void *group);
    void (*abort)(void *group); /* whatever it is doing; it is gone then */
} devcomm_table_t;

#endif /* LRD_COMM_DEVCOMM_TABLE_H */
