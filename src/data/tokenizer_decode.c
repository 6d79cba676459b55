#include "base/utf8.h"
#include "data/tokenizer_parts.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* Appends the bytes, or what stands for those that are not UTF-8. */
static lrd_status_t add_utf8(const char *data, size_t bytes, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    size_t good = 0; /* begin of what is well-formed and not yet appended */
    for (size_t i = 0; i < bytes;) {
        int32_t code;
        const size_t length = lrd_utf8_next(data + i, bytes - i, &code);
        if (code < 0) {
            LRD_TRY(lrd_buf_add(text, data + good, i - good));
            LRD_TRY(lrd_buf_add(text, replacement, sizeof replacement - 1));
            good = i + length;
        }
        i += length;
    }
    LRD_TRY(lrd_buf_add(text, bytes > 0 ? data + good : "", bytes - good));
out:
    return status;
}

lrd_status_t lrd_tokenizer_decode(const lrd_tokenizer_t *tokenizer, const int32_t *id, size_t n,
                                  bool skip_special, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const lrd_vocab_t *vocab = &tokenizer->vocab;
    const size_t size_before = text->size;
    lrd_buf_t bytes = {0};
    for (size_t i = 0; i < n; i++) {
        const lrd_vocab_token_t *token = lrd_vocab_by_id(vocab, id[i]);
        if (token != NULL && !(skip_special && token->special))
            LRD_TRY(lrd_buf_add(&bytes, vocab->bytes.data + token->bytes, token->n_bytes));
    }
    LRD_TRY(add_utf8(bytes.data, bytes.size, text));
out:
    lrd_buf_release(&bytes);
    if (status != LRD_OK && text->size > size_before) {
        text->size = size_before;
        text->data[size_before] = '\0';
    }
    return status;
}
