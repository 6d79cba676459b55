/* report/results.h -- what of a run fits one number: for the headline, and to compare runs. */
#ifndef LRD_REPORT_RESULTS_H
#define LRD_REPORT_RESULTS_H

#include "report/facts.h"

/* Of the entries of a curve: the last, the smallest or the largest; false: it has none that is finite (last: none
 * at all). */
bool lrd_result_last(const lrd_facts_t *facts, lrd_curve_t curve, double *value_out);
bool lrd_result_best(const lrd_facts_t *facts, lrd_curve_t curve, bool largest, double *value_out,
                     double *step_out);

/* Tokens a second over all updates; share of the updates' time in which ranks waited, 0 .. 1; false: not known. */
bool lrd_result_token_rate(const lrd_facts_t *facts, double *rate_out);
bool lrd_result_waiting(const lrd_facts_t *facts, double *share_out);

/* The largest peak of a rank, in bytes. */
bool lrd_result_peak(const lrd_facts_t *facts, double *bytes_out);

/* Exact match and F1 of the last evaluation that answered: of a training, or of the file of predictions. */
bool lrd_result_answers(const lrd_facts_t *facts, double *exact_out, double *f1_out);

#endif /* LRD_REPORT_RESULTS_H */
