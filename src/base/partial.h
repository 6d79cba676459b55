/* base/partial.h -- names of files that are not complete yet, and what killed processes leave of them.
 *
 * A file grows under a name of its writer's own and is renamed when it is complete. Whoever writes
 * there next removes what others have left, once nobody can be writing it any more:
 *
 *   its process is gone: the name tells which one it was, on which start of which machine. Only a
 *   process that sees the same processes can tell;
 *   of all others, nothing has been written to it for a day, by the clock of the file system: a
 *   writer adds to its file all the time.
 *
 * Neither needs locks, which file systems of clusters have or have not, nor clocks that agree.
 */
#ifndef LRD_BASE_PARTIAL_H
#define LRD_BASE_PARTIAL_H

#include "base/status.h"

#include <time.h>

/* "<path>.partial.<process>.<its start>.<machine>"; lrd_free it. */
lrd_status_t lrd_partial_name(const char *path, char **name_out);

/* Removes what is left of `path` alone, or of any file in a folder. What cannot be removed harms
 * nobody; it is left. Allocates nothing to speak of. */
void lrd_partial_tidy(const char *path);
void lrd_partial_tidy_folder(const char *folder);

/* What the clock of an open folder's file system says, which a new file shows; 0: it does not say. */
time_t lrd_partial_clock(int folder);

#endif /* LRD_BASE_PARTIAL_H */
