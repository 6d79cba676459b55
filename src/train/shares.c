#include "train/shares.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/share.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What other shares must save of an update to be worth a change, and in which part of the updates of a window. */
static const double least_gain = 0.05, most_updates = 0.8;
/* From where on it is said that a replica is slower and too few micro-batches are there to make up for it: it takes so
 * many times as long as the fastest, and an update so many times as long as if work could be cut anywhere. */
static const double much_slower = 1.25, much_longer = 1.2;

bool lrd_shares_move(const lrd_parallel_settings_t *settings, int n_replicas)
{
    return n_replicas > 1 && settings->shares == LRD_SHARES_AUTO &&
           settings->reduction == LRD_REDUCTION_REPRODUCIBLE;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t lrd_shares_most(int64_t n, int n_replicas, bool moves)
{
    const int64_t even = (n + n_replicas - 1) / n_replicas;
    return moves && n >= n_replicas ? smaller(2 * even, n - n_replicas + 1) : even;
}

lrd_status_t lrd_shares_open(int n_replicas, double fill, bool moves, lrd_shares_t *shares_out)
{
    lrd_status_t status = LRD_OK;
    lrd_shares_t s = {
        .n_replicas = n_replicas, .moves = moves, .fill = fill, .n_window = LRD_SHARES_WINDOW};
    LRD_NEW(s.adopted, n_replicas);
    LRD_NEW(s.last, n_replicas);
    LRD_NEW(s.window, LRD_SHARES_LONGEST * n_replicas);
    LRD_NEW(s.begin, n_replicas + 1);
    LRD_NEW(s.best, n_replicas + 1);
    *shares_out = s;
    s = (lrd_shares_t){0};
out:
    lrd_shares_close(&s);
    return status;
}

void lrd_shares_close(lrd_shares_t *s)
{
    lrd_free(s->best);
    lrd_free(s->begin);
    lrd_free(s->window);
    lrd_free(s->last);
    lrd_free(s->adopted);
    *s = (lrd_shares_t){0};
}

/* Each micro-batch goes to the replica that would be done with it first: nobody can be done sooner with as many,
 * since every other choice is later. */
void lrd_shares_split(int64_t n, const double *pace, int n_replicas, double fill,
                      int64_t *begin_out)
{
    const int64_t most = lrd_shares_most(n, n_replicas, true);
    int64_t *share = begin_out + 1;
    for (int r = 0; r <= n_replicas; r++)
        begin_out[r] = lrd_share_begin(n, r, n_replicas);
    if (pace == NULL || n < n_replicas)
        return;
    for (int r = 0; r < n_replicas; r++)
        share[r] = 1;
    for (int64_t left = n - n_replicas; left > 0; left--) {
        int first = -1;
        for (int r = 0; r < n_replicas; r++) {
            const double done = ((double)share[r] + 1 + fill) * pace[r];
            if (share[r] < most &&
                (first < 0 || done < ((double)share[first] + 1 + fill) * pace[first]))
                first = r;
        }
        share[first]++;
    }
    for (int r = 0; r < n_replicas; r++)
        begin_out[r + 1] += begin_out[r];
}

double lrd_shares_end(const int64_t *begin, const double *pace, int n_replicas, double fill)
{
    double end = 0;
    for (int r = 0; r < n_replicas; r++) {
        const int64_t share = begin[r + 1] - begin[r];
        end = fmax(end, share > 0 ? ((double)share + fill) * pace[r] : 0);
    }
    return end;
}

const int64_t *lrd_shares_of(lrd_shares_t *s, int64_t n)
{
    lrd_shares_split(n, s->pace, s->n_replicas, s->fill, s->begin);
    return s->begin;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What is in the way of one update, a page that was read or another program, moves nothing. */
static void find_medians(lrd_shares_t *s)
{
    for (int r = 0; r < s->n_replicas; r++) {
        double pace[LRD_SHARES_LONGEST];
        for (int i = 0; i < s->n_window; i++)
            pace[i] = s->window[i * s->n_replicas + r];
        qsort(pace, (size_t)s->n_window, sizeof pace[0], ascending);
        s->last[r] = pace[s->n_window / 2];
    }
}

/* "5 5 5 3", as far as there is room. */
static void print_shares(const int64_t *begin, int n, char text[128])
{
    size_t at = 0;
    text[0] = '\0';
    for (int r = 0; r < n; r++) {
        if (at > 100) {
            snprintf(text + at, 128 - at, " ...");
            return;
        }
        at += (size_t)snprintf(text + at, 128 - at, "%s%lld", r > 0 ? " " : "",
                               (long long)(begin[r + 1] - begin[r]));
    }
}

static void find_extremes(const double *pace, int n, int *fastest_out, int *slowest_out)
{
    *fastest_out = *slowest_out = 0;
    for (int r = 1; r < n; r++) {
        *fastest_out = pace[r] < pace[*fastest_out] ? r : *fastest_out;
        *slowest_out = pace[r] > pace[*slowest_out] ? r : *slowest_out;
    }
}

/* Once: what would help where the best shares, with which an update ends so late, do not. */
static void advise(lrd_shares_t *s, double end)
{
    int fastest, slowest;
    double speed = 0;
    find_extremes(s->last, s->n_replicas, &fastest, &slowest);
    for (int r = 0; r < s->n_replicas; r++)
        speed += 1 / s->last[r];
    const double least = ((double)s->n_most + s->n_replicas * s->fill) / speed;
    const double ratio = s->last[slowest] / s->last[fastest];
    if (s->advised || ratio < much_slower || end < much_longer * least)
        return;
    s->advised = true;
    lrd_info("Replica %d takes %.2f times as long as replica %d, and an update has only %lld "
             "micro-batches to share out: it takes %.0f %% longer than it would with many. "
             "training.max_tokens_per_micro_batch makes more, and leaves the update as large",
             slowest, ratio, fastest, (long long)s->n_most, 100 * (end / least - 1));
}

/* Other shares save enough of an update of these paces. */
static bool gains(const lrd_shares_t *s, const double *pace)
{
    const double end = lrd_shares_end(s->best, pace, s->n_replicas, s->fill);
    return end < (1 - least_gain) * lrd_shares_end(s->begin, pace, s->n_replicas, s->fill);
}

/* ... and of most of those of the window: speeds that come and go would win in some and lose in others. */
static bool gain_mostly(const lrd_shares_t *s)
{
    int n = 0;
    for (int i = 0; i < s->n_window; i++)
        n += gains(s, s->window + i * s->n_replicas);
    return gains(s, s->last) && n >= most_updates * s->n_window;
}

/* Takes other shares if they are worth it. */
static bool decide(lrd_shares_t *s)
{
    int fastest, slowest;
    char text[128];
    const int n = s->n_replicas;
    lrd_shares_split(s->n_most, s->pace, n, s->fill, s->begin);
    lrd_shares_split(s->n_most, s->last, n, s->fill, s->best);
    const double now = lrd_shares_end(s->begin, s->last, n, s->fill);
    const double end = lrd_shares_end(s->best, s->last, n, s->fill);
    if (gain_mostly(s)) {
        s->n_window = (int)smaller(2 * s->n_window, LRD_SHARES_LONGEST);
        memcpy(s->adopted, s->last, (size_t)n * sizeof s->last[0]);
        s->pace = s->adopted;
        find_extremes(s->last, n, &fastest, &slowest);
        print_shares(s->best, n, text);
        lrd_info("Replica %d takes %.2f times as long as replica %d for as many tokens: of %lld "
                 "micro-batches of an update they compute %s from here on, in %.0f %% less time",
                 slowest, s->last[slowest] / s->last[fastest], fastest, (long long)s->n_most, text,
                 100 * (1 - end / now));
        return true;
    }
    advise(s, end);
    return false;
}

bool lrd_shares_learn(lrd_shares_t *s, int64_t n, const double *pace)
{
    for (int r = 0; r < s->n_replicas; r++) {
        if (!s->moves || pace[r] <= 0)
            return false;
    }
    if (!s->warm) {
        s->warm = true;
        return false;
    }
    memcpy(s->window + s->n_told * s->n_replicas, pace, (size_t)s->n_replicas * sizeof pace[0]);
    s->n_most = n > s->n_most ? n : s->n_most;
    if (++s->n_told < s->n_window)
        return false;
    find_medians(s);
    const bool changed = decide(s);
    s->n_told = 0;
    s->n_most = 0;
    return changed;
}
