#include "infer/squad_text.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "infer/squad_unicode.h"

#include <stdlib.h>
#include <string.h>

enum { REPLACEMENT = 0xfffd, SIGMA = 0x3a3, SMALL_SIGMA = 0x3c3, FINAL_SIGMA = 0x3c2 };

static unsigned classes_of(int32_t code)
{
    size_t low = 0, high = lrd_n_class_runs;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const lrd_class_run_t *run = &lrd_class_runs[middle];
        if (code < run->first)
            high = middle;
        else if (code > run->last)
            low = middle + 1;
        else
            return run->classes;
    }
    return 0;
}

/* Of characters whose lower case is one character and depends on nothing else. */
static int32_t lower_of(int32_t code)
{
    size_t low = 0, high = lrd_n_lower_runs;
    if (code < 0x80)
        return code >= 'A' && code <= 'Z' ? code + ('a' - 'A') : code;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const lrd_lower_run_t *run = &lrd_lower_runs[middle];
        if (code < run->first)
            high = middle;
        else if (code > run->last)
            low = middle + 1;
        else
            return (code - run->first) % run->step == 0 ? code + run->delta : code;
    }
    return code;
}

static bool is_punctuation(int32_t code)
{
    return (code >= '!' && code <= '/') || (code >= ':' && code <= '@') ||
           (code >= '[' && code <= '`') || (code >= '{' && code <= '~');
}

/* The character at text[at] and how long it is. */
static size_t next(lrd_text_t text, size_t at, int32_t *code_out)
{
    const size_t length = lrd_utf8_next(text.data + at, text.bytes - at, code_out);
    if (*code_out < 0)
        *code_out = REPLACEMENT;
    return length;
}

/* The first character from text[at] on that a sigma does not pass over is a letter with case. Each
 * sigma looks no further than the next one: linear over all of a text. */
static bool cased_follows(lrd_text_t text, size_t at)
{
    while (at < text.bytes) {
        int32_t code;
        at += next(text, at, &code);
        const unsigned classes = classes_of(code);
        if ((classes & LRD_CHAR_IGNORABLE) == 0)
            return (classes & LRD_CHAR_CASED) != 0;
    }
    return false;
}

/* What has been written, and where the word begins that is being written. */
typedef struct normal {
    lrd_buf_t *buf;
    bool in_word, space; /* a space is due before the next character */
    size_t word, before; /* offsets of the word, and of the space before it if there is one */
} normal_t;

static void end_word(normal_t *n)
{
    if (!n->in_word)
        return;
    const char *word = n->buf->data + n->word;
    const size_t bytes = n->buf->size - n->word;
    n->in_word = false;
    if ((bytes == 1 && word[0] == 'a') || (bytes == 2 && memcmp(word, "an", 2) == 0) ||
        (bytes == 3 && memcmp(word, "the", 3) == 0)) {
        n->buf->size = n->before;
        n->space = true;
    }
}

static lrd_status_t add_char(lrd_buf_t *buf, int32_t code)
{
    char text[4];
    size_t bytes = 0;
    if (code < 0x80) {
        text[bytes++] = (char)code;
    } else if (code < 0x800) {
        text[bytes++] = (char)(0xc0 | code >> 6);
        text[bytes++] = (char)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        text[bytes++] = (char)(0xe0 | code >> 12);
        text[bytes++] = (char)(0x80 | (code >> 6 & 0x3f));
        text[bytes++] = (char)(0x80 | (code & 0x3f));
    } else {
        text[bytes++] = (char)(0xf0 | code >> 18);
        text[bytes++] = (char)(0x80 | (code >> 12 & 0x3f));
        text[bytes++] = (char)(0x80 | (code >> 6 & 0x3f));
        text[bytes++] = (char)(0x80 | (code & 0x3f));
    }
    return lrd_buf_add(buf, text, bytes);
}

/* Takes a character that is in lower case. */
static lrd_status_t put(normal_t *n, int32_t code)
{
    lrd_status_t status = LRD_OK;
    if (is_punctuation(code))
        goto out;
    const unsigned classes = classes_of(code);
    const bool is_word = (classes & LRD_CHAR_WORD) != 0;
    if (!is_word)
        end_word(n);
    if ((classes & LRD_CHAR_SPACE) != 0) {
        n->space = true;
        goto out;
    }
    const bool begins = is_word && !n->in_word;
    if (begins)
        n->before = n->buf->size;
    if (n->space && n->buf->size > 0)
        LRD_TRY(lrd_buf_add(n->buf, " ", 1));
    n->space = false;
    if (begins)
        n->word = n->buf->size;
    n->in_word = is_word;
    LRD_TRY(add_char(n->buf, code));
out:
    return status;
}

lrd_status_t lrd_squad_normalize(lrd_text_t text, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    normal_t n = {.buf = buf};
    bool after_cased = false; /* what precedes, ignorable characters apart */
    lrd_buf_clear(buf);
    LRD_TRY(lrd_buf_reserve(buf, text.bytes));
    for (size_t at = 0; at < text.bytes;) {
        int32_t code;
        at += next(text, at, &code);
        if (code == 0x130) {
            LRD_TRY(put(&n, 'i'));
            LRD_TRY(put(&n, 0x307));
        } else if (code == SIGMA) {
            const bool is_final = after_cased && !cased_follows(text, at);
            LRD_TRY(put(&n, is_final ? FINAL_SIGMA : SMALL_SIGMA));
        } else {
            LRD_TRY(put(&n, lower_of(code)));
        }
        const unsigned classes = classes_of(code);
        if ((classes & LRD_CHAR_IGNORABLE) == 0)
            after_cased = (classes & LRD_CHAR_CASED) != 0;
    }
    end_word(&n);
    buf->data[buf->size] = '\0';
out:
    return status;
}

lrd_text_t lrd_squad_strip(lrd_text_t text)
{
    size_t begin = 0, end = 0;
    bool inside = false;
    for (size_t at = 0; at < text.bytes;) {
        int32_t code;
        const size_t length = next(text, at, &code);
        const bool is_space = (classes_of(code) & LRD_CHAR_SPACE) != 0;
        if (!is_space && !inside)
            begin = at;
        inside = inside || !is_space;
        at += length;
        if (!is_space)
            end = at;
    }
    return (lrd_text_t){text.data + begin, end > begin ? end - begin : 0};
}

static int compare_tokens(const void *a, const void *b)
{
    return lrd_text_compare(*(const lrd_text_t *)a, *(const lrd_text_t *)b);
}

static lrd_status_t add_token(lrd_squad_tokens_t *tokens, const char *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_GROW(tokens->token, tokens->n, tokens->capacity);
    tokens->token[tokens->n++] = (lrd_text_t){data, bytes};
out:
    return status;
}

lrd_status_t lrd_squad_tokens_read(lrd_squad_tokens_t *tokens, const lrd_buf_t *normal)
{
    lrd_status_t status = LRD_OK;
    size_t at = 0;
    tokens->n = 0;
    while (at < normal->size) {
        const char *token = normal->data + at, *space = memchr(token, ' ', normal->size - at);
        const size_t bytes = space != NULL ? (size_t)(space - token) : normal->size - at;
        LRD_TRY(add_token(tokens, token, bytes));
        at += bytes + 1;
    }
    if (tokens->n > 1)
        qsort(tokens->token, tokens->n, sizeof *tokens->token, compare_tokens);
out:
    return status;
}

void lrd_squad_tokens_release(lrd_squad_tokens_t *tokens)
{
    lrd_free(tokens->token);
    *tokens = (lrd_squad_tokens_t){0};
}

size_t lrd_squad_tokens_common(const lrd_squad_tokens_t *a, const lrd_squad_tokens_t *b)
{
    size_t n = 0;
    for (size_t i = 0, k = 0; i < a->n && k < b->n;) {
        const int order = lrd_text_compare(a->token[i], b->token[k]);
        n += order == 0;
        i += order <= 0;
        k += order >= 0;
    }
    return n;
}
