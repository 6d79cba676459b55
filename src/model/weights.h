/* model/weights.h -- the frozen tensors of this rank's layers, from a Hub folder to the device.
 *
 * Reads model.safetensors, or the shards of model.safetensors.index.json; names with or without the
 * family's prefix; F32, F16 and BF16, converted to the compute dtype. Files are mapped: a rank
 * touches only the tensors of its own layers. Where the backend reads host memory and the file has
 * the compute dtype, tensors are used in place, and the only copy in memory is the page cache's.
 */
#ifndef LRD_MODEL_WEIGHTS_H
#define LRD_MODEL_WEIGHTS_H

#include "base/safetensors.h"
#include "base/settings.h"
#include "base/stop.h"
#include "model/family.h"

/* A run of neighbouring layers. */
typedef struct lrd_span {
    int first, last;  /* blocks first .. last - 1 */
    bool embed, head; /* the embedding; the final norm and the head */
} lrd_span_t;

/* The runs that a rank holds, ascending. */
typedef struct lrd_runs {
    lrd_span_t *run;
    int n;
} lrd_runs_t;

typedef struct lrd_weights {
    const lrd_model_config_t *config;
    lrd_runs_t runs;          /* its own copy */
    bool has_embed, has_head; /* one of the runs does */
    lrd_dtype_t dtype;        /* compute */
    bool tied;                /* the head is the embedding table */
    /* Device matrices, or mapped ones; vectors are [1, n]. By number in the family's lists. */
    lrd_cmat_t *embed, *final;
    lrd_cmat_t *block;             /* [n_layers][n_block_tensors]; empty outside of the runs */
    lrd_cmat_t head;               /* [V, C] */
    size_t mapped_bytes;           /* used in place */
    struct lrd_weights_plan *plan; /* private */
} lrd_weights_t;

/* model.dtype as lrd_weights_open takes it. */
int lrd_weights_dtype(const lrd_model_settings_t *settings);

/* Opens the files of a model folder and checks that every tensor of the runs is there with the
 * right shape; reads none. runs NULL: the whole model. dtype < 0: as config.json says, else the files' own. config is borrowed.
 * LRD_ERR_UNSUPPORTED: only pickled weights (.bin), dtypes that are not supported. */
lrd_status_t lrd_weights_open(const char *folder, const lrd_model_config_t *config,
                              const lrd_runs_t *runs, int dtype, lrd_weights_t **weights_out);
/* The same without files, to measure: a layout takes memory for all of it, a load fails. dtype < 0: as
 * config.json says, else float32. */
lrd_status_t lrd_weights_outline(const lrd_model_config_t *config, const lrd_runs_t *runs,
                                 int dtype, bool tied, lrd_weights_t **weights_out);

/* Other runs of the same model, from the same files if there are any. */
lrd_status_t lrd_weights_like(const lrd_weights_t *weights, const lrd_runs_t *runs,
                              lrd_weights_t **weights_out);

/* After the device memory's last use. NULL is fine. */
void lrd_weights_close(lrd_weights_t *weights);

/* Takes device memory (category "weights") for what is not used in place. */
void lrd_weights_layout(lrd_weights_t *weights, const lrd_backend_t *backend, lrd_arena_t *arena);

/* Copies and converts into the memory of the last layout; with a progress bar. Synchronizes.
 * LRD_ERR_INTERRUPTED: *stop became non-zero. */
lrd_status_t lrd_weights_load(lrd_weights_t *weights, lrd_stream_t *stream, const char *name,
                              const lrd_stop_t *stop);

/* A tensor of block `layer`. */
static inline lrd_cmat_t lrd_weights_block(const lrd_weights_t *w, int layer, int tensor)
{
    return w->block[layer * w->config->family->n_block_tensors + tensor];
}

#endif /* LRD_MODEL_WEIGHTS_H */
