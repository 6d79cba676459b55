/* model/memory.h -- a run's device memory: three blocks, measured before they are allocated.
 *
 * The layout function runs twice, on a measuring arena and on the real one, so that what a plan
 * prints is what a run allocates.
 */
#ifndef LRD_MODEL_MEMORY_H
#define LRD_MODEL_MEMORY_H

#include "base/arena.h"
#include "base/buf.h"
#include "kernels/ops.h"

/* Takes everything that lives as long as the run from `model`, as a micro-batch from `step`. */
typedef void lrd_layout_t(void *context, lrd_arena_t *model, lrd_arena_t *step);

/* Device memory that libraries take for themselves while a run goes on: a bound for it, which is set aside, and what
 * they have taken so far, by what the device had less of. */
typedef struct lrd_aside {
    size_t bound, taken;
} lrd_aside_t;

typedef struct lrd_memory {
    lrd_backend_t *backend;
    lrd_layout_t *layout;
    void *context;
    lrd_arena_t model, step;
    lrd_scratch_t scratch;
    lrd_aside_t nccl, graphs; /* told by the caller, before it allocates */
    /* Told by the caller, for the table. host, file: weights that are not kept on the device. */
    size_t mapped_bytes, pinned_bytes, host_bytes, file_bytes;
} lrd_memory_t;

/* Measures. */
void lrd_memory_plan(lrd_backend_t *backend, lrd_layout_t *layout, void *context,
                     size_t scratch_bytes, lrd_memory_t *memory_out);

/* The layout wants another step and scratch than before: measures again and allocates those two anew.
 * What lives as long as the run stays where it is, and must be what it was. */
lrd_status_t lrd_memory_resize(lrd_memory_t *memory, size_t scratch_bytes);

/* Allocates what was measured and lays it out. LRD_ERR_NO_MEMORY, also where it would leave libraries less than is
 * set aside for them, names the categories' sizes and what would help. */
lrd_status_t lrd_memory_allocate(lrd_memory_t *memory);
void lrd_memory_free(lrd_memory_t *memory); /* {0} is fine */

/* Device bytes in all, what is set aside included, without mapped and pinned ones. */
size_t lrd_memory_total(const lrd_memory_t *memory);

/* What of the device's memory a run needs: that, and where the device is the host, pinned memory too. */
size_t lrd_memory_needed(const lrd_memory_t *memory);

/* Appends a table: bytes by category. */
lrd_status_t lrd_memory_print(const lrd_memory_t *memory, lrd_buf_t *buf);

#endif /* LRD_MODEL_MEMORY_H */
