/* data/tokenizer.h -- BLOOM's tokenizer: text to token ids and back, exactly as the Hugging Face
 * library `tokenizers` (0.23) does it with the same tokenizer.json.
 *
 *   text -> added tokens cut out -> split into pieces -> byte-level BPE of each piece -> ids
 *   ids  -> tokens -> bytes -> UTF-8, U+FFFD for what is not
 *
 * What is supported of tokenizer.json, everything else being refused by name:
 *   normalizer      null
 *   pre_tokenizer   ByteLevel, alone or at the end of a Sequence (or of nested ones) that begins
 *                   with any number of Split; Split with a Regex (Oniguruma's syntax) or String
 *                   pattern and behavior Isolated; ByteLevel with or without its own regular
 *                   expression, add_prefix_space false
 *   model           BPE over the 256 byte symbols: unk_token, fuse_unk, ignore_merges as they are;
 *                   dropout null or 0, no continuing_subword_prefix, no end_of_word_suffix,
 *                   byte_fallback false; merges as "a b" or ["a", "b"]
 *   post_processor  null or ByteLevel (which adds no token)
 *   decoder         ByteLevel
 *   added_tokens    all flags: single_word, lstrip, rstrip, normalized, special
 *   truncation, padding: ignored, as transformers does when it encodes without asking for them
 */
#ifndef LRD_DATA_TOKENIZER_H
#define LRD_DATA_TOKENIZER_H

#include "base/buf.h"
#include "base/status.h"
#include "data/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A loaded vocabulary. Never changes once loaded: threads share it. */
typedef struct lrd_tokenizer lrd_tokenizer_t;

/* Loads a tokenizer.json, or the tokenizer.json in a folder. BLOOM's (250,680 entries, 14.5 MB)
 * takes about half a second.
 *
 * The ids of added tokens come out as in the library, which pays no heed to the ids in the file: a
 * token whose text is in the model's vocabulary has that id, the others follow behind the
 * vocabulary in the file's order. Where that differs from the file, a warning is logged.
 *
 * LRD_ERR_IO: cannot be read. LRD_ERR_FORMAT: not a tokenizer.json, or one that contradicts itself.
 * LRD_ERR_UNSUPPORTED: a component listed above as refused. */
lrd_status_t lrd_tokenizer_load(const char *path, lrd_tokenizer_t **tokenizer_out);

/* The same from memory; `name` stands in messages. Whatever the bytes are, it succeeds or fails. */
lrd_status_t lrd_tokenizer_parse(const char *json, size_t bytes, const char *name,
                                 lrd_tokenizer_t **tokenizer_out);

void lrd_tokenizer_free(lrd_tokenizer_t *tokenizer); /* NULL is fine */

/* The highest id + 1: what a model's embedding must have at least. */
int32_t lrd_tokenizer_size(const lrd_tokenizer_t *tokenizer);

/* The id of the token written so in tokenizer.json, such as "</s>"
 * (and a space as U+0120). -1: there is none. */
int32_t lrd_tokenizer_find(const lrd_tokenizer_t *tokenizer, const char *token);

/* True for the ids that decoding leaves out with skip_special. */
bool lrd_tokenizer_is_special(const lrd_tokenizer_t *tokenizer, int32_t id);

/* SHA-256 of the bytes of tokenizer.json in hexadecimal: a key for what was made with it. */
const char *lrd_tokenizer_sha256(const lrd_tokenizer_t *tokenizer);

/* Appends the text of id[0..n) to text: valid UTF-8, with one U+FFFD for each maximal ill-formed
 * part. Ids outside the vocabulary (negative ones too), and with skip_special those of special
 * tokens, vanish before bytes are joined to characters. Fails with LRD_ERR_NO_MEMORY only, and
 * leaves text as it was. */
lrd_status_t lrd_tokenizer_decode(const lrd_tokenizer_t *tokenizer, const int32_t *id, size_t n,
                                  bool skip_special, lrd_buf_t *text);

/* A growing list of tokens. Start from {0}, or {.with_begins = true}. */
typedef struct lrd_tokens {
    int32_t *id;
    int32_t *begin; /* with_begins: byte offset in its text at which a token begins; else NULL */
    size_t n, capacity;
    bool with_begins;
} lrd_tokens_t;

void lrd_tokens_release(lrd_tokens_t *tokens); /* frees; the list is empty again */

/* What one thread needs to encode: scratch memory and a cache of words (4 MB, which never changes a
 * result). The tokenizer must outlive it. */
typedef struct lrd_encoder lrd_encoder_t;
lrd_status_t lrd_encoder_new(const lrd_tokenizer_t *tokenizer, lrd_encoder_t **encoder_out);
void lrd_encoder_free(lrd_encoder_t *encoder); /* NULL is fine */

/* Appends the ids of a text of at most 2^31 - 1 bytes, which may hold U+0000. Nothing is added to
 * it: no <s>, no </s>, no space. The characters of an added token, such as "</s>", become its id.
 *
 * A token's begin is the offset of its first byte; inside a character for a token that begins with
 * a later byte of one. An added token that swallows white space on its left (lstrip) begins with
 * it. Begins never fall, and but for what added tokens with lstrip or rstrip swallow, token i is
 * the text from begin[i] to begin[i + 1].
 *
 * Takes O(n log n) in the length of the text, for a single word too, times the length of the
 * longest added token. LRD_ERR_FORMAT: not UTF-8 (names the byte), or the regular expression gave
 * up; LRD_ERR_ARG: too long; LRD_ERR_NO_MEMORY. On failure tokens is as it was. */
lrd_status_t lrd_encoder_encode(lrd_encoder_t *encoder, const char *text, size_t bytes,
                                lrd_tokens_t *tokens);

/* Many texts: the tokens of text i are tokens.id[first[i] .. first[i + 1]), and begins count from
 * the start of text i. Start from {0}. */
typedef struct lrd_token_batch {
    lrd_tokens_t tokens;
    size_t *first; /* [n + 1] */
    size_t n;
} lrd_token_batch_t;

void lrd_token_batch_release(lrd_token_batch_t *batch); /* frees; the batch is {0} again */

/* Encodes text[0..n) on n_threads threads (0: one for each processor that this process may run
 * on). The result is the same for every number of threads, and so is the failure: that of the first
 * text that fails, which the message numbers from 0. `batch_out` is {0} or released before. */
lrd_status_t lrd_tokenizer_encode_batch(const lrd_tokenizer_t *tokenizer, const lrd_text_t *text,
                                        size_t n, int n_threads, bool with_begins,
                                        lrd_token_batch_t *batch_out);

#endif /* LRD_DATA_TOKENIZER_H */
