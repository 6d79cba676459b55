/* The SQuAD v2.0 metrics. Oracles: cases by hand; another program's numbers for hostile sets
 * (tests/golden/squad_score), to the last bit; a published result. */
#include "support/test_support.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "infer/squad_predictions.h"
#include "infer/squad_score.h"

#include <stdio.h>
#include <string.h>

static lrd_text_t text_of(const char *text)
{
    return (lrd_text_t){text, text != NULL ? strlen(text) : 0};
}

static const char *golden(const char *set, const char *suffix)
{
    char path[128];
    snprintf(path, sizeof path, "squad_score/%s%s", set, suffix);
    return lrd_test_golden(path);
}

/* One question with up to three golds, NULL from the first that there is not. */
static lrd_squad_t *question(const char *a, const char *b, const char *c)
{
    const char *gold[3] = {a, b, c};
    lrd_squad_t *data = NULL;
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf};
    assert_ok(lrd_buf_add_text(&buf, "{\"data\": [{\"paragraphs\": [{\"context\": \"c\", \"qas\": "
                                     "[{\"id\": \"1\", \"question\": \"q\", \"answers\": "));
    lrd_json_open(&w, '[');
    for (int i = 0; i < 3 && gold[i] != NULL; i++) {
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "text");
        lrd_json_text(&w, gold[i]);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    assert_ok(lrd_json_writer_status(&w));
    assert_ok(lrd_buf_add_text(&buf, "}]}]}]}"));
    assert_ok(lrd_squad_parse(buf.data, buf.size, "one.json", &data));
    lrd_buf_release(&buf);
    return data;
}

static void check_one(const char *a, const char *b, const char *c, const char *prediction,
                      double exact, double f1)
{
    lrd_squad_scorer_t scorer = {0};
    double have_exact, have_f1;
    lrd_squad_t *data = question(a, b, c);
    assert_ok(
        lrd_squad_score_question(&scorer, data, 0, text_of(prediction), &have_exact, &have_f1));
    if (have_exact != exact || have_f1 != f1)
        fail_msg("\"%s\": %.17g %.17g, expected %.17g %.17g", prediction, have_exact, have_f1,
                 exact, f1);
    lrd_squad_scorer_release(&scorer);
    lrd_squad_free(data);
}

static void test_one(void **state)
{
    check_one("Ada Trevose", NULL, NULL, "ada trevose!", 1, 1);
    check_one("Ada Trevose", NULL, NULL, "the keeper", 0, 0);
    check_one("Ada Trevose", NULL, NULL, "the keeper Ada", 0, 0.5);
    check_one("a b c", NULL, NULL, "b", 0, 2 * 1.0 * 0.5 / (1.0 + 0.5)); /* a is an article */
    check_one("x x y", NULL, NULL, "x z x x", 0, 2 * 0.5 * (2.0 / 3) / (0.5 + 2.0 / 3));
    check_one("b x", NULL, NULL, "x b", 0, 1); /* order counts for one only */
    check_one("x", NULL, NULL, "", 0, 0);
    /* the best gold, for each separately */
    check_one("x y z", "x", "y z", "y z", 1, 1);
    check_one("x y z", "w", NULL, "y z", 0, 2 * 1.0 * (2.0 / 3) / (1.0 + 2.0 / 3));
    /* no answer */
    check_one(NULL, NULL, NULL, "", 1, 1);
    check_one(NULL, NULL, NULL, "The, a!", 1, 1);
    check_one(NULL, NULL, NULL, NULL, 1, 1);
    check_one(NULL, NULL, NULL, "x", 0, 0);
    /* golds that have no tokens do not count, unless there is no other */
    check_one("the", "...", NULL, "", 1, 1);
    check_one("the", "...", NULL, "x", 0, 0);
    check_one("the", "x", NULL, "", 0, 0);
    check_one("", NULL, NULL, "an", 1, 1);
    /* beyond ASCII */
    check_one("\u039f\u0394\u039f\u03a3", NULL, NULL, "\u03bf\u03b4\u03bf\u03c2", 1, 1);
    check_one("\u039f\u0394\u039f\u03a3", NULL, NULL, "\u03bf\u03b4\u03bf\u03c3", 0, 0);
    check_one("\u0130x", NULL, NULL, "i\u0307X", 1, 1);
    check_one("2\u00a0\u2013\u20033", NULL, NULL, "2 \u2013 3", 1, 1);
}

typedef struct set {
    lrd_squad_t *data;
    lrd_squad_predictions_t predictions;
    lrd_squad_na_prob_t *na_prob;
    lrd_squad_answers_t answers;
} set_t;

static void open_set(set_t *s, const char *name, bool with_probs, double thresh)
{
    *s = (set_t){0};
    assert_ok(lrd_squad_read(golden(name, ".json"), &s->data));
    assert_ok(
        lrd_squad_predictions_read(golden(name, ".predictions.json"), s->data, &s->predictions));
    assert_int_equal(s->predictions.n_missing, 0);
    s->answers = (lrd_squad_answers_t){.text = s->predictions.text,
                                       .n_questions = lrd_squad_n_questions(s->data),
                                       .na_prob_thresh = thresh};
    if (with_probs)
        assert_ok(lrd_squad_na_probs_read(golden(name, ".na_probs.json"), s->data, &s->na_prob,
                                          &s->answers.n_na_probs));
    s->answers.na_prob = s->na_prob;
}

static void close_set(set_t *s)
{
    lrd_free(s->na_prob);
    lrd_squad_predictions_release(&s->predictions);
    lrd_squad_free(s->data);
}

/* With `indent` and `end` behind it, the metrics are what the file holds. */
static void check_printed(const set_t *s, const char *path, int indent, const char *end)
{
    lrd_squad_metrics_t metrics;
    lrd_buf_t have = {0}, want = {0};
    lrd_json_writer_t w = {.buf = &have, .indent = indent};
    assert_ok(lrd_squad_score(s->data, &s->answers, &metrics));
    lrd_squad_metrics_write(&metrics, &w);
    assert_ok(lrd_json_writer_status(&w));
    assert_ok(lrd_buf_add_text(&have, end));
    assert_ok(lrd_file_read(path, 1 << 20, &want));
    if (strcmp(have.data, want.data) != 0)
        fail_msg("%s: have\n%swant\n%s", path, have.data, want.data);
    lrd_buf_release(&have);
    lrd_buf_release(&want);
}

static void check_set(const char *name, const char *expected, bool with_probs, double thresh)
{
    set_t s;
    open_set(&s, name, with_probs, thresh);
    check_printed(&s, golden(name, expected), 2, "\n");
    close_set(&s);
}

static void test_sets(void **state)
{
    check_set("small", ".txt", false, LRD_SQUAD_NA_PROB_THRESH);
    check_set("small", ".na.txt", true, LRD_SQUAD_NA_PROB_THRESH);
    check_set("small", ".na_0.5.txt", true, 0.5);
    check_set("small", ".na_-1.txt", true, -1.0);
    check_set("small", ".none_-1.txt", false, -1.0);
    check_set("ties", ".na_0.4.txt", true, 0.4);
    check_set("hostile", ".txt", false, 1.0);
    check_set("answered", ".txt", false, 1.0);
    check_set("unanswerable", ".txt", false, 1.0);
    check_set("twice", ".txt", false, 1.0);
    check_set("twice", ".na.txt", true, 1.0);
    set_t s;
    open_set(&s, "small", true, 1.0);
    check_printed(&s, golden("small", ".na.line.json"), 0, "");
    close_set(&s);
}

/* Question by question; in `twice` the last of an id. */
static void check_scores(const char *name)
{
    set_t s;
    json_t *scores;
    lrd_squad_scorer_t scorer = {0};
    open_set(&s, name, false, 1.0);
    assert_ok(lrd_json_read(golden(name, ".scores.json"), 1 << 20, &scores));
    for (size_t i = 0; i < s.answers.n_questions; i++) {
        double exact, f1;
        const char *id = lrd_squad_question(s.data, i)->id.data;
        const json_t *want = json_object_get(scores, id);
        assert_ok(lrd_squad_score_question(&scorer, s.data, i, s.answers.text[i], &exact, &f1));
        if (exact != json_number_value(json_array_get(want, 0)) ||
            f1 != json_number_value(json_array_get(want, 1)))
            fail_msg("%s, %s: %.17g %.17g", name, id, exact, f1);
    }
    json_decref(scores);
    lrd_squad_scorer_release(&scorer);
    close_set(&s);
}

static void test_scores(void **state)
{
    check_scores("small");
    check_scores("ties");
    check_scores("hostile");
}

/* Arrays instead of files; the first questions of a file only; no prediction. */
static void test_arrays(void **state)
{
    set_t s;
    lrd_squad_metrics_t m;
    open_set(&s, "answered", false, 1.0); /* bell, rope */
    lrd_text_t text[2] = {text_of("the bell"), {NULL, 0}};
    s.answers.text = text;
    assert_ok(lrd_squad_score(s.data, &s.answers, &m));
    assert_int_equal(m.all.total, 2);
    assert_true(m.all.exact == 50.0 && m.all.f1 == 50.0);
    assert_int_equal(m.has_answer.total, 2);
    assert_int_equal(m.no_answer.total, 0);
    assert_false(m.has_best);
    s.answers.n_questions = 1;
    assert_ok(lrd_squad_score(s.data, &s.answers, &m));
    assert_int_equal(m.all.total, 1);
    assert_true(m.all.exact == 100.0);
    s.answers.n_questions = 0;
    m.all.total = 77;
    assert_fails(lrd_squad_score(s.data, &s.answers, &m), LRD_ERR_ARG, "no questions");
    assert_int_equal(m.all.total, 77);
    /* a question without a probability has 0 */
    const lrd_squad_na_prob_t prob = {.question = 0, .value = 0.75};
    s.answers = (lrd_squad_answers_t){text, 2, &prob, 1, 0.5};
    assert_ok(lrd_squad_score(s.data, &s.answers, &m));
    assert_true(m.all.exact == 0.0);
    assert_true(m.has_best && m.best_exact.score == 50.0 && m.best_exact.thresh == 0.75);
    /* those of questions that are not scored are passed over */
    const lrd_squad_na_prob_t probs[2] = {{.question = 1, .value = 2}, prob};
    s.answers = (lrd_squad_answers_t){text, 1, probs, 2, 1.0};
    assert_ok(lrd_squad_score(s.data, &s.answers, &m));
    assert_true(m.all.exact == 100.0 && m.best_f1.score == 100.0 && m.best_f1.thresh == 0.75);
    close_set(&s);
}

/* The threshold is strict, and an answerable question above it gets nothing. */
static void test_threshold(void **state)
{
    static const struct {
        double thresh, has_answer, no_answer;
    } cases[] = {{0.49, 0.0, 100.0}, {0.5, 100.0, 0.0}, {1e300, 100.0, 0.0}};
    lrd_squad_t *has = question("bell", NULL, NULL), *none = question(NULL, NULL, NULL);
    const lrd_text_t text = text_of("bell");
    const lrd_squad_na_prob_t prob = {.question = 0, .value = 0.5};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const lrd_squad_answers_t answers = {&text, 1, &prob, 1, cases[i].thresh};
        lrd_squad_metrics_t m;
        assert_ok(lrd_squad_score(has, &answers, &m));
        assert_true(m.has_answer.f1 == cases[i].has_answer);
        assert_true(m.best_f1.score == 100.0 && m.best_f1.thresh == 0.5);
        assert_ok(lrd_squad_score(none, &answers, &m));
        assert_true(m.no_answer.f1 == cases[i].no_answer);
        assert_true(m.best_f1.score == 100.0 && m.best_f1.thresh == 0.0);
    }
    lrd_squad_free(has);
    lrd_squad_free(none);
}

static void test_published(void **state)
{
    static const char expected[] = "{\"exact\": 78.74168280973637, \"f1\": 81.77528052374723, "
                                   "\"total\": 11873, \"HasAns_exact\": 74.10593792172739, "
                                   "\"HasAns_f1\": 80.18183293833508, \"HasAns_total\": 5928, "
                                   "\"NoAns_exact\": 83.36417157275021, "
                                   "\"NoAns_f1\": 83.36417157275021, \"NoAns_total\": 5945}";
    const char *data = lrd_test_shared("data/squad/dev-v2.0.json"),
               *predictions = lrd_test_shared("data/squad/predictions-BERT.json");
    if (data == NULL || predictions == NULL) {
        print_message("SKIPPED: SQuAD files are not beside the checkout\n");
        skip();
    }
    set_t s = {0};
    lrd_squad_metrics_t metrics;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text};
    assert_ok(lrd_squad_read(data, &s.data));
    assert_ok(lrd_squad_predictions_read(predictions, s.data, &s.predictions));
    assert_int_equal(s.predictions.n_missing, 0);
    s.answers = (lrd_squad_answers_t){.text = s.predictions.text,
                                      .n_questions = lrd_squad_n_questions(s.data),
                                      .na_prob_thresh = LRD_SQUAD_NA_PROB_THRESH};
    assert_ok(lrd_squad_score(s.data, &s.answers, &metrics));
    lrd_squad_metrics_write(&metrics, &w);
    assert_ok(lrd_json_writer_status(&w));
    assert_string_equal(text.data, expected);
    lrd_buf_release(&text);
    close_set(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),       cmocka_unit_test(test_sets),
        cmocka_unit_test(test_scores),    cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_threshold), cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
