/* data/jsonl.h -- JSON lines: one JSON object a line.
 *
 * Lines end in LF or CRLF, the last one may do without; lines of white space are skipped;
 * a byte order mark before the first line is skipped. A line has at most 16 MiB.
 * Errors begin with "file:line:".
 */
#ifndef LRD_DATA_JSONL_H
#define LRD_DATA_JSONL_H

#include "base/json.h"
#include "base/status.h"
#include "data/prompt.h"
#include "data/text.h"

#include <stddef.h>
#include <stdint.h>

enum { LRD_LABEL_IGNORED = -100 }; /* a label that does not count, as in torch and transformers */

/* Reads bytes in memory (a mapped file) front to back; `name` and the bytes are borrowed. */
typedef struct lrd_jsonl {
    const char *name;
    const char *data;
    size_t bytes, at;
    int64_t line; /* number, from 1, of the line that next gave last */
} lrd_jsonl_t;

void lrd_jsonl_begin(lrd_jsonl_t *reader, const char *name, const void *data, size_t bytes);

/* The first byte behind a byte order mark and white space, which tells what a text is; 0: there is none. */
char lrd_jsonl_first_byte(const void *data, size_t bytes);

/* The next object, or NULL at the end. The caller owns it (json_decref). LRD_ERR_FORMAT: not JSON,
 * not an object, or a line too long. */
lrd_status_t lrd_jsonl_next(lrd_jsonl_t *reader, json_t **object_out);

/* Sets value_out[i] to the member that field i of the prompt names. Numbers, true and false become
 * text as JSON writes them (1e-05, 12, true), in the object itself. The values live as long as the
 * object. LRD_ERR_FORMAT: a member is missing, or is null, a list or an object. */
lrd_status_t lrd_jsonl_fields(const lrd_jsonl_t *reader, json_t *object, const lrd_prompt_t *prompt,
                              lrd_text_t *value_out);

/* A record of ready-made tokens. Start from {0}; reading again reuses the memory. */
typedef struct lrd_jsonl_tokens {
    int32_t *token, *label; /* [n] each, owned; a label is LRD_LABEL_IGNORED or a token id */
    size_t n, capacity;
} lrd_jsonl_tokens_t;

/* Reads {"input_ids": [...], "labels": [...]}; labels that are absent or null are the ids.
 * LRD_ERR_FORMAT: no list of integers, an empty one, lists of unequal lengths,
 * an id outside [0, vocab_size), a label that is neither -100 nor such an id,
 * or an "attention_mask" that is not all ones (records are never padded here,
 * so that a mask can only mean something that would be missed). */
lrd_status_t lrd_jsonl_tokens(const lrd_jsonl_t *reader, const json_t *object, int64_t vocab_size,
                              lrd_jsonl_tokens_t *tokens);
void lrd_jsonl_tokens_release(lrd_jsonl_tokens_t *tokens); /* {0} again */

#endif /* LRD_DATA_JSONL_H */
