#include "model/feed.h"

#include <string.h>

/* Offsets of the arrays for a number of tokens and sequences; the widest elements first. */
typedef struct places {
    size_t row_key, token, target, cu_seqlens, end;
} places_t;

static places_t places_of(int64_t tokens, int64_t sequences)
{
    const size_t t = (size_t)tokens, s = (size_t)sequences;
    places_t p = {0};
    p.token = p.row_key + t * sizeof(uint64_t);
    p.target = p.token + t * sizeof(int32_t);
    p.cu_seqlens = p.target + t * sizeof(int32_t);
    p.end = p.cu_seqlens + (s + 1) * sizeof(int32_t);
    return p;
}

lrd_status_t lrd_feed_open(lrd_stream_t *stream, int64_t max_tokens, int64_t max_sequences,
                           lrd_feed_t *feed_out)
{
    lrd_status_t status = LRD_OK;
    lrd_feed_t feed = {.stream = stream, .max_tokens = max_tokens, .max_sequences = max_sequences};
    feed.bytes = (places_of(max_tokens, max_sequences).end + 7) / 8 * 8;
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

lrd_status_t lrd_feed_upload(lrd_feed_t *feed, const lrd_batch_t *batch, lrd_micro_batch_t *out)
{
    lrd_status_t status = LRD_OK;
    const size_t t = (size_t)batch->n_tokens, s = (size_t)batch->n_sequences;
    const places_t p = places_of(batch->n_tokens, batch->n_sequences);
    LRD_CHECK(
        batch->n_tokens <= feed->max_tokens && batch->n_sequences <= feed->max_sequences,
        LRD_ERR_ARG,
        "a micro-batch of %lld tokens in %lld sequences, memory was prepared for %lld in %lld",
        (long long)batch->n_tokens, (long long)batch->n_sequences, (long long)feed->max_tokens,
        (long long)feed->max_sequences);
    const int64_t slot = feed->n_uploads++ % LRD_FEED_SLOTS;
    uint8_t *pinned = feed->pinned + (size_t)slot * feed->bytes;
    LRD_TRY(lrd_event_sync(feed->sent[slot])); /* the pinned memory is used again */
    memcpy(pinned + p.row_key, batch->row_key, t * sizeof(uint64_t));
    memcpy(pinned + p.token, batch->token, t * sizeof(int32_t));
    memcpy(pinned + p.target, batch->target, t * sizeof(int32_t));
    memcpy(pinned + p.cu_seqlens, batch->cu_seqlens, (s + 1) * sizeof(int32_t));
    LRD_TRY(lrd_copy(feed->stream, LRD_COPY_H2D, feed->device, pinned, p.end));
    LRD_TRY(lrd_event_record(feed->stream, feed->sent[slot]));
    *out = (lrd_micro_batch_t){
        .token = (const int32_t *)(feed->device + p.token),
        .target = (const int32_t *)(feed->device + p.target),
        .row_key = (const uint64_t *)(feed->device + p.row_key),
        .cu_seqlens = (const int32_t *)(feed->device + p.cu_seqlens),
        .n_tokens = batch->n_tokens,
        .n_targets = batch->n_targets,
        .n_seqs = (int32_t)batch->n_sequences,
        .max_seqlen = longest(batch),
    };
out:
    return status;
}
