/* model/engine.h -- a frozen model on a device: what training, scoring and generation all begin with.
 *
 *   open       config.json, backend, stream; the weights' files are checked, none is read
 *   keep       only some of the layers, where they are spread over ranks
 *   ...        the user makes what it needs: a stage, a feed, an optimizer
 *   allocate   one memory plan for the weights and all of that, the memory, the weights loaded
 */
#ifndef LRD_MODEL_ENGINE_H
#define LRD_MODEL_ENGINE_H

#include "comm/comm.h"
#include "model/memory.h"
#include "model/weights.h"

typedef struct lrd_engine_options {
    const char *folder;  /* of the model */
    int dtype;           /* lrd_dtype_t, or negative: as config.json says, else the files' own */
    const char *backend; /* as lrd_backend_open takes it */
    int device_index, n_threads;
    const char *tuning_file; /* NULL: none */
    bool tf32;               /* lrd_product_options_t */
    bool may_lack_weights;   /* to plan: without files, an outline of them */
    const lrd_stop_t *stop;  /* non-zero while weights load: LRD_ERR_INTERRUPTED; NULL: never */
} lrd_engine_options_t;

typedef struct lrd_engine {
    lrd_model_config_t config;
    lrd_backend_t *backend;
    lrd_stream_t *stream;
    lrd_weights_t *weights;
    lrd_memory_t memory;
    /* Told by the user, before it plans: ranks will exchange device memory (lrd_devcomm_expect), and what that takes. */
    bool direct;
    lrd_aside_t nccl;
    size_t free_bytes; /* of the device, when it was opened */
    char machine[160]; /* what computes, for people */
    const lrd_stop_t *stop;
    /* Of the user, from allocate on. */
    lrd_layout_t *layout;
    void *context;
} lrd_engine_t;

/* The engine must stay where it is: weights point into it. On failure it is closed again. */
lrd_status_t lrd_engine_open(const lrd_engine_options_t *options, lrd_engine_t *engine_out);
void lrd_engine_close(lrd_engine_t *engine); /* {0} is fine */

/* For blocks that are to lie in files [n_layers] (NULL: none): where the model's own have another dtype the
 * engine goes on with a copy in `folder` (model/weights_copy.h), which is made if need be. LRD_ERR_CONFIG:
 * folder is NULL. only_plans: nothing is made. Collective; failures are agreed on. */
lrd_status_t lrd_engine_prepare_files(lrd_engine_t *engine, lrd_comm_t *comm,
                                      const lrd_home_t *home, const char *folder, bool only_plans);

/* Keeps these runs of layers alone, before anything is planned. */
lrd_status_t lrd_engine_keep(lrd_engine_t *engine, const lrd_runs_t *runs);

/* Measures: weights, and what `layout` takes behind them. For a look at the plan before allocate. */
void lrd_engine_plan(lrd_engine_t *engine, lrd_layout_t *layout, void *context,
                     size_t scratch_bytes);

/* Allocates what was planned, lays it out and loads the weights, with a progress bar. */
lrd_status_t lrd_engine_allocate(lrd_engine_t *engine);

/* Bytes of the loaded weights, wherever they lie. */
size_t lrd_engine_base_bytes(const lrd_engine_t *engine);

#endif /* LRD_MODEL_ENGINE_H */
