/* Prompt templates. Oracle: expected texts written out by hand (those of Python's str.format). */
#include "support/test_support.h"

#include "base/buf.h"
#include "data/prompt.h"

#include <string.h>

#define TEXT(s) ((lrd_text_t){(s), sizeof(s) - 1})

/* Renders with value[i] for field i in order of appearance, and compares text and offset. */
static void check(const char *template, const lrd_text_t *value, const char *expected,
                  size_t last_at, const char *head)
{
    lrd_prompt_t *prompt = NULL;
    lrd_buf_t buf = {0};
    size_t at = 0;
    assert_ok(lrd_prompt_create(template, "t", &prompt));
    assert_ok(lrd_buf_add_text(&buf, "kept"));
    assert_ok(lrd_prompt_render(prompt, value, &buf, &at));
    assert_string_equal(buf.data + 4, expected);
    assert_memory_equal(buf.data, "kept", 4);
    assert_int_equal(at, last_at);
    lrd_buf_clear(&buf);
    assert_ok(lrd_prompt_render_head(prompt, value, &buf));
    assert_string_equal(buf.data, head);
    lrd_buf_release(&buf);
    lrd_prompt_free(prompt);
}

static void test_render(void **state)
{
    (void)state;
    check("### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### ANSWER\n{answer}</s>",
          (lrd_text_t[]){TEXT("Caf\xc3\xa9."), TEXT("Where?"), TEXT("here")},
          "### CONTEXT\nCaf\xc3\xa9.\n\n### QUESTION\nWhere?\n\n### ANSWER\nhere</s>", 52,
          "### CONTEXT\nCaf\xc3\xa9.\n\n### QUESTION\nWhere?\n\n### ANSWER\n");
    check("{a}", (lrd_text_t[]){TEXT("x")}, "x", 0, "");
    check("{a}{b}{a}", (lrd_text_t[]){TEXT("1"), TEXT("22")}, "1221", 3, "122");
    check("{{{a}}}", (lrd_text_t[]){TEXT("{b}")}, "{{b}}", 1, "{");
    check("{{}}{{a}} {a}}}{{", (lrd_text_t[]){TEXT("v")}, "{}{a} v}{", 6, "{}{a} ");
    check("{with space}-{x.y[0]!r:>3}", (lrd_text_t[]){TEXT("p"), TEXT("q")}, "p-q", 2, "p-");
    check("{a}|{b}", (lrd_text_t[]){TEXT(""), TEXT("")}, "|", 1, "|");
}

static void test_nul_bytes(void **state)
{
    (void)state;
    lrd_prompt_t *prompt = NULL;
    lrd_buf_t buf = {0};
    size_t at = 0;
    assert_ok(lrd_prompt_create("<{a}|{b}>", "t", &prompt));
    assert_ok(lrd_prompt_render(prompt, (lrd_text_t[]){{"\0x\0", 3}, {"\0", 1}}, &buf, &at));
    assert_int_equal(buf.size, 7);
    assert_memory_equal(buf.data, "<\0x\0|\0>", 7);
    assert_int_equal(at, 5);
    lrd_buf_release(&buf);
    lrd_prompt_free(prompt);
}

static void test_fields(void **state)
{
    (void)state;
    lrd_prompt_t *prompt = NULL;
    assert_ok(lrd_prompt_create("{q} {c} {q} {answer} {c}", "t", &prompt));
    assert_int_equal(lrd_prompt_n_fields(prompt), 3);
    assert_string_equal(lrd_prompt_field(prompt, 0), "q");
    assert_string_equal(lrd_prompt_field(prompt, 1), "c");
    assert_string_equal(lrd_prompt_field(prompt, 2), "answer");
    assert_int_equal(lrd_prompt_find(prompt, "answer"), 2);
    assert_int_equal(lrd_prompt_find(prompt, "answe"), -1);
    assert_int_equal(lrd_prompt_find(prompt, ""), -1);
    assert_int_equal(lrd_prompt_last(prompt), 1);
    assert_int_equal(lrd_prompt_n_uses(prompt, 0), 2);
    assert_int_equal(lrd_prompt_n_uses(prompt, 1), 2);
    assert_int_equal(lrd_prompt_n_uses(prompt, 2), 1);
    lrd_prompt_free(prompt);
}

static void test_missing_values(void **state)
{
    (void)state;
    lrd_prompt_t *prompt = NULL;
    lrd_buf_t buf = {0};
    const lrd_text_t value[2] = {TEXT("x"), {NULL, 0}};
    assert_ok(lrd_prompt_create("{a} {b}", "prompt_template", &prompt));
    assert_ok(lrd_prompt_render_head(prompt, value, &buf)); /* the last value is not looked at */
    assert_string_equal(buf.data, "x ");
    assert_fails(lrd_prompt_render(prompt, value, &buf, NULL), LRD_ERR_ARG,
                 "prompt_template: the field {b} has no value here");
    lrd_prompt_free(prompt);
    assert_ok(lrd_prompt_create("{a} {b} {a} {b}", "prompt_template", &prompt));
    assert_fails(lrd_prompt_render_head(prompt, value, &buf), LRD_ERR_ARG,
                 "prompt_template: the field {b} has no value here");
    lrd_prompt_free(prompt);
    lrd_buf_release(&buf);
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *template, *message;
    } bad[] = {
        {"{a} {", "t: the brace at character 5 opens a field that is not closed"},
        {"{a} {b", "t: the brace at character 5 opens a field that is not closed"},
        {"\xc3\xa9\xf0\x9f\x98\x80{a{b}}", "t: the brace at character 3 opens a field"},
        {"{a} }", "t: the brace at character 5 closes nothing; write }} for a brace in the text"},
        {"}{a}", "t: the brace at character 1 closes nothing"},
        {"{a}}", "t: the brace at character 4 closes nothing"},
        {"{{a}", "t: the brace at character 4 closes nothing"},
        {"x{}y", "t: the field at character 2 has no name"},
        {"", "t names no field"},
        {"{{a}}", "t names no field; write {name} where a field of the records should stand"},
        {"plain", "t names no field"},
    };
    lrd_prompt_t *prompt = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_fails(lrd_prompt_create(bad[i].template, "t", &prompt), LRD_ERR_CONFIG,
                     bad[i].message);
        assert_null(prompt);
    }
}

static void test_number_of_fields(void **state)
{
    (void)state;
    lrd_prompt_t *prompt = NULL;
    lrd_buf_t buf = {0};
    for (int i = 0; i < 256; i++)
        assert_ok(lrd_buf_printf(&buf, "{f%d}", i));
    assert_ok(lrd_prompt_create(buf.data, "t", &prompt));
    assert_int_equal(lrd_prompt_n_fields(prompt), 256);
    assert_int_equal(lrd_prompt_find(prompt, "f255"), 255);
    lrd_prompt_free(prompt);
    prompt = NULL;
    assert_ok(lrd_buf_add_text(&buf, "{f256}"));
    assert_fails(lrd_prompt_create(buf.data, "t", &prompt), LRD_ERR_CONFIG,
                 "t names more than 256 fields");
    lrd_buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_render), cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_fields), cmocka_unit_test(test_missing_values),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_number_of_fields),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
