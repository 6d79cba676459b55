/* One rank of watch_test.sh, which starts several: rank 1 does what the first word says while the
 * others wait for it.
 *
 *   works SECONDS   says now and then that it makes progress
 *   hangs SECONDS   does not
 *   dies            is killed
 *   stops           is stopped
 *   asks            is asked to stop: this must reach all
 *   crosses         two ranks wait for each other
 *   ends            fails in a place where the others wait for it
 *
 * The time limit is LIMIT seconds, the second word. Exit code 0: all came to the end in order. */
#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"
#include "comm/comm.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

/* For so many seconds, with signs of progress or without. */
static void stay(double seconds, int works)
{
    const double begun = lrd_clock_seconds();
    while (lrd_clock_seconds() - begun < seconds) {
        usleep(20000);
        if (works)
            lrd_beat();
    }
}

static lrd_status_t act(lrd_comm_t *comm, const char *what, double seconds)
{
    if (strcmp(what, "works") == 0 || strcmp(what, "hangs") == 0)
        stay(seconds, what[0] == 'w');
    if (strcmp(what, "dies") == 0)
        raise(SIGKILL);
    if (strcmp(what, "stops") == 0)
        raise(SIGSTOP);
    if (strcmp(what, "asks") == 0)
        stop = 1;
    if (strcmp(what, "ends") == 0)
        return lrd_comm_abort(comm, lrd_fail(LRD_ERR_IO, __FILE__, __LINE__, "planted"));
    return LRD_OK;
}

int main(int argc, char **argv)
{
    lrd_status_t status = LRD_OK;
    lrd_comm_t *comm = NULL;
    char data = 0;
    if (argc < 3)
        return 2;
    const char *what = argv[1];
    const double limit = atof(argv[2]), seconds = argc > 3 ? atof(argv[3]) : 0;
    LRD_TRY(lrd_comm_open(_exit, &comm));
    const int rank = lrd_comm_rank(comm);
    lrd_comm_share_stop(comm, &stop);
    LRD_TRY(lrd_agree(comm, lrd_comm_limit_silence(comm, limit)));
    if (strcmp(what, "crosses") == 0 && rank < 2)
        LRD_TRY(lrd_comm_broadcast(comm, &data, 1, 1 - rank));
    if (rank == 1 || lrd_comm_size(comm) == 1)
        LRD_TRY(act(comm, what, seconds));
    if (strcmp(what, "asks") == 0) {
        const double begun = lrd_clock_seconds();
        while (stop == 0 && lrd_clock_seconds() - begun < limit)
            stay(0.02, 1);
        LRD_CHECK(stop != 0, LRD_ERR_INTERNAL, "rank %d was not asked to stop", rank);
    }
    LRD_TRY(lrd_agree(comm, LRD_OK));
out:
    if (status != LRD_OK)
        lrd_error("%s", lrd_error_text(status));
    lrd_comm_close(comm);
    return status != LRD_OK;
}
