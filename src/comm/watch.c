#include "comm/watch.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/watch_link.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* What is asked of a rank before anyone has said how patient to be. */
static const double first_limit = 60;
/* The limit is when the rank is to be gone, not when its silence is noticed. */
static const double part_of_limit = 0.9;
/* How long the rank that ends the job may take before the others leave by themselves; and before
 * another one does so in its place. */
static const double grace_seconds = 2, turn_seconds = 5;

/* The rank at the other end of a connection: rank 0's are all others', theirs is rank 0. */
typedef struct peer {
    link_t link;
    uint64_t beats;
    bool waiting, stop;
    bool left;             /* in order: it is not missed */
    double silence, stall; /* seconds of this thread's life since a word, since progress */
} peer_t;

struct watch {
    lrd_comm_t *comm;
    peer_t *peer;        /* [n] */
    struct pollfd *poll; /* [n + 1], the last one wakes the thread */
    int n, wake;
    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock; /* of sending */
    atomic_int limit_ms;
    atomic_bool expects_progress, waiting, ending, closing;
    volatile sig_atomic_t *_Atomic stop;
    uint64_t beats; /* this rank's own, as seen last */
    double stall, idle;
};

static double limit_of(const watch_t *w)
{
    return atomic_load(&w->limit_ms) / 1000.0;
}

/* Seconds between two words: few enough that rank 0 is not kept busy by listening. */
static double tick_of(const watch_t *w)
{
    const double tick = 0.2 + w->n / 500.0, most = limit_of(w) / 20;
    return tick < most ? tick : most;
}

static bool wants_stop(const watch_t *w)
{
    const volatile sig_atomic_t *stop = atomic_load(&w->stop);
    return stop != NULL && *stop != 0;
}

static void send_all(watch_t *w, link_kind_t kind)
{
    const link_word_t word = {.kind = kind,
                              .rank = (uint32_t)w->comm->rank,
                              .beats = lrd_beats(),
                              .waiting = atomic_load(&w->waiting),
                              .stop = wants_stop(w)};
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->n; i++)
        link_send(&w->peer[i].link, &word);
    pthread_mutex_unlock(&w->lock);
}

/* Only the first cause counts: of this thread and the one that works. */
static bool claim_end(watch_t *w)
{
    return !atomic_exchange(&w->ending, true);
}

/* Says why, tells the others that it was said, and ends the job. */
static void end_job(watch_t *w, const char *cause)
{
    if (!claim_end(w))
        return;
    lrd_error("%s", cause);
    send_all(w, LINK_ENDING);
    w->comm->table->abort(w->comm, 1);
    w->comm->leave(1);
}

static void end_for(watch_t *w, int rank, const char *host, const char *what)
{
    char cause[512];
    if (w->comm->size == 1)
        snprintf(cause, sizeof cause, "%s", what);
    else
        snprintf(cause, sizeof cause, "rank %d (%s) %s; the job ends", rank, host, what);
    end_job(w, cause);
}

static void on_loss(watch_t *w, const peer_t *p)
{
    if (w->comm->rank > 1) /* rank 1 says it and ends the job, unless it is gone too */
        usleep((useconds_t)(turn_seconds * 1e6));
    end_for(w, p->link.rank, p->link.host,
            "is lost: it was killed (out of memory?) or has crashed, or its host is gone");
}

static void on_word(watch_t *w, peer_t *p, const link_word_t *word)
{
    p->silence = 0;
    switch (word->kind) {
    case LINK_BEAT:
        if (word->beats != p->beats || word->waiting)
            p->stall = 0;
        if (word->beats != p->beats || !word->waiting)
            w->idle = 0;
        p->beats = word->beats;
        p->waiting = word->waiting;
        p->stop = word->stop;
        break;
    case LINK_BYE:
        p->left = true;
        break;
    case LINK_ENDING: /* it has said why, and the launcher will end us soon */
        if (claim_end(w)) {
            if (w->comm->rank == 0)
                send_all(w, LINK_ENDING);
            usleep((useconds_t)(grace_seconds * 1e6));
            w->comm->leave(1);
        }
        break;
    case LINK_HELLO:
        break;
    }
}

/* Reads what has come. */
static void listen_to_all(watch_t *w)
{
    link_word_t word;
    for (int i = 0; i < w->n; i++) {
        peer_t *p = &w->peer[i];
        link_result_t result = LINK_NOTHING;
        while (p->link.fd >= 0 && (result = link_receive(&p->link, &word)) == LINK_WORD)
            on_word(w, p, &word);
        if (result != LINK_CLOSED)
            continue;
        link_close(&p->link);
        w->poll[i].fd = -1;
        if (!p->left && !atomic_load(&w->closing))
            on_loss(w, p);
    }
}

/* A request to stop goes from any rank to rank 0, and from there to all. */
static void spread_stop(watch_t *w)
{
    volatile sig_atomic_t *stop = atomic_load(&w->stop);
    for (int i = 0; i < w->n && stop != NULL; i++) {
        if (w->peer[i].stop)
            *stop = 1;
    }
}

/* This rank's own progress: rank 0 looks at everyone's, its own included. */
static void look_at_self(watch_t *w, double seconds)
{
    const uint64_t beats = lrd_beats();
    const bool waiting = atomic_load(&w->waiting);
    if (beats != w->beats || waiting)
        w->stall = 0;
    if (beats != w->beats || !waiting)
        w->idle = 0;
    w->beats = beats;
    w->stall += seconds;
    w->idle += seconds;
}

/* `seconds` have passed since the last look. */
static void judge(watch_t *w, double seconds)
{
    const double limit = part_of_limit * limit_of(w);
    const double patience = w->comm->rank > 1 ? limit + turn_seconds : limit; /* as in on_loss */
    char what[160];
    look_at_self(w, seconds);
    snprintf(what, sizeof what,
             "has not been heard of for %.3g seconds: it is stopped, or its host cannot be reached "
             "(parallel.timeout_seconds)",
             limit);
    for (int i = 0; i < w->n; i++) {
        peer_t *p = &w->peer[i];
        p->silence += seconds;
        p->stall += seconds;
        if (!p->left && p->silence > patience)
            end_for(w, p->link.rank, p->link.host, what);
    }
    if (w->comm->rank != 0 || !atomic_load(&w->expects_progress))
        return;
    snprintf(what, sizeof what,
             "has made no progress for %.3g seconds: something that it needs (a file?) does not "
             "answer (parallel.timeout_seconds)",
             limit);
    if (w->stall > limit)
        end_for(w, 0, w->comm->host, what);
    for (int i = 0; i < w->n; i++) {
        if (!w->peer[i].left && w->peer[i].stall > limit)
            end_for(w, w->peer[i].link.rank, w->peer[i].link.host, what);
    }
    if (w->comm->size > 1 && w->idle > limit)
        end_job(w, "all ranks have waited for each other until parallel.timeout_seconds: the "
                   "network between them has lost something; the job ends");
}

/* Says good-bye, and waits a moment for the others to do so: closing with unread words would take
 * the good-bye back. */
static void part(watch_t *w)
{
    const double begun = lrd_clock_seconds();
    bool open = true;
    send_all(w, LINK_BYE);
    for (int i = 0; i < w->n; i++)
        link_finish(&w->peer[i].link);
    w->poll[w->n].fd = -1;
    while (open && lrd_clock_seconds() - begun < grace_seconds) {
        open = false;
        listen_to_all(w);
        for (int i = 0; i < w->n; i++)
            open = open || w->peer[i].link.fd >= 0;
        if (open)
            poll(w->poll, (nfds_t)w->n, 50);
    }
}

static void *run(void *arg)
{
    watch_t *w = arg;
    double last = lrd_clock_seconds();
    while (!atomic_load(&w->closing)) {
        const double tick = tick_of(w);
        poll(w->poll, (nfds_t)w->n + 1, (int)(tick * 1000) + 1);
        listen_to_all(w);
        const double now = lrd_clock_seconds(), passed = now - last;
        if (passed < tick || atomic_load(&w->closing))
            continue;
        last = now;
        spread_stop(w);
        send_all(w, LINK_BEAT);
        if (!atomic_load(&w->ending))
            judge(w, passed < 2 * tick ? passed : 2 * tick);
    }
    part(w);
    return NULL;
}

static void destroy(watch_t *w)
{
    if (w == NULL)
        return;
    for (int i = 0; w->peer != NULL && i < w->n; i++)
        link_close(&w->peer[i].link);
    if (w->wake >= 0)
        close(w->wake);
    pthread_mutex_destroy(&w->lock);
    lrd_free(w->poll);
    lrd_free(w->peer);
    lrd_free(w);
}

/* Signals are for the thread that works. */
static lrd_status_t start_thread(watch_t *w)
{
    lrd_status_t status = LRD_OK;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    LRD_CHECK(rc == 0, LRD_ERR_NO_MEMORY, "cannot start the thread that watches the ranks: %s",
              strerror(rc));
    w->has_thread = true;
out:
    return status;
}

static lrd_status_t create(lrd_comm_t *comm, watch_t **watch_out)
{
    lrd_status_t status = LRD_OK;
    watch_t *w;
    LRD_NEW(w, 1);
    w->comm = comm;
    w->wake = -1;
    pthread_mutex_init(&w->lock, NULL);
    const int n = comm->rank == 0 ? comm->size - 1 : 1;
    LRD_NEW(w->peer, n);
    LRD_NEW(w->poll, n + 1);
    w->n = n;
    for (int i = 0; i < n; i++)
        w->peer[i].link.fd = -1;
    atomic_store(&w->limit_ms, (int)(first_limit * 1000));
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    LRD_CHECK(w->wake >= 0, LRD_ERR_IO, "no event descriptor");
    *watch_out = w;
    w = NULL;
out:
    destroy(w);
    return status;
}

/* Rank 0's: one connection from each of the others. */
static bool accept_all(watch_t *w, int listener, const link_invitation_t *invitation)
{
    for (int n = 0; n < w->n; n++) {
        link_t link;
        if (!link_accept(listener, invitation, &link))
            return false;
        if (link.rank < 1 || link.rank > w->n || w->peer[link.rank - 1].link.fd >= 0) {
            link_close(&link);
            return false;
        }
        w->peer[link.rank - 1].link = link;
    }
    return true;
}

/* Connections to all peers. Collective. */
static lrd_status_t connect_all(lrd_comm_t *comm, watch_t *w, bool *connected_out)
{
    lrd_status_t status = LRD_OK;
    link_invitation_t invitation = {.n_addresses = 0};
    int listener = -1;
    int64_t failed;
    if (comm->rank == 0 && w != NULL)
        link_listen(comm->local_size == comm->size, comm->size, comm->host, &listener, &invitation);
    LRD_TRY(comm->table->broadcast(comm, &invitation, sizeof invitation, 0));
    failed = w == NULL || (comm->rank != 0 &&
                           !link_connect(&invitation, comm->rank, comm->host, &w->peer[0].link));
    LRD_TRY(comm->table->max_i64(comm, &failed, 1));
    if (failed == 0 && comm->rank == 0 && w != NULL)
        failed = !accept_all(w, listener, &invitation);
    LRD_TRY(comm->table->max_i64(comm, &failed, 1));
    *connected_out = failed == 0;
out:
    if (listener >= 0)
        close(listener);
    return status;
}

lrd_status_t watch_open(lrd_comm_t *comm, watch_t **watch_out)
{
    lrd_status_t status = LRD_OK;
    watch_t *w = NULL;
    bool connected = true;
    lrd_status_t failed = create(comm, &w);
    if (comm->size == 1)
        LRD_TRY(failed);
    else
        LRD_TRY(connect_all(comm, w, &connected));
    if (connected && w != NULL) {
        for (int i = 0; i < w->n; i++)
            w->poll[i] = (struct pollfd){.fd = w->peer[i].link.fd, .events = POLLIN};
        w->poll[w->n] = (struct pollfd){.fd = w->wake, .events = POLLIN};
        if (comm->size > 1)
            failed = start_thread(w);
        *watch_out = w;
        w = NULL;
    } else if (comm->rank == 0 && failed == LRD_OK) {
        lrd_warn("The ranks cannot connect to rank 0 over TCP: only the launcher notices when one "
                 "of them dies or stops");
    }
    if (failed != LRD_OK)
        comm->joined = failed; /* the first lrd_agree tells the others */
out:
    destroy(w);
    return status;
}

void watch_close(watch_t *w)
{
    const uint64_t one = 1;
    if (w == NULL)
        return;
    atomic_store(&w->closing, true);
    if (w->has_thread) {
        if (write(w->wake, &one, sizeof one) == (ssize_t)sizeof one)
            pthread_join(w->thread, NULL);
        else
            return; /* cannot be: then it is better left to itself */
    }
    destroy(w);
}

lrd_status_t watch_limit(watch_t *w, double timeout_seconds)
{
    if (w == NULL)
        return LRD_OK;
    atomic_store(&w->limit_ms, (int)(timeout_seconds * 1000));
    lrd_beat();
    atomic_store(&w->expects_progress, true);
    return w->has_thread ? LRD_OK : start_thread(w);
}

void watch_share_stop(watch_t *w, volatile sig_atomic_t *stop)
{
    if (w != NULL)
        atomic_store(&w->stop, stop);
}

void watch_set_waiting(watch_t *w, bool waiting)
{
    lrd_beat();
    if (w != NULL)
        atomic_store(&w->waiting, waiting);
}

bool watch_announce_end(watch_t *w)
{
    if (w == NULL)
        return true;
    if (!claim_end(w))
        return false;
    send_all(w, LINK_ENDING);
    return true;
}
