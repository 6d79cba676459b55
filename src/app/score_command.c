/* The loss of every record of a file, and its logits. */
#include "app/command.h"

#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "comm/cpus.h"
#include "data/dataset.h"
#include "lora/peft.h"
#include "model/engine.h"
#include "model/feed.h"
#include "model/stage.h"

#include <math.h>
#include <stdio.h>

typedef struct score {
    const lrd_cli_t *cli;
    lrd_settings_t *settings, *adapter_settings;
    lrd_engine_t engine;
    lrd_adapter_t *adapter;
    lrd_dataset_t *set;
    lrd_stage_t *stage;
    lrd_feed_t feed;
    lrd_batch_t batch;
    float *params; /* device [n_params] */
    double *nll;   /* device [1] */
    float *logits; /* device [longest, V], with --logits-out */
    void *pinned;  /* of the larger of parameters and logits */
    size_t pinned_bytes;
    lrd_safetensors_writer_t *writer;
    size_t *order; /* records in the order of the file of logits */
} score_t;

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    score_t *s = context;
    const int64_t longest = s->stage->limits.tokens;
    if (s->adapter != NULL)
        s->params =
            lrd_arena_take(model, "adapter", (size_t)s->adapter->n_params * sizeof *s->params);
    lrd_feed_layout(&s->feed, step);
    lrd_stage_layout(s->stage, model, step);
    s->nll = lrd_arena_take(step, "buffers", sizeof *s->nll);
    if (s->cli->logits_out != NULL)
        s->logits = lrd_arena_take(
            step, "logits", (size_t)(longest * s->engine.config.vocab_size) * sizeof *s->logits);
}

static lrd_status_t open_input(score_t *s, int n_threads)
{
    lrd_status_t status = LRD_OK;
    lrd_data_settings_t data;
    LRD_TRY(lrd_cli_read_settings(s->cli, &s->settings));
    LRD_TRY(
        lrd_engine_open(&(lrd_engine_options_t){.folder = s->cli->model,
                                                .dtype = lrd_weights_dtype(&s->settings->model),
                                                .backend = s->cli->backend,
                                                .n_threads = n_threads,
                                                .tuning_file = s->settings->parallel.tuning_file},
                        &s->engine));
    if (s->cli->adapter != NULL) {
        LRD_TRY(lrd_peft_read_config(s->cli->adapter, &s->adapter_settings));
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
    const int64_t longest = lrd_dataset_info(s->set)->longest_tokens;
    LRD_TRY(lrd_stage_create(
        s->engine.weights, s->adapter, s->engine.stream,
        (lrd_stage_limits_t){.tokens = longest, .sequences = 1, .max_seqlen = longest}, &s->stage));
    LRD_TRY(lrd_feed_open(s->engine.stream, longest, 1, &s->feed));
    lrd_engine_plan(&s->engine, layout, s, lrd_stage_scratch_bytes(s->stage));
    LRD_TRY(lrd_engine_allocate(&s->engine));
    s->stage->scratch = s->engine.memory.scratch;
    s->stage->params = s->params;
out:
    return status;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

static lrd_status_t load_parameters(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t params = s->adapter != NULL ? (size_t)s->adapter->n_params * sizeof *s->params : 0;
    const size_t logits =
        s->logits != NULL
            ? (size_t)(s->stage->limits.tokens * s->engine.config.vocab_size) * sizeof *s->logits
            : 0;
    s->pinned_bytes = largest(largest(params, logits),
                              (size_t)s->engine.config.n_heads * sizeof(float) + sizeof(double));
    LRD_TRY(lrd_mem_alloc(s->engine.backend, LRD_MEM_PINNED, s->pinned_bytes, &s->pinned));
    LRD_TRY(lrd_stage_prepare(s->stage, s->pinned));
    if (s->adapter == NULL)
        goto out;
    LRD_TRY(lrd_peft_read_params(s->cli->adapter, s->adapter, s->pinned));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_H2D, s->params, s->pinned, params));
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
    LRD_NEW(spec, n);
    LRD_NEW(names, n * 24);
    LRD_NEW(s->order, n);
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
    LRD_TRY(lrd_feed_upload(&s->feed, &s->batch, batch));
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

static lrd_status_t score_record(score_t *s, int64_t record)
{
    lrd_status_t status = LRD_OK;
    lrd_micro_batch_t batch;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = {.buf = &line};
    LRD_TRY(upload(s, record, &batch));
    LRD_TRY(lrd_stage_evaluate(s->stage, &batch, &(lrd_stage_loss_t){.nll = s->nll}));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_D2H, s->pinned, s->nll, sizeof(double)));
    LRD_TRY(lrd_stream_sync(s->engine.stream));
    const double loss = *(const double *)s->pinned / (double)s->batch.n_targets;
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "n_tokens");
    lrd_json_int(&w, s->batch.n_tokens);
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

static lrd_status_t write_logits(score_t *s, int64_t record)
{
    lrd_status_t status = LRD_OK;
    lrd_micro_batch_t batch;
    LRD_TRY(upload(s, record, &batch));
    const int64_t v = s->engine.config.vocab_size;
    const size_t bytes = (size_t)(batch.n_tokens * v) * sizeof(float);
    LRD_TRY(
        lrd_stage_logits(s->stage, &batch, (lrd_mat_t){s->logits, batch.n_tokens, v, v, LRD_F32}));
    LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_D2H, s->pinned, s->logits, bytes));
    LRD_TRY(lrd_stream_sync(s->engine.stream));
    LRD_TRY(lrd_safetensors_add(s->writer, s->pinned, bytes));
out:
    return status;
}

static lrd_status_t score_all(score_t *s)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = lrd_dataset_info(s->set)->n_records;
    for (int64_t i = 0; i < n; i++)
        LRD_TRY(score_record(s, i));
    if (s->writer == NULL)
        goto out;
    for (int64_t i = 0; i < n; i++)
        LRD_TRY(write_logits(s, (int64_t)s->order[i]));
    LRD_TRY(lrd_safetensors_commit(&s->writer));
out:
    return status;
}

static void close_all(score_t *s)
{
    lrd_safetensors_abandon(s->writer);
    lrd_free(s->order);
    if (s->engine.backend != NULL)
        lrd_mem_free(s->engine.backend, LRD_MEM_PINNED, s->pinned, s->pinned_bytes);
    lrd_batch_release(&s->batch);
    lrd_feed_close(&s->feed);
    lrd_stage_destroy(s->stage);
    lrd_engine_close(&s->engine);
    lrd_dataset_close(s->set);
    lrd_adapter_free(s->adapter);
    lrd_settings_free(s->adapter_settings);
    lrd_settings_free(s->settings);
}

lrd_status_t lrd_command_score(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    score_t s = {.cli = app->cli};
    int n_threads = app->cli->threads;
    if (lrd_comm_size(app->comm) == 1)
        LRD_TRY(lrd_cpus_threads(app->comm, app->cli->threads, &n_threads));
    LRD_TRY(open_input(&s, n_threads > 0 ? n_threads : 1));
    LRD_TRY(open_stage(&s));
    LRD_TRY(load_parameters(&s));
    LRD_TRY(begin_logits(&s));
    app->work_began = true;
    LRD_TRY(score_all(&s));
out:
    close_all(&s);
    return status;
}
