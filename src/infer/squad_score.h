/* infer/squad_score.h -- the official SQuAD v2.0 metrics: exact match and F1 of answers to the
 * questions of a file.
 *
 * The numbers are those of evaluate-v2.0.py, to the last bit: same order of operations, in doubles,
 * sums in the order of the questions. (Python 3.12 and later add more exactly in sum(), which can
 * change a last digit.) What is compared is infer/squad_text.h's normal form.
 *
 *   - A question has an answer if its list of answers is not empty; is_impossible says nothing.
 *   - Answers whose normal form is empty do not count as golds; where none is left, the empty answer
 *     is the only gold.
 *   - The best gold counts, for exact match and F1 separately.
 *   - Of several questions of one id the last one counts, in the place of the first: the script
 *     keeps them in a dict.
 *
 * One deviation: the script stops at a question without a prediction. Here it counts as answered
 * with the empty text; infer/squad_predictions.h says so in the log.
 */
#ifndef LRD_INFER_SQUAD_SCORE_H
#define LRD_INFER_SQUAD_SCORE_H

#include "base/json_writer.h"
#include "base/status.h"
#include "data/squad.h"
#include "infer/squad_text.h"

#include <stdbool.h>
#include <stddef.h>

#define LRD_SQUAD_NA_PROB_THRESH 1.0 /* the script's default */

/* How probable it is that a question has no answer. */
typedef struct lrd_squad_na_prob {
    size_t question;
    double value;    /* finite */
    bool is_integer; /* only matters for how a threshold is printed */
} lrd_squad_na_prob_t;

/* What is scored. Everything is borrowed. */
typedef struct lrd_squad_answers {
    const lrd_text_t
        *text;          /* [n_questions]: the answer to question i; data == NULL: there is none */
    size_t n_questions; /* the first ones of the file, at least 1 */
    const lrd_squad_na_prob_t *na_prob; /* NULL: none are known, all are 0 */
    size_t n_na_probs;     /* at most one for each question; the rest have 0, and those of questions
                          beyond the first n are passed over. Where two are equal, their order
                          matters for the best threshold: it is the file's */
    double na_prob_thresh; /* above it, a question counts as answered with "no answer" */
} lrd_squad_answers_t;

typedef struct lrd_squad_group {
    double exact, f1; /* percent; 0 where total is 0 */
    size_t total;     /* questions */
} lrd_squad_group_t;

typedef struct lrd_squad_best {
    double score, thresh; /* percent, and the threshold that gives it */
    bool thresh_is_integer;
} lrd_squad_best_t;

typedef struct lrd_squad_metrics {
    lrd_squad_group_t all, has_answer, no_answer;
    bool has_best; /* na_prob was given: */
    lrd_squad_best_t best_exact, best_f1;
} lrd_squad_metrics_t;

/* LRD_ERR_ARG: no question. Otherwise fails with LRD_ERR_NO_MEMORY only. */
lrd_status_t lrd_squad_score(const lrd_squad_t *data, const lrd_squad_answers_t *answers,
                             lrd_squad_metrics_t *metrics_out);

/* Writes the metrics as an object, as the script prints them: exact, f1, total; HasAns_exact,
 * HasAns_f1, HasAns_total and NoAns_... where there are such questions; best_exact,
 * best_exact_thresh, best_f1, best_f1_thresh where they are known. With the writer's indent 2 it is
 * what the script writes to standard output (but for the newline), with 0 what it writes to a file. */
void lrd_squad_metrics_write(const lrd_squad_metrics_t *metrics, lrd_json_writer_t *w);

/* One question at a time. Start from {0}; what it holds is reused. Not for several threads. */
typedef struct lrd_squad_scorer {
    lrd_buf_t gold, prediction;
    lrd_squad_tokens_t gold_tokens, prediction_tokens;
} lrd_squad_scorer_t;

/* Exact match (0 or 1) and F1 of an answer to question i, without regard to probabilities. */
lrd_status_t lrd_squad_score_question(lrd_squad_scorer_t *scorer, const lrd_squad_t *data, size_t i,
                                      lrd_text_t prediction, double *exact_out, double *f1_out);
void lrd_squad_scorer_release(lrd_squad_scorer_t *scorer);

#endif /* LRD_INFER_SQUAD_SCORE_H */
