#include "model/pipeline.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

/* A message and the pinned memory that it travels through. */
typedef struct buffer {
    void *data;
    lrd_message_t message;
    lrd_event_t *emptied; /* of an incoming one: behind the copy to the device */
} buffer_t;

struct lrd_pipeline {
    lrd_pipeline_options_t o;
    int stage, n_stages, n_runs, lowest;
    size_t buffer_bytes, pinned_bytes;
    void *pinned;
    buffer_t incoming[2]; /* used in turn: the action's in work, and the next one's */
    int64_t n_received;
    buffer_t *outgoing; /* [n_chunks][2][n_outgoing], by chunk and direction, used in turn */
    int64_t *n_sent;    /* [n_chunks][2] */
    int64_t n_outgoing;
    lrd_devcomm_t *devices;    /* NULL: messages travel through the buffers above */
    lrd_device_message_t made; /* by the last pass, for another device; data NULL: nothing */
    lrd_batch_t batch;
    lrd_micro_batch_t held;     /* what the feed holds */
    int64_t held_number;        /* -1: nothing */
    lrd_event_t *begun, *ended; /* timers around a run, with devices */
    lrd_pipeline_time_t time;
};

int lrd_pipeline_lowest(const lrd_placement_t *p, const lrd_adapter_t *adapter)
{
    int run = 0;
    while (run < p->n_runs && p->begin[run + 1] <= adapter->lowest_layer)
        run++;
    return run;
}

static lrd_pipe_shape_t shape_of(const lrd_placement_t *p, int lowest, int64_t n_micro_batches)
{
    return (lrd_pipe_shape_t){p->n_stages, p->n_runs / p->n_stages, n_micro_batches, lowest};
}

void lrd_pipeline_places(const lrd_placement_t *p, int lowest, int stage, int64_t max_micro_batches,
                         int64_t *places)
{
    const lrd_pipe_shape_t shape = shape_of(p, lowest, max_micro_batches);
    for (int chunk = 0; chunk < shape.n_chunks; chunk++)
        places[chunk] = lrd_pipe_in_flight(shape, stage, chunk);
}

static int run_of(const lrd_pipeline_t *p, int chunk)
{
    return chunk * p->n_stages + p->stage;
}

static bool sends(const lrd_pipeline_t *p, int chunk, bool backward)
{
    const int run = run_of(p, chunk);
    return backward ? run > p->lowest : run < p->n_runs - 1;
}

static bool receives(const lrd_pipeline_t *p, int chunk, bool backward)
{
    const int run = run_of(p, chunk);
    return backward ? run >= p->lowest && run < p->n_runs - 1 : run > 0;
}

static buffer_t *outgoing(const lrd_pipeline_t *p, int chunk, bool backward)
{
    return &p->outgoing[(2 * chunk + backward) * p->n_outgoing];
}

/* Gives each buffer that will be used its memory, or counts them while there is none. */
static int64_t share_out(lrd_pipeline_t *p)
{
    int64_t n = 0;
    bool any = false;
    for (int chunk = 0; chunk < p->n_runs / p->n_stages; chunk++) {
        for (int backward = 0; backward < 2; backward++) {
            any = any || receives(p, chunk, backward);
            for (int64_t i = 0; i < p->n_outgoing && sends(p, chunk, backward); i++, n++)
                outgoing(p, chunk, backward)[i].data =
                    (char *)p->pinned + (size_t)n * p->buffer_bytes;
        }
    }
    for (int i = 0; i < 2 && any; i++, n++)
        p->incoming[i].data = (char *)p->pinned + (size_t)n * p->buffer_bytes;
    return n;
}

lrd_status_t lrd_pipeline_create(const lrd_pipeline_options_t *o, lrd_pipeline_t **pipeline_out)
{
    lrd_status_t status = LRD_OK;
    lrd_pipeline_t *p = NULL;
    const lrd_placement_t *x = o->placement;
    const lrd_stage_t *s = o->stage;
    LRD_NEW(p, 1);
    p->o = *o;
    p->stage = o->grid->stage;
    p->n_stages = x->n_stages;
    p->n_runs = x->n_runs;
    p->lowest = lrd_pipeline_lowest(x, s->adapter);
    p->held_number = -1;
    p->buffer_bytes =
        (size_t)(s->limits.tokens * s->config->hidden) * lrd_dtype_bytes(s->weights->dtype);
    if (x->n_runs ==
        x->n_stages) /* else some would wait for each other for ever: docs/pipeline.md */
        p->devices = o->grid->row_devices;
    else if (o->grid->row_devices != NULL)
        lrd_info("Activations go through host memory: parallel.pipeline_chunks is more than 1");
    if (p->devices != NULL) {
        p->time.on_device = true;
        LRD_TRY(lrd_timer_create(s->stream->backend, &p->begun));
        LRD_TRY(lrd_timer_create(s->stream->backend, &p->ended));
    }
    if (p->n_stages == 1 || p->devices != NULL)
        goto done;
    /* One more than needed: a message leaves while the next one is made. */
    p->n_outgoing = 1 + lrd_pipe_buffers(shape_of(x, p->lowest, o->max_micro_batches));
    LRD_NEW(p->outgoing, 2 * p->n_runs / p->n_stages * p->n_outgoing);
    LRD_NEW(p->n_sent, 2 * p->n_runs / p->n_stages);
    p->pinned_bytes = (size_t)share_out(p) * p->buffer_bytes;
    LRD_TRY(lrd_mem_alloc(s->stream->backend, LRD_MEM_PINNED, p->pinned_bytes, &p->pinned));
    share_out(p);
    for (int i = 0; i < 2; i++)
        LRD_TRY(lrd_event_create(s->stream->backend, &p->incoming[i].emptied));
done:
    *pipeline_out = p;
    p = NULL;
out:
    lrd_pipeline_destroy(p);
    return status;
}

void lrd_pipeline_destroy(lrd_pipeline_t *p)
{
    if (p == NULL)
        return;
    if (p->pinned != NULL)
        lrd_mem_free(p->o.stage->stream->backend, LRD_MEM_PINNED, p->pinned, p->pinned_bytes);
    for (int i = 0; i < 2; i++)
        lrd_event_destroy(p->incoming[i].emptied);
    lrd_event_destroy(p->begun);
    lrd_event_destroy(p->ended);
    lrd_batch_release(&p->batch);
    lrd_free(p->n_sent);
    lrd_free(p->outgoing);
    lrd_free(p);
}

size_t lrd_pipeline_pinned_bytes(const lrd_pipeline_t *p)
{
    return p->pinned_bytes;
}

lrd_pipeline_time_t lrd_pipeline_time(const lrd_pipeline_t *p)
{
    return p->time;
}

static lrd_status_t wait_for(lrd_pipeline_t *p, lrd_message_t *message)
{
    const double begun = lrd_clock_seconds();
    const lrd_status_t status = lrd_comm_wait(p->o.grid->row, message);
    p->time.waited += lrd_clock_seconds() - begun;
    return status;
}

/* The stage below, or above; and the chunk that the neighbouring run is there. */
static int neighbour(const lrd_pipeline_t *p, int chunk, bool above, int *chunk_out)
{
    const int run = run_of(p, chunk) + (above ? 1 : -1);
    *chunk_out = run / p->n_stages;
    return run % p->n_stages;
}

/* Messages are told apart by the run that they are for, and their direction. */
static int tag_of(int chunk, bool backward)
{
    return 2 * chunk + backward;
}

/* Asks for what an action will need, when its buffer was emptied by the action before the last one. */
static lrd_status_t ask_for(lrd_pipeline_t *p, const lrd_pipe_action_t *a)
{
    lrd_status_t status = LRD_OK;
    int chunk;
    if (p->devices != NULL || !receives(p, a->chunk, a->backward))
        goto out;
    buffer_t *b = &p->incoming[p->n_received++ % 2];
    const int from = neighbour(p, a->chunk, a->backward, &chunk);
    LRD_TRY(lrd_event_sync(b->emptied));
    LRD_TRY(lrd_comm_receive(p->o.grid->row, b->data, p->buffer_bytes, from,
                             tag_of(a->chunk, a->backward), &b->message));
out:
    return status;
}

static size_t bytes_of(const lrd_mat_t *m)
{
    return (size_t)(m->rows * m->cols) * lrd_dtype_bytes(m->dtype);
}

/* Between two passes on devices: what the first has made leaves, and what the second (NULL: there is none)
 * needs arrives where it expects it, in one call. Neighbours do likewise, and in no order of passes do they
 * wait for ever (tests/comm/test_pipe_schedule.c). */
static lrd_status_t pass_on(lrd_pipeline_t *p, const lrd_pipe_action_t *next, int64_t place)
{
    lrd_status_t status = LRD_OK;
    const lrd_stage_t *s = p->o.stage;
    lrd_device_message_t arrives = {.data = NULL};
    int chunk;
    if (p->devices == NULL)
        goto out;
    if (next != NULL && receives(p, next->chunk, next->backward)) {
        const lrd_mat_t to = (next->backward ? lrd_stage_gradient
                                             : lrd_stage_input)(s, &p->held, next->chunk, place);
        const int from = neighbour(p, next->chunk, next->backward, &chunk);
        arrives = (lrd_device_message_t){to.data, to.rows * to.cols, to.dtype, from};
    }
    if (p->made.data != NULL || arrives.data != NULL)
        LRD_TRY(lrd_devcomm_exchange(p->devices, &p->made, p->made.data != NULL, &arrives,
                                     arrives.data != NULL));
    p->made.data = NULL;
out:
    return status;
}

/* What this pass has made leaves behind it, from a place that the next pass does not receive into. */
static lrd_status_t keep_made(lrd_pipeline_t *p, lrd_mat_t made, int to)
{
    lrd_status_t status = LRD_OK;
    const lrd_mat_t from = lrd_stage_output(p->o.stage, &p->held);
    if (from.data != made.data)
        LRD_TRY(lrd_copy(p->o.stage->stream, LRD_COPY_D2D, from.data, made.data, bytes_of(&made)));
    p->made = (lrd_device_message_t){from.data, from.rows * from.cols, from.dtype, to};
out:
    return status;
}

/* Puts what was asked for where the pass expects it; there it is, on devices. */
static lrd_status_t take_in(lrd_pipeline_t *p, buffer_t *b, lrd_mat_t to)
{
    lrd_status_t status = LRD_OK;
    if (p->devices != NULL)
        goto out;
    LRD_TRY(wait_for(p, &b->message));
    LRD_TRY(lrd_copy(p->o.stage->stream, LRD_COPY_H2D, to.data, b->data, bytes_of(&to)));
    LRD_TRY(lrd_event_record(p->o.stage->stream, b->emptied));
out:
    return status;
}

static lrd_status_t send_on(lrd_pipeline_t *p, const lrd_pipe_action_t *a, lrd_mat_t from)
{
    lrd_status_t status = LRD_OK;
    int chunk;
    const int to = neighbour(p, a->chunk, !a->backward, &chunk);
    if (p->devices != NULL)
        return keep_made(p, from, to);
    const int64_t i = p->n_sent[2 * a->chunk + a->backward]++ % p->n_outgoing;
    buffer_t *b = &outgoing(p, a->chunk, a->backward)[i];
    LRD_TRY(wait_for(p, &b->message));
    LRD_TRY(lrd_copy(p->o.stage->stream, LRD_COPY_D2H, b->data, from.data, bytes_of(&from)));
    LRD_TRY(lrd_stream_sync(p->o.stage->stream));
    LRD_TRY(lrd_comm_send(p->o.grid->row, b->data, bytes_of(&from), to, tag_of(chunk, a->backward),
                          &b->message));
out:
    return status;
}

/* The action's micro-batch on the device. */
static lrd_status_t hold(lrd_pipeline_t *p, const lrd_pipeline_work_t *w, int64_t micro_batch)
{
    lrd_status_t status = LRD_OK;
    if (micro_batch == p->held_number)
        goto out;
    p->held_number = -1;
    LRD_TRY(w->pack(w->context, micro_batch, &p->batch));
    LRD_TRY(lrd_feed_upload(p->o.feed, &p->batch, (lrd_ce_call_t){w->inv_n_target, micro_batch},
                            &p->held));
    p->held_number = micro_batch;
out:
    return status;
}

static lrd_status_t go_forward(lrd_pipeline_t *p, const lrd_pipeline_work_t *w,
                               const lrd_pipe_action_t *a, int64_t place, buffer_t *in)
{
    lrd_status_t status = LRD_OK;
    lrd_stage_t *s = p->o.stage;
    const bool saving = w->training && run_of(p, a->chunk) >= p->lowest;
    if (receives(p, a->chunk, false))
        LRD_TRY(take_in(p, in, lrd_stage_input(s, &p->held, a->chunk, place)));
    LRD_TRY(lrd_stage_forward(s, &p->held, a->chunk, place, saving, &w->loss));
    if (sends(p, a->chunk, false))
        LRD_TRY(send_on(p, a, lrd_stage_output(s, &p->held)));
out:
    return status;
}

static lrd_status_t go_backward(lrd_pipeline_t *p, const lrd_pipeline_work_t *w,
                                const lrd_pipe_action_t *a, int64_t place, buffer_t *in)
{
    lrd_status_t status = LRD_OK;
    lrd_stage_t *s = p->o.stage;
    const lrd_mat_t d = lrd_stage_gradient(s, &p->held, a->chunk, place);
    if (receives(p, a->chunk, true))
        LRD_TRY(take_in(p, in, d));
    LRD_TRY(w->leaf(w->context, a->chunk));
    LRD_TRY(lrd_stage_backward(s, &p->held, a->chunk, place));
    LRD_TRY(w->leaf_done(w->context, a->chunk));
    if (sends(p, a->chunk, true))
        LRD_TRY(send_on(p, a, d));
out:
    return status;
}

/* On devices: waits until all has left. MPI, which comes next, watches no device. */
static lrd_status_t finish_on_devices(lrd_pipeline_t *p)
{
    lrd_status_t status = LRD_OK;
    lrd_stream_t *stream = p->o.stage->stream;
    LRD_TRY(lrd_event_record(stream, p->ended));
    LRD_TRY(lrd_stream_sync(stream));
    LRD_TRY(lrd_timer_seconds(p->begun, p->ended, &p->time.seconds));
    LRD_TRY(lrd_devcomm_read_clock(p->devices, &p->time.waited));
out:
    return status;
}

/* Waits until all has left: the memory is used again. */
static lrd_status_t finish(lrd_pipeline_t *p)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(pass_on(p, NULL, 0));
    if (p->devices != NULL)
        LRD_TRY(finish_on_devices(p));
    for (int64_t i = 0; p->outgoing != NULL && i < 2 * p->n_runs / p->n_stages * p->n_outgoing; i++)
        LRD_TRY(wait_for(p, &p->outgoing[i].message));
out:
    return status;
}

/* Asked to stop: nothing more is begun. */
static lrd_status_t check_stop(lrd_pipeline_t *p, const lrd_stop_t *stop)
{
    lrd_status_t status = LRD_OK;
    if (stop != NULL && *stop != 0)
        LRD_TRY(lrd_feed_settle(p->o.feed));
    LRD_CHECK_STOP(stop);
out:
    return status;
}

lrd_status_t lrd_pipeline_run(lrd_pipeline_t *p, const lrd_pipeline_work_t *w)
{
    lrd_status_t status = LRD_OK;
    const double begun = lrd_clock_seconds();
    const int lowest = w->training ? p->lowest : p->n_runs;
    const int64_t *places = p->o.stage->limits.places;
    lrd_pipe_cursor_t cursor;
    lrd_pipe_action_t a, next;
    p->time.waited = 0;
    p->held_number = -1;
    if (p->devices != NULL) {
        lrd_devcomm_start_clock(p->devices);
        LRD_TRY(lrd_event_record(p->o.stage->stream, p->begun));
    }
    lrd_pipe_begin(&cursor, shape_of(p->o.placement, lowest, w->n_micro_batches), p->stage);
    bool more = lrd_pipe_next(&cursor, &next);
    if (more)
        LRD_TRY(ask_for(p, &next));
    while (more) {
        buffer_t *in = &p->incoming[(p->n_received + 1) % 2];
        a = next;
        if (p->n_stages == 1 && !a.backward)
            LRD_TRY(check_stop(p, w->stop));
        more = lrd_pipe_next(&cursor, &next);
        if (more)
            LRD_TRY(ask_for(p, &next));
        LRD_TRY(hold(p, w, a.micro_batch));
        if (more)
            lrd_stage_expect(p->o.stage, next.chunk, next.backward);
        else
            lrd_stage_expect(p->o.stage, 0, false);
        const int64_t place = a.micro_batch % places[a.chunk];
        LRD_TRY(pass_on(p, &a, place));
        LRD_TRY((a.backward ? go_backward : go_forward)(p, w, &a, place, in));
    }
    LRD_TRY(finish(p));
    LRD_TRY(lrd_feed_settle(p->o.feed));
    if (p->devices == NULL)
        p->time.seconds = lrd_clock_seconds() - begun;
out:
    return status;
}
