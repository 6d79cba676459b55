#include "train/planner.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/ranks.h"
#include "train/fitting.h"
#include "train/forecast.h"

#include <math.h>
#include <string.h>

/* More runs of layers on a stage must make an update at least so much shorter. */
static const double worth = 0.95;

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

/* ---- one number of stages ----------------------------------------------------------------------- */

/* The placement on so many stages with so many runs of layers on each, begin == NULL where none fits; and
 * how long an update takes. */
static lrd_status_t try_runs(const lrd_session_t *s, const lrd_fitting_ranks_t *given, int n_stages,
                             int n_chunks, bool mapped, lrd_placement_t *placement_out,
                             double *seconds_out)
{
    lrd_status_t status = LRD_OK;
    lrd_placement_t p = {.begin = NULL};
    lrd_forecast_t f = {0, 1};
    lrd_fitting_t t;
    LRD_TRY(lrd_fitting_open(s, given, n_stages, n_chunks, mapped, &t));
    LRD_TRY(lrd_fitting_place(&t, &p));
    if (p.begin != NULL && n_stages > 1)
        LRD_TRY(lrd_forecast(s, &p, t.n_ranks, t.times, &f));
    *seconds_out = f.seconds;
    *placement_out = p;
    p = (lrd_placement_t){.begin = NULL};
out:
    lrd_placement_release(&p);
    lrd_fitting_close(&t);
    return status;
}

/* With as many runs of layers on each stage as the settings ask for. Left to us: one, and more as long as
 * they fit and are worth their messages and memory. */
static lrd_status_t try_with(const lrd_session_t *s, const lrd_fitting_ranks_t *given, int n_stages,
                             bool mapped, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    enum { MOST_CHUNKS = 8 };
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const int n_layers = (int)s->engine.config.n_layers;
    const bool any = x->pipeline_chunks == LRD_SETTING_AUTO;
    int chunks = n_stages > 1 ? lrd_ranks_chunks(x) : 1;
    lrd_placement_t best = {.begin = NULL}, p = {.begin = NULL};
    double least, seconds;
    LRD_TRY(try_runs(s, given, n_stages, chunks, mapped, &best, &least));
    while (any && n_stages > 1 && best.begin != NULL && chunks < MOST_CHUNKS &&
           ++chunks * n_stages <= n_layers + 1) {
        LRD_TRY(try_runs(s, given, n_stages, chunks, mapped, &p, &seconds));
        if (p.begin == NULL)
            break;
        if (seconds < worth * least) {
            lrd_placement_release(&best);
            best = p;
            p = (lrd_placement_t){.begin = NULL};
            least = seconds;
        }
        lrd_placement_release(&p);
    }
    *placement_out = best;
    best = (lrd_placement_t){.begin = NULL};
out:
    lrd_placement_release(&p);
    lrd_placement_release(&best);
    return status;
}

/* What a run has where there is room for it, and is done without before stages are added or activations computed
 * again. */
static void want_extras(lrd_session_t *s)
{
    s->graphs = lrd_has_graphs(s->engine.backend);
    s->moves = lrd_shares_move(&s->o.settings->parallel, lrd_comm_size(s->o.comm));
}

/* One of them less; false: there was none. */
static bool give_up_extra(lrd_session_t *s)
{
    bool *extra = s->moves ? &s->moves : &s->graphs;
    const bool had = *extra;
    *extra = false;
    return had;
}

/* ---- a map that the settings give -------------------------------------------------------------- */

/* By how much the worst stage of the session's placement misses. */
static lrd_status_t find_missing(const lrd_session_t *s, const lrd_fitting_ranks_t *given,
                                 bool mapped, int64_t *missing_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_placement_t *p = &s->placement;
    lrd_fitting_t t;
    LRD_TRY(lrd_fitting_open(s, given, p->n_stages, p->n_runs / p->n_stages, mapped, &t));
    LRD_TRY(lrd_fitting_measure(&t, p, missing_out));
out:
    lrd_fitting_close(&t);
    return status;
}

/* device_map: balanced, sequential, or modules by name. */
static lrd_status_t take_map(lrd_session_t *s, lrd_rooms_t rooms, const lrd_pass_times_t *times)
{
    lrd_status_t status = LRD_OK;
    const lrd_fitting_ranks_t given = {rooms.free, times};
    int64_t missing;
    LRD_TRY(lrd_ranks_map(&s->o.settings->parallel, &s->engine, rooms, lrd_comm_size(s->o.comm),
                          &s->placement));
    do {
        LRD_TRY(find_missing(s, &given, false, &missing));
    } while (missing > 0 && give_up_extra(s));
    if (missing <= 0)
        goto out;
    if (lrd_ranks_use_files(&s->o.settings->parallel, &s->engine))
        LRD_TRY(find_missing(s, &given, true, &missing));
    LRD_CHECK(missing <= 0, LRD_ERR_CONFIG,
              "parallel.device_map: a device lacks %.1f MiB for the layers that the map gives it. "
              "device_map: auto counts activations too; smaller micro-batches need less",
              (double)missing / 0x1p20);
    LRD_TRY(lrd_ranks_leave_in_files(&s->placement));
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

/* With graphs and shares that may move, or what there is room for. */
static lrd_status_t try_extras(lrd_session_t *s, const lrd_fitting_ranks_t *given, int n_stages,
                               bool mapped, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    want_extras(s);
    do {
        LRD_TRY(try_with(s, given, n_stages, mapped, placement_out));
    } while (placement_out->begin == NULL && give_up_extra(s));
out:
    return status;
}

/* The fastest way of those that fit. Without a choice of recomputation that is the fewest stages. */
static lrd_status_t choose_among(lrd_session_t *s, const lrd_fitting_ranks_t *given, bool mapped)
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
    bool graphs = false, moves = false;
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
            LRD_TRY(try_extras(s, given, n, mapped, &found));
            fits_here = found.begin != NULL;
            if (!fits_here)
                continue;
            lrd_placement_release(&s->placement);
            s->placement = found;
            found = (lrd_placement_t){.begin = NULL};
            chosen = s->recompute;
            graphs = s->graphs;
            moves = s->moves;
            least = slowness;
        }
    }
    s->recompute = chosen;
    s->graphs = graphs;
    s->moves = moves;
out:
    return status;
}

/* Blocks leave the devices of so many stages, as few as need be. placement.begin stays NULL where that is
 * not enough. */
static lrd_status_t spill_from(lrd_session_t *s, const lrd_fitting_ranks_t *given,
                               const int64_t *host, int n_stages, const lrd_home_t *home)
{
    lrd_status_t status = LRD_OK;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    lrd_placement_t p = {.begin = NULL};
    lrd_spill_room_t *left = NULL;
    lrd_fitting_t t;
    LRD_TRY(
        lrd_fitting_open(s, given, n_stages, n_stages > 1 ? lrd_ranks_chunks(x) : 1, false, &t));
    t.home = home;
    LRD_TRY(lrd_fitting_place(&t, &p));
    if (p.begin == NULL)
        goto out;
    LRD_NEW(left, n_stages);
    for (int stage = 0; stage < n_stages; stage++)
        left[stage] = (lrd_spill_room_t){t.room[stage] - t.needs[stage],
                                         lrd_ranks_room(host, t.n_ranks, n_stages, stage)};
    LRD_TRY(lrd_ranks_spill(x, s->engine.weights, left, &p));
    s->placement = p;
    p = (lrd_placement_t){.begin = NULL};
out:
    lrd_free(left);
    lrd_placement_release(&p);
    lrd_fitting_close(&t);
    return status;
}

/* The last resort: with the most stages and the least that is kept of activations. */
static lrd_status_t spill(lrd_session_t *s, const lrd_fitting_ranks_t *given, const int64_t *host)
{
    lrd_status_t status = LRD_OK;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const int size = lrd_comm_size(s->o.comm), n_layers = (int)s->engine.config.n_layers;
    lrd_home_t *home = NULL;
    int least, most;
    LRD_NEW(home, n_layers);
    for (int layer = 0; layer < n_layers; layer++)
        home[layer] = LRD_HOME_HOST;
    if (s->o.settings->training.gradient_checkpointing == LRD_CHECKPOINTING_AUTO)
        s->recompute = LRD_CHECKPOINTING_BLOCK;
    LRD_TRY(lrd_ranks_stages(x, size, &least, &most));
    for (int n = most; n >= least && s->placement.begin == NULL; n--) {
        if (least == most || lrd_ranks_may_be(x, &s->engine.config, size, n))
            LRD_TRY(spill_from(s, given, host, n, home));
    }
out:
    lrd_free(home);
    return status;
}

/* host: bytes of host memory for blocks of each rank. */
static lrd_status_t choose(lrd_session_t *s, const lrd_fitting_ranks_t *given, const int64_t *host)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->o.comm), poorest = lrd_ranks_least(s->rooms, size);
    int least, most;
    LRD_TRY(lrd_ranks_stages(&s->o.settings->parallel, size, &least, &most));
    LRD_TRY(choose_among(s, given, false));
    if (s->placement.begin != NULL)
        goto out;
    if (!s->engine.backend->ops->reads_host_memory) {
        LRD_TRY(spill(s, given, host));
    } else if (lrd_ranks_use_files(&s->o.settings->parallel, &s->engine)) {
        LRD_TRY(choose_among(s, given, true));
        if (s->placement.begin != NULL)
            LRD_TRY(lrd_ranks_leave_in_files(&s->placement));
    }
    LRD_CHECK(
        s->placement.begin != NULL, LRD_ERR_CONFIG,
        "the model does not fit: not into the %.2f GiB that the rank with the least has (%s), nor "
        "spread over up to %d rank%s. More ranks with parallel.pipeline, smaller micro-batches "
        "(training.per_device_train_batch_size, max_tokens_per_micro_batch), a shorter "
        "data.max_length, training.gradient_checkpointing or model.dtype bfloat16 or float16 "
        "need less memory on each%s",
        (double)s->rooms[poorest] / 0x1p30, s->room_why[poorest].text, most, most == 1 ? "" : "s",
        s->engine.direct ? "; parallel.transport mpi needs none for NCCL" : "");
out:
    return status;
}

static lrd_status_t place(lrd_session_t *s, lrd_rooms_t rooms, const lrd_pass_times_t *times)
{
    lrd_status_t status = LRD_OK;
    want_extras(s);
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const int recompute = s->o.settings->training.gradient_checkpointing;
    const bool is_auto = x->device_map.kind == LRD_DEVICE_MAP_AUTO;
    s->recompute = recompute != LRD_CHECKPOINTING_AUTO ? (lrd_checkpointing_t)recompute
                                                       : LRD_CHECKPOINTING_NONE;
    if (!is_auto || lrd_comm_size(s->o.comm) > 1 || s->o.memory != NULL || x->max_memory.n > 0 ||
        recompute == LRD_CHECKPOINTING_AUTO || lrd_ranks_may_offload(x, &s->engine)) {
        LRD_TRY(is_auto ? choose(s, &(lrd_fitting_ranks_t){rooms.limited, times}, rooms.host)
                        : take_map(s, rooms, times));
        goto out;
    }
    /* There is no choice, and the allocation says what is missing. */
    LRD_NEW(s->placement.begin, 2);
    s->placement.n_stages = s->placement.n_runs = 1;
    s->placement.begin[1] = (int)s->engine.config.n_layers;
out:
    return status;
}

/* Layers that are spread over devices of different kinds are placed once more, by what those can do. */
static lrd_status_t weigh(lrd_session_t *s, lrd_rooms_t rooms, lrd_pass_times_t *times)
{
    lrd_status_t status = LRD_OK;
    bool alike = true;
    if (s->placement.n_stages == 1 ||
        s->o.settings->parallel.device_map.kind != LRD_DEVICE_MAP_AUTO)
        goto out;
    LRD_TRY(lrd_pace_alike(s, &alike));
    if (alike)
        goto out;
    LRD_TRY(lrd_pace_measure(s, times));
    lrd_placement_release(&s->placement);
    LRD_TRY(lrd_agree(s->o.comm, place(s, rooms, times)));
out:
    return status;
}

/* How long an update takes with so many runs of layers on each stage, memory apart. */
static lrd_status_t time_chunks(const lrd_session_t *s, const lrd_fitting_ranks_t *given,
                                int n_stages, int n_chunks, double *seconds_out)
{
    lrd_status_t status = LRD_OK;
    lrd_placement_t p = {.begin = NULL};
    lrd_forecast_t f;
    lrd_fitting_t t;
    LRD_TRY(lrd_fitting_open(s, given, n_stages, n_chunks, false, &t));
    for (int stage = 0; stage < n_stages; stage++)
        t.room[stage] = INT64_MAX;
    LRD_TRY(lrd_fitting_balance(&t, &p));
    LRD_TRY(lrd_forecast(s, &p, t.n_ranks, t.times, &f));
    *seconds_out = f.seconds;
out:
    lrd_placement_release(&p);
    lrd_fitting_close(&t);
    return status;
}

/* Why pipeline_chunks: auto is what it is. */
static lrd_status_t explain_chunks(const lrd_session_t *s, const lrd_fitting_ranks_t *given)
{
    lrd_status_t status = LRD_OK;
    const int n = s->placement.n_stages, chunks = s->placement.n_runs / n;
    const int other = chunks > 1 ? 1 : 2;
    const lrd_parallel_settings_t *x = &s->o.settings->parallel;
    const char *but = "";
    double seconds, others;
    if (x->pipeline_chunks != LRD_SETTING_AUTO || x->device_map.kind != LRD_DEVICE_MAP_AUTO ||
        lrd_comm_rank(s->o.comm) != 0 || other * n > s->engine.config.n_layers + 1)
        goto out;
    LRD_TRY(time_chunks(s, given, n, chunks, &seconds));
    LRD_TRY(time_chunks(s, given, n, other, &others));
    if (chunks == 1 && others < seconds)
        but = others < worth * seconds ? ", and does not fit"
                                       : ", which is not worth its messages and memory";
    lrd_info(
        "pipeline_chunks = %d: with %d run%s of layers on each stage an update would take %.2f "
        "times as long%s",
        chunks, other, other == 1 ? "" : "s", others / seconds, but);
out:
    return status;
}

lrd_status_t lrd_planner_place(lrd_session_t *s)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->o.comm);
    lrd_rooms_t rooms = {.free = NULL};
    lrd_pass_times_t *times = NULL;
    LRD_NEW(rooms.free, size);
    LRD_NEW(rooms.host, size);
    LRD_NEW(s->rooms, size);
    LRD_NEW(s->room_why, size);
    LRD_NEW(times, size);
    rooms.limited = s->rooms;
    rooms.why = s->room_why;
    for (int r = 0; r < size; r++)
        times[r] = lrd_pace_count(s);
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
        status = lrd_agree(s->o.comm, place(s, rooms, times));
    if (status == LRD_OK)
        status = weigh(s, rooms, times);
    if (status == LRD_OK && s->placement.n_stages > 1)
        status =
            lrd_agree(s->o.comm, explain_chunks(s, &(lrd_fitting_ranks_t){rooms.limited, times}));
    lrd_free(times);
    lrd_free(rooms.host);
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
