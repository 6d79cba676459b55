/* The passes of a stage: what is enqueued for a micro-batch. */
#include "model/stage.h"
#include "model/stage_parts.h"

/* Final norm tensors: gamma, then beta. */
enum { FINAL_GAMMA, FINAL_BETA };

static void *kept_state(const lrd_stage_t *s, int64_t place, int layer)
{
    return s->state[place * s->config->n_layers + layer];
}

/* What a block has kept, with all that it needs to work. */
static void *working_state(const lrd_stage_t *s, int64_t place, int layer)
{
    void *kept = kept_state(s, place, layer);
    if (s->limits.recompute != LRD_CHECKPOINTING_BLOCK)
        return kept;
    s->family->borrow_input(s->work_state, kept);
    return s->work_state;
}

/* Where a block works: in its own memory if it keeps anything; else in that of the lowest block of
 * the run that does, which comes later in the same pass; else in what all share. */
static void *state_of(const lrd_stage_t *s, lrd_span_t run, int64_t place, int layer)
{
    if (!lrd_stage_keeps(s, run.last - 1))
        return s->shared_state;
    const int lowest = run.first > s->lowest_layer ? run.first : s->lowest_layer;
    return working_state(s, place, s->saving && layer > lowest ? layer : lowest);
}

lrd_mat_t lrd_stage_input(const lrd_stage_t *s, const lrd_micro_batch_t *batch, int run,
                          int64_t place)
{
    const lrd_span_t span = s->weights->runs.run[run];
    if (span.first == span.last) /* the head alone, or the embedding alone */
        return lrd_rows(span.head ? s->final_res : s->out, batch->n_tokens);
    void *first = state_of(s, span, place, span.first);
    return lrd_rows(s->family->block_input(first), batch->n_tokens);
}

/* The blocks of a pass. */
static lrd_pass_t pass_of(const lrd_stage_t *s, int run, bool backward)
{
    const lrd_span_t span = s->weights->runs.run[run];
    const int lowest = span.first > s->lowest_layer ? span.first : s->lowest_layer;
    if (!backward)
        return (lrd_pass_t){span.first, span.last - span.first, 1};
    return (lrd_pass_t){span.last - 1, span.last > lowest ? span.last - lowest : 0, -1};
}

void lrd_stage_expect(lrd_stage_t *s, int run, bool backward)
{
    s->then = pass_of(s, run, backward);
}

/* The pass in work ends with this run: without word of another the one behind follows. */
static void expect_usual(lrd_stage_t *s, int run)
{
    lrd_stage_expect(s, (run + 1) % s->weights->runs.n, false);
}

/* The first block of what is left of a pass is needed now. */
static lrd_status_t begin_block(lrd_stage_t *s, lrd_pass_t *left)
{
    const int layer = left->first;
    *left = (lrd_pass_t){layer + left->step, left->n - 1, left->step};
    return lrd_weights_use(s->weights, s->stream, layer, *left, s->then);
}

/* Embedding and blocks of a run; the residual stream behind the last one. */
static lrd_status_t run_blocks(lrd_stage_t *s, const lrd_micro_batch_t *batch, int run,
                               int64_t place, bool saving, lrd_residual_t *residual)
{
    lrd_status_t status = LRD_OK;
    const lrd_span_t span = s->weights->runs.run[run];
    lrd_pass_t left = pass_of(s, run, false);
    s->saving = saving;
    const lrd_mat_t x = lrd_stage_input(s, batch, run, place);
    if (span.embed)
        LRD_TRY(s->family->embed_forward(s, batch, x));
    *residual = (lrd_residual_t){.x = x};
    for (int layer = span.first; layer < span.last; layer++) {
        LRD_TRY(begin_block(s, &left));
        LRD_TRY(
            s->family->block_forward(s, batch, layer, state_of(s, span, place, layer), residual));
    }
    expect_usual(s, run);
out:
    return status;
}

/* The final norm: final_norm = LN(final_res). */
static lrd_status_t run_final_norm(lrd_stage_t *s, const lrd_micro_batch_t *batch,
                                   const lrd_residual_t *residual)
{
    const int64_t t = batch->n_tokens;
    return lrd_addnorm_forward(s->stream, s->scratch,
                               &(lrd_addnorm_fwd_t){.x = lrd_const(residual->x),
                                                    .delta = lrd_const(residual->delta),
                                                    .gamma = s->weights->final[FINAL_GAMMA],
                                                    .beta = s->weights->final[FINAL_BETA],
                                                    .eps = (float)s->config->layer_norm_epsilon,
                                                    .res = residual->delta.data != NULL
                                                               ? lrd_rows(s->final_res, t)
                                                               : (lrd_mat_t){0},
                                                    .y = lrd_rows(s->final_norm, t),
                                                    .mean = s->final_mean,
                                                    .rstd = s->final_rstd});
}

/* A micro-batch through a run, in one direction. */
typedef struct pass {
    lrd_stage_t *stage;
    const lrd_micro_batch_t *batch;
    int run;
    int64_t place;
    bool saving;                  /* a backward pass will follow, or is this */
    const lrd_stage_loss_t *loss; /* of the head's part alone */
} pass_t;

/* Up to what the run gives: the final norm with the head, else the residual stream in s->out. */
static lrd_status_t go_up(void *context)
{
    lrd_status_t status = LRD_OK;
    const pass_t *p = context;
    lrd_stage_t *s = p->stage;
    lrd_residual_t residual;
    LRD_TRY(run_blocks(s, p->batch, p->run, p->place, p->saving, &residual));
    if (s->weights->runs.run[p->run].head)
        LRD_TRY(run_final_norm(s, p->batch, &residual));
    else if (residual.delta.data != NULL) /* the embedding alone: it is there */
        /* The sum that the next block's norm would form; rounded as there. */
        LRD_TRY(lrd_addnorm_forward(s->stream, s->scratch,
                                    &(lrd_addnorm_fwd_t){.x = lrd_const(residual.x),
                                                         .delta = lrd_const(residual.delta),
                                                         .res = lrd_stage_output(s, p->batch)}));
out:
    return status;
}

bool lrd_stage_has_graphs(const lrd_stage_t *s)
{
    return lrd_has_graphs(s->stream->backend) && !lrd_weights_travel(s->weights);
}

size_t lrd_stage_graph_bytes(const lrd_stage_t *s)
{
    return lrd_stage_has_graphs(s) ? lrd_graphs_reserve(s->graphs) : 0;
}

/* The parts of a pass that are graphs. */
typedef enum part { UP, HEAD, DOWN } part_t;

lrd_status_t lrd_stage_run_part(lrd_stage_t *s, lrd_graphs_pass_t *enqueue, void *context,
                                const uint64_t *key, size_t n_words)
{
    return s->graphs != NULL && lrd_stage_has_graphs(s)
               ? lrd_graphs_run(s->graphs, key, n_words, enqueue, context)
               : enqueue(context);
}

/* Up or down through the blocks. The key: what it tells its ops. */
static lrd_status_t run_blocks_part(pass_t *p, lrd_graphs_pass_t *enqueue, part_t part)
{
    const lrd_stage_t *s = p->stage;
    const lrd_micro_batch_t *b = p->batch;
    const uint64_t key[LRD_STAGE_KEY_WORDS] = {part,
                                               (uint64_t)p->run,
                                               (uint64_t)p->place,
                                               p->saving,
                                               (uint64_t)b->n_tokens,
                                               (uint64_t)b->n_seqs,
                                               (uintptr_t)b->token,
                                               (uintptr_t)b->row_key,
                                               (uintptr_t)b->cu_seqlens,
                                               part == DOWN ? (uintptr_t)s->grads : 0,
                                               part == DOWN ? (uint64_t)s->first_grad : 0};
    return lrd_stage_run_part(p->stage, enqueue, p, key, LRD_STAGE_KEY_WORDS);
}

/* The run with the head, up to the final norm. */
static lrd_status_t run_forward(lrd_stage_t *s, const lrd_micro_batch_t *batch)
{
    return go_up(&(pass_t){s, batch, s->weights->runs.n - 1, 0, false, NULL});
}

/* The gradient of the final norm's input; absent where no backward pass follows. */
static lrd_mat_t gradient_of_head(const pass_t *p)
{
    return p->saving ? lrd_stage_gradient(p->stage, p->batch, p->run, p->place) : (lrd_mat_t){0};
}

static lrd_status_t run_loss(const pass_t *p, lrd_mat_t dh)
{
    const lrd_stage_t *s = p->stage;
    const lrd_micro_batch_t *b = p->batch;
    const lrd_weight_t head = {s->weights->head};
    return lrd_linear_ce(s->stream, s->scratch,
                         &(lrd_linear_ce_t){.h = lrd_const(lrd_rows(s->final_norm, b->n_tokens)),
                                            .w = &head,
                                            .target = b->target,
                                            .n_targets = b->n_targets,
                                            .call = b->call,
                                            .state = p->loss->state,
                                            .nll = p->loss->nll,
                                            .dh = dh});
}

/* Loss, and the gradient of the final norm's input unless that is absent. */
static lrd_status_t meet_head(void *context)
{
    lrd_status_t status = LRD_OK;
    const pass_t *p = context;
    const lrd_stage_t *s = p->stage;
    const lrd_mat_t d = gradient_of_head(p);
    LRD_TRY(run_loss(p, d));
    if (d.data == NULL)
        goto out;
    LRD_TRY(lrd_norm_backward(
        s->stream, s->scratch,
        &(lrd_norm_bwd_t){.dy = lrd_const(d),
                          .res = lrd_const(lrd_rows(s->final_res, p->batch->n_tokens)),
                          .gamma = s->weights->final[FINAL_GAMMA],
                          .mean = s->final_mean,
                          .rstd = s->final_rstd,
                          .dres = d}));
out:
    return status;
}

/* A graph of its own, not one with the blocks: there are as many as there are sizes of a micro-batch and
 * numbers of its targets, and theirs are the large ones. */
static lrd_status_t run_head(pass_t *p)
{
    const lrd_micro_batch_t *b = p->batch;
    const uint64_t key[] = {HEAD,
                            (uint64_t)b->n_tokens,
                            (uint64_t)b->n_targets,
                            (uintptr_t)b->target,
                            (uintptr_t)b->call,
                            (uintptr_t)p->loss->state,
                            (uintptr_t)p->loss->nll,
                            (uintptr_t)gradient_of_head(p).data};
    return lrd_stage_run_part(p->stage, meet_head, p, key, sizeof key / sizeof key[0]);
}

lrd_mat_t lrd_stage_gradient(const lrd_stage_t *s, const lrd_micro_batch_t *batch, int run,
                             int64_t place)
{
    return lrd_rows(s->d[s->weights->runs.run[run].head ? 1 + place : 0], batch->n_tokens);
}

lrd_mat_t lrd_stage_output(const lrd_stage_t *s, const lrd_micro_batch_t *batch)
{
    return lrd_rows(s->out, batch->n_tokens);
}

lrd_status_t lrd_stage_forward(lrd_stage_t *s, const lrd_micro_batch_t *batch, int run,
                               int64_t place, bool saving, const lrd_stage_loss_t *loss)
{
    lrd_status_t status = LRD_OK;
    pass_t p = {s, batch, run, place, saving, loss};
    LRD_TRY(run_blocks_part(&p, go_up, UP));
    if (s->weights->runs.run[run].head)
        LRD_TRY(run_head(&p));
out:
    return status;
}

/* A block's forward pass again, from its input. */
static lrd_status_t recompute(lrd_stage_t *s, const lrd_micro_batch_t *batch, int layer,
                              void *state)
{
    lrd_residual_t residual = {.x = lrd_rows(s->family->block_input(state), batch->n_tokens)};
    s->recomputing = true;
    const lrd_status_t status = s->family->block_forward(s, batch, layer, state, &residual);
    s->recomputing = false;
    return status;
}

/* From the gradient of what the run gives to that of its input. */
static lrd_status_t go_down(void *context)
{
    lrd_status_t status = LRD_OK;
    const pass_t *p = context;
    lrd_stage_t *s = p->stage;
    const lrd_mat_t d = lrd_stage_gradient(s, p->batch, p->run, p->place);
    lrd_pass_t left = pass_of(s, p->run, true);
    s->saving = true;
    while (left.n > 0) {
        const int layer = left.first;
        LRD_TRY(begin_block(s, &left));
        void *state = working_state(s, p->place, layer);
        if (s->limits.recompute == LRD_CHECKPOINTING_BLOCK)
            LRD_TRY(recompute(s, p->batch, layer, state));
        LRD_TRY(s->family->block_backward(s, p->batch, layer, state, d));
    }
    expect_usual(s, p->run);
out:
    return status;
}

lrd_status_t lrd_stage_backward(lrd_stage_t *s, const lrd_micro_batch_t *batch, int run,
                                int64_t place)
{
    return run_blocks_part(&(pass_t){s, batch, run, place, true, NULL}, go_down, DOWN);
}

lrd_status_t lrd_stage_logits(lrd_stage_t *s, const lrd_micro_batch_t *batch, lrd_mat_t logits)
{
    lrd_status_t status = LRD_OK;
    const lrd_weight_t head = {s->weights->head};
    LRD_TRY(run_forward(s, batch));
    LRD_TRY(lrd_linear_forward(
        s->stream, s->scratch,
        &(lrd_linear_fwd_t){
            .x = lrd_const(lrd_rows(s->final_norm, batch->n_tokens)), .w = &head, .y = logits}));
out:
    return status;
}

lrd_status_t lrd_stage_take_in(lrd_stage_t *s, const lrd_micro_batch_t *batch)
{
    lrd_residual_t residual;
    return run_blocks(s, batch, s->weights->runs.n - 1, 0, false, &residual);
}

lrd_status_t lrd_stage_next(lrd_stage_t *s, const lrd_micro_batch_t *batch, const int32_t *row,
                            int64_t n, lrd_mat_t logits)
{
    lrd_status_t status = LRD_OK;
    const lrd_weight_t head = {s->weights->head};
    const lrd_mat_t last = lrd_rows(s->last, n);
    LRD_TRY(run_forward(s, batch));
    LRD_TRY(lrd_gather_rows(
        s->stream, s->scratch,
        &(lrd_gather_rows_t){lrd_const(lrd_rows(s->final_norm, batch->n_tokens)), row, last}));
    LRD_TRY(lrd_linear_forward(
        s->stream, s->scratch,
        &(lrd_linear_fwd_t){.x = lrd_const(last), .w = &head, .n_single = n, .y = logits}));
out:
    return status;
}
