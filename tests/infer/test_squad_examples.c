/* Examples of answers: at most so many of each kind, spread evenly, with what the file and the answers say. */
#include "support/test_support.h"

#include "base/json.h"
#include "base/mem.h"
#include "infer/squad_examples.h"

#include <stdio.h>
#include <string.h>

enum { MOST = 100 };

/* n questions "q0", "q1", ...; every `gap`-th is answered rightly, the others with half of it. */
static json_t *write(size_t n, size_t gap)
{
    lrd_buf_t file = {0}, text = {0};
    lrd_json_writer_t w = {.buf = &text};
    lrd_squad_t *data = NULL;
    lrd_text_t answer[MOST];
    json_t *examples = NULL;
    assert_ok(lrd_buf_add_text(&file,
                               "{\"version\": \"v2.0\", \"data\": [{\"paragraphs\": [{\"context\": "
                               "\"c\", \"qas\": ["));
    for (size_t i = 0; i < n; i++) {
        assert_ok(
            lrd_buf_printf(&file,
                           "%s{\"id\": \"%zu\", \"question\": \"q%zu\", \"answers\": [{\"text\": "
                           "\"red house\", \"answer_start\": 0}]}",
                           i > 0 ? "," : "", i, i));
        answer[i] = i % gap == 0 ? (lrd_text_t){"The red house.", 14} : (lrd_text_t){"red", 3};
    }
    assert_ok(lrd_buf_add_text(&file, "]}]}]}"));
    assert_ok(lrd_squad_parse(file.data, file.size, "test", &data));
    assert_ok(lrd_squad_examples_write(
        data, &(lrd_squad_answers_t){.text = answer, .n_questions = n, .na_prob_thresh = 1}, &w));
    assert_ok(lrd_json_parse(text.data, text.size, "examples", &examples));
    lrd_squad_free(data);
    lrd_buf_release(&text);
    lrd_buf_release(&file);
    return examples;
}

/* The question of the j-th of n that stand for all: the first that is not before j sixths of them. */
static size_t chosen(size_t j, size_t n)
{
    return n <= LRD_SQUAD_EXAMPLES ? j : (j * n + LRD_SQUAD_EXAMPLES - 1) / LRD_SQUAD_EXAMPLES;
}

static void check(size_t n, size_t gap)
{
    json_t *examples = write(n, gap);
    bool expected[MOST] = {false};
    size_t place[2][MOST], count[2] = {0, 0}, at = 0;
    for (size_t i = 0; i < n; i++)
        place[i % gap == 0][count[i % gap == 0]++] = i;
    for (int right = 0; right < 2; right++) {
        for (size_t j = 0; j < count[right] && j < LRD_SQUAD_EXAMPLES; j++)
            expected[place[right][chosen(j, count[right])]] = true;
    }
    for (size_t i = 0; i < n; i++) {
        char question[32];
        if (!expected[i])
            continue;
        const json_t *x = json_array_get(examples, at++);
        snprintf(question, sizeof question, "q%zu", i);
        assert_string_equal(json_string_value(json_object_get(x, "id")), question + 1);
        assert_string_equal(json_string_value(json_object_get(x, "question")), question);
        assert_string_equal(json_string_value(json_object_get(x, "prediction")),
                            i % gap == 0 ? "The red house." : "red");
        assert_string_equal(json_string_value(json_array_get(json_object_get(x, "answers"), 0)),
                            "red house");
        assert_true(json_real_value(json_object_get(x, "exact")) == (i % gap == 0));
        /* "red" of "red house": precision 1, recall 1/2. */
        assert_true(json_real_value(json_object_get(x, "f1")) == (i % gap == 0 ? 1 : 2.0 / 3));
    }
    assert_int_equal(at, json_array_size(examples));
    json_decref(examples);
}

static void examples_are_spread_evenly(void **unused)
{
    (void)unused;
    for (size_t n = 1; n <= MOST; n++) {
        for (size_t gap = 1; gap <= 5; gap++)
            check(n, gap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(examples_are_spread_evenly)};
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
