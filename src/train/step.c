#include "train/step.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* What each rank tells behind its losses: does it want to stop, seconds of the passes, those of them
 * that it waited, and the seconds of a token (lrd_shares_learn). */
enum { WANTS_STOP, SECONDS, WAITED, PACE, N_FACTS };

static bool is_connected(const lrd_stepper_t *s)
{
    return s->grid->row_devices != NULL || s->grid->column_devices != NULL;
}

static bool has_timers(const lrd_stepper_t *s)
{
    return is_connected(s) ||
           (s->shares->moves && s->stage->stream->backend->ops->stream_native != NULL);
}

lrd_status_t lrd_stepper_open(lrd_stepper_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t slots = (size_t)s->max_micro_batches * sizeof(double);
    s->pinned_bytes = slots + sizeof(lrd_step_state_t);
    const int size = lrd_comm_size(s->grid->world);
    LRD_TRY(lrd_mem_alloc(s->stage->stream->backend, LRD_MEM_PINNED, s->pinned_bytes,
                          (void **)&s->pinned));
    LRD_NEW(s->grads, s->optimizer->n_runs);
    LRD_NEW(s->news, s->max_micro_batches + N_FACTS * size);
    LRD_NEW(s->news_offset, size + 1);
    LRD_NEW(s->pace, s->grid->n_replicas);
    if (has_timers(s)) {
        LRD_TRY(lrd_timer_create(s->stage->stream->backend, &s->begun));
        LRD_TRY(lrd_timer_create(s->stage->stream->backend, &s->computed));
        LRD_TRY(lrd_timer_create(s->stage->stream->backend, &s->ended));
    }
out:
    return status;
}

void lrd_stepper_close(lrd_stepper_t *s)
{
    if (s->pinned != NULL)
        lrd_mem_free(s->stage->stream->backend, LRD_MEM_PINNED, s->pinned, s->pinned_bytes);
    lrd_event_destroy(s->begun);
    lrd_event_destroy(s->computed);
    lrd_event_destroy(s->ended);
    lrd_free(s->pace);
    lrd_free(s->news_offset);
    lrd_free(s->news);
    lrd_free(s->grads);
    s->begun = s->computed = s->ended = NULL;
    s->pinned = NULL;
    s->pace = s->news = NULL;
    s->grads = NULL;
    s->news_offset = NULL;
}

void lrd_stepper_layout(lrd_stepper_t *s, lrd_arena_t *arena)
{
    s->nll = lrd_arena_take(arena, "buffers", (size_t)s->max_micro_batches * sizeof(double));
}

static lrd_status_t pack(void *context, int64_t micro_batch, lrd_batch_t *batch_out)
{
    const lrd_stepper_t *s = context;
    const lrd_update_t *u = s->update;
    const int64_t *first = &u->first[s->begin[s->grid->replica] + micro_batch];
    return lrd_batch_pack(s->set, u->record + first[0], first[1] - first[0], u->epoch, batch_out);
}

static lrd_status_t leaf(void *context, int run)
{
    lrd_stepper_t *s = context;
    s->stage->first_grad = s->optimizer->run[run].first;
    return s->reduce[run] != NULL ? lrd_reduce_leaf(s->reduce[run], &s->stage->grads) : LRD_OK;
}

static lrd_status_t leaf_done(void *context, int run)
{
    lrd_stepper_t *s = context;
    return s->reduce[run] != NULL ? lrd_reduce_leaf_done(s->reduce[run]) : LRD_OK;
}

/* The micro-batches of this replica. */
static lrd_status_t run_micro_batches(lrd_stepper_t *s, int64_t n)
{
    lrd_status_t status = LRD_OK;
    const lrd_update_t *u = s->update;
    const double begun = lrd_clock_seconds();
    for (int r = 0; r < s->optimizer->n_runs; r++) {
        if (s->reduce[r] != NULL)
            lrd_reduce_begin(s->reduce[r], u->n_micro_batches, s->begin);
    }
    LRD_TRY(lrd_pipeline_run(
        s->pipeline,
        &(lrd_pipeline_work_t){.n_micro_batches = n,
                               .training = true,
                               .stop = s->stop,
                               .loss = {s->optimizer->state, s->nll},
                               .inv_n_target = u->n_targets > 0 ? 1.0 / (double)u->n_targets : 0,
                               .context = s,
                               .pack = pack,
                               .leaf = leaf,
                               .leaf_done = leaf_done}));
    if (s->computed != NULL) {
        LRD_TRY(lrd_event_record(s->stage->stream, s->computed));
    } else if (s->shares->moves) {
        LRD_TRY(lrd_stream_sync(s->stage->stream));
        s->seconds = lrd_clock_seconds() - begun;
    }
out:
    return status;
}

/* The same, unless this rank is asked to stop meanwhile. All ranks drop the update, or none; the vote is
 * where the faster ones wait for the others. */
static lrd_status_t try_micro_batches(lrd_stepper_t *s, int64_t n, bool *dropped_out,
                                      double *waited_out)
{
    lrd_status_t status = run_micro_batches(s, n);
    int64_t drop = status == LRD_ERR_INTERRUPTED;
    if (drop) {
        lrd_error_clear();
        status = lrd_stream_sync(s->stage->stream); /* reads host memory of the batch */
    }
    LRD_TRY(status);
    const double begun = lrd_clock_seconds();
    LRD_TRY(lrd_comm_max_i64(s->grid->world, &drop, 1));
    *waited_out = lrd_clock_seconds() - begun;
    *dropped_out = drop != 0;
out:
    return status;
}

/* The sums over all replicas. */
static lrd_status_t reduce(lrd_stepper_t *s)
{
    lrd_status_t status = LRD_OK;
    for (int r = 0; r < s->optimizer->n_runs; r++) {
        if (s->reduce[r] != NULL)
            LRD_TRY(lrd_reduce_end(s->reduce[r], &s->grads[r]));
    }
out:
    return status;
}

/* Where rank r's news begin: losses come from the stages with the head, facts from all. */
static void plan_news(lrd_stepper_t *s)
{
    const lrd_grid_t *g = s->grid;
    size_t at = 0;
    for (int r = 0; r < g->n_replicas * g->n_stages; r++) {
        const int replica = r / g->n_stages;
        s->news_offset[r] = at * sizeof(double);
        if (r % g->n_stages == g->n_stages - 1)
            at += (size_t)(s->begin[replica + 1] - s->begin[replica]);
        at += N_FACTS;
    }
    s->news_offset[g->n_replicas * g->n_stages] = at * sizeof(double);
}

/* Seconds of this replica, as far as this rank of it knows, for each of its tokens. */
static double find_pace(const lrd_stepper_t *s)
{
    const lrd_update_t *u = s->update;
    const int64_t *begin = &s->begin[s->grid->replica];
    const double n = (double)(begin[1] - begin[0]);
    int64_t tokens = 0;
    for (int64_t i = u->first[begin[0]]; i < u->first[begin[1]]; i++)
        tokens += lrd_dataset_record(s->set, u->record[i]).n_tokens;
    return tokens > 0 ? s->seconds / ((double)tokens * (1 + s->shares->fill / n)) : 0;
}

/* Losses of all micro-batches in their order, and what all ranks tell. */
static lrd_status_t exchange(lrd_stepper_t *s, int64_t mine, bool stop, double *nll_out,
                             lrd_step_result_t *result)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *world = s->grid->world;
    const int size = lrd_comm_size(world);
    const int64_t n_losses = s->stage->weights->has_head ? mine : 0;
    plan_news(s);
    double *own = s->news + s->news_offset[lrd_comm_rank(world)] / sizeof(double);
    double *facts = own + n_losses, longest = 0, computed = 0;
    memcpy(own, s->pinned, (size_t)n_losses * sizeof(double));
    const lrd_pipeline_time_t time = lrd_pipeline_time(s->pipeline);
    facts[WANTS_STOP] = stop;
    facts[SECONDS] = time.seconds;
    facts[WAITED] = time.waited;
    facts[PACE] = find_pace(s);
    LRD_TRY(lrd_comm_all_gather(world, own, s->news, s->news_offset));
    memset(s->pace, 0, (size_t)s->grid->n_replicas * sizeof s->pace[0]);
    *nll_out = 0;
    result->stop = false;
    for (int r = 0; r < size; r++) {
        const double *news = s->news + s->news_offset[r] / sizeof(double);
        facts = s->news + s->news_offset[r + 1] / sizeof(double) - N_FACTS;
        for (; news < facts; news++)
            *nll_out += *news;
        result->stop = result->stop || facts[WANTS_STOP] != 0;
        longest = fmax(longest, facts[SECONDS]);
        computed += facts[SECONDS] - facts[WAITED];
        double *pace = &s->pace[r / s->grid->n_stages];
        *pace = fmax(*pace, facts[PACE]);
    }
    result->busy = longest > 0 ? computed / (longest * size) : 1;
out:
    return status;
}

static lrd_status_t start_clock(lrd_stepper_t *s)
{
    lrd_status_t status = LRD_OK;
    s->seconds = 0;
    if (s->begun == NULL)
        goto out;
    if (s->grid->column_devices != NULL)
        lrd_devcomm_start_clock(s->grid->column_devices);
    LRD_TRY(lrd_event_record(s->stage->stream, s->begun));
out:
    return status;
}

/* Where nothing of the update is left to do. The passes of a pipeline have read their part. */
static lrd_status_t read_clock(lrd_stepper_t *s, lrd_step_result_t *result)
{
    lrd_status_t status = LRD_OK;
    const lrd_pipeline_time_t passes = lrd_pipeline_time(s->pipeline);
    if (s->begun == NULL)
        goto out;
    LRD_TRY(lrd_timer_seconds(s->begun, s->computed, &s->seconds));
    if (!is_connected(s))
        goto out;
    LRD_TRY(lrd_timer_seconds(s->begun, s->ended, &result->device_seconds));
    if (s->grid->column_devices != NULL)
        LRD_TRY(lrd_devcomm_read_clock(s->grid->column_devices, &result->device_waited));
    result->device_waited += passes.on_device ? passes.waited : 0;
out:
    return status;
}

/* The end of an update. */
typedef struct end {
    lrd_stepper_t *stepper;
    int64_t n_losses; /* that this rank has */
} end_t;

static lrd_step_state_t *clock_of(const lrd_stepper_t *s)
{
    return (lrd_step_state_t *)(s->pinned + s->max_micro_batches);
}

/* From the sums of gradients to the clock on the host. */
static lrd_status_t end_update(void *context)
{
    lrd_status_t status = LRD_OK;
    const end_t *e = context;
    lrd_stepper_t *s = e->stepper;
    lrd_stream_t *st = s->stage->stream;
    LRD_TRY(lrd_optimizer_step(s->optimizer, s->grads, s->stage->scratch));
    if (e->n_losses > 0)
        LRD_TRY(
            lrd_copy(st, LRD_COPY_D2H, s->pinned, s->nll, (size_t)e->n_losses * sizeof(double)));
    LRD_TRY(lrd_copy(st, LRD_COPY_D2H, clock_of(s), s->optimizer->state, sizeof(lrd_step_state_t)));
out:
    return status;
}

/* As a graph where all of it is on this device: step number, learning rate and loss scale lie there. */
static lrd_status_t run_end(lrd_stepper_t *s, int64_t n_losses)
{
    end_t e = {s, n_losses};
    const uint64_t key[] = {(uintptr_t)s, (uint64_t)n_losses, (uintptr_t)s->grads[0]};
    return s->grid->n_stages == 1
               ? lrd_stage_run_part(s->stage, end_update, &e, key, sizeof key / sizeof key[0])
               : end_update(&e);
}

lrd_status_t lrd_stepper_run(lrd_stepper_t *s, const lrd_update_t *update,
                             lrd_step_result_t *result_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *g = s->grid;
    lrd_step_result_t result = {.stop = false};
    double nll, begun;
    s->update = update;
    s->begin = lrd_shares_of(s->shares, update->n_micro_batches);
    const int64_t n = s->begin[g->replica + 1] - s->begin[g->replica];
    LRD_TRY(start_clock(s));
    LRD_TRY(try_micro_batches(s, n, &result.dropped, &result.waited));
    const lrd_pipeline_time_t passes = lrd_pipeline_time(s->pipeline);
    result.waited += passes.on_device ? 0 : passes.waited;
    if (result.dropped) {
        result.stop = true;
        *result_out = result;
        goto out;
    }
    begun = lrd_clock_seconds();
    LRD_TRY(reduce(s));
    result.waited += lrd_clock_seconds() - begun;
    LRD_TRY(run_end(s, s->stage->weights->has_head ? n : 0));
    if (s->ended != NULL)
        LRD_TRY(lrd_event_record(s->stage->stream, s->ended));
    LRD_TRY(lrd_stream_sync(s->stage->stream));
    LRD_TRY(read_clock(s, &result));
    begun = lrd_clock_seconds();
    LRD_TRY(exchange(s, n, *s->stop != 0, &nll, &result));
    result.waited += lrd_clock_seconds() - begun;
    result.reshared = lrd_shares_learn(s->shares, update->n_micro_batches, s->pace);
    result.loss = update->n_targets > 0 ? nll / (double)update->n_targets : 0.0;
    result.clock = *clock_of(s);
    *result_out = result;
out:
    return status;
}
