/* model/offload.h -- blocks whose weights are not kept on the device and travel there in time. Part of
 * model/weights.h; included by what is behind that and its tests only.
 *
 *   pinned host memory ----------------copy stream--> a slot on the device --> ops of the block
 *   mapped file --host--> pinned pieces ----------^
 *
 * Slots hold one block each, those that are needed next. A slot is filled behind the last op that reads
 * what is in it; ops that read it wait until it is filled. What is in host memory is asked for before
 * the block in work is enqueued, and travels meanwhile. What is in a file is copied by the host when it
 * comes to enqueue the block: the device computes the one before, and the system reads ahead.
 *
 * Where ops read host memory nothing travels: the system is told which pages of a file come next.
 */
#ifndef LRD_MODEL_OFFLOAD_H
#define LRD_MODEL_OFFLOAD_H

#include "model/weights.h"

typedef struct lrd_offload lrd_offload_t;

/* For blocks of these weights, whose block tensors it will point to slots; home[n_layers] is copied. */
lrd_status_t lrd_offload_create(lrd_weights_t *weights, const lrd_home_t *home,
                                lrd_offload_t **offload_out);
void lrd_offload_destroy(lrd_offload_t *offload); /* waits for what travels; NULL is fine */

/* NULL has all blocks on the device. */
lrd_home_t lrd_offload_home(const lrd_offload_t *offload, int layer);

/* Where a tensor of a block is in the files. */
void lrd_offload_locate(lrd_offload_t *offload, int layer, int tensor, lrd_located_t from);

/* Takes the slots (category "slots"), and counts in the weights what is kept elsewhere. Only where ops
 * do not read host memory. */
void lrd_offload_layout(lrd_offload_t *offload, lrd_arena_t *arena);

/* Allocates pinned memory and what else it needs to work, once. Only after a layout. */
lrd_status_t lrd_offload_open(lrd_offload_t *offload, lrd_backend_t *backend);

/* Where a tensor of a block lies in pinned memory. */
void *lrd_offload_host(const lrd_offload_t *offload, int layer, int tensor);

/* lrd_weights_use. */
lrd_status_t lrd_offload_use(lrd_offload_t *offload, lrd_stream_t *stream, int layer,
                             lrd_pass_t left, lrd_pass_t then);

#endif /* LRD_MODEL_OFFLOAD_H */
