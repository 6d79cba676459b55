#include "infer/text_stream.h"

#include "base/mem.h"

#include <string.h>

void lrd_text_stream_begin(lrd_text_stream_t *s, const lrd_tokenizer_t *tokenizer, const char *stop)
{
    *s = (lrd_text_stream_t){.tokenizer = tokenizer, .stop = stop};
}

void lrd_text_stream_release(lrd_text_stream_t *s)
{
    lrd_buf_release(&s->text);
    lrd_free(s->pending);
    *s = (lrd_text_stream_t){0};
}

/* Ends in U+FFFD: perhaps a character whose last bytes are still to come. */
static bool may_be_cut(const lrd_buf_t *text, size_t begin)
{
    return text->size >= begin + 3 && memcmp(text->data + text->size - 3, "\xef\xbf\xbd", 3) == 0;
}

/* The first stop text that reaches beyond `settled`, or NULL. */
static const char *find_stop(const lrd_text_stream_t *s, size_t settled)
{
    const size_t n = s->stop != NULL ? strlen(s->stop) : 0;
    if (n == 0 || s->text.size < n)
        return NULL;
    const size_t from = settled > n - 1 ? settled - (n - 1) : 0;
    return memmem(s->text.data + from, s->text.size - from, s->stop, n);
}

/* Bytes at the end of the text that a stop text may begin with. */
static size_t held_back(const lrd_text_stream_t *s)
{
    size_t n = s->stop != NULL ? strlen(s->stop) : 0;
    n = n > 0 ? n - 1 : 0;
    n = n < s->text.size ? n : s->text.size;
    while (n > 0 && memcmp(s->text.data + s->text.size - n, s->stop, n) != 0)
        n--;
    return n;
}

static lrd_status_t keep_pending(lrd_text_stream_t *s, int32_t token)
{
    lrd_status_t status = LRD_OK;
    LRD_GROW(s->pending, s->n_pending, s->capacity);
    s->pending[s->n_pending++] = token;
out:
    return status;
}

lrd_status_t lrd_text_stream_add(lrd_text_stream_t *s, int32_t token)
{
    lrd_status_t status = LRD_OK;
    if (s->stopped)
        goto out;
    LRD_TRY(keep_pending(s, token));
    s->text.size = s->settled; /* what the pending tokens gave so far is decoded again */
    LRD_TRY(lrd_tokenizer_decode(s->tokenizer, s->pending, s->n_pending, true, &s->text));
    const char *stop = find_stop(s, s->settled);
    if (stop != NULL) {
        s->text.size = (size_t)(stop - s->text.data);
        s->text.data[s->text.size] = '\0';
        s->shown = s->text.size;
        s->stopped = true;
        goto out;
    }
    if (may_be_cut(&s->text, s->settled))
        goto out;
    s->settled = s->text.size;
    s->n_pending = 0;
    s->shown = s->text.size - held_back(s);
out:
    return status;
}

void lrd_text_stream_end(lrd_text_stream_t *s)
{
    s->shown = s->text.size;
}
