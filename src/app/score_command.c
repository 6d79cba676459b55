/* The loss of every record of a file, and its logits. */
#include "app/folders.h"

#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "comm/cpus.h"
#include "data/dataset.h"
#include "lora/peft.h"
#include "model/engine.h"
#include "model/feed.h"
#include "model/relay.h"
#include "model/spread.h"

#include <math.h>
#include <stdio.h>

/* Records that each replica scores before their losses are put together. */
enum { ROUND = 16 };

typedef struct score {
    lrd_app_t *app;
    const lrd_cli_t *cli;
    lrd_settings_t *settings, *adapter_settings;
    char *model_folder, *adapter_folder; /* adapter: NULL without one */
    lrd_engine_t engine;
    lrd_adapter_t *adapter;
    lrd_dataset_t *set;
    lrd_grid_t grid;
    bool graphs; /* passes that come again */
    lrd_stage_t *stage;
    lrd_relay_t relay;
    lrd_feed_t feed;
    lrd_batch_t batch;
    float *params;      /* device [n_params] */
    double *device_nll; /* [1] */
    float *logits;      /* device [longest, V], with --logits-out, where the head is */
    void *pinned;       /* of the larger of parameters and logits */
    size_t pinned_bytes;
    lrd_safetensors_writer_t *writer;
    size_t *order; /* records in the order of the file of logits */
    double *nll;   /* [n_replicas ROUND] of a round of records, by replica */
} score_t;

static size_t params_bytes(const score_t *s)
{
    return s->adapter != NULL ? (size_t)s->adapter->n_params * sizeof *s->params : 0;
}

/* Of the longest record. */
static size_t logits_bytes(const score_t *s)
{
    return s->cli->logits_out != NULL
               ? (size_t)(lrd_dataset_info(s->set)->longest_tokens * s->engine.config.vocab_size) *
                     sizeof *s->logits
               : 0;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t pinned_bytes(const score_t *s)
{
    const size_t rest = (size_t)s->engine.config.n_heads * sizeof(float) + sizeof(double);
    return largest(largest(params_bytes(s), logits_bytes(s)), rest);
}

/* What surrounds a stage. */
static void lay_out(score_t *s, lrd_stage_t *stage, lrd_feed_t *feed, lrd_arena_t *model,
                    lrd_arena_t *step)
{
    if (s->adapter != NULL)
        s->params = lrd_arena_take(model, "adapter", params_bytes(s));
    lrd_feed_layout(feed, step);
    lrd_stage_layout(stage, model, step);
    s->device_nll = lrd_arena_take(step, "buffers", sizeof *s->device_nll);
    if (s->cli->logits_out != NULL && stage->weights->has_head)
        s->logits = lrd_arena_take(step, "logits", logits_bytes(s));
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    score_t *s = context;
    lay_out(s, s->stage, &s->feed, model, step);
}

static lrd_stage_limits_t find_limits(const score_t *s, bool graphs)
{
    const int64_t longest = lrd_dataset_info(s->set)->longest_tokens;
    return (lrd_stage_limits_t){
        .tokens = longest, .sequences = 1, .max_seqlen = longest, .graphs = graphs};
}

/* lrd_spread_options_t.measure */
static lrd_status_t measure(void *context, lrd_weights_t *weights, bool graphs,
                            lrd_memory_t *memory)
{
    lrd_status_t status = LRD_OK;
    score_t *s = context;
    lrd_stage_t *stage = NULL;
    lrd_relay_t relay = {.stage = NULL};
    lrd_feed_t feed = {.stream = NULL};
    const lrd_stage_limits_t limits = find_limits(s, graphs);
    LRD_TRY(lrd_stage_create(weights, s->adapter, s->engine.stream, limits, &stage));
    LRD_TRY(lrd_relay_open(stage, &relay));
    LRD_TRY(lrd_feed_open(s->engine.stream, limits.tokens, 1, &feed));
    lay_out(s, stage, &feed, &memory->model, &memory->step);
    memory->scratch.bytes = lrd_stage_scratch_bytes(stage);
    memory->graphs.bound = lrd_stage_graph_bytes(stage);
    memory->pinned_bytes = pinned_bytes(s) + relay.bytes + feed.pinned_bytes;
out:
    lrd_feed_close(&feed);
    lrd_relay_close(&relay);
    lrd_stage_destroy(stage);
    return status;
}

static lrd_status_t open_input(score_t *s, int n_threads)
{
    lrd_status_t status = LRD_OK;
    lrd_data_settings_t data;
    LRD_TRY(
        lrd_engine_open(&(lrd_engine_options_t){.folder = s->model_folder,
                                                .dtype = lrd_weights_dtype(&s->settings->model),
                                                .backend = s->cli->backend,
                                                .device_index = lrd_comm_local_rank(s->app->comm),
                                                .n_threads = n_threads,
                                                .tuning_file = s->settings->parallel.tuning_file,
                                                .tf32 = s->settings->training.tf32},
                        &s->engine));
    if (s->adapter_folder != NULL) {
        LRD_TRY(lrd_peft_read_config(s->adapter_folder, &s->adapter_settings));
        LRD_TRY(
            lrd_model_adapter_create(&s->engine.config, &s->adapter_settings->lora, &s->adapter));
    }
    data = s->settings->data;
    data.format = LRD_FORMAT_TOKENIZED;
    data.max_length = LRD_RECORD_MAX_TOKENS;
    data.on_too_long = LRD_TOO_LONG_ERROR;
    LRD_TRY(lrd_dataset_tokenize(&(lrd_dataset_spec_t){.path = s->cli->data,
                                                       .settings = &data,
                                                       .vocab_size = s->engine.config.vocab_size},
                                 &s->set));
out:
    return status;
}

static lrd_status_t open_stage(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_stage_limits_t limits = find_limits(s, s->graphs);
    LRD_TRY(lrd_stage_create(s->engine.weights, s->adapter, s->engine.stream, limits, &s->stage));
    LRD_TRY(lrd_relay_open(s->stage, &s->relay));
    s->relay.grid = &s->grid;
    LRD_TRY(lrd_feed_open(s->engine.stream, limits.tokens, 1, &s->feed));
    s->feed.padded = limits.graphs;
    lrd_engine_plan(&s->engine, layout, s, lrd_stage_scratch_bytes(s->stage));
    s->engine.memory.graphs.bound = lrd_stage_graph_bytes(s->stage);
    LRD_TRY(lrd_engine_allocate(&s->engine));
    s->stage->scratch = s->engine.memory.scratch;
    s->stage->params = s->params;
out:
    return status;
}

static lrd_status_t load_parameters(score_t *s)
{
    lrd_status_t status = LRD_OK;
    s->pinned_bytes = pinned_bytes(s);
    LRD_TRY(lrd_mem_alloc(s->engine.backend, LRD_MEM_PINNED, s->pinned_bytes, &s->pinned));
    LRD_TRY(lrd_stage_prepare(s->stage, s->pinned));
    if (s->adapter == NULL)
        goto out;
    LRD_TRY(lrd_peft_read_params(s->adapter_folder, s->adapter, s->pinned));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_H2D, s->params, s->pinned, params_bytes(s)));
    LRD_TRY(lrd_stream_sync(s->engine.stream));
out:
    return status;
}

static lrd_status_t begin_logits(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = lrd_dataset_info(s->set)->n_records;
    lrd_tensor_spec_t *spec = NULL;
    char *names = NULL;
    if (s->cli->logits_out == NULL)
        goto out;
    LRD_NEW(s->order, n);
    if (lrd_comm_rank(s->app->comm) != 0)
        goto out;
    LRD_NEW(spec, n);
    LRD_NEW(names, n * 24);
    for (int64_t i = 0; i < n; i++) {
        snprintf(names + i * 24, 24, "%lld", (long long)i);
        spec[i] = (lrd_tensor_spec_t){
            .name = names + i * 24,
            .dtype = LRD_F32,
            .n_dims = 2,
            .shape = {lrd_dataset_record(s->set, i).n_tokens, s->engine.config.vocab_size}};
    }
    LRD_TRY(lrd_safetensors_begin(s->cli->logits_out, spec, (size_t)n, s->order, &s->writer));
out:
    lrd_free(names);
    lrd_free(spec);
    return status;
}

static lrd_status_t upload(score_t *s, int64_t record, lrd_micro_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_batch_pack(s->set, &record, 1, 0, &s->batch));
    LRD_TRY(lrd_feed_upload(&s->feed, &s->batch, (lrd_ce_call_t){.number = 0}, batch));
out:
    return status;
}

/* JSON has no NaN, which is the loss of a record without targets, and no infinity. */
static void add_number(lrd_json_writer_t *w, const char *key, double value)
{
    lrd_json_key(w, key);
    if (isfinite(value))
        lrd_json_real(w, value);
    else
        lrd_json_null(w);
}

static lrd_status_t put_score(const score_t *s, int64_t record, double nll)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = {.buf = &line};
    const lrd_record_t r = lrd_dataset_record(s->set, record);
    const double loss = nll / (double)r.n_targets;
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "n_tokens");
    lrd_json_int(&w, r.n_tokens);
    add_number(&w, "loss", loss);
    add_number(&w, "perplexity", exp(loss));
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(&line, "\n"));
    LRD_TRY(lrd_put_result(line.data, line.size));
out:
    lrd_buf_release(&line);
    return status;
}

/* lrd_relay_head_t: the record's loss. */
static lrd_status_t find_loss(void *context, const lrd_micro_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    score_t *s = context;
    LRD_TRY(lrd_stage_forward(s->stage, batch, s->engine.weights->runs.n - 1, 0, false,
                              &(lrd_stage_loss_t){.nll = s->device_nll}));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_D2H, s->pinned, s->device_nll, sizeof(double)));
out:
    return status;
}

/* All ranks of the row know it from the one with the head. */
static lrd_status_t score_record(score_t *s, int64_t record, double *nll_out)
{
    lrd_status_t status = LRD_OK;
    lrd_micro_batch_t batch;
    LRD_TRY(upload(s, record, &batch));
    LRD_TRY(lrd_relay_run(&s->relay,
                          &(lrd_relay_pass_t){.batch = &batch, .head = find_loss, .context = s}));
    LRD_TRY(lrd_stream_sync(s->engine.stream));
    if (s->grid.n_stages > 1)
        LRD_TRY(lrd_comm_broadcast(s->grid.row, s->pinned, sizeof(double), s->grid.n_stages - 1));
    *nll_out = *(const double *)s->pinned;
out:
    return status;
}

/* Records first .. last - 1: replica r has first + r, first + r + n_replicas, ... Rank 0 prints. */
static lrd_status_t score_round(score_t *s, int64_t first, int64_t last, size_t *offset)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = s->grid.n_replicas;
    offset[0] = 0;
    for (int64_t r = 0; r < n; r++)
        offset[r + 1] = offset[r] + (size_t)((last - first - r + n - 1) / n) * sizeof *s->nll;
    double *mine = s->nll + offset[s->grid.replica] / sizeof *s->nll;
    for (int64_t i = first + s->grid.replica; i < last; i += n)
        LRD_TRY(score_record(s, i, &mine[(i - first) / n]));
    LRD_TRY(lrd_comm_all_gather(s->grid.column, mine, s->nll, offset));
    for (int64_t i = first; i < last && lrd_comm_rank(s->app->comm) == 0; i++)
        LRD_TRY(put_score(
            s, i, s->nll[offset[(i - first) % n] / sizeof *s->nll + (size_t)((i - first) / n)]));
out:
    return status;
}

static lrd_status_t score_records(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = lrd_dataset_info(s->set)->n_records, replicas = s->grid.n_replicas;
    const int64_t round = replicas > 1 ? replicas * ROUND : 1;
    size_t *offset = NULL;
    LRD_NEW(offset, replicas + 1);
    LRD_NEW(s->nll, round);
    for (int64_t first = 0; first < n; first += round)
        LRD_TRY(score_round(s, first, first + round < n ? first + round : n, offset));
out:
    lrd_free(offset);
    return status;
}

/* lrd_relay_head_t */
static lrd_status_t find_logits(void *context, const lrd_micro_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    score_t *s = context;
    const int64_t v = s->engine.config.vocab_size;
    const size_t bytes = (size_t)(batch->n_tokens * v) * sizeof(float);
    LRD_TRY(
        lrd_stage_logits(s->stage, batch, (lrd_mat_t){s->logits, batch->n_tokens, v, v, LRD_F32}));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_D2H, s->pinned, s->logits, bytes));
out:
    return status;
}

/* From the rank with the head to rank 0, which writes. */
static lrd_status_t pass_logits(score_t *s, int head, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *world = s->grid.world;
    const int rank = lrd_comm_rank(world);
    enum { PIECE = 1 << 30 }; /* a message is no longer than INT_MAX */
    for (size_t at = 0; at < bytes && head > 0; at += PIECE) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        lrd_message_t message = {.pending = false};
        if (rank == 0)
            LRD_TRY(lrd_comm_receive(world, (char *)s->pinned + at, n, head, 0, &message));
        if (rank == head)
            LRD_TRY(lrd_comm_send(world, (char *)s->pinned + at, n, 0, 0, &message));
        LRD_TRY(lrd_comm_wait(world, &message));
    }
out:
    return status;
}

static lrd_status_t write_logits(score_t *s, int64_t record, int replica)
{
    lrd_status_t status = LRD_OK;
    lrd_micro_batch_t batch;
    const size_t bytes =
        (size_t)(lrd_dataset_record(s->set, record).n_tokens * s->engine.config.vocab_size) *
        sizeof(float);
    if (s->grid.replica == replica) {
        LRD_TRY(upload(s, record, &batch));
        LRD_TRY(lrd_relay_run(
            &s->relay, &(lrd_relay_pass_t){.batch = &batch, .head = find_logits, .context = s}));
        LRD_TRY(lrd_stream_sync(s->engine.stream));
    }
    LRD_TRY(pass_logits(s, lrd_grid_rank(&s->grid, replica, s->grid.n_stages - 1), bytes));
    if (lrd_comm_rank(s->grid.world) == 0)
        LRD_TRY(lrd_safetensors_add(s->writer, s->pinned, bytes));
out:
    return status;
}

/* In the order of their file, the replicas in turn: while rank 0 writes one, others make the next. */
static lrd_status_t write_all_logits(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = lrd_dataset_info(s->set)->n_records;
    if (s->cli->logits_out == NULL)
        goto out;
    s->feed.padded = false; /* a row of logits for each token of a record, no more */
    LRD_TRY(lrd_comm_broadcast(s->grid.world, s->order, (size_t)n * sizeof *s->order, 0));
    for (int64_t i = 0; i < n; i++)
        LRD_TRY(write_logits(s, (int64_t)s->order[i], (int)(i % s->grid.n_replicas)));
    if (lrd_comm_rank(s->grid.world) == 0)
        LRD_TRY(lrd_safetensors_commit(&s->writer));
out:
    return status;
}

static lrd_status_t score_all(score_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(score_records(s));
    LRD_TRY(write_all_logits(s));
out:
    return status;
}

static void close_all(score_t *s)
{
    lrd_safetensors_abandon(s->writer);
    lrd_free(s->order);
    lrd_free(s->nll);
    if (s->engine.backend != NULL)
        lrd_mem_free(s->engine.backend, LRD_MEM_PINNED, s->pinned, s->pinned_bytes);
    lrd_batch_release(&s->batch);
    lrd_feed_close(&s->feed);
    lrd_relay_close(&s->relay);
    lrd_stage_destroy(s->stage);
    lrd_grid_disconnect(&s->grid);
    lrd_engine_close(&s->engine);
    lrd_dataset_close(s->set);
    lrd_adapter_free(s->adapter);
    lrd_settings_free(s->adapter_settings);
    lrd_free(s->adapter_folder);
    lrd_free(s->model_folder);
    lrd_settings_free(s->settings);
}

lrd_status_t lrd_command_score(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = app->comm;
    score_t s = {.app = app, .cli = app->cli};
    int n_threads;
    LRD_TRY(lrd_read_settings(app, &s.settings));
    LRD_TRY(lrd_agree(comm, lrd_comm_limit_silence(comm, s.settings->parallel.timeout_seconds)));
    LRD_TRY(lrd_cpus_threads(comm, app->cli->threads, &n_threads));
    LRD_TRY(lrd_find_model(app, comm, s.settings, LRD_HUB_MODEL, &s.model_folder));
    LRD_TRY(lrd_find_adapter(app, comm, app->cli->adapter, &s.adapter_folder));
    LRD_TRY(lrd_agree(comm, open_input(&s, n_threads)));
    LRD_TRY(lrd_spread_open(&(lrd_spread_options_t){.comm = comm,
                                                    .settings = &s.settings->parallel,
                                                    .engine = &s.engine,
                                                    .context = &s,
                                                    .measure = measure},
                            &s.grid, &s.graphs));
    LRD_TRY(lrd_agree(comm, open_stage(&s)));
    LRD_TRY(lrd_agree(comm, load_parameters(&s)));
    LRD_TRY(lrd_agree(comm, begin_logits(&s)));
    app->work_began = true;
    LRD_TRY(lrd_comm_abort(comm, score_all(&s)));
out:
    close_all(&s);
    return status;
}
