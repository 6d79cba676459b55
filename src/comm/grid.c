#include "comm/grid.h"

#include "base/log.h"

lrd_status_t lrd_grid_open(lrd_comm_t *world, int n_stages, lrd_grid_t *grid_out)
{
    lrd_status_t status = LRD_OK;
    const int rank = lrd_comm_rank(world), size = lrd_comm_size(world);
    lrd_grid_t g = {.world = world,
                    .row = world,
                    .column = world,
                    .n_replicas = size / n_stages,
                    .n_stages = n_stages,
                    .replica = rank / n_stages,
                    .stage = rank % n_stages};
    if (n_stages < size)
        LRD_TRY(lrd_comm_split(world, g.replica, g.stage, n_stages, &g.row));
    if (n_stages > 1)
        LRD_TRY(lrd_comm_split(world, g.stage, g.replica, g.n_replicas, &g.column));
    *grid_out = g;
out:
    return status;
}

lrd_status_t lrd_grid_connect(lrd_grid_t *g, lrd_stream_t *stream,
                              const lrd_parallel_settings_t *settings, bool columns)
{
    lrd_status_t status = LRD_OK;
    const double timeout = settings->timeout_seconds;
    char library[96];
    bool use;
    columns = columns && g->n_replicas > 1;
    if (!columns && g->n_stages == 1)
        goto out;
    LRD_TRY(lrd_devcomm_choose(g->world, stream, settings, &use));
    if (!use)
        goto out;
    if (columns)
        LRD_TRY(
            lrd_agree(g->world, lrd_devcomm_open(g->column, stream, timeout, &g->column_devices)));
    if (g->n_stages > 1)
        LRD_TRY(lrd_agree(g->world, lrd_devcomm_open(g->row, stream, timeout, &g->row_devices)));
    LRD_TRY(lrd_devcomm_library(library));
    lrd_info("GPUs exchange %s by %s",
             !columns          ? "activations"
             : g->n_stages > 1 ? "gradients and activations"
                               : "gradients",
             library);
out:
    return status;
}

size_t lrd_grid_reserve(int n_replicas, int n_stages, const lrd_parallel_settings_t *settings,
                        bool columns)
{
    const bool exchanges = settings->reduction == LRD_REDUCTION_REPRODUCIBLE;
    size_t bytes = 0;
    if (columns && n_replicas > 1)
        bytes += lrd_devcomm_reserve(n_replicas, exchanges ? n_replicas - 1 : 0, true);
    if (n_stages > 1) /* with the stage below and the one above */
        bytes += lrd_devcomm_reserve(n_stages, n_stages > 2 ? 2 : 1, false);
    return bytes;
}

size_t lrd_grid_taken(const lrd_grid_t *g)
{
    return (g->column_devices != NULL ? lrd_devcomm_taken(g->column_devices) : 0) +
           (g->row_devices != NULL ? lrd_devcomm_taken(g->row_devices) : 0);
}

void lrd_grid_disconnect(lrd_grid_t *g)
{
    lrd_devcomm_close(g->row_devices);
    lrd_devcomm_close(g->column_devices);
    g->row_devices = g->column_devices = NULL;
}
