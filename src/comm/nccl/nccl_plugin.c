/* The plugin liblrd_nccl.so: NCCL behind comm/devcomm_table.h. A group is an ncclComm_t, a stream a
 * cudaStream_t. Communicators are non-blocking: NCCL works in threads of its own, and what it has
 * begun is asked for with ncclCommGetAsyncError.
 *
 * C that is also C++: the emulated device compiles it as such. */
#include "comm/devcomm_table.h"
#include "kernels/plugin.h"

#include <cuda_runtime.h>
#include <nccl.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C"
#endif
    lrd_plugin_entry_t lrd_devcomm_entry __attribute__((visibility("default")));

static bool is_fine(ncclResult_t result)
{
    return result == ncclSuccess || result == ncclInProgress;
}

/* LRD_OK, or a failure in NCCL's words. comm may be NULL. */
static lrd_status_t check(ncclComm_t comm, const char *what, ncclResult_t result)
{
    if (is_fine(result))
        return LRD_OK;
    const char *last = ncclGetLastError(comm);
    return lrd_fail(LRD_ERR_COMM, __FILE__, __LINE__, "NCCL: %s: %s%s%s", what,
                    ncclGetErrorString(result), last != NULL && last[0] != '\0' ? ": " : "",
                    last != NULL ? last : "");
}

static void nccl_library(char text[96])
{
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess)
        version = 0;
    snprintf(text, 96, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

static lrd_status_t nccl_make_id(unsigned char id[DEVCOMM_ID_BYTES])
{
    ncclUniqueId made;
    const lrd_status_t status = check(NULL, "ncclGetUniqueId", ncclGetUniqueId(&made));
    if (status == LRD_OK)
        memcpy(id, made.internal, DEVCOMM_ID_BYTES);
    return status;
}

static lrd_status_t nccl_open(const unsigned char id[DEVCOMM_ID_BYTES], int rank, int size,
                              void **group_out)
{
    ncclUniqueId unique;
    ncclComm_t comm = NULL;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    memcpy(unique.internal, id, DEVCOMM_ID_BYTES);
    const lrd_status_t status = check(NULL, "ncclCommInitRankConfig",
                                      ncclCommInitRankConfig(&comm, size, unique, rank, &config));
    if (status == LRD_OK)
        *group_out = comm;
    return status;
}

static lrd_status_t nccl_poll(void *group, bool *ready_out)
{
    ncclComm_t comm = (ncclComm_t)group;
    ncclResult_t state = ncclSuccess;
    lrd_status_t status = check(comm, "ncclCommGetAsyncError", ncclCommGetAsyncError(comm, &state));
    if (status == LRD_OK)
        status = check(comm, "an operation between GPUs has failed", state);
    *ready_out = state == ncclSuccess;
    return status;
}

static lrd_status_t nccl_sum_f32(void *group, void *stream, const float *from, float *to, size_t n)
{
    ncclComm_t comm = (ncclComm_t)group;
    return check(comm, "ncclAllReduce",
                 ncclAllReduce(from, to, n, ncclFloat32, ncclSum, comm, (cudaStream_t)stream));
}

static lrd_status_t nccl_all_gather_f32(void *group, void *stream, const float *mine, float *all,
                                        size_t n)
{
    ncclComm_t comm = (ncclComm_t)group;
    return check(comm, "ncclAllGather",
                 ncclAllGather(mine, all, n, ncclFloat32, comm, (cudaStream_t)stream));
}

/* NCCL counts elements of its own types. */
static ncclDataType_t type_of(lrd_dtype_t dtype)
{
    switch (dtype) {
    case LRD_F32:
        return ncclFloat32;
    case LRD_BF16:
        return ncclBfloat16;
    case LRD_F16:
        return ncclFloat16;
    default:
        return ncclNumTypes; /* which NCCL refuses */
    }
}

static lrd_status_t nccl_exchange(void *group, void *stream, const lrd_device_message_t *send,
                                  int n_send, const lrd_device_message_t *receive, int n_receive)
{
    ncclComm_t comm = (ncclComm_t)group;
    ncclResult_t result = ncclGroupStart();
    if (!is_fine(result))
        return check(comm, "ncclGroupStart", result);
    for (int i = 0; i < n_send && is_fine(result); i++)
        result = ncclSend(send[i].data, (size_t)send[i].n, type_of(send[i].dtype), send[i].rank,
                          comm, (cudaStream_t)stream);
    for (int i = 0; i < n_receive && is_fine(result); i++)
        result = ncclRecv(receive[i].data, (size_t)receive[i].n, type_of(receive[i].dtype),
                          receive[i].rank, comm, (cudaStream_t)stream);
    const ncclResult_t ended = ncclGroupEnd();
    return check(comm, "ncclSend, ncclRecv", is_fine(result) ? ended : result);
}

static bool nccl_is_done(void *stream)
{
    if (cudaStreamQuery((cudaStream_t)stream) != cudaErrorNotReady)
        return true;
    cudaGetLastError(); /* it has been dealt with */
    return false;
}

static lrd_status_t nccl_finish(void *group)
{
    ncclComm_t comm = (ncclComm_t)group;
    return check(comm, "ncclCommFinalize", ncclCommFinalize(comm));
}

static void nccl_destroy(void *group)
{
    ncclCommDestroy((ncclComm_t)group);
}

static void nccl_abort(void *group)
{
    ncclCommAbort((ncclComm_t)group);
}

const void *lrd_devcomm_entry(const lrd_plugin_host_t *program)
{
    static const devcomm_table_t table = {
        DEVCOMM_ABI_VERSION, nccl_library,  nccl_make_id, nccl_open,   nccl_poll,    nccl_sum_f32,
        nccl_all_gather_f32, nccl_exchange, nccl_is_done, nccl_finish, nccl_destroy, nccl_abort};
    lrd_plugin_attach(program);
    return &table;
}
