/* Answers the questions of a SQuAD v2.0 file over all ranks and prints the official metrics, as
 * evaluate-v2.0.py does; or scores answers that are there. */
#include "app/ask.h"
#include "app/command.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/cpus.h"
#include "infer/inference.h"
#include "infer/squad_answer.h"
#include "infer/squad_examples.h"
#include "infer/squad_ids.h"
#include "infer/squad_predictions.h"
#include "infer/squad_score.h"
#include "train/output.h"

#include <string.h>

static lrd_status_t put_metrics(const lrd_squad_metrics_t *metrics)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .indent = 2};
    lrd_squad_metrics_write(metrics, &w);
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_buf_release(&text);
    return status;
}

/* What is asked, as it was named: --data or data.eval_file. */
static const char *data_of(const lrd_cli_t *cli, const lrd_settings_t *settings)
{
    return cli->data != NULL ? cli->data : settings->data.eval_file;
}

/* A file of predictions: rank 0 alone. */
static lrd_status_t score_file(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = app->cli;
    lrd_squad_t *data = NULL;
    lrd_squad_predictions_t predictions = {0};
    lrd_squad_na_prob_t *na_prob = NULL;
    lrd_names_t files = {0};
    size_t n_na_probs = 0;
    lrd_squad_metrics_t metrics;
    LRD_TRY(lrd_find_data(NULL, app->stop, cli->data, LRD_SPLIT_EVAL, &files));
    LRD_TRY(lrd_squad_read_files(cli->data, lrd_data_files_or_null(&files), &data));
    LRD_CHECK(lrd_squad_n_questions(data) > 0, LRD_ERR_FORMAT, "%s has no questions", cli->data);
    LRD_TRY(lrd_squad_predictions_read(cli->predictions, data, &predictions));
    if (cli->na_prob_file != NULL)
        LRD_TRY(lrd_squad_na_probs_read(cli->na_prob_file, data, &na_prob, &n_na_probs));
    app->work_began = true;
    LRD_TRY(lrd_squad_score(data,
                            &(lrd_squad_answers_t){.text = predictions.text,
                                                   .n_questions = lrd_squad_n_questions(data),
                                                   .na_prob = na_prob,
                                                   .n_na_probs = n_na_probs,
                                                   .na_prob_thresh = cli->na_prob_thresh},
                            &metrics));
    LRD_TRY(put_metrics(&metrics));
out:
    lrd_free(na_prob);
    lrd_names_free(&files);
    lrd_squad_predictions_release(&predictions);
    lrd_squad_free(data);
    return status;
}

typedef struct eval {
    lrd_app_t *app;
    lrd_settings_t *settings;
    char *model;               /* folder */
    lrd_names_t data;          /* files that the data's name stands for */
    lrd_ask_adapter_t adapter; /* folder NULL: the base */
    lrd_sampling_t sampling;
    lrd_inference_t inference;
    lrd_squad_prompts_t prompts;
    lrd_adapter_use_t use;
    lrd_squad_replies_t replies;
} eval_t;

/* Model, adapter and questions. */
static lrd_status_t open_input(eval_t *e, int n_threads)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = e->app->cli;
    const lrd_settings_t *x = e->settings;
    LRD_TRY(lrd_inference_open(
        &(lrd_engine_options_t){.folder = e->model,
                                .dtype = lrd_weights_dtype(&x->model),
                                .backend = cli->backend,
                                .device_index = lrd_comm_local_rank(e->app->comm),
                                .n_threads = n_threads,
                                .tuning_file = x->parallel.tuning_file,
                                .tf32 = x->training.tf32,
                                .stop = e->app->stop},
        &e->inference));
    LRD_TRY(lrd_squad_prompts_open(
        &(lrd_squad_prompts_spec_t){.path = data_of(cli, x),
                                    .files = lrd_data_files_or_null(&e->data),
                                    .model_folder = e->model,
                                    .settings = &x->data,
                                    .vocab_size = e->inference.engine.config.vocab_size,
                                    .max_new_tokens = cli->max_new_tokens,
                                    .limit = (size_t)cli->limit,
                                    .n_threads = n_threads,
                                    .stop = e->app->stop},
        &e->prompts));
out:
    return status;
}

static lrd_status_t open_adapter(eval_t *e)
{
    lrd_status_t status = LRD_OK;
    const lrd_pool_entry_t *entry;
    if (e->adapter.folder == NULL) {
        lrd_info("No --adapter: the base answers");
        goto out;
    }
    LRD_TRY(lrd_pool_load(&e->inference.pool, e->adapter.name, e->adapter.folder, &entry));
    e->use = (lrd_adapter_use_t){entry->adapter, entry->params};
out:
    return status;
}

/* Collective. */
static lrd_status_t find_folders(eval_t *e)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_list_t *adapters = &e->app->cli->adapters;
    const char *data = data_of(e->app->cli, e->settings);
    LRD_CHECK(data != NULL, LRD_ERR_CONFIG,
              "data.eval_file is not set: name a SQuAD v2.0 file there, or with --data");
    LRD_TRY(lrd_find_data(e->app->comm, e->app->stop, data, LRD_SPLIT_EVAL, &e->data));
    LRD_TRY(lrd_find_model(e->app, e->app->comm, e->settings, LRD_HUB_MODEL, &e->model));
    if (adapters->n > 0)
        LRD_TRY(lrd_ask_find_adapter(e->app, e->app->comm, adapters->text[0], &e->adapter));
out:
    return status;
}

/* Which ranks hold which layers, and memory. Collective. */
static lrd_status_t open_memory(eval_t *e)
{
    lrd_status_t status = LRD_OK;
    const int32_t n = (int32_t)e->prompts.n, batch = e->app->cli->batch_size;
    const lrd_generator_limits_t limits = {.slots = n < batch ? n : batch,
                                           .capacity = lrd_squad_prompts_capacity(&e->prompts),
                                           .rank = lrd_pool_rank(&e->inference.pool),
                                           .penalty = e->sampling.repetition_penalty != 1};
    LRD_TRY(lrd_inference_spread(&e->inference, e->app->comm, &e->settings->parallel, limits));
    status = lrd_inference_reserve(&e->inference, limits);
out:
    return lrd_agree(e->app->comm, status);
}

/* {"id": "text", ...}; of several questions of one id the last one's, as Python's dict keeps it. */
static lrd_status_t write_predictions(const eval_t *e, const char *path)
{
    lrd_status_t status = LRD_OK;
    const lrd_squad_t *data = e->prompts.data;
    lrd_squad_ids_t ids = {0};
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text};
    LRD_TRY(lrd_squad_ids_create(data, e->replies.n, &ids));
    lrd_json_open(&w, '{');
    for (size_t i = 0; i < e->replies.n; i++) {
        const lrd_squad_question_t *q = lrd_squad_question(data, i);
        if (lrd_squad_ids_find(&ids, q->id) != i)
            continue;
        lrd_json_key_bytes(&w, q->id.data, q->id.bytes);
        lrd_json_bytes(&w, e->replies.text[i].data, e->replies.text[i].bytes);
    }
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_file_write(path, text.data, text.size));
    lrd_info("Wrote %s", path);
out:
    lrd_buf_release(&text);
    lrd_squad_ids_release(&ids);
    return status;
}

/* What was asked, the metrics and some of the answers, for a report: beside x.json, x.evaluation.json. */
static lrd_status_t write_record(const eval_t *e, const lrd_squad_answers_t *answers,
                                 const lrd_squad_metrics_t *metrics, const char *predictions)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = e->app->cli;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .indent = 2};
    const size_t n = strlen(predictions);
    const bool has_ending = n > 5 && strcmp(predictions + n - 5, ".json") == 0;
    char *path = NULL;
    LRD_ALLOC(path, lrd_asprintf("%.*s%s", (int)(has_ending ? n - 5 : n), predictions,
                                 lrd_evaluation_ending));
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "model");
    lrd_json_text(&w, e->settings->model.name_or_path);
    lrd_json_key(&w, "adapter");
    lrd_json_text(&w, cli->adapters.n > 0 ? cli->adapters.text[0] : NULL);
    lrd_json_key(&w, "data");
    lrd_json_text(&w, cli->data != NULL ? cli->data : e->settings->data.eval_file);
    lrd_json_key(&w, "predictions");
    lrd_json_text(&w, lrd_path_base(predictions));
    lrd_json_key(&w, "metrics");
    lrd_squad_metrics_write(metrics, &w);
    lrd_json_key(&w, "examples");
    LRD_TRY(lrd_squad_examples_write(e->prompts.data, answers, &w));
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    LRD_TRY(lrd_file_write(path, text.data, text.size));
out:
    lrd_free(path);
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t find_output(const eval_t *e, char **path_out)
{
    lrd_status_t status = LRD_OK;
    const char *folder = e->settings->training.output_dir;
    if (e->app->cli->output != NULL) {
        LRD_ALLOC(*path_out, lrd_strdup(e->app->cli->output));
        goto out;
    }
    LRD_TRY(lrd_folder_make(folder));
    LRD_ALLOC(*path_out, lrd_path_join(folder, "predictions.json"));
out:
    return status;
}

static lrd_status_t put_result(const eval_t *e)
{
    lrd_status_t status = LRD_OK;
    const lrd_squad_answers_t answers = {.text = e->replies.text,
                                         .n_questions = e->replies.n,
                                         .na_prob_thresh = LRD_SQUAD_NA_PROB_THRESH};
    lrd_squad_metrics_t metrics;
    char *path = NULL;
    LRD_TRY(find_output(e, &path));
    LRD_TRY(write_predictions(e, path));
    LRD_TRY(lrd_squad_score(e->prompts.data, &answers, &metrics));
    LRD_TRY(write_record(e, &answers, &metrics, path));
    LRD_TRY(put_metrics(&metrics));
out:
    lrd_free(path);
    return status;
}

static lrd_status_t answer(eval_t *e)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = e->app->comm;
    int n_threads;
    LRD_TRY(lrd_agree(comm, lrd_ask_sampling(e->app->cli, &e->sampling)));
    LRD_TRY(lrd_read_settings(e->app, &e->settings));
    lrd_comm_share_stop(comm, e->app->stop);
    LRD_TRY(lrd_agree(comm, lrd_comm_limit_silence(comm, e->settings->parallel.timeout_seconds)));
    LRD_TRY(lrd_cpus_threads(comm, e->app->cli->threads, &n_threads));
    LRD_TRY(find_folders(e));
    LRD_TRY(lrd_agree(comm, open_input(e, n_threads)));
    LRD_TRY(lrd_agree(comm, open_adapter(e)));
    LRD_TRY(open_memory(e));
    e->app->work_began = true;
    /* The ranks of a row have the same answers: each of them gathers those of its column. */
    status = lrd_squad_answer_all(e->inference.grid.column, &e->prompts, e->inference.generator,
                                  &e->sampling, e->use, e->app->stop, &e->replies);
    LRD_TRY(lrd_agree(comm, status));
    LRD_TRY(lrd_agree(comm, lrd_comm_rank(comm) == 0 ? put_result(e) : LRD_OK));
out:
    return status;
}

lrd_status_t lrd_command_eval(lrd_app_t *app)
{
    eval_t e = {.app = app};
    if (app->cli->predictions != NULL)
        return lrd_comm_rank(app->comm) == 0 ? score_file(app) : LRD_OK;
    const lrd_status_t status = answer(&e);
    lrd_squad_replies_release(&e.replies);
    lrd_squad_prompts_close(&e.prompts);
    lrd_inference_close(&e.inference);
    lrd_ask_adapter_release(&e.adapter);
    lrd_names_free(&e.data);
    lrd_free(e.model);
    lrd_settings_free(e.settings);
    return status;
}
