#include "comm/devcomm.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/alike.h"
#include "comm/comm_table.h"
#include "comm/devcomm_table.h"
#include "comm/devices.h"
#include "comm/nap.h"
#include "comm/watch.h"
#include "kernels/plugin.h"

#include <stdio.h>

/* A group takes its leave for so long; then it is left. */
static const double close_seconds = 10;

/* Timers around a call, on its stream. */
typedef struct lap {
    lrd_event_t *begin, *end;
} lap_t;

struct lrd_devcomm {
    lrd_stream_guard_t guard; /* first: the stream's guard is its first group */
    lrd_devcomm_t *next;      /* of the same stream */
    const devcomm_table_t *table;
    lrd_comm_t *comm;
    lrd_stream_t *stream;
    void *group;  /* NULL: not connected */
    size_t taken; /* bytes of the device */
    bool *met;    /* [size + 2] ranks that messages went to or came from; a sum, a gather */
    bool is_timed;
    lap_t *lap; /* [n_made] timers; n_laps of them around the calls since the clock was started */
    size_t n_laps, n_made, capacity;
};

static lrd_status_t find_library(const devcomm_table_t **table_out)
{
    static const lrd_plugin_t plugin = {"liblrd_nccl.so", "LRD_NCCL_PLUGIN", DEVCOMM_ENTRY,
                                        "comm/devcomm_table.h", DEVCOMM_ABI_VERSION};
    lrd_status_t status = LRD_OK;
    const void *table;
    LRD_TRY(lrd_plugin_open(&plugin, &table));
    *table_out = table;
out:
    return status;
}

lrd_status_t lrd_devcomm_library(char text[96])
{
    lrd_status_t status = LRD_OK;
    const devcomm_table_t *table;
    LRD_TRY(find_library(&table));
    table->library(text);
out:
    return status;
}

static void *native(const lrd_stream_t *stream)
{
    const lrd_ops_t *ops = stream->backend->ops;
    return ops->stream_native != NULL ? ops->stream_native((lrd_stream_t *)stream) : NULL;
}

/* What of it this rank lacks. */
static lrd_status_t check_own(const lrd_stream_t *stream)
{
    lrd_status_t status = LRD_OK;
    const devcomm_table_t *table;
    LRD_CHECK(native(stream) != NULL, LRD_ERR_UNAVAILABLE,
              "the memory of back end %s is not a GPU's", stream->backend->ops->name);
    LRD_TRY(find_library(&table));
out:
    return status;
}

lrd_status_t lrd_devcomm_expect(lrd_comm_t *world, lrd_stream_t *stream,
                                const lrd_parallel_settings_t *settings, bool *likely_out)
{
    lrd_status_t status = LRD_OK;
    int64_t lacks = 1;
    *likely_out = false;
    if (lrd_comm_size(world) == 1 || settings->transport == LRD_TRANSPORT_MPI ||
        settings->ranks_per_device > 1 || native(stream) == NULL)
        goto out;
    if (check_own(stream) == LRD_OK)
        lacks = 0;
    else
        lrd_error_clear();
    LRD_TRY(lrd_comm_max_i64(world, &lacks, 1));
    *likely_out = lacks == 0;
out:
    return status;
}

static lrd_status_t check_alike(lrd_comm_t *world)
{
    lrd_status_t status = LRD_OK;
    const devcomm_table_t *table;
    char software[LRD_SOFTWARE];
    LRD_TRY(find_library(&table));
    table->software(software);
    LRD_TRY(lrd_alike_check(world, software));
out:
    return status;
}

static lrd_status_t check_all(lrd_comm_t *world, lrd_stream_t *stream)
{
    lrd_status_t status = LRD_OK;
    bool shared;
    LRD_TRY(lrd_agree(world, check_own(stream)));
    LRD_TRY(check_alike(world));
    LRD_TRY(lrd_devices_shared(world, stream->backend, &shared));
    LRD_CHECK(!shared, LRD_ERR_UNAVAILABLE,
              "ranks share a GPU (parallel.ranks_per_device), which NCCL does not do");
out:
    return status;
}

lrd_status_t lrd_devcomm_choose(lrd_comm_t *world, lrd_stream_t *stream,
                                const lrd_parallel_settings_t *settings, bool *use_out)
{
    lrd_status_t status = LRD_OK;
    *use_out = false;
    if (lrd_comm_size(world) == 1 || settings->transport == LRD_TRANSPORT_MPI)
        goto out;
    status = check_all(world, stream);
    if (status == LRD_ERR_UNAVAILABLE && settings->transport == LRD_TRANSPORT_AUTO) {
        if (native(stream) != NULL)
            lrd_info("GPUs exchange data through host memory: %s", lrd_error_text(status));
        lrd_error_clear();
        status = LRD_OK;
        goto out;
    }
    if (status == LRD_ERR_UNAVAILABLE) {
        char why[1024];
        snprintf(why, sizeof why, "%s", lrd_error_text(status));
        lrd_error_clear();
        LRD_FAIL(LRD_ERR_UNAVAILABLE,
                 "parallel.transport: nccl: %s. `mpi` goes through host memory", why);
    }
    *use_out = status == LRD_OK;
out:
    return status;
}

/* Until what was begun is over. A rank that never does its part is the watch's affair. */
static lrd_status_t wait_until_ready(lrd_devcomm_t *d)
{
    lrd_status_t status = LRD_OK;
    nap_t pause = {0};
    bool ready = false;
    watch_set_waiting(d->comm->watch, true);
    for (;;) {
        LRD_TRY(d->table->poll(d->group, &ready));
        if (ready)
            break;
        nap(&pause);
    }
out:
    watch_set_waiting(d->comm->watch, false);
    return status;
}

/* The same, for so long. */
static lrd_status_t poll_for(lrd_devcomm_t *d, double seconds, bool *ready_out)
{
    lrd_status_t status = LRD_OK;
    nap_t pause = {0};
    const double begun = lrd_clock_seconds();
    do {
        nap(&pause);
        lrd_beat();
        LRD_TRY(d->table->poll(d->group, ready_out));
    } while (!*ready_out && lrd_clock_seconds() - begun < seconds);
out:
    return status;
}

/* The library lacks memory: how much there is, and what would help. */
static lrd_status_t explain(const lrd_devcomm_t *d, lrd_status_t status)
{
    size_t free_bytes = 0, total_bytes = 0;
    char why[512];
    if (status != LRD_ERR_NO_MEMORY)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    if (lrd_mem_info(d->stream->backend, &free_bytes, &total_bytes) != LRD_OK)
        lrd_error_clear();
    return lrd_fail(status, __FILE__, __LINE__,
                    "out of device memory for NCCL, which has taken %.1f MiB; the device has %.1f "
                    "of %.1f MiB free. "
                    "Leave it more with parallel.max_memory, or go through host memory with "
                    "parallel.transport: mpi "
                    "(%s)",
                    (double)d->taken / 0x1p20, (double)free_bytes / 0x1p20,
                    (double)total_bytes / 0x1p20, why);
}

static void leave(lrd_devcomm_t *d)
{
    if (d->group != NULL)
        d->table->abort(d->group);
    d->group = NULL;
}

static void destroy(lrd_devcomm_t *d)
{
    if (d == NULL)
        return;
    leave(d);
    for (size_t i = 0; i < d->n_made; i++) {
        lrd_event_destroy(d->lap[i].begin);
        lrd_event_destroy(d->lap[i].end);
    }
    lrd_free(d->lap);
    lrd_free(d->met);
    lrd_free(d);
}

/* A failure that the other ranks do not know of. */
static lrd_status_t end_job(lrd_devcomm_t *d, lrd_status_t status)
{
    if (status == LRD_OK)
        return LRD_OK;
    leave(d);
    return lrd_comm_abort(d->comm, status);
}

static bool is_done(const lrd_devcomm_t *d, lrd_event_t *event)
{
    return event != NULL ? event->backend->ops->event_is_done(event)
                         : d->table->is_done(native(d->stream));
}

/* The stream's guard: until the device is there, or some group of the stream has failed. */
static lrd_status_t wait_for_stream(lrd_stream_guard_t *guard, lrd_event_t *event)
{
    lrd_devcomm_t *first = (lrd_devcomm_t *)guard, *d = first;
    lrd_status_t status = LRD_OK;
    nap_t pause = {0};
    watch_set_waiting(first->comm->watch, true);
    while (!is_done(first, event)) {
        for (d = first; d != NULL; d = d->next) {
            bool ready;
            LRD_TRY(d->table->poll(d->group, &ready));
        }
        nap(&pause);
    }
out:
    watch_set_waiting(first->comm->watch, false);
    return end_job(d, explain(d, status));
}

/* What the device's free bytes became less is the library's. */
static void count_taken(lrd_devcomm_t *d, size_t free_before)
{
    const size_t free_now = lrd_mem_free_bytes(d->stream->backend);
    d->taken += free_before > free_now ? free_before - free_now : 0;
}

size_t lrd_devcomm_reserve(int size, int n_peers, bool collectives)
{
    const devcomm_table_t *table;
    if (find_library(&table) == LRD_OK)
        return table->reserve(size, n_peers, collectives);
    lrd_error_clear();
    return 0;
}

size_t lrd_devcomm_taken(const lrd_devcomm_t *d)
{
    return d->taken;
}

static lrd_status_t create(lrd_comm_t *comm, lrd_stream_t *stream, lrd_devcomm_t **devcomm_out)
{
    lrd_status_t status = LRD_OK;
    lrd_devcomm_t *d;
    LRD_NEW(d, 1);
    d->guard.wait = wait_for_stream;
    d->comm = comm;
    d->stream = stream;
    *devcomm_out = d;
    LRD_NEW(d->met, comm->size + 2);
    LRD_TRY(find_library(&d->table));
out:
    return status;
}

/* A rank that has waited in vain is not the cause where another one has failed: LRD_ERR_PEER. */
static lrd_status_t connect_all(lrd_devcomm_t *d, double timeout_seconds)
{
    lrd_status_t status = LRD_OK;
    bool ready;
    LRD_TRY(poll_for(d, timeout_seconds, &ready));
    LRD_CHECK(ready, LRD_ERR_PEER,
              "NCCL: %d ranks have not connected within %g seconds (parallel.timeout_seconds)",
              d->comm->size, timeout_seconds);
out:
    return status;
}

lrd_status_t lrd_devcomm_open(lrd_comm_t *comm, lrd_stream_t *stream, double timeout_seconds,
                              lrd_devcomm_t **devcomm_out)
{
    lrd_status_t status = LRD_OK, made = LRD_OK;
    unsigned char id[DEVCOMM_ID_BYTES] = {0};
    lrd_devcomm_t *d = NULL;
    LRD_TRY(lrd_agree(comm, create(comm, stream, &d)));
    const size_t free_before = lrd_mem_free_bytes(d->stream->backend);
    if (comm->rank == 0)
        made = d->table->make_id(id);
    LRD_TRY(lrd_agree(comm, made));
    LRD_TRY(lrd_comm_broadcast(comm, id, sizeof id, 0));
    made = d->table->open(id, comm->rank, comm->size, &d->group);
    LRD_TRY(lrd_agree(comm, explain(d, made)));
    LRD_TRY(lrd_agree(comm, explain(d, connect_all(d, timeout_seconds))));
    count_taken(d, free_before);
    d->next = (lrd_devcomm_t *)stream->guard;
    stream->guard = &d->guard;
    *devcomm_out = d;
    d = NULL;
out:
    destroy(d);
    return status;
}

void lrd_devcomm_close(lrd_devcomm_t *d)
{
    bool ready = false;
    if (d == NULL)
        return;
    lrd_stream_guard_t **at = &d->stream->guard;
    if (*at == &d->guard) {
        *at = d->next != NULL ? &d->next->guard : NULL;
    } else {
        lrd_devcomm_t *before = (lrd_devcomm_t *)*at;
        while (before->next != d)
            before = before->next;
        before->next = d->next;
    }
    if (d->group != NULL && d->table->finish(d->group) == LRD_OK &&
        poll_for(d, close_seconds, &ready) == LRD_OK && ready) {
        d->table->destroy(d->group);
        d->group = NULL;
    }
    destroy(d);
}

/* A call under way. */
typedef struct call {
    const lap_t *lap; /* NULL: it is not timed */
    bool is_first;    /* of its kind */
    size_t free_before;
} call_t;

/* The next pair of timers: an update needs as many as the one before it. */
static lrd_status_t next_lap(lrd_devcomm_t *d, const lap_t **lap_out)
{
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = d->stream->backend;
    if (d->n_laps == d->n_made) {
        LRD_GROW(d->lap, d->n_made, d->capacity);
        d->lap[d->n_made] = (lap_t){NULL, NULL};
        LRD_TRY(lrd_timer_create(be, &d->lap[d->n_made].begin));
        status = lrd_timer_create(be, &d->lap[d->n_made].end);
        if (status != LRD_OK)
            lrd_event_destroy(d->lap[d->n_made].begin);
        LRD_TRY(status);
        d->n_made++;
    }
    *lap_out = &d->lap[d->n_laps++];
out:
    return status;
}

/* Before a call. is_first: the library connects for it. */
static lrd_status_t begin(lrd_devcomm_t *d, bool is_first, call_t *call_out)
{
    lrd_status_t status = LRD_OK;
    call_t call = {.is_first = is_first};
    if (d->is_timed) {
        LRD_TRY(next_lap(d, &call.lap));
        LRD_TRY(lrd_event_record(d->stream, call.lap->begin));
    }
    if (is_first)
        call.free_before = lrd_mem_free_bytes(d->stream->backend);
    *call_out = call;
out:
    return end_job(d, status);
}

/* Behind it. */
static lrd_status_t settle(lrd_devcomm_t *d, const call_t *call, lrd_status_t begun)
{
    lrd_status_t status = begun;
    lrd_beat();
    if (status == LRD_OK)
        status = wait_until_ready(d);
    status = explain(d, status);
    if (status == LRD_OK && call->is_first)
        count_taken(d, call->free_before);
    if (status == LRD_OK && call->lap != NULL)
        status = lrd_event_record(d->stream, call->lap->end);
    return end_job(d, status);
}

/* Is it the first of this kind (see met)? */
static bool meets(lrd_devcomm_t *d, int kind)
{
    const bool is_first = !d->met[kind];
    d->met[kind] = true;
    return is_first;
}

lrd_status_t lrd_devcomm_sum_f32(lrd_devcomm_t *d, const float *from, float *to, int64_t n)
{
    lrd_status_t status = LRD_OK;
    call_t call = {.lap = NULL};
    LRD_TRY(begin(d, meets(d, d->comm->size), &call));
    status = d->table->sum_f32(d->group, native(d->stream), from, to, (size_t)n);
    status = settle(d, &call, status);
out:
    return status;
}

lrd_status_t lrd_devcomm_all_gather_f32(lrd_devcomm_t *d, const float *mine, float *all, int64_t n)
{
    lrd_status_t status = LRD_OK;
    call_t call = {.lap = NULL};
    LRD_TRY(begin(d, meets(d, d->comm->size + 1), &call));
    status = d->table->all_gather_f32(d->group, native(d->stream), mine, all, (size_t)n);
    status = settle(d, &call, status);
out:
    return status;
}

lrd_status_t lrd_devcomm_exchange(lrd_devcomm_t *d, const lrd_device_message_t *send, int n_send,
                                  const lrd_device_message_t *receive, int n_receive)
{
    lrd_status_t status = LRD_OK;
    bool is_first = false;
    call_t call = {.lap = NULL};
    for (int i = 0; i < n_send; i++)
        is_first = meets(d, send[i].rank) || is_first;
    for (int i = 0; i < n_receive; i++)
        is_first = meets(d, receive[i].rank) || is_first;
    LRD_TRY(begin(d, is_first, &call));
    status = d->table->exchange(d->group, native(d->stream), send, n_send, receive, n_receive);
    status = settle(d, &call, status);
out:
    return status;
}

void lrd_devcomm_start_clock(lrd_devcomm_t *d)
{
    d->is_timed = true;
    d->n_laps = 0;
}

lrd_status_t lrd_devcomm_read_clock(lrd_devcomm_t *d, double *seconds_out)
{
    lrd_status_t status = LRD_OK;
    double sum = 0, seconds;
    d->is_timed = false;
    for (size_t i = 0; i < d->n_laps; i++) {
        LRD_TRY(lrd_timer_seconds(d->lap[i].begin, d->lap[i].end, &seconds));
        sum += seconds;
    }
    *seconds_out = sum;
out:
    return status;
}
