/* report/report.h -- one page about one run or several: a self-contained HTML file. */
#ifndef LRD_REPORT_REPORT_H
#define LRD_REPORT_REPORT_H

#include "base/buf.h"

#include <stddef.h>

enum { LRD_REPORT_MOST_RUNS = 12 };

/* Appends the page about the runs in n folders. The same files give the same bytes. LRD_ERR_ARG: more than
 * LRD_REPORT_MOST_RUNS, a folder that is none, or one that holds nothing of a run; LRD_ERR_IO: one that cannot
 * be looked into. What else is wrong with a run stands on the page. */
lrd_status_t lrd_report_print(const char *const *folder, size_t n, lrd_buf_t *page);

#endif /* LRD_REPORT_REPORT_H */
