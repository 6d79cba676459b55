/* tests/data/tokenizer_records.h -- reference results of the Hugging Face library, and checking a
 * tokenizer against them. tests/golden/tokenizer/README.md describes the records. */
#ifndef LRD_TEST_TOKENIZER_RECORDS_H
#define LRD_TEST_TOKENIZER_RECORDS_H

#include "support/test_support.h"

#include "base/json.h"
#include "data/tokenizer.h"

/* Calls check for each line of a file of JSON records; fails the test where it has none.
 * Returns how many there were. */
typedef void record_fn(const json_t *record, void *context);
size_t for_each_record(const char *path, record_fn *check, void *context);

lrd_tokenizer_t *load_tokenizer(const char *path);

/* A tokenizer.json as JSON, and a tokenizer of it. */
json_t *load_json(const char *path);
lrd_tokenizer_t *parse_tokenizer(const json_t *json);

/* A tokenizer and what it is checked with. */
typedef struct checker {
    const lrd_tokenizer_t *tokenizer;
    lrd_encoder_t *encoder;
    const char *name; /* of the file or variant, for messages */
    bool plain;       /* added tokens swallow no white space and no byte lacks a symbol */
} checker_t;

/* A record_fn: `text` encodes to `ids`, tokens begin where they should, and `ids` decode. The
 * context is a checker_t. */
void check_record(const json_t *record, void *context);

/* Encodes a text of its own; released by the caller. */
lrd_tokens_t encode(lrd_encoder_t *encoder, const char *text, size_t bytes);

void assert_equal_ids(const int32_t *id, size_t n, const int32_t *expected, size_t n_expected);

#endif /* LRD_TEST_TOKENIZER_RECORDS_H */
