#include "comm/comm.h"

#include "base/log.h"
#include "base/mem.h"
#include "comm/comm_table.h"
#include "comm/nap.h"
#include "comm/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long meetings;
static char agreed[COMM_CAUSE_BYTES]; /* the cause that this rank agreed on last, with whomever */

long lrd_comm_meetings(void)
{
    return meetings;
}

/* What LRD_FAULT asks for at this meeting: a signal is raised here. */
static lrd_status_t planted_fault(const lrd_comm_t *comm)
{
    lrd_status_t status = LRD_OK;
    const char *text = getenv("LRD_FAULT");
    int rank, at_name = 0;
    long n;
    if (text == NULL || sscanf(text, "%d:%ld:%n", &rank, &n, &at_name) < 2 || at_name == 0)
        goto out;
    meetings++;
    if (rank != comm->rank || n != meetings)
        goto out;
    LRD_CHECK(strcmp(text + at_name, "fail") != 0, LRD_ERR_COMM, "planted failure at meeting %ld",
              n);
    raise((int)strtol(text + at_name, NULL, 10));
out:
    return status;
}

/* Around every call of a transport. */
static lrd_status_t begin_meeting(lrd_comm_t *comm)
{
    const lrd_status_t status = planted_fault(comm);
    watch_set_waiting(comm->watch, true);
    return status;
}

/* Where the transport has failed the ranks are out of step for good. */
static lrd_status_t end_meeting(lrd_comm_t *comm, lrd_status_t status)
{
    watch_set_waiting(comm->watch, false);
    return lrd_comm_abort(comm, status);
}

#define MEET(comm, call)                        \
    do {                                        \
        lrd_status_t met = begin_meeting(comm); \
        if (met == LRD_OK)                      \
            met = (call);                       \
        return end_meeting(comm, met);          \
    } while (0)

/* True: a launcher started this process as one of a job's ranks. */
static bool has_launcher(void)
{
    /* Open MPI's mpirun; any PMIx launcher; srun with pmi2.
     * A batch script's own environment has none of them. */
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        if (getenv(marks[i]) != NULL)
            return true;
    }
    return false;
}

static lrd_comm_t world;

lrd_status_t lrd_comm_open(lrd_leave_t *leave, lrd_comm_t **comm_out)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = &world;
    *comm = (lrd_comm_t){.joined = LRD_OK, .leave = leave};
    if (gethostname(comm->host, sizeof comm->host - 1) != 0)
        snprintf(comm->host, sizeof comm->host, "unknown host");
    if (has_launcher())
        LRD_TRY(comm_mpi_open(comm));
    else
        comm_self_open(comm);
    comm->world_rank = comm->rank;
    lrd_log_set_rank(comm->rank, comm->size);
    LRD_TRY(watch_open(comm, &comm->watch));
    *comm_out = comm;
out:
    return status;
}

void lrd_comm_close(lrd_comm_t *comm)
{
    if (comm == NULL)
        return;
    watch_close(comm->watch);
    comm->watch = NULL;
    while (comm->parts != NULL) {
        lrd_comm_t *part = comm->parts;
        comm->parts = part->next;
        part->table->close(part);
        lrd_free(part);
    }
    comm->table->close(comm);
    if (comm != &world)
        lrd_free(comm); /* an imagined one */
}

lrd_status_t lrd_comm_imagine(int rank, int size, lrd_comm_t **comm_out)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm;
    LRD_NEW(comm, 1);
    comm_imagined_open(comm);
    comm->rank = comm->world_rank = rank;
    comm->size = size;
    comm->local_size = size;
    snprintf(comm->host, sizeof comm->host, "planned");
    *comm_out = comm;
out:
    return status;
}

lrd_status_t lrd_comm_split(lrd_comm_t *whole, int group, int rank, int size, lrd_comm_t **part_out)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *part = NULL;
    LRD_NEW(part, 1);
    part->rank = rank;
    part->size = size;
    LRD_NEW(part->ranges, 4 * whole->size);
    memcpy(part->host, whole->host, sizeof part->host);
    part->world_rank = whole->world_rank;
    part->watch = whole->watch;
    part->leave = whole->leave;
out:
    status = lrd_agree(whole, status);
    if (status == LRD_OK)
        status = lrd_agree(whole, whole->table->split(whole, group, part));
    if (status == LRD_OK) {
        part->next = whole->parts;
        whole->parts = part;
        *part_out = part;
        return LRD_OK;
    }
    if (part != NULL)
        lrd_free(part->ranges);
    lrd_free(part);
    return status;
}

lrd_status_t lrd_comm_limit_silence(lrd_comm_t *comm, double timeout_seconds)
{
    return watch_limit(comm->watch, timeout_seconds);
}

void lrd_comm_share_stop(lrd_comm_t *comm, volatile sig_atomic_t *stop)
{
    watch_share_stop(comm->watch, stop);
}

int lrd_comm_rank(const lrd_comm_t *comm)
{
    return comm->rank;
}

int lrd_comm_size(const lrd_comm_t *comm)
{
    return comm->size;
}

int lrd_comm_local_rank(const lrd_comm_t *comm)
{
    return comm->local_rank;
}

int lrd_comm_local_size(const lrd_comm_t *comm)
{
    return comm->local_size;
}

const char *lrd_comm_host(const lrd_comm_t *comm)
{
    return comm->host;
}

/* The cause with the rank that has it. One that was agreed on before has it already. */
static void name_cause(const lrd_comm_t *comm, const char *text, char cause[COMM_CAUSE_BYTES])
{
    if (strcmp(text, agreed) == 0)
        snprintf(cause, COMM_CAUSE_BYTES, "%s", text);
    else
        snprintf(cause, COMM_CAUSE_BYTES, "rank %d (%s): %s", comm->world_rank, comm->host, text);
}

/* The lowest rank that failed; size: none did. One that was asked to stop counts where none has
 * failed, and one that only heard of another's failure where no rank has a cause. */
static lrd_status_t find_failed(lrd_comm_t *comm, lrd_status_t mine, int *failed_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t me = -comm->rank, none = -comm->size; /* lowest: the maximum of -rank */
    const bool heard = mine == LRD_ERR_PEER, interrupted = mine == LRD_ERR_INTERRUPTED;
    int64_t first[3] = {mine != LRD_OK && !interrupted && !heard ? me : none,
                        mine != LRD_OK && !heard ? me : none, mine != LRD_OK ? me : none};
    LRD_TRY(comm->table->max_i64(comm, first, 3));
    *failed_out = comm->size;
    for (int i = 2; i >= 0; i--)
        *failed_out = first[i] > none ? (int)-first[i] : *failed_out;
out:
    return status;
}

typedef struct news {
    int32_t status;
    char cause[COMM_CAUSE_BYTES];
} news_t;

/* What became of this rank's phase; the answer is everyone's. */
static lrd_status_t exchange_news(lrd_comm_t *comm, lrd_status_t mine, news_t *news_out)
{
    lrd_status_t status = LRD_OK;
    int failed;
    *news_out = (news_t){.status = mine};
    LRD_TRY(find_failed(comm, mine, &failed));
    if (failed == comm->size)
        goto out;
    if (comm->rank == failed)
        name_cause(comm, lrd_error_text(mine), news_out->cause);
    LRD_TRY(comm->table->broadcast(comm, news_out, sizeof *news_out, failed));
out:
    return status;
}

lrd_status_t(lrd_agree)(lrd_comm_t *comm, lrd_status_t mine)
{
    lrd_status_t status = LRD_OK;
    news_t news;
    const lrd_status_t fault = begin_meeting(comm);
    if (mine == LRD_OK)
        mine = fault != LRD_OK ? fault : comm->joined;
    if (comm->size == 1) {
        watch_set_waiting(comm->watch, false);
        return mine;
    }
    LRD_TRY(end_meeting(comm, exchange_news(comm, mine, &news)));
    if (news.status == LRD_OK)
        goto out;
    memcpy(agreed, news.cause, sizeof agreed);
    lrd_error_clear();
    LRD_FAIL((lrd_status_t)news.status, "%s", news.cause);
out:
    return status;
}

lrd_status_t lrd_agree_unless_stopped(lrd_comm_t *comm, lrd_status_t mine, const lrd_stop_t *stop)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(mine);
    LRD_CHECK_STOP(stop);
out:
    return lrd_agree(comm, status);
}

lrd_status_t lrd_comm_abort(lrd_comm_t *comm, lrd_status_t status)
{
    if (comm->size == 1 || status == LRD_OK)
        return status;
    char cause[COMM_CAUSE_BYTES];
    name_cause(comm, lrd_error_text(status), cause);
    if (watch_announce_end(comm->watch))
        lrd_error("%s", cause);
    comm->table->abort(comm, 1);
    return status;
}

lrd_status_t lrd_comm_send(lrd_comm_t *comm, const void *data, size_t bytes, int to, int tag,
                           lrd_message_t *message)
{
    return comm->table->send(comm, data, bytes, to, tag, message);
}

lrd_status_t lrd_comm_receive(lrd_comm_t *comm, void *data, size_t bytes, int from, int tag,
                              lrd_message_t *message)
{
    return comm->table->receive(comm, data, bytes, from, tag, message);
}

lrd_status_t lrd_comm_wait(lrd_comm_t *comm, lrd_message_t *message)
{
    lrd_status_t status = LRD_OK;
    nap_t pause = {0};
    watch_set_waiting(comm->watch, message->pending);
    while (message->pending) {
        LRD_TRY(comm->table->test(comm, message));
        if (message->pending)
            nap(&pause);
    }
out:
    watch_set_waiting(comm->watch, false);
    return status;
}

lrd_status_t lrd_comm_broadcast(lrd_comm_t *comm, void *data, size_t bytes, int root)
{
    MEET(comm, comm->table->broadcast(comm, data, bytes, root));
}

lrd_status_t lrd_comm_all_gather(lrd_comm_t *comm, const void *mine, void *all,
                                 const size_t *offset)
{
    MEET(comm, comm->table->all_gather(comm, mine, all, offset));
}

lrd_status_t lrd_comm_collect(lrd_comm_t *comm, const void *mine, size_t mine_bytes, size_t *offset,
                              char **all_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(comm), rank = lrd_comm_rank(comm);
    size_t *bytes = NULL;
    char *all = NULL;
    LRD_NEW(bytes, size);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof *bytes;
    bytes[rank] = mine_bytes;
out:
    status = lrd_agree(comm, status);
    if (status == LRD_OK)
        status = lrd_comm_all_gather(comm, &bytes[rank], bytes, offset);
    if (status == LRD_OK) {
        offset[0] = 0;
        for (int r = 0; r < size; r++)
            offset[r + 1] = offset[r] + bytes[r];
        all = lrd_malloc(offset[size]);
        if (all == NULL)
            status = lrd_fail(LRD_ERR_NO_MEMORY, __FILE__, __LINE__, "out of memory");
        status = lrd_agree(comm, status);
    }
    if (status == LRD_OK)
        status = lrd_comm_all_gather(comm, mine, all, offset);
    if (status == LRD_OK)
        *all_out = all;
    else
        lrd_free(all);
    lrd_free(bytes);
    return status;
}

lrd_status_t lrd_comm_exchange(lrd_comm_t *comm, const void *send, const size_t *send_offset,
                               void *receive, const size_t *receive_offset)
{
    MEET(comm, comm->table->exchange(comm, send, send_offset, receive, receive_offset));
}

lrd_status_t lrd_comm_sum_f32(lrd_comm_t *comm, float *data, size_t n)
{
    MEET(comm, comm->table->sum_f32(comm, data, n));
}

lrd_status_t lrd_comm_max_i64(lrd_comm_t *comm, int64_t *data, size_t n)
{
    MEET(comm, comm->table->max_i64(comm, data, n));
}

lrd_status_t lrd_comm_same(lrd_comm_t *comm, const void *data, size_t bytes, bool *same_out)
{
    lrd_status_t status = LRD_OK;
    /* {v, -v} under MAX: equal on all ranks iff the two maxima are negatives of each other. */
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
    const int64_t value = (int64_t)(hash >> 2);
    int64_t extremes[2] = {value, -value};
    LRD_TRY(lrd_comm_max_i64(comm, extremes, 2));
    *same_out = extremes[0] == -extremes[1];
out:
    return status;
}
