#include "comm/comm_table.h"

#include "base/mem.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A call of MPI, or the function fails with LRD_ERR_COMM and MPI's own words. */
#define LRD_TRY_MPI(call)                                      \
    do {                                                       \
        const int mpi_rc = (call);                             \
        if (mpi_rc != MPI_SUCCESS) {                           \
            char mpi_text[MPI_MAX_ERROR_STRING] = "";          \
            int mpi_length = 0;                                \
            MPI_Error_string(mpi_rc, mpi_text, &mpi_length);   \
            LRD_FAIL(LRD_ERR_COMM, "%s: %s", #call, mpi_text); \
        }                                                      \
    } while (0)

enum { MAX_PIECE = 1 << 30 }; /* MPI counts are int */
enum { ABORT_SECONDS = 3, FINALIZE_SECONDS = 10 };

/* A handle of MPI is a pointer or an integer, as the library has it. */
static MPI_Comm group_of(const lrd_comm_t *c)
{
    MPI_Comm group;
    memcpy(&group, &c->transport, sizeof group);
    return group;
}

static void set_group(lrd_comm_t *c, MPI_Comm group)
{
    _Static_assert(sizeof group <= sizeof c->transport, "a handle of MPI is at most a pointer");
    memcpy(&c->transport, &group, sizeof group);
}

static lrd_status_t mpi_broadcast(lrd_comm_t *c, void *data, size_t bytes, int root)
{
    lrd_status_t status = LRD_OK;
    for (size_t at = 0; at < bytes; at += MAX_PIECE) {
        const size_t n = bytes - at < MAX_PIECE ? bytes - at : MAX_PIECE;
        LRD_TRY_MPI(MPI_Bcast((char *)data + at, (int)n, MPI_BYTE, root, group_of(c)));
    }
out:
    return status;
}

/* Counts and displacements of MPI from offsets; two arrays of size ints in one block. */
static lrd_status_t int_ranges(int size, const size_t *offset, int *counts)
{
    lrd_status_t status = LRD_OK;
    for (int r = 0; r < size; r++) {
        LRD_CHECK(offset[r + 1] <= INT_MAX, LRD_ERR_UNSUPPORTED,
                  "an exchange of %zu bytes: MPI counts end at %d", offset[r + 1], INT_MAX);
        counts[r] = (int)(offset[r + 1] - offset[r]);
        counts[size + r] = (int)offset[r];
    }
out:
    return status;
}

static lrd_status_t mpi_all_gather(lrd_comm_t *c, const void *mine, void *all, const size_t *offset)
{
    lrd_status_t status = LRD_OK;
    int *counts = c->ranges;
    LRD_TRY(int_ranges(c->size, offset, counts));
    const void *from = mine == (const char *)all + offset[c->rank] ? MPI_IN_PLACE : mine;
    LRD_TRY_MPI(MPI_Allgatherv(from, counts[c->rank], MPI_BYTE, all, counts, counts + c->size,
                               MPI_BYTE, group_of(c)));
out:
    return status;
}

static lrd_status_t mpi_exchange(lrd_comm_t *c, const void *send, const size_t *send_offset,
                                 void *receive, const size_t *receive_offset)
{
    lrd_status_t status = LRD_OK;
    int *to = c->ranges, *from = c->ranges + 2 * c->size;
    LRD_TRY(int_ranges(c->size, send_offset, to));
    LRD_TRY(int_ranges(c->size, receive_offset, from));
    LRD_TRY_MPI(MPI_Alltoallv(send, to, to + c->size, MPI_BYTE, receive, from, from + c->size,
                              MPI_BYTE, group_of(c)));
out:
    return status;
}

static lrd_status_t mpi_sum_f32(lrd_comm_t *c, float *data, size_t n)
{
    lrd_status_t status = LRD_OK;
    for (size_t at = 0; at < n; at += MAX_PIECE) {
        const size_t count = n - at < MAX_PIECE ? n - at : MAX_PIECE;
        LRD_TRY_MPI(
            MPI_Allreduce(MPI_IN_PLACE, data + at, (int)count, MPI_FLOAT, MPI_SUM, group_of(c)));
    }
out:
    return status;
}

static lrd_status_t mpi_max_i64(lrd_comm_t *c, int64_t *data, size_t n)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, data, (int)n, MPI_INT64_T, MPI_MAX, group_of(c)));
out:
    return status;
}

static void mpi_abort(lrd_comm_t *c, int exit_code)
{
    (void)c;
    alarm(ABORT_SECONDS); /* where the launcher does not answer, this process at least is gone */
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

static void mpi_close(lrd_comm_t *c)
{
    lrd_free(c->ranges);
    alarm(FINALIZE_SECONDS); /* a rank that dies on the way must not keep the others */
    MPI_Finalize();
    alarm(0);
}

static void set_request(lrd_message_t *m, MPI_Request request)
{
    _Static_assert(sizeof request <= sizeof m->handle, "a handle of MPI is at most a pointer");
    memcpy(&m->handle, &request, sizeof request);
    m->pending = true;
}

static lrd_status_t check_length(size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(bytes <= INT_MAX, LRD_ERR_UNSUPPORTED,
              "a message of %zu bytes: MPI counts end at %d. Smaller micro-batches have shorter "
              "messages",
              bytes, INT_MAX);
out:
    return status;
}

static lrd_status_t mpi_send(lrd_comm_t *c, const void *data, size_t bytes, int to, int tag,
                             lrd_message_t *message)
{
    lrd_status_t status = LRD_OK;
    MPI_Request request;
    LRD_TRY(check_length(bytes));
    LRD_TRY_MPI(MPI_Isend(data, (int)bytes, MPI_BYTE, to, tag, group_of(c), &request));
    set_request(message, request);
out:
    return status;
}

static lrd_status_t mpi_receive(lrd_comm_t *c, void *data, size_t bytes, int from, int tag,
                                lrd_message_t *message)
{
    lrd_status_t status = LRD_OK;
    MPI_Request request;
    LRD_TRY(check_length(bytes));
    LRD_TRY_MPI(MPI_Irecv(data, (int)bytes, MPI_BYTE, from, tag, group_of(c), &request));
    set_request(message, request);
out:
    return status;
}

static lrd_status_t mpi_test(lrd_comm_t *c, lrd_message_t *message)
{
    (void)c;
    lrd_status_t status = LRD_OK;
    MPI_Request request;
    int done;
    memcpy(&request, &message->handle, sizeof request);
    LRD_TRY_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    message->pending = !done;
out:
    return status;
}

static lrd_status_t allocate_ranges(lrd_comm_t *c)
{
    lrd_status_t status = LRD_OK;
    LRD_NEW(c->ranges, 4 * c->size);
out:
    return status;
}

static void mpi_part_close(lrd_comm_t *c)
{
    MPI_Comm group = group_of(c);
    MPI_Comm_free(&group);
    lrd_free(c->ranges);
}

static lrd_status_t find_place(lrd_comm_t *c)
{
    lrd_status_t status = LRD_OK;
    MPI_Comm local = MPI_COMM_NULL;
    LRD_TRY_MPI(MPI_Comm_set_errhandler(group_of(c), MPI_ERRORS_RETURN));
    LRD_TRY_MPI(MPI_Comm_rank(group_of(c), &c->rank));
    LRD_TRY_MPI(MPI_Comm_size(group_of(c), &c->size));
    LRD_TRY_MPI(MPI_Comm_split_type(group_of(c), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
    LRD_TRY_MPI(MPI_Comm_rank(local, &c->local_rank));
    LRD_TRY_MPI(MPI_Comm_size(local, &c->local_size));
    LRD_TRY_MPI(MPI_Comm_free(&local));
out:
    return status;
}

#define OPERATIONS                                                                                \
    mpi_broadcast, mpi_all_gather, mpi_exchange, mpi_sum_f32, mpi_max_i64, mpi_send, mpi_receive, \
        mpi_test

/* Parts are not split again. */
static lrd_status_t mpi_split(lrd_comm_t *world, int group, lrd_comm_t *part)
{
    static const comm_table_t table = {OPERATIONS, NULL, mpi_abort, mpi_part_close};
    lrd_status_t status = LRD_OK;
    MPI_Comm made;
    LRD_TRY_MPI(MPI_Comm_split(group_of(world), group, world->rank, &made));
    set_group(part, made);
    part->table = &table;
    const int rank = part->rank, size = part->size;
    LRD_TRY(find_place(part));
    LRD_CHECK(rank == part->rank && size == part->size, LRD_ERR_INTERNAL,
              "group %d: rank %d of %d is %d of %d", group, rank, size, part->rank, part->size);
out:
    return status;
}

lrd_status_t comm_mpi_open(lrd_comm_t *c)
{
    static const comm_table_t table = {OPERATIONS, mpi_split, mpi_abort, mpi_close};
    lrd_status_t status = LRD_OK;
    int provided;
    LRD_TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    set_group(c, MPI_COMM_WORLD);
    LRD_TRY(find_place(c));
    c->joined = allocate_ranges(c);
    c->table = &table;
out:
    return status;
}

void lrd_comm_library(char text[96])
{
    char whole[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(whole, &length);
    whole[strcspn(whole, ",\n")] = '\0'; /* "Open MPI v4.1.4", without packager and date */
    snprintf(text, 96, "%.95s", whole);
}
