#include "comm/comm.h"

#include "base/log.h"
#include "base/mem.h"
#include "comm/comm_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

lrd_status_t lrd_comm_open(lrd_comm_t **comm_out)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = &world;
    *comm = (lrd_comm_t){.joined = LRD_OK};
    if (gethostname(comm->host, sizeof comm->host - 1) != 0)
        snprintf(comm->host, sizeof comm->host, "unknown host");
    if (has_launcher())
        LRD_TRY(comm_mpi_open(comm));
    else
        comm_self_open(comm);
    lrd_log_set_rank(comm->rank, comm->size);
    *comm_out = comm;
out:
    return status;
}

void lrd_comm_close(lrd_comm_t *comm)
{
    if (comm == NULL)
        return;
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
    comm->rank = rank;
    comm->size = size;
    comm->local_size = 1;
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
    if (strcmp(text, comm->agreed) == 0)
        snprintf(cause, COMM_CAUSE_BYTES, "%s", text);
    else
        snprintf(cause, COMM_CAUSE_BYTES, "rank %d (%s): %s", comm->rank, comm->host, text);
}

lrd_status_t lrd_agree(lrd_comm_t *comm, lrd_status_t mine)
{
    lrd_status_t status = LRD_OK;
    if (comm->size == 1)
        return mine;
    if (mine == LRD_OK)
        mine = comm->joined;
    /* The lowest failing rank wins: the maximum of -rank. A rank that only heard of another's
     * failure counts where no rank has a cause of its own. */
    const int64_t me = -comm->rank, none = -comm->size;
    int64_t first[2] = {mine != LRD_OK && mine != LRD_ERR_PEER ? me : none,
                        mine != LRD_OK ? me : none};
    LRD_TRY(comm->table->max_i64(comm, first, 2));
    const int failed = (int)-(first[0] > none ? first[0] : first[1]);
    if (failed == comm->size)
        goto out;
    struct {
        int32_t status;
        char cause[COMM_CAUSE_BYTES];
    } news = {.status = mine};
    if (comm->rank == failed)
        name_cause(comm, lrd_error_text(mine), news.cause);
    LRD_TRY(comm->table->broadcast(comm, &news, sizeof news, failed));
    memcpy(comm->agreed, news.cause, sizeof comm->agreed);
    lrd_error_clear();
    LRD_FAIL((lrd_status_t)news.status, "%s", news.cause);
out:
    return status;
}

lrd_status_t lrd_comm_abort(lrd_comm_t *comm, lrd_status_t status)
{
    if (comm->size == 1 || status == LRD_OK)
        return status;
    char cause[COMM_CAUSE_BYTES];
    name_cause(comm, lrd_error_text(status), cause);
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
    enum { BRIEFLY = 64, LONGEST_NAP = 200000 }; /* tests before the first nap; nanoseconds */
    long nap = 2000;
    for (int tests = 0; message->pending; tests++) {
        LRD_TRY(comm->table->test(comm, message));
        if (message->pending && tests >= BRIEFLY) {
            nanosleep(&(struct timespec){0, nap}, NULL);
            nap = nap * 2 < LONGEST_NAP ? nap * 2 : LONGEST_NAP;
        }
    }
out:
    return status;
}

lrd_status_t lrd_comm_broadcast(lrd_comm_t *comm, void *data, size_t bytes, int root)
{
    return comm->table->broadcast(comm, data, bytes, root);
}

lrd_status_t lrd_comm_all_gather(lrd_comm_t *comm, const void *mine, void *all,
                                 const size_t *offset)
{
    return comm->table->all_gather(comm, mine, all, offset);
}

lrd_status_t lrd_comm_exchange(lrd_comm_t *comm, const void *send, const size_t *send_offset,
                               void *receive, const size_t *receive_offset)
{
    return comm->table->exchange(comm, send, send_offset, receive, receive_offset);
}

lrd_status_t lrd_comm_sum_f32(lrd_comm_t *comm, float *data, size_t n)
{
    return comm->table->sum_f32(comm, data, n);
}

lrd_status_t lrd_comm_max_i64(lrd_comm_t *comm, int64_t *data, size_t n)
{
    return comm->table->max_i64(comm, data, n);
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
    LRD_TRY(comm->table->max_i64(comm, extremes, 2));
    *same_out = extremes[0] == -extremes[1];
out:
    return status;
}
