/* Reading JSON, and writing it as Python's json module does (tests/golden/base/make_json.py). */
#include "support/test_support.h"

#include "base/file.h"
#include "base/json.h"
#include "base/json_writer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- writing ---- */

static lrd_buf_t read_golden(const char *name)
{
    lrd_buf_t buf = {0};
    assert_ok(lrd_file_read(lrd_test_golden(name), 1 << 20, &buf));
    assert_true(buf.size > 0);
    return buf;
}

static void test_reals_as_python(void **state)
{
    lrd_buf_t table = read_golden("base/reals.txt");
    int n = 0;
    for (char *line = strtok(table.data, "\n"); line != NULL; line = strtok(NULL, "\n"), n++) {
        char *expected, text[32];
        const uint64_t bits = strtoull(line, &expected, 16);
        double value;
        memcpy(&value, &bits, sizeof value);
        lrd_format_real(value, text);
        assert_string_equal(text, expected + 1);
    }
    assert_true(n > 1000);
    lrd_buf_release(&table);
}

static void test_reals_that_are_not_finite(void **state)
{
    char text[32];
    lrd_format_real(NAN, text);
    assert_string_equal(text, "NaN");
    lrd_format_real(-NAN, text);
    assert_string_equal(text, "NaN");
    lrd_format_real(INFINITY, text);
    assert_string_equal(text, "Infinity");
    lrd_format_real(-INFINITY, text);
    assert_string_equal(text, "-Infinity");
}

/* Every double reads back as itself: random bits, all magnitudes. */
static void test_reals_read_back(void **state)
{
    uint64_t random = 1;
    for (int i = 0; i < 20000; i++) {
        const uint64_t bits = (uint64_t)lrd_test_random_int(&random, INT64_MAX) ^
                              (uint64_t)lrd_test_random_int(&random, 1 << 16) << 48;
        double value;
        char text[32];
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        lrd_format_real(value, text);
        const double again = strtod(text, NULL);
        assert_memory_equal(&again, &value, sizeof value);
        assert_non_null(strpbrk(text, ".e"));
    }
}

static size_t from_hex(const char *hex, char *out)
{
    size_t n = 0;
    unsigned byte;
    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        out[n] = (char)byte;
    return n;
}

static void assert_written(const char *text, size_t bytes, bool utf8, const char *expected)
{
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf, .utf8 = utf8};
    lrd_json_bytes(&w, text, bytes);
    assert_ok(lrd_json_writer_status(&w));
    assert_string_equal(buf.data, expected);
    lrd_buf_release(&buf);
}

static void test_strings_as_python(void **state)
{
    lrd_buf_t table = read_golden("base/strings.txt");
    int n = 0;
    char *rest = NULL;
    for (char *line = strtok_r(table.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest), n++) {
        char text[512];
        char *ascii = strchr(line, '\t'), *utf8 = strchr(ascii + 1, '\t');
        *ascii++ = *utf8++ = '\0';
        assert_true(strlen(line) < 2 * sizeof text);
        const size_t bytes = from_hex(line, text);
        assert_written(text, bytes, false, ascii);
        assert_written(text, bytes, true, utf8);
    }
    assert_int_equal(n, 70);
    lrd_buf_release(&table);
}

/* One U+FFFD for each maximal ill-formed part: the examples
 * of the Unicode standard, section 3.9. */
static void test_strings_that_are_not_utf8(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {
        {"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", "????????A"},
        {"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", "????????A"},
        {"\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", "?????A??B"},
        {"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "????A"},
        {"\xe2\x82", "?"},
        {"a\xf0\x9f\x98", "a?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char ascii[128] = "\"", utf8[128] = "\"";
        for (const char *c = cases[i].expected; *c != '\0'; c++) {
            const char one[2] = {*c, '\0'};
            strcat(ascii, *c == '?' ? "\\ufffd" : one);
            strcat(utf8, *c == '?' ? "\xef\xbf\xbd" : one);
        }
        assert_written(cases[i].text, strlen(cases[i].text), false, strcat(ascii, "\""));
        assert_written(cases[i].text, strlen(cases[i].text), true, strcat(utf8, "\""));
    }
}

static void test_documents_as_python(void **state)
{
    static const struct {
        const char *name;
        int indent;
        bool utf8;
    } styles[] = {
        {"base/document.line.json", 0, false},
        {"base/document.compact.json", -1, false},
        {"base/document.indent2.json", 2, false},
        {"base/document.indent4.utf8.json", 4, true},
    };
    for (size_t i = 0; i < sizeof styles / sizeof styles[0]; i++) {
        lrd_buf_t expected = read_golden(styles[i].name);
        for (size_t k = 0; k < sizeof styles / sizeof styles[0]; k++) {
            json_t *json;
            lrd_buf_t buf = {0};
            lrd_json_writer_t w = {.buf = &buf, .indent = styles[i].indent, .utf8 = styles[i].utf8};
            assert_ok(lrd_json_read(lrd_test_golden(styles[k].name), 1 << 20, &json));
            lrd_json_value(&w, json);
            assert_ok(lrd_json_writer_status(&w));
            assert_string_equal(buf.data, expected.data);
            lrd_buf_release(&buf);
            json_decref(json);
        }
        lrd_buf_release(&expected);
    }
}

static void write_small(lrd_json_writer_t *w)
{
    lrd_json_open(w, '{');
    lrd_json_key(w, "step");
    lrd_json_int(w, INT64_MIN);
    lrd_json_key(w, "loss");
    lrd_json_real(w, 5e-5);
    lrd_json_key(w, "list");
    lrd_json_open(w, '[');
    lrd_json_bool(w, true);
    lrd_json_bool(w, false);
    lrd_json_text(w, NULL);
    lrd_json_null(w);
    lrd_json_text(w, "x");
    lrd_json_close(w, ']');
    lrd_json_key(w, "empty");
    lrd_json_open(w, '{');
    lrd_json_close(w, '}');
    lrd_json_close(w, '}');
}

static void test_writer_calls(void **state)
{
    lrd_buf_t buf = {0};
    lrd_json_writer_t line = {.buf = &buf};
    write_small(&line);
    assert_string_equal(buf.data,
                        "{\"step\": -9223372036854775808, \"loss\": 5e-05, \"list\": [true, "
                        "false, null, null, \"x\"], \"empty\": {}}");
    lrd_buf_clear(&buf);
    lrd_json_writer_t compact = {.buf = &buf, .indent = -1};
    write_small(&compact);
    assert_string_equal(buf.data,
                        "{\"step\":-9223372036854775808,\"loss\":5e-05,\"list\":[true,false,"
                        "null,null,\"x\"],\"empty\":{}}");
    lrd_buf_clear(&buf);
    lrd_json_writer_t indented = {.buf = &buf, .indent = 2};
    write_small(&indented);
    assert_string_equal(buf.data, "{\n  \"step\": -9223372036854775808,\n  \"loss\": 5e-05,\n"
                                  "  \"list\": [\n    true,\n    false,\n    null,\n    null,\n"
                                  "    \"x\"\n  ],\n  \"empty\": {}\n}");
    lrd_buf_release(&buf);
}

/* ---- reading ---- */

static json_t *parse(const char *text)
{
    json_t *json = NULL;
    assert_ok(lrd_json_parse(text, strlen(text), "test", &json));
    return json;
}

static void test_parse_refuses(void **state)
{
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "test: not valid JSON"},
        {"{", "test: not valid JSON"},
        {"{} x", "end of file expected"},
        {"[1,]", "(line 1, column 4)"},
        {"\n\n  [1 2]", "(line 3, column 6)"},
        {"{\"a\": 1, \"a\": 1}", "duplicate object key"},
        {"{'a': 1}", "string or '}' expected"},
        {"NaN", "invalid token"},
        {"01", "not valid JSON"},
        {"1.", "not valid JSON"},
        {"9223372036854775808", "too big integer"},
        {"-9223372036854775809", "too big negative integer"},
        {"1e400", "real number overflow"},
        {"\"\xff\"", "unable to decode byte 0xff"},
        {"\"\xed\xa0\x80\"", "unable to decode"},
        {"\"\\ud800\"", "invalid Unicode"},
        {"\"\n\"", "unexpected newline"},
        {"\xef\xbb\xbf{}", "not valid JSON"},
        {"{\"a\\u0000b\": 1}", "NUL byte in object key"},
        {"// comment\n1", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *json = NULL;
        assert_fails(lrd_json_parse(cases[i].text, strlen(cases[i].text), "test", &json),
                     LRD_ERR_FORMAT, cases[i].error);
        assert_null(json);
    }
    json_t *json = NULL;
    assert_fails(lrd_json_parse("{}\0", 3, "test", &json), LRD_ERR_FORMAT, "zero byte");
}

static void test_parse_limits_nesting(void **state)
{
    for (int depth = 60; depth <= 70; depth++) {
        lrd_buf_t buf = {0};
        json_t *json = NULL;
        /* Brackets inside strings do not count, escaped quotes do not end one. */
        assert_ok(lrd_buf_add_text(&buf, "{\"\\\"[[[[[[[[\\\\\": "));
        for (int i = 1; i < depth; i++)
            assert_ok(lrd_buf_add_text(&buf, i % 2 == 0 ? "[" : "{\"\": "));
        assert_ok(lrd_buf_add_text(&buf, "0"));
        for (int i = depth - 1; i > 0; i--)
            assert_ok(lrd_buf_add_text(&buf, i % 2 == 0 ? "]" : "}"));
        assert_ok(lrd_buf_add_text(&buf, "}"));
        if (depth <= 64)
            assert_ok(lrd_json_parse(buf.data, buf.size, "test", &json));
        else
            assert_fails(lrd_json_parse(buf.data, buf.size, "test", &json), LRD_ERR_FORMAT,
                         "test: nested deeper than 64 levels");
        json_decref(json);
        lrd_buf_release(&buf);
    }
}

static void test_getters(void **state)
{
    json_t *o = parse("{\"n\": 5, \"x\": 0.25, \"yes\": true, \"t\": \"text\", \"z\": null, "
                      "\"nul\": \"a\\u0000b\", \"list\": []}");
    int64_t n;
    double x;
    bool flag;
    const char *text;
    assert_ok(lrd_json_get_int(o, "f", "n", 1, 5, 5, &n));
    assert_int_equal(n, 5);
    assert_ok(lrd_json_get_int(o, "f", "z", -3, 0, 10, &n)); /* a fallback need not be in range */
    assert_int_equal(n, -3);
    assert_ok(lrd_json_get_int(o, "f", "absent", 7, 0, 10, &n));
    assert_int_equal(n, 7);
    assert_ok(lrd_json_get_real(o, "f", "x", 1, &x));
    assert_true(x == 0.25);
    assert_ok(lrd_json_get_real(o, "f", "n", 1, &x));
    assert_true(x == 5.0);
    assert_ok(lrd_json_get_real(o, "f", "absent", 1.5, &x));
    assert_true(x == 1.5);
    assert_ok(lrd_json_get_bool(o, "f", "yes", false, &flag));
    assert_true(flag);
    assert_ok(lrd_json_get_bool(o, "f", "z", false, &flag));
    assert_false(flag);
    assert_ok(lrd_json_get_text(o, "f", "t", NULL, &text));
    assert_string_equal(text, "text");
    assert_ok(lrd_json_get_text(o, "f", "absent", NULL, &text));
    assert_null(text);
    json_decref(o);
}

static void test_getters_refuse(void **state)
{
    json_t *o = parse("{\"n\": 5, \"x\": 0.25, \"yes\": true, \"t\": \"text\", "
                      "\"nul\": \"a\\u0000b\"}");
    int64_t n = 42;
    double x;
    bool flag;
    const char *text;
    assert_fails(lrd_json_get_int(o, "config.json", "n", 1, 6, 9, &n), LRD_ERR_FORMAT,
                 "config.json: \"n\" is 5, expected 6 to 9");
    assert_fails(lrd_json_get_int(o, "f", "n", 1, -9, 4, &n), LRD_ERR_FORMAT, "expected -9 to 4");
    assert_fails(lrd_json_get_int(o, "f", "x", 1, 0, 9, &n), LRD_ERR_FORMAT, "is not an integer");
    assert_int_equal(n, 42);
    assert_fails(lrd_json_get_real(o, "f", "t", 1, &x), LRD_ERR_FORMAT, "\"t\" is not a number");
    assert_fails(lrd_json_get_bool(o, "f", "n", false, &flag), LRD_ERR_FORMAT,
                 "\"n\" is not true or false");
    assert_fails(lrd_json_get_text(o, "f", "yes", NULL, &text), LRD_ERR_FORMAT,
                 "\"yes\" is not a string");
    assert_fails(lrd_json_get_text(o, "f", "nul", NULL, &text), LRD_ERR_FORMAT,
                 "\"nul\" holds a NUL");
    json_decref(o);
}

static void test_read_files(void **state)
{
    const char *path = lrd_test_temporary("a.json");
    json_t *json = NULL;
    assert_fails(lrd_json_read(path, 100, &json), LRD_ERR_IO, "a.json: No such file");
    assert_ok(lrd_file_write(path, "", 0));
    assert_fails(lrd_json_read(path, 100, &json), LRD_ERR_FORMAT, "a.json is empty");
    assert_ok(lrd_file_write(path, "[12345]", 7));
    assert_fails(lrd_json_read(path, 6, &json), LRD_ERR_IO, "has 7 bytes, more than the 6");
    assert_ok(lrd_json_read(path, 7, &json));
    assert_int_equal(json_integer_value(json_array_get(json, 0)), 12345);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reals_as_python),
        cmocka_unit_test(test_reals_that_are_not_finite),
        cmocka_unit_test(test_reals_read_back),
        cmocka_unit_test(test_strings_as_python),
        cmocka_unit_test(test_strings_that_are_not_utf8),
        cmocka_unit_test(test_documents_as_python),
        cmocka_unit_test(test_writer_calls),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_limits_nesting),
        cmocka_unit_test(test_getters),
        cmocka_unit_test(test_getters_refuse),
        cmocka_unit_test(test_read_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
