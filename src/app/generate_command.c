/* Continues one prompt, or those of a file, with the base or adapters beside it. */
#include "app/generate_command.h"

#include "base/clock.h"
#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "comm/cpus.h"
#include "infer/text_stream.h"

#include <string.h>
#include <unistd.h>

lrd_status_t lrd_generate_put(const lrd_generate_app_t *g, const char *text, size_t bytes)
{
    return lrd_comm_rank(g->app->comm) == 0 ? lrd_put_result(text, bytes) : LRD_OK;
}

/* The prompts of a file, or that of --prompt. Replica r answers r, r + n_replicas, ... */
typedef struct batch {
    lrd_generate_app_t *g;
    lrd_prompts_t prompts;
    size_t n;                  /* what this replica answers */
    lrd_request_t *request;    /* [n] */
    lrd_reply_t *reply;        /* [n] */
    lrd_text_stream_t *stream; /* [n] */
    bool live;                 /* show the text as it comes */
    size_t shown, n_done;
    int64_t n_tokens;
    lrd_progress_t progress;
} batch_t;

static lrd_status_t show(batch_t *b, const lrd_text_stream_t *s)
{
    lrd_status_t status = LRD_OK;
    if (b->live && s->shown > b->shown) {
        LRD_TRY(lrd_generate_put(b->g, s->text.data + b->shown, s->shown - b->shown));
        b->shown = s->shown;
    }
out:
    return status;
}

static lrd_status_t on_token(void *context, size_t i, const lrd_reply_t *reply, bool *stop_out)
{
    lrd_status_t status = LRD_OK;
    batch_t *b = context;
    LRD_TRY(lrd_text_stream_add(&b->stream[i], reply->token[reply->n - 1]));
    *stop_out = b->stream[i].stopped;
    LRD_TRY(show(b, &b->stream[i]));
    b->n_tokens++;
out:
    return status;
}

static lrd_status_t on_done(void *context, size_t i, const lrd_reply_t *reply)
{
    (void)reply;
    lrd_status_t status = LRD_OK;
    batch_t *b = context;
    lrd_text_stream_end(&b->stream[i]);
    LRD_TRY(show(b, &b->stream[i]));
    if (!b->live)
        lrd_progress_update(&b->progress, (int64_t)++b->n_done, NULL);
out:
    return status;
}

static lrd_status_t load_adapters(lrd_generate_app_t *g)
{
    lrd_status_t status = LRD_OK;
    lrd_pool_t *pool = &g->inference.pool;
    for (size_t i = 0; i < g->app->cli->adapters.n; i++) {
        const lrd_pool_entry_t *entry;
        LRD_TRY(lrd_pool_load(pool, g->adapter[i].name, g->adapter[i].folder, &entry));
        LRD_CHECK(pool->n == i + 1, LRD_ERR_ARG,
                  "--adapter: two are named \"%s\"; NAME=DIR gives one another name", entry->name);
    }
    g->reader.fallback = pool->n == 1 ? pool->entries[0] : NULL;
out:
    return status;
}

/* Collective. */
static lrd_status_t find_folders(lrd_generate_app_t *g)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_list_t *adapters = &g->app->cli->adapters;
    g->adapter = lrd_calloc(adapters->n, sizeof *g->adapter);
    LRD_TRY(lrd_agree(g->app->comm, g->adapter != NULL ? LRD_OK : LRD_ERR_NO_MEMORY));
    LRD_TRY(lrd_find_model(g->app, g->app->comm, g->settings, LRD_HUB_MODEL, &g->model));
    for (size_t i = 0; i < adapters->n; i++)
        LRD_TRY(lrd_ask_find_adapter(g->app, g->app->comm, adapters->text[i], &g->adapter[i]));
out:
    return status;
}

static lrd_status_t open_all(lrd_generate_app_t *g, int n_threads)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = g->app->cli;
    LRD_TRY(lrd_inference_open(
        &(lrd_engine_options_t){.folder = g->model,
                                .dtype = lrd_weights_dtype(&g->settings->model),
                                .backend = cli->backend,
                                .device_index = lrd_comm_local_rank(g->app->comm),
                                .n_threads = n_threads,
                                .tuning_file = g->settings->parallel.tuning_file,
                                .tf32 = g->settings->training.tf32},
        &g->inference));
    LRD_TRY(lrd_tokenizer_load(g->model, &g->tokenizer));
    g->reader = (lrd_prompts_reader_t){.tokenizer = g->tokenizer,
                                       .pool = &g->inference.pool,
                                       .vocab_size = g->inference.engine.config.vocab_size,
                                       .bos = g->inference.engine.config.bos_token_id};
    LRD_TRY(lrd_encoder_new(g->tokenizer, &g->reader.encoder));
    LRD_TRY(load_adapters(g));
out:
    return status;
}

static void close_all(lrd_generate_app_t *g)
{
    lrd_encoder_free(g->reader.encoder);
    lrd_tokenizer_free(g->tokenizer);
    lrd_inference_close(&g->inference);
    for (size_t i = 0; g->adapter != NULL && i < g->app->cli->adapters.n; i++)
        lrd_ask_adapter_release(&g->adapter[i]);
    lrd_free(g->adapter);
    lrd_free(g->model);
    lrd_settings_free(g->settings);
}

lrd_status_t lrd_generate_open_memory(lrd_generate_app_t *g, lrd_generator_limits_t limits,
                                      bool all)
{
    lrd_status_t status = LRD_OK;
    lrd_inference_t *s = &g->inference;
    LRD_TRY(lrd_inference_spread(s, g->app->comm, &g->settings->parallel, limits));
    if (all || s->grid.replica == 0)
        status = lrd_inference_reserve(s, limits);
out:
    return lrd_agree(g->app->comm, status);
}

/* What all prompts need; no replica needs more. */
static lrd_generator_limits_t find_limits(const batch_t *b)
{
    const lrd_generate_app_t *g = b->g;
    const lrd_cli_t *cli = g->app->cli;
    const size_t n = b->prompts.n, most = (size_t)cli->batch_size;
    int32_t longest = 0;
    for (size_t i = 0; i < n; i++)
        longest = b->prompts.request[i].n > longest ? b->prompts.request[i].n : longest;
    const size_t slots = n < most ? n : most, adapters = g->inference.pool.n;
    return (lrd_generator_limits_t){.slots = (int32_t)slots,
                                    .capacity = longest + cli->max_new_tokens,
                                    .rank = lrd_pool_rank(&g->inference.pool),
                                    .adapters = (int32_t)(adapters < slots ? adapters : slots),
                                    .penalty = g->sampling.repetition_penalty != 1};
}

/* The number in the file of what this replica answers as number k. */
static size_t number_of(const batch_t *b, size_t k)
{
    const lrd_grid_t *grid = &b->g->inference.grid;
    return (size_t)grid->replica + k * (size_t)grid->n_replicas;
}

/* The requests of this replica. */
static lrd_status_t prepare(batch_t *b)
{
    lrd_status_t status = LRD_OK;
    const lrd_generate_app_t *g = b->g;
    const lrd_cli_t *cli = g->app->cli;
    while (number_of(b, b->n) < b->prompts.n)
        b->n++;
    LRD_NEW(b->request, b->n);
    LRD_NEW(b->reply, b->n);
    LRD_NEW(b->stream, b->n);
    for (size_t k = 0; k < b->n; k++) {
        const lrd_prompt_request_t *p = &b->prompts.request[number_of(b, k)];
        b->request[k] = (lrd_request_t){.prompt = p->token,
                                        .n_prompt = p->n,
                                        .max_new_tokens = cli->max_new_tokens,
                                        .number = number_of(b, k)};
        if (p->adapter != NULL)
            b->request[k].use = (lrd_adapter_use_t){p->adapter->adapter, p->adapter->params};
        lrd_text_stream_begin(&b->stream[k], g->tokenizer, cli->stop_text);
    }
out:
    return status;
}

static lrd_status_t report_memory(const lrd_generate_app_t *g)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_inference_print_memory(&g->inference, &text));
    lrd_debug("Memory:\n%s", text.data);
out:
    lrd_buf_release(&text);
    return status;
}

/* Those of this replica, a line each. */
static lrd_status_t write_replies(const batch_t *b, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = text, .utf8 = true};
    for (size_t i = 0; i < b->n; i++) {
        const lrd_pool_entry_t *adapter = b->prompts.request[number_of(b, i)].adapter;
        const lrd_reply_t *r = &b->reply[i];
        const lrd_buf_t *said = &b->stream[i].text;
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "adapter");
        lrd_json_text(&w, adapter != NULL ? adapter->name : NULL);
        lrd_json_key(&w, "text");
        lrd_json_bytes(&w, said->data, said->size);
        lrd_json_key(&w, "token_ids");
        lrd_json_open(&w, '[');
        for (int32_t k = 0; k < r->n; k++)
            lrd_json_int(&w, r->token[k]);
        lrd_json_close(&w, ']');
        lrd_json_key(&w, "finish_reason");
        lrd_json_text(&w, lrd_finish_name(r->finish));
        lrd_json_close(&w, '}');
        LRD_TRY(lrd_json_writer_status(&w));
        LRD_TRY(lrd_buf_add_text(text, "\n"));
    }
out:
    return status;
}

/* The lines of all replicas in the order of the file, on rank 0. Collective. */
static lrd_status_t gather_replies(const batch_t *b, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *grid = &b->g->inference.grid;
    const size_t n_replicas = (size_t)grid->n_replicas;
    lrd_buf_t mine = {0};
    size_t *offset = NULL;
    char *all = NULL;
    LRD_NEW(offset, n_replicas + 1);
    LRD_TRY(write_replies(b, &mine));
out:
    status = lrd_agree(grid->world, status);
    if (status == LRD_OK) /* the ranks of a row have the same lines: each column gathers them */
        status = lrd_comm_collect(grid->column, mine.data, mine.size, offset, &all);
    for (size_t i = 0; status == LRD_OK && i < b->prompts.n; i++) {
        size_t *at = &offset[i % n_replicas];
        const char *line = all + *at;
        const char *end = memchr(line, '\n', offset[n_replicas] - *at);
        status = lrd_buf_add(text, line, (size_t)(end - line) + 1);
        *at += (size_t)(end - line) + 1;
    }
    lrd_free(all);
    lrd_free(offset);
    lrd_buf_release(&mine);
    return status;
}

/* Where the replies go: a file, or standard output line by line. Collective. */
static lrd_status_t put_replies(const batch_t *b)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = b->g->app->cli;
    lrd_buf_t text = {0};
    LRD_TRY(gather_replies(b, &text));
    if (cli->output == NULL)
        LRD_TRY(lrd_generate_put(b->g, text.data, text.size));
    else if (lrd_comm_rank(b->g->app->comm) == 0)
        LRD_TRY(lrd_file_write(cli->output, text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}

/* The text alone, as far as it is not on the screen yet; the first replica has it. */
static lrd_status_t put_text(const batch_t *b)
{
    lrd_status_t status = LRD_OK;
    if (b->n == 0)
        goto out;
    const lrd_buf_t *said = &b->stream[0].text;
    LRD_TRY(lrd_generate_put(b->g, said->data + b->shown, said->size - b->shown));
    LRD_TRY(lrd_generate_put(b->g, "\n", 1));
out:
    return status;
}

static lrd_status_t read_prompts(batch_t *b)
{
    lrd_status_t status = LRD_OK;
    lrd_generate_app_t *g = b->g;
    const lrd_cli_t *cli = g->app->cli;
    if (cli->prompt != NULL)
        LRD_TRY(lrd_prompts_add(&b->prompts, &g->reader, "--prompt", cli->prompt,
                                strlen(cli->prompt), g->reader.fallback));
    else
        LRD_TRY(lrd_prompts_read(&b->prompts, &g->reader, cli->prompt_file));
out:
    return status;
}

static lrd_status_t answer(batch_t *b)
{
    lrd_status_t status = LRD_OK;
    lrd_generate_app_t *g = b->g;
    const lrd_listener_t listener = {
        .context = b, .token = on_token, .done = on_done, .cancel = g->app->stop};
    if (!b->live)
        lrd_progress_begin(&b->progress, "Generating", b->n == 1 ? "reply" : "replies", 0,
                           (int64_t)b->n);
    const double begun = lrd_clock_seconds();
    if (b->n > 0)
        LRD_TRY(lrd_generator_abort(g->inference.generator,
                                    lrd_generate(g->inference.generator, &g->sampling, b->request,
                                                 b->n, &listener, b->reply)));
    const double seconds = lrd_clock_seconds() - begun;
    if (!b->live)
        lrd_progress_end(&b->progress, (int64_t)b->n);
    lrd_debug("%lld tokens in %.3f s: %.1f tokens/s", (long long)b->n_tokens, seconds,
              (double)b->n_tokens / seconds);
out:
    return status;
}

static void close_batch(batch_t *b)
{
    for (size_t i = 0; b->stream != NULL && i < b->n; i++)
        lrd_text_stream_release(&b->stream[i]);
    if (b->reply != NULL)
        lrd_replies_release(b->reply, b->n);
    lrd_free(b->stream);
    lrd_free(b->reply);
    lrd_free(b->request);
    lrd_prompts_release(&b->prompts);
}

static lrd_status_t run_batch(batch_t *b)
{
    lrd_status_t status = LRD_OK;
    lrd_app_t *app = b->g->app;
    const lrd_cli_t *cli = app->cli;
    lrd_comm_share_stop(app->comm, app->stop);
    LRD_TRY(lrd_agree(app->comm,
                      lrd_comm_limit_silence(app->comm, b->g->settings->parallel.timeout_seconds)));
    LRD_TRY(lrd_agree(app->comm, read_prompts(b)));
    LRD_TRY(lrd_generate_open_memory(b->g, find_limits(b), true));
    LRD_TRY(lrd_agree(app->comm, prepare(b)));
    LRD_TRY(report_memory(b->g));
    app->work_began = true;
    b->live = cli->prompt != NULL && cli->output == NULL && isatty(STDOUT_FILENO);
    LRD_TRY(lrd_agree(app->comm, answer(b)));
    status = cli->output != NULL || cli->prompt_file != NULL ? put_replies(b) : put_text(b);
    LRD_TRY(lrd_agree(app->comm, status));
out:
    close_batch(b);
    return status;
}

lrd_status_t lrd_command_generate(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_generate_app_t g = {.app = app};
    batch_t b = {.g = &g};
    int n_threads;
    LRD_TRY(lrd_agree(app->comm, lrd_ask_sampling(app->cli, &g.sampling)));
    LRD_TRY(lrd_read_settings(app, &g.settings));
    LRD_TRY(lrd_cpus_threads(app->comm, app->cli->threads, &n_threads));
    LRD_TRY(find_folders(&g));
    LRD_TRY(lrd_agree(app->comm, open_all(&g, n_threads)));
    if (app->cli->prompt != NULL || app->cli->prompt_file != NULL)
        LRD_TRY(run_batch(&b));
    else
        LRD_TRY(lrd_chat(&g));
out:
    close_all(&g);
    return status;
}
