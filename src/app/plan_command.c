/* Where every layer would go, what each rank would hold and how long an update would take: the run's own
 * planner and layout on ranks that need not be there. */
#include "app/answering.h"
#include "app/folders.h"

#include "base/log.h"
#include "base/mem.h"
#include "comm/cpus.h"
#include "train/forecast.h"
#include "train/planner.h"
#include "train/travel.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RANKS = 65536 };

/* --memory, as parallel.max_memory reads sizes: bytes of each rank. */
static lrd_status_t read_memory(const char *text, int64_t **bytes_out, int *n_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *s = NULL;
    int64_t *bytes = NULL;
    char *assignment = NULL;
    if (text == NULL)
        goto out;
    LRD_TRY(lrd_settings_create(&s));
    LRD_ALLOC(assignment, lrd_asprintf("parallel.max_memory=[%s]", text));
    LRD_CHECK(lrd_settings_set(s, assignment) == LRD_OK, LRD_ERR_ARG,
              "--memory %.80s: expected sizes such as 24GiB or 24GiB,16GiB, one for each rank; the "
              "last one is that of all others",
              text);
    LRD_NEW(bytes, s->parallel.max_memory.n);
    for (size_t i = 0; i < s->parallel.max_memory.n; i++)
        bytes[i] = s->parallel.max_memory.entry[i].bytes;
    *n_out = (int)s->parallel.max_memory.n;
    *bytes_out = bytes;
out:
    lrd_free(assignment);
    lrd_settings_free(s);
    return status;
}

/* Ranks as asked for, else as many as the settings name, else one. */
static int count_ranks(const lrd_cli_t *cli, const lrd_settings_t *s)
{
    const int64_t data = s->parallel.data == LRD_SETTING_AUTO ? 1 : s->parallel.data;
    const int64_t stages = s->parallel.pipeline == LRD_SETTING_AUTO ? 1 : s->parallel.pipeline;
    return cli->ranks > 0 ? cli->ranks
                          : (int)(data * stages < MAX_RANKS ? data * stages : MAX_RANKS);
}

/* The one that has the least left. */
typedef struct fullest {
    int rank;
    int64_t left;
    lrd_memory_t memory;
} fullest_t;

/* The memory of each rank. */
static lrd_status_t measure(const lrd_session_t *s, int n_ranks, lrd_planner_row_t *row,
                            fullest_t *fullest_out)
{
    lrd_status_t status = LRD_OK;
    for (int rank = 0; rank < n_ranks; rank++) {
        lrd_memory_t m;
        LRD_TRY(lrd_session_measure(s, &s->placement, n_ranks, rank, &m));
        row[rank] = lrd_planner_row(&m, s->rooms[rank]);
        snprintf(row[rank].host, sizeof row[rank].host, "replica %d", rank / s->placement.n_stages);
        const int64_t left =
            row[rank].room - row[rank].weights - row[rank].activations - row[rank].rest;
        if (rank == 0 || left < fullest_out->left)
            *fullest_out = (fullest_t){rank, left, m};
    }
out:
    return status;
}

static lrd_status_t print(const lrd_session_t *s, int n_ranks, const lrd_planner_row_t *row,
                          const fullest_t *fullest, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const lrd_placement_t *p = &s->placement;
    const int poorest = lrd_ranks_least(s->rooms, n_ranks);
    const double left = (double)fullest->left, room = (double)row[fullest->rank].room;
    LRD_TRY(lrd_buf_printf(text, "device_map = "));
    LRD_TRY(lrd_placement_print_map(p, text));
    LRD_TRY(lrd_buf_printf(text, "\n\n%d replica%s of %d stage%s", n_ranks / p->n_stages,
                           n_ranks == p->n_stages ? "" : "s", p->n_stages,
                           p->n_stages == 1 ? "" : "s"));
    if (p->n_stages > 1)
        LRD_TRY(lrd_buf_printf(text, ", %d run%s of layers on each", p->n_runs / p->n_stages,
                               p->n_runs == p->n_stages ? "" : "s"));
    LRD_TRY(lrd_buf_printf(text, ", computed again: %s. Memory of each rank, in MiB:\n",
                           lrd_planner_recompute_name(s->recompute)));
    LRD_TRY(lrd_planner_print_table(p, row, n_ranks, text));
    LRD_TRY(lrd_planner_print_offload(p, lrd_weights_block_bytes(s->engine.weights), text));
    LRD_TRY(lrd_buf_printf(text, "\nRank %d has the least left, %.1f of %.1f GiB (%.0f %%):\n",
                           fullest->rank, left / 0x1p30, room / 0x1p30, 100 * left / room));
    LRD_TRY(lrd_memory_print(&fullest->memory, text));
    LRD_TRY(lrd_buf_printf(text, "The rank with the least memory has %.1f MiB: %s\n",
                           (double)s->rooms[poorest] / 0x1p20, s->room_why[poorest].text));
out:
    return status;
}

/* Three digits, and all of those before the point. */
static void format_seconds(double seconds, char text[24])
{
    snprintf(text, 24, seconds < 1000 ? "%.3g s" : "%.0f s", seconds);
}

static lrd_status_t print_time(const lrd_session_t *s, int n_ranks, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const int n_stages = s->placement.n_stages;
    lrd_pass_times_t *times = NULL;
    lrd_forecast_t f;
    char busy[48] = "", update[24], forward[24], backward[24], head[24];
    LRD_NEW(times, n_stages);
    LRD_TRY(lrd_calibrate(s, &times[0]));
    for (int stage = 1; stage < n_stages; stage++)
        times[stage] = times[0];
    LRD_TRY(lrd_forecast(s, &s->placement, n_ranks, times, &f));
    if (n_stages > 1)
        snprintf(busy, sizeof busy, ", stages busy %.0f %%", 100 * f.utilisation);
    format_seconds(f.seconds, update);
    format_seconds(times->forward, forward);
    format_seconds(times->backward, backward);
    format_seconds(times->head, head);
    LRD_TRY(lrd_buf_printf(text,
                           "\nAn update on ranks like this one (%s): %s%s; for each micro-batch a "
                           "block takes %s forward and %s back, the head %s\n",
                           s->engine.machine, update, busy, forward, backward, head));
out:
    lrd_free(times);
    return status;
}

/* Where weights travel. */
static lrd_status_t print_travel(const lrd_session_t *s, int n_ranks, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    double seconds;
    LRD_TRY(lrd_travel_seconds(s, n_ranks, &seconds));
    if (seconds > 0)
        LRD_TRY(lrd_buf_printf(text,
                               "Beside it weights travel for %.3g s: the update takes as long as "
                               "the longer of the two\n",
                               seconds));
out:
    return status;
}

lrd_status_t lrd_command_plan(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    lrd_session_t s = {.plans = true};
    lrd_session_options_t o = {.backend = app->cli->backend};
    lrd_app_answering_t state = {.generator = NULL};
    const lrd_answering_t answering = lrd_app_answering(&state);
    lrd_planner_row_t *row = NULL;
    fullest_t fullest = {.left = 0};
    lrd_buf_t text = {0};
    int64_t *memory = NULL;
    char *model = NULL, *adapter = NULL;
    lrd_data_files_t data = {.train = {0}};
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    LRD_TRY(read_memory(app->cli->memory, &memory, &o.n_memory));
    const int n_ranks = count_ranks(app->cli, settings);
    o.memory = memory;
    o.settings = settings;
    LRD_TRY(lrd_find_data_files(NULL, app->stop, settings, &data));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL_OUTLINE, &model));
    LRD_TRY(lrd_find_adapter(app, NULL, settings->lora.adapter_name_or_path, &adapter));
    o.model_folder = model;
    o.adapter_folder = adapter;
    o.train_files = lrd_data_files_or_null(&data.train);
    o.eval_files = lrd_data_files_or_null(&data.eval);
    if (lrd_app_answers(settings))
        o.answering = &answering;
    LRD_TRY(lrd_comm_imagine(0, n_ranks, &o.comm));
    LRD_TRY(lrd_cpus_threads(o.comm, app->cli->threads, &o.n_threads));
    LRD_TRY(lrd_session_plan(&o, &s));
    LRD_NEW(row, n_ranks);
    LRD_TRY(measure(&s, n_ranks, row, &fullest));
    LRD_TRY(print(&s, n_ranks, row, &fullest, &text));
    app->work_began = true;
    LRD_TRY(print_time(&s, n_ranks, &text));
    LRD_TRY(print_travel(&s, n_ranks, &text));
    LRD_TRY(lrd_put_result(text.data, text.size));
out:
    lrd_session_close(&s);
    lrd_comm_close(o.comm);
    lrd_free(row);
    lrd_free(memory);
    lrd_data_files_release(&data);
    lrd_free(adapter);
    lrd_free(model);
    lrd_buf_release(&text);
    lrd_settings_free(settings);
    return status;
}
