/* model/weights_copy.h -- a model's weights once more, in the dtype that a run computes in: a file that can
 * be mapped in place of memory of their own.
 *
 *   <folder>/<key>.safetensors
 *
 * The key is made of the names, sizes, times and headers of the model's files, and of the dtype. A copy
 * appears under its name when it is complete; every later run on the same model uses it.
 */
#ifndef LRD_MODEL_WEIGHTS_COPY_H
#define LRD_MODEL_WEIGHTS_COPY_H

#include "base/stop.h"
#include "comm/comm.h"
#include "kernels/ops.h"
#include "model/weights_files.h"

typedef struct lrd_weights_copy_options {
    lrd_comm_t *comm;
    lrd_stream_t *stream; /* converts */
    const lrd_weights_files_t *files;
    lrd_dtype_t dtype;
    const char *folder; /* is made if need be */
    const lrd_stop_t *stop;
} lrd_weights_copy_options_t;

/* The copy's path, owned by the caller. Where it is not there rank 0 makes it, and behind it one rank of
 * each host that still does not see it: with a progress bar. LRD_ERR_INTERRUPTED: *stop became non-zero.
 * Collective; failures are agreed on. */
lrd_status_t lrd_weights_copy_make(const lrd_weights_copy_options_t *options, char **path_out);

#endif /* LRD_MODEL_WEIGHTS_COPY_H */
