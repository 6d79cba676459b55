#include "model/relay.h"

lrd_status_t lrd_relay_open(lrd_stage_t *stage, lrd_relay_t *relay_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_weights_t *w = stage->weights;
    lrd_relay_t relay = {.stage = stage};
    const size_t bytes =
        (size_t)(stage->limits.tokens * stage->config->hidden) * lrd_dtype_bytes(w->dtype);
    if (w->runs.n > 1 || !w->has_embed || !w->has_head) {
        LRD_TRY(lrd_mem_alloc(stage->stream->backend, LRD_MEM_PINNED, bytes, &relay.data));
        relay.bytes = bytes;
    }
    *relay_out = relay;
out:
    return status;
}

void lrd_relay_close(lrd_relay_t *relay)
{
    if (relay->data != NULL)
        lrd_mem_free(relay->stage->stream->backend, LRD_MEM_PINNED, relay->data, relay->bytes);
    *relay = (lrd_relay_t){0};
}

static size_t bytes_of(const lrd_mat_t *m)
{
    return (size_t)(m->rows * m->cols) * lrd_dtype_bytes(m->dtype);
}

/* A message of a micro-batch's activations, to a rank or from it. */
static lrd_device_message_t message_of(lrd_mat_t x, int rank)
{
    return (lrd_device_message_t){x.data, x.rows * x.cols, x.dtype, rank};
}

/* What lies between two messages: a run of layers, with the copies from and to pinned memory. */
typedef struct part {
    const lrd_relay_t *relay;
    const lrd_relay_pass_t *pass;
    int run;
} part_t;

static bool goes_through_host(const lrd_relay_t *relay)
{
    return relay->grid->row_devices == NULL;
}

static lrd_status_t enqueue(void *context)
{
    lrd_status_t status = LRD_OK;
    const part_t *p = context;
    const lrd_relay_t *relay = p->relay;
    lrd_stage_t *s = relay->stage;
    const lrd_span_t run = s->weights->runs.run[p->run];
    if (p->run == 0 && p->pass->begin != NULL)
        LRD_TRY(p->pass->begin(p->pass->context));
    if (!run.embed && goes_through_host(relay)) {
        const lrd_mat_t in = lrd_stage_input(s, p->pass->batch, p->run, 0);
        LRD_TRY(lrd_copy(s->stream, LRD_COPY_H2D, in.data, relay->data, bytes_of(&in)));
    }
    if (run.head)
        return p->pass->head(p->pass->context, p->pass->batch);
    LRD_TRY(lrd_stage_forward(s, p->pass->batch, p->run, 0, false, NULL));
    if (goes_through_host(relay)) {
        const lrd_mat_t made = lrd_stage_output(s, p->pass->batch);
        LRD_TRY(lrd_copy(s->stream, LRD_COPY_D2H, relay->data, made.data, bytes_of(&made)));
    }
out:
    return status;
}

static lrd_status_t run_part(part_t *p)
{
    const lrd_relay_pass_t *pass = p->pass;
    if (pass->graphs == NULL)
        return enqueue(p);
    pass->key[0] = (uint64_t)p->run;
    return lrd_graphs_run(pass->graphs, pass->key, pass->n_words, enqueue, p);
}

/* What the run below has made, from the rank that has it: where the run expects it, or in pinned memory. */
static lrd_status_t receive(const lrd_relay_t *relay, const lrd_micro_batch_t *batch, int run)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *g = relay->grid;
    const int from = (g->stage + g->n_stages - 1) % g->n_stages;
    const lrd_mat_t x = lrd_stage_input(relay->stage, batch, run, 0);
    const lrd_device_message_t direct = message_of(x, from);
    lrd_message_t message = {.pending = false};
    if (!goes_through_host(relay))
        return lrd_devcomm_exchange(g->row_devices, NULL, 0, &direct, 1);
    LRD_TRY(lrd_comm_receive(g->row, relay->data, bytes_of(&x), from, 0, &message));
    LRD_TRY(lrd_comm_wait(g->row, &message));
out:
    return status;
}

static lrd_status_t send_on(const lrd_relay_t *relay, const lrd_micro_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *g = relay->grid;
    const int to = (g->stage + 1) % g->n_stages;
    const lrd_mat_t x = lrd_stage_output(relay->stage, batch);
    const lrd_device_message_t direct = message_of(x, to);
    lrd_message_t message = {.pending = false};
    if (!goes_through_host(relay))
        LRD_TRY(lrd_devcomm_exchange(g->row_devices, &direct, 1, NULL, 0));
    LRD_TRY(lrd_stream_sync(relay->stage->stream)); /* MPI, which comes next, watches no device */
    if (!goes_through_host(relay))
        goto out;
    LRD_TRY(lrd_comm_send(g->row, relay->data, bytes_of(&x), to, 0, &message));
    LRD_TRY(lrd_comm_wait(g->row, &message));
out:
    return status;
}

lrd_status_t lrd_relay_run(lrd_relay_t *relay, const lrd_relay_pass_t *pass)
{
    lrd_status_t status = LRD_OK;
    const lrd_runs_t *runs = &relay->stage->weights->runs;
    for (int r = 0; r < runs->n; r++) {
        if (!runs->run[r].embed)
            LRD_TRY(receive(relay, pass->batch, r));
        LRD_TRY(run_part(&(part_t){relay, pass, r}));
        if (!runs->run[r].head)
            LRD_TRY(send_on(relay, pass->batch));
    }
out:
    return status;
}
