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

/* The items of the part that lie in a run. */
static lrd_status_t find_run(const lrd_adapter_t *a, lrd_span_t span, lrd_optimizer_run_t *run)
{
    lrd_status_t status = LRD_OK;
    while (run->first_item < a->n_items && a->items[run->first_item].layer < span.first)
        run->first_item++;
    while (run->first_item + run->n_items < a->n_items &&
           a->items[run->first_item + run->n_items].layer < span.last)
        run->n_items++;
    const int64_t *begin = &a->begin[2 * run->first_item];
    run->first = begin[0];
    run->n = begin[2 * run->n_items] - begin[0];
    LRD_NEW(run->begin, 2 * run->n_items + 1);
    for (int i = 0; i <= 2 * run->n_items; i++)
        run->begin[i] = begin[i] - begin[0];
out:
    return status;
}

/* Behind the exchange stand the tensors of stage 0, those of stage 1, ... */
static void find_exchange(lrd_optimizer_t *o, const lrd_placement_t *placement)
{
    int n = 0;
    for (int stage = 0; stage < placement->n_stages; stage++) {
        o->offset[stage] = (size_t)n * sizeof(double);
        for (int i = 0; i < o->whole->n_items; i++) {
            if (lrd_placement_stage_of(placement, o->whole->items[i].layer) != stage)
                continue;
            o->tensor[n++] = 2 * i;
            o->tensor[n++] = 2 * i + 1;
        }
    }
    o->offset[placement->n_stages] = (size_t)n * sizeof(double);
}

lrd_status_t lrd_optimizer_open(lrd_optimizer_t *o, const lrd_runs_t *runs,
                                const lrd_placement_t *placement)
{
    lrd_status_t status = LRD_OK;
    LRD_NEW(o->run, runs->n);
    o->n_runs = runs->n;
    for (int r = 0; r < runs->n; r++)
        LRD_TRY(find_run(o->adapter, runs->run[r], &o->run[r]));
    if (placement->n_stages == 1)
        goto out;
    LRD_NEW(o->tensor, 2 * o->whole->n_items);
    LRD_NEW(o->offset, placement->n_stages + 1);
    find_exchange(o, placement);
    o->pinned_bytes = 4 * (size_t)o->whole->n_items * sizeof(double);
    LRD_TRY(
        lrd_mem_alloc(o->stream->backend, LRD_MEM_PINNED, o->pinned_bytes, (void **)&o->pinned));
out:
    return status;
}

void lrd_optimizer_close(lrd_optimizer_t *o)
{
    if (o->pinned != NULL)
        lrd_mem_free(o->stream->backend, LRD_MEM_PINNED, o->pinned, o->pinned_bytes);
    for (int r = 0; r < o->n_runs; r++)
        lrd_free(o->run[r].begin);
    lrd_free(o->run);
    lrd_free(o->tensor);
    lrd_free(o->offset);
    *o = (lrd_optimizer_t){.n_runs = 0};
}

void lrd_optimizer_layout(lrd_optimizer_t *o, lrd_arena_t *arena)
{
    const size_t bytes = (size_t)o->adapter->n_params * sizeof(float);
    o->params = lrd_arena_take(arena, "adapter", bytes);
    o->m = lrd_arena_take(arena, "optimizer", bytes);
    o->v = lrd_arena_take(arena, "optimizer", bytes);
    o->lr_table = lrd_arena_take(arena, "optimizer", (size_t)o->n_updates * sizeof(double));
    o->sumsq = lrd_arena_take(arena, "optimizer", 2 * (size_t)o->whole->n_items * sizeof(double));
    o->own_sumsq = o->sumsq;
    if (o->pinned_bytes > 0)
        o->own_sumsq =
            lrd_arena_take(arena, "optimizer", 2 * (size_t)o->adapter->n_items * sizeof(double));
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

/* From the own tensors' sums of squares to those of the whole adapter, in its order. */
static lrd_status_t exchange_norms(lrd_optimizer_t *o)
{
    lrd_status_t status = LRD_OK;
    const int n = 2 * o->whole->n_items;
    const size_t *mine = &o->offset[o->grid->stage];
    double *all = o->pinned, *own = all + mine[0] / sizeof(double), *ordered = all + n;
    LRD_TRY(lrd_copy(o->stream, LRD_COPY_D2H, own, o->own_sumsq, mine[1] - mine[0]));
    LRD_TRY(lrd_stream_sync(o->stream));
    LRD_TRY(lrd_comm_all_gather(o->grid->row, own, all, o->offset));
    for (int i = 0; i < n; i++)
        ordered[o->tensor[i]] = all[i];
    LRD_TRY(lrd_copy(o->stream, LRD_COPY_H2D, o->sumsq, ordered, (size_t)n * sizeof(double)));
out:
    return status;
}

static lrd_status_t square(lrd_optimizer_t *o, const lrd_optimizer_run_t *run, const float *grads,
                           lrd_scratch_t scratch)
{
    return lrd_sumsq(o->stream, scratch,
                     &(lrd_sumsq_t){.x = grads,
                                    .begin = run->begin,
                                    .n_tensors = 2 * (int32_t)run->n_items,
                                    .out = o->own_sumsq + 2 * (size_t)run->first_item});
}

static lrd_status_t update(lrd_optimizer_t *o, const lrd_optimizer_run_t *run, const float *grads,
                           lrd_scratch_t scratch)
{
    const lrd_training_settings_t *t = o->settings;
    return lrd_adamw(o->stream, scratch,
                     &(lrd_adamw_t){.p = o->params + run->first,
                                    .m = o->m + run->first,
                                    .v = o->v + run->first,
                                    .g = grads,
                                    .n = run->n,
                                    .lr_table = o->lr_table,
                                    .beta1 = t->adam_beta1,
                                    .beta2 = t->adam_beta2,
                                    .eps = t->adam_epsilon,
                                    .weight_decay = t->weight_decay,
                                    .state = o->state});
}

lrd_status_t lrd_optimizer_step(lrd_optimizer_t *o, float *const *grads, lrd_scratch_t scratch)
{
    lrd_status_t status = LRD_OK;
    for (int r = 0; r < o->n_runs; r++) {
        if (o->run[r].n > 0)
            LRD_TRY(square(o, &o->run[r], grads[r], scratch));
    }
    if (o->grid->n_stages > 1)
        LRD_TRY(exchange_norms(o));
    LRD_TRY(lrd_step_finish(o->stream, scratch,
                            &(lrd_step_finish_t){.sumsq = o->sumsq,
                                                 .n_tensors = 2 * (int32_t)o->whole->n_items,
                                                 .max_norm = (float)o->settings->max_grad_norm,
                                                 .scaler = o->scaler,
                                                 .state = o->state}));
    for (int r = 0; r < o->n_runs; r++) {
        if (o->run[r].n > 0)
            LRD_TRY(update(o, &o->run[r], grads[r], scratch));
    }
out:
    return status;
}
