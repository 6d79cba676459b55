/* kernels/cpu_checked/checked_backend.h -- the CPU backend under a GPU's rules,
 * to find without a GPU most of what one would:
 *   - device memory cannot be touched by the host: outside of ops it is protected, and a touch is
 *     a fault there;
 *   - ops are recorded, and run when somebody waits for them, no sooner: what they point to must live
 *     until then, what they read from the host is read at once, and a stream that does not wait for
 *     another's event finds none of its work done;
 *   - nothing starts zeroed: fresh memory and scratch hold NaN before every op;
 *   - every pointer of an op must be device memory, host memory of a copy must be pinned.
 */
#ifndef LRD_CHECKED_BACKEND_H
#define LRD_CHECKED_BACKEND_H

#include "kernels/ops.h"

#include <stdbool.h>

typedef struct checked_backend checked_backend_t;
typedef struct checked_stream checked_stream_t;
typedef struct checked_event checked_event_t;

/* Where an event was recorded. Shared by the event, the stream that will pass it, and those that wait. */
typedef struct place {
    int holders;
    checked_stream_t *stream; /* NULL: it was passed */
} place_t;

/* A recorded op: `run` executes it on the inner CPU stream. NULL: an event's place, or a wait. */
typedef struct record {
    lrd_status_t (*run)(lrd_stream_t *inner, const struct record *r);
    lrd_scratch_t scratch;
    void *args;               /* owned, with everything that it points to on the host */
    place_t *passes, *awaits; /* held */
    struct record *next;
} record_t;

/* True: bytes from ptr lie in device memory of this backend.
 * bytes == 0 asks for the first byte alone. */
bool checked_is_device(lrd_stream_t *st, const void *ptr, size_t bytes);

/* Appends to the stream; takes over args. */
lrd_status_t checked_record(lrd_stream_t *st, lrd_status_t (*run)(lrd_stream_t *, const record_t *),
                            lrd_scratch_t scratch, void *args);

#define OP(name, args) \
    lrd_status_t checked_##name(lrd_stream_t *st, lrd_scratch_t scratch, const args *a);
LRD_OP_LIST(OP)
#undef OP

extern const lrd_ops_t lrd_cpu_checked_ops;

#endif /* LRD_CHECKED_BACKEND_H */
