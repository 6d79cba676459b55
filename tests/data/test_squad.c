/* The SQuAD reader. Oracles: a small file of known content, published counts, exact messages. */
#include "support/test_support.h"

#include "base/buf.h"
#include "base/file.h"
#include "data/squad.h"

#include <string.h>

static void assert_text(lrd_text_t text, const char *expected)
{
    assert_non_null(text.data);
    assert_int_equal(text.bytes, strlen(expected));
    assert_memory_equal(text.data, expected, text.bytes);
}

static lrd_status_t parse(const char *text, lrd_squad_t **squad_out)
{
    return lrd_squad_parse(text, strlen(text), "train.json", squad_out);
}

static void test_rows(void **state)
{
    (void)state;
    lrd_squad_t *s = NULL;
    assert_ok(lrd_squad_read(lrd_test_golden("data/passages.json"), &s));
    assert_int_equal(lrd_squad_n_articles(s), 5);
    assert_int_equal(lrd_squad_n_questions(s), 18);

    const lrd_squad_question_t *q = lrd_squad_question(s, 1);
    assert_text(q->id, "000000000000000000000001");
    assert_text(q->title, "Lighthouse");
    assert_text(q->question, "Who had the lamp changed to paraffin?");
    assert_int_equal(q->context.bytes, 222);
    assert_memory_equal(q->context.data, "The lighthouse at Mew Point was", 31);
    assert_int_equal(q->n_answers, 3);
    assert_text(lrd_squad_answer(s, 1, 0), "Ada Trevose");
    assert_text(lrd_squad_answer(s, 1, 1), "the keeper Ada Trevose");
    assert_text(lrd_squad_answer(s, 1, 2), "Ada Trevose");

    assert_int_equal(lrd_squad_question(s, 2)->n_answers, 0);
    q = lrd_squad_question(s, 7);
    assert_text(q->title, "Caf\xc3\xa9 \xe2\x80\x9cZur Post\xe2\x80\x9d");
    assert_text(lrd_squad_answer(s, 7, 0), "\xe4\xba\x8c\xe9\x9a\x8e");
    assert_int_equal(q->article, 1);
    assert_int_equal(q->paragraph, 0);
    assert_int_equal(q->qas, 1);
    q = lrd_squad_question(s, 17); /* the article before has no paragraphs */
    assert_int_equal(q->article, 4);

    lrd_buf_t place = {0};
    assert_ok(lrd_squad_place(s, 14, &place));
    assert_true(lrd_test_contains(
        place.data, "passages.json: data[2].paragraphs[1].qas[1] (id 00000000000000000000000e)"));
    lrd_buf_release(&place);
    lrd_squad_free(s);
}

static void test_accepted(void **state)
{
    (void)state;
    lrd_squad_t *s = NULL;
    assert_ok(parse("{\"data\":[]}", &s));
    assert_int_equal(lrd_squad_n_questions(s), 0);
    lrd_squad_free(s);
    /* byte order mark, no title, unknown members, escapes, U+0000, an empty text */
    static const char text[] = "\xef\xbb\xbf{\"data\":[{\"extra\":1,\"paragraphs\":[{\"context\":"
                               "\"a\\u0000\\ud83d\\ude00\","
                               "\"qas\":[{\"id\":\"\",\"question\":\"\",\"answers\":[]}]}]}]}";
    assert_ok(parse(text, &s));
    const lrd_squad_question_t *q = lrd_squad_question(s, 0);
    assert_text(q->title, "");
    assert_text(q->question, "");
    assert_int_equal(q->context.bytes, 6);
    assert_memory_equal(q->context.data, "a\0\xf0\x9f\x98\x80", 6);
    lrd_squad_free(s);
}

/* One question, with `what` replaced by `with`. */
static void damage(lrd_buf_t *buf, const char *what, const char *with)
{
    static const char good[] =
        "{\"data\":[{\"title\":\"T\",\"paragraphs\":[]},{\"title\":\"T\",\"paragraphs\":[{"
        "\"context\":"
        "\"C\",\"qas\":[{\"id\":\"1\",\"question\":\"Q\",\"answers\":[{\"text\":\"A\"},{\"text\":"
        "\"B\"}]}]}]}]}";
    const char *at = strstr(good, what);
    assert_non_null(at);
    lrd_buf_clear(buf);
    assert_ok(lrd_buf_add(buf, good, (size_t)(at - good)));
    assert_ok(lrd_buf_add_text(buf, with));
    assert_ok(lrd_buf_add_text(buf, at + strlen(what)));
}

static void test_errors(void **state)
{
    (void)state;
    static const struct {
        const char *what, *with, *message;
    } bad[] = {
        {"\"data\":", "\"date\":", "train.json: \"data\" is missing, expected a list"},
        {"\"title\":\"T\",\"paragraphs\":[]", "\"title\":7,\"paragraphs\":[]",
         "train.json: data[0]: \"title\" is a number, expected a string"},
        {"\"paragraphs\":[]", "\"paragraphs\":{}",
         "train.json: data[0]: \"paragraphs\" is an object, expected a list"},
        {"{\"title\":\"T\",\"paragraphs\":[]}", "[]",
         "train.json: data[0]: is a list, expected an object"},
        {"{\"title\":\"T\",\"paragraphs\":[]}", "null",
         "train.json: data[0]: is null, expected an object"},
        {"\"paragraphs\":[{", "\"paragraphs\":[3,{",
         "train.json: data[1].paragraphs[0]: is a number, expected an object"},
        {"\"context\":\"C\"", "\"context\":[\"C\"]",
         "train.json: data[1].paragraphs[0]: \"context\" is a list, expected a string"},
        {"\"context\":\"C\",", "",
         "train.json: data[1].paragraphs[0]: \"context\" is missing, expected a string"},
        {"\"qas\":", "\"questions\":",
         "train.json: data[1].paragraphs[0]: \"qas\" is missing, expected a list"},
        {"\"id\":\"1\"", "\"id\":1",
         "train.json: data[1].paragraphs[0].qas[0]: \"id\" is a number, expected a string"},
        {"\"question\":\"Q\"", "\"question\":true",
         "train.json: data[1].paragraphs[0].qas[0]: \"question\" is true or false, expected a "
         "string"},
        {"\"answers\":[", "\"plausible_answers\":[",
         "train.json: data[1].paragraphs[0].qas[0]: \"answers\" is missing, expected a list"},
        {"\"answers\":[", "\"answers\":null,\"x\":[",
         "train.json: data[1].paragraphs[0].qas[0]: \"answers\" is null, expected a list"},
        /* the one behind a good one is named, not the good one's parts */
        {"]}]}]}]}", "]},{}]}]}]}",
         "train.json: data[1].paragraphs[0].qas[1]: \"id\" is missing, expected a string"},
        {"]}]}]}]}", "]}]},{}]}]}",
         "train.json: data[1].paragraphs[1]: \"context\" is missing, expected a string"},
        {"]}]}]}]}", "]}]}]},{}]}",
         "train.json: data[2]: \"paragraphs\" is missing, expected a list"},
        {"{\"text\":\"B\"}", "\"B\"",
         "train.json: data[1].paragraphs[0].qas[0].answers[1]: is a string, expected an object"},
        {"{\"text\":\"B\"}", "{\"text\":{}}",
         "train.json: data[1].paragraphs[0].qas[0].answers[1]: \"text\" is an object, expected a "
         "string"},
        {"\"A\"", "\"\xff\"", "train.json: not valid JSON: "},
        {"\"A\"", "\"\\ud800\"", "train.json: not valid JSON: "},
        {"\"title\":\"T\"", "\"title\":\"T\",\"title\":\"U\"", "train.json: not valid JSON: "},
    };
    lrd_squad_t *s = NULL;
    lrd_buf_t buf = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        damage(&buf, bad[i].what, bad[i].with);
        assert_fails(lrd_squad_parse(buf.data, buf.size, "train.json", &s), LRD_ERR_FORMAT,
                     bad[i].message);
        assert_null(s);
    }
    damage(&buf, "C", "C"); /* truncated anywhere */
    for (size_t n = 1; n < buf.size; n++)
        assert_fails(lrd_squad_parse(buf.data, n, "train.json", &s), LRD_ERR_FORMAT,
                     "train.json: not valid JSON: ");
    lrd_buf_release(&buf);
    assert_fails(parse("", &s), LRD_ERR_FORMAT, "train.json is empty");
    assert_fails(parse("[]", &s), LRD_ERR_FORMAT,
                 "train.json: is a list, expected an object with the list \"data\"");
    assert_fails(parse("{\"data\":[{\"paragraphs\":[{\"context\":\"\",\"qas\":[5]}]}]}", &s),
                 LRD_ERR_FORMAT,
                 "train.json: data[0].paragraphs[0].qas[0]: is a number, expected an object");
    assert_fails(lrd_squad_read(lrd_test_temporary("absent.json"), &s), LRD_ERR_IO, "absent.json");
    assert_fails(lrd_squad_read(lrd_test_golden("data"), &s), LRD_ERR_IO, "is a folder");
}

/* Counts as published, and of the official reader. */
static void check_counts(const char *path, size_t articles, size_t paragraphs, size_t questions,
                         size_t answerable)
{
    lrd_squad_t *s = NULL;
    size_t n_paragraphs = 0, n_answerable = 0;
    assert_ok(lrd_squad_read(path, &s));
    for (size_t i = 0; i < lrd_squad_n_questions(s); i++) {
        const lrd_squad_question_t *q = lrd_squad_question(s, i);
        n_paragraphs += q->qas == 0;
        n_answerable += q->n_answers > 0;
        assert_int_equal(q->id.bytes, 24);
    }
    assert_int_equal(lrd_squad_n_articles(s), articles);
    assert_int_equal(n_paragraphs, paragraphs);
    assert_int_equal(lrd_squad_n_questions(s), questions);
    assert_int_equal(n_answerable, answerable);
    lrd_squad_free(s);
}

static void test_real_files(void **state)
{
    (void)state;
    const char *dev = lrd_test_shared("data/squad/dev-v2.0.json"),
               *train = lrd_test_shared("data/squad/train-v2.0.first10articles.json");
    if (dev == NULL || train == NULL) {
        print_message("SKIPPED: SQuAD files are not beside the checkout\n");
        skip();
    }
    check_counts(dev, 35, 1204, 11873, 5928);
    check_counts(train, 10, 694, 4719, 4371);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
