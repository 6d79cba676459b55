/* model/spread.h -- which ranks hold which layers of a model that is only asked, not trained.
 *
 * Replicas while one fits a rank's memory, else the fewest stages that fit; or what the settings say
 * (parallel.data, pipeline, pipeline_chunks, device_map, max_memory). A micro-batch goes from rank to rank
 * (model/relay.h), so that the time is the same wherever the cuts are: memory is what is shared out evenly.
 */
#ifndef LRD_MODEL_SPREAD_H
#define LRD_MODEL_SPREAD_H

#include "comm/grid.h"
#include "model/engine.h"

typedef struct lrd_spread_options {
    lrd_comm_t *comm;
    const lrd_parallel_settings_t *settings;
    lrd_engine_t *engine; /* with the whole model, nothing allocated */
    void *context;
    /* Adds what a rank with these weights needs beside them, by the layout of the run; graphs: with the memory that is
     * set aside for those. */
    lrd_status_t (*measure)(void *context, lrd_weights_t *weights, bool graphs,
                            lrd_memory_t *memory);
} lrd_spread_options_t;

/* Makes the grid; the engine keeps this rank's layers. Where they are spread, logs the map as accelerate
 * writes it. *graphs_out: passes that come again are to be graphs, the same on all ranks: the backend has them, and there is
 * room for them, which is worth less than fewer stages; where there is not, that is logged. LRD_ERR_CONFIG: nothing fits,
 * with what would help. Collective; failures are agreed on. */
lrd_status_t lrd_spread_open(const lrd_spread_options_t *options, lrd_grid_t *grid_out,
                             bool *graphs_out);

#endif /* LRD_MODEL_SPREAD_H */
