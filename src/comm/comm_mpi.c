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

static lrd_status_t mpi_broadcast(lrd_comm_t *c, void *data, size_t bytes, int root)
{
    (void)c;
    lrd_status_t status = LRD_OK;
    for (size_t at = 0; at < bytes; at += MAX_PIECE) {
        const size_t n = bytes - at < MAX_PIECE ? bytes - at : MAX_PIECE;
        LRD_TRY_MPI(MPI_Bcast((char *)data + at, (int)n, MPI_BYTE, root, MPI_COMM_WORLD));
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
                               MPI_BYTE, MPI_COMM_WORLD));
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
                              MPI_BYTE, MPI_COMM_WORLD));
out:
    return status;
}

static lrd_status_t mpi_sum_f32(lrd_comm_t *c, float *data, size_t n)
{
    (void)c;
    lrd_status_t status = LRD_OK;
    for (size_t at = 0; at < n; at += MAX_PIECE) {
        const size_t count = n - at < MAX_PIECE ? n - at : MAX_PIECE;
        LRD_TRY_MPI(
            MPI_Allreduce(MPI_IN_PLACE, data + at, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD));
    }
out:
    return status;
}

static lrd_status_t mpi_max_i64(lrd_comm_t *c, int64_t *data, size_t n)
{
    (void)c;
    lrd_status_t status = LRD_OK;
    LRD_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, data, (int)n, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD));
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

static lrd_status_t allocate_ranges(lrd_comm_t *c)
{
    lrd_status_t status = LRD_OK;
    LRD_NEW(c->ranges, 4 * c->size);
out:
    return status;
}

lrd_status_t comm_mpi_open(lrd_comm_t *c)
{
    static const comm_table_t table = {mpi_broadcast, mpi_all_gather, mpi_exchange, mpi_sum_f32,
                                       mpi_max_i64,   mpi_abort,      mpi_close};
    lrd_status_t status = LRD_OK;
    MPI_Comm local = MPI_COMM_NULL;
    int provided;
    LRD_TRY_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    LRD_TRY_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    LRD_TRY_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &c->rank));
    LRD_TRY_MPI(MPI_Comm_size(MPI_COMM_WORLD, &c->size));
    LRD_TRY_MPI(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &local));
    LRD_TRY_MPI(MPI_Comm_rank(local, &c->local_rank));
    LRD_TRY_MPI(MPI_Comm_size(local, &c->local_size));
    LRD_TRY_MPI(MPI_Comm_free(&local));
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
