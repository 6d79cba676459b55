/* model/feed.h -- packed micro-batches on their way from the loader to the device. */
#ifndef LRD_MODEL_FEED_H
#define LRD_MODEL_FEED_H

#include "base/arena.h"
#include "data/loader.h"
#include "model/family.h"

typedef struct lrd_feed {
    lrd_stream_t *stream;
    int64_t max_tokens, max_sequences;
    uint8_t *device, *pinned; /* the four arrays of a micro-batch, one behind the other */
    size_t bytes;             /* of each of the two */
} lrd_feed_t;

/* Allocates pinned memory. */
lrd_status_t lrd_feed_open(lrd_stream_t *stream, int64_t max_tokens, int64_t max_sequences,
                           lrd_feed_t *feed_out);
void lrd_feed_close(lrd_feed_t *feed); /* {0} is fine */

/* Device memory (category "buffers"). */
void lrd_feed_layout(lrd_feed_t *feed, lrd_arena_t *arena);

/* Uploads a batch; *out points to device memory that is valid until the next upload. Waits until
 * the device has done with the one before. LRD_ERR_ARG: the batch is larger than announced. */
lrd_status_t lrd_feed_upload(lrd_feed_t *feed, const lrd_batch_t *batch, lrd_micro_batch_t *out);

#endif /* LRD_MODEL_FEED_H */
