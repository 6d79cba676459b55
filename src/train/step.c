#include "train/step.h"

#include "base/mem.h"
#include "base/share.h"

#include <math.h>
#include <string.h>

lrd_status_t lrd_stepper_open(lrd_stepper_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t slots = (size_t)s->max_micro_batches * sizeof(double);
    s->pinned_bytes = slots + sizeof(lrd_step_state_t);
    LRD_TRY(lrd_mem_alloc(s->stage->stream->backend, LRD_MEM_PINNED, s->pinned_bytes,
                          (void **)&s->pinned));
    LRD_NEW(s->news, s->max_micro_batches + lrd_comm_size(s->comm));
    LRD_NEW(s->news_offset, lrd_comm_size(s->comm) + 1);
out:
    return status;
}

void lrd_stepper_close(lrd_stepper_t *s)
{
    if (s->pinned != NULL)
        lrd_mem_free(s->stage->stream->backend, LRD_MEM_PINNED, s->pinned, s->pinned_bytes);
    lrd_free(s->news_offset);
    lrd_free(s->news);
    lrd_batch_release(&s->batch);
    s->pinned = NULL;
    s->news = NULL;
    s->news_offset = NULL;
}

void lrd_stepper_layout(lrd_stepper_t *s, lrd_arena_t *arena)
{
    s->nll = lrd_arena_take(arena, "buffers", (size_t)s->max_micro_batches * sizeof(double));
}

static lrd_status_t run_micro_batch(lrd_stepper_t *s, const lrd_update_t *update, int64_t index,
                                    double *nll)
{
    lrd_status_t status = LRD_OK;
    lrd_micro_batch_t batch;
    const int64_t first = update->first[index], n = update->first[index + 1] - first;
    const double inv_n_target = update->n_targets > 0 ? 1.0 / (double)update->n_targets : 0.0;
    LRD_TRY(lrd_batch_pack(s->set, update->record + first, n, update->epoch, &s->batch));
    LRD_TRY(lrd_feed_upload(s->feed, &s->batch, &batch));
    LRD_TRY(lrd_reduce_leaf(s->reduce, &s->stage->grads));
    LRD_TRY(lrd_stage_train(s->stage, &batch,
                            &(lrd_stage_loss_t){inv_n_target, s->optimizer->state, nll, NULL}));
    LRD_TRY(lrd_reduce_leaf_done(s->reduce));
out:
    return status;
}

/* Losses of all micro-batches in their order, and whether anyone wants to stop. Each rank tells its
 * own losses and one flag. */
static lrd_status_t exchange(lrd_stepper_t *s, int64_t n_micro_batches, int64_t mine, bool stop,
                             double *nll_out, bool *stop_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(s->comm), rank = lrd_comm_rank(s->comm);
    for (int r = 0; r <= size; r++)
        s->news_offset[r] =
            (size_t)(lrd_share_begin(n_micro_batches, r, size) + r) * sizeof(double);
    double *own = s->news + s->news_offset[rank] / sizeof(double);
    memcpy(own, s->pinned, (size_t)mine * sizeof(double));
    own[mine] = stop;
    LRD_TRY(lrd_comm_all_gather(s->comm, own, s->news, s->news_offset));
    *nll_out = 0;
    *stop_out = false;
    for (int r = 0; r < size; r++) {
        const double *news = s->news + s->news_offset[r] / sizeof(double);
        const double *flag = s->news + s->news_offset[r + 1] / sizeof(double) - 1;
        for (; news < flag; news++)
            *nll_out += *news;
        *stop_out = *stop_out || *flag != 0;
    }
out:
    return status;
}

/* This rank's share, unless it is asked to stop meanwhile. All ranks drop the update, or none. */
static lrd_status_t run_share(lrd_stepper_t *s, const lrd_update_t *update, int64_t first,
                              int64_t last, bool *dropped_out)
{
    lrd_status_t status = LRD_OK;
    int64_t at = first, drop;
    while (at < last && *s->stop == 0) {
        LRD_TRY(run_micro_batch(s, update, at, s->nll + (at - first)));
        at++;
    }
    drop = at < last;
    LRD_TRY(lrd_comm_max_i64(s->comm, &drop, 1));
    *dropped_out = drop != 0;
out:
    return status;
}

lrd_status_t lrd_stepper_run(lrd_stepper_t *s, const lrd_update_t *update,
                             lrd_step_result_t *result_out)
{
    lrd_status_t status = LRD_OK;
    lrd_stream_t *st = s->stage->stream;
    int64_t first, last;
    float *grads;
    lrd_step_result_t result = {.stop = false};
    lrd_step_state_t *clock = (lrd_step_state_t *)(s->pinned + s->max_micro_batches);
    double nll;
    lrd_reduce_begin(s->reduce, update->n_micro_batches, &first, &last);
    LRD_TRY(run_share(s, update, first, last, &result.dropped));
    if (result.dropped) {
        LRD_TRY(lrd_stream_sync(st)); /* what was enqueued reads host memory of the batch */
        result.stop = true;
        *result_out = result;
        goto out;
    }
    LRD_TRY(lrd_reduce_end(s->reduce, &grads));
    LRD_TRY(lrd_optimizer_step(s->optimizer, grads, s->stage->scratch));
    LRD_TRY(lrd_copy(st, LRD_COPY_D2H, s->pinned, s->nll, (size_t)(last - first) * sizeof(double)));
    LRD_TRY(lrd_copy(st, LRD_COPY_D2H, clock, s->optimizer->state, sizeof *clock));
    LRD_TRY(lrd_stream_sync(st));
    LRD_TRY(exchange(s, update->n_micro_batches, last - first, *s->stop != 0, &nll, &result.stop));
    result.loss = update->n_targets > 0 ? nll / (double)update->n_targets : 0.0;
    result.clock = *clock;
    *result_out = result;
out:
    return status;
}
