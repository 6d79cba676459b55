#include "train/session.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/devices.h"
#include "lora/peft.h"
#include "model/ranks.h"
#include "train/planner.h"
#include "train/resume.h"
#include "train/session_answering.h"
#include "train/session_data.h"

#include <stdio.h>
#include <string.h>

/* A phase of the start is over: all ranks go on, or none does; nor when one was asked to stop. */
static lrd_status_t end_phase(const lrd_session_t *s, lrd_status_t result)
{
    return lrd_agree_unless_stopped(s->o.comm, result, s->o.stop);
}

/* Device, the model's files, and the adapter's shape. */
static lrd_status_t open_model(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    LRD_TRY(lrd_settings_require(x, LRD_KEY_data_train_file));
    LRD_TRY(lrd_engine_open(&(lrd_engine_options_t){.folder = s->o.model_folder,
                                                    .dtype = lrd_weights_dtype(&x->model),
                                                    .backend = s->o.backend,
                                                    .device_index = lrd_comm_local_rank(s->o.comm),
                                                    .n_threads = s->o.n_threads,
                                                    .tuning_file = x->parallel.tuning_file,
                                                    .tf32 = x->training.tf32,
                                                    .may_lack_weights = s->plans,
                                                    .stop = s->o.stop},
                            &s->engine));
    s->lora = &x->lora;
    if (s->o.adapter_folder != NULL) {
        LRD_TRY(lrd_peft_read_config(s->o.adapter_folder, &s->adapter_settings));
        s->lora = &s->adapter_settings->lora;
    }
    LRD_TRY(lrd_model_adapter_create(&s->engine.config, s->lora, &s->adapter));
    lrd_weights_make_room(s->engine.weights, s->engine.backend, s->adapter);
    LRD_TRY(lrd_planner_check(s));
    LRD_TRY(lrd_folder_make(x->training.output_dir));
out:
    return status;
}

/* What the run is of, and from here on output_dir is its. Rank 0's business. */
static lrd_status_t claim_output(lrd_session_t *s)
{
    enum { FAREWELL_SECONDS = 5 }; /* ranks that have lost their launcher leave within seconds */
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    if (lrd_comm_rank(s->o.comm) != 0)
        goto out;
    LRD_TRY(lrd_model_identify(s->o.model_folder, s->engine.weights, s->o.model_commit, &s->base));
    LRD_TRY(lrd_claim_take(&(lrd_claim_options_t){.folder = x->training.output_dir,
                                                  .host = lrd_comm_host(s->o.comm),
                                                  .silent_seconds = x->parallel.timeout_seconds,
                                                  .farewell_seconds = FAREWELL_SECONDS,
                                                  .stop = s->o.stop},
                           &s->claim));
out:
    return status;
}

static lrd_status_t prepare_files(lrd_session_t *s)
{
    return lrd_engine_prepare_files(&s->engine, s->o.comm, s->placement.home,
                                    s->o.settings->parallel.offload_folder, s->plans);
}

/* This rank's layers, once it is known which they are. */
static lrd_status_t open_layers(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_placement_stage(&s->placement, s->grid.stage, &s->runs));
    LRD_TRY(lrd_planner_part(&s->placement, s->adapter, s->grid.stage, &s->part));
    if (s->placement.n_stages > 1 || s->placement.home != NULL)
        LRD_TRY(lrd_engine_keep(&s->engine, &s->runs));
out:
    return status;
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    lrd_session_t *s = context;
    const lrd_arena_t mark = *step;
    lrd_optimizer_layout(&s->optimizer, model);
    for (int r = 0; r < s->runs.n; r++) {
        if (s->reduce[r] != NULL)
            lrd_reduce_layout(s->reduce[r], model);
    }
    lrd_feed_layout(&s->feed, step);
    lrd_stepper_layout(&s->stepper, step);
    lrd_evaluator_layout(&s->evaluator, step);
    lrd_stage_layout(s->stage, model, step);
    if (!s->answering)
        return;
    /* Answers are generated between updates, in the same memory: the larger of the two counts. */
    const lrd_arena_t train = *step;
    lrd_arena_reset(step, &mark);
    s->o.answering->layout(s->o.answering->context, model, step);
    if (step->used < train.used)
        lrd_arena_reset(step, &train);
}

static int64_t largest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What sums up and updates the parameters of each run. */
static lrd_status_t open_update(lrd_session_t *s, int64_t max_micro_batches, int64_t of_replica)
{
    lrd_status_t status = LRD_OK;
    const lrd_settings_t *x = s->o.settings;
    const bool reproducible = x->parallel.reduction == LRD_REDUCTION_REPRODUCIBLE;
    s->optimizer = (lrd_optimizer_t){.adapter = s->part,
                                     .whole = s->adapter,
                                     .grid = &s->grid,
                                     .settings = &x->training,
                                     .stream = s->engine.stream,
                                     .scaler = s->engine.weights->dtype == LRD_F16,
                                     .n_updates = s->n_updates};
    LRD_TRY(lrd_optimizer_open(&s->optimizer, &s->runs, &s->placement));
    LRD_NEW(s->reduce, s->runs.n);
    for (int r = 0; r < s->optimizer.n_runs; r++) {
        const int64_t n = s->optimizer.run[r].n;
        if (n > 0)
            LRD_TRY(lrd_reduce_create(
                &(lrd_reduce_options_t){.comm = s->grid.column,
                                        .devices = s->grid.column_devices,
                                        .stream = s->engine.stream,
                                        .n = n,
                                        .max_leaves = max_micro_batches,
                                        .max_share = s->shares.moves ? of_replica : 0,
                                        .reproducible = reproducible},
                &s->reduce[r]));
    }
out:
    return status;
}

/* What takes micro-batches through the layers of this rank. */
static lrd_status_t open_pipeline(lrd_session_t *s, lrd_stage_limits_t limits, int64_t of_replica)
{
    lrd_status_t status = LRD_OK;
    LRD_NEW(s->places, s->runs.n);
    lrd_pipeline_places(&s->placement, lrd_pipeline_lowest(&s->placement, s->adapter),
                        s->grid.stage, of_replica, s->places);
    limits.places = s->places;
    limits.graphs = s->graphs;
    LRD_TRY(lrd_stage_create(s->engine.weights, s->part, s->engine.stream, limits, &s->stage));
    s->stage->dropout = (float)s->lora->lora_dropout;
    s->stage->seed = (uint64_t)s->o.settings->training.seed;
    LRD_TRY(lrd_feed_open(s->engine.stream, limits.tokens, limits.sequences, &s->feed));
    s->feed.padded = limits.graphs;
    LRD_TRY(lrd_pipeline_create(&(lrd_pipeline_options_t){.grid = &s->grid,
                                                          .placement = &s->placement,
                                                          .stage = s->stage,
                                                          .feed = &s->feed,
                                                          .max_micro_batches = of_replica},
                                &s->pipeline));
out:
    return status;
}

/* The largest micro-batch. */
static lrd_stage_limits_t find_limits(const lrd_session_t *s)
{
    const lrd_loader_limits_t l = lrd_loader_limits(s->loader);
    const int64_t longest_eval = s->eval != NULL ? lrd_dataset_info(s->eval)->longest_tokens : 0;
    return (lrd_stage_limits_t){.tokens = largest(l.tokens, longest_eval),
                                .sequences = l.sequences,
                                .max_seqlen = largest(l.longest_tokens, longest_eval),
                                .training = true,
                                .recompute = s->recompute};
}

static lrd_status_t open_stage(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_loader_limits_t l = lrd_loader_limits(s->loader);
    const int n = s->grid.n_replicas, p = s->grid.n_stages;
    const bool moves = s->moves && n > 1;
    const int64_t of_replica = lrd_shares_most(l.micro_batches, n, moves);
    LRD_TRY(lrd_shares_open(n, (p - 1.0) * p / s->placement.n_runs, moves, &s->shares));
    LRD_TRY(open_pipeline(s, find_limits(s), of_replica));
    LRD_TRY(open_update(s, l.micro_batches, of_replica));
    s->evaluator =
        (lrd_evaluator_t){.grid = &s->grid,
                          .stage = s->stage,
                          .pipeline = s->pipeline,
                          .set = s->eval,
                          .stop = s->o.stop,
                          .records_per_batch = s->o.settings->training.per_device_eval_batch_size};
    s->stepper = (lrd_stepper_t){.grid = &s->grid,
                                 .stage = s->stage,
                                 .pipeline = s->pipeline,
                                 .reduce = s->reduce,
                                 .optimizer = &s->optimizer,
                                 .shares = &s->shares,
                                 .set = s->train,
                                 .stop = s->o.stop,
                                 .max_micro_batches = l.micro_batches};
    LRD_TRY(lrd_stepper_open(&s->stepper));
    LRD_TRY(lrd_evaluator_open(&s->evaluator));
    if (lrd_comm_rank(s->o.comm) == 0)
        LRD_TRY(lrd_saver_open(&s->saver, s->adapter->n_params));
out:
    return status;
}

static size_t count_pinned(const lrd_session_t *s)
{
    const bool saves = lrd_comm_rank(s->o.comm) == 0;
    size_t pinned = s->feed.pinned_bytes + s->stepper.pinned_bytes + s->optimizer.pinned_bytes +
                    lrd_pipeline_pinned_bytes(s->pipeline) +
                    (saves ? 3 * (size_t)s->adapter->n_params * sizeof(float) : 0);
    for (int r = 0; r < s->runs.n; r++)
        pinned += s->reduce[r] != NULL ? lrd_reduce_pinned_bytes(s->reduce[r]) : 0;
    return pinned + (s->answering ? s->o.answering->pinned_bytes(s->o.answering->context) : 0);
}

static size_t reserve_graphs(const lrd_session_t *s)
{
    return lrd_stage_graph_bytes(s->stage) +
           (s->answering ? s->o.answering->graph_bytes(s->o.answering->context) : 0);
}

static void measure(lrd_session_t *s)
{
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    size_t scratch = lrd_stage_scratch_bytes(s->stage);
    if (s->answering) {
        const size_t other = s->o.answering->scratch_bytes(s->o.answering->context);
        scratch = other > scratch ? other : scratch;
    }
    s->engine.nccl = (lrd_aside_t){.bound = 0};
    if (s->engine.direct)
        s->engine.nccl =
            (lrd_aside_t){lrd_grid_reserve(s->grid.n_replicas, s->grid.n_stages, x, true),
                          lrd_grid_taken(&s->grid)};
    lrd_engine_plan(&s->engine, layout, s, scratch);
    s->engine.memory.graphs.bound = reserve_graphs(s);
    s->engine.memory.pinned_bytes = count_pinned(s);
}

/* Where all ranks do the same; a pipeline's are reported by the planner. */
static lrd_status_t report_memory(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_memory_print(&s->engine.memory, &text));
    if (lrd_comm_rank(s->o.comm) == 0)
        lrd_info("Memory of each rank:\n%s", text.data != NULL ? text.data : "");
out:
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t open_memory(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    if (s->grid.n_stages == 1)
        LRD_TRY(report_memory(s));
    LRD_TRY(lrd_engine_allocate(&s->engine));
    if (s->answering)
        LRD_TRY(s->o.answering->prepare(s->o.answering->context, s->engine.memory.scratch));
    s->stage->scratch = s->engine.memory.scratch;
    s->stage->params = s->optimizer.params;
out:
    return status;
}

/* The whole adapter's first parameters: of an adapter, or fresh. */
static lrd_status_t first_params(const lrd_session_t *s, float *params)
{
    const char *from = s->o.adapter_folder;
    return from != NULL ? lrd_peft_read_params(from, s->adapter, params)
                        : lrd_adapter_init(s->adapter, s->lora, s->engine.weights->dtype, params);
}

/* This rank's part of a state of the whole; m and v stay NULL where the whole has none. */
static lrd_status_t extract(const lrd_session_t *s, const lrd_optimizer_state_t *whole,
                            float **memory_out, lrd_optimizer_state_t *own_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = s->part->n_params;
    float *memory;
    LRD_NEW(memory, 3 * n);
    *memory_out = memory;
    *own_out = (lrd_optimizer_state_t){.params = memory, .clock = whole->clock};
    lrd_adapter_extract(s->part, s->adapter, whole->params, own_out->params);
    if (whole->m == NULL)
        goto out;
    own_out->m = memory + n;
    own_out->v = memory + 2 * n;
    lrd_adapter_extract(s->part, s->adapter, whole->m, own_out->m);
    lrd_adapter_extract(s->part, s->adapter, whole->v, own_out->v);
out:
    return status;
}

/* Constants, and the adapter's first parameters: from the checkpoint, an adapter, or fresh. */
static lrd_status_t load_parameters(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_optimizer_state_t whole = {.clock = lrd_optimizer_fresh_clock(s->optimizer.scaler)}, own;
    float *params = NULL, *memory = NULL, *pinned = NULL;
    const size_t pinned_bytes = (size_t)s->engine.config.n_heads * sizeof(float);
    LRD_TRY(lrd_mem_alloc(s->engine.backend, LRD_MEM_PINNED, pinned_bytes, (void **)&pinned));
    LRD_TRY(lrd_stage_prepare(s->stage, pinned));
    if (s->resumes) {
        whole = s->checkpoint.optimizer;
    } else {
        LRD_NEW(params, s->adapter->n_params);
        LRD_TRY(first_params(s, params));
        whole.params = params;
    }
    LRD_TRY(extract(s, &whole, &memory, &own));
    LRD_TRY(lrd_optimizer_upload(&s->optimizer, &own));
out:
    lrd_mem_free(s->engine.backend, LRD_MEM_PINNED, pinned, pinned_bytes);
    lrd_free(memory);
    lrd_free(params);
    return status;
}

lrd_status_t lrd_session_plan(const lrd_session_options_t *options, lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    *s = (lrd_session_t){.o = *options, .plans = true};
    LRD_TRY(lrd_agree(options->comm, open_model(s)));
    LRD_TRY(lrd_session_open_data(s));
    LRD_TRY(end_phase(s, lrd_session_open_answering(s)));
    LRD_TRY(lrd_devcomm_expect(options->comm, s->engine.stream, &options->settings->parallel,
                               &s->engine.direct));
    LRD_TRY(lrd_planner_place(s));
    LRD_TRY(prepare_files(s));
out:
    if (status != LRD_OK)
        lrd_session_close(s);
    return status;
}

lrd_status_t lrd_session_open(const lrd_session_options_t *options, lrd_session_t *session_out)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t *s = session_out;
    *s = (lrd_session_t){.o = *options};
    LRD_TRY(end_phase(s, open_model(s)));
    LRD_TRY(lrd_ranks_alike(options->comm, s->engine.backend));
    LRD_TRY(lrd_devices_check(options->comm, s->engine.backend,
                              options->settings->parallel.ranks_per_device));
    LRD_TRY(end_phase(s, claim_output(s)));
    LRD_TRY(end_phase(s, lrd_resume_find(s)));
    LRD_TRY(lrd_session_open_data(s));
    LRD_TRY(end_phase(s, lrd_session_open_answering(s)));
    LRD_TRY(lrd_devcomm_expect(options->comm, s->engine.stream, &options->settings->parallel,
                               &s->engine.direct));
    LRD_TRY(lrd_planner_place(s));
    LRD_TRY(prepare_files(s));
    LRD_TRY(
        lrd_agree(options->comm, lrd_grid_open(options->comm, s->placement.n_stages, &s->grid)));
    LRD_TRY(lrd_grid_connect(&s->grid, s->engine.stream, &options->settings->parallel, true));
    LRD_TRY(end_phase(s, open_layers(s)));
    LRD_TRY(end_phase(s, lrd_session_open_loader(s)));
    LRD_TRY(end_phase(s, open_stage(s)));
    LRD_TRY(end_phase(s, lrd_session_take_place(s)));
    measure(s);
    LRD_TRY(lrd_planner_report(s));
    LRD_TRY(end_phase(s, open_memory(s)));
    LRD_TRY(end_phase(s, load_parameters(s)));
out:
    if (status != LRD_OK)
        lrd_session_close(s);
    return status;
}

/* What depends on who has which layers. */
static void close_stage(lrd_session_t *s)
{
    lrd_saver_close(&s->saver); /* reads settings and adapter until it is done */
    lrd_evaluator_close(&s->evaluator);
    lrd_stepper_close(&s->stepper);
    lrd_shares_close(&s->shares);
    for (int r = 0; s->reduce != NULL && r < s->runs.n; r++)
        lrd_reduce_destroy(s->reduce[r]);
    lrd_free(s->reduce);
    lrd_optimizer_close(&s->optimizer);
    lrd_pipeline_destroy(s->pipeline);
    lrd_feed_close(&s->feed);
    lrd_stage_destroy(s->stage);
    lrd_free(s->places);
    lrd_loader_free(s->loader);
    lrd_adapter_free(s->part);
    lrd_free(s->runs.run);
}

lrd_status_t lrd_session_limits(const lrd_session_t *s, int n_replicas,
                                lrd_stage_limits_t *limits_out, int64_t *micro_batches_out,
                                lrd_loader_t **loader_out)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t m = *s;
    m.grid.n_replicas = n_replicas;
    m.loader = NULL;
    LRD_TRY(lrd_session_open_loader(&m));
    *limits_out = find_limits(&m);
    *micro_batches_out = lrd_loader_limits(m.loader).micro_batches;
    if (loader_out != NULL)
        *loader_out = m.loader;
out:
    if (loader_out == NULL || status != LRD_OK)
        lrd_loader_free(m.loader);
    return status;
}

lrd_status_t lrd_session_measure(const lrd_session_t *s, const lrd_placement_t *placement,
                                 int n_ranks, int rank, lrd_memory_t *memory_out)
{
    lrd_status_t status = LRD_OK;
    lrd_session_t m = {.o = s->o,
                       .lora = s->lora,
                       .adapter = s->adapter,
                       .placement = *placement,
                       .graphs = s->graphs,
                       .moves = s->moves,
                       .recompute = s->recompute,
                       .engine = s->engine,
                       .resumes = s->resumes,
                       .checkpoint = s->checkpoint,
                       .train = s->train,
                       .eval = s->eval,
                       .answering = s->answering};
    m.engine.weights = NULL;
    memcpy(m.data_key, s->data_key, sizeof m.data_key);
    LRD_TRY(lrd_comm_imagine(rank, n_ranks, &m.o.comm));
    LRD_TRY(lrd_grid_open(m.o.comm, placement->n_stages, &m.grid));
    LRD_TRY(lrd_placement_stage(placement, m.grid.stage, &m.runs));
    LRD_TRY(lrd_planner_part(placement, s->adapter, m.grid.stage, &m.part));
    LRD_TRY(lrd_weights_like(s->engine.weights, &m.runs, &m.engine.weights));
    LRD_TRY(lrd_session_open_loader(&m));
    LRD_TRY(open_stage(&m));
    LRD_TRY(lrd_session_take_place(&m));
    measure(&m);
    *memory_out = m.engine.memory;
out:
    if (m.answering)
        m.o.answering->leave(m.o.answering->context);
    close_stage(&m);
    lrd_weights_close(m.engine.weights);
    lrd_comm_close(m.o.comm != s->o.comm ? m.o.comm : NULL);
    return status;
}

void lrd_session_close(lrd_session_t *s)
{
    if (s->o.comm == NULL)
        return;
    if (s->answering)
        s->o.answering->close(s->o.answering->context);
    lrd_free(s->eval_question);
    close_stage(s);
    lrd_claim_release(s->claim); /* nothing is written any more */
    lrd_grid_disconnect(&s->grid);
    lrd_dataset_close(s->eval);
    lrd_dataset_close(s->train);
    lrd_history_release(&s->history);
    lrd_checkpoint_release(&s->checkpoint);
    lrd_engine_close(&s->engine);
    lrd_free(s->room_why);
    lrd_free(s->rooms);
    lrd_placement_release(&s->placement);
    lrd_adapter_free(s->adapter);
    lrd_settings_free(s->adapter_settings);
    *s = (lrd_session_t){0};
}
