/* Normal forms of answers. Oracles: cases by hand, and what Python makes of thousands of hostile
 * strings and of every character in several places (tests/golden/squad_score). */
#include "support/test_support.h"

#include "base/hash.h"
#include "base/json.h"
#include "infer/squad_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(literal) ((lrd_text_t){literal, sizeof literal - 1})

static void assert_normal(lrd_text_t text, lrd_text_t expected)
{
    static lrd_buf_t buf;
    assert_ok(lrd_squad_normalize(text, &buf));
    if (buf.size != expected.bytes || memcmp(buf.data, expected.data, expected.bytes) != 0)
        fail_msg("\"%s\" became \"%s\", expected \"%s\"", text.data, buf.data, expected.data);
    assert_int_equal(buf.data[buf.size], '\0');
    lrd_buf_release(&buf);
}

#define NORMAL(text, expected) assert_normal(TEXT(text), TEXT(expected))

static void test_ascii(void **state)
{
    NORMAL("", "");
    NORMAL(" \t\n\v\f\r ", "");
    NORMAL("  Two\t \nwords ", "two words");
    NORMAL("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "");
    NORMAL("U.S. Army's T-72", "us armys t72");
    NORMAL("snake_case", "snakecase");
    NORMAL("The cat, an owl and A dog", "cat owl and dog");
    NORMAL("the a an THE", "");
    NORMAL("them other ana a1 1a than", "them other ana a1 1a than");
    NORMAL("t.h.e t-he a/n _a_", ""); /* punctuation goes first */
    NORMAL("a.m. the-end", "am theend");
    assert_normal((lrd_text_t){NULL, 0}, TEXT(""));
    assert_normal(TEXT("a\0b the\0x"), TEXT("\0b \0x")); /* U+0000 is no word character */
    NORMAL("\x1c"
           "x\x1d\x1e"
           "y\x1f\x7f\x1b",
           "x y \x7f\x1b");
}

static void test_case(void **state)
{
    NORMAL("\u0130STANBUL", "i\u0307stanbul");
    NORMAL("I\u0131", "i\u0131");
    NORMAL("Stra\u00dfe STRASSE \u1e9e", "stra\u00dfe strasse \u00df");
    NORMAL("\ufb01n \ufb03", "\ufb01n \ufb03");             /* ligatures stay */
    NORMAL("\u01c4 \u01c5 \u01c6", "\u01c6 \u01c6 \u01c6"); /* title case */
    NORMAL("\u212a\u212b\u2126", "k\u00e5\u03c9");          /* Kelvin, Angstrom, Ohm */
    NORMAL("\u13a0\uab70 \u1c90 \U00010400", "\uab70\uab70 \u10d0 \U00010428");
    NORMAL("\uff21\uff22", "\uff41\uff42"); /* fullwidth */
    NORMAL("T\u0397E THE\u0301", "t\u03b7e \u0301");
}

static void test_final_sigma(void **state)
{
    NORMAL("\u0391\u03a3", "\u03b1\u03c2");
    NORMAL("\u03a3", "\u03c3");
    NORMAL("\u03a3\u0391", "\u03c3\u03b1");
    NORMAL("\u0391\u03a3\u0391", "\u03b1\u03c3\u03b1");
    NORMAL("\u039f\u0394\u039f\u03a3 \u0391\u03a3", "\u03bf\u03b4\u03bf\u03c2 \u03b1\u03c2");
    NORMAL("\u0391\u03a3\u03a3", "\u03b1\u03c3\u03c2");
    NORMAL("A.\u03a3.", "a\u03c2"); /* passed over, then deleted */
    NORMAL("A'\u03a3'B", "a\u03c3b");
    NORMAL("A-\u03a3", "a\u03c3"); /* a hyphen is not passed over */
    NORMAL("A\u03a3-B", "a\u03c2b");
    NORMAL("X\u0301\u03a3\u0301", "x\u0301\u03c2\u0301");
    NORMAL("1\u03a3 A1\u03a3", "1\u03c3 a1\u03c3");
    NORMAL("\u4e00\u03a3", "\u4e00\u03c3");                             /* a letter without case */
    NORMAL("\u02b0\u03a3 X\u0345\u03a3", "\u02b0\u03c3 x\u0345\u03c2"); /* cased, and passed over */
    NORMAL("A\u03a3\U0001f600", "a\u03c2\U0001f600");
    NORMAL("\u03c3\u03c2", "\u03c3\u03c2"); /* small ones stay */
}

static void test_words(void **state)
{
    NORMAL("a\u00e9 a\u0301 \u0301a", "a\u00e9 \u0301 \u0301");
    NORMAL("\u201cthe\u201d \u2018A\u2019 b", "\u201c \u201d \u2018 \u2019 b");
    NORMAL("\u201cThe End\u201d", "\u201c end\u201d");
    NORMAL("x\u2014a\u2014y", "x\u2014 \u2014y");
    NORMAL("a\u00b2 a\u00bd a\u2160 \u0967a an\u4e00", "a\u00b2 a\u00bd a\u2170 \u0967a an\u4e00");
    NORMAL("a\u200b a\u200d\u093e", "\u200b \u200d\u093e"); /* joiners and vowel signs are none */
    NORMAL("\uff41 \uff54\uff48\uff45", "\uff41 \uff54\uff48\uff45");
    NORMAL("\uff0c\uff0e\uff01\u3002\u060c\u2026", "\uff0c\uff0e\uff01\u3002\u060c\u2026");
}

static size_t put_char(char *out, int32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void test_white_space(void **state)
{
    static const int32_t white[] = {0x09,   0x0a,   0x0b,   0x0c,   0x0d,   0x1c,   0x1d,   0x1e,
                                    0x1f,   0x20,   0x85,   0xa0,   0x1680, 0x2000, 0x2001, 0x2002,
                                    0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a,
                                    0x2028, 0x2029, 0x202f, 0x205f, 0x3000};
    assert_int_equal(sizeof white / sizeof white[0], 29);
    for (size_t i = 0; i < sizeof white / sizeof white[0]; i++) {
        char text[8] = "x";
        size_t n = 1 + put_char(text + 1, white[i]);
        text[n++] = 'y';
        assert_normal((lrd_text_t){text, n}, TEXT("x y"));
    }
    NORMAL("x\u200by x\ufeffy x\u180ey", "x\u200by x\ufeffy x\u180ey"); /* are none */
}

static void test_not_utf8(void **state)
{
    NORMAL("a\xff"
           "b",
           "\ufffd"
           "b"); /* U+FFFD is no word character: the a is an article */
    NORMAL("x\xe2\x82", "x\ufffd");
    NORMAL("\xed\xa0\x80", "\ufffd\ufffd\ufffd");
    NORMAL("\xc0\x80", "\ufffd\ufffd");
    NORMAL("\xf5", "\ufffd");
}

/* A sigma looks past a run of ignorable characters, and each run is looked at once. */
static void test_long(void **state)
{
    enum { N = 1 << 21 };
    char *text = malloc(N);
    lrd_buf_t buf = {0};
    assert_non_null(text);
    memset(text, '.', N);
    for (int i = 0; i < N; i += 1024)
        memcpy(text + i, "A\u03a3\u03a3\u03a3", 7);
    assert_ok(lrd_squad_normalize((lrd_text_t){text, N}, &buf));
    assert_int_equal(buf.size, N / 1024 * 7);
    assert_memory_equal(buf.data, "a\u03c3\u03c3\u03c3a", 8);
    assert_memory_equal(buf.data + buf.size - 4, "\u03c3\u03c2", 4);
    memset(text, ' ', N);
    memcpy(text, "\u03a3", 2);
    assert_ok(lrd_squad_normalize((lrd_text_t){text, N}, &buf));
    assert_int_equal(buf.size, 2);
    lrd_buf_release(&buf);
    free(text);
}

static void test_strings(void **state)
{
    char *line = NULL;
    size_t capacity = 0;
    int n = 0;
    FILE *file = fopen(lrd_test_golden("squad_score/strings.jsonl"), "r");
    assert_non_null(file);
    for (; getline(&line, &capacity, file) >= 0; n++) {
        json_t *json;
        assert_ok(lrd_json_parse(line, strlen(line), "strings.jsonl", &json));
        const json_t *text = json_array_get(json, 0), *normal = json_array_get(json, 1);
        assert_normal((lrd_text_t){json_string_value(text), json_string_length(text)},
                      (lrd_text_t){json_string_value(normal), json_string_length(normal)});
        json_decref(json);
    }
    assert_true(n > 2500);
    free(line);
    fclose(file);
}

static void check_every_character(const json_t *context)
{
    const json_t *before = json_object_get(context, "before"),
                 *after = json_object_get(context, "after");
    char text[64], hex[LRD_SHA256_HEX];
    lrd_sha256_t *hash = NULL;
    lrd_buf_t buf = {0};
    assert_true(json_string_length(before) + json_string_length(after) + 4 < sizeof text);
    memcpy(text, json_string_value(before), json_string_length(before));
    assert_ok(lrd_sha256_begin(&hash));
    for (int32_t c = 0; c < 0x110000; c++) {
        size_t n = json_string_length(before);
        if (c >= 0xd800 && c < 0xe000)
            continue;
        n += put_char(text + n, c);
        memcpy(text + n, json_string_value(after), json_string_length(after));
        n += json_string_length(after);
        assert_ok(lrd_squad_normalize((lrd_text_t){text, n}, &buf));
        assert_ok(lrd_buf_add(&buf, "\n", 1));
        assert_ok(lrd_sha256_add(hash, buf.data, buf.size));
    }
    assert_ok(lrd_sha256_end(hash, hex));
    if (strcmp(hex, json_string_value(json_object_get(context, "sha256"))) != 0)
        fail_msg("a character between \"%s\" and \"%s\"", json_string_value(before),
                 json_string_value(after));
    lrd_sha256_free(hash);
    lrd_buf_release(&buf);
}

static void test_every_character(void **state)
{
    json_t *json, *context;
    size_t i;
    assert_ok(lrd_json_read(lrd_test_golden("squad_score/code_points.json"), 1 << 20, &json));
    assert_true(json_array_size(json_object_get(json, "contexts")) >= 10);
    json_array_foreach(json_object_get(json, "contexts"), i, context)
        check_every_character(context);
    json_decref(json);
}

static size_t common(const char *a, const char *b)
{
    lrd_squad_tokens_t x = {0}, y = {0};
    lrd_buf_t text = {0}, other = {0};
    assert_ok(lrd_buf_add_text(&text, a));
    assert_ok(lrd_buf_add_text(&other, b));
    assert_ok(lrd_squad_tokens_read(&x, &text));
    assert_ok(lrd_squad_tokens_read(&y, &other));
    const size_t n = lrd_squad_tokens_common(&x, &y);
    assert_int_equal(lrd_squad_tokens_common(&y, &x), n);
    lrd_squad_tokens_release(&x);
    lrd_squad_tokens_release(&y);
    lrd_buf_release(&text);
    lrd_buf_release(&other);
    return n;
}

static void test_tokens(void **state)
{
    assert_int_equal(common("", ""), 0);
    assert_int_equal(common("", "x"), 0);
    assert_int_equal(common("x", "x"), 1);
    assert_int_equal(common("x x y", "x z x x"), 2);
    assert_int_equal(common("b c a", "a b c d"), 3);
    assert_int_equal(common("ab abc", "a abcd"), 0);
    assert_int_equal(common("q w e r t y u i o p a s d f g h j k", "k j h g f q"), 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ascii),
        cmocka_unit_test(test_case),
        cmocka_unit_test(test_final_sigma),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
