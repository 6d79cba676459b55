#include "model/feed.h"

#include <string.h>

/* Offsets of the arrays for a number of tokens and sequences; the widest elements first, the head's call
 * at the beginning. */
typedef struct places {
    size_t row_key, token, target, cu_seqlens, end;
} places_t;

static places_t places_of(int64_t tokens, int64_t sequences)
{
    const size_t t = (size_t)tokens, s = (size_t)sequences;
    places_t p = {.row_key = sizeof(lrd_ce_call_t)};
    p.token = p.row_key + t * sizeof(uint64_t);
    p.target = p.token + t * sizeof(int32_t);
    p.cu_seqlens = p.target + t * sizeof(int32_t);
    p.end = p.cu_seqlens + (s + 1) * sizeof(int32_t);
    return p;
}

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Of how many targets the head is told: so few numbers that they come again, and so close to the true one
 * that its products are no larger in their tiles. */
static int64_t bound_targets(int64_t targets, int64_t tokens)
{
    int64_t unit = LRD_FEED_TARGETS;
    while (unit < targets && unit < LRD_FEED_TOKENS)
        unit *= 2;
    return smaller(targets > 0 ? round_up(targets, unit) : unit, tokens);
}

lrd_status_t lrd_feed_open(lrd_stream_t *stream, int64_t max_tokens, int64_t max_sequences,
                           lrd_feed_t *feed_out)
{
    lrd_status_t status = LRD_OK;
    lrd_feed_t feed = {.stream = stream, .max_tokens = max_tokens, .max_sequences = max_sequences};
    /* A sequence of the padding has a token at least. */
    const int64_t sequences = round_up(max_sequences + LRD_FEED_TOKENS, LRD_FEED_SEQUENCES);
    feed.bytes = (places_of(max_tokens, sequences).end + 7) / 8 * 8;
    feed.pinned_bytes = LRD_FEED_SLOTS * feed.bytes;
    for (int i = 0; i < LRD_FEED_SLOTS; i++)
        LRD_TRY(lrd_event_create(stream->backend, &feed.sent[i]));
    LRD_TRY(
        lrd_mem_alloc(stream->backend, LRD_MEM_PINNED, feed.pinned_bytes, (void **)&feed.pinned));
    *feed_out = feed;
    feed = (lrd_feed_t){0};
out:
    lrd_feed_close(&feed);
    return status;
}

void lrd_feed_close(lrd_feed_t *feed)
{
    if (feed->stream != NULL)
        lrd_mem_free(feed->stream->backend, LRD_MEM_PINNED, feed->pinned, feed->pinned_bytes);
    for (int i = 0; i < LRD_FEED_SLOTS; i++)
        lrd_event_destroy(feed->sent[i]);
    *feed = (lrd_feed_t){0};
}

void lrd_feed_layout(lrd_feed_t *feed, lrd_arena_t *arena)
{
    feed->device = lrd_arena_take(arena, "buffers", feed->bytes);
}

static int32_t longest(const lrd_batch_t *batch)
{
    int32_t most = 0;
    for (int64_t s = 0; s < batch->n_sequences; s++) {
        const int32_t length = batch->cu_seqlens[s + 1] - batch->cu_seqlens[s];
        most = length > most ? length : most;
    }
    return most;
}

/* The arrays of a micro-batch in pinned memory. */
typedef struct arrays {
    uint64_t *row_key;
    int32_t *token, *target, *cu_seqlens;
} arrays_t;

static arrays_t arrays_at(uint8_t *base, const places_t *p)
{
    return (arrays_t){(uint64_t *)(base + p->row_key), (int32_t *)(base + p->token),
                      (int32_t *)(base + p->target), (int32_t *)(base + p->cu_seqlens)};
}

static void put(const lrd_batch_t *batch, const arrays_t *a)
{
    const size_t t = (size_t)batch->n_tokens, s = (size_t)batch->n_sequences;
    memcpy(a->row_key, batch->row_key, t * sizeof a->row_key[0]);
    memcpy(a->token, batch->token, t * sizeof a->token[0]);
    memcpy(a->target, batch->target, t * sizeof a->target[0]);
    memcpy(a->cu_seqlens, batch->cu_seqlens, (s + 1) * sizeof a->cu_seqlens[0]);
}

/* Fills the arrays up to so many tokens. Returns the number of sequences. */
static int64_t pad(const lrd_batch_t *batch, int64_t tokens, const arrays_t *a)
{
    int64_t n = batch->n_sequences, end = batch->n_tokens;
    for (int64_t t = end, from = 0; t < tokens; t++, from = (from + 1) % batch->n_tokens) {
        a->row_key[t] = batch->row_key[from];
        a->token[t] = batch->token[from];
        a->target[t] = LRD_NO_TARGET;
    }
    for (int64_t s = 0; end < tokens; s = (s + 1) % batch->n_sequences) {
        const int64_t length = batch->cu_seqlens[s + 1] - batch->cu_seqlens[s];
        end = smaller(end + length, tokens);
        if (length > 0)
            a->cu_seqlens[++n] = (int32_t)end;
    }
    while (n % LRD_FEED_SEQUENCES != 0)
        a->cu_seqlens[++n] = (int32_t)tokens;
    return n;
}

lrd_status_t lrd_feed_upload(lrd_feed_t *feed, const lrd_batch_t *batch, lrd_ce_call_t call,
                             lrd_micro_batch_t *out)
{
    lrd_status_t status = LRD_OK;
    const bool padded = feed->padded && batch->n_tokens > 0;
    int64_t tokens = batch->n_tokens, sequences = batch->n_sequences;
    int64_t targets = batch->n_targets;
    LRD_CHECK(
        batch->n_tokens <= feed->max_tokens && batch->n_sequences <= feed->max_sequences,
        LRD_ERR_ARG,
        "a micro-batch of %lld tokens in %lld sequences, memory was prepared for %lld in %lld",
        (long long)batch->n_tokens, (long long)batch->n_sequences, (long long)feed->max_tokens,
        (long long)feed->max_sequences);
    if (padded)
        tokens = smaller(round_up(tokens, LRD_FEED_TOKENS), feed->max_tokens);
    const places_t p = places_of(tokens, 0); /* cu_seqlens stands last */
    const int64_t slot = feed->n_uploads++ % LRD_FEED_SLOTS;
    uint8_t *pinned = feed->pinned + (size_t)slot * feed->bytes;
    const arrays_t a = arrays_at(pinned, &p);
    LRD_TRY(lrd_event_sync(feed->sent[slot])); /* the pinned memory is used again */
    memcpy(pinned, &call, sizeof call);
    put(batch, &a);
    if (padded) {
        targets = bound_targets(targets, tokens);
        sequences = pad(batch, tokens, &a);
    }
    LRD_TRY(lrd_copy(feed->stream, LRD_COPY_H2D, feed->device, pinned,
                     places_of(tokens, sequences).end));
    LRD_TRY(lrd_event_record(feed->stream, feed->sent[slot]));
    *out = (lrd_micro_batch_t){
        .token = (const int32_t *)(feed->device + p.token),
        .target = (const int32_t *)(feed->device + p.target),
        .row_key = (const uint64_t *)(feed->device + p.row_key),
        .cu_seqlens = (const int32_t *)(feed->device + p.cu_seqlens),
        .call = (const lrd_ce_call_t *)feed->device,
        .n_tokens = tokens,
        .n_targets = targets,
        .n_seqs = (int32_t)sequences,
        .max_seqlen = (int32_t)longest(batch),
    };
out:
    return status;
}

lrd_status_t lrd_feed_settle(lrd_feed_t *feed)
{
    lrd_status_t status = LRD_OK;
    for (int i = 0; i < LRD_FEED_SLOTS; i++)
        LRD_TRY(lrd_event_sync(feed->sent[(feed->n_uploads + i) % LRD_FEED_SLOTS]));
out:
    return status;
}
