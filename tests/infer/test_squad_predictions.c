/* Files of predictions and of probabilities: what is taken, what is refused and how, and what becomes
 * of too little memory. */
#include "support/test_support.h"

#include "base/json.h"
#include "base/mem.h"
#include "infer/squad_ids.h"
#include "infer/squad_predictions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Questions "b", "a" (answer x), "" and "b" again, and one whose id holds U+0000. */
static const char four[] = "{\"data\":[{\"paragraphs\":[{\"context\":\"c\",\"qas\":["
                           "{\"id\":\"b\",\"question\":\"q\",\"answers\":[]},"
                           "{\"id\":\"a\",\"question\":\"q\",\"answers\":[{\"text\":\"x\"}]},"
                           "{\"id\":\"\",\"question\":\"q\",\"answers\":[]},"
                           "{\"id\":\"b\",\"question\":\"q\",\"answers\":[]},"
                           "{\"id\":\"a\\u0000\",\"question\":\"q\",\"answers\":[]}]}]}]}";

static lrd_squad_t *questions(const char *text)
{
    lrd_squad_t *data = NULL;
    assert_ok(lrd_squad_parse(text, strlen(text), "dev.json", &data));
    return data;
}

static lrd_status_t parse(const lrd_squad_t *data, const char *text, lrd_squad_predictions_t *p)
{
    return lrd_squad_predictions_parse(text, strlen(text), "P.json", data, p);
}

static void assert_prediction(const lrd_squad_predictions_t *p, size_t i, const char *expected)
{
    if (expected == NULL) {
        assert_null(p->text[i].data);
        return;
    }
    assert_int_equal(p->text[i].bytes, strlen(expected));
    assert_memory_equal(p->text[i].data, expected, p->text[i].bytes);
}

static void test_ids(void **state)
{
    lrd_squad_t *data = questions(four);
    lrd_squad_ids_t ids;
    assert_ok(lrd_squad_ids_create(data, 5, &ids));
    assert_int_equal(lrd_squad_ids_find(&ids, (lrd_text_t){"b", 1}), 3); /* the last one */
    assert_int_equal(lrd_squad_ids_find(&ids, (lrd_text_t){"a", 1}), 1);
    assert_int_equal(lrd_squad_ids_find(&ids, (lrd_text_t){"a\0", 2}), 4);
    assert_int_equal(lrd_squad_ids_find(&ids, (lrd_text_t){"", 0}), 2);
    assert_true(lrd_squad_ids_find(&ids, (lrd_text_t){"aa", 2}) == LRD_SQUAD_NO_QUESTION);
    assert_true(lrd_squad_ids_find(&ids, (lrd_text_t){"c", 1}) == LRD_SQUAD_NO_QUESTION);
    lrd_squad_ids_release(&ids);
    assert_ok(lrd_squad_ids_create(data, 0, &ids));
    assert_true(lrd_squad_ids_find(&ids, (lrd_text_t){"", 0}) == LRD_SQUAD_NO_QUESTION);
    lrd_squad_ids_release(&ids);
    lrd_squad_free(data);
}

static void test_predictions(void **state)
{
    lrd_squad_t *data = questions(four);
    lrd_squad_predictions_t p = {0};
    assert_ok(parse(data, "{\"x\":7,\"a\":\"\",\"b\":\"B\\u00e9\",\"\":\"\\u0000\"}", &p));
    assert_prediction(&p, 0, "B\u00e9");
    assert_prediction(&p, 1, "");
    assert_int_equal(p.text[2].bytes, 1);
    assert_prediction(&p, 3, "B\u00e9");
    assert_prediction(&p, 4, NULL);
    assert_int_equal(p.n_missing, 1);
    lrd_squad_predictions_release(&p);
    assert_ok(parse(data, "{}", &p));
    assert_int_equal(p.n_missing, 5);
    lrd_squad_predictions_release(&p);
    lrd_squad_predictions_release(&p); /* {0} is fine */
    lrd_squad_free(data);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "P.json is empty, expected JSON"},
        {"[]", "P.json is a list, expected an object {\"id\": "},
        {"\"a\"", "P.json is a string, expected an object"},
        {"{\"a\":", "P.json: not valid JSON: "},
        {"{} {}", "P.json: not valid JSON: "},
        {"{\"a\":\"x\",\"a\":\"y\"}", "P.json: not valid JSON: duplicate object key"},
        {"{\"a\":\"\xff\"}", "P.json: not valid JSON: "},
        {"{\"a\":\"\\ud800\"}", "P.json: not valid JSON: "},
        {"{\"a\":null}", "P.json: the prediction for \"a\" is null, expected a string"},
        {"{\"b\":\"x\",\"a\":[\"x\"]}",
         "P.json: the prediction for \"a\" is a list, expected a string"},
        {"{\"\":3}", "P.json: the prediction for \"\" is a number, expected a string"},
    };
    lrd_squad_t *data = questions(four);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lrd_squad_predictions_t p = {.n_missing = 77};
        assert_fails(parse(data, bad[i].text, &p), LRD_ERR_FORMAT, bad[i].message);
        assert_int_equal(p.n_missing, 77);
    }
    lrd_squad_predictions_t p;
    assert_fails(lrd_squad_predictions_read(lrd_test_temporary("absent"), data, &p), LRD_ERR_IO,
                 "absent");
    lrd_squad_free(data);
}

static lrd_status_t parse_probs(const lrd_squad_t *data, const char *text,
                                lrd_squad_na_prob_t **prob, size_t *n)
{
    return lrd_squad_na_probs_parse(text, strlen(text), "N.json", data, prob, n);
}

static const char two[] = "{\"data\":[{\"paragraphs\":[{\"context\":\"c\",\"qas\":["
                          "{\"id\":\"b\",\"question\":\"q\",\"answers\":[]},"
                          "{\"id\":\"a\",\"question\":\"q\",\"answers\":[{\"text\":\"x\"}]}]}]}]}";

static void test_probs(void **state)
{
    lrd_squad_t *data = questions(two);
    lrd_squad_na_prob_t *prob = NULL;
    size_t n = 0;
    assert_ok(parse_probs(data, "{\"a\":1,\"x\":\"x\",\"b\":-1e-5}", &prob, &n));
    assert_int_equal(n, 2); /* in the order of the file */
    assert_int_equal(prob[0].question, 1);
    assert_true(prob[0].value == 1.0 && prob[0].is_integer);
    assert_int_equal(prob[1].question, 0);
    assert_true(prob[1].value == -1e-5 && !prob[1].is_integer);
    lrd_free(prob);
    assert_ok(parse_probs(data, "{\"a\":9007199254740992,\"b\":-9007199254740992}", &prob, &n));
    lrd_free(prob);
    lrd_squad_free(data);
}

static void test_probs_refused(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "N.json is empty"},
        {"7", "N.json is a number, expected an object"},
        {"{\"a\":NaN,\"b\":0}", "N.json: not valid JSON: "},
        {"{\"a\":1e999,\"b\":0}", "N.json: not valid JSON: "},
        {"{\"a\":99999999999999999999,\"b\":0}", "N.json: not valid JSON: "},
        {"{\"a\":\"0.5\",\"b\":0}",
         "N.json: the probability for \"a\" is a string, expected a number"},
        {"{\"a\":true,\"b\":0}",
         "N.json: the probability for \"a\" is true or false, expected a number"},
        {"{\"b\":9007199254740993,\"a\":0}",
         "N.json: the probability for \"b\" is out of range: 9007199254740993"},
        {"{\"b\":0}", "N.json: no probability for 1 of 2 questions, the first is dev.json: "
                      "data[0].paragraphs[0].qas[1] (id a)"},
        {"{}", "for 2 of 2 questions, the first is dev.json: data[0].paragraphs[0].qas[0] (id b)"},
    };
    lrd_squad_t *data = questions(two);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        lrd_squad_na_prob_t *prob = NULL;
        size_t n = 77;
        assert_fails(parse_probs(data, bad[i].text, &prob, &n), LRD_ERR_FORMAT, bad[i].message);
        assert_null(prob);
        assert_int_equal(n, 77);
    }
    lrd_squad_na_prob_t *prob;
    size_t n;
    assert_fails(lrd_squad_na_probs_read(lrd_test_golden("squad_score"), data, &prob, &n),
                 LRD_ERR_IO, "is a folder");
    lrd_squad_free(data);
}

/* Reads and scores once; the status is the exit code. */
static int run_once(void)
{
    lrd_squad_t *data = NULL;
    lrd_squad_predictions_t p = {0};
    lrd_squad_na_prob_t *prob = NULL;
    size_t n = 0;
    lrd_squad_metrics_t m;
    static const char said[] = "{\"a\":\"x\"}", probs[] = "{\"a\":0,\"b\":1}";
    lrd_mem_adopt_json();
    lrd_status_t status = lrd_squad_parse(two, strlen(two), "dev.json", &data);
    if (status == LRD_OK)
        status = lrd_squad_predictions_parse(said, strlen(said), "P.json", data, &p);
    if (status == LRD_OK)
        status = lrd_squad_na_probs_parse(probs, strlen(probs), "N.json", data, &prob, &n);
    if (status == LRD_OK)
        status = lrd_squad_score(data, &(lrd_squad_answers_t){p.text, 2, prob, n, 1.0}, &m);
    lrd_free(prob);
    lrd_squad_predictions_release(&p);
    lrd_squad_free(data);
    return status;
}

/* A process in which the n-th allocation fails. */
static int run_failing(int n)
{
    return lrd_test_with_failure(n, (const char *[]){"test_squad_predictions", "--once", NULL});
}

static void test_no_memory(void **state)
{
    int n = 1, result;
    while ((result = run_failing(n)) != LRD_OK) {
        if (result != LRD_ERR_NO_MEMORY)
            fail_msg("allocation %d failing: status %d", n, result);
        n++;
    }
    assert_true(n > 50);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return run_once();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),           cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_probs),
        cmocka_unit_test(test_probs_refused), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
