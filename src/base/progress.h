/* base/progress.h -- a progress bar on a terminal, a plain line now and then elsewhere.
 *
 *   Tokenizing  43% |#########            |  56012/130319 records  8412/s  0:09 left
 *
 * Prints through base/log.h, on rank 0 only. On a terminal the bar is one transient line, drawn at
 * most ten times a second; elsewhere a line is logged every ten seconds and at the end, so that
 * batch logs stay short.
 */
#ifndef LRD_BASE_PROGRESS_H
#define LRD_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_progress {
    const char *what; /* "Tokenizing": borrowed */
    const char *unit; /* "records": borrowed */
    int64_t total;    /* 0: unknown */
    int64_t start;    /* where this run took up the work: the rate counts from there */
    double begun, drawn;
    bool quiet; /* log nothing elsewhere than on a terminal: the caller logs its own lines */
} lrd_progress_t;

void lrd_progress_begin(lrd_progress_t *p, const char *what, const char *unit, int64_t start,
                        int64_t total);
/* Also a sign of progress (base/beat.h). `note` (may be NULL) stands at the end of the line: "loss 2.134 lr 4.5e-05". */
void lrd_progress_update(lrd_progress_t *p, int64_t done, const char *note);
/* Removes the bar; logs a closing line unless quiet. */
void lrd_progress_end(lrd_progress_t *p, int64_t done);

/* "1:02:03" or "2:03" into text[24]. */
void lrd_format_duration(double seconds, char text[24]);

#endif /* LRD_BASE_PROGRESS_H */
