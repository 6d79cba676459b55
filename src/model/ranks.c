#include "model/ranks.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"
#include "comm/alike.h"
#include "model/device_map.h"

#include <stdio.h>

lrd_status_t lrd_ranks_alike(lrd_comm_t *comm, lrd_backend_t *be)
{
    char software[LRD_SOFTWARE], facts[LRD_SOFTWARE + 128];
    lrd_backend_software(be, software);
    snprintf(facts, sizeof facts, "lora-dist's version\t" LRD_VERSION "\nback end\t%s\n%s",
             be->ops->name, software);
    return lrd_alike_check(comm, facts);
}

lrd_status_t lrd_ranks_stages(const lrd_parallel_settings_t *p, int n_ranks, int *least_out,
                              int *most_out)
{
    lrd_status_t status = LRD_OK;
    const bool has_data = p->data != LRD_SETTING_AUTO, has_stages = p->pipeline != LRD_SETTING_AUTO;
    const int64_t stages = has_stages ? p->pipeline : has_data ? n_ranks / p->data : 0;
    const int64_t data = has_data ? p->data : has_stages ? n_ranks / stages : 0;
    LRD_CHECK((!has_data && !has_stages) || data * stages == n_ranks, LRD_ERR_CONFIG,
              "parallel.data and parallel.pipeline: %lld x %lld is not the %d rank%s of this run. "
              "Start as many, or leave one of the two out",
              (long long)data, (long long)stages, n_ranks, n_ranks == 1 ? "" : "s");
    *least_out = stages > 0 ? (int)stages : 1;
    *most_out = stages > 0 ? (int)stages : n_ranks;
out:
    return status;
}

int lrd_ranks_chunks(const lrd_parallel_settings_t *p)
{
    return p->pipeline_chunks != LRD_SETTING_AUTO ? (int)p->pipeline_chunks : 1;
}

bool lrd_ranks_may_be(const lrd_parallel_settings_t *p, const lrd_model_config_t *config,
                      int n_ranks, int n_stages)
{
    const int n_runs = n_stages > 1 ? n_stages * lrd_ranks_chunks(p) : 1;
    return n_ranks % n_stages == 0 && n_runs <= config->n_layers + 1;
}

/* No more than parallel.max_memory says of a device: that of the rank on its host. */
static int64_t limit(const lrd_max_memory_t *max, int device, int64_t bytes)
{
    for (size_t i = 0; i < max->n; i++) {
        if (max->entry[i].device == device && max->entry[i].bytes < bytes)
            bytes = max->entry[i].bytes;
    }
    return bytes;
}

/* What this rank sees, before the others are asked. */
typedef struct own {
    lrd_host_memory_t host;
    size_t device_bytes;
} own_t;

/* The groups of processes that a rank shares memory with, by the numbers of its bounds. */
typedef struct groups {
    uint64_t of[LRD_MEMORY_BOUNDS];
} groups_t;

static lrd_status_t look(const lrd_rooms_options_t *o, own_t *own, groups_t *groups)
{
    lrd_status_t status = LRD_OK;
    size_t total_bytes;
    LRD_TRY(lrd_host_memory_read(&own->host));
    for (int i = 0; i < own->host.n; i++)
        groups->of[i] = own->host.bound[i].group;
    if (!o->backend->ops->reads_host_memory)
        LRD_TRY(lrd_mem_info(o->backend, &own->device_bytes, &total_bytes));
out:
    return status;
}

/* How many ranks are in a group. */
static int count_in(const groups_t *ranks, int n_ranks, uint64_t group)
{
    int n = 0;
    for (int r = 0; r < n_ranks; r++) {
        bool is_in = false;
        for (int i = 0; i < LRD_MEMORY_BOUNDS; i++)
            is_in = is_in || ranks[r].of[i] == group;
        n += is_in;
    }
    return group != 0 ? n : 1;
}

/* What this rank has: its device, or its part of the host's memory. */
static void find_own(const lrd_rooms_options_t *o, const own_t *own, const groups_t *groups,
                     lrd_rooms_t rooms)
{
    const lrd_max_memory_t *max = &o->settings->max_memory;
    const int rank = lrd_comm_rank(o->comm);
    const bool shared = o->backend->ops->reads_host_memory;
    int sharing[LRD_MEMORY_BOUNDS];
    lrd_room_reason_t why = {.text = "free memory of its device"};
    size_t part;
    for (int i = 0; i < own->host.n; i++)
        sharing[i] = count_in(groups, lrd_comm_size(o->comm), own->host.bound[i].group);
    const lrd_memory_bound_t *least = lrd_host_memory_least(&own->host, sharing, &part);
    const int n = sharing[least - own->host.bound];
    if (shared && n > 1)
        snprintf(why.text, sizeof why.text, "%s, shared by %d ranks", least->name, n);
    else if (shared)
        snprintf(why.text, sizeof why.text, "%s", least->name);
    rooms.free[rank] = (int64_t)(shared ? part : own->device_bytes);
    rooms.limited[rank] = limit(max, lrd_comm_local_rank(o->comm), rooms.free[rank]);
    rooms.host[rank] = limit(max, LRD_DEVICE_CPU, (int64_t)part);
    if (rooms.why != NULL)
        rooms.why[rank] = why;
}

/* Where the settings allow less than there is, that is why. */
static void blame_settings(const lrd_rooms_options_t *o, lrd_rooms_t rooms)
{
    for (int r = 0; r < lrd_comm_size(o->comm) && rooms.why != NULL; r++) {
        if (rooms.limited[r] < rooms.free[r])
            rooms.why[r] = (lrd_room_reason_t){.text = "parallel.max_memory"};
    }
}

/* The other ranks are not there: what they have is said, or is what this one has. */
static void imagine(const lrd_rooms_options_t *o, lrd_rooms_t rooms)
{
    const lrd_max_memory_t *max = &o->settings->max_memory;
    const int last = o->n_memory - 1;
    for (int r = 0; r < lrd_comm_size(o->comm); r++) {
        rooms.host[r] = rooms.host[0];
        rooms.free[r] = o->memory != NULL ? o->memory[r < last ? r : last] : rooms.free[0];
        rooms.limited[r] = limit(max, r, rooms.free[r]);
        if (rooms.why != NULL)
            rooms.why[r] =
                o->memory != NULL ? (lrd_room_reason_t){.text = "--memory"} : rooms.why[0];
    }
}

/* all[r] receives what rank r has there. Collective; offset[size + 1] is memory for it. */
static lrd_status_t gather(lrd_comm_t *comm, void *all, size_t bytes, size_t *offset)
{
    for (int r = 0; r <= lrd_comm_size(comm); r++)
        offset[r] = (size_t)r * bytes;
    return lrd_comm_all_gather(comm, (char *)all + offset[lrd_comm_rank(comm)], all, offset);
}

lrd_status_t lrd_ranks_rooms(const lrd_rooms_options_t *o, lrd_rooms_t rooms)
{
    lrd_status_t status = LRD_OK;
    const int rank = lrd_comm_rank(o->comm), size = lrd_comm_size(o->comm);
    int64_t *const all[] = {rooms.free, rooms.limited, rooms.host};
    own_t own = {.device_bytes = 0};
    groups_t *groups = NULL;
    size_t *offset = NULL;
    LRD_NEW(offset, size + 1);
    LRD_NEW(groups, size);
    LRD_TRY(look(o, &own, &groups[rank]));
out:
    status = lrd_agree(o->comm, status);
    if (status == LRD_OK)
        status = gather(o->comm, groups, sizeof *groups, offset);
    for (int r = 0; r < size && o->imagined && status == LRD_OK; r++)
        groups[r] = groups[rank]; /* all on this host */
    if (status == LRD_OK)
        find_own(o, &own, groups, rooms);
    for (int i = 0; i < 3 && status == LRD_OK; i++)
        status = gather(o->comm, all[i], sizeof(int64_t), offset);
    if (rooms.why != NULL && status == LRD_OK)
        status = gather(o->comm, rooms.why, sizeof *rooms.why, offset);
    if (o->imagined && status == LRD_OK)
        imagine(o, rooms);
    if (status == LRD_OK)
        blame_settings(o, rooms);
    lrd_free(groups);
    lrd_free(offset);
    return status;
}

int lrd_ranks_least(const int64_t *room, int n_ranks)
{
    int least = 0;
    for (int r = 1; r < n_ranks; r++)
        least = room[r] < room[least] ? r : least;
    return least;
}

int64_t lrd_ranks_room(const int64_t *room, int n_ranks, int n_stages, int stage)
{
    int64_t least = room[stage];
    for (int rank = stage; rank < n_ranks; rank += n_stages)
        least = room[rank] < least ? room[rank] : least;
    return least;
}

static lrd_status_t read_map(const lrd_device_map_t *map, const lrd_engine_t *engine,
                             lrd_rooms_t rooms, int n_devices, int *device)
{
    const lrd_weights_t *w = engine->weights;
    const bool balanced = map->kind == LRD_DEVICE_MAP_BALANCED;
    /* Where the device is the host there is no other memory. */
    const int64_t host = engine->backend->ops->reads_host_memory ? 0 : rooms.host[0];
    if (map->kind == LRD_DEVICE_MAP_EXPLICIT)
        return lrd_device_map_read(map, &engine->config, device);
    return lrd_device_map_infer(&engine->config, lrd_dtype_bytes(w->dtype), w->tied, balanced,
                                rooms.limited, n_devices, host, device);
}

lrd_status_t lrd_ranks_map(const lrd_parallel_settings_t *x, const lrd_engine_t *engine,
                           lrd_rooms_t rooms, int n_ranks, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    lrd_placement_t p = {.begin = NULL};
    int least, most, *device = NULL;
    LRD_TRY(lrd_ranks_stages(x, n_ranks, &least, &most));
    LRD_NEW(device, lrd_device_map_parts(&engine->config));
    LRD_TRY(read_map(&x->device_map, engine, rooms, most, device));
    LRD_TRY(lrd_device_map_place(&engine->config, device, &p));
    LRD_CHECK(p.n_stages >= least && p.n_stages <= most && n_ranks % p.n_stages == 0,
              LRD_ERR_CONFIG,
              "parallel.device_map: the layers are on %d device%s, which the %d rank%s of this run "
              "(parallel.data, parallel.pipeline) cannot be divided into",
              p.n_stages, p.n_stages == 1 ? "" : "s", n_ranks, n_ranks == 1 ? "" : "s");
    LRD_CHECK(x->pipeline_chunks == LRD_SETTING_AUTO ||
                  lrd_ranks_chunks(x) == p.n_runs / p.n_stages,
              LRD_ERR_CONFIG, "parallel.pipeline_chunks: %d, and device_map has %d",
              lrd_ranks_chunks(x), p.n_runs / p.n_stages);
    *placement_out = p;
    p = (lrd_placement_t){.begin = NULL};
out:
    lrd_placement_release(&p);
    lrd_free(device);
    return status;
}

bool lrd_ranks_use_files(const lrd_parallel_settings_t *x, const lrd_engine_t *engine)
{
    lrd_arena_t arena = {0};
    if (!engine->backend->ops->reads_host_memory)
        return false;
    lrd_weights_layout(engine->weights, engine->backend, &arena);
    return engine->weights->mapped_bytes > 0 || x->offload_folder != NULL;
}

lrd_status_t lrd_ranks_leave_in_files(lrd_placement_t *p)
{
    lrd_warn("The weights do not fit into memory beside the rest: they are read from files as they "
             "are needed, which is slow");
    return lrd_placement_set_home(p, LRD_HOME_FILE);
}

void lrd_ranks_report_graphs(const lrd_backend_t *be, bool graphs)
{
    if (lrd_has_graphs(be) && !graphs)
        lrd_info("No room for graphs beside the run: passes are launched op by op");
}

bool lrd_ranks_may_offload(const lrd_parallel_settings_t *x, const lrd_engine_t *engine)
{
    return !engine->backend->ops->reads_host_memory || x->offload_folder != NULL;
}

/* Which of n things in a row are the chosen ones: as far from each other as can be. */
static bool is_chosen(int i, int chosen, int n)
{
    return (int64_t)(i + 1) * chosen / n > (int64_t)i * chosen / n;
}

/* The homes of a stage's n blocks, of which so many leave the device, and so many of these have room on
 * the host. */
static void spread_out(lrd_placement_t *p, int stage, int n, int leaving, int on_host)
{
    for (int layer = 0, i = 0, left = 0; layer < p->begin[p->n_runs]; layer++) {
        if (lrd_placement_stage_of(p, layer) != stage)
            continue;
        if (!is_chosen(i++, leaving, n))
            p->home[layer] = LRD_HOME_DEVICE;
        else
            p->home[layer] = is_chosen(left++, on_host, leaving) ? LRD_HOME_HOST : LRD_HOME_FILE;
    }
}

static int64_t clamp(int64_t value, int64_t most)
{
    return value < 0 ? 0 : value > most ? most : value;
}

lrd_status_t lrd_ranks_spill(const lrd_parallel_settings_t *x, const lrd_weights_t *w,
                             const lrd_spill_room_t *room, lrd_placement_t *p)
{
    lrd_status_t status = LRD_OK;
    const int64_t block = (int64_t)lrd_weights_block_bytes(w);
    LRD_TRY(lrd_placement_set_home(p, LRD_HOME_HOST));
    for (int stage = 0; stage < p->n_stages; stage++) {
        const int64_t n = lrd_placement_count_home(p, stage, LRD_HOME_HOST);
        /* The slots become blocks that stay where no more than these would travel. */
        const int64_t rest = n - clamp(room[stage].device / block, n);
        const int64_t leaving = rest > LRD_WEIGHTS_SLOTS ? rest : 0;
        /* Files come through two pieces of pinned memory, which are no larger than a block. */
        const int64_t whole = clamp(room[stage].host / block, leaving);
        const int64_t on_host = whole == leaving ? whole : clamp(whole - 2, leaving);
        LRD_CHECK(on_host == leaving || x->offload_folder != NULL || lrd_weights_in_files(w),
                  LRD_ERR_CONFIG,
                  "stage %d keeps %lld of its %lld blocks off its device, and %.2f GiB of host "
                  "memory (its part of what is free, or parallel.max_memory; lora-dist info lists "
                  "the limits) hold %lld of them. The model's files have "
                  "another dtype than the run: name a parallel.offload_folder for a copy that "
                  "has it",
                  stage, (long long)leaving, (long long)n, (double)room[stage].host / 0x1p30,
                  (long long)on_host);
        spread_out(p, stage, (int)n, (int)leaving, (int)on_host);
    }
out:
    return status;
}
