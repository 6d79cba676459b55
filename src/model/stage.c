#include "model/stage.h"

#include "base/mem.h"
#include "model/feed.h"
#include "model/stage_parts.h"

#include <string.h>

/* Graphs that are kept: of some twenty sizes of micro-batches, up, through the head, and down. */
enum { GRAPHS = 64 };

static int64_t count_places(const lrd_stage_t *s, int run)
{
    return s->limits.places != NULL ? s->limits.places[run] : 1;
}

/* Linears of a block that have an adapter. */
static int64_t count_adapted(const lrd_stage_t *s, int layer)
{
    int64_t n = 0;
    for (int place = 0; place < s->family->n_linears; place++)
        n += lrd_adapter_find(s->adapter, layer, place) != NULL;
    return n;
}

/* Of passes through blocks, if micro-batches of every size come (model/feed.h): up and down from each place, and up
 * alone for evaluations. */
static int64_t count_nodes(const lrd_stage_t *s)
{
    const int64_t tokens = (s->limits.tokens + LRD_FEED_TOKENS - 1) / LRD_FEED_TOKENS,
                  sequences = (s->limits.sequences + LRD_FEED_SEQUENCES - 1) / LRD_FEED_SEQUENCES;
    int64_t nodes = 0;
    for (int r = 0; r < s->weights->runs.n; r++) {
        const lrd_span_t run = s->weights->runs.run[r];
        for (int layer = run.first; layer < run.last; layer++) {
            const int64_t adapted = count_adapted(s, layer), up = lrd_graphs_nodes_up(adapted);
            const bool again = s->limits.recompute != LRD_CHECKPOINTING_NONE;
            const int64_t down = lrd_graphs_nodes_down(adapted) + (again ? up : 0);
            nodes += up;
            nodes += s->limits.training ? count_places(s, r) * (up + down) : 0;
        }
    }
    return tokens * sequences * nodes;
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
                if (lrd_stage_keeps(s, layer))
                    LRD_ALLOC(s->state[place * n_layers + layer], lrd_calloc(1, bytes));
            }
        }
        if (run->first < run->last && !lrd_stage_keeps(s, run->last - 1) && s->shared_state == NULL)
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
        LRD_TRY(
            lrd_graphs_create(stream,
                              &(lrd_graphs_limits_t){.n = GRAPHS,
                                                     .n_blocks = lrd_runs_longest(&weights->runs),
                                                     .n_uses = 1,
                                                     .n_nodes = count_nodes(s),
                                                     .n_words = LRD_STAGE_KEY_WORDS},
                              &s->graphs));
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

lrd_mat_t lrd_stage_take_roomy(const lrd_stage_t *s, lrd_arena_t *arena, const char *category,
                               int64_t cols, int64_t room)
{
    const int64_t rows = s->limits.tokens, ld = cols + room;
    void *data =
        lrd_arena_take(arena, category, (size_t)(rows * ld) * lrd_dtype_bytes(s->weights->dtype));
    return (lrd_mat_t){data, rows, cols, ld, s->weights->dtype};
}

lrd_mat_t lrd_stage_take(const lrd_stage_t *s, lrd_arena_t *arena, const char *category,
                         int64_t cols)
{
    return lrd_stage_take_roomy(s, arena, category, cols, 0);
}

/* Takes a buffer that linears take, with the room that they want behind it. */
static lrd_mat_t take_input(const lrd_stage_t *s, lrd_arena_t *arena, lrd_linear_input_t input,
                            int64_t cols)
{
    int64_t room = 0;
    for (int place = 0; place < s->family->n_linears; place++) {
        if (s->family->linears[place].input == input && s->weights->room[place] > room)
            room = s->weights->room[place];
    }
    return lrd_stage_take_roomy(s, arena, "buffers", cols, room);
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
    s->norm2 = take_input(s, arena, LRD_INPUT_NORM2, c->hidden);
    s->out = lrd_stage_take(s, arena, "buffers", c->hidden);
    s->mlp = take_input(s, arena, LRD_INPUT_MLP, c->mlp);
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
    s->norm = take_input(s, arena, LRD_INPUT_NORM, c->hidden);
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
