/* model/feed.h -- packed micro-batches on their way from the loader to the device.
 *
 * Two pieces of pinned memory are filled in turn: the host packs a micro-batch while the one before waits
 * for its copy, and that waits on the stream, like all work, for the micro-batch before it. So behind the
 * micro-batch that the device is at, one or two more are in its queue: it never waits for the next, and a
 * run that is asked to stop has no more than these to finish.
 *
 * Padded micro-batches come in a few sizes, so that their passes come again (model/graphs.h): the tokens are
 * filled up to a multiple of 128, which the tiles of products are anyway, with the micro-batch's own
 * beginning once more, as sequences without targets, whose gradients are zeros; the number of sequences is
 * filled up with empty ones. The head is told of 32, 64 or a multiple of 128 targets, as many or more than
 * there are. */
#ifndef LRD_MODEL_FEED_H
#define LRD_MODEL_FEED_H

#include "base/arena.h"
#include "data/loader.h"
#include "model/family.h"

enum { LRD_FEED_SLOTS = 2, LRD_FEED_TOKENS = 128, LRD_FEED_SEQUENCES = 16, LRD_FEED_TARGETS = 32 };

typedef struct lrd_feed {
    lrd_stream_t *stream;
    int64_t max_tokens, max_sequences;
    size_t bytes; /* of what a micro-batch is, one array behind the other */
    uint8_t *
        device; /* [bytes] the copies arrive in the order of the stream, each behind the work before */
    uint8_t *pinned; /* [LRD_FEED_SLOTS][bytes] */
    size_t pinned_bytes;
    lrd_event_t *sent[LRD_FEED_SLOTS]; /* behind the copy from each */
    int64_t n_uploads;
    bool padded; /* the owner's choice; false at first */
} lrd_feed_t;

/* Allocates pinned memory: pinned_bytes. */
lrd_status_t lrd_feed_open(lrd_stream_t *stream, int64_t max_tokens, int64_t max_sequences,
                           lrd_feed_t *feed_out);
void lrd_feed_close(lrd_feed_t *feed); /* {0} is fine */

/* Device memory (category "buffers"). */
void lrd_feed_layout(lrd_feed_t *feed, lrd_arena_t *arena);

/* Uploads a batch, and what the head is told of it; *out points to device memory for what is enqueued until
 * the next upload. Waits until the last batch but one has been copied. Padded, it has more tokens and
 * sequences than the batch. LRD_ERR_ARG: the batch is larger than announced. */
lrd_status_t lrd_feed_upload(lrd_feed_t *feed, const lrd_batch_t *batch, lrd_ce_call_t call,
                             lrd_micro_batch_t *out);

/* Waits until the device has come to the last batch, in steps, each of which is a sign of progress
 * (base/beat.h): who waits for all of the stream then waits for one micro-batch, not for the queue. */
lrd_status_t lrd_feed_settle(lrd_feed_t *feed);

#endif /* LRD_MODEL_FEED_H */
