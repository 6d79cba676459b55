/* model/merge.h -- an adapter folded into its base: W + s B A in place of W, with the roundings of
 * PEFT's merge(), written as a folder of the Hub.
 *
 * The result has the base's shards, tensor names and element types; every other tensor and file is
 * copied byte for byte, but for README.md and weights in other formats. Both sides are taken a piece
 * at a time: in memory are the adapter and a few pieces of 16 MiB (or of one row, if that is more).
 */
#ifndef LRD_MODEL_MERGE_H
#define LRD_MODEL_MERGE_H

#include "model/family.h"

#include <signal.h>

typedef struct lrd_merge lrd_merge_t;

/* Everything is borrowed. */
typedef struct lrd_merge_spec {
    const char *model, *adapter_folder, *out;
    const char *model_name, *adapter_name; /* what the card calls them */
    const lrd_model_config_t *config;      /* of model */
    const lrd_adapter_t *adapter;          /* of adapter_folder, on that model */
    lrd_stream_t *stream;
    const volatile sig_atomic_t *stop; /* nonzero: leave with LRD_ERR_INTERRUPTED; NULL: never */
} lrd_merge_spec_t;

/* Checks what can be checked beforehand, reads the adapter and makes the folder under another name.
 * Errors are those of lrd_weights_open and lrd_peft_read_params; LRD_ERR_ARG: `out` is not empty, or
 * lies in the model; LRD_ERR_IO: the folder cannot be made, or there is too little room for it. */
lrd_status_t lrd_merge_open(const lrd_merge_spec_t *spec, lrd_merge_t **merge_out);

/* Writes all files, flushes them and gives the folder its name; with a progress bar. Once. */
lrd_status_t lrd_merge_write(lrd_merge_t *merge);

/* Removes what was written unless it was completed. NULL is fine. */
void lrd_merge_close(lrd_merge_t *merge);

#endif /* LRD_MODEL_MERGE_H */
