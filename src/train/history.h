/* train/history.h -- what a run has logged so far, as transformers
 * keeps it in trainer_state.json. */
#ifndef LRD_TRAIN_HISTORY_H
#define LRD_TRAIN_HISTORY_H

#include "base/buf.h"
#include "base/settings.h"
#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_history {
    json_t *log;         /* log_history: a list of objects, keys sorted */
    int64_t global_step; /* updates done, skipped ones included */
    double epoch;
    bool has_best;
    double best_metric;
    int64_t best_global_step;
    /* Losses since the last entry. */
    double loss_sum;
    int64_t loss_count;
} lrd_history_t;

/* An empty history. */
lrd_status_t lrd_history_create(lrd_history_t *history_out);
void lrd_history_release(lrd_history_t *history); /* {0} is fine */

/* An entry {epoch, grad_norm, learning_rate, loss, step}: the loss is the mean of those since the
 * last entry. *loss_out may be NULL. */
lrd_status_t lrd_history_log_step(lrd_history_t *history, double grad_norm, double learning_rate,
                                  double *loss_out);

/* What an evaluation found. */
typedef struct lrd_eval_result {
    double loss;
    bool has_answers; /* percentages of generated answers: */
    double exact, f1;
} lrd_eval_result_t;

/* An entry {epoch, eval_exact, eval_f1, eval_loss, step}; remembers the best one by this metric: the
 * smallest loss, the highest exact or f1. */
lrd_status_t lrd_history_log_eval(lrd_history_t *history, const lrd_eval_result_t *result,
                                  lrd_metric_t metric);

/* True when the log has an evaluation of this update. */
bool lrd_history_has_eval(const lrd_history_t *history, int64_t step);

/* What stands in trainer_state.json beside the history. */
typedef struct lrd_history_facts {
    const lrd_training_settings_t *training;
    int64_t max_steps, n_epochs;
} lrd_history_facts_t;

extern const char lrd_history_file[]; /* "trainer_state.json" */

/* Appends its content: indent 2, sorted keys, unrounded numbers. */
lrd_status_t lrd_history_print(const lrd_history_t *history, const lrd_history_facts_t *facts,
                               lrd_buf_t *buf);

/* Reads <folder>/trainer_state.json; losses since the last entry are lost
 * (the checkpoint keeps them). */
lrd_status_t lrd_history_read(const char *folder, lrd_history_t *history_out);

#endif /* LRD_TRAIN_HISTORY_H */
