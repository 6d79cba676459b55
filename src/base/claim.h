/* base/claim.h -- a folder belongs to one run at a time.
 *
 * The run that writes to a folder keeps a file there, run.claim, which says who it is. It appears whole or not at all, and
 * of several runs that want it one gets it: link() and rename() are one step on the server also where folders are shared
 * by hosts (NFS, Lustre), which locks are not everywhere. Where a file system has no links, open() with O_EXCL is. A dead
 * claim is replaced by its heir, run.claim.heir.<hash of the claim>, which also only one process can be.
 *
 * A claim that a killed run has left does not stop the next one. On the same machine its process is looked for: when it
 * is gone, so is the claim. From elsewhere (another host, another container) nobody can look; but a run that lives
 * touches its claim all the time, and one that has not been touched for `silent_seconds`, while it was watched, is dead. No
 * two clocks have to agree for that; only a claim that is much older by the clock of its file system is not watched first.
 *
 * A run that was taken for dead (its machine was suspended, its network away) finds another's claim when it is back, and ends.
 */
#ifndef LRD_BASE_CLAIM_H
#define LRD_BASE_CLAIM_H

#include "base/status.h"
#include "base/stop.h"

#include <stdbool.h>

typedef struct lrd_claim lrd_claim_t;

/* After so many seconds without a sign from it a run counts as dead. */
enum { LRD_CLAIM_MOST_SILENT_SECONDS = 60 };

typedef struct lrd_claim_options {
    const char *folder;      /* an existing one */
    const char *host;        /* this one's name, for messages of others */
    double silent_seconds;   /* what is more than the constant above counts as that */
    double farewell_seconds; /* how long a process of this machine may take to end */
    const lrd_stop_t *stop;
} lrd_claim_options_t;

/* Takes the folder for this process, and keeps the claim alive by a thread. Logs what it waits for: a process of this machine, or
 * silent_seconds of one that cannot be looked at. LRD_ERR_CONFIG: another run lives there, with its host, process and
 * start. LRD_ERR_IO: the claim cannot be read or written. LRD_ERR_INTERRUPTED. */
lrd_status_t lrd_claim_take(const lrd_claim_options_t *options, lrd_claim_t **claim_out);

/* LRD_ERR_IO: another run has taken the folder over. NULL is fine. */
lrd_status_t lrd_claim_check(lrd_claim_t *claim);
/* The same as an answer, which changes no recorded error. */
bool lrd_claim_is_lost(const lrd_claim_t *claim);

/* Gives the folder back. NULL is fine. */
void lrd_claim_release(lrd_claim_t *claim);

#endif /* LRD_BASE_CLAIM_H */
