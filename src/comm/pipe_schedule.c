#include "comm/pipe_schedule.h"

#include "base/mem.h"
#include "base/share.h"

/* Groups of p to 2 p - 1 micro-batches, of m alone when there are fewer: a group smaller than p
 * would make the first stage wait for the last one in the middle of the list. */
static int64_t count_groups(const lrd_pipe_shape_t *s)
{
    const int64_t n = s->n_micro_batches / s->n_stages;
    return n > 0 ? n : 1;
}

static int64_t min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t largest_group(const lrd_pipe_shape_t *s)
{
    const int64_t groups = count_groups(s);
    return (s->n_micro_batches + groups - 1) / groups;
}

/* Forward passes before the first backward one, beyond the one that it follows. */
static int64_t count_ahead(const lrd_pipe_shape_t *s, int stage)
{
    const int64_t all = s->n_micro_batches * s->n_chunks, behind = s->n_stages - 1 - stage;
    return min(all, s->n_chunks == 1 ? behind : 2 * behind + (s->n_chunks - 1) * largest_group(s));
}

/* Number k of the passes in one direction: group by group, in each chunk by chunk. */
static lrd_pipe_action_t pass(const lrd_pipe_shape_t *s, int64_t k, bool backward)
{
    const int64_t m = s->n_micro_batches, groups = count_groups(s);
    const int64_t group = ((k / s->n_chunks + 1) * groups - 1) / m; /* lrd_share_begin, inverted */
    const int64_t begin = lrd_share_begin(m, group, groups),
                  size = lrd_share_begin(m, group + 1, groups) - begin;
    const int64_t place = k - begin * s->n_chunks;
    const int chunk = (int)(place / size);
    return (lrd_pipe_action_t){backward, backward ? s->n_chunks - 1 - chunk : chunk,
                               begin + place % size};
}

void lrd_pipe_begin(lrd_pipe_cursor_t *c, lrd_pipe_shape_t shape, int stage)
{
    *c = (lrd_pipe_cursor_t){.shape = shape, .stage = stage};
}

bool lrd_pipe_next(lrd_pipe_cursor_t *c, lrd_pipe_action_t *action_out)
{
    const lrd_pipe_shape_t *s = &c->shape;
    const int64_t all = s->n_micro_batches * s->n_chunks, ahead = count_ahead(s, c->stage);
    while (c->n_backward < all) {
        if (c->n_forward < all && c->n_forward <= ahead + c->n_backward) {
            *action_out = pass(s, c->n_forward++, false);
            return true;
        }
        *action_out = pass(s, c->n_backward++, true);
        if (action_out->chunk * s->n_stages + c->stage >= s->lowest)
            return true;
    }
    return false;
}

static int64_t most_kept(lrd_pipe_shape_t shape, int stage, int chunk)
{
    lrd_pipe_cursor_t cursor;
    lrd_pipe_action_t a;
    int64_t kept = 0, most = 0;
    lrd_pipe_begin(&cursor, shape, stage);
    while (lrd_pipe_next(&cursor, &a)) {
        if (a.chunk == chunk)
            kept += a.backward ? -1 : 1;
        most = kept > most ? kept : most;
    }
    return most;
}

int64_t lrd_pipe_in_flight(lrd_pipe_shape_t shape, int stage, int chunk)
{
    const int64_t n = min(shape.n_micro_batches, 4 * shape.n_stages); /* more change nothing */
    int64_t most = 1;
    if (chunk * shape.n_stages + stage < shape.lowest)
        return 1;
    for (shape.n_micro_batches = 1; shape.n_micro_batches <= n; shape.n_micro_batches++) {
        const int64_t kept = most_kept(shape, stage, chunk);
        most = kept > most ? kept : most;
    }
    return most;
}

int64_t lrd_pipe_buffers(lrd_pipe_shape_t shape)
{
    const int64_t n = min(shape.n_micro_batches, 4 * shape.n_stages); /* more change nothing */
    int64_t most = 1;
    for (shape.n_micro_batches = 2 * shape.n_stages;
         shape.n_chunks > 1 && shape.n_micro_batches <= n; shape.n_micro_batches++) {
        const int64_t more = largest_group(&shape) - shape.n_stages + 1;
        most = more > most ? more : most;
    }
    return most;
}

/* The state of a prediction: done[backward][run * m + micro-batch] is when a pass ended. */
typedef struct timing {
    const lrd_pipe_shape_t *shape;
    const lrd_pipe_cost_t *cost;
    double *done[2]; /* negative: not yet */
    double *now;     /* [p] */
    double busy;
} timing_t;

/* When the input of an action is there; negative: not yet. */
static double ready(const timing_t *c, const lrd_pipe_action_t *a, int run)
{
    const int64_t m = c->shape->n_micro_batches;
    const int last = c->shape->n_stages * c->shape->n_chunks - 1;
    const double hop = c->shape->n_stages > 1 ? c->cost->hop : 0;
    if (!a->backward && run == 0)
        return 0;
    if (a->backward && run == last)
        return c->done[0][run * m + a->micro_batch];
    const double before =
        c->done[a->backward][(a->backward ? run + 1 : run - 1) * m + a->micro_batch];
    return before < 0 ? before : before + hop;
}

/* Runs a stage's actions as far as their inputs are there; true: it came to its end. */
static bool advance(timing_t *c, lrd_pipe_cursor_t *cursor)
{
    const int64_t m = c->shape->n_micro_batches;
    double *now = &c->now[cursor->stage];
    lrd_pipe_cursor_t next = *cursor;
    lrd_pipe_action_t a;
    while (lrd_pipe_next(&next, &a)) {
        const int run = a.chunk * c->shape->n_stages + cursor->stage;
        const double begin = ready(c, &a, run);
        if (begin < 0)
            return false;
        const double size = c->cost->size != NULL ? c->cost->size[a.micro_batch] : 1;
        const double seconds = size * (a.backward ? c->cost->backward : c->cost->forward)[run];
        *now = (begin > *now ? begin : *now) + seconds;
        c->done[a.backward][run * m + a.micro_batch] = *now;
        c->busy += seconds;
        *cursor = next;
    }
    return true;
}

lrd_status_t lrd_pipe_predict(lrd_pipe_shape_t shape, const lrd_pipe_cost_t *cost,
                              double *seconds_out, double *utilisation_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = shape.n_micro_batches * shape.n_stages * shape.n_chunks;
    timing_t c = {.shape = &shape, .cost = cost};
    lrd_pipe_cursor_t *cursor = NULL;
    double end = 0;
    LRD_NEW(c.now, shape.n_stages);
    LRD_NEW(c.done[0], 2 * n);
    c.done[1] = c.done[0] + n;
    for (int64_t i = 0; i < 2 * n; i++)
        c.done[0][i] = -1;
    LRD_NEW(cursor, shape.n_stages);
    for (int s = 0; s < shape.n_stages; s++)
        lrd_pipe_begin(&cursor[s], shape, s);
    for (int finished = 0;
         finished < shape.n_stages;) { /* ends: no list waits for itself (tests) */
        finished = 0;
        for (int s = 0; s < shape.n_stages; s++)
            finished += advance(&c, &cursor[s]);
    }
    for (int s = 0; s < shape.n_stages; s++)
        end = c.now[s] > end ? c.now[s] : end;
    *seconds_out = end;
    *utilisation_out = end > 0 ? c.busy / (end * shape.n_stages) : 1;
out:
    lrd_free(cursor);
    lrd_free(c.done[0]);
    lrd_free(c.now);
    return status;
}
