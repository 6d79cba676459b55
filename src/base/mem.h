/* base/mem.h -- host memory.
 *
 * Everything the project allocates on the host comes from here, so that tests can make the n-th
 * allocation fail (environment variable LRD_FAIL_ALLOC=n; counted per process from 1).
 * Freed with lrd_free.
 */
#ifndef LRD_BASE_MEM_H
#define LRD_BASE_MEM_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* NULL when there is no memory, or when n * size overflows.
 * Size 0 gives a pointer that may be freed. */
void *lrd_malloc(size_t bytes);
void *lrd_calloc(size_t n, size_t size); /* zeroed */
void *lrd_realloc(void *ptr, size_t bytes);
void *lrd_realloc_array(void *ptr, size_t n, size_t size);
char *lrd_strdup(const char *s);
char *lrd_strndup(const char *s, size_t n); /* exactly n bytes and a NUL */
char *lrd_asprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
void lrd_free(void *ptr); /* NULL is fine */

/* Large, page-aligned, zeroed memory that asks for huge pages. NULL when there is none.
 * Freed with the same number of bytes; NULL is fine. */
void *lrd_pages_alloc(size_t bytes);
void lrd_pages_free(void *ptr, size_t bytes);

/* What of it was not touched yet comes in small pages after all, as a mapped file does. */
void lrd_pages_keep_small(void *ptr, size_t bytes);

/* Allocations so far, up to the one that fails; 0 unless LRD_FAIL_ALLOC is set. */
long lrd_mem_allocations(void);

/* The most memory that this process has had resident so far, in bytes; 0: the system does not say.
 * (getrusage's figure would count what the parent had before exec.) */
size_t lrd_mem_peak_bytes(void);

/* Makes jansson allocate here too. Call once, before any other use of jansson. */
void lrd_mem_adopt_json(void);

/* Whether an allocation of jansson's failed in this thread since the last call. jansson itself does
 * not tell: it reports a syntax error, or loses a character of a string. */
bool lrd_mem_json_failed(void);

/* ptr = zeroed array of n elements of its type, or the function fails with LRD_ERR_NO_MEMORY. */
#define LRD_NEW(ptr, n)                                                                      \
    do {                                                                                     \
        (ptr) = lrd_calloc((size_t)(n), sizeof *(ptr));                                      \
        LRD_CHECK((ptr) != NULL, LRD_ERR_NO_MEMORY, "out of memory: %zu x %zu bytes for %s", \
                  (size_t)(n), sizeof *(ptr), #ptr);                                         \
    } while (0)

/* ptr = what the allocating expression gives, or the function fails with LRD_ERR_NO_MEMORY. */
#define LRD_ALLOC(ptr, expression)                                                     \
    do {                                                                               \
        (ptr) = (expression);                                                          \
        LRD_CHECK((ptr) != NULL, LRD_ERR_NO_MEMORY, "out of memory: %s", #expression); \
    } while (0)

/* Makes room for element n of an array of `capacity`, or the function fails with
 * LRD_ERR_NO_MEMORY and the array stays as it was. */
#define LRD_GROW(array, n, capacity)                                                   \
    do {                                                                               \
        if ((n) == (capacity)) {                                                       \
            const size_t lrd_to = 2 * (capacity) + 16;                                 \
            void *lrd_grown;                                                           \
            LRD_ALLOC(lrd_grown, lrd_realloc_array((array), lrd_to, sizeof *(array))); \
            (array) = lrd_grown;                                                       \
            (capacity) = lrd_to;                                                       \
        }                                                                              \
    } while (0)

#endif /* LRD_BASE_MEM_H */
