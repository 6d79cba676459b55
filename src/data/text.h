/* data/text.h -- a run of UTF-8 bytes that somebody else owns. It may hold U+0000. */
#ifndef LRD_DATA_TEXT_H
#define LRD_DATA_TEXT_H

#include <stddef.h>
#include <string.h>

typedef struct lrd_text {
    const char *data; /* NULL: there is none (an empty text has data != NULL) */
    size_t bytes;
} lrd_text_t;

/* Below, at or above 0, by the order of their bytes, a text before its continuations. Neither has
 * data == NULL. */
static inline int lrd_text_compare(lrd_text_t a, lrd_text_t b)
{
    const int order = memcmp(a.data, b.data, a.bytes < b.bytes ? a.bytes : b.bytes);
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

#endif /* LRD_DATA_TEXT_H */
