#include "train/travel.h"

#include "base/clock.h"

#include <math.h>

/* Of one block: the least of a few tries, on a part of it that is large enough. */
static lrd_status_t time_block(const lrd_session_t *s, double *seconds_out)
{
    enum { MOST = 64 << 20, REPEATS = 4 };
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = s->engine.backend;
    const size_t block = lrd_weights_block_bytes(s->engine.weights);
    const size_t bytes = block < MOST ? block : MOST;
    void *pinned = NULL, *device = NULL;
    double least = INFINITY;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, bytes, &pinned));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes, &device));
    for (int i = 0; i < REPEATS; i++) {
        const double begun = lrd_clock_seconds();
        LRD_TRY(lrd_copy(s->engine.stream, LRD_COPY_H2D, device, pinned, bytes));
        LRD_TRY(lrd_stream_sync(s->engine.stream));
        least = fmin(least, lrd_clock_seconds() - begun);
    }
    *seconds_out = least * (double)block / (double)bytes;
out:
    lrd_mem_free(be, LRD_MEM_DEVICE, device, bytes);
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, bytes);
    return status;
}

/* How often blocks of a stage travel for a micro-batch: forward, and from the lowest adapter up back. */
static int count_travels(const lrd_session_t *s, int stage)
{
    const lrd_placement_t *p = &s->placement;
    int n = 0;
    for (int layer = 0; layer < p->begin[p->n_runs]; layer++) {
        if (p->home[layer] != LRD_HOME_DEVICE && lrd_placement_stage_of(p, layer) == stage)
            n += layer >= s->adapter->lowest_layer ? 2 : 1;
    }
    return n;
}

lrd_status_t lrd_travel_seconds(const lrd_session_t *s, int n_ranks, double *seconds_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_placement_t *p = &s->placement;
    const int n_replicas = n_ranks / p->n_stages;
    lrd_stage_limits_t limits;
    int64_t micro_batches;
    double of_block;
    int most = 0;
    *seconds_out = 0;
    if (p->home == NULL || s->engine.backend->ops->reads_host_memory)
        goto out;
    for (int stage = 0; stage < p->n_stages; stage++)
        most = count_travels(s, stage) > most ? count_travels(s, stage) : most;
    LRD_TRY(lrd_session_limits(s, n_replicas, &limits, &micro_batches, NULL));
    LRD_TRY(time_block(s, &of_block));
    *seconds_out = of_block * most * ceil((double)micro_batches / n_replicas);
out:
    return status;
}
