#include "base/arena.h"

#include <string.h>

static void count(lrd_arena_t *arena, const char *name, size_t bytes)
{
    for (int i = 0; i < arena->n_categories; i++) {
        if (strcmp(arena->category[i].name, name) == 0) {
            arena->category[i].bytes += bytes;
            return;
        }
    }
    if (arena->n_categories < LRD_ARENA_MAX_CATEGORIES)
        arena->category[arena->n_categories++] = (lrd_arena_category_t){name, bytes};
}

void *lrd_arena_take(lrd_arena_t *arena, const char *category, size_t bytes)
{
    const size_t rounded = (bytes + LRD_ARENA_ALIGN - 1) / LRD_ARENA_ALIGN * LRD_ARENA_ALIGN;
    if (arena->overflow)
        return NULL;
    /* A measuring arena counts from one alignment unit up, so that no address it gives is NULL. */
    const size_t capacity = arena->base != NULL ? arena->capacity : SIZE_MAX - LRD_ARENA_ALIGN;
    if (rounded < bytes || rounded > capacity - arena->used) {
        arena->overflow = true;
        return NULL;
    }
    uint8_t *start = arena->base != NULL ? arena->base : (uint8_t *)LRD_ARENA_ALIGN;
    void *ptr = start + arena->used;
    arena->used += rounded;
    count(arena, category, rounded);
    return ptr;
}

void lrd_arena_reset(lrd_arena_t *arena, const lrd_arena_t *mark)
{
    const bool overflow = arena->overflow;
    *arena = *mark;
    arena->overflow = arena->overflow || overflow;
}
