/* base/beat.h -- signs of progress.
 *
 * Whatever may take long (an op, a piece of a file, a row of a data set) says so now and then; a
 * rank that has been silent for parallel.timeout_seconds, while others wait for it, ends the run
 * (comm/watch.h). Any thread may call these; an atomic increment.
 */
#ifndef LRD_BASE_BEAT_H
#define LRD_BASE_BEAT_H

#include <stdint.h>

void lrd_beat(void);

/* Beats so far, and pages that had to be read from disk: a mapped file that comes in slowly is
 * progress too. */
uint64_t lrd_beats(void);

#endif /* LRD_BASE_BEAT_H */
