#include "comm/grid.h"

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
