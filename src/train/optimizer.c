#include "train/optimizer.h"

#include "base/mem.h"
#include "train/schedule.h"

#include <string.h>

/* torch.amp.GradScaler's first scale. */
static const float first_loss_scale = 65536.0f;

lrd_step_state_t lrd_optimizer_fresh_clock(bool scaler)
{
    return (lrd_step_state_t){.loss_scale = scaler ? first_loss_scale : 1.0f};
}

void lrd_optimizer_layout(lrd_optimizer_t *o, lrd_arena_t *arena)
{
    const size_t bytes = (size_t)o->adapter->n_params * sizeof(float);
    o->params = lrd_arena_take(arena, "adapter", bytes);
    o->m = lrd_arena_take(arena, "optimizer", bytes);
    o->v = lrd_arena_take(arena, "optimizer", bytes);
    o->lr_table = lrd_arena_take(arena, "optimizer", (size_t)o->n_updates * sizeof(double));
    o->sumsq = lrd_arena_take(arena, "optimizer", 2 * (size_t)o->adapter->n_items * sizeof(double));
    o->state = lrd_arena_take(arena, "optimizer", sizeof *o->state);
}

/* Moves host memory to the device, or back, through `pinned`. */
static lrd_status_t move(lrd_stream_t *st, lrd_copydir_t dir, void *device, void *host,
                         size_t bytes, void *pinned)
{
    lrd_status_t status = LRD_OK;
    if (dir == LRD_COPY_H2D) {
        memcpy(pinned, host, bytes);
        LRD_TRY(lrd_copy(st, dir, device, pinned, bytes));
        LRD_TRY(lrd_stream_sync(st));
    } else {
        LRD_TRY(lrd_copy(st, dir, pinned, device, bytes));
        LRD_TRY(lrd_stream_sync(st));
        memcpy(host, pinned, bytes);
    }
out:
    return status;
}

static size_t largest(size_t a, size_t b)
{
    return a > b ? a : b;
}

lrd_status_t lrd_optimizer_upload(lrd_optimizer_t *o, const lrd_optimizer_state_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = (size_t)o->adapter->n_params * sizeof(float);
    const size_t table = (size_t)o->n_updates * sizeof(double);
    const size_t most = largest(largest(bytes, table), sizeof s->clock);
    lrd_backend_t *be = o->stream->backend;
    void *pinned = NULL;
    double *lr = NULL;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, most, &pinned));
    LRD_NEW(lr, o->n_updates);
    lrd_schedule_fill(o->settings, o->n_updates, lr);
    LRD_TRY(move(o->stream, LRD_COPY_H2D, o->lr_table, lr, table, pinned));
    LRD_TRY(move(o->stream, LRD_COPY_H2D, o->params, s->params, bytes, pinned));
    LRD_TRY(move(o->stream, LRD_COPY_H2D, o->state, (void *)&s->clock, sizeof s->clock, pinned));
    if (s->m != NULL) {
        LRD_TRY(move(o->stream, LRD_COPY_H2D, o->m, s->m, bytes, pinned));
        LRD_TRY(move(o->stream, LRD_COPY_H2D, o->v, s->v, bytes, pinned));
    } else {
        LRD_TRY(lrd_zero(o->stream, o->m, bytes));
        LRD_TRY(lrd_zero(o->stream, o->v, bytes));
        LRD_TRY(lrd_stream_sync(o->stream));
    }
out:
    lrd_free(lr);
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, most);
    return status;
}

lrd_status_t lrd_optimizer_download(lrd_optimizer_t *o, lrd_optimizer_state_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = (size_t)o->adapter->n_params * sizeof(float),
                 most = largest(bytes, sizeof s->clock);
    lrd_backend_t *be = o->stream->backend;
    void *pinned = NULL;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, most, &pinned));
    LRD_TRY(move(o->stream, LRD_COPY_D2H, o->params, s->params, bytes, pinned));
    LRD_TRY(move(o->stream, LRD_COPY_D2H, o->m, s->m, bytes, pinned));
    LRD_TRY(move(o->stream, LRD_COPY_D2H, o->v, s->v, bytes, pinned));
    LRD_TRY(move(o->stream, LRD_COPY_D2H, o->state, &s->clock, sizeof s->clock, pinned));
out:
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, most);
    return status;
}

lrd_status_t lrd_optimizer_step(lrd_optimizer_t *o, const float *grads, lrd_scratch_t scratch)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *t = o->settings;
    const int32_t n_tensors = 2 * (int32_t)o->adapter->n_items;
    LRD_TRY(lrd_sumsq(
        o->stream, scratch,
        &(lrd_sumsq_t){
            .x = grads, .begin = o->adapter->begin, .n_tensors = n_tensors, .out = o->sumsq}));
    LRD_TRY(lrd_step_finish(o->stream, scratch,
                            &(lrd_step_finish_t){.sumsq = o->sumsq,
                                                 .n_tensors = n_tensors,
                                                 .max_norm = (float)t->max_grad_norm,
                                                 .scaler = o->scaler,
                                                 .state = o->state}));
    LRD_TRY(lrd_adamw(o->stream, scratch,
                      &(lrd_adamw_t){.p = o->params,
                                     .m = o->m,
                                     .v = o->v,
                                     .g = grads,
                                     .n = o->adapter->n_params,
                                     .lr_table = o->lr_table,
                                     .beta1 = t->adam_beta1,
                                     .beta2 = t->adam_beta2,
                                     .eps = t->adam_epsilon,
                                     .weight_decay = t->weight_decay,
                                     .state = o->state}));
out:
    return status;
}
