#include "infer/squad_examples.h"

#include "base/mem.h"

typedef struct score {
    double exact, f1;
} score_t;

static void write_text(lrd_json_writer_t *w, const char *key, lrd_text_t text)
{
    lrd_json_key(w, key);
    lrd_json_bytes(w, text.data != NULL ? text.data : "", text.bytes);
}

static void write_example(const lrd_squad_t *data, const lrd_squad_answers_t *a, size_t i,
                          score_t score, lrd_json_writer_t *w)
{
    const lrd_squad_question_t *q = lrd_squad_question(data, i);
    lrd_json_open(w, '{');
    write_text(w, "id", q->id);
    write_text(w, "question", q->question);
    write_text(w, "prediction", a->text[i]);
    lrd_json_key(w, "answers");
    lrd_json_open(w, '[');
    for (size_t k = 0; k < q->n_answers; k++) {
        const lrd_text_t answer = lrd_squad_answer(data, i, k);
        lrd_json_bytes(w, answer.data, answer.bytes);
    }
    lrd_json_close(w, ']');
    lrd_json_key(w, "exact");
    lrd_json_real(w, score.exact);
    lrd_json_key(w, "f1");
    lrd_json_real(w, score.f1);
    lrd_json_close(w, '}');
}

/* Is the k-th of n things one of those that stand for all? */
static bool is_taken(size_t k, size_t n)
{
    const size_t most = LRD_SQUAD_EXAMPLES;
    return n <= most || k == 0 || k * most / n != (k - 1) * most / n;
}

static lrd_status_t score_all(const lrd_squad_t *data, const lrd_squad_answers_t *a, score_t *score)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_scorer_t scorer = {0};
    for (size_t i = 0; i < a->n_questions; i++)
        LRD_TRY(
            lrd_squad_score_question(&scorer, data, i, a->text[i], &score[i].exact, &score[i].f1));
out:
    lrd_squad_scorer_release(&scorer);
    return status;
}

lrd_status_t lrd_squad_examples_write(const lrd_squad_t *data, const lrd_squad_answers_t *a,
                                      lrd_json_writer_t *w)
{
    lrd_status_t status = LRD_OK;
    score_t *score = NULL;
    size_t n[2] = {0, 0}, seen[2] = {0, 0}; /* wrong ones, right ones */
    LRD_NEW(score, a->n_questions);
    LRD_TRY(score_all(data, a, score));
    for (size_t i = 0; i < a->n_questions; i++)
        n[score[i].exact == 1]++;
    lrd_json_open(w, '[');
    for (size_t i = 0; i < a->n_questions; i++) {
        const bool right = score[i].exact == 1;
        if (is_taken(seen[right]++, n[right]))
            write_example(data, a, i, score[i], w);
    }
    lrd_json_close(w, ']');
    status = lrd_json_writer_status(w);
out:
    lrd_free(score);
    return status;
}
