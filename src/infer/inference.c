#include "infer/inference.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "model/ranks.h"

/* eos_token_id of generation_config.json: a number or a list of numbers. */
static lrd_status_t read_eos(const json_t *json, const char *path, int64_t vocab_size, int32_t *eos,
                             size_t *n_eos)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(json, "eos_token_id");
    const size_t n = json_is_array(value) ? json_array_size(value) : json_is_integer(value);
    LRD_CHECK(n <= LRD_MAX_EOS, LRD_ERR_UNSUPPORTED,
              "%s: %zu end-of-sequence tokens, at most %d are supported", path, n, LRD_MAX_EOS);
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;
        LRD_CHECK(json_is_integer(id) && json_integer_value(id) >= 0 &&
                      json_integer_value(id) < vocab_size,
                  LRD_ERR_FORMAT, "%s: \"eos_token_id\" is not a token of this model", path);
        eos[i] = (int32_t)json_integer_value(id);
    }
    if (n > 0)
        *n_eos = n;
out:
    return status;
}

lrd_status_t lrd_inference_find_eos(const char *folder, const lrd_model_config_t *config,
                                    int32_t eos[LRD_MAX_EOS], size_t *n_out)
{
    enum { MAX_BYTES = 1 << 20 };
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    char *path;
    LRD_ALLOC(path, lrd_path_join(folder, "generation_config.json"));
    eos[0] = (int32_t)config->eos_token_id;
    *n_out = config->eos_token_id >= 0;
    if (lrd_file_exists(path)) {
        LRD_TRY(lrd_json_read(path, MAX_BYTES, &json));
        LRD_TRY(read_eos(json, path, config->vocab_size, eos, n_out));
    }
out:
    json_decref(json);
    lrd_free(path);
    return status;
}

lrd_status_t lrd_inference_open(const lrd_engine_options_t *options, lrd_inference_t *s)
{
    lrd_status_t status = LRD_OK;
    *s = (lrd_inference_t){.n_eos = 0};
    LRD_TRY(lrd_engine_open(options, &s->engine));
    lrd_pool_open(&s->engine, &s->pool);
    LRD_TRY(lrd_inference_find_eos(options->folder, &s->engine.config, s->eos, &s->n_eos));
out:
    if (status != LRD_OK)
        lrd_inference_close(s);
    return status;
}

void lrd_inference_close(lrd_inference_t *s)
{
    if (s->engine.backend == NULL)
        return;
    lrd_generator_destroy(s->generator);
    lrd_pool_close(&s->pool);
    lrd_grid_disconnect(&s->grid);
    lrd_engine_close(&s->engine);
    *s = (lrd_inference_t){.n_eos = 0};
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    lrd_inference_t *s = context;
    lrd_generator_layout(s->generator, model, step);
}

typedef struct sizing {
    const lrd_inference_t *s;
    lrd_generator_limits_t limits;
} sizing_t;

/* lrd_spread_options_t.measure */
static lrd_status_t measure(void *context, lrd_weights_t *weights, bool graphs,
                            lrd_memory_t *memory)
{
    lrd_status_t status = LRD_OK;
    const sizing_t *z = context;
    lrd_generator_limits_t limits = z->limits;
    lrd_generator_t *g = NULL;
    limits.graphs = graphs;
    LRD_TRY(lrd_generator_create(weights, z->s->engine.stream, limits, NULL, 0, &g));
    lrd_generator_layout(g, &memory->model, &memory->step);
    memory->scratch.bytes = lrd_generator_scratch_bytes(g);
    memory->pinned_bytes = lrd_generator_pinned_bytes(g);
    memory->graphs.bound = lrd_generator_graph_bytes(g);
out:
    lrd_generator_destroy(g);
    return status;
}

lrd_status_t lrd_inference_spread(lrd_inference_t *s, lrd_comm_t *comm,
                                  const lrd_parallel_settings_t *settings,
                                  lrd_generator_limits_t limits)
{
    return lrd_spread_open(&(lrd_spread_options_t){.comm = comm,
                                                   .settings = settings,
                                                   .engine = &s->engine,
                                                   .context = &(sizing_t){s, limits},
                                                   .measure = measure},
                           &s->grid, &s->graphs);
}

/* Memory for the generator there is now. */
static lrd_status_t allocate(lrd_inference_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t scratch = lrd_generator_scratch_bytes(s->generator);
    if (s->allocated) {
        s->engine.memory.graphs.bound = lrd_generator_graph_bytes(s->generator);
        LRD_TRY(lrd_memory_resize(&s->engine.memory, scratch));
    } else {
        lrd_engine_plan(&s->engine, layout, s, scratch);
        s->engine.memory.graphs.bound = lrd_generator_graph_bytes(s->generator);
        LRD_TRY(lrd_engine_allocate(&s->engine));
        s->allocated = true;
    }
    s->engine.memory.pinned_bytes = lrd_generator_pinned_bytes(s->generator);
    LRD_TRY(lrd_generator_prepare(s->generator, s->engine.memory.scratch));
out:
    return status;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A generator for these limits in the place of the one there is, which stays, without its memory, on failure. */
static lrd_status_t replace(lrd_inference_t *s, const lrd_generator_limits_t *limits)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *before = s->generator, *grown = NULL;
    status = lrd_agree(s->grid.row, lrd_generator_create(s->engine.weights, s->engine.stream,
                                                         *limits, s->eos, s->n_eos, &grown));
    if (status == LRD_OK) {
        lrd_generator_spread(grown, &s->grid);
        s->generator = grown;
        status = lrd_agree(s->grid.row, allocate(s));
    }
    if (status == LRD_OK) {
        s->limits = *limits;
        grown = before;
    } else {
        s->generator = before;
    }
    lrd_generator_destroy(grown);
    return status;
}

lrd_status_t lrd_inference_reserve(lrd_inference_t *s, lrd_generator_limits_t limits)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_limits_t all = {.slots = (int32_t)larger(limits.slots, s->limits.slots),
                                  .capacity = (int32_t)larger(limits.capacity, s->limits.capacity),
                                  .rank = larger(limits.rank, s->limits.rank),
                                  .adapters = (int32_t)larger(limits.adapters, s->limits.adapters),
                                  .penalty = limits.penalty || s->limits.penalty,
                                  .graphs = s->graphs};
    if (all.slots == s->limits.slots && all.capacity == s->limits.capacity &&
        all.rank == s->limits.rank && all.adapters == s->limits.adapters &&
        all.penalty == s->limits.penalty)
        return LRD_OK;
    const bool was_there = s->allocated;
    status = replace(s, &all);
    if (status == LRD_ERR_NO_MEMORY && was_there && s->graphs) {
        lrd_error_clear();
        all.graphs = false;
        status = replace(s, &all);
        if (status == LRD_OK) {
            s->graphs = false;
            lrd_ranks_report_graphs(s->engine.backend, s->graphs);
        }
    }
    if (status == LRD_OK || s->generator == NULL)
        goto out;
    /* What was there before fits again. */
    const lrd_status_t cause = status;
    LRD_TRY(lrd_agree(s->grid.row, allocate(s)));
    status = cause;
out:
    return status;
}

lrd_status_t lrd_inference_print_memory(const lrd_inference_t *s, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_memory_print(&s->engine.memory, buf));
    LRD_TRY(lrd_pool_print(&s->pool, buf));
out:
    return status;
}
