/* comm/grid.h -- the world as replicas x stages.
 *
 *   rank = replica * n_stages + stage           stage 0  stage 1
 *                                   replica 0   rank 0   rank 1     the stages of a replica share
 *                                   replica 1   rank 2   rank 3     a host where they can
 *
 * Activations travel along a row, gradients are summed along a column.
 */
#ifndef LRD_COMM_GRID_H
#define LRD_COMM_GRID_H

#include "comm/devcomm.h"

typedef struct lrd_grid {
    lrd_comm_t *world;
    lrd_comm_t *row;    /* the stages of this replica: its rank is the stage */
    lrd_comm_t *column; /* this stage of all replicas: its rank is the replica */
    int n_replicas, n_stages, replica, stage;
    /* Between the devices of the column, and of the row; NULL: through the host. */
    lrd_devcomm_t *column_devices, *row_devices;
} lrd_grid_t;

/* n_stages divides the size of the world. Collective. */
lrd_status_t lrd_grid_open(lrd_comm_t *world, int n_stages, lrd_grid_t *grid_out);

/* From here on rows exchange device memory directly, and columns if they have something to exchange, where they
 * can and the settings want it. The caller disconnects, before the stream is gone. Collective; failures are
 * agreed on. */
lrd_status_t lrd_grid_connect(lrd_grid_t *grid, lrd_stream_t *stream,
                              const lrd_parallel_settings_t *settings, bool columns);
void lrd_grid_disconnect(lrd_grid_t *grid); /* all ranks; {0} is fine */

/* Device memory that the library between devices takes for itself on a rank of such a grid at most, and what it has
 * taken so far (comm/devcomm.h). */
size_t lrd_grid_reserve(int n_replicas, int n_stages, const lrd_parallel_settings_t *settings,
                        bool columns);
size_t lrd_grid_taken(const lrd_grid_t *grid);

/* The rank of the world at a place of the grid. */
static inline int lrd_grid_rank(const lrd_grid_t *grid, int replica, int stage)
{
    return replica * grid->n_stages + stage;
}

#endif /* LRD_COMM_GRID_H */
