/* infer/text_stream.h -- tokens to text as they come, without cutting a character in two, up to a
 * stop text. */
#ifndef LRD_INFER_TEXT_STREAM_H
#define LRD_INFER_TEXT_STREAM_H

#include "data/tokenizer.h"

typedef struct lrd_text_stream {
    const lrd_tokenizer_t *tokenizer; /* borrowed */
    const char *stop;                 /* borrowed; NULL: none */
    lrd_buf_t text;                   /* of all tokens so far; ends before the stop text */
    size_t shown; /* bytes of text that can be shown: they will not change, nor turn out to begin a
                     stop text */
    bool stopped;
    /* private */
    int32_t *pending; /* tokens behind the last whole character */
    size_t n_pending, capacity, settled;
} lrd_text_stream_t;

void lrd_text_stream_begin(lrd_text_stream_t *stream, const lrd_tokenizer_t *tokenizer,
                           const char *stop);

/* One more token; special ones add nothing. Only out of memory can fail. After the stop text was met
 * nothing is added. */
lrd_status_t lrd_text_stream_add(lrd_text_stream_t *stream, int32_t token);

/* No more tokens will come: all of the text can be shown. */
void lrd_text_stream_end(lrd_text_stream_t *stream);

void lrd_text_stream_release(lrd_text_stream_t *stream); /* {0} is fine */

#endif /* LRD_INFER_TEXT_STREAM_H */
