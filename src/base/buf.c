#include "base/buf.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

lrd_status_t lrd_buf_reserve(lrd_buf_t *buf, size_t more_bytes)
{
    lrd_status_t status = LRD_OK;
    size_t need;
    LRD_CHECK(!__builtin_add_overflow(buf->size, more_bytes, &need) && need < SIZE_MAX / 2,
              LRD_ERR_NO_MEMORY, "out of memory: a buffer of %zu + %zu bytes", buf->size,
              more_bytes);
    if (need + 1 > buf->capacity) {
        const size_t capacity = need + 1 + (need >> 1) + 32;
        char *data;
        LRD_ALLOC(data, lrd_realloc(buf->data, capacity));
        buf->data = data;
        buf->capacity = capacity;
    }
out:
    return status;
}

lrd_status_t lrd_buf_add(lrd_buf_t *buf, const void *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_reserve(buf, bytes));
    if (bytes > 0)
        memcpy(buf->data + buf->size, data, bytes);
    buf->size += bytes;
    buf->data[buf->size] = '\0';
out:
    return status;
}

lrd_status_t lrd_buf_add_text(lrd_buf_t *buf, const char *text)
{
    return lrd_buf_add(buf, text, strlen(text));
}

lrd_status_t lrd_buf_printf(lrd_buf_t *buf, const char *format, ...)
{
    lrd_status_t status = LRD_OK;
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    const int n = vsnprintf(NULL, 0, format, args);
    LRD_TRY(lrd_buf_reserve(buf, n > 0 ? (size_t)n : 0));
    if (n > 0) {
        vsnprintf(buf->data + buf->size, (size_t)n + 1, format, again);
        buf->size += (size_t)n;
    }
out:
    va_end(again);
    va_end(args);
    return status;
}

void lrd_buf_clear(lrd_buf_t *buf)
{
    buf->size = 0;
    if (buf->data != NULL)
        buf->data[0] = '\0';
}

void lrd_buf_release(lrd_buf_t *buf)
{
    lrd_free(buf->data);
    *buf = (lrd_buf_t){0};
}
