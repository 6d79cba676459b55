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
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C"
#endif
    lrd_plugin_entry_t lrd_devcomm_entry __attribute__((visibility("default")));

/* A group has no more channels than these (ncclConfig_t.maxCTAs), so that what it takes is bounded. NCCL's own choice
 * is up to 32, which is for larger messages than gradients of adapters and the activations of a micro-batch are. */
enum { CHANNELS = 8 };

/* What the environment makes of a number: NCCL takes it rather than the program's. */
static long at_least(long number, const char *variable)
{
    const char *text = getenv(variable);
    const long asked = text != NULL ? strtol(text, NULL, 10) : 0;
    return asked > number ? asked : number;
}

/* Each channel has, for each rank that it is connected with, buffers of all protocols on the receiving side (4 MiB,
 * 4.7 MiB and 0.5 MiB, 10 MiB as memory is mapped), and 2 MiB on either side for what counts their slots: NCCL's
 * defaults. Of the ranks, sums and gathers connect two neighbours of a ring and up to three of a tree; and all of them
 * by NVLink's switch, in two buffers of 1 MiB for each of up to eight GPUs of a host. What NCCL takes at once when a
 * group is opened is a guess. */
static size_t nccl_reserve(int size, int n_peers, bool collectives)
{
    enum { MIB = 1 << 20, OPEN = 128, CONNECTION = 10, SWITCHED = 2, NEIGHBOURS = 5, HOST = 8 };
    const int peers = size - 1 < NEIGHBOURS ? size - 1 : NEIGHBOURS;
    const int switched = collectives ? (size < HOST ? size : HOST) : 0;
    const int connections = n_peers + (collectives ? peers : 0);
    const long channels = at_least(at_least(at_least(CHANNELS, "NCCL_MAX_CTAS"), "NCCL_MIN_CTAS"),
                                   "NCCL_MIN_NCHANNELS");
    const size_t buffer = (size_t)at_least(4L * MIB, "NCCL_BUFFSIZE");
    const size_t connection = (size_t)CONNECTION * MIB + buffer;
    return (size_t)OPEN * MIB + (size_t)channels * ((size_t)connections * connection +
                                                    (size_t)(SWITCHED * switched) * MIB);
}

static bool is_fine(ncclResult_t result)
{
    return result == ncclSuccess || result == ncclInProgress;
}

/* LRD_OK, or a failure in NCCL's words. comm may be NULL. Only they tell a lack of memory from other errors of CUDA's. */
static lrd_status_t check(ncclComm_t comm, const char *what, ncclResult_t result)
{
    if (is_fine(result))
        return LRD_OK;
    const char *words = ncclGetLastError(comm), *last = words != NULL ? words : "";
    const bool lacks = result == ncclUnhandledCudaError &&
                       (strstr(last, "out of memory") != NULL || strstr(last, "alloc") != NULL);
    return lrd_fail(lacks ? LRD_ERR_NO_MEMORY : LRD_ERR_COMM, __FILE__, __LINE__,
                    "NCCL: %s: %s%s%s", what, ncclGetErrorString(result),
                    last[0] != '\0' ? ": " : "", last);
}

static void nccl_library(char text[96])
{
    int version = 0;
    if (ncclGetVersion(&version) != ncclSuccess)
        version = 0;
    snprintf(text, 96, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
}

/* Ranks that chose algorithms, protocols or channels of their own would wait for each other for ever. */
static void nccl_software(char text[LRD_SOFTWARE])
{
    static const char *const variables[] = {
        "NCCL_ALGO",          "NCCL_PROTO",       "NCCL_BUFFSIZE",  "NCCL_MIN_NCHANNELS",
        "NCCL_MAX_NCHANNELS", "NCCL_MIN_CTAS",    "NCCL_MAX_CTAS",  "NCCL_NVLS_ENABLE",
        "NCCL_CUMEM_ENABLE",  "NCCL_P2P_DISABLE", "NCCL_P2P_LEVEL", "NCCL_SHM_DISABLE",
        "NCCL_IB_DISABLE",    "NCCL_NET"};
    char library[96];
    nccl_library(library);
    int at = snprintf(text, LRD_SOFTWARE, "NCCL's version\t%s\n", library);
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++) {
        const char *value = getenv(variables[i]);
        if (value != NULL && at < LRD_SOFTWARE)
            at += snprintf(text + at, (size_t)(LRD_SOFTWARE - at), "%s\t%.24s\n", variables[i],
                           value);
    }
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
    config.maxCTAs = CHANNELS;
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
        DEVCOMM_ABI_VERSION, nccl_library, nccl_software, nccl_reserve,        nccl_make_id,
        nccl_open,           nccl_poll,    nccl_sum_f32,  nccl_all_gather_f32, nccl_exchange,
        nccl_is_done,        nccl_finish,  nccl_destroy,  nccl_abort};
    lrd_plugin_attach(program);
    return &table;
}
