#include "model/ranks.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/device_map.h"

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

lrd_status_t lrd_ranks_rooms(const lrd_rooms_options_t *o, lrd_rooms_t rooms)
{
    lrd_status_t status = LRD_OK;
    const lrd_max_memory_t *max = &o->settings->max_memory;
    const int rank = lrd_comm_rank(o->comm), size = lrd_comm_size(o->comm);
    size_t free_bytes = 0, total_bytes;
    size_t *offset = NULL;
    for (int r = 0; r < size && o->memory != NULL; r++) {
        rooms.free[r] = o->memory[r < o->n_memory ? r : o->n_memory - 1];
        rooms.limited[r] = limit(max, r, rooms.free[r]);
    }
    if (o->memory != NULL)
        return LRD_OK;
    LRD_NEW(offset, size + 1);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof(int64_t);
    LRD_TRY(lrd_mem_info(o->backend, &free_bytes, &total_bytes));
out:
    status = lrd_agree(o->comm, status);
    if (status == LRD_OK) {
        /* A host's memory is for all of its ranks. */
        const bool shared = o->backend->ops->reads_host_memory;
        rooms.free[rank] = (int64_t)free_bytes / (shared ? lrd_comm_local_size(o->comm) : 1);
        rooms.limited[rank] = limit(max, lrd_comm_local_rank(o->comm), rooms.free[rank]);
        status = lrd_comm_all_gather(o->comm, &rooms.free[rank], rooms.free, offset);
    }
    if (status == LRD_OK)
        status = lrd_comm_all_gather(o->comm, &rooms.limited[rank], rooms.limited, offset);
    for (int r = 1; r < size && o->imagined && status == LRD_OK; r++) {
        rooms.free[r] = rooms.free[0];
        rooms.limited[r] = limit(max, r, rooms.free[0]);
    }
    lrd_free(offset);
    return status;
}

int64_t lrd_ranks_room(const int64_t *room, int n_ranks, int n_stages, int stage)
{
    int64_t least = room[stage];
    for (int rank = stage; rank < n_ranks; rank += n_stages)
        least = room[rank] < least ? room[rank] : least;
    return least;
}

static lrd_status_t read_map(const lrd_device_map_t *map, const lrd_engine_t *engine,
                             const int64_t *room, int n_devices, int *device)
{
    const lrd_weights_t *w = engine->weights;
    return map->kind == LRD_DEVICE_MAP_EXPLICIT
               ? lrd_device_map_read(map, &engine->config, device)
               : lrd_device_map_infer(&engine->config, lrd_dtype_bytes(w->dtype), w->tied,
                                      map->kind == LRD_DEVICE_MAP_BALANCED, room, n_devices,
                                      device);
}

lrd_status_t lrd_ranks_map(const lrd_parallel_settings_t *x, const lrd_engine_t *engine,
                           const int64_t *limited, int n_ranks, lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    lrd_placement_t p = {.begin = NULL};
    int least, most, *device = NULL;
    LRD_TRY(lrd_ranks_stages(x, n_ranks, &least, &most));
    LRD_NEW(device, lrd_device_map_parts(&engine->config));
    LRD_TRY(read_map(&x->device_map, engine, limited, most, device));
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
    p.begin = NULL;
out:
    lrd_placement_release(&p);
    lrd_free(device);
    return status;
}

bool lrd_ranks_use_files(const lrd_engine_t *engine)
{
    lrd_arena_t arena = {0};
    lrd_weights_layout(engine->weights, engine->backend, &arena);
    return engine->weights->mapped_bytes > 0;
}

void lrd_ranks_warn_of_files(void)
{
    lrd_warn("The weights do not fit into memory beside the rest: they are read from the model's "
             "files as they are needed, which is slow");
}
