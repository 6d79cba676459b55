#include "base/mem.h"
#include "base/utf8.h"
#include "data/tokenizer_parts.h"

#include <string.h>

/* ---- lists of tokens ------------------------------------------------------------------------- */

lrd_status_t lrd_tokens_reserve(lrd_tokens_t *tokens, size_t n)
{
    lrd_status_t status = LRD_OK;
    const size_t need = tokens->n + n;
    if (need > tokens->capacity) {
        const size_t capacity = need + need / 2 + 16;
        int32_t *grown;
        LRD_ALLOC(grown, lrd_realloc_array(tokens->id, capacity, sizeof *grown));
        tokens->id = grown;
        if (tokens->with_begins) {
            LRD_ALLOC(grown, lrd_realloc_array(tokens->begin, capacity, sizeof *grown));
            tokens->begin = grown;
        }
        tokens->capacity = capacity;
    }
out:
    return status;
}

void lrd_tokens_release(lrd_tokens_t *tokens)
{
    lrd_free(tokens->id);
    lrd_free(tokens->begin);
    *tokens = (lrd_tokens_t){.with_begins = tokens->with_begins};
}

/* ---- the cache of words ---------------------------------------------------------------------- */

/* A cache line for each word: its bytes, zero behind them, with their number in the last byte; and
 * its tokens. A word has two places, of which a new one takes the first and moves what was there to
 * the second. Longer words and longer lists are not kept. */
enum { KEY_BYTES = 23, MAX_IDS = 9, CACHE_BITS = 16 };

typedef struct cached_word {
    uint64_t key[3]; /* all 0: free */
    int32_t id[MAX_IDS];
    int32_t n;
} cached_word_t;

struct lrd_encoder {
    const lrd_tokenizer_t *tokenizer;
    cached_word_t *cache; /* [1 << CACHE_BITS]; NULL: not used */
    lrd_bpe_scratch_t bpe;
    lrd_pieces_t pieces;
};

enum { CACHE_BYTES = sizeof(cached_word_t) << CACHE_BITS };

static inline uint64_t load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The last n < 8 bytes before `end`, as a number. The text reaches back to `floor`. */
static inline uint64_t load_tail(const char *end, int32_t n, const char *floor)
{
    if (n == 0)
        return 0;
    if (end - floor >= 8)
        return load8(end - 8) >> (64 - 8 * n);
    uint64_t v = 0;
    for (int32_t i = 1; i <= n; i++)
        v = v << 8 | (uint8_t)end[-i];
    return v;
}

static inline void word_key(const char *word, int32_t n, const char *floor, uint64_t key[3])
{
    const char *end = word + n;
    key[0] = n >= 8 ? load8(word) : load_tail(end, n, floor);
    key[1] = n >= 16 ? load8(word + 8) : n >= 8 ? load_tail(end, n - 8, floor) : 0;
    key[2] = n >= 16 ? load_tail(end, n - 16, floor) : 0;
    key[2] |= (uint64_t)n << 56;
}

static inline uint32_t word_place(const uint64_t key[3])
{
    uint64_t h =
        key[0] * 0x9e3779b97f4a7c15u + key[1] * 0xc2b2ae3d27d4eb4fu + key[2] * 0x165667b19e3779f9u;
    h = (h ^ h >> 32) * 0xff51afd7ed558ccdu;
    return (uint32_t)(h >> (64 - CACHE_BITS));
}

static inline bool is_word(const cached_word_t *word, const uint64_t key[3])
{
    return word->key[0] == key[0] && word->key[1] == key[1] && word->key[2] == key[2];
}

static void add_cached(const lrd_vocab_t *vocab, const cached_word_t *word, int32_t begin,
                       lrd_tokens_t *tokens)
{
    memcpy(tokens->id + tokens->n, word->id, sizeof word->id); /* there is room */
    if (tokens->with_begins)
        for (int32_t i = 0; i < word->n; i++) {
            tokens->begin[tokens->n + (size_t)i] = begin;
            begin += (int32_t)lrd_vocab_by_id(vocab, word->id[i])->n_bytes;
        }
    tokens->n += (size_t)word->n;
}

/* Appends the tokens of text[begin..end), one piece. */
static lrd_status_t encode_piece(lrd_encoder_t *encoder, const char *text, int32_t begin,
                                 int32_t end, lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const int32_t n = end - begin;
    const size_t n_before = tokens->n;
    cached_word_t *first = NULL, *second = NULL;
    uint64_t key[3];
    if (n <= KEY_BYTES && encoder->cache != NULL) {
        word_key(text + begin, n, text, key);
        const uint32_t place = word_place(key);
        first = &encoder->cache[place];
        second = &encoder->cache[place ^ 1];
        if (is_word(first, key) || is_word(second, key)) {
            add_cached(&encoder->tokenizer->vocab, is_word(first, key) ? first : second, begin,
                       tokens);
            goto out;
        }
    }
    LRD_TRY(lrd_bpe_encode(encoder->tokenizer, &encoder->bpe, text + begin, n, begin, tokens));
    const size_t n_ids = tokens->n - n_before;
    if (first != NULL && n_ids <= MAX_IDS) {
        *second = *first;
        memcpy(first->key, key, sizeof first->key);
        memcpy(first->id, tokens->id + n_before, n_ids * sizeof *first->id);
        first->n = (int32_t)n_ids;
    }
out:
    return status;
}

/* ---- encoding -------------------------------------------------------------------------------- */

lrd_status_t lrd_encoder_new(const lrd_tokenizer_t *tokenizer, lrd_encoder_t **encoder_out)
{
    lrd_status_t status = LRD_OK;
    lrd_encoder_t *encoder = NULL;
    LRD_NEW(encoder, 1);
    encoder->tokenizer = tokenizer;
    LRD_TRY(lrd_pieces_init(&encoder->pieces));
    if (tokenizer->bpe.complete) /* else a word's bytes are not the sum of its tokens' */
        LRD_ALLOC(encoder->cache, lrd_pages_alloc(CACHE_BYTES));
    *encoder_out = encoder;
    encoder = NULL;
out:
    lrd_encoder_free(encoder);
    return status;
}

void lrd_encoder_free(lrd_encoder_t *encoder)
{
    if (encoder == NULL)
        return;
    lrd_pages_free(encoder->cache, CACHE_BYTES);
    lrd_bpe_scratch_release(&encoder->bpe);
    lrd_pieces_release(&encoder->pieces);
    lrd_free(encoder);
}

/* The offset of the first byte that is not of a well-formed character, or n. */
static size_t utf8_prefix(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n) {
        if (n - i >= 8 && (load8(text + i) & 0x8080808080808080u) == 0) {
            i += 8;
            continue;
        }
        int32_t code;
        const size_t length = lrd_utf8_next(text + i, n - i, &code);
        if (code < 0)
            break;
        i += length;
    }
    return i;
}

/* Appends the tokens of text[from..to), which holds no added token. */
static lrd_status_t encode_part(lrd_encoder_t *encoder, const char *text, int32_t from, int32_t to,
                                lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const lrd_pieces_t *pieces = &encoder->pieces;
    LRD_TRY(lrd_tokens_reserve(tokens, (size_t)(to - from) + MAX_IDS)); /* for add_cached */
    LRD_TRY(lrd_splitter_split(&encoder->tokenizer->splitter, text + from, to - from,
                               &encoder->pieces));
    int32_t begin = from;
    for (size_t i = 0; i < pieces->n; i++) {
        const int32_t end = from + pieces->end[i];
        LRD_TRY(encode_piece(encoder, text, begin, end, tokens));
        begin = end;
    }
out:
    return status;
}

static lrd_status_t add_token(lrd_tokens_t *tokens, int32_t id, int32_t begin)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_tokens_reserve(tokens, 1));
    if (tokens->with_begins)
        tokens->begin[tokens->n] = begin;
    tokens->id[tokens->n++] = id;
out:
    return status;
}

/* The second pass: a part without tokens of the first. */
static lrd_status_t encode_outer(lrd_encoder_t *encoder, const char *text, int32_t from, int32_t to,
                                 lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const lrd_added_t *added = &encoder->tokenizer->added;
    lrd_added_part_t part = {0};
    while (lrd_added_next(added, 1, text + from, to - from, &part)) {
        if (part.id >= 0)
            LRD_TRY(add_token(tokens, part.id, from + part.begin));
        else
            LRD_TRY(encode_part(encoder, text, from + part.begin, from + part.end, tokens));
    }
out:
    return status;
}

lrd_status_t lrd_encoder_encode_named(lrd_encoder_t *encoder, const char *text, size_t bytes,
                                      const char *where, lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const size_t n_before = tokens->n;
    LRD_CHECK(bytes <= INT32_MAX, LRD_ERR_ARG, "%sthe text has %zu bytes: more than 2^31 - 1",
              where, bytes);
    const size_t good = utf8_prefix(text, bytes);
    LRD_CHECK(good == bytes, LRD_ERR_FORMAT, "%sthe text is not valid UTF-8 at byte %zu (0x%02x)",
              where, good, (unsigned)(uint8_t)text[good]);
    lrd_added_part_t part = {0};
    while (lrd_added_next(&encoder->tokenizer->added, 0, text, (int32_t)bytes, &part)) {
        if (part.id >= 0)
            LRD_TRY(add_token(tokens, part.id, part.begin));
        else
            LRD_TRY(encode_outer(encoder, text, part.begin, part.end, tokens));
    }
out:
    if (status != LRD_OK)
        tokens->n = n_before;
    return status;
}

lrd_status_t lrd_encoder_encode(lrd_encoder_t *encoder, const char *text, size_t bytes,
                                lrd_tokens_t *tokens)
{
    return lrd_encoder_encode_named(encoder, text, bytes, "", tokens);
}
