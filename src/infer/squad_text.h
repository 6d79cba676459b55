/* infer/squad_text.h -- answers as the official SQuAD metrics compare them.
 *
 * The rules are those of evaluate-v2.0.py under Python 3, in this order:
 *
 *   1. lower case, as str.lower(): U+0130 becomes i and U+0307, a capital sigma at the end of a word
 *      the final one;
 *   2. the 32 punctuation characters of ASCII are deleted, so that "U.S." is "us"; others stay;
 *   3. the words a, an and the become white space. A word is a longest run of letters and digits
 *      (str.isalnum()), to which combining marks do not belong: of "a" and U+0301 the mark is left;
 *   4. runs of white space (29 characters, str.isspace()) become one space, none at the ends.
 *
 * Characters are those of Unicode 14.0.0 (Python 3.11).
 */
#ifndef LRD_INFER_SQUAD_TEXT_H
#define LRD_INFER_SQUAD_TEXT_H

#include "base/buf.h"
#include "base/status.h"
#include "data/text.h"

/* The text without white space at both ends, as str.strip() leaves it. Never fails. */
lrd_text_t lrd_squad_strip(lrd_text_t text);

/* Replaces the content of `buf` by the text's normal form: its tokens, a space between two, and
 * nothing (data may be NULL) where no token is left. The text is UTF-8, what is not is read as
 * U+FFFD; text.data == NULL is an empty text. Takes time proportional to the text. Fails with
 * LRD_ERR_NO_MEMORY only, and then buf holds nothing of use. */
lrd_status_t lrd_squad_normalize(lrd_text_t text, lrd_buf_t *buf);

/* The tokens of a normal form, which they point into. Start from {0}; one object serves many texts. */
typedef struct lrd_squad_tokens {
    lrd_text_t *token; /* owned */
    size_t n, capacity;
} lrd_squad_tokens_t;

/* Replaces the tokens by those of the normal form, in ascending order of their bytes. */
lrd_status_t lrd_squad_tokens_read(lrd_squad_tokens_t *tokens, const lrd_buf_t *normal);
void lrd_squad_tokens_release(lrd_squad_tokens_t *tokens); /* frees; {0} again */

/* How many tokens two lists have in common, each as often as both have it. */
size_t lrd_squad_tokens_common(const lrd_squad_tokens_t *a, const lrd_squad_tokens_t *b);

#endif /* LRD_INFER_SQUAD_TEXT_H */
