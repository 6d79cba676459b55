#include "train/planner.h"

#include "base/mem.h"
#include "model/ranks.h"

#include <math.h>
#include <string.h>

/* One try: so many stages, so much room on each. */
typedef struct trial {
    const lrd_session_t *s;
    int n_ranks, n_stages, n_chunks;
    bool mapped; /* weights that are used in the model's files take no room */
    lrd_stage_limits_t limits;
    int64_t micro_batches; /* of a replica */
    int64_t *room;         /* [n_stages] bytes */
    int64_t *other;        /* [n_stages] bytes beside what measure_run counts */
    int *last; /* [n_stages][n_layers] longest run that fits from a layer on; -1: unknown */
    lrd_status_t status; /* of a measurement */
} trial_t;

/* ---- what the settings ask for ----------------------------------------------------------------- */

lrd_status_t lrd_planner_check(const lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    int least, most;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    LRD_TRY(lrd_ranks_stages(x, lrd_comm_size(s->o.comm), &least, &most));
    LRD_CHECK(lrd_ranks_chunks(x) == 1 || most > 1, LRD_ERR_CONFIG,
              "parallel.pipeline_chunks: %d runs of layers on one stage: leave it out, or raise "
              "parallel.pipeline",
              lrd_ranks_chunks(x));
out:
    return status;
}

/* ---- room and needs ---------------------------------------------------------------------------- */

static int64_t count_needs(const trial_t *t, const lrd_memory_t *m, const lrd_arena_t *weights)
{
    int64_t bytes = (int64_t)(lrd_memory_total(m) + m->pinned_bytes);
    for (int i = 0; t->mapped && i < weights->n_categories; i++) {
        if (strcmp(weights->category[i].name, "weights") == 0)
            bytes -= (int64_t)weights->category[i].bytes;
    }
    return bytes;
}

/* Most of what a stage with this run takes: its weights, activations and scratch. */
static lrd_status_t measure_run(const trial_t *t, int stage, lrd_span_t run, int64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_session_t *s = t->s;
    const lrd_runs_t runs = {&run, 1};
    const int64_t behind = t->n_stages - stage;
    const int64_t places = behind < t->micro_batches ? behind : t->micro_batches;
    lrd_stage_limits_t limits = t->limits;
    lrd_memory_t m = {.backend = s->engine.backend};
    lrd_weights_t *w = NULL;
    lrd_stage_t *x = NULL;
    limits.places = &places;
    LRD_TRY(lrd_weights_outline(&s->engine.config, &runs, (int)s->engine.weights->dtype,
                                s->engine.weights->tied, &w));
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

static bool run_fits(trial_t *t, int stage, lrd_span_t run)
{
    int64_t bytes = 0;
    if (t->status == LRD_OK)
        t->status = measure_run(t, stage, run, &bytes);
    return t->status == LRD_OK && bytes + t->other[stage] <= t->room[stage];
}

/* lrd_placement_costs_t.fits: a longer run takes more, so the longest that fits is searched for once. */
static bool fits(const void *context, int stage, lrd_span_t run)
{
    trial_t *t = (trial_t *)context;
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

/* ---- a placement ------------------------------------------------------------------------------- */

/* Multiplications per token of one pass through a block: what its matrices have elements. */
static double block_cost(const lrd_model_config_t *c)
{
    double sum = 0;
    for (int i = 0; i < c->family->n_linears; i++) {
        const lrd_tensor_decl_t *w = &c->family->block_tensors[c->family->linears[i].weight];
        sum += (double)lrd_dim_size(c, w->shape[0]) * (double)lrd_dim_size(c, w->shape[1]);
    }
    return sum;
}

static lrd_status_t balance(trial_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_config_t *c = &t->s->engine.config;
    const lrd_dataset_info_t *d = lrd_dataset_info(t->s->train);
    const int n_layers = (int)c->n_layers;
    const double block = block_cost(c), head = 2.0 * (double)(c->vocab_size * c->hidden);
    double *layer = NULL;
    LRD_NEW(layer, n_layers);
    for (int i = 0; i < n_layers; i++)
        layer[i] = i < t->s->adapter->lowest_layer ? block : 2 * block;
    for (int i = 0; i < t->n_stages * n_layers; i++)
        t->last[i] = -1;
    status = lrd_placement_balance(
        &(lrd_placement_costs_t){.n_layers = n_layers,
                                 .layer = layer,
                                 .head = head * (double)d->n_targets / (double)d->n_tokens,
                                 .fits = t->n_chunks == 1 ? fits : NULL,
                                 .context = t},
        t->n_stages, t->n_chunks, placement_out);
    if (t->status != LRD_OK)
        status = t->status;
out:
    lrd_free(layer);
    return status;
}

/* Measures the stages of a placement as the run will lay them out. *worst_out: by how much the worst
 * misses; what measure_run overlooks is remembered. */
static lrd_status_t measure_all(trial_t *t, const lrd_placement_t *p, int64_t *worst_out)
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
        t->other[stage] = needs > most ? needs - most : 0;
        *worst_out = needs - t->room[stage] > *worst_out ? needs - t->room[stage] : *worst_out;
    }
out:
    return status;
}

/* The placement on so many stages; begin == NULL: there is none that fits. */
static lrd_status_t try_stages(trial_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    enum { TRIES = 4 };
    lrd_placement_t p = {.begin = NULL};
    int64_t worst = 1;
    for (int i = 0; i < TRIES && worst > 0; i++) {
        lrd_placement_release(&p);
        LRD_TRY(balance(t, &p));
        if (p.begin == NULL)
            break;
        LRD_TRY(measure_all(t, &p, &worst));
    }
    if (worst > 0)
        lrd_placement_release(&p);
    *placement_out = p;
    p.begin = NULL;
out:
    lrd_placement_release(&p);
    return status;
}

static void close_trial(trial_t *t)
{
    lrd_free(t->last);
    lrd_free(t->other);
    lrd_free(t->room);
}

/* Close also after a failure. */
static lrd_status_t open_trial(const lrd_session_t *s, const int64_t *room, int n_stages,
                               int n_chunks, bool mapped, trial_t *t)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(s->o.comm);
    *t = (trial_t){
        .s = s, .n_ranks = n_ranks, .n_stages = n_stages, .n_chunks = n_chunks, .mapped = mapped};
    LRD_NEW(t->room, n_stages);
    LRD_NEW(t->other, n_stages);
    LRD_NEW(t->last, n_stages * s->engine.config.n_layers);
    LRD_TRY(lrd_session_limits(s, n_ranks / n_stages, &t->limits, &t->micro_batches, NULL));
    t->micro_batches = (t->micro_batches * n_stages + n_ranks - 1) / n_ranks;
    for (int stage = 0; stage < n_stages; stage++)
        t->room[stage] = lrd_ranks_room(room, n_ranks, n_stages, stage);
out:
    return status;
}

static lrd_status_t try_with(const lrd_session_t *s, const int64_t *room, int n_stages, bool mapped,
                             lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    trial_t t;
    LRD_TRY(open_trial(s, room, n_stages,
                       n_stages > 1 ? lrd_ranks_chunks(&s->o.settings->parallel) : 1, mapped, &t));
    LRD_TRY(try_stages(&t, placement_out));
out:
    close_trial(&t);
    return status;
}

/* ---- a map that the settings give -------------------------------------------------------------- */

/* By how much the worst stage of the session's placement misses. */
static lrd_status_t find_missing(const lrd_session_t *s, const int64_t *room, bool mapped,
                                 int64_t *missing_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_placement_t *p = &s->placement;
    trial_t t;
    LRD_TRY(open_trial(s, room, p->n_stages, p->n_runs / p->n_stages, mapped, &t));
    LRD_TRY(measure_all(&t, p, missing_out));
out:
    close_trial(&t);
    return status;
}

/* device_map: balanced, sequential, or modules by name. */
static lrd_status_t take_map(lrd_session_t *s, lrd_rooms_t rooms)
{
    lrd_status_t status = LRD_OK;
    int64_t missing;
    LRD_TRY(lrd_ranks_map(&s->o.settings->parallel, &s->engine, rooms.limited,
                          lrd_comm_size(s->o.comm), &s->placement));
    LRD_TRY(find_missing(s, rooms.free, false, &missing));
    if (missing <= 0)
        goto out;
    if (lrd_ranks_use_files(&s->engine))
        LRD_TRY(find_missing(s, rooms.free, true, &missing));
    LRD_CHECK(missing <= 0, LRD_ERR_CONFIG,
              "parallel.device_map: a device lacks %.1f MiB for the layers that the map gives it. "
              "device_map: auto counts activations too; smaller micro-batches need less",
              (double)missing / 0x1p20);
    lrd_ranks_warn_of_files();
out:
    return status;
}

/* ---- our own choice ---------------------------------------------------------------------------- */

/* How much longer an update takes than without pipeline and recomputation: the stages' waiting
 * (docs/pipeline.md), and the products that are formed again, of 24 C^2 in a block. */
static lrd_status_t rate(const lrd_session_t *s, int n_stages, lrd_checkpointing_t recompute,
                         double *slowness_out)
{
    lrd_status_t status = LRD_OK;
    static const double again[] = {[LRD_CHECKPOINTING_NONE] = 0,
                                   [LRD_CHECKPOINTING_ATTENTION] = 3.0 / 24,
                                   [LRD_CHECKPOINTING_BLOCK] = 8.0 / 24};
    const int n_replicas = lrd_comm_size(s->o.comm) / n_stages;
    lrd_stage_limits_t limits;
    int64_t micro_batches;
    LRD_TRY(lrd_session_limits(s, n_replicas, &limits, &micro_batches, NULL));
    const double m = (double)micro_batches / n_replicas;
    const double waiting =
        (n_stages - 1.0) / (n_stages > 1 ? lrd_ranks_chunks(&s->o.settings->parallel) : 1);
    *slowness_out = (1 + again[recompute]) * (m + waiting) / m;
out:
    return status;
}

/* The fastest way of those that fit. Without a choice of recomputation that is the fewest stages. */
static lrd_status_t choose_among(lrd_session_t *s, const int64_t *room, bool mapped)
{
    lrd_status_t status = LRD_OK;
    const lrd_checkpointing_t asked =
        (lrd_checkpointing_t)s->o.settings->training.gradient_checkpointing;
    const bool any = asked == LRD_CHECKPOINTING_AUTO;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const int size = lrd_comm_size(s->o.comm);
    lrd_checkpointing_t chosen = LRD_CHECKPOINTING_NONE;
    lrd_placement_t found = {.begin = NULL};
    double least = INFINITY, slowness;
    int first, most;
    LRD_TRY(lrd_ranks_stages(x, size, &first, &most));
    for (int n = first; n <= most; n++) {
        const int last = any ? LRD_CHECKPOINTING_BLOCK : asked;
        bool fits_here = false;
        if (first < most && !lrd_ranks_may_be(x, &s->engine.config, size, n))
            continue;
        for (int r = any ? LRD_CHECKPOINTING_NONE : asked; r <= last && !fits_here; r++) {
            s->recompute = (lrd_checkpointing_t)r;
            LRD_TRY(rate(s, n, s->recompute, &slowness));
            if (slowness >= least)
                break;
            LRD_TRY(try_with(s, room, n, mapped, &found));
            fits_here = found.begin != NULL;
            if (!fits_here)
                continue;
            lrd_placement_release(&s->placement);
            s->placement = found;
            found.begin = NULL;
            chosen = s->recompute;
            least = slowness;
        }
    }
    s->recompute = chosen;
out:
    return status;
}

static lrd_status_t choose(lrd_session_t *s, const int64_t *room)
{
    lrd_status_t status = LRD_OK;
    int least, most;
    LRD_TRY(lrd_ranks_stages(&s->o.settings->parallel, lrd_comm_size(s->o.comm), &least, &most));
    LRD_TRY(choose_among(s, room, false));
    if (s->placement.begin != NULL)
        goto out;
    if (lrd_ranks_use_files(&s->engine))
        LRD_TRY(choose_among(s, room, true));
    LRD_CHECK(
        s->placement.begin != NULL, LRD_ERR_CONFIG,
        "the model does not fit: not into the %.2f GiB that the rank with the least has, nor "
        "spread over up to %d rank%s. More ranks with parallel.pipeline, smaller micro-batches "
        "(training.per_device_train_batch_size, max_tokens_per_micro_batch), a shorter "
        "data.max_length, training.gradient_checkpointing or model.dtype bfloat16 or float16 "
        "need less memory on each",
        (double)lrd_ranks_room(room, lrd_comm_size(s->o.comm), 1, 0) / 0x1p30, most,
        most == 1 ? "" : "s");
    lrd_ranks_warn_of_files();
out:
    return status;
}

static lrd_status_t place(lrd_session_t *s, lrd_rooms_t rooms)
{
    lrd_status_t status = LRD_OK;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const int recompute = s->o.settings->training.gradient_checkpointing;
    const bool is_auto = x->device_map.kind == LRD_DEVICE_MAP_AUTO;
    s->recompute = recompute != LRD_CHECKPOINTING_AUTO ? (lrd_checkpointing_t)recompute
                                                       : LRD_CHECKPOINTING_NONE;
    if (!is_auto || lrd_comm_size(s->o.comm) > 1 || s->o.memory != NULL || x->max_memory.n > 0 ||
        recompute == LRD_CHECKPOINTING_AUTO) {
        LRD_TRY(is_auto ? choose(s, rooms.limited) : take_map(s, rooms));
        goto out;
    }
    /* There is no choice, and the allocation says what is missing. */
    LRD_NEW(s->placement.begin, 2);
    s->placement.n_stages = s->placement.n_runs = 1;
    s->placement.begin[1] = (int)s->engine.config.n_layers;
out:
    return status;
}

lrd_status_t lrd_planner_place(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->o.comm);
    lrd_rooms_t rooms = {NULL, NULL};
    LRD_NEW(rooms.free, size);
    LRD_NEW(s->rooms, size);
    rooms.limited = s->rooms;
out:
    status = lrd_agree(s->o.comm, status);
    if (status == LRD_OK)
        status = lrd_ranks_rooms(&(lrd_rooms_options_t){.comm = s->o.comm,
                                                        .settings = &s->o.settings->parallel,
                                                        .backend = s->engine.backend,
                                                        .memory = s->o.memory,
                                                        .n_memory = s->o.n_memory,
                                                        .imagined = s->plans},
                                 rooms);
    if (status == LRD_OK)
        status = lrd_agree(s->o.comm, place(s, rooms));
    lrd_free(rooms.free);
    return status;
}

lrd_status_t lrd_planner_part(const lrd_placement_t *placement, const lrd_adapter_t *whole,
                              int stage, lrd_adapter_t **part_out)
{
    lrd_status_t status = LRD_OK;
    bool *keep = NULL;
    LRD_NEW(keep, whole->n_layers);
    for (int layer = 0; layer < whole->n_layers; layer++)
        keep[layer] = lrd_placement_stage_of(placement, layer) == stage;
    LRD_TRY(lrd_adapter_part(whole, keep, part_out));
out:
    lrd_free(keep);
    return status;
}
