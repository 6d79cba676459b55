#include "train/pace.h"

#include "base/log.h"
#include "base/mem.h"

#include <math.h>

/* What moves a number between device and host memory, in multiplications of the device in that time: a core
 * makes some 1e11 a second and copies 1e9 floats; a GPU makes 1e14 or more, and copies some 1e10 16-bit
 * numbers, through pinned memory. */
static const double copy_of_host = 100, copy_of_device = 20000;

/* What the matrices of a block have elements. */
static double count_block(const lrd_model_config_t *c)
{
    double sum = 0;
    for (int i = 0; i < c->family->n_linears; i++) {
        const lrd_tensor_decl_t *w = &c->family->block_tensors[c->family->linears[i].weight];
        sum += (double)lrd_dim_size(c, w->shape[0]) * (double)lrd_dim_size(c, w->shape[1]);
    }
    return sum;
}

lrd_pass_times_t lrd_pace_count(const lrd_session_t *s)
{
    const lrd_model_config_t *c = &s->engine.config;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    const double block = count_block(c);
    const bool host = s->engine.backend->ops->reads_host_memory;
    return (lrd_pass_times_t){.forward = block,
                              .backward = block,
                              .lowest_backward = block,
                              .head = 2.0 * (double)(c->vocab_size * c->hidden) *
                                      (double)d->n_targets / (double)d->n_tokens,
                              .copy = (host ? copy_of_host : copy_of_device) * (double)c->hidden};
}

lrd_status_t lrd_pace_alike(const lrd_session_t *s, bool *alike_out)
{
    return lrd_comm_same(s->o.comm, s->engine.machine, sizeof s->engine.machine, alike_out);
}

static void say(const lrd_pass_times_t *times, int n_ranks)
{
    int fastest = 0, slowest = 0;
    for (int r = 1; r < n_ranks; r++) {
        fastest = times[r].forward < times[fastest].forward ? r : fastest;
        slowest = times[r].forward > times[slowest].forward ? r : slowest;
    }
    lrd_info(
        "The ranks' devices or threads differ: a block takes %.3g s forward on rank %d, %.3g s "
        "on rank %d; layers are placed by that",
        times[fastest].forward, fastest, times[slowest].forward, slowest);
}

lrd_status_t lrd_pace_measure(const lrd_session_t *s, lrd_pass_times_t *times)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->o.comm), rank = lrd_comm_rank(s->o.comm);
    size_t *offset = NULL;
    LRD_NEW(offset, size + 1);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof *times;
    LRD_TRY(lrd_calibrate(s, &times[rank]));
out:
    status = lrd_agree(s->o.comm, status);
    if (status == LRD_OK)
        status = lrd_comm_all_gather(s->o.comm, &times[rank], times, offset);
    if (status == LRD_OK && rank == 0)
        say(times, size);
    lrd_free(offset);
    return status;
}

void lrd_pace_of_stages(const lrd_pass_times_t *by_rank, int n_ranks, int n_stages,
                        lrd_pass_times_t *times)
{
    for (int stage = 0; stage < n_stages; stage++) {
        lrd_pass_times_t t = by_rank[stage];
        for (int r = stage; r < n_ranks; r += n_stages) {
            t.embed = fmax(t.embed, by_rank[r].embed);
            t.forward = fmax(t.forward, by_rank[r].forward);
            t.backward = fmax(t.backward, by_rank[r].backward);
            t.lowest_backward = fmax(t.lowest_backward, by_rank[r].lowest_backward);
            t.head = fmax(t.head, by_rank[r].head);
            t.copy = fmax(t.copy, by_rank[r].copy);
        }
        times[stage] = t;
    }
}
