/* base/buf.h -- a growing run of bytes. Start from {0};
 * always NUL-terminated behind `size` once something was added. */
#ifndef LRD_BASE_BUF_H
#define LRD_BASE_BUF_H

#include "base/status.h"

#include <stddef.h>

typedef struct lrd_buf {
    char *data; /* owned; NULL while nothing was added */
    size_t size, capacity;
} lrd_buf_t;

/* All fail with LRD_ERR_NO_MEMORY only, and leave the buffer as it was. */
lrd_status_t lrd_buf_reserve(lrd_buf_t *buf, size_t more_bytes);
lrd_status_t lrd_buf_add(lrd_buf_t *buf, const void *data, size_t bytes);
lrd_status_t lrd_buf_add_text(lrd_buf_t *buf, const char *text);
lrd_status_t lrd_buf_printf(lrd_buf_t *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

void lrd_buf_clear(lrd_buf_t *buf);   /* empty, keeps its memory */
void lrd_buf_release(lrd_buf_t *buf); /* frees; the buffer is {0} again */

#endif /* LRD_BASE_BUF_H */
