/* Answers to a SQuAD file: the input is read as predictions, as probabilities, and as a text whose
 * normal form keeps the promises of infer/squad_text.h. */
#include "fuzz/fuzz_target.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "infer/squad_predictions.h"
#include "infer/squad_score.h"

#include <math.h>
#include <string.h>

static const char questions[] =
    "{\"data\":[{\"paragraphs\":[{\"context\":\"c\",\"qas\":["
    "{\"id\":\"a\",\"question\":\"q\",\"answers\":[{\"text\":\"the x y\"},{\"text\":\"\\u03a3\"}]},"
    "{\"id\":\"b\",\"question\":\"q\",\"answers\":[]},"
    "{\"id\":\"a\",\"question\":\"q\",\"answers\":[{\"text\":\"An.\"}]},"
    "{\"id\":\"c\",\"question\":\"q\",\"answers\":[{\"text\":\"x y z\"}]}]}]}]}";
enum { N_QUESTIONS = 4, N_IDS = 3 };

static void check_group(const lrd_squad_group_t *g, size_t total)
{
    FUZZ_CHECK(g->total == total);
    FUZZ_CHECK(g->exact >= 0 && g->exact <= g->f1 && g->f1 <= 100);
}

static void check_scores(const lrd_squad_t *data, const lrd_squad_answers_t *answers)
{
    lrd_squad_metrics_t m;
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf, .indent = 2};
    FUZZ_CHECK(lrd_squad_score(data, answers, &m) == LRD_OK);
    check_group(&m.all, N_IDS);
    check_group(&m.has_answer, 2);
    check_group(&m.no_answer, 1);
    FUZZ_CHECK(m.has_best == (answers->na_prob != NULL));
    if (m.has_best) {
        FUZZ_CHECK(m.best_exact.score >= 100.0 / N_IDS && m.best_exact.score <= m.best_f1.score);
        FUZZ_CHECK(m.best_f1.score <= 100 && isfinite(m.best_f1.thresh));
    }
    lrd_squad_metrics_write(&m, &w);
    FUZZ_CHECK(lrd_json_writer_status(&w) == LRD_OK);
    lrd_buf_release(&buf);
}

/* As predictions, and as one prediction for all questions. */
static void read_predictions(const lrd_squad_t *data, const char *text, size_t size)
{
    lrd_squad_predictions_t p = {0};
    lrd_text_t all[N_QUESTIONS];
    for (int i = 0; i < N_QUESTIONS; i++)
        all[i] = (lrd_text_t){text, size};
    check_scores(data, &(lrd_squad_answers_t){all, N_QUESTIONS, NULL, 0, 1.0});
    if (lrd_squad_predictions_parse(text, size, "fuzz", data, &p) == LRD_OK) {
        FUZZ_CHECK(p.n_missing <= N_QUESTIONS);
        check_scores(data, &(lrd_squad_answers_t){p.text, N_QUESTIONS, NULL, 0, 1.0});
    }
    FUZZ_CHECK((p.text != NULL) == (p.root != NULL));
    lrd_squad_predictions_release(&p);
}

static void read_probs(const lrd_squad_t *data, const char *text, size_t size)
{
    const lrd_text_t said[N_QUESTIONS] = {{"x", 1}, {"x", 1}, {NULL, 0}, {"z x", 3}};
    lrd_squad_na_prob_t *prob = NULL;
    size_t n = 0;
    if (lrd_squad_na_probs_parse(text, size, "fuzz", data, &prob, &n) == LRD_OK) {
        FUZZ_CHECK(n == N_IDS);
        check_scores(data, &(lrd_squad_answers_t){said, N_QUESTIONS, prob, n, 0.5});
    }
    lrd_free(prob);
}

/* UTF-8 without capitals and punctuation of ASCII, single spaces, no article between two; and the
 * normal form of a normal form is itself. */
static void check_normal(const char *text, size_t size)
{
    lrd_buf_t normal = {0}, again = {0};
    lrd_squad_tokens_t tokens = {0};
    FUZZ_CHECK(lrd_squad_normalize((lrd_text_t){text, size}, &normal) == LRD_OK);
    FUZZ_CHECK(normal.size <= 3 * size);
    for (size_t at = 0; at < normal.size;) {
        int32_t code;
        at += lrd_utf8_next(normal.data + at, normal.size - at, &code);
        FUZZ_CHECK(code >= 0 && (code >= 0x80 || code <= ' ' || code == 0x7f ||
                                 (code >= 'a' && code <= 'z') || (code >= '0' && code <= '9')));
    }
    FUZZ_CHECK(lrd_squad_normalize((lrd_text_t){normal.data, normal.size}, &again) == LRD_OK);
    FUZZ_CHECK(again.size == normal.size && memcmp(again.data, normal.data, normal.size) == 0);
    FUZZ_CHECK(lrd_squad_tokens_read(&tokens, &normal) == LRD_OK);
    size_t bytes = tokens.n > 0 ? tokens.n - 1 : 0;
    for (size_t i = 0; i < tokens.n; i++) {
        FUZZ_CHECK(tokens.token[i].bytes > 0);
        FUZZ_CHECK(tokens.token[i].bytes != 1 || tokens.token[i].data[0] != 'a');
        bytes += tokens.token[i].bytes;
    }
    FUZZ_CHECK(bytes == normal.size);
    FUZZ_CHECK(lrd_squad_tokens_common(&tokens, &tokens) == tokens.n);
    lrd_squad_tokens_release(&tokens);
    lrd_buf_release(&again);
    lrd_buf_release(&normal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static lrd_squad_t *squad;
    lrd_log_set_level(LRD_LOG_ERROR); /* no word on missing predictions */
    if (squad == NULL)
        FUZZ_CHECK(lrd_squad_parse(questions, strlen(questions), "fuzz", &squad) == LRD_OK);
    read_predictions(squad, (const char *)data, size);
    lrd_error_clear();
    read_probs(squad, (const char *)data, size);
    lrd_error_clear();
    check_normal((const char *)data, size);
    return 0;
}
