/* Tokens to text as they come: the same text as decoding at once, nothing shown that changes later,
 * stop texts wherever tokens cut them. */
#include "base/json.h"
#include "base/mem.h"
#include "infer/text_stream.h"
#include "support/test_support.h"

#include <stdio.h>
#include <string.h>

static lrd_tokenizer_t *tokenizer;

static int setup(void **state)
{
    (void)state;
    assert_ok(lrd_tokenizer_load(lrd_test_golden("data/tokenizer.json"), &tokenizer));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lrd_tokenizer_free(tokenizer);
    return 0;
}

static lrd_tokens_t encode(const char *text)
{
    lrd_encoder_t *encoder;
    lrd_tokens_t tokens = {0};
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    assert_ok(lrd_encoder_encode(encoder, text, strlen(text), &tokens));
    lrd_encoder_free(encoder);
    return tokens;
}

/* Feeds the text; what was shown must stay, and together be what is expected. */
static void check(const char *text, const char *stop, const char *expected)
{
    lrd_tokens_t tokens = encode(text);
    lrd_text_stream_t s;
    char shown[4096] = "";
    size_t n = 0;
    lrd_text_stream_begin(&s, tokenizer, stop);
    for (size_t i = 0; i < tokens.n; i++) {
        assert_ok(lrd_text_stream_add(&s, tokens.id[i]));
        assert_true(s.shown >= n && s.shown < sizeof shown);
        assert_memory_equal(shown, s.text.data != NULL ? s.text.data : "", n);
        if (s.shown > n)
            memcpy(shown + n, s.text.data + n, s.shown - n);
        n = s.shown;
    }
    assert_int_equal(s.stopped, stop != NULL && strstr(text, stop) != NULL);
    lrd_text_stream_end(&s);
    assert_int_equal(s.text.size, strlen(expected));
    assert_memory_equal(s.text.data != NULL ? s.text.data : "", expected, s.text.size);
    assert_memory_equal(shown, expected, n);
    lrd_text_stream_release(&s);
    lrd_tokens_release(&tokens);
}

static void test_text(void **state)
{
    (void)state;
    check("", NULL, "");
    check("Hello, world", NULL, "Hello, world");
    check("caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80!", NULL,
          "caf\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80!");
    check("\xef\xbf\xbd is a character of its own \xef\xbf\xbd", NULL,
          "\xef\xbf\xbd is a character of its own \xef\xbf\xbd");
    check("an end</s>", NULL, "an end");
}

static void test_stop(void **state)
{
    (void)state;
    check("one two three", "two", "one ");
    check("one two three", "tree", "one two three");
    check("one two three", "three", "one two ");
    check("aaaaab", "aab", "aaa");
    check("a\n\nb\n### c", "\n###", "a\n\nb");
    check("caf\xc3\xa9 \xf0\x9f\x98\x80 x", "\xf0\x9f\x98\x80", "caf\xc3\xa9 ");
    check("x", "x", "");
}

/* Half a character at the end is what decoding at once makes of it. */
static void test_cut(void **state)
{
    (void)state;
    lrd_tokens_t tokens = encode("\xf0\x9f\x98\x80");
    lrd_text_stream_t s;
    lrd_text_stream_begin(&s, tokenizer, NULL);
    if (tokens.n > 1) {
        assert_ok(lrd_text_stream_add(&s, tokens.id[0]));
        assert_int_equal(s.shown, 0);
        lrd_text_stream_end(&s);
        assert_int_equal(s.shown, 3);
        assert_memory_equal(s.text.data, "\xef\xbf\xbd", 3);
    }
    lrd_text_stream_release(&s);
    lrd_tokens_release(&tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_stop),
                                       cmocka_unit_test(test_cut)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
