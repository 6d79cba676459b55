/* Readers of JSON lines. Oracle: texts written out by hand, exact messages. */
#include "support/test_support.h"

#include "base/mem.h"
#include "data/jsonl.h"

#include <stdlib.h>
#include <string.h>

static lrd_jsonl_t reader_of(const char *text)
{
    lrd_jsonl_t r;
    lrd_jsonl_begin(&r, "f.jsonl", text, strlen(text));
    return r;
}

static void test_lines(void **state)
{
    (void)state;
    static const char text[] =
        "\xef\xbb\xbf{\"n\":1}\r\n\n  \t\r\n{\"n\":2}  \r\n\r\n\n {\"n\" : 3}";
    static const int64_t line[] = {1, 4, 7};
    lrd_jsonl_t r = reader_of(text);
    json_t *object = NULL;
    for (int i = 0; i < 3; i++) {
        assert_ok(lrd_jsonl_next(&r, &object));
        assert_non_null(object);
        assert_int_equal(json_integer_value(json_object_get(object, "n")), i + 1);
        assert_int_equal(r.line, line[i]);
        json_decref(object);
    }
    for (int i = 0; i < 2; i++) {
        assert_ok(lrd_jsonl_next(&r, &object));
        assert_null(object);
    }
    r = reader_of("");
    assert_ok(lrd_jsonl_next(&r, &object));
    assert_null(object);
    r = reader_of("\n \n\r\n");
    assert_ok(lrd_jsonl_next(&r, &object));
    assert_null(object);
    r = reader_of("\xef\xbb\xbf");
    assert_ok(lrd_jsonl_next(&r, &object));
    assert_null(object);
    r = reader_of("{}\n");
    assert_ok(lrd_jsonl_next(&r, &object));
    assert_non_null(object);
    json_decref(object);
}

static void test_line_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"\n{\"a\":}\n", "f.jsonl:2: not valid JSON: "},
        {"{\"a\":1} {\"b\":2}", "f.jsonl:1: not valid JSON: "},
        {"{\"a\":\n1}", "f.jsonl:1: not valid JSON: "},
        {"{\"a\":1,\"a\":2}", "f.jsonl:1: not valid JSON: "},
        {"\n\n[1]", "f.jsonl:3: the line is a list, expected an object"},
        {"\"x\"", "f.jsonl:1: the line is a string, expected an object"},
        {"null", "f.jsonl:1: the line is null, expected an object"},
        {"{\"a\":\"\xff\"}", "f.jsonl:1: not valid JSON: "},
        {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1",
         "f.jsonl:1: nested deeper than 64 levels"},
    };
    json_t *object = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lrd_jsonl_t r = reader_of(bad[i].text);
        assert_fails(lrd_jsonl_next(&r, &object), LRD_ERR_FORMAT, bad[i].message);
        assert_null(object);
    }
}

static void test_long_line(void **state)
{
    (void)state;
    const size_t limit = 16u << 20;
    char *text = malloc(limit + 8);
    json_t *object = NULL;
    lrd_jsonl_t r;
    assert_non_null(text);
    memset(text, 'x', limit + 8);
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + limit - 2, "\"}\n{}", 5);
    lrd_jsonl_begin(&r, "f.jsonl", text, limit + 3);
    assert_ok(lrd_jsonl_next(&r, &object));
    assert_int_equal(json_string_length(json_object_get(object, "a")), limit - 8);
    json_decref(object);
    object = NULL;
    memcpy(text + limit - 2, "x\"}\n", 4);
    lrd_jsonl_begin(&r, "f.jsonl", text, limit + 2);
    assert_fails(lrd_jsonl_next(&r, &object), LRD_ERR_FORMAT,
                 "f.jsonl:1: the line has 16777217 bytes, more than the 16777216 that are read");
    free(text);
}

static void assert_text(lrd_text_t text, const char *expected, size_t bytes)
{
    assert_int_equal(text.bytes, bytes);
    assert_memory_equal(text.data, expected, bytes);
}

static void test_fields(void **state)
{
    (void)state;
    lrd_prompt_t *prompt = NULL;
    lrd_text_t value[8];
    json_t *object = NULL;
    lrd_jsonl_t r =
        reader_of("{\"s\":\"a\\u0000\\u00e9\",\"i\":-120000000000000000,\"r\":0.00001,"
                  "\"t\":true,\"f\":false,\"w\":1e22,\"e\":\"\",\"h\":39.0,\"x\":[{}]}");
    assert_ok(lrd_prompt_create("{s}{i}{r}{t}{f}{w}{e}{h}", "t", &prompt));
    assert_ok(lrd_jsonl_next(&r, &object));
    for (int again = 0; again < 2; again++) {
        assert_ok(lrd_jsonl_fields(&r, object, prompt, value));
        assert_text(value[0], "a\0\xc3\xa9", 4);
        assert_text(value[1], "-120000000000000000", 19);
        assert_text(value[2], "1e-05", 5);
        assert_text(value[3], "true", 4);
        assert_text(value[4], "false", 5);
        assert_text(value[5], "1e+22", 5);
        assert_non_null(value[6].data);
        assert_text(value[6], "", 0);
        assert_text(value[7], "39.0", 4);
    }
    json_decref(object);
    lrd_prompt_free(prompt);
}

static void test_field_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"\n{\"b\":1}", "f.jsonl:2: \"a\" is missing, which the prompt template names"},
        {"{\"a\":null}", "f.jsonl:1: \"a\" is null, expected text"},
        {"{\"a\":[\"x\"]}", "f.jsonl:1: \"a\" is a list, expected text"},
        {"{\"a\":{}}", "f.jsonl:1: \"a\" is an object, expected text"},
    };
    lrd_prompt_t *prompt = NULL;
    lrd_text_t value[1];
    assert_ok(lrd_prompt_create("{a}", "t", &prompt));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lrd_jsonl_t r = reader_of(bad[i].text);
        json_t *object = NULL;
        assert_ok(lrd_jsonl_next(&r, &object));
        assert_fails(lrd_jsonl_fields(&r, object, prompt, value), LRD_ERR_FORMAT, bad[i].message);
        json_decref(object);
    }
    lrd_prompt_free(prompt);
}

static void test_tokens(void **state)
{
    (void)state;
    static const char text[] =
        "{\"input_ids\":[5,6,0,299]}\n"
        "{\"input_ids\":[1,2,3],\"labels\":[-100,2,299],\"attention_mask\":[1,1,1]}\n"
        "{\"input_ids\":[7],\"labels\":null,\"attention_mask\":null}\n";
    static const int32_t token[3][4] = {{5, 6, 0, 299}, {1, 2, 3}, {7}},
                         label[3][4] = {{5, 6, 0, 299}, {-100, 2, 299}, {7}};
    static const size_t n[3] = {4, 3, 1};
    lrd_jsonl_t r = reader_of(text);
    lrd_jsonl_tokens_t t = {0};
    for (int i = 0; i < 3; i++) {
        json_t *object = NULL;
        assert_ok(lrd_jsonl_next(&r, &object));
        assert_ok(lrd_jsonl_tokens(&r, object, 300, &t));
        assert_int_equal(t.n, n[i]);
        assert_memory_equal(t.token, token[i], n[i] * sizeof(int32_t));
        assert_memory_equal(t.label, label[i], n[i] * sizeof(int32_t));
        json_decref(object);
    }
    lrd_jsonl_tokens_release(&t);
    assert_null(t.token);
}

static void test_token_errors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{}", "f.jsonl:1: \"input_ids\" is missing, expected a list of token ids"},
        {"\n{\"input_ids\":null}", "f.jsonl:2: \"input_ids\" is missing"},
        {"{\"input_ids\":\"1 2\"}", "f.jsonl:1: \"input_ids\" is a string, expected a list of"},
        {"{\"input_ids\":[]}", "f.jsonl:1: \"input_ids\" is empty; remove the record"},
        {"{\"input_ids\":[1,\"2\"]}", "f.jsonl:1: input_ids[1] is a string, expected an integer"},
        {"{\"input_ids\":[1.0]}", "f.jsonl:1: input_ids[0] is a real number, expected an integer"},
        {"{\"input_ids\":[[1]]}", "f.jsonl:1: input_ids[0] is a list, expected an integer"},
        {"{\"input_ids\":[1,2,300]}",
         "f.jsonl:1: input_ids[2] is 300, outside the model's vocabulary of 300"},
        {"{\"input_ids\":[-1]}", "f.jsonl:1: input_ids[0] is -1, outside"},
        {"{\"input_ids\":[-100]}", "f.jsonl:1: input_ids[0] is -100, outside"},
        {"{\"input_ids\":[4294967297]}", "f.jsonl:1: input_ids[0] is 4294967297, outside"},
        {"{\"input_ids\":[9223372036854775808]}", "f.jsonl:1: not valid JSON: "},
        {"{\"input_ids\":[1,2],\"labels\":[1]}",
         "f.jsonl:1: \"labels\" has 1 entries and \"input_ids\" 2, expected as many"},
        {"{\"input_ids\":[1],\"labels\":{}}", "f.jsonl:1: \"labels\" is an object, expected"},
        {"{\"input_ids\":[1,2],\"labels\":[-100,300]}",
         "f.jsonl:1: labels[1] is 300, outside the model's vocabulary of 300 and not -100 "
         "(ignored)"},
        {"{\"input_ids\":[1,2],\"labels\":[-1,2]}", "f.jsonl:1: labels[0] is -1, outside"},
        {"{\"input_ids\":[1,2],\"attention_mask\":[1,0]}",
         "f.jsonl:1: attention_mask[1] is not 1; records are taken without padding"},
    };
    lrd_jsonl_tokens_t t = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lrd_jsonl_t r = reader_of(bad[i].text);
        json_t *object = NULL;
        lrd_status_t status = lrd_jsonl_next(&r, &object);
        if (status == LRD_OK)
            status = lrd_jsonl_tokens(&r, object, 300, &t);
        assert_fails(status, LRD_ERR_FORMAT, bad[i].message);
        json_decref(object);
    }
    lrd_jsonl_tokens_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),        cmocka_unit_test(test_line_errors),
        cmocka_unit_test(test_long_line),    cmocka_unit_test(test_fields),
        cmocka_unit_test(test_field_errors), cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_token_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
