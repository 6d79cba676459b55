/* A file of prompts, for `generate`. The tokenizer's 256 tokens are the bytes; the pool, which is not
 * asked for more than names, has one adapter. */
#include "fuzz/fuzz_folder.h"

#include "app/prompts.h"
#include "base/json_writer.h"
#include "base/log.h"

#include <string.h>

enum { VOCAB_SIZE = 300 };

lrd_status_t lrd_pool_find(const lrd_pool_t *pool, const char *place, const char *name,
                           const lrd_pool_entry_t **entry_out)
{
    lrd_status_t status = LRD_OK;
    (void)pool;
    LRD_CHECK(strcmp(name, "mail") == 0, LRD_ERR_ARG, "%sno adapter %s", place, name);
    *entry_out = (const lrd_pool_entry_t *)&lrd_pool_find; /* nobody looks into it */
out:
    return status;
}

/* tokenizer.json of the 256 bytes, as GPT-2 writes them. */
static lrd_tokenizer_t *make_tokenizer(void)
{
    static const char head[] =
        "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"post_processor\":null,"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
        "\"trim_offsets\":true,\"use_regex\":false},"
        "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
        "\"use_regex\":false},\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{";
    lrd_tokenizer_t *tokenizer = NULL;
    lrd_buf_t text = {0};
    int next = 256;
    FUZZ_CHECK(lrd_buf_add_text(&text, head) == LRD_OK);
    for (int b = 0; b < 256; b++) {
        const bool shown = (b > 32 && b < 127) || (b > 160 && b < 256 && b != 173);
        const int letter = shown ? b : next++;
        FUZZ_CHECK(lrd_buf_printf(&text, "%s\"\\u%04x\":%d", b > 0 ? "," : "", letter, b) ==
                   LRD_OK);
    }
    FUZZ_CHECK(lrd_buf_add_text(&text, "}}}") == LRD_OK);
    FUZZ_CHECK(lrd_tokenizer_parse(text.data, text.size, "bytes", &tokenizer) == LRD_OK);
    lrd_buf_release(&text);
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lrd_tokenizer_t *tokenizer;
    static lrd_encoder_t *encoder;
    lrd_prompts_t prompts = {0};
    char path[128];
    lrd_log_set_level(LRD_LOG_ERROR);
    if (tokenizer == NULL) {
        tokenizer = make_tokenizer();
        FUZZ_CHECK(lrd_encoder_new(tokenizer, &encoder) == LRD_OK);
    }
    const lrd_prompts_reader_t reader = {
        .tokenizer = tokenizer, .encoder = encoder, .vocab_size = VOCAB_SIZE, .bos = 1};
    fuzz_folder_put("file", data, size);
    snprintf(path, sizeof path, "%s/file", fuzz_folder);
    const lrd_status_t status = lrd_prompts_read(&prompts, &reader, path);
    FUZZ_CHECK(status != LRD_OK || prompts.n > 0);
    for (size_t i = 0; i < prompts.n; i++) {
        FUZZ_CHECK(prompts.request[i].n > 0);
        for (int32_t k = 0; k < prompts.request[i].n; k++)
            FUZZ_CHECK(prompts.request[i].token[k] >= 0 &&
                       prompts.request[i].token[k] < VOCAB_SIZE);
    }
    lrd_prompts_release(&prompts);
    lrd_error_clear();
    return 0;
}
