/* tests/cuda/emulated/nccl.h -- NCCL between processes of this machine: as much of it as src/comm/nccl uses,
 * under the same names, for non-blocking communicators (emu_nccl.cpp).
 *
 * Data travels over sockets when the emulated stream comes to it. What NCCL answers with garbage or waits for
 * ever on ends the program with a message: counts, types or calls that differ between ranks, two streams, a
 * call before the last one is over, a communicator that is gone. A peer that dies is waited for, as over
 * NVLink.
 *
 * LRD_EMULATED_NCCL=RANK:N:WHAT makes something happen to that rank of a communicator in the N-th operation
 * of its process, counted from 1: "error" (an asynchronous error), "hang", or "kill". N = 0 is connecting; of
 * rank -1, making an id.
 */
#ifndef LRD_EMULATED_NCCL_H
#define LRD_EMULATED_NCCL_H

#include <cuda_runtime.h>

enum { NCCL_UNIQUE_ID_BYTES = 128 };

typedef struct ncclComm *ncclComm_t;

typedef struct ncclUniqueId {
    char internal[NCCL_UNIQUE_ID_BYTES];
} ncclUniqueId;

typedef enum ncclResult {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6,
    ncclInProgress = 7
} ncclResult_t;

typedef enum ncclDataType {
    ncclFloat16 = 6,
    ncclFloat32 = 7,
    ncclBfloat16 = 9,
    ncclNumTypes = 12
} ncclDataType_t;

typedef enum ncclRedOp { ncclSum = 0 } ncclRedOp_t;

typedef struct ncclConfig {
    unsigned magic;
    int blocking, maxCTAs;
} ncclConfig_t;

#define NCCL_CONFIG_INITIALIZER \
    {                           \
        0xcafebeef, 1, 64       \
    }

/* Memory of the device that a communicator takes: at once, and when it first sends to a rank or receives from it, on
 * each of its channels. LRD_EMULATED_NCCL_BYTES: other bytes for the latter. */
enum { EMU_NCCL_OPEN = 256 << 10, EMU_NCCL_CONNECTION = 4 << 10 };

const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t comm);
ncclResult_t ncclGetVersion(int *version);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state);
ncclResult_t ncclCommFinalize(ncclComm_t comm);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclGroupStart();
ncclResult_t ncclGroupEnd();
ncclResult_t ncclSend(const void *data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclAllGather(const void *mine, void *all, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream);

#endif /* LRD_EMULATED_NCCL_H */
