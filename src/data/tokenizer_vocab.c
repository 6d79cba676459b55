#include "base/mem.h"
#include "base/utf8.h"
#include "data/tokenizer_parts.h"

#include <string.h>

/* The byte-level alphabet: bytes 21-7E, A1-AC and AE-FF stand for themselves; the other 68 (00-20,
 * 7F-A0, AD), in increasing order, are U+0100, U+0101, ... */
enum { OTHERS = 0x100, FIRST_RUN = 0x21, SECOND_RUN = 0x22 };

size_t lrd_byte_symbol(uint8_t byte, char out[2])
{
    uint32_t code = byte;
    if (byte < FIRST_RUN)
        code = OTHERS + byte;
    else if (byte >= 0x7f && byte <= 0xa0)
        code = OTHERS + FIRST_RUN + byte - 0x7f;
    else if (byte == 0xad)
        code = OTHERS + FIRST_RUN + SECOND_RUN;
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

/* The byte that a character stands for, or -1. */
static int symbol_byte(int32_t code)
{
    if (code < OTHERS)
        return code < FIRST_RUN || (code >= 0x7f && code <= 0xa0) || code == 0xad ? -1 : code;
    if (code < OTHERS + FIRST_RUN)
        return code - OTHERS;
    if (code < OTHERS + FIRST_RUN + SECOND_RUN)
        return code - OTHERS - FIRST_RUN + 0x7f;
    return code == OTHERS + FIRST_RUN + SECOND_RUN ? 0xad : -1;
}

void lrd_vocab_release(lrd_vocab_t *vocab)
{
    lrd_free(vocab->token);
    lrd_buf_release(&vocab->text);
    lrd_buf_release(&vocab->bytes);
    lrd_free(vocab->slot);
    lrd_free(vocab->by_id);
    *vocab = (lrd_vocab_t){0};
}

static uint64_t text_hash(const char *text, size_t bytes)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, and a last mix, because the table uses low bits */
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    h ^= h >> 32;
    return h * 0x9e3779b97f4a7c15u >> 16;
}

static void slot_put(lrd_vocab_t *vocab, uint32_t index)
{
    const lrd_vocab_token_t *token = &vocab->token[index];
    uint32_t at = (uint32_t)text_hash(vocab->text.data + token->text, token->text_bytes);
    while (vocab->slot[at &= vocab->slot_mask] != 0)
        at++;
    vocab->slot[at] = index + 1;
}

/* Room for twice as many tokens; the table of slots stays at most half full. */
static lrd_status_t grow(lrd_vocab_t *vocab)
{
    lrd_status_t status = LRD_OK;
    uint32_t *slot = NULL;
    lrd_vocab_token_t *token;
    const uint32_t capacity = vocab->capacity > 0 ? 2 * vocab->capacity : 256;
    LRD_CHECK(capacity <= UINT32_MAX / 4, LRD_ERR_NO_MEMORY, "out of memory: %u tokens", capacity);
    LRD_NEW(slot, 2 * (size_t)capacity);
    LRD_ALLOC(token, lrd_realloc_array(vocab->token, capacity, sizeof *token));
    vocab->token = token;
    vocab->capacity = capacity;
    lrd_free(vocab->slot);
    vocab->slot = slot;
    slot = NULL;
    vocab->slot_mask = 2 * capacity - 1;
    for (uint32_t i = 0; i < vocab->n_tokens; i++)
        slot_put(vocab, i);
out:
    lrd_free(slot);
    return status;
}

/* Appends the bytes that the text stands for. */
static lrd_status_t add_bytes(lrd_buf_t *buf, const char *text, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_reserve(buf, bytes));
    char *out = buf->data + buf->size;
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        int32_t code;
        i += lrd_utf8_next(text + i, bytes - i, &code);
        const int byte = symbol_byte(code);
        if (byte < 0) { /* not of the alphabet: the token stands for its own text */
            memcpy(out, text, bytes);
            n = bytes;
            break;
        }
        out[n++] = (char)byte;
    }
    buf->size += n;
out:
    return status;
}

lrd_status_t lrd_vocab_add(lrd_vocab_t *vocab, const char *text, size_t bytes, int32_t id)
{
    lrd_status_t status = LRD_OK;
    const size_t text_at = vocab->text.size, bytes_at = vocab->bytes.size;
    LRD_CHECK(text_at + bytes <= UINT32_MAX, LRD_ERR_NO_MEMORY,
              "out of memory: more than 4 GiB of tokens");
    if (vocab->n_tokens == vocab->capacity)
        LRD_TRY(grow(vocab));
    LRD_TRY(lrd_buf_add(&vocab->text, text, bytes));
    LRD_TRY(add_bytes(&vocab->bytes, text, bytes));
    vocab->token[vocab->n_tokens] = (lrd_vocab_token_t){
        .text = (uint32_t)text_at,
        .text_bytes = (uint32_t)bytes,
        .bytes = (uint32_t)bytes_at,
        .n_bytes = (uint32_t)(vocab->bytes.size - bytes_at),
        .id = id,
    };
    slot_put(vocab, vocab->n_tokens++);
out:
    return status;
}

lrd_status_t lrd_vocab_index(lrd_vocab_t *vocab, const char *name)
{
    lrd_status_t status = LRD_OK;
    int32_t *by_id = NULL;
    int32_t highest = -1;
    for (uint32_t i = 0; i < vocab->n_tokens; i++)
        highest = vocab->token[i].id > highest ? vocab->token[i].id : highest;
    LRD_CHECK(highest < 65536 + 4 * (int64_t)vocab->n_tokens, LRD_ERR_FORMAT,
              "%s: the highest token id is %d but there are only %u tokens", name, highest,
              vocab->n_tokens);
    LRD_NEW(by_id, highest + 1);
    memset(by_id, 0xff, (size_t)(highest + 1) * sizeof *by_id);
    for (uint32_t i = 0; i < vocab->n_tokens; i++) {
        const lrd_vocab_token_t *token = &vocab->token[i];
        const int32_t other = by_id[token->id];
        LRD_CHECK(other < 0, LRD_ERR_FORMAT, "%s: \"%.*s\" and \"%.*s\" have the same id %d", name,
                  (int)(vocab->token[other].text_bytes & 0xff),
                  vocab->text.data + vocab->token[other].text, (int)(token->text_bytes & 0xff),
                  vocab->text.data + token->text, token->id);
        by_id[token->id] = (int32_t)i;
    }
    lrd_free(vocab->by_id);
    vocab->by_id = by_id;
    by_id = NULL;
    vocab->size = highest + 1;
out:
    lrd_free(by_id);
    return status;
}

int64_t lrd_vocab_find(const lrd_vocab_t *vocab, const char *text, size_t bytes)
{
    if (vocab->n_tokens == 0)
        return -1;
    uint32_t at = (uint32_t)text_hash(text, bytes);
    for (uint32_t found; (found = vocab->slot[at &= vocab->slot_mask]) != 0; at++) {
        const lrd_vocab_token_t *token = &vocab->token[found - 1];
        if (token->text_bytes == bytes &&
            (bytes == 0 || memcmp(vocab->text.data + token->text, text, bytes) == 0))
            return found - 1;
    }
    return -1;
}

const lrd_vocab_token_t *lrd_vocab_by_id(const lrd_vocab_t *vocab, int32_t id)
{
    return id >= 0 && id < vocab->size && vocab->by_id[id] >= 0 ? &vocab->token[vocab->by_id[id]]
                                                                : NULL;
}
