#include "infer/squad_score.h"

#include "base/mem.h"
#include "infer/squad_ids.h"

#include <stdlib.h>
#include <string.h>

/* Of texts with tokens. The operations stand in the script's order. */
static double f1_of(const lrd_squad_tokens_t *gold, const lrd_squad_tokens_t *prediction)
{
    const size_t common = lrd_squad_tokens_common(gold, prediction);
    if (common == 0)
        return 0.0;
    const double precision = (double)common / (double)prediction->n;
    const double recall = (double)common / (double)gold->n;
    return 2 * precision * recall / (precision + recall);
}

lrd_status_t lrd_squad_score_question(lrd_squad_scorer_t *scorer, const lrd_squad_t *data, size_t i,
                                      lrd_text_t prediction, double *exact_out, double *f1_out)
{
    lrd_status_t status = LRD_OK;
    const size_t n_answers = lrd_squad_question(data, i)->n_answers;
    double exact = 0.0, f1 = 0.0;
    bool has_gold = false;
    LRD_TRY(lrd_squad_normalize(prediction, &scorer->prediction));
    LRD_TRY(lrd_squad_tokens_read(&scorer->prediction_tokens, &scorer->prediction));
    for (size_t k = 0; k < n_answers; k++) {
        LRD_TRY(lrd_squad_normalize(lrd_squad_answer(data, i, k), &scorer->gold));
        if (scorer->gold.size == 0)
            continue;
        has_gold = true;
        if (scorer->gold.size == scorer->prediction.size &&
            memcmp(scorer->gold.data, scorer->prediction.data, scorer->gold.size) == 0)
            exact = 1.0;
        LRD_TRY(lrd_squad_tokens_read(&scorer->gold_tokens, &scorer->gold));
        const double this_f1 = f1_of(&scorer->gold_tokens, &scorer->prediction_tokens);
        f1 = this_f1 > f1 ? this_f1 : f1;
    }
    if (!has_gold)
        exact = f1 = scorer->prediction.size == 0 ? 1.0 : 0.0;
    *exact_out = exact;
    *f1_out = f1;
out:
    return status;
}

void lrd_squad_scorer_release(lrd_squad_scorer_t *scorer)
{
    lrd_buf_release(&scorer->gold);
    lrd_buf_release(&scorer->prediction);
    lrd_squad_tokens_release(&scorer->gold_tokens);
    lrd_squad_tokens_release(&scorer->prediction_tokens);
}

/* What a question is worth. */
typedef struct points {
    bool counts, has_answer, has_prediction; /* counts: it is the last one of its id */
    double exact, f1;
} points_t;

typedef struct score {
    const lrd_squad_t *data;
    const lrd_squad_answers_t *answers;
    points_t *points;         /* [n_questions] */
    size_t *order, n_counted; /* the questions that count, in the order of the sums */
    size_t n_no_answer;       /* of these */
} score_t;

static lrd_status_t find_order(score_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_ids_t ids = {0};
    LRD_TRY(lrd_squad_ids_create(s->data, s->answers->n_questions, &ids));
    for (size_t i = 0; i < s->answers->n_questions; i++) {
        const size_t last = lrd_squad_ids_find(&ids, lrd_squad_question(s->data, i)->id);
        if (s->points[last].counts)
            continue;
        s->points[last].counts = true;
        s->order[s->n_counted++] = last;
    }
out:
    lrd_squad_ids_release(&ids);
    return status;
}

static lrd_status_t score_questions(score_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_scorer_t scorer = {0};
    for (size_t k = 0; k < s->n_counted; k++) {
        const size_t i = s->order[k];
        points_t *p = &s->points[i];
        p->has_answer = lrd_squad_question(s->data, i)->n_answers > 0;
        s->n_no_answer += !p->has_answer;
        p->has_prediction = s->answers->text[i].bytes > 0;
        LRD_TRY(
            lrd_squad_score_question(&scorer, s->data, i, s->answers->text[i], &p->exact, &p->f1));
    }
out:
    lrd_squad_scorer_release(&scorer);
    return status;
}

typedef struct by_prob {
    double value;
    size_t at; /* in lrd_squad_answers_t.na_prob */
} by_prob_t;

static int compare_probs(const void *a, const void *b)
{
    const by_prob_t *x = a, *y = b;
    const int order = (x->value > y->value) - (x->value < y->value);
    return order != 0 ? order : (x->at > y->at) - (x->at < y->at);
}

/* One more question, at least as probably without an answer as those before, counts as answered. */
static void add_to_best(double gain, const lrd_squad_na_prob_t *prob, double *current,
                        lrd_squad_best_t *best)
{
    *current += gain;
    if (*current > best->score)
        *best = (lrd_squad_best_t){*current, prob->value, prob->is_integer};
}

static lrd_status_t find_best(const score_t *s, lrd_squad_metrics_t *m)
{
    lrd_status_t status = LRD_OK;
    const size_t n = s->answers->n_na_probs;
    double exact = (double)s->n_no_answer, f1 = exact;
    by_prob_t *sorted = NULL;
    LRD_NEW(sorted, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = (by_prob_t){s->answers->na_prob[i].value, i};
    if (n > 1)
        qsort(sorted, n, sizeof *sorted, compare_probs);
    m->has_best = true;
    m->best_exact = m->best_f1 = (lrd_squad_best_t){.score = exact};
    for (size_t i = 0; i < n; i++) {
        const lrd_squad_na_prob_t *prob = &s->answers->na_prob[sorted[i].at];
        if (prob->question >= s->answers->n_questions || !s->points[prob->question].counts)
            continue;
        const points_t *p = &s->points[prob->question];
        const double otherwise = p->has_prediction ? -1.0 : 0.0;
        add_to_best(p->has_answer ? p->exact : otherwise, prob, &exact, &m->best_exact);
        add_to_best(p->has_answer ? p->f1 : otherwise, prob, &f1, &m->best_f1);
    }
    m->best_exact.score = 100.0 * m->best_exact.score / (double)s->n_counted;
    m->best_f1.score = 100.0 * m->best_f1.score / (double)s->n_counted;
out:
    lrd_free(sorted);
    return status;
}

/* Questions that are too probably without an answer count as answered so. */
static lrd_status_t apply_threshold(const score_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_squad_answers_t *a = s->answers;
    double *prob = NULL;
    LRD_NEW(prob, a->n_questions);
    for (size_t i = 0; a->na_prob != NULL && i < a->n_na_probs; i++) {
        if (a->na_prob[i].question < a->n_questions)
            prob[a->na_prob[i].question] = a->na_prob[i].value;
    }
    for (size_t i = 0; i < a->n_questions; i++) {
        points_t *p = &s->points[i];
        if (prob[i] > a->na_prob_thresh)
            p->exact = p->f1 = p->has_answer ? 0.0 : 1.0;
    }
out:
    lrd_free(prob);
    return status;
}

static void add_to_group(lrd_squad_group_t *group, const points_t *p)
{
    group->exact += p->exact;
    group->f1 += p->f1;
    group->total++;
}

static void finish_group(lrd_squad_group_t *group)
{
    if (group->total == 0)
        return;
    group->exact = 100.0 * group->exact / (double)group->total;
    group->f1 = 100.0 * group->f1 / (double)group->total;
}

lrd_status_t lrd_squad_score(const lrd_squad_t *data, const lrd_squad_answers_t *answers,
                             lrd_squad_metrics_t *metrics_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_metrics_t m = {0};
    score_t s = {.data = data, .answers = answers};
    LRD_CHECK(answers->n_questions > 0, LRD_ERR_ARG, "no questions to score");
    LRD_NEW(s.points, answers->n_questions);
    LRD_NEW(s.order, answers->n_questions);
    LRD_TRY(find_order(&s));
    LRD_TRY(score_questions(&s));
    if (answers->na_prob != NULL) /* from the scores as they are before the threshold */
        LRD_TRY(find_best(&s, &m));
    LRD_TRY(apply_threshold(&s));
    for (size_t k = 0; k < s.n_counted; k++) {
        const points_t *p = &s.points[s.order[k]];
        add_to_group(&m.all, p);
        add_to_group(p->has_answer ? &m.has_answer : &m.no_answer, p);
    }
    finish_group(&m.all);
    finish_group(&m.has_answer);
    finish_group(&m.no_answer);
    *metrics_out = m;
out:
    lrd_free(s.order);
    lrd_free(s.points);
    return status;
}

static void write_group(const lrd_squad_group_t *group, const char *const keys[3],
                        lrd_json_writer_t *w)
{
    if (group->total == 0)
        return;
    lrd_json_key(w, keys[0]);
    lrd_json_real(w, group->exact);
    lrd_json_key(w, keys[1]);
    lrd_json_real(w, group->f1);
    lrd_json_key(w, keys[2]);
    lrd_json_int(w, (int64_t)group->total);
}

static void write_best(const lrd_squad_best_t *best, const char *key, const char *thresh_key,
                       lrd_json_writer_t *w)
{
    lrd_json_key(w, key);
    lrd_json_real(w, best->score);
    lrd_json_key(w, thresh_key);
    if (best->thresh_is_integer)
        lrd_json_int(w, (int64_t)best->thresh);
    else
        lrd_json_real(w, best->thresh);
}

void lrd_squad_metrics_write(const lrd_squad_metrics_t *metrics, lrd_json_writer_t *w)
{
    static const char *const keys[3][3] = {{"exact", "f1", "total"},
                                           {"HasAns_exact", "HasAns_f1", "HasAns_total"},
                                           {"NoAns_exact", "NoAns_f1", "NoAns_total"}};
    lrd_json_open(w, '{');
    write_group(&metrics->all, keys[0], w);
    write_group(&metrics->has_answer, keys[1], w);
    write_group(&metrics->no_answer, keys[2], w);
    if (metrics->has_best) {
        write_best(&metrics->best_exact, "best_exact", "best_exact_thresh", w);
        write_best(&metrics->best_f1, "best_f1", "best_f1_thresh", w);
    }
    lrd_json_close(w, '}');
}
