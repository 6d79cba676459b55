#include "train/run_log.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "comm/devcomm.h"
#include "model/software.h"
#include "train/planner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char file_name[] = "run.jsonl";

/* A rank at the start, and at the end. */
typedef struct rank_start {
    lrd_planner_row_t row;
    char machine[160], device[LRD_DEVICE_ID];
    int32_t n_threads, stage;
} rank_start_t;
typedef struct rank_end {
    double updating, waited;
    int64_t peak;
} rank_end_t;

static lrd_json_writer_t writer(lrd_buf_t *line)
{
    return (lrd_json_writer_t){.buf = line};
}

static void put_text(lrd_json_writer_t *w, const char *key, const char *text)
{
    lrd_json_key(w, key);
    lrd_json_text(w, text);
}

static void put_int(lrd_json_writer_t *w, const char *key, int64_t value)
{
    lrd_json_key(w, key);
    lrd_json_int(w, value);
}

static void put_real(lrd_json_writer_t *w, const char *key, double value)
{
    lrd_json_key(w, key);
    lrd_json_real(w, value);
}

static void open_line(lrd_json_writer_t *w, const char *event)
{
    lrd_json_open(w, '{');
    put_text(w, "event", event);
}

static lrd_status_t close_line(lrd_json_writer_t *w)
{
    lrd_status_t status = LRD_OK;
    lrd_json_close(w, '}');
    LRD_TRY(lrd_json_writer_status(w));
    LRD_TRY(lrd_buf_add_text(w->buf, "\n"));
out:
    return status;
}

static void give_up(lrd_run_log_t *log, const lrd_session_t *s, int error)
{
    lrd_warn("cannot write %s/%s: %s; a report of this run will lack what would stand there",
             s->o.settings->training.output_dir, file_name, strerror(error));
    if (log->fd >= 0)
        close(log->fd);
    log->fd = -1;
    log->off = true;
}

static void put(lrd_run_log_t *log, const lrd_session_t *s, const char *text, size_t bytes)
{
    for (size_t done = 0; !log->off && done < bytes;) {
        const ssize_t n = write(log->fd, text + done, bytes - done);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            give_up(log, s, n == 0 ? ENOSPC : errno);
    }
}

/* A process that was killed may have left half a line. */
static bool ends_in_a_line(int fd)
{
    char last = '\n';
    const off_t size = lseek(fd, 0, SEEK_END);
    return size <= 0 || pread(fd, &last, 1, size - 1) != 1 || last == '\n';
}

/* The file, with the line of the start, once there is an update to tell of. */
static lrd_status_t open_file(lrd_run_log_t *log, const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    LRD_ALLOC(path, lrd_path_join(s->o.settings->training.output_dir, file_name));
    log->fd =
        open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | (s->resumes ? 0 : O_TRUNC), 0666);
    if (log->fd < 0) {
        give_up(log, s, errno);
        goto out;
    }
    if (!ends_in_a_line(log->fd))
        put(log, s, "\n", 1);
    put(log, s, log->head.data, log->head.size);
out:
    lrd_free(path);
    return status;
}

/* Writes a line, and before it what was warned of meanwhile. */
static lrd_status_t add(lrd_run_log_t *log, const lrd_session_t *s, const lrd_buf_t *line)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    char warning[LRD_LOG_WARNING_BYTES];
    while (!log->off && lrd_log_warning(log->n_warnings, warning)) {
        lrd_json_writer_t w = writer(&text);
        open_line(&w, "warning");
        put_int(&w, "step", s->history.global_step);
        put_text(&w, "text", warning);
        LRD_TRY(close_line(&w));
        log->n_warnings++;
    }
    LRD_TRY(lrd_buf_add(&text, line->data, line->size));
    if (!log->off && log->fd < 0)
        LRD_TRY(open_file(log, s));
    put(log, s, text.data, text.size);
out:
    lrd_buf_release(&text);
    return status;
}

static void put_time(lrd_json_writer_t *w)
{
    char text[32];
    const time_t now = (time_t)lrd_clock_unix_seconds();
    struct tm tm;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    put_text(w, "time", text);
}

/* What the run stands on. */
static lrd_status_t put_subject(const lrd_session_t *s, lrd_json_writer_t *w)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_config_t *c = &s->engine.config;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    lrd_json_key(w, "model");
    lrd_json_open(w, '{');
    put_int(w, "parameters", lrd_model_count_parameters(c, s->engine.weights->tied));
    put_int(w, "layers", c->n_layers);
    put_int(w, "hidden", c->hidden);
    put_int(w, "heads", c->n_heads);
    put_int(w, "vocabulary", c->vocab_size);
    put_text(w, "dtype", lrd_dtype_setting_name(s->engine.weights->dtype));
    lrd_json_close(w, '}');
    put_int(w, "trainable", s->adapter->n_params);
    lrd_json_key(w, "data");
    lrd_json_open(w, '{');
    put_int(w, "records", d->n_records);
    put_int(w, "tokens", d->n_tokens);
    put_int(w, "shortest", d->shortest_tokens);
    put_int(w, "longest", d->longest_tokens);
    put_int(w, "dropped", d->n_dropped);
    put_int(w, "truncated", d->n_truncated);
    lrd_json_close(w, '}');
    put_int(w, "updates", s->n_updates);
    put_int(w, "records_per_update", s->records_per_update);
    lrd_json_key(w, "settings");
    LRD_TRY(lrd_settings_write_json(s->o.settings, w));
out:
    return status;
}

static void put_arena(lrd_json_writer_t *w, const lrd_arena_t *a)
{
    for (int i = 0; i < a->n_categories; i++)
        put_int(w, a->category[i].name, (int64_t)a->category[i].bytes);
}

/* Rank 0's by category, its device's and its host's. */
static void put_memory(const lrd_memory_t *m, lrd_json_writer_t *w)
{
    lrd_json_key(w, "memory");
    lrd_json_open(w, '{');
    put_arena(w, &m->model);
    put_arena(w, &m->step);
    put_int(w, "scratch", (int64_t)m->scratch.bytes);
    put_int(w, "NCCL, at most", (int64_t)m->nccl.bound);
    put_int(w, "graphs, at most", (int64_t)m->graphs.bound);
    put_int(w, "pinned host memory", (int64_t)m->pinned_bytes);
    put_int(w, "weights mapped from their files", (int64_t)m->mapped_bytes);
    put_int(w, "weights in host memory", (int64_t)m->host_bytes);
    lrd_json_close(w, '}');
}

/* [[first block, one behind the last], ...] of each stage. */
static void put_stages(const lrd_placement_t *p, lrd_json_writer_t *w)
{
    lrd_json_key(w, "stages");
    lrd_json_open(w, '[');
    for (int stage = 0; stage < p->n_stages; stage++) {
        lrd_json_open(w, '[');
        for (int k = stage; k < p->n_runs; k += p->n_stages) {
            lrd_json_open(w, '[');
            lrd_json_int(w, p->begin[k]);
            lrd_json_int(w, p->begin[k + 1]);
            lrd_json_close(w, ']');
        }
        lrd_json_close(w, ']');
    }
    lrd_json_close(w, ']');
}

static void put_ranks(const rank_start_t *rank, int n, lrd_json_writer_t *w)
{
    lrd_json_key(w, "ranks");
    lrd_json_open(w, '[');
    for (int r = 0; r < n; r++) {
        lrd_json_open(w, '{');
        put_text(w, "host", rank[r].row.host);
        put_text(w, "machine", rank[r].machine);
        put_text(w, "device", rank[r].device[0] != '\0' ? rank[r].device : NULL);
        put_int(w, "threads", rank[r].n_threads);
        put_int(w, "stage", rank[r].stage);
        put_int(w, "weights", rank[r].row.weights);
        put_int(w, "activations", rank[r].row.activations);
        put_int(w, "rest", rank[r].row.rest);
        put_int(w, "room", rank[r].row.room);
        lrd_json_close(w, '}');
    }
    lrd_json_close(w, ']');
}

static void put_fact(void *writer, const char *name, const char *value)
{
    put_text(writer, name, value);
}

/* Rank 0's; what decides bits is the others' too (lrd_ranks_alike). */
static lrd_status_t put_software(const lrd_engine_t *e, lrd_json_writer_t *w)
{
    lrd_status_t status = LRD_OK;
    char library[96];
    lrd_json_key(w, "software");
    lrd_json_open(w, '{');
    lrd_software_list(put_fact, w);
    lrd_software_list_backend(e->backend, put_fact, w);
    if (e->direct) {
        LRD_TRY(lrd_devcomm_library(library));
        put_text(w, "GPU to GPU", library);
    }
    lrd_json_close(w, '}');
out:
    return status;
}

static lrd_status_t print_start(const lrd_session_t *s, const rank_start_t *rank, lrd_buf_t *line)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = writer(line);
    open_line(&w, "start");
    put_time(&w);
    put_text(&w, "version", LRD_VERSION);
    LRD_TRY(put_software(&s->engine, &w));
    put_int(&w, "step", s->resumes ? s->checkpoint.step : 0);
    LRD_TRY(put_subject(s, &w));
    put_int(&w, "replicas", s->grid.n_replicas);
    put_stages(&s->placement, &w);
    put_ranks(rank, lrd_comm_size(s->o.comm), &w);
    put_memory(&s->engine.memory, &w);
    LRD_TRY(close_line(&w));
out:
    return status;
}

/* all[r] = what rank r has; *all_out: lrd_free it. Collective. */
static lrd_status_t gather(lrd_comm_t *comm, const void *mine, size_t bytes, void **all_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(comm);
    size_t *offset = NULL;
    char *all = NULL;
    LRD_NEW(offset, size + 1);
    LRD_ALLOC(all, lrd_calloc((size_t)size, bytes));
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * bytes;
out:
    status = lrd_agree(comm, status);
    if (status == LRD_OK)
        status = lrd_comm_all_gather(comm, mine, all, offset);
    if (status == LRD_OK) {
        *all_out = all;
        all = NULL;
    }
    lrd_free(all);
    lrd_free(offset);
    return status;
}

lrd_status_t lrd_run_log_begin(lrd_run_log_t *log, const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = s->o.comm;
    rank_start_t mine = {.row = lrd_planner_row(&s->engine.memory, s->rooms[lrd_comm_rank(comm)]),
                         .n_threads = s->o.n_threads,
                         .stage = s->grid.stage};
    void *all = NULL;
    *log = (lrd_run_log_t){.fd = -1, .off = lrd_comm_rank(comm) != 0, .begun = lrd_clock_seconds()};
    snprintf(mine.row.host, sizeof mine.row.host, "%.31s", lrd_comm_host(comm));
    snprintf(mine.machine, sizeof mine.machine, "%s", s->engine.machine);
    lrd_backend_device_id(s->engine.backend, mine.device);
    LRD_TRY(gather(comm, &mine, sizeof mine, &all));
    if (!log->off)
        status = print_start(s, all, &log->head);
    status = lrd_agree(comm, status);
out:
    lrd_free(all);
    return status;
}

void lrd_run_log_close(lrd_run_log_t *log)
{
    if (!log->off && log->fd >= 0)
        close(log->fd);
    lrd_buf_release(&log->head);
    *log = (lrd_run_log_t){.fd = -1, .off = true};
}

lrd_status_t lrd_run_log_update(lrd_run_log_t *log, const lrd_session_t *s,
                                const lrd_run_log_update_t *u)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    if (log->off)
        goto out;
    open_line(&w, "update");
    put_int(&w, "step", s->history.global_step);
    put_real(&w, "epoch", s->history.epoch);
    put_real(&w, "loss", u->loss);
    put_real(&w, "grad_norm", u->grad_norm);
    put_real(&w, "learning_rate", u->learning_rate);
    if (u->loss_scale > 0)
        put_real(&w, "loss_scale", u->loss_scale);
    put_int(&w, "updates", u->updates);
    put_int(&w, "tokens", u->tokens);
    put_real(&w, "seconds", u->seconds);
    put_real(&w, "waited", u->waited);
    if (u->skipped > 0)
        put_int(&w, "skipped", u->skipped);
    LRD_TRY(close_line(&w));
    LRD_TRY(add(log, s, &line));
out:
    lrd_buf_release(&line);
    return status;
}

lrd_status_t lrd_run_log_eval(lrd_run_log_t *log, const lrd_session_t *s,
                              const lrd_eval_result_t *r, double seconds)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    if (log->off)
        goto out;
    open_line(&w, "evaluation");
    put_int(&w, "step", s->history.global_step);
    put_real(&w, "eval_loss", r->loss);
    if (r->has_answers) {
        put_real(&w, "eval_exact", r->exact);
        put_real(&w, "eval_f1", r->f1);
    }
    put_real(&w, "seconds", seconds);
    LRD_TRY(close_line(&w));
    LRD_TRY(add(log, s, &line));
out:
    lrd_buf_release(&line);
    return status;
}

lrd_status_t lrd_run_log_checkpoint(lrd_run_log_t *log, const lrd_session_t *s, double seconds)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    if (log->off)
        goto out;
    open_line(&w, "checkpoint");
    put_int(&w, "step", s->history.global_step);
    put_real(&w, "seconds", seconds);
    LRD_TRY(close_line(&w));
    LRD_TRY(add(log, s, &line));
out:
    lrd_buf_release(&line);
    return status;
}

lrd_status_t lrd_run_log_shares(lrd_run_log_t *log, const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    const lrd_shares_t *x = &s->shares;
    if (log->off)
        goto out;
    open_line(&w, "shares");
    put_int(&w, "step", s->history.global_step);
    lrd_json_key(&w, "micro_batches");
    lrd_json_open(&w, '[');
    for (int r = 0; r < x->n_replicas; r++)
        lrd_json_int(&w, x->best[r + 1] - x->best[r]);
    lrd_json_close(&w, ']');
    lrd_json_key(&w, "token_seconds");
    lrd_json_open(&w, '[');
    for (int r = 0; r < x->n_replicas; r++)
        lrd_json_real(&w, x->last[r]);
    lrd_json_close(&w, ']');
    LRD_TRY(close_line(&w));
    LRD_TRY(add(log, s, &line));
out:
    lrd_buf_release(&line);
    return status;
}

/* Begins the last line. */
static void open_end(const lrd_run_log_t *log, const lrd_session_t *s, const char *state,
                     lrd_json_writer_t *w)
{
    open_line(w, "end");
    put_time(w);
    put_text(w, "state", state);
    put_int(w, "step", s->history.global_step);
    put_real(w, "seconds", lrd_clock_seconds() - log->begun);
}

/* Nothing is written of a run that made no update: the folder holds what it held. */
static bool has_begun(const lrd_run_log_t *log)
{
    return !log->off && log->fd >= 0;
}

static lrd_status_t print_end(lrd_run_log_t *log, const lrd_session_t *s, const char *state,
                              const lrd_run_log_update_t *rest, const rank_end_t *rank)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    open_end(log, s, state, &w);
    put_int(&w, "tokens", rest->tokens);
    put_int(&w, "skipped", rest->skipped);
    lrd_json_key(&w, "ranks");
    lrd_json_open(&w, '[');
    for (int r = 0; r < lrd_comm_size(s->o.comm); r++) {
        lrd_json_open(&w, '{');
        put_real(&w, "updating", rank[r].updating);
        put_real(&w, "waited", rank[r].waited);
        put_int(&w, "peak", rank[r].peak);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    LRD_TRY(close_line(&w));
    LRD_TRY(add(log, s, &line));
out:
    lrd_buf_release(&line);
    return status;
}

lrd_status_t lrd_run_log_end(lrd_run_log_t *log, const lrd_session_t *s, const char *state,
                             const lrd_run_log_update_t *rest, double updating, double waited)
{
    lrd_status_t status = LRD_OK;
    const rank_end_t mine = {updating, waited, (int64_t)lrd_mem_peak_bytes()};
    void *all = NULL;
    LRD_TRY(gather(s->o.comm, &mine, sizeof mine, &all));
    if (has_begun(log))
        status = print_end(log, s, state, rest, all);
    status = lrd_agree(s->o.comm, status);
out:
    lrd_free(all);
    return status;
}

void lrd_run_log_fail(lrd_run_log_t *log, const lrd_session_t *s, const char *why)
{
    lrd_buf_t line = {0};
    lrd_json_writer_t w = writer(&line);
    if (!has_begun(log) || lrd_claim_is_lost(s->claim))
        return;
    open_end(log, s, "failed", &w);
    put_text(&w, "why", why);
    if (close_line(&w) == LRD_OK)
        put(log, s, line.data, line.size);
    lrd_buf_release(&line);
}
