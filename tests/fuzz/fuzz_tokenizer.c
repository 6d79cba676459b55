/* A tokenizer.json through the loader. What it accepts encodes and decodes: the input itself is the
 * text, and so is a short one with characters of every length. */
#include "fuzz/fuzz_target.h"

#include "base/log.h"
#include "data/tokenizer.h"

#include <string.h>

enum { MAX_TEXT_BYTES = 4096 };

static void encode_and_decode(const lrd_tokenizer_t *tokenizer, lrd_encoder_t *encoder,
                              const char *text, size_t bytes)
{
    lrd_tokens_t tokens = {.with_begins = true};
    lrd_buf_t decoded = {0};
    if (lrd_encoder_encode(encoder, text, bytes, &tokens) == LRD_OK) {
        for (size_t i = 0; i < tokens.n; i++) {
            FUZZ_CHECK(tokens.id[i] >= 0 && tokens.id[i] < lrd_tokenizer_size(tokenizer));
            FUZZ_CHECK(tokens.begin[i] >= (i > 0 ? tokens.begin[i - 1] : 0));
            FUZZ_CHECK((size_t)tokens.begin[i] < bytes);
        }
    }
    FUZZ_CHECK(lrd_tokenizer_decode(tokenizer, tokens.id, tokens.n, false, &decoded) == LRD_OK);
    FUZZ_CHECK(lrd_tokenizer_decode(tokenizer, tokens.id, tokens.n, true, &decoded) == LRD_OK);
    lrd_tokens_release(&tokens);
    lrd_buf_release(&decoded);
    lrd_error_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = " the\tcat, \xc3\xa9\xe2\x80\xa6\xf0\x9f\x98\x80</s><x> x'll 12\r\n";
    lrd_tokenizer_t *tokenizer = NULL;
    lrd_encoder_t *encoder = NULL;
    lrd_log_set_level(LRD_LOG_ERROR); /* warnings about accepted files are of no interest */
    if (lrd_tokenizer_parse((const char *)data, size, "fuzz", &tokenizer) == LRD_OK) {
        FUZZ_CHECK(lrd_tokenizer_size(tokenizer) >= 0);
        FUZZ_CHECK(strlen(lrd_tokenizer_sha256(tokenizer)) == 64);
        FUZZ_CHECK(lrd_encoder_new(tokenizer, &encoder) == LRD_OK);
        encode_and_decode(tokenizer, encoder, text, sizeof text - 1);
        encode_and_decode(tokenizer, encoder, (const char *)data,
                          size < MAX_TEXT_BYTES ? size : MAX_TEXT_BYTES);
        lrd_encoder_free(encoder);
        lrd_tokenizer_free(tokenizer);
    } else {
        FUZZ_CHECK(tokenizer == NULL);
    }
    lrd_error_clear();
    return 0;
}
