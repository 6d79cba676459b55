#include "train/fitting.h"

#include "base/mem.h"
#include "model/ranks.h"

#include <string.h>

static int64_t count_needs(const lrd_fitting_t *t, const lrd_memory_t *m,
                           const lrd_arena_t *weights)
{
    int64_t bytes = (int64_t)lrd_memory_needed(m);
    for (int i = 0; t->mapped && i < weights->n_categories; i++) {
        if (strcmp(weights->category[i].name, "weights") == 0)
            bytes -= (int64_t)weights->category[i].bytes;
    }
    return bytes;
}

/* Most of what a stage with this run takes: its weights, activations and scratch. */
static lrd_status_t measure_run(const lrd_fitting_t *t, int stage, lrd_span_t run,
                                int64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_session_t *s = t->s;
    const lrd_runs_t runs = {&run, 1, t->home};
    const int64_t behind = t->n_stages - stage;
    const int64_t places = behind < t->micro_batches ? behind : t->micro_batches;
    lrd_stage_limits_t limits = t->limits;
    lrd_memory_t m = {.backend = s->engine.backend};
    lrd_weights_t *w = NULL;
    lrd_stage_t *x = NULL;
    limits.places = &places;
    LRD_TRY(lrd_weights_outline(&s->engine.config, &runs, (int)s->engine.weights->dtype,
                                s->engine.weights->tied, &w));
    lrd_weights_make_room(w, m.backend, s->adapter);
    LRD_TRY(lrd_stage_create(w, s->adapter, s->engine.stream, limits, &x));
    lrd_weights_layout(w, m.backend, &m.model);
    lrd_stage_layout(x, &m.model, &m.step);
    m.scratch.bytes = lrd_stage_scratch_bytes(x);
    *bytes_out = count_needs(t, &m, &m.model);
out:
    lrd_stage_destroy(x);
    lrd_weights_close(w);
    return status;
}

static bool run_fits(lrd_fitting_t *t, int stage, lrd_span_t run)
{
    int64_t bytes = 0;
    if (t->status == LRD_OK)
        t->status = measure_run(t, stage, run, &bytes);
    return t->status == LRD_OK && bytes + t->other[stage] <= t->room[stage];
}

/* lrd_placement_costs_t.fits: a longer run takes more, so the longest that fits is searched for once. */
static bool fits(const void *context, int stage, lrd_span_t run)
{
    lrd_fitting_t *t = (lrd_fitting_t *)context;
    const int n_layers = (int)t->s->engine.config.n_layers;
    if (run.head || run.first == run.last)
        return run_fits(t, stage, run);
    int *last = &t->last[stage * n_layers + run.first];
    if (*last < 0) {
        int too_long = n_layers + 1;
        for (*last = run.first; too_long - *last > 1;) {
            const int middle = (*last + too_long) / 2;
            if (run_fits(t, stage, (lrd_span_t){run.first, middle, run.embed, false}))
                *last = middle;
            else
                too_long = middle;
        }
    }
    return run.last <= *last;
}

lrd_status_t lrd_fitting_balance(lrd_fitting_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const int n_layers = (int)t->s->engine.config.n_layers, lowest = t->s->adapter->lowest_layer;
    const lrd_pass_times_t *first = &t->times[0];
    const double both = first->forward + first->backward;
    double *layer = NULL, *pace = NULL;
    LRD_NEW(layer, n_layers);
    LRD_NEW(pace, t->n_stages);
    for (int i = 0; i < n_layers; i++)
        layer[i] = (first->forward + (i < lowest    ? 0
                                      : i == lowest ? first->lowest_backward
                                                    : first->backward)) /
                   both;
    for (int stage = 0; stage < t->n_stages; stage++)
        pace[stage] = t->times[stage].forward + t->times[stage].backward;
    for (int i = 0; i < t->n_stages * n_layers; i++)
        t->last[i] = -1;
    status = lrd_placement_balance(&(lrd_placement_costs_t){.n_layers = n_layers,
                                                            .layer = layer,
                                                            .pace = pace,
                                                            .embed = first->embed,
                                                            .head = t->times[t->n_stages - 1].head,
                                                            .fits = t->n_chunks == 1 ? fits : NULL,
                                                            .context = t},
                                   t->n_stages, t->n_chunks, placement_out);
    if (t->status != LRD_OK)
        status = t->status;
out:
    lrd_free(pace);
    lrd_free(layer);
    return status;
}

lrd_status_t lrd_fitting_measure(lrd_fitting_t *t, const lrd_placement_t *p, int64_t *worst_out)
{
    lrd_status_t status = LRD_OK;
    *worst_out = INT64_MIN;
    for (int stage = 0; stage < t->n_stages; stage++) {
        lrd_memory_t m;
        int64_t most = 0;
        LRD_TRY(lrd_session_measure(t->s, p, t->n_ranks, stage, &m));
        const int64_t needs =
            count_needs(t, &m, &m.model) + (t->mapped ? 0 : (int64_t)m.mapped_bytes);
        if (t->n_chunks == 1)
            LRD_TRY(measure_run(t, stage, lrd_placement_run(p, stage), &most));
        t->needs[stage] = needs;
        t->other[stage] = needs > most ? needs - most : 0;
        *worst_out = needs - t->room[stage] > *worst_out ? needs - t->room[stage] : *worst_out;
    }
out:
    return status;
}

lrd_status_t lrd_fitting_place(lrd_fitting_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    enum { TRIES = 4 };
    lrd_placement_t p = {.begin = NULL};
    int64_t worst = 1;
    for (int i = 0; i < TRIES && worst > 0; i++) {
        lrd_placement_release(&p);
        LRD_TRY(lrd_fitting_balance(t, &p));
        if (p.begin == NULL)
            break;
        if (t->home != NULL)
            LRD_TRY(lrd_placement_set_home(&p, t->home[0]));
        LRD_TRY(lrd_fitting_measure(t, &p, &worst));
    }
    if (worst > 0)
        lrd_placement_release(&p);
    *placement_out = p;
    p = (lrd_placement_t){.begin = NULL};
out:
    lrd_placement_release(&p);
    return status;
}

void lrd_fitting_close(lrd_fitting_t *t)
{
    lrd_free(t->last);
    lrd_free(t->other);
    lrd_free(t->needs);
    lrd_free(t->times);
    lrd_free(t->room);
}

lrd_status_t lrd_fitting_open(const lrd_session_t *s, const lrd_fitting_ranks_t *given,
                              int n_stages, int n_chunks, bool mapped, lrd_fitting_t *t)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(s->o.comm);
    *t = (lrd_fitting_t){
        .s = s, .n_ranks = n_ranks, .n_stages = n_stages, .n_chunks = n_chunks, .mapped = mapped};
    LRD_NEW(t->room, n_stages);
    LRD_NEW(t->needs, n_stages);
    LRD_NEW(t->times, n_stages);
    LRD_NEW(t->other, n_stages);
    LRD_NEW(t->last, n_stages * s->engine.config.n_layers);
    LRD_TRY(lrd_session_limits(s, n_ranks / n_stages, &t->limits, &t->micro_batches, NULL));
    t->micro_batches = lrd_shares_most(t->micro_batches, n_ranks / n_stages, s->moves);
    for (int stage = 0; stage < n_stages; stage++)
        t->room[stage] = lrd_ranks_room(given->room, n_ranks, n_stages, stage);
    lrd_pace_of_stages(given->times, n_ranks, n_stages, t->times);
out:
    return status;
}
