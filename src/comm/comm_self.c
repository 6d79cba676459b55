#include "comm/comm_table.h"

#include <string.h>

static lrd_status_t self_broadcast(lrd_comm_t *c, void *data, size_t bytes, int root)
{
    (void)c;
    (void)data;
    (void)bytes;
    (void)root;
    return LRD_OK;
}

static lrd_status_t self_all_gather(lrd_comm_t *c, const void *mine, void *all,
                                    const size_t *offset)
{
    (void)c;
    memmove((char *)all + offset[0], mine, offset[1] - offset[0]);
    return LRD_OK;
}

static lrd_status_t self_exchange(lrd_comm_t *c, const void *send, const size_t *send_offset,
                                  void *receive, const size_t *receive_offset)
{
    (void)c;
    memmove((char *)receive + receive_offset[0], (const char *)send + send_offset[0],
            send_offset[1] - send_offset[0]);
    return LRD_OK;
}

static lrd_status_t self_sum_f32(lrd_comm_t *c, float *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
    return LRD_OK;
}

static lrd_status_t self_max_i64(lrd_comm_t *c, int64_t *data, size_t n)
{
    (void)c;
    (void)data;
    (void)n;
    return LRD_OK;
}

static void self_abort(lrd_comm_t *c, int exit_code)
{
    (void)c;
    (void)exit_code;
}

static void self_close(lrd_comm_t *c)
{
    (void)c;
}

void comm_self_open(lrd_comm_t *c)
{
    static const comm_table_t table = {self_broadcast, self_all_gather, self_exchange, self_sum_f32,
                                       self_max_i64,   self_abort,      self_close};
    c->table = &table;
    c->rank = c->local_rank = 0;
    c->size = c->local_size = 1;
}
