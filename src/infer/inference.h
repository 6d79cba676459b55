/* infer/inference.h -- a resident base with adapters beside it, ready to generate: what the commands
 * that ask a model have in common. */
#ifndef LRD_INFER_INFERENCE_H
#define LRD_INFER_INFERENCE_H

#include "infer/adapter_pool.h"
#include "infer/generator.h"
#include "model/spread.h"

enum { LRD_MAX_EOS = 8 };

typedef struct lrd_inference {
    lrd_engine_t engine;
    lrd_pool_t pool;
    lrd_grid_t grid; /* from lrd_inference_spread on */
    int32_t eos[LRD_MAX_EOS];
    size_t n_eos;
    lrd_generator_t *generator;
    lrd_generator_limits_t limits; /* of the generator; slots == 0: there is none yet */
    bool allocated;
    bool graphs; /* steps may be graphs */
} lrd_inference_t;

/* End-of-sequence ids: of generation_config.json where it names them, else config.json's. */
lrd_status_t lrd_inference_find_eos(const char *folder, const lrd_model_config_t *config,
                                    int32_t eos[LRD_MAX_EOS], size_t *n_out);

/* The struct must stay where it is. On failure it is closed again. Not collective. */
lrd_status_t lrd_inference_open(const lrd_engine_options_t *options, lrd_inference_t *inference);
void lrd_inference_close(lrd_inference_t *inference); /* {0} is fine */

/* Says which ranks hold which layers, and whether steps are graphs, by the memory that these limits take; once, before the first
 * lrd_inference_reserve. The whole of each adapter is on all of them. Collective; failures are agreed on. */
lrd_status_t lrd_inference_spread(lrd_inference_t *inference, lrd_comm_t *comm,
                                  const lrd_parallel_settings_t *settings,
                                  lrd_generator_limits_t limits);

/* Makes room for what the limits say, and at least for what there was room for before; loads the
 * weights the first time. What the limits say of graphs does not count: they go where there is no room beside them, and that
 * is logged. On failure the room is what it was. Collective on the grid's row; failures are
 * agreed on. */
lrd_status_t lrd_inference_reserve(lrd_inference_t *inference, lrd_generator_limits_t limits);

/* Appends the memory of base, adapters and generation, a line each. */
lrd_status_t lrd_inference_print_memory(const lrd_inference_t *inference, lrd_buf_t *buf);

#endif /* LRD_INFER_INFERENCE_H */
