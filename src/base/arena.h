/* base/arena.h -- one block of memory, handed out front to back and never taken back one by one.
 *
 *   | category a | category b | ... |      free      |
 *   ^ base                          ^ base + used    ^ base + capacity
 *
 * A run's device memory is three such blocks: model, step, scratch (docs/architecture.md).
 *
 * The code that lays out memory runs twice: on a measuring arena (base NULL) for the size, then on
 * the real one. Both passes take the same path, so what is measured is what is used. An arena does
 * no more than arithmetic on pointers: the memory may lie on a device.
 */
#ifndef LRD_BASE_ARENA_H
#define LRD_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LRD_ARENA_ALIGN = 256, LRD_ARENA_MAX_CATEGORIES = 16 };

typedef struct lrd_arena_category {
    const char *name; /* static text, such as "weights" */
    size_t bytes;
} lrd_arena_category_t;

typedef struct lrd_arena {
    uint8_t *base;   /* NULL: measuring */
    size_t capacity; /* of base; ignored while measuring */
    size_t used;
    bool overflow; /* a request did not fit: every later one fails too */
    lrd_arena_category_t category[LRD_ARENA_MAX_CATEGORIES];
    int n_categories;
} lrd_arena_t;

/* The next `bytes`, aligned to LRD_ARENA_ALIGN, counted under `category` (compared by content).
 * While measuring: a fake address that must not be read. NULL: it does not fit, which means that
 * the two passes differ. */
void *lrd_arena_take(lrd_arena_t *arena, const char *category, size_t bytes);

/* Goes back to where the arena was when it was copied:
 *
 *   const lrd_arena_t mark = *arena;
 *   ...
 *   lrd_arena_reset(arena, &mark);
 *
 * What was taken since is free again and no longer counted, so that two layouts whose lifetimes do
 * not meet can share memory: the larger one last. */
void lrd_arena_reset(lrd_arena_t *arena, const lrd_arena_t *mark);

#endif /* LRD_BASE_ARENA_H */
