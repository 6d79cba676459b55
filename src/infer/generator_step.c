/* The model's part of a step of generation, as graphs where the backend has them. */
#include "infer/generator_parts.h"

/* Steps are told of caches of up to so many tokens, twice as many, and so on, and those with pieces of prompts
 * are filled up to a multiple of so many rows, so that they come again. */
enum { SHORTEST = 256, ROWS = 128 };

typedef struct step {
    lrd_generator_t *g;
    const lrd_micro_batch_t *batch;
    int64_t n_rows; /* of logits */
} step_t;

static lrd_status_t send_arrays(void *context)
{
    const lrd_generator_t *g = ((const step_t *)context)->g;
    return lrd_copy(g->stream, LRD_COPY_H2D, g->device.row, g->host.row, g->host.bytes);
}

/* The head's run: logits, and a token for each row. */
static lrd_status_t choose(void *context, const lrd_micro_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    const step_t *p = context;
    lrd_generator_t *g = p->g;
    const int64_t v = g->vocab;
    const lrd_mat_t logits = {g->logits, p->n_rows, v, v, LRD_F32};
    if (p->n_rows == 0) /* pieces of long prompts only */
        return lrd_stage_take_in(g->stage, batch);
    LRD_TRY(lrd_stage_next(g->stage, batch, g->device.last, p->n_rows, logits));
    LRD_TRY(lrd_sample(g->stream, g->stage->scratch,
                       &(lrd_sample_t){.logits = lrd_const(logits),
                                       .row = g->device.row,
                                       .seen = g->limits.penalty ? g->seen_device : NULL,
                                       .n_slots = g->limits.slots,
                                       .token = g->next_device}));
    LRD_TRY(lrd_copy(g->stream, LRD_COPY_D2H, g->next_host, g->next_device,
                     (size_t)p->n_rows * sizeof(int32_t)));
out:
    return status;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* More rows behind the last sequence, more sequences without a token, more rows of logits, whose tokens nobody
 * reads. */
static void fill_up(lrd_generator_t *g, lrd_micro_batch_t *b, int64_t *n_rows)
{
    const arrays_t *h = &g->host;
    const int32_t slots = g->limits.slots;
    const int64_t rows = (b->n_tokens + ROWS - 1) / ROWS * ROWS, given = b->n_tokens;
    b->n_tokens = smaller(rows, g->stage->limits.tokens);
    for (int64_t t = given; t < b->n_tokens; t++)
        h->token[t] = 0;
    g->use_begin[b->n_uses] = (int32_t)b->n_tokens;
    int32_t n = b->n_seqs;
    for (int32_t slot = 0; slot < slots; slot++) {
        if (g->slots[slot].n_new > 0)
            continue;
        h->cu_seqlens[n + 1] = (int32_t)given;
        h->cache_len[n] = 0;
        h->slot[n++] = slot;
    }
    b->n_seqs = n;
    for (int64_t i = *n_rows; *n_rows > 0 && i < slots; i++) {
        h->row[i] = (lrd_sample_row_t){.repetition_penalty = 1, .top_p = 1, .slot = -1};
        h->last[i] = 0;
    }
    *n_rows = *n_rows > 0 ? slots : 0;
}

/* What changes from one such step to the next lies in the arrays; the rest is its key, behind the first word. */
static size_t make_key(lrd_generator_t *g, lrd_micro_batch_t *b, int64_t n_rows)
{
    size_t n = 1;
    int64_t most = SHORTEST;
    while (most < b->max_len)
        most *= 2;
    b->max_len = (int32_t)smaller(most, g->limits.capacity);
    g->key[n++] = (uint64_t)b->n_tokens;
    g->key[n++] = (uint64_t)n_rows;
    g->key[n++] = (uint64_t)b->n_seqs;
    g->key[n++] = (uint64_t)b->n_single;
    g->key[n++] = (uint64_t)b->max_len;
    for (int32_t i = 0; i < b->n_uses; i++) {
        g->key[n++] = (uintptr_t)b->use[i].adapter;
        g->key[n++] = (uintptr_t)b->use[i].params;
        g->key[n++] = (uint64_t)b->use_begin[i];
    }
    return n;
}

lrd_status_t lrd_generator_compute(lrd_generator_t *g, lrd_micro_batch_t *batch, int64_t n_rows)
{
    lrd_status_t status = LRD_OK;
    step_t step = {g, batch, n_rows};
    lrd_relay_pass_t pass = {
        .batch = batch, .begin = send_arrays, .head = choose, .context = &step};
    /* Every sequence brings a single token: the same ones will ask for such a step again. Else it has pieces of
     * prompts, and is filled up to what other such steps are filled up to; but not where several adapters share
     * the rows, each time otherwise. */
    const bool single = batch->n_single == batch->n_seqs;
    const bool repeats = g->limits.graphs && (single || batch->n_uses == 1);
    if (repeats && !single) /* on all ranks of the row, also on those whose weights travel */
        fill_up(g, batch, &step.n_rows);
    if (repeats && lrd_stage_has_graphs(g->stage)) {
        pass.graphs = g->graphs;
        pass.key = g->key;
        pass.n_words = make_key(g, batch, step.n_rows);
    }
    LRD_TRY(lrd_relay_run(&g->relay, &pass));
    LRD_TRY(lrd_stream_sync(g->stream));
out:
    return status;
}
