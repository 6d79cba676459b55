#include "base/mem.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* -1: not read yet; 0: never fail; n > 0: fail the n-th allocation from now. */
static atomic_long fail_countdown = -1;
static atomic_long fail_at; /* what it began with */

static bool must_fail(void)
{
    long left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);
    if (left == 0)
        return false;
    if (left < 0) {
        const char *text = getenv("LRD_FAIL_ALLOC");
        left = text != NULL ? atol(text) : 0;
        atomic_store(&fail_at, left > 0 ? left : 0);
        atomic_store(&fail_countdown, left > 0 ? left : 0);
        if (left <= 0)
            return false;
    }
    return atomic_fetch_sub(&fail_countdown, 1) == 1;
}

long lrd_mem_allocations(void)
{
    const long left = atomic_load(&fail_countdown);
    return atomic_load(&fail_at) - (left > 0 ? left : 0);
}

void *lrd_malloc(size_t bytes)
{
    return must_fail() ? NULL : malloc(bytes > 0 ? bytes : 1);
}

void *lrd_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : calloc(n > 0 ? n : 1, size > 0 ? size : 1);
}

void *lrd_realloc(void *ptr, size_t bytes)
{
    return must_fail() ? NULL : realloc(ptr, bytes > 0 ? bytes : 1);
}

void *lrd_realloc_array(void *ptr, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return lrd_realloc(ptr, bytes);
}

char *lrd_strndup(const char *s, size_t n)
{
    char *copy = lrd_malloc(n + 1);
    if (copy != NULL) {
        memcpy(copy, s, n);
        copy[n] = '\0';
    }
    return copy;
}

char *lrd_strdup(const char *s)
{
    return lrd_strndup(s, strlen(s));
}

char *lrd_asprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = n >= 0 ? lrd_malloc((size_t)n + 1) : NULL;
    if (text != NULL)
        vsnprintf(text, (size_t)n + 1, format, again);
    va_end(again);
    return text;
}

void lrd_free(void *ptr)
{
    free(ptr);
}

void *lrd_pages_alloc(size_t bytes)
{
    if (must_fail())
        return NULL;
    bytes = bytes > 0 ? bytes : 1;
    void *ptr = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ptr == MAP_FAILED)
        return NULL;
    madvise(ptr, bytes, MADV_HUGEPAGE); /* advice: where it is refused, small pages serve */
    return ptr;
}

void lrd_pages_free(void *ptr, size_t bytes)
{
    if (ptr != NULL)
        munmap(ptr, bytes > 0 ? bytes : 1);
}

void lrd_pages_keep_small(void *ptr, size_t bytes)
{
    madvise(ptr, bytes, MADV_NOHUGEPAGE);
}

static _Thread_local bool json_failed;

/* A failure is noted and then tried once more: jansson 2.14 drops characters when a string cannot
 * grow, and aborts when that was part of an escape. So the parser usually lives to be told. */
static void *json_allocate(size_t bytes)
{
    void *ptr = lrd_malloc(bytes);
    if (ptr != NULL)
        return ptr;
    json_failed = true;
    return malloc(bytes > 0 ? bytes : 1);
}

void lrd_mem_adopt_json(void)
{
    json_set_alloc_funcs(json_allocate, lrd_free);
}

bool lrd_mem_json_failed(void)
{
    const bool failed = json_failed;
    json_failed = false;
    return failed;
}

size_t lrd_mem_peak_bytes(void)
{
    unsigned long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            break;
    }
    if (f != NULL)
        fclose(f);
    return (size_t)kib * 1024;
}
