/* The lines of run.jsonl and of trainer_state.json's log_history as curves. */
#include "report/facts.h"

#include "base/json.h"
#include "base/mem.h"
#include "report/pyjson.h"

#include <math.h>
#include <string.h>

const char *const lrd_curve_key[LRD_N_CURVES] = {
#define X(name, key) key,
    LRD_CURVE_LIST(X)
#undef X
};

static void cut(lrd_series_t *curve, double step)
{
    for (int c = 0; c < LRD_N_CURVES; c++)
        lrd_series_cut(&curve[c], step);
}

static double last_of(const lrd_series_t *s)
{
    return s->n > 0 ? s->y[s->n - 1] : 0;
}

/* Of what is said again the last word counts. */
static lrd_status_t put(lrd_series_t *s, double step, double value)
{
    while (s->n > 0 && s->x[s->n - 1] >= step)
        s->n--;
    return lrd_series_add(s, step, value);
}

static bool read_step(const json_t *line, double *step_out)
{
    return lrd_pyjson_real(line, "step", step_out) && fabs(*step_out) <= 9e15;
}

/* The numbers of a line that stand in it as they are. */
static lrd_status_t add_entry(lrd_series_t *curve, const json_t *line)
{
    lrd_status_t status = LRD_OK;
    double step, value;
    if (!read_step(line, &step))
        goto out;
    for (int c = 0; c < LRD_N_CURVES; c++) {
        if (lrd_curve_key[c] != NULL && lrd_pyjson_real(line, lrd_curve_key[c], &value))
            LRD_TRY(put(&curve[c], step, value));
    }
out:
    return status;
}

/* What a line of updates took. */
static lrd_status_t add_pace(lrd_facts_t *f, const json_t *line)
{
    lrd_status_t status = LRD_OK;
    double step, seconds, tokens = 0, updates = 1, skipped = 0;
    if (!read_step(line, &step) || !lrd_pyjson_real(line, "seconds", &seconds) ||
        !(seconds > 0 && seconds < 1e15))
        goto out;
    lrd_pyjson_real(line, "tokens", &tokens);
    lrd_pyjson_real(line, "updates", &updates);
    lrd_pyjson_real(line, "skipped", &skipped);
    f->tokens += tokens;
    f->skipped += skipped;
    f->pending += seconds;
    const double total = last_of(&f->curve[LRD_CURVE_TIME]) + seconds;
    LRD_TRY(put(&f->curve[LRD_CURVE_TIME], step, total));
    LRD_TRY(put(&f->curve[LRD_CURVE_TOKEN_RATE], step, tokens / seconds));
    if (updates >= 1)
        LRD_TRY(put(&f->curve[LRD_CURVE_UPDATE_TIME], step, seconds / updates));
out:
    return status;
}

static void keep(json_t **place, json_t *line)
{
    json_decref(*place);
    *place = json_incref(line);
}

static lrd_status_t append(json_t *list, json_t *line)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(json_array_append(list, line) == 0, LRD_ERR_NO_MEMORY, "out of memory for a report");
out:
    return status;
}

/* The time of a process that has come to its end. */
static void settle(lrd_facts_t *f)
{
    f->seconds += f->pending;
    f->rank_seconds += f->pending * (double)json_array_size(json_object_get(f->start, "ranks"));
    f->pending = 0;
}

/* Another process: what came behind the update from which it goes on was made again. */
static lrd_status_t add_start(lrd_facts_t *f, json_t *line)
{
    lrd_status_t status = LRD_OK;
    double step = 0;
    lrd_pyjson_real(line, "step", &step);
    cut(f->curve, step);
    settle(f);
    keep(&f->start, line);
    keep(&f->end, NULL);
    if (step > 0)
        LRD_TRY(append(f->resumes, line));
out:
    return status;
}

static lrd_status_t add_end(lrd_facts_t *f, json_t *line)
{
    double seconds, tokens = 0, skipped = 0;
    if (lrd_pyjson_real(line, "seconds", &seconds) && seconds >= 0)
        f->pending = seconds;
    lrd_pyjson_real(line, "tokens", &tokens);
    lrd_pyjson_real(line, "skipped", &skipped);
    f->tokens += tokens;
    f->skipped += skipped;
    keep(&f->end, line);
    return LRD_OK;
}

static lrd_status_t add_line(lrd_facts_t *f, json_t *line)
{
    lrd_status_t status = LRD_OK;
    const char *event = lrd_pyjson_text(line, "event");
    double seconds;
    if (event == NULL)
        goto out;
    if (strcmp(event, "start") == 0) {
        LRD_TRY(add_start(f, line));
    } else if (strcmp(event, "end") == 0) {
        LRD_TRY(add_end(f, line));
    } else if (strcmp(event, "warning") == 0) {
        LRD_TRY(append(f->warnings, line));
    } else if (strcmp(event, "update") == 0) {
        LRD_TRY(add_entry(f->curve, line));
        LRD_TRY(add_pace(f, line));
    } else if (strcmp(event, "evaluation") == 0 || strcmp(event, "checkpoint") == 0) {
        LRD_TRY(add_entry(f->curve, line));
        if (lrd_pyjson_real(line, "seconds", &seconds) && seconds >= 0)
            f->pending += seconds;
    }
out:
    return status;
}

lrd_status_t lrd_facts_add_log(lrd_facts_t *f, const char *text, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    size_t damaged = 0, number = 0;
    bool last_is_damaged = false;
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        const size_t n = end != NULL ? (size_t)(end - (text + at)) : bytes - at;
        json_t *line = NULL;
        number++;
        if (n > 0)
            status = lrd_pyjson_parse(text + at, n, "run.jsonl", &line);
        at += n + 1;
        last_is_damaged = status == LRD_ERR_FORMAT;
        if (status == LRD_ERR_FORMAT) {
            lrd_error_clear();
            damaged++;
            status = LRD_OK;
        } else if (status == LRD_OK && line != NULL) {
            status = add_line(f, line);
        }
        json_decref(line);
        LRD_TRY(status);
    }
    settle(f);
    if (damaged > 0)
        LRD_TRY(lrd_facts_remark(
            f, "run.jsonl: %zu of %zu lines cannot be read%s", damaged, number,
            last_is_damaged && damaged == 1
                ? ": the last one, which is being written or whose writer was killed"
                : ""));
out:
    return status;
}

/* Do both tell the same losses of the updates that both know? */
static bool agrees(const lrd_series_t *a, const lrd_series_t *b)
{
    for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
        if (a->x[i] < b->x[j])
            i++;
        else if (a->x[i] > b->x[j])
            j++;
        else if (a->y[i] != b->y[j] && (isfinite(a->y[i]) || isfinite(b->y[j])))
            return false;
        else {
            i++;
            j++;
        }
    }
    return true;
}

/* What the log knows beyond the history is appended to it. */
static lrd_status_t merge(lrd_facts_t *f, lrd_series_t *from_state)
{
    lrd_status_t status = LRD_OK;
    for (int c = 0; c < LRD_N_CURVES; c++) {
        lrd_series_t *log = &f->curve[c], *all = &from_state[c];
        const double known = all->n > 0 ? all->x[all->n - 1] : -INFINITY;
        if (all->n == 0)
            continue;
        for (size_t i = 0; i < log->n; i++) {
            if (log->x[i] > known)
                LRD_TRY(lrd_series_add(all, log->x[i], log->y[i]));
        }
        const lrd_series_t merged = *all;
        *all = *log;
        *log = merged;
    }
out:
    return status;
}

static lrd_status_t read_history(const json_t *state, lrd_series_t *curve)
{
    lrd_status_t status = LRD_OK;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(state, "log_history"), i, entry)
        LRD_TRY(add_entry(curve, entry));
out:
    return status;
}

static void release(lrd_series_t *curve)
{
    for (int c = 0; c < LRD_N_CURVES; c++)
        lrd_series_release(&curve[c]);
}

lrd_status_t lrd_facts_compare_state(const lrd_facts_t *f, const json_t *state, bool *is_other_out)
{
    lrd_status_t status = LRD_OK;
    lrd_series_t curve[LRD_N_CURVES] = {{0}};
    LRD_TRY(read_history(state, curve));
    *is_other_out = !agrees(&curve[LRD_CURVE_LOSS], &f->curve[LRD_CURVE_LOSS]);
out:
    release(curve);
    return status;
}

lrd_status_t lrd_facts_add_state(lrd_facts_t *f, json_t *state, const char *name, bool *taken_out)
{
    lrd_status_t status = LRD_OK;
    lrd_series_t curve[LRD_N_CURVES] = {{0}};
    *taken_out = false;
    if (!json_is_array(json_object_get(state, "log_history"))) {
        LRD_TRY(lrd_facts_remark(f, "%s has no log_history", name));
        goto out;
    }
    LRD_TRY(read_history(state, curve));
    LRD_TRY(merge(f, curve));
    keep(&f->state, state);
    *taken_out = true;
out:
    release(curve);
    return status;
}
