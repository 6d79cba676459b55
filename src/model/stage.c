#include "model/stage.h"

#include "base/mem.h"

#include <string.h>

/* Graphs of passes: of a few sizes of micro-batches, each in both directions, the way back once for each
 * place that gradients go to. */
enum { GRAPHS = 32, KEY_WORDS = 11 };

/* Final norm tensors: gamma, then beta. */
enum { FINAL_GAMMA, FINAL_BETA };

static int64_t count_places(const lrd_stage_t *s, int run)
{
    return s->limits.places != NULL ? s->limits.places[run] : 1;
}

static bool keeps(const lrd_stage_t *s, int layer)
{
    return s->limits.training && layer >= s->lowest_layer;
}

/* The places of all runs, and a shared one if some run keeps nothing. */
static lrd_status_t create_states(lrd_stage_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_runs_t *runs = &s->weights->runs;
    const size_t bytes = s->family->block_state_bytes;
    const int64_t n_layers = s->config->n_layers;
    for (int r = 0; r < runs->n; r++)
        s->most_places = count_places(s, r) > s->most_places ? count_places(s, r) : s->most_places;
    LRD_NEW(s->state, s->most_places * n_layers);
    for (int r = 0; r < runs->n; r++) {
        const lrd_span_t *run = &runs->run[r];
        for (int64_t place = 0; place < count_places(s, r); place++) {
            for (int layer = run->first; layer < run->last; layer++) {
                if (keeps(s, layer))
                    LRD_ALLOC(s->state[place * n_layers + layer], lrd_calloc(1, bytes));
            }
        }
        if (run->first < run->last && !keeps(s, run->last - 1) && s->shared_state == NULL)
            LRD_ALLOC(s->shared_state, lrd_calloc(1, bytes));
    }
    if (s->limits.recompute != LRD_CHECKPOINTING_NONE)
        LRD_ALLOC(s->work_state, lrd_calloc(1, bytes));
out:
    return status;
}

lrd_status_t lrd_stage_create(lrd_weights_t *weights, const lrd_adapter_t *adapter,
                              lrd_stream_t *stream, lrd_stage_limits_t limits,
                              lrd_stage_t **stage_out)
{
    lrd_status_t status = LRD_OK;
    lrd_stage_t *s = NULL;
    const lrd_model_config_t *c = weights->config;
    LRD_NEW(s, 1);
    s->family = c->family;
    s->config = c;
    s->weights = weights;
    s->adapter = adapter;
    s->stream = stream;
    s->limits = limits;
    s->lowest_layer = adapter != NULL ? adapter->lowest_layer : (int)c->n_layers;
    s->lowest_place = adapter != NULL ? adapter->lowest_place : 0;
    LRD_TRY(create_states(s));
    LRD_NEW(s->d, 1 + s->most_places);
    LRD_NEW(s->cache, c->n_layers);
    LRD_NEW(s->lora, limits.sequences > 1 ? limits.sequences : 1);
    lrd_stage_expect(s, 0, false);
    if (limits.graphs)
        LRD_TRY(lrd_graphs_create(stream, GRAPHS, KEY_WORDS, &s->graphs));
    *stage_out = s;
    s = NULL;
out:
    lrd_stage_destroy(s);
    return status;
}

void lrd_stage_destroy(lrd_stage_t *s)
{
    if (s == NULL)
        return;
    lrd_graphs_destroy(s->graphs);
    for (int64_t i = 0; s->state != NULL && i < s->most_places * s->config->n_layers; i++)
        lrd_free(s->state[i]);
    lrd_free(s->state);
    lrd_free(s->shared_state);
    lrd_free(s->work_state);
    lrd_free(s->d);
    lrd_free(s->cache);
    lrd_free(s->lora);
    lrd_free(s);
}

lrd_mat_t lrd_stage_take(const lrd_stage_t *s, lrd_arena_t *arena, const char *category,
                         int64_t cols)
{
    const int64_t rows = s->limits.tokens;
    void *data =
        lrd_arena_take(arena, category, (size_t)(rows * cols) * lrd_dtype_bytes(s->weights->dtype));
    return (lrd_mat_t){data, rows, cols, cols, s->weights->dtype};
}

static int64_t largest_rank(const lrd_stage_t *s)
{
    int64_t r = s->limits.rank;
    for (int i = 0; s->adapter != NULL && i < s->adapter->n_items; i++)
        r = s->adapter->items[i].r > r ? s->adapter->items[i].r : r;
    return r;
}

static bool adapts_last_linear(const lrd_stage_t *s)
{
    for (int layer = 0; s->adapter != NULL && layer < s->config->n_layers; layer++) {
        if (lrd_adapter_find(s->adapter, layer, s->family->n_linears - 1) != NULL)
            return true;
    }
    return false;
}

static void layout_forward(lrd_stage_t *s, lrd_arena_t *arena)
{
    const lrd_model_config_t *c = s->config;
    s->norm2 = lrd_stage_take(s, arena, "buffers", c->hidden);
    s->out = lrd_stage_take(s, arena, "buffers", c->hidden);
    s->mlp = lrd_stage_take(s, arena, "buffers", c->mlp);
}

static void layout_backward(lrd_stage_t *s, lrd_arena_t *arena)
{
    const lrd_model_config_t *c = s->config;
    s->d_norm = lrd_stage_take(s, arena, "buffers", c->hidden);
    s->d_qkv = lrd_stage_take(s, arena, "buffers", 3 * c->hidden);
    s->d_mlp = lrd_stage_take(s, arena, "buffers", c->mlp);
    if (adapts_last_linear(s))
        s->act_mlp = lrd_stage_take(s, arena, "buffers", c->mlp);
}

static void layout_generation(lrd_stage_t *s, lrd_arena_t *arena)
{
    const lrd_model_config_t *c = s->config;
    const lrd_kv_shape_t shape = {s->limits.slots, s->limits.capacity, (int32_t)c->n_heads,
                                  (int32_t)c->head_dim, s->weights->dtype};
    const int64_t n = s->limits.sequences;
    const size_t bytes = lrd_kv_cache_bytes(s->stream->backend, &shape);
    for (int r = 0; r < s->weights->runs.n; r++) {
        const lrd_span_t run = s->weights->runs.run[r];
        for (int layer = run.first; layer < run.last; layer++)
            s->cache[layer] = (lrd_kv_cache_t){shape, lrd_arena_take(arena, "cache", bytes)};
    }
    void *last = lrd_arena_take(arena, "buffers",
                                (size_t)(n * c->hidden) * lrd_dtype_bytes(s->weights->dtype));
    s->last = (lrd_mat_t){last, n, c->hidden, c->hidden, s->weights->dtype};
}

static void layout_states(lrd_stage_t *s, lrd_arena_t *arena)
{
    const int n_layers = (int)s->config->n_layers;
    if (s->work_state != NULL)
        s->family->layout_block(s, -1, arena, s->work_state);
    for (int64_t i = 0; i < s->most_places * n_layers; i++) {
        if (s->state[i] != NULL && s->limits.recompute == LRD_CHECKPOINTING_BLOCK)
            s->family->layout_input(s, arena, s->state[i]);
        else if (s->state[i] != NULL)
            s->family->layout_block(s, (int)(i % n_layers), arena, s->state[i]);
    }
    if (s->shared_state != NULL)
        s->family->layout_block(s, -1, arena, s->shared_state);
}

static void layout_head(lrd_stage_t *s, lrd_arena_t *arena)
{
    const size_t column = (size_t)s->limits.tokens * sizeof(float);
    s->final_res = lrd_stage_take(s, arena, "buffers", s->config->hidden);
    s->final_norm = lrd_stage_take(s, arena, "buffers", s->config->hidden);
    s->final_mean = lrd_arena_take(arena, "buffers", column);
    s->final_rstd = lrd_arena_take(arena, "buffers", column);
}

/* The gradients that the head leaves; one of them serves where there is nothing but the head's run. */
static void layout_gradients(lrd_stage_t *s, lrd_arena_t *arena)
{
    const lrd_runs_t *runs = &s->weights->runs;
    const int64_t of_head = s->weights->has_head ? count_places(s, runs->n - 1) : 0;
    for (int64_t i = 0; i <= of_head; i++) {
        if (i > 0 || of_head == 0 || runs->n > 1)
            s->d[i] = lrd_stage_take(s, arena, "buffers", s->config->hidden);
    }
}

void lrd_stage_layout(lrd_stage_t *s, lrd_arena_t *model, lrd_arena_t *arena)
{
    const lrd_model_config_t *c = s->config;
    const int64_t t = s->limits.tokens;
    s->slope = lrd_arena_take(model, "constants", (size_t)c->n_heads * sizeof(float));
    s->u_shared = lrd_arena_take(arena, "buffers", (size_t)(t * largest_rank(s)) * sizeof(float));
    s->norm = lrd_stage_take(s, arena, "buffers", c->hidden);
    if (s->weights->has_head)
        layout_head(s, arena);
    layout_states(s, arena);
    if (s->limits.slots > 0)
        layout_generation(s, arena);
    if (s->limits.training)
        layout_gradients(s, arena);
    /* Forward and backward are never in the same block's work at once: their buffers overlap.
     * The larger set is taken last, so that the arena ends behind it. */
    const lrd_arena_t mark = *arena;
    layout_forward(s, arena);
    if (s->limits.training) {
        lrd_arena_reset(arena, &mark);
        layout_backward(s, arena);
    }
}

size_t lrd_stage_scratch_bytes(const lrd_stage_t *s)
{
    const lrd_model_config_t *c = s->config;
    const lrd_limits_t limits = {.tokens = s->limits.tokens,
                                 .max_seqlen = s->limits.max_seqlen,
                                 .hidden = c->hidden,
                                 .mlp = c->mlp,
                                 .vocab = c->vocab_size,
                                 .n_heads = c->n_heads,
                                 .head_dim = c->head_dim,
                                 .rank = largest_rank(s),
                                 .cached_len = s->limits.slots > 0 ? s->limits.capacity : 0,
                                 .sequences = s->limits.slots > 0 ? s->limits.sequences : 0,
                                 .compute = s->weights->dtype,
                                 .training = s->limits.training};
    return lrd_scratch_bytes(s->stream->backend, &limits);
}

lrd_status_t lrd_stage_prepare(lrd_stage_t *s, float *pinned)
{
    lrd_status_t status = LRD_OK;
    s->family->head_slopes(s->config, pinned);
    LRD_TRY(lrd_copy(s->stream, LRD_COPY_H2D, s->slope, pinned,
                     (size_t)s->config->n_heads * sizeof(float)));
    LRD_TRY(lrd_stream_sync(s->stream));
out:
    return status;
}

const lrd_lora_rows_t *lrd_stage_lora(lrd_stage_t *s, const lrd_micro_batch_t *batch, int layer,
                                      int place, int64_t *rank_out)
{
    const lrd_adapter_use_t own = {s->adapter, s->params};
    const int32_t n = batch->n_uses > 0 ? batch->n_uses : 1;
    const uint32_t site = (uint32_t)(s->family->n_linears * layer + place);
    int64_t rank = 0;
    for (int32_t i = 0; i < n; i++) {
        const lrd_adapter_use_t *use = batch->n_uses > 0 ? &batch->use[i] : &own;
        const lrd_adapter_item_t *item =
            use->adapter != NULL ? lrd_adapter_find(use->adapter, layer, place) : NULL;
        s->lora[i] = (lrd_lora_t){0};
        if (item == NULL)
            continue;
        s->lora[i] = (lrd_lora_t){
            .a = {use->params + item->a, item->r, item->n_in, item->n_in, LRD_F32},
            .b = {use->params + item->b, item->n_out, item->r, item->r, LRD_F32},
            .scale = (float)item->scale,
            .drop = {s->saving ? s->dropout : 0.0f, site, s->seed, batch->row_key},
        };
        rank = item->r > rank ? item->r : rank;
    }
    if (rank == 0)
        return NULL;
    s->all_rows[1] = (int32_t)batch->n_tokens;
    s->lora_rows =
        (lrd_lora_rows_t){n, s->lora, batch->n_uses > 0 ? batch->use_begin : s->all_rows};
    *rank_out = rank;
    return &s->lora_rows;
}

void lrd_stage_lora_grads(const lrd_stage_t *s, int layer, int place, lrd_mat_t *da_out,
                          lrd_mat_t *db_out)
{
    const lrd_adapter_item_t *item = lrd_adapter_find(s->adapter, layer, place);
    *da_out =
        (lrd_mat_t){s->grads + (item->a - s->first_grad), item->r, item->n_in, item->n_in, LRD_F32};
    *db_out =
        (lrd_mat_t){s->grads + (item->b - s->first_grad), item->n_out, item->r, item->r, LRD_F32};
}

bool lrd_stage_needs_dx(const lrd_stage_t *s, int layer, int place)
{
    return layer > s->lowest_layer || (layer == s->lowest_layer && place > s->lowest_place);
}

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
    if (!keeps(s, run.last - 1))
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
    bool saving; /* a backward pass will follow, or is this */
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

/* Enqueues a pass, as a graph if it is one of a training that comes again. The key: what go_up and go_down
 * tell their ops. */
static lrd_status_t run_pass(pass_t *p, lrd_graphs_pass_t *pass, bool backward)
{
    const lrd_stage_t *s = p->stage;
    const lrd_micro_batch_t *b = p->batch;
    const uint64_t key[KEY_WORDS] = {backward,
                                     (uint64_t)p->run,
                                     (uint64_t)p->place,
                                     (uint64_t)b->n_tokens,
                                     (uint64_t)b->n_seqs,
                                     (uint64_t)b->max_seqlen,
                                     (uintptr_t)b->token,
                                     (uintptr_t)b->row_key,
                                     (uintptr_t)b->cu_seqlens,
                                     backward ? (uintptr_t)s->grads : 0,
                                     backward ? (uint64_t)s->first_grad : 0};
    if (s->graphs == NULL || !p->saving || !lrd_stage_has_graphs(s))
        return pass(p);
    return lrd_graphs_run(s->graphs, key, KEY_WORDS, pass, p);
}

/* The run with the head, up to the final norm. */
static lrd_status_t run_forward(lrd_stage_t *s, const lrd_micro_batch_t *batch)
{
    return go_up(&(pass_t){s, batch, s->weights->runs.n - 1, 0, false});
}

static lrd_status_t run_loss(lrd_stage_t *s, const lrd_micro_batch_t *batch,
                             const lrd_stage_loss_t *loss, lrd_mat_t dh)
{
    const lrd_weight_t head = {s->weights->head};
    return lrd_linear_ce(
        s->stream, s->scratch,
        &(lrd_linear_ce_t){.h = lrd_const(lrd_rows(s->final_norm, batch->n_tokens)),
                           .w = &head,
                           .target = batch->target,
                           .n_targets = batch->n_targets,
                           .inv_n_target = loss->inv_n_target,
                           .state = loss->state,
                           .nll = loss->nll,
                           .token_nll = loss->token_nll,
                           .dh = dh});
}

/* Loss, and the gradient of the final norm's input in d unless that is absent. What these ops are told
 * differs from one micro-batch to the next, so they are in no graph. */
static lrd_status_t run_head(lrd_stage_t *s, const lrd_micro_batch_t *batch,
                             const lrd_stage_loss_t *loss, lrd_mat_t d)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(run_loss(s, batch, loss, d));
    if (d.data == NULL)
        goto out;
    LRD_TRY(lrd_norm_backward(
        s->stream, s->scratch,
        &(lrd_norm_bwd_t){.dy = lrd_const(d),
                          .res = lrd_const(lrd_rows(s->final_res, batch->n_tokens)),
                          .gamma = s->weights->final[FINAL_GAMMA],
                          .mean = s->final_mean,
                          .rstd = s->final_rstd,
                          .dres = d}));
out:
    return status;
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
    const lrd_mat_t none = {0};
    LRD_TRY(run_pass(&(pass_t){s, batch, run, place, saving}, go_up, false));
    if (s->weights->runs.run[run].head)
        LRD_TRY(run_head(s, batch, loss, saving ? lrd_stage_gradient(s, batch, run, place) : none));
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
    return run_pass(&(pass_t){s, batch, run, place, true}, go_down, true);
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
