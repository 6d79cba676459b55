/* app/prompts.h -- what `generate` is asked to continue: one prompt, or a line of a file each. */
#ifndef LRD_APP_PROMPTS_H
#define LRD_APP_PROMPTS_H

#include "data/tokenizer.h"
#include "infer/adapter_pool.h"

/* {"prompt": TEXT} or {"input_ids": [...]}, with "adapter": NAME, or null for the base; without the
 * key `fallback`. */
typedef struct lrd_prompt_request {
    int32_t *token; /* [n] owned */
    int32_t n;
    const lrd_pool_entry_t *adapter; /* NULL: the base */
} lrd_prompt_request_t;

typedef struct lrd_prompts {
    lrd_prompt_request_t *request; /* [n] */
    size_t n, capacity;
} lrd_prompts_t;

/* What prompts are read with; borrowed. */
typedef struct lrd_prompts_reader {
    const lrd_tokenizer_t *tokenizer;
    lrd_encoder_t *encoder;
    const lrd_pool_t *pool;
    const lrd_pool_entry_t *fallback; /* adapter of prompts that name none */
    int64_t vocab_size;
    int64_t bos; /* what an empty prompt begins with; negative: it is refused */
} lrd_prompts_reader_t;

/* Appends one; `place` is for messages. An empty text becomes the beginning-of-sequence token, as
 * generate() does it. LRD_ERR_FORMAT: not UTF-8, or ids outside the vocabulary. */
lrd_status_t lrd_prompts_add(lrd_prompts_t *prompts, const lrd_prompts_reader_t *reader,
                             const char *place, const char *text, size_t bytes,
                             const lrd_pool_entry_t *adapter);

/* Appends a file's. LRD_ERR_FORMAT with file and line; LRD_ERR_ARG: an adapter that is not loaded. */
lrd_status_t lrd_prompts_read(lrd_prompts_t *prompts, const lrd_prompts_reader_t *reader,
                              const char *path);
void lrd_prompts_release(lrd_prompts_t *prompts); /* {0} again */

#endif /* LRD_APP_PROMPTS_H */
