/* data/text.h -- a run of UTF-8 bytes that somebody else owns. It may hold U+0000. */
#ifndef LRD_DATA_TEXT_H
#define LRD_DATA_TEXT_H

#include <stddef.h>

typedef struct lrd_text {
    const char *data; /* NULL: there is none (an empty text has data != NULL) */
    size_t bytes;
} lrd_text_t;

#endif /* LRD_DATA_TEXT_H */
