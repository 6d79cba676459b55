#include "model/spread.h"

#include "base/log.h"
#include "base/mem.h"
#include "comm/devices.h"
#include "model/ranks.h"

#include <string.h>

/* One try: so many stages, so much room on each. */
typedef struct trial {
    const lrd_spread_options_t *o;
    const int64_t *room; /* [ranks] */
    int n_stages, n_chunks;
    bool mapped;            /* weights that are used in files take no room */
    bool graphs;            /* room for them is set aside */
    const lrd_home_t *home; /* [n_layers] of blocks; NULL: on the device */
    int64_t *needs; /* [2][2][n_layers + 1] of a run: embedding? head? blocks; negative: unknown */
    lrd_spill_room_t *left; /* [n_stages] receives what find_missing finds; NULL: not asked for */
    lrd_status_t status;    /* of a measurement */
} trial_t;

/* Device memory for the library between stages. */
static size_t reserve(const lrd_spread_options_t *o, int n_stages)
{
    return o->engine->direct
               ? lrd_grid_reserve(lrd_comm_size(o->comm) / n_stages, n_stages, o->settings, false)
               : 0;
}

/* What a rank with these runs takes. */
static lrd_status_t measure(const trial_t *t, const lrd_runs_t *runs, int64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_engine_t *e = t->o->engine;
    lrd_memory_t m = {.backend = e->backend};
    lrd_weights_t *w = NULL;
    LRD_TRY(lrd_weights_outline(&e->config, runs, (int)e->weights->dtype, e->weights->tied, &w));
    if (!t->mapped)
        lrd_weights_layout(w, m.backend, &m.model);
    LRD_TRY(t->o->measure(t->o->context, w, t->graphs, &m));
    m.nccl.bound = reserve(t->o, t->n_stages);
    *bytes_out = (int64_t)lrd_memory_needed(&m);
out:
    lrd_weights_close(w);
    return status;
}

/* All blocks are alike, so that a run's needs depend on how many it has. */
static int64_t needs(trial_t *t, lrd_span_t run)
{
    const int64_t n_layers = t->o->engine->config.n_layers;
    int64_t *known = &t->needs[(2 * run.embed + run.head) * (n_layers + 1) + run.last - run.first];
    if (*known < 0 && t->status == LRD_OK)
        t->status = measure(t, &(lrd_runs_t){&run, 1, t->home}, known);
    return *known;
}

/* lrd_placement_costs_t.fits */
static bool fits(const void *context, int stage, lrd_span_t run)
{
    trial_t *t = (trial_t *)context;
    const int n_ranks = lrd_comm_size(t->o->comm);
    return needs(t, run) <= lrd_ranks_room(t->room, n_ranks, t->n_stages, stage);
}

/* By how much the worst stage misses. */
static lrd_status_t find_missing(const trial_t *t, const lrd_placement_t *p, int64_t *missing_out)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(t->o->comm);
    lrd_runs_t runs = {.run = NULL};
    *missing_out = INT64_MIN;
    for (int stage = 0; stage < p->n_stages; stage++) {
        int64_t bytes = 0;
        LRD_TRY(lrd_placement_stage(p, stage, &runs));
        LRD_TRY(measure(t, &runs, &bytes));
        const int64_t missing = bytes - lrd_ranks_room(t->room, n_ranks, p->n_stages, stage);
        if (t->left != NULL)
            t->left[stage].device = -missing;
        *missing_out = missing > *missing_out ? missing : *missing_out;
        lrd_free(runs.run);
        runs.run = NULL;
    }
out:
    lrd_free(runs.run);
    return status;
}

/* Bytes for costs: those that are largest are the least. */
static lrd_status_t balance(trial_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const int n_layers = (int)t->o->engine->config.n_layers;
    double *layer = NULL;
    LRD_NEW(layer, n_layers);
    const int64_t nothing = needs(t, (lrd_span_t){0, 0, false, false});
    for (int i = 0; i < n_layers; i++)
        layer[i] = (double)(needs(t, (lrd_span_t){0, 1, false, false}) - nothing);
    const int64_t embed = needs(t, (lrd_span_t){0, 0, true, false}) - nothing;
    const int64_t head = needs(t, (lrd_span_t){0, 0, false, true}) - nothing;
    LRD_TRY(t->status);
    LRD_TRY(lrd_placement_balance(&(lrd_placement_costs_t){.n_layers = n_layers,
                                                           .layer = layer,
                                                           .embed = (double)embed,
                                                           .head = (double)head,
                                                           .fits = t->n_chunks == 1 ? fits : NULL,
                                                           .context = t},
                                  t->n_stages, t->n_chunks, placement_out));
    status = t->status;
out:
    lrd_free(layer);
    return status;
}

/* The placement on t->n_stages; begin == NULL: there is none that fits. */
static lrd_status_t try_stages(trial_t *t, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t n_layers = t->o->engine->config.n_layers;
    int64_t missing = 0;
    t->n_chunks = t->n_stages > 1 ? lrd_ranks_chunks(t->o->settings) : 1;
    LRD_NEW(t->needs, 4 * (n_layers + 1));
    memset(t->needs, -1, 4 * (size_t)(n_layers + 1) * sizeof *t->needs);
    LRD_TRY(balance(t, placement_out));
    if (placement_out->begin != NULL && t->home != NULL)
        LRD_TRY(lrd_placement_set_home(placement_out, t->home[0]));
    if (placement_out->begin != NULL && (t->n_chunks > 1 || t->left != NULL))
        LRD_TRY(find_missing(t, placement_out, &missing));
    if (missing > 0)
        lrd_placement_release(placement_out);
out:
    lrd_free(t->needs);
    return status;
}

/* Of as few stages as fit, with graphs or else without. */
static lrd_status_t choose_among(const lrd_spread_options_t *o, const int64_t *room, bool mapped,
                                 lrd_placement_t *p, bool *graphs_out)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(o->comm);
    const bool has_graphs = lrd_has_graphs(o->engine->backend);
    int least, most;
    LRD_TRY(lrd_ranks_stages(o->settings, n_ranks, &least, &most));
    for (int n = least; n <= most && p->begin == NULL; n++) {
        if (least < most && !lrd_ranks_may_be(o->settings, &o->engine->config, n_ranks, n))
            continue;
        for (int without = !has_graphs; without <= 1 && p->begin == NULL; without++) {
            trial_t t = {.o = o, .room = room, .n_stages = n, .mapped = mapped, .graphs = !without};
            LRD_TRY(try_stages(&t, p));
            *graphs_out = t.graphs && p->begin != NULL;
        }
    }
out:
    return status;
}

/* Blocks leave the devices, as few as need be, of as many stages as there may be, without graphs. */
static lrd_status_t spill(const lrd_spread_options_t *o, lrd_rooms_t rooms, lrd_placement_t *p)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(o->comm), n_layers = (int)o->engine->config.n_layers;
    lrd_home_t *home = NULL;
    lrd_spill_room_t *left = NULL;
    int least, most;
    LRD_TRY(lrd_ranks_stages(o->settings, n_ranks, &least, &most));
    LRD_NEW(home, n_layers);
    LRD_NEW(left, most);
    for (int layer = 0; layer < n_layers; layer++)
        home[layer] = LRD_HOME_HOST;
    for (int n = most; n >= least && p->begin == NULL; n--) {
        trial_t t = {.o = o, .room = rooms.limited, .n_stages = n, .home = home, .left = left};
        if (least == most || lrd_ranks_may_be(o->settings, &o->engine->config, n_ranks, n))
            LRD_TRY(try_stages(&t, p));
    }
    for (int stage = 0; stage < p->n_stages; stage++)
        left[stage].host = lrd_ranks_room(rooms.host, n_ranks, p->n_stages, stage);
    if (p->begin != NULL)
        LRD_TRY(lrd_ranks_spill(o->settings, o->engine->weights, left, p));
out:
    lrd_free(left);
    lrd_free(home);
    return status;
}

static lrd_status_t choose(const lrd_spread_options_t *o, lrd_rooms_t rooms, lrd_placement_t *p,
                           bool *graphs_out)
{
    lrd_status_t status = LRD_OK;
    const int n_ranks = lrd_comm_size(o->comm), poorest = lrd_ranks_least(rooms.limited, n_ranks);
    LRD_TRY(choose_among(o, rooms.limited, false, p, graphs_out));
    if (p->begin != NULL)
        goto out;
    if (!o->engine->backend->ops->reads_host_memory) {
        LRD_TRY(spill(o, rooms, p));
    } else if (lrd_ranks_use_files(o->settings, o->engine)) {
        LRD_TRY(choose_among(o, rooms.limited, true, p, graphs_out));
        if (p->begin != NULL)
            LRD_TRY(lrd_ranks_leave_in_files(p));
    }
    LRD_CHECK(
        p->begin != NULL, LRD_ERR_CONFIG,
        "the model does not fit: not into the %.2f GiB that the rank with the least has (%s), nor "
        "spread over the %d rank%s as the settings allow (parallel.data, pipeline, max_memory). "
        "More ranks, a smaller --batch-size, shorter texts or --dtype bfloat16 or float16 need "
        "less memory on each",
        (double)rooms.limited[poorest] / 0x1p30, rooms.why[poorest].text, n_ranks,
        n_ranks == 1 ? "" : "s");
out:
    return status;
}

/* device_map: balanced, sequential, or modules by name. */
static lrd_status_t take_map(const lrd_spread_options_t *o, lrd_rooms_t rooms, lrd_placement_t *p,
                             bool *graphs_out)
{
    lrd_status_t status = LRD_OK;
    trial_t t = {.o = o, .room = rooms.free, .graphs = lrd_has_graphs(o->engine->backend)};
    int64_t missing;
    LRD_TRY(lrd_ranks_map(o->settings, o->engine, rooms, lrd_comm_size(o->comm), p));
    t.n_stages = p->n_stages;
    LRD_TRY(find_missing(&t, p, &missing));
    if (missing > 0 && t.graphs) {
        t.graphs = false;
        LRD_TRY(find_missing(&t, p, &missing));
    }
    *graphs_out = t.graphs;
    if (missing <= 0)
        goto out;
    t.mapped = lrd_ranks_use_files(o->settings, o->engine);
    if (t.mapped)
        LRD_TRY(find_missing(&t, p, &missing));
    LRD_CHECK(missing <= 0, LRD_ERR_CONFIG,
              "parallel.device_map: a device lacks %.1f MiB for the layers that the map gives it. "
              "device_map: auto counts the cache and buffers too",
              (double)missing / 0x1p20);
    LRD_TRY(lrd_ranks_leave_in_files(p));
out:
    return status;
}

static lrd_status_t place(const lrd_spread_options_t *o, lrd_rooms_t rooms, lrd_placement_t *p,
                          bool *graphs_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parallel_settings_t *x = o->settings;
    *graphs_out = false;
    if (x->device_map.kind != LRD_DEVICE_MAP_AUTO) {
        LRD_TRY(take_map(o, rooms, p, graphs_out));
    } else if (lrd_comm_size(o->comm) > 1 || x->max_memory.n > 0 ||
               lrd_ranks_may_offload(x, o->engine)) {
        LRD_TRY(choose(o, rooms, p, graphs_out));
    } else { /* there is no choice on the host, and the allocation says what is missing */
        int least, most;
        LRD_TRY(lrd_ranks_stages(x, 1, &least, &most));
        LRD_NEW(p->begin, 2);
        p->n_stages = p->n_runs = 1;
        p->begin[1] = (int)o->engine->config.n_layers;
    }
out:
    return status;
}

static lrd_status_t say(const lrd_placement_t *p)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t map = {0};
    LRD_TRY(lrd_placement_print_map(p, &map));
    lrd_info("device_map = %s", map.data);
out:
    lrd_buf_release(&map);
    return status;
}

/* This rank's layers. */
static lrd_status_t keep(const lrd_spread_options_t *o, const lrd_placement_t *p, int stage)
{
    lrd_status_t status = LRD_OK;
    lrd_runs_t runs = {.run = NULL};
    if (p->n_stages == 1 && p->home == NULL)
        goto out;
    LRD_TRY(say(p));
    LRD_TRY(lrd_placement_stage(p, stage, &runs));
    LRD_TRY(lrd_engine_keep(o->engine, &runs));
out:
    lrd_free(runs.run);
    return status;
}

lrd_status_t lrd_spread_open(const lrd_spread_options_t *o, lrd_grid_t *grid_out, bool *graphs_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(o->comm);
    lrd_rooms_t rooms = {.free = NULL};
    lrd_placement_t p = {.begin = NULL};
    LRD_NEW(rooms.free, size);
    LRD_NEW(rooms.limited, size);
    LRD_NEW(rooms.host, size);
    LRD_NEW(rooms.why, size);
out:
    status = lrd_agree(o->comm, status);
    if (status == LRD_OK)
        status = lrd_ranks_alike(o->comm, o->engine->backend);
    if (status == LRD_OK)
        status = lrd_devices_check(o->comm, o->engine->backend, o->settings->ranks_per_device);
    if (status == LRD_OK)
        status = lrd_ranks_rooms(&(lrd_rooms_options_t){.comm = o->comm,
                                                        .settings = o->settings,
                                                        .backend = o->engine->backend},
                                 rooms);
    if (status == LRD_OK)
        status = lrd_devcomm_expect(o->comm, o->engine->stream, o->settings, &o->engine->direct);
    if (status == LRD_OK)
        status = lrd_agree(o->comm, place(o, rooms, &p, graphs_out));
    if (status == LRD_OK)
        status = lrd_engine_prepare_files(o->engine, o->comm, p.home, o->settings->offload_folder,
                                          false);
    if (status == LRD_OK)
        status = lrd_agree(o->comm, lrd_grid_open(o->comm, p.n_stages, grid_out));
    if (status == LRD_OK)
        status = lrd_agree(o->comm, keep(o, &p, grid_out->stage));
    if (status == LRD_OK)
        status = lrd_grid_connect(grid_out, o->engine->stream, o->settings, false);
    if (status == LRD_OK)
        lrd_ranks_report_graphs(o->engine->backend, *graphs_out);
    if (status == LRD_OK)
        o->engine->nccl = (lrd_aside_t){reserve(o, p.n_stages), lrd_grid_taken(grid_out)};
    lrd_placement_release(&p);
    lrd_free(rooms.why);
    lrd_free(rooms.host);
    lrd_free(rooms.limited);
    lrd_free(rooms.free);
    return status;
}
