/* model/weights.h -- the frozen tensors of this rank's layers, from a Hub folder to the device.
 *
 * Reads model.safetensors, or the shards of model.safetensors.index.json; names with or without the
 * family's prefix; F32, F16 and BF16, converted to the compute dtype. Files are mapped: a rank
 * touches only the tensors of its own layers. Where the backend reads host memory and the file has
 * the compute dtype, tensors are used in place, and the only copy in memory is the page cache's.
 * Blocks may be kept off the device, and travel to it when they are needed (model/offload.h).
 */
#ifndef LRD_MODEL_WEIGHTS_H
#define LRD_MODEL_WEIGHTS_H

#include "base/safetensors.h"
#include "base/settings.h"
#include "base/stop.h"
#include "model/family.h"
#include "model/weights_files.h"

/* A run of neighbouring layers. */
typedef struct lrd_span {
    int first, last;  /* blocks first .. last - 1 */
    bool embed, head; /* the embedding; the final norm and the head */
} lrd_span_t;

/* Where a block's weights lie while nobody needs them. */
typedef enum lrd_home {
    LRD_HOME_DEVICE,
    LRD_HOME_HOST, /* pinned host memory; where ops read host memory the same as DEVICE */
    LRD_HOME_FILE  /* a file that has the compute dtype, which is mapped */
} lrd_home_t;

/* Blocks that are on their way to the device, or used there, at once. */
enum { LRD_WEIGHTS_SLOTS = 2 };

/* The runs that a rank holds, ascending. */
typedef struct lrd_runs {
    lrd_span_t *run;
    int n;
    const lrd_home_t *home; /* [n_layers], borrowed; NULL: all on the device */
} lrd_runs_t;

/* Blocks of the longest. */
static inline int64_t lrd_runs_longest(const lrd_runs_t *runs)
{
    int most = 0;
    for (int r = 0; r < runs->n; r++) {
        const int n = runs->run[r].last - runs->run[r].first;
        most = n > most ? n : most;
    }
    return most;
}

/* Blocks in the order in which a pass needs them: first, first + step, ..., n of them. */
typedef struct lrd_pass {
    int first, n, step;
} lrd_pass_t;

typedef struct lrd_weights {
    const lrd_model_config_t *config;
    lrd_runs_t runs;          /* its own copy, without home */
    bool has_embed, has_head; /* one of the runs does */
    lrd_dtype_t dtype;        /* compute */
    bool tied;                /* the head is the embedding table */
    /* Device matrices, or mapped ones; vectors are [1, n]. By number in the family's lists. */
    lrd_cmat_t *embed, *final;
    /* [n_layers][n_block_tensors]; empty outside of the runs, and where a block is not on the device */
    lrd_cmat_t *block;
    lrd_cmat_t head; /* [V, C] */
    /* Columns behind those of a block's weight, by place of its linear (lrd_weights_make_room). */
    int64_t room[LRD_MAX_LINEARS];
    size_t mapped_bytes;           /* used in place */
    size_t host_bytes, file_bytes; /* kept in pinned memory; read from files when needed */
    struct lrd_weights_plan *plan; /* private */
    struct lrd_offload *offload;   /* private; NULL: all blocks are on the device */
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

/* Goes on with the whole model as one file has it in the compute dtype; the files before are closed first,
 * so that never both are mapped. On failure *weights is NULL. */
lrd_status_t lrd_weights_move(lrd_weights_t **weights, const char *path);

/* To plan: lays the weights out as if they had been moved to such a file. */
void lrd_weights_imagine_move(lrd_weights_t *weights);

/* Before the layout: blocks' weights get room for such an adapter where the back end would use it
 * (lrd_linear_fwd_t.w_room). What is made of these weights, by `like` and `move`, has it too. */
void lrd_weights_make_room(lrd_weights_t *weights, const lrd_backend_t *backend,
                           const lrd_adapter_t *adapter);

/* The files; NULL: an outline. */
const lrd_weights_files_t *lrd_weights_files(const lrd_weights_t *weights);

/* After the device memory's last use, and before it is freed. NULL is fine. */
void lrd_weights_close(lrd_weights_t *weights);

/* Takes device memory (category "weights") for what is neither used in place nor kept elsewhere, and
 * (category "slots") for those blocks that travel. */
void lrd_weights_layout(lrd_weights_t *weights, const lrd_backend_t *backend, lrd_arena_t *arena);

/* Do the files hold every tensor of the blocks in the compute dtype? True of an outline. */
bool lrd_weights_in_files(const lrd_weights_t *weights);

/* Memory that a tensor of a block takes where it is kept whole, its room included, and a block with all of them. */
size_t lrd_weights_tensor_bytes(const lrd_weights_t *weights, int tensor);
size_t lrd_weights_block_bytes(const lrd_weights_t *weights);

/* Copies and converts into the memory of the last layout, and into pinned memory, which it allocates;
 * with a progress bar. scratch: any device memory that is free until then. Synchronizes.
 * LRD_ERR_INTERRUPTED: *stop became non-zero. */
lrd_status_t lrd_weights_load(lrd_weights_t *weights, lrd_stream_t *stream, lrd_scratch_t scratch,
                              const char *name, const lrd_stop_t *stop);

/* After the layout: some blocks are not on the device for good, so what a pass enqueues differs from one to
 * the next. */
static inline bool lrd_weights_travel(const lrd_weights_t *w)
{
    return w->host_bytes + w->file_bytes > 0;
}

/* What is enqueued on `stream` from here on reads block `layer`, no other one, until the next such
 * call. `left` and behind them `then` are needed later: of those some travel while this one is computed.
 * All calls name the same stream. */
lrd_status_t lrd_weights_use(lrd_weights_t *weights, lrd_stream_t *stream, int layer,
                             lrd_pass_t left, lrd_pass_t then);

/* A tensor of block `layer`, after lrd_weights_use. */
static inline lrd_cmat_t lrd_weights_block(const lrd_weights_t *w, int layer, int tensor)
{
    return w->block[layer * w->config->family->n_block_tensors + tensor];
}

/* The room behind a linear's weight, likewise; absent where there is none. */
lrd_mat_t lrd_weights_room(const lrd_weights_t *weights, int layer, int place);

#endif /* LRD_MODEL_WEIGHTS_H */
