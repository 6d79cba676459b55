#include "infer/generator.h"

#include "base/mem.h"
#include "infer/generator_parts.h"

#include <string.h>

/* Tokens of a step: pieces of prompts fill what single tokens leave. */
enum { STEP_TOKENS = 512 };

enum { GRAPHS = 16 }; /* that are kept */

lrd_sampling_t lrd_sampling_default(void)
{
    return (lrd_sampling_t){
        .temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_k = 50, .seed = 42};
}

const char *lrd_finish_name(lrd_finish_t finish)
{
    static const char *const names[] = {"eos", "length", "stop"};
    return names[finish];
}

static size_t align(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static arrays_t arrays_at(uint8_t *base, int64_t tokens, int64_t slots)
{
    arrays_t a;
    size_t at = 0;
#define PART(field, count)                                  \
    do {                                                    \
        a.field = (void *)(base + at);                      \
        at = align(at + (size_t)(count) * sizeof *a.field); \
    } while (0)
    PART(row, slots);
    PART(token, tokens);
    PART(cu_seqlens, slots + 1);
    PART(cache_len, slots);
    PART(slot, slots);
    PART(last, slots);
#undef PART
    a.bytes = at;
    return a;
}

static int64_t step_tokens(const lrd_generator_limits_t *l)
{
    const int64_t all = (int64_t)l->slots * l->capacity;
    const int64_t most = all < STEP_TOKENS ? all : STEP_TOKENS;
    return most > l->slots ? most : l->slots;
}

static size_t seen_words(const lrd_generator_t *g)
{
    return g->limits.penalty ? (size_t)(g->vocab + 31) / 32 : 0;
}

lrd_status_t lrd_generator_create(lrd_weights_t *weights, lrd_stream_t *stream,
                                  lrd_generator_limits_t limits, const int32_t *eos, size_t n_eos,
                                  lrd_generator_t **generator_out)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *g = NULL;
    const int64_t tokens = step_tokens(&limits), n = limits.slots;
    const lrd_stage_limits_t stage_limits = {.tokens = tokens,
                                             .sequences = n,
                                             .max_seqlen = limits.capacity,
                                             .slots = limits.slots,
                                             .capacity = limits.capacity,
                                             .rank = limits.rank};
    LRD_NEW(g, 1);
    g->stream = stream;
    g->limits = limits;
    g->vocab = weights->config->vocab_size;
    LRD_CHECK(n_eos <= sizeof g->eos / sizeof g->eos[0], LRD_ERR_UNSUPPORTED,
              "%zu end-of-sequence tokens: at most %zu are supported", n_eos,
              sizeof g->eos / sizeof g->eos[0]);
    g->n_eos = n_eos;
    for (size_t i = 0; i < n_eos; i++)
        g->eos[i] = eos[i];
    LRD_TRY(lrd_stage_create(weights, NULL, stream, stage_limits, &g->stage));
    LRD_TRY(lrd_relay_open(g->stage, &g->relay));
    LRD_NEW(g->slots, n);
    LRD_NEW(g->order, n);
    LRD_NEW(g->use, n);
    LRD_NEW(g->use_begin, n + 1);
    LRD_NEW(g->key, lrd_generator_key_words(limits.slots));
    if (limits.graphs)
        LRD_TRY(lrd_graphs_create(
            stream,
            &(lrd_graphs_limits_t){.n = GRAPHS,
                                   .n_blocks = lrd_runs_longest(&weights->runs),
                                   .n_uses = limits.adapters,
                                   .n_words = lrd_generator_key_words(limits.slots)},
            &g->graphs));
    const size_t arrays = arrays_at(NULL, tokens, n).bytes, next = align((size_t)(n + 1) * 4);
    const size_t slopes = (size_t)weights->config->n_heads * sizeof(float);
    g->pinned_bytes = arrays + next + align(seen_words(g) * 4 + slopes);
    LRD_TRY(lrd_mem_alloc(stream->backend, LRD_MEM_PINNED, g->pinned_bytes, (void **)&g->pinned));
    g->host = arrays_at(g->pinned, tokens, n);
    g->next_host = (int32_t *)(g->pinned + arrays);
    g->seen_host = (uint32_t *)(g->pinned + arrays + next);
    *generator_out = g;
    g = NULL;
out:
    lrd_generator_destroy(g);
    return status;
}

void lrd_generator_spread(lrd_generator_t *g, const lrd_grid_t *grid)
{
    g->relay.grid = grid;
}

static bool is_spread(const lrd_generator_t *g)
{
    return g->relay.grid != NULL && g->relay.grid->n_stages > 1;
}

lrd_status_t lrd_generator_abort(const lrd_generator_t *g, lrd_status_t status)
{
    const bool is_shared = status == LRD_ERR_INTERRUPTED || status == LRD_ERR_NONFINITE;
    return is_spread(g) && !is_shared ? lrd_comm_abort(g->relay.grid->world, status) : status;
}

void lrd_generator_destroy(lrd_generator_t *g)
{
    if (g == NULL)
        return;
    lrd_graphs_destroy(g->graphs);
    lrd_relay_close(&g->relay);
    lrd_mem_free(g->stream->backend, LRD_MEM_PINNED, g->pinned, g->pinned_bytes);
    lrd_stage_destroy(g->stage);
    lrd_free(g->key);
    lrd_free(g->use_begin);
    lrd_free(g->use);
    lrd_free(g->order);
    lrd_free(g->slots);
    lrd_free(g);
}

void lrd_generator_layout(lrd_generator_t *g, lrd_arena_t *model, lrd_arena_t *step)
{
    const int64_t n = g->limits.slots;
    lrd_stage_layout(g->stage, model, step);
    uint8_t *arrays = lrd_arena_take(step, "buffers", g->host.bytes);
    g->device = arrays_at(arrays, g->stage->limits.tokens, n);
    g->next_device = lrd_arena_take(step, "buffers", (size_t)n * 4);
    if (g->stage->weights->has_head)
        g->logits = lrd_arena_take(step, "logits", (size_t)(n * g->vocab) * sizeof *g->logits);
    if (g->limits.penalty)
        g->seen_device = lrd_arena_take(step, "buffers", (size_t)n * seen_words(g) * 4);
}

size_t lrd_generator_scratch_bytes(const lrd_generator_t *g)
{
    return lrd_stage_scratch_bytes(g->stage);
}

size_t lrd_generator_pinned_bytes(const lrd_generator_t *g)
{
    return g->pinned_bytes + g->relay.bytes;
}

size_t lrd_generator_graph_bytes(const lrd_generator_t *g)
{
    return lrd_stage_has_graphs(g->stage) ? lrd_graphs_reserve(g->graphs) : 0;
}

lrd_graphs_taken_t lrd_generator_graphs_taken(const lrd_generator_t *g)
{
    return lrd_graphs_taken(g->graphs);
}

lrd_status_t lrd_generator_prepare(lrd_generator_t *g, lrd_scratch_t scratch)
{
    g->stage->scratch = scratch;
    return lrd_stage_prepare(g->stage, (float *)g->seen_host);
}

/* One run. */
typedef struct run {
    lrd_generator_t *g;
    const lrd_sampling_t *sampling;
    const lrd_request_t *request;
    const lrd_listener_t *listener;
    lrd_reply_t *reply;
    size_t n, next; /* next: request that gets the next free slot */
    int32_t n_used;
} run_t;

static lrd_status_t check_requests(const run_t *r)
{
    lrd_status_t status = LRD_OK;
    const lrd_generator_limits_t *l = &r->g->limits;
    LRD_CHECK(r->sampling->repetition_penalty == 1 || l->penalty, LRD_ERR_ARG,
              "a repetition penalty of %g: memory for it was not prepared",
              (double)r->sampling->repetition_penalty);
    for (size_t i = 0; i < r->n; i++) {
        const lrd_request_t *q = &r->request[i];
        LRD_CHECK(q->n_prompt > 0 && q->max_new_tokens > 0 &&
                      q->n_prompt <= l->capacity - q->max_new_tokens,
                  LRD_ERR_ARG,
                  "request %zu: a prompt of %d tokens and %d new ones, memory was prepared for %d",
                  i, q->n_prompt, q->max_new_tokens, l->capacity);
    }
out:
    return status;
}

/* Marks the prompt's ids on the device. */
static lrd_status_t remember_prompt(run_t *r, int32_t slot, const lrd_request_t *q)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *g = r->g;
    const size_t words = seen_words(g);
    if (words == 0)
        goto out;
    memset(g->seen_host, 0, words * 4);
    for (int32_t i = 0; i < q->n_prompt; i++)
        g->seen_host[q->prompt[i] / 32] |= 1u << (q->prompt[i] % 32);
    LRD_TRY(lrd_copy(g->stream, LRD_COPY_H2D, g->seen_device + (size_t)slot * words, g->seen_host,
                     words * 4));
    LRD_TRY(lrd_stream_sync(g->stream));
out:
    return status;
}

/* Free slots take the next requests. */
static lrd_status_t admit(run_t *r)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *g = r->g;
    for (int32_t s = 0; s < g->limits.slots && r->next < r->n; s++) {
        if (g->slots[s].used)
            continue;
        const lrd_request_t *q = &r->request[r->next];
        LRD_NEW(r->reply[r->next].token, q->max_new_tokens);
        LRD_TRY(remember_prompt(r, s, q));
        g->slots[s] = (slot_t){.used = true, .request = r->next++};
        r->n_used++;
    }
out:
    return status;
}

/* What every sequence brings: single tokens first, then pieces of prompts in the order of the
 * requests, as many tokens as fit. */
static void share_tokens(run_t *r)
{
    lrd_generator_t *g = r->g;
    int64_t left = g->stage->limits.tokens;
    for (int32_t s = 0; s < g->limits.slots; s++) {
        slot_t *x = &g->slots[s];
        x->n_new = x->used && r->reply[x->request].n > 0;
        left -= x->n_new;
    }
    for (;;) {
        slot_t *first = NULL;
        for (int32_t s = 0; s < g->limits.slots; s++) {
            slot_t *x = &g->slots[s];
            if (x->used && x->n_new == 0 && (first == NULL || x->request < first->request))
                first = x;
        }
        if (first == NULL || left == 0)
            break;
        const int64_t rest = r->request[first->request].n_prompt - first->past;
        first->n_new = (int32_t)(rest < left ? rest : left);
        left -= first->n_new;
    }
    for (int32_t s = 0; s < g->limits.slots; s++) {
        slot_t *x = &g->slots[s];
        x->wants = x->n_new > 0 && x->past + x->n_new >= r->request[x->request].n_prompt;
    }
}

/* Sequences that bring a single token, or else a piece of their prompt, into g->order from `first` on: those
 * of one adapter side by side. Returns the place behind them. */
static int32_t group(const run_t *r, bool single, int32_t first)
{
    lrd_generator_t *g = r->g;
    int32_t n = first;
    for (int32_t s = 0; s < g->limits.slots; s++) {
        if (g->slots[s].n_new == 0 || (r->reply[g->slots[s].request].n > 0) != single)
            continue;
        const lrd_adapter_t *mine = r->request[g->slots[s].request].use.adapter;
        int32_t at = n;
        /* Behind the last one of the same adapter, else at the end. */
        for (int32_t i = n; i > first; i--) {
            if (r->request[g->slots[g->order[i - 1]].request].use.adapter == mine) {
                at = i;
                break;
            }
        }
        memmove(g->order + at + 1, g->order + at, (size_t)(n - at) * sizeof g->order[0]);
        g->order[at] = s;
        n++;
    }
    return n;
}

static lrd_sample_row_t sample_row(const run_t *r, int32_t slot)
{
    const lrd_sampling_t *p = r->sampling;
    const size_t request = r->g->slots[slot].request;
    return (lrd_sample_row_t){.temperature = p->do_sample ? p->temperature : 0,
                              .top_p = p->top_p,
                              .min_p = p->min_p,
                              .repetition_penalty = p->repetition_penalty,
                              .top_k = p->top_k,
                              .slot = r->g->limits.penalty ? slot : -1,
                              .seed = p->seed,
                              .request = r->request[request].number,
                              .index = (uint32_t)r->reply[request].n};
}

/* Fills the pinned arrays; *batch names their places on the device. Returns the rows of logits. */
static int64_t pack(const run_t *r, int32_t n_seqs, int32_t n_single, lrd_micro_batch_t *batch)
{
    lrd_generator_t *g = r->g;
    arrays_t *h = &g->host;
    int64_t t = 0, n_rows = 0;
    int32_t longest = 0, max_len = 0, n_uses = 0;
    h->cu_seqlens[0] = 0;
    for (int32_t i = 0; i < n_seqs; i++) {
        const int32_t s = g->order[i];
        const slot_t *x = &g->slots[s];
        const lrd_request_t *q = &r->request[x->request];
        const lrd_reply_t *reply = &r->reply[x->request];
        if (n_uses == 0 || g->use[n_uses - 1].adapter != q->use.adapter) {
            g->use[n_uses] = q->use;
            g->use_begin[n_uses++] = (int32_t)t;
        }
        if (reply->n > 0)
            h->token[t] = reply->token[reply->n - 1];
        else
            memcpy(h->token + t, q->prompt + x->past, (size_t)x->n_new * sizeof h->token[0]);
        t += x->n_new;
        h->cu_seqlens[i + 1] = (int32_t)t;
        h->cache_len[i] = x->past;
        h->slot[i] = s;
        if (x->wants) {
            h->row[n_rows] = sample_row(r, s);
            h->last[n_rows++] = (int32_t)t - 1;
        }
        longest = x->n_new > longest ? x->n_new : longest;
        max_len = x->past + x->n_new > max_len ? x->past + x->n_new : max_len;
    }
    g->use_begin[n_uses] = (int32_t)t;
    *batch = (lrd_micro_batch_t){.token = g->device.token,
                                 .cu_seqlens = g->device.cu_seqlens,
                                 .n_tokens = t,
                                 .n_seqs = n_seqs,
                                 .max_seqlen = longest,
                                 .cache_len = g->device.cache_len,
                                 .slot = g->device.slot,
                                 .max_len = max_len,
                                 .n_single = n_single,
                                 .use = g->use,
                                 .use_begin = g->use_begin,
                                 .n_uses = n_uses};
    return n_rows;
}

static bool is_cancelled(const run_t *r)
{
    return r->listener != NULL && r->listener->cancel != NULL && *r->listener->cancel != 0;
}

/* The last stage tells the others what it chose, and whether to go on: all leave at the same step. */
static lrd_status_t tell(const run_t *r, int64_t n_rows)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *g = r->g;
    const lrd_grid_t *grid = g->relay.grid;
    g->next_host[n_rows] = is_cancelled(r);
    LRD_TRY(lrd_comm_broadcast(grid->row, g->next_host, (size_t)(n_rows + 1) * sizeof(int32_t),
                               grid->n_stages - 1));
    LRD_CHECK(g->next_host[n_rows] == 0, LRD_ERR_INTERRUPTED, "interrupted");
out:
    return status;
}

static bool is_eos(const lrd_generator_t *g, int32_t token)
{
    for (size_t i = 0; i < g->n_eos; i++) {
        if (g->eos[i] == token)
            return true;
    }
    return false;
}

/* A request gets a token, and perhaps its end. */
static lrd_status_t give(run_t *r, slot_t *x, int32_t token)
{
    lrd_status_t status = LRD_OK;
    lrd_reply_t *reply = &r->reply[x->request];
    const lrd_listener_t *l = r->listener;
    bool stop = false;
    LRD_CHECK(token >= 0, LRD_ERR_NONFINITE,
              "request %zu: the model's logits are not finite after %d tokens", x->request,
              x->past);
    reply->token[reply->n++] = token;
    if (l != NULL && l->token != NULL)
        LRD_TRY(l->token(l->context, x->request, reply, &stop));
    if (is_eos(r->g, token))
        reply->finish = LRD_FINISH_EOS;
    else if (stop)
        reply->finish = LRD_FINISH_STOP;
    else if (reply->n == r->request[x->request].max_new_tokens)
        reply->finish = LRD_FINISH_LENGTH;
    else
        goto out;
    x->used = false;
    r->n_used--;
    if (l != NULL && l->done != NULL)
        LRD_TRY(l->done(l->context, x->request, reply));
out:
    return status;
}

static lrd_status_t step(run_t *r)
{
    lrd_status_t status = LRD_OK;
    lrd_generator_t *g = r->g;
    lrd_micro_batch_t batch;
    LRD_CHECK(is_spread(g) || !is_cancelled(r), LRD_ERR_INTERRUPTED, "interrupted");
    LRD_TRY(admit(r));
    share_tokens(r);
    const int32_t n_single = group(r, true, 0), n_seqs = group(r, false, n_single);
    const int64_t n_rows = pack(r, n_seqs, n_single, &batch);
    LRD_TRY(lrd_generator_compute(g, &batch, n_rows));
    if (is_spread(g))
        LRD_TRY(tell(r, n_rows));
    int64_t row = 0;
    for (int32_t i = 0; i < n_seqs; i++) {
        slot_t *x = &g->slots[g->order[i]];
        x->past += x->n_new;
        if (x->wants)
            LRD_TRY(give(r, x, g->next_host[row++]));
    }
out:
    return status;
}

static lrd_status_t answer(run_t *r)
{
    lrd_status_t status = LRD_OK;
    while (r->next < r->n || r->n_used > 0)
        LRD_TRY(step(r));
out:
    return status;
}

lrd_status_t lrd_generate(lrd_generator_t *g, const lrd_sampling_t *sampling,
                          const lrd_request_t *request, size_t n, const lrd_listener_t *listener,
                          lrd_reply_t *reply)
{
    lrd_status_t status = LRD_OK;
    run_t r = {.g = g,
               .sampling = sampling,
               .request = request,
               .listener = listener,
               .reply = reply,
               .n = n};
    memset(reply, 0, n * sizeof *reply);
    LRD_TRY(check_requests(&r));
    memset(g->slots, 0, (size_t)g->limits.slots * sizeof g->slots[0]);
    status = answer(&r);
    const lrd_status_t forgotten = /* adapters may come and go now */
        g->graphs != NULL ? lrd_graphs_forget(g->graphs) : LRD_OK;
    status = status == LRD_OK ? forgotten : status;
out:
    return status;
}

void lrd_replies_release(lrd_reply_t *reply, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        lrd_free(reply[i].token);
        reply[i] = (lrd_reply_t){0};
    }
}
