/* report/page.h -- the parts of a report, in the order in which they stand. */
#ifndef LRD_REPORT_PAGE_H
#define LRD_REPORT_PAGE_H

#include "report/facts.h"
#include "report/html.h"

extern const char lrd_page_style[], lrd_page_script[]; /* page.css, page.js */

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

/* A value of JSON as it would stand in a settings file. */
lrd_status_t lrd_page_value(const json_t *value, lrd_html_t *h);

#endif /* LRD_REPORT_PAGE_H */
