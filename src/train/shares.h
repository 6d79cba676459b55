/* train/shares.h -- how many of an update's micro-batches each replica computes: as many as its speed lets it
 * finish while the others finish theirs.
 *
 * A share is a contiguous range, so that the reduction has the same bits whatever the shares are
 * (comm/tree.h). They are even at first. Behind each update all ranks are told what the replicas took. Where the
 * medians of a window of updates give other shares, with which four in five of these updates would have ended sooner,
 * those are taken from there on, and the next window is twice as long: what comes and goes moves less and
 * less. All ranks are told the same, and so come to the same shares. Nothing of it is kept: a run that goes on
 * begins with even shares again.
 */
#ifndef LRD_TRAIN_SHARES_H
#define LRD_TRAIN_SHARES_H

#include "base/settings.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Updates from one decision to the next, at first and at most. */
enum { LRD_SHARES_WINDOW = 5, LRD_SHARES_LONGEST = 80 };

typedef struct lrd_shares {
    int n_replicas;
    bool moves; /* false: they stay even */
    /* What a replica's stages take to fill and to empty, in micro-batches: docs/pipeline.md. */
    double fill;
    double *pace;           /* [n_replicas] what the shares follow; NULL: they are even */
    double *adopted, *last; /* [n_replicas] memory for it, and the medians of the last window */
    double *window;         /* [LRD_SHARES_LONGEST][n_replicas] */
    int n_told, n_window;   /* updates of the window that were told, and all */
    bool warm;              /* the first update of a process, which prepares much, is behind us */
    bool advised;
    int64_t n_most;        /* micro-batches of the window's largest update */
    int64_t *begin, *best; /* [n_replicas + 1] */
} lrd_shares_t;

/* Do they move with such settings? With a reduction that is not reproducible they would make results depend on
 * measurements. */
bool lrd_shares_move(const lrd_parallel_settings_t *settings, int n_replicas);

/* The most micro-batches that a replica may be given of an update of up to n: what a plan prepares memory for. */
int64_t lrd_shares_most(int64_t n, int n_replicas, bool moves);

lrd_status_t lrd_shares_open(int n_replicas, double fill, bool moves, lrd_shares_t *shares_out);
void lrd_shares_close(lrd_shares_t *shares); /* {0} is fine */

/* begin[n_replicas + 1] of an update of n micro-batches, replica r's being begin[r] .. begin[r + 1] - 1; valid
 * until the next call. */
const int64_t *lrd_shares_of(lrd_shares_t *shares, int64_t n);

/* What an update of n micro-batches took: pace[n_replicas], seconds of a replica for each of its tokens, the time to
 * fill and to empty its stages counted as tokens; 0: it had none. The same on all ranks. True: other shares from here on,
 * which the log tells: n_most, best, last. */
bool lrd_shares_learn(lrd_shares_t *shares, int64_t n, const double *pace);

/* Pure: shares of n micro-batches of which one takes pace[r] > 0 on replica r, fill more being added to each share,
 * so that the last replica is done as soon as can be where each has at least one, and at most lrd_shares_most. Fewer
 * micro-batches than replicas, or pace NULL: even shares (base/share.h). */
void lrd_shares_split(int64_t n, const double *pace, int n_replicas, double fill,
                      int64_t *begin_out);

/* ... and when the last one is done. */
double lrd_shares_end(const int64_t *begin, const double *pace, int n_replicas, double fill);

#endif /* LRD_TRAIN_SHARES_H */
