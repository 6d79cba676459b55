#include "comm/devices.h"

#include "base/mem.h"

#include <string.h>

typedef struct entry {
    char id[LRD_DEVICE_ID];
} entry_t;

/* How many ranks have the device of rank r, and the last of them. */
static int64_t count(const entry_t *all, int size, int r, int *last_out)
{
    int64_t n = 0;
    for (int other = 0; other < size; other++) {
        if (strcmp(all[other].id, all[r].id) == 0) {
            n++;
            *last_out = other;
        }
    }
    return n;
}

static lrd_status_t check(const entry_t *all, int size, int64_t most)
{
    lrd_status_t status = LRD_OK;
    for (int r = 0, last = 0; r < size; r++) {
        const int64_t n = all[r].id[0] != '\0' ? count(all, size, r, &last) : 0;
        LRD_CHECK(
            n <= most, LRD_ERR_CONFIG,
            "%lld ranks, %d and %d among them, have the device %s: start as many ranks on a host "
            "as it has GPUs, or let them share it with parallel.ranks_per_device: %lld",
            (long long)n, r, last, all[r].id, (long long)n);
    }
out:
    return status;
}

/* The devices of all ranks, for the caller to free. Collective; failures are agreed on. */
static lrd_status_t gather(lrd_comm_t *comm, lrd_backend_t *be, entry_t **all_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(comm);
    entry_t own = {.id = ""}, *all = NULL;
    size_t *offset = NULL;
    LRD_NEW(all, size);
    LRD_NEW(offset, size + 1);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof *all;
    lrd_backend_device_id(be, own.id);
out:
    status = lrd_agree(comm, status);
    if (status == LRD_OK)
        status = lrd_comm_all_gather(comm, &own, all, offset);
    lrd_free(offset);
    if (status != LRD_OK)
        lrd_free(all);
    else
        *all_out = all;
    return status;
}

lrd_status_t lrd_devices_check(lrd_comm_t *comm, lrd_backend_t *be, int64_t most)
{
    lrd_status_t status = LRD_OK;
    entry_t *all = NULL;
    LRD_TRY(gather(comm, be, &all));
    LRD_TRY(lrd_agree(comm, check(all, lrd_comm_size(comm), most)));
out:
    lrd_free(all);
    return status;
}

lrd_status_t lrd_devices_shared(lrd_comm_t *comm, lrd_backend_t *be, bool *shared_out)
{
    lrd_status_t status = LRD_OK;
    entry_t *all = NULL;
    int last;
    LRD_TRY(gather(comm, be, &all));
    *shared_out = false;
    for (int r = 0; r < lrd_comm_size(comm); r++)
        *shared_out = *shared_out || count(all, lrd_comm_size(comm), r, &last) > 1;
out:
    lrd_free(all);
    return status;
}
