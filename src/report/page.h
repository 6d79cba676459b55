/* report/page.h -- the parts of a report, in the order in which they stand. */
#ifndef LRD_REPORT_PAGE_H
#define LRD_REPORT_PAGE_H

#include "report/facts.h"
#include "report/html.h"

/* Head, style and script; then all the rest; then the end. */
void lrd_page_begin(lrd_html_t *h, const char *title);
void lrd_page_end(lrd_html_t *h);

/* One run: what it was and what came of it; its curves; answers; who computed; what is kept; all settings. */
lrd_status_t lrd_page_head(const lrd_facts_t *facts, lrd_html_t *h);
lrd_status_t lrd_page_curves(const lrd_facts_t *facts, lrd_html_t *h);
void lrd_page_answers(const lrd_facts_t *facts, lrd_html_t *h);
void lrd_page_machines(const lrd_facts_t *facts, lrd_html_t *h);
void lrd_page_kept(const lrd_facts_t *facts, lrd_html_t *h);
lrd_status_t lrd_page_settings(const lrd_facts_t *facts, lrd_html_t *h);
void lrd_page_remarks(const lrd_facts_t *facts, lrd_html_t *h);

/* Several runs side by side. */
lrd_status_t lrd_page_compare(const lrd_facts_t *facts, int n, lrd_html_t *h);

/* "finished", ... and what it says of the updates. */
const char *lrd_outcome_word(lrd_outcome_t outcome);
void lrd_page_outcome(const lrd_facts_t *facts, lrd_html_t *h);

/* Of the entries of a curve: the last, the smallest or the largest; false: it has none that is finite (last: none
 * at all). */
bool lrd_curve_last(const lrd_facts_t *facts, lrd_curve_t curve, double *value_out);
bool lrd_curve_best(const lrd_facts_t *facts, lrd_curve_t curve, bool largest, double *value_out,
                    double *step_out);

/* Tokens a second over all updates; share of the updates' time in which ranks waited, 0 .. 1; false: not known. */
bool lrd_token_rate(const lrd_facts_t *facts, double *rate_out);
bool lrd_waiting_share(const lrd_facts_t *facts, double *share_out);

/* The largest peak of a rank, in bytes. */
bool lrd_peak_bytes(const lrd_facts_t *facts, double *bytes_out);

/* Exact match and F1 of the last evaluation that answered: of a training, or of the file of predictions. */
bool lrd_last_answers(const lrd_facts_t *facts, double *exact_out, double *f1_out);

/* A value of JSON as it would stand in a settings file. */
lrd_status_t lrd_page_value(const json_t *value, lrd_html_t *h);

#endif /* LRD_REPORT_PAGE_H */
