#include "base/claim.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/partial.h"
#include "base/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    TEXT_BYTES = 1024,
    WHO_BYTES = 400,
    BEATS_PER_SILENCE = 6, /* so many touches may be late or lost */
    OLD = 10               /* times the silence: not watched first */
};
static const char file_name[] = "run.claim";
static const char heir_name[] = "run.claim.heir."; /* ... of what it replaces */
static const double look_seconds = 0.1;            /* from one look to the next */

/* ---- what a claim says ------------------------------------------------------------------------- */

/* A claim as it is found. */
typedef struct found {
    bool there;
    char text[TEXT_BYTES];
    struct timespec touched;
    lrd_process_t process;
    char who[WHO_BYTES]; /* for people */
    double silent_seconds;
} found_t;

struct lrd_claim {
    char *folder;
    char *path;     /* of the claim */
    char *own;      /* the claim under a name of this process's own, before it has its place */
    lrd_buf_t text; /* what the claim says */
    double silent_seconds, farewell_seconds;
    pthread_t thread;
    bool runs;
    pthread_mutex_t mutex; /* of `ends` */
    pthread_cond_t wake;
    bool ends;
    atomic_bool lost;
    found_t other; /* that has the place; set before `lost` */
};

static lrd_status_t write_text(lrd_claim_t *c, const char *host)
{
    lrd_status_t status = LRD_OK;
    const lrd_process_t self = lrd_process_self();
    lrd_json_writer_t w = {.buf = &c->text, .indent = 0};
    struct timespec now;
    struct tm tm;
    char date[24], started[64];
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &tm));
    snprintf(started, sizeof started, "%s.%06ldZ", date, now.tv_nsec / 1000);
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "host");
    lrd_json_text(&w, host);
    lrd_json_key(&w, "process");
    lrd_json_int(&w, self.number);
    lrd_json_key(&w, "process_start");
    lrd_json_int(&w, (int64_t)self.start);
    lrd_json_key(&w, "machine");
    lrd_json_text(&w, self.machine);
    lrd_json_key(&w, "started");
    lrd_json_text(&w, started);
    lrd_json_key(&w, "silent_seconds");
    lrd_json_real(&w, c->silent_seconds);
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(&c->text, "\n"));
    LRD_CHECK(c->text.size < TEXT_BYTES, LRD_ERR_CONFIG, "the name of this host is too long: %s",
              host);
out:
    return status;
}

static lrd_status_t parse(const char *path, found_t *f)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    int64_t start;
    const char *host, *machine, *started;
    LRD_TRY(lrd_json_parse(f->text, strlen(f->text), path, &json));
    LRD_TRY(lrd_json_get_text(json, path, "host", "?", &host));
    LRD_TRY(lrd_json_get_text(json, path, "machine", "", &machine));
    LRD_TRY(lrd_json_get_text(json, path, "started", "?", &started));
    LRD_TRY(lrd_json_get_int(json, path, "process", 0, 1, INT32_MAX, &f->process.number));
    LRD_TRY(lrd_json_get_int(json, path, "process_start", 0, 0, INT64_MAX, &start));
    LRD_TRY(lrd_json_get_real(json, path, "silent_seconds", 0, &f->silent_seconds));
    f->process.start = (uint64_t)start;
    snprintf(f->process.machine, sizeof f->process.machine, "%s", machine);
    snprintf(f->who, sizeof f->who, "process %lld on %.255s, started %.40s",
             (long long)f->process.number, host, started);
out:
    json_decref(json);
    return status;
}

/* One that says nothing sensible is somebody's all the same: of a process that cannot be looked at. */
static lrd_status_t understand(const lrd_claim_t *c, found_t *f)
{
    lrd_status_t status = parse(c->path, f);
    if (status == LRD_ERR_NO_MEMORY)
        return status;
    if (status != LRD_OK || f->process.number == 0) {
        lrd_error_clear();
        f->process = (lrd_process_t){.number = 0};
        snprintf(f->who, sizeof f->who, "a run that does not say who it is");
    }
    if (!(f->silent_seconds > 0 && f->silent_seconds <= LRD_CLAIM_MOST_SILENT_SECONDS))
        f->silent_seconds = c->silent_seconds;
    return LRD_OK;
}

/* What these return is 0 or an errno, and nothing is recorded: they also run beside the work, and after a failure that has been. */

static int read_all(int fd, char *text, size_t size)
{
    size_t n = 0;
    while (n < size) {
        const ssize_t got = read(fd, text + n, size - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    return 0;
}

/* Opening it asks the server anew, where one has cached what a file is like. */
static int read_claim(const char *path, found_t *f)
{
    struct stat s;
    *f = (found_t){.there = false};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ESTALE ? 0 : errno;
    int why = fstat(fd, &s) != 0 ? errno : read_all(fd, f->text, TEXT_BYTES - 1);
    close(fd);
    f->there = why == 0;
    if (f->there)
        f->touched = s.st_mtim;
    return why == ESTALE ? 0 : why;
}

/* ---- taking and giving up the place ------------------------------------------------------------ */

static int write_all(int fd, const char *text, size_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(fd, text, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        text += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int write_claim(const lrd_claim_t *c, const char *path, int flags)
{
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    if (fd < 0)
        return errno;
    int why = write_all(fd, c->text.data, c->text.size);
    if (close(fd) != 0 && why == 0)
        why = errno;
    if (why != 0)
        unlink(path);
    return why;
}

/* link() says so where it was done and the answer got lost, too. */
static bool is_linked(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && s.st_nlink > 1;
}

/* Gives what lies at c->own the name `path` too. EEXIST: something has it. */
static int place(const lrd_claim_t *c, const char *path)
{
    if (link(c->own, path) == 0)
        return 0;
    const int why = errno;
    if (is_linked(c->own))
        return 0;
    if (why == EPERM || why == EOPNOTSUPP || why == ENOSYS || why == EMLINK)
        return write_claim(c, path, O_EXCL); /* a file system without links */
    return why;
}

/* Where there is no claim. EEXIST: there is one by now. */
static int place_first(const lrd_claim_t *c)
{
    int why = write_claim(c, c->own, O_TRUNC);
    if (why == 0)
        why = place(c, c->path);
    unlink(c->own);
    return why;
}

static lrd_status_t check(int why, const char *path, const char *what)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(why == 0, LRD_ERR_IO, "%s: cannot be %s: %s", path, what, strerror(why));
out:
    return status;
}

/* ---- whose it is ------------------------------------------------------------------------------- */

typedef enum verdict { WAIT, ALIVE, DEAD } verdict_t;

/* A claim of others, and since when nothing has happened to it. */
typedef struct watch {
    found_t first;
    double since;
    bool told;
} watch_t;

static bool is_old(const lrd_claim_t *c, const found_t *f)
{
    const int folder = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const time_t now = folder >= 0 ? lrd_partial_clock(folder) : 0;
    if (folder >= 0)
        close(folder);
    return now != 0 && (double)(now - f->touched.tv_sec) > OLD * f->silent_seconds;
}

static verdict_t judge(const lrd_claim_t *c, watch_t *w, const found_t *f)
{
    const double now = lrd_clock_seconds();
    if (strcmp(w->first.text, f->text) != 0 || w->since == 0) {
        *w = (watch_t){.first = *f, .since = now};
        if (!lrd_process_is_near(&f->process) && is_old(c, f))
            return DEAD;
    }
    if (lrd_process_is_near(&f->process)) {
        if (lrd_process_is_gone(&f->process))
            return DEAD;
        return now - w->since < c->farewell_seconds ? WAIT : ALIVE;
    }
    if (f->touched.tv_sec != w->first.touched.tv_sec ||
        f->touched.tv_nsec != w->first.touched.tv_nsec)
        return ALIVE;
    return now - w->since < f->silent_seconds ? WAIT : DEAD;
}

static void tell(const lrd_claim_t *c, watch_t *w)
{
    const found_t *f = &w->first;
    if (w->told)
        return;
    w->told = true;
    if (lrd_process_is_near(&f->process))
        lrd_info("%s is in use by %s: waiting for it to end", c->folder, f->who);
    else
        lrd_info("%s was in use by %s, which cannot be seen from here: waiting %g seconds for a "
                 "sign of it",
                 c->folder, f->who, f->silent_seconds);
}

static lrd_status_t refuse(const lrd_claim_t *c, const found_t *f)
{
    return lrd_fail(LRD_ERR_CONFIG, __FILE__, __LINE__,
                    "%s: another run is at work there: %s. Two runs in one folder would overwrite "
                    "each other's checkpoints: wait for it, stop it, or write another "
                    "training.output_dir (%s names it, and goes with it)",
                    c->folder, f->who, c->path);
}

/* The file that gives the right to replace a claim, or such a file, of this text: FNV-1a. */
static void name_heir(const lrd_claim_t *c, const char *text, char path[PATH_MAX])
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *at = text; *at != '\0'; at++)
        hash = (hash ^ (unsigned char)*at) * 0x100000001b3;
    snprintf(path, PATH_MAX, "%s/%s%016llx", c->folder, heir_name, (unsigned long long)hash);
}

/* Becomes the heir of a dead claim, or of its heir if that has died too; *is_heir_out: by this file. Not while another
 * one is. */
static lrd_status_t become_heir(const lrd_claim_t *c, watch_t *w, const found_t *dead,
                                char file[PATH_MAX], bool *is_heir_out)
{
    lrd_status_t status = LRD_OK;
    found_t before = *dead;
    verdict_t verdict = DEAD;
    *is_heir_out = false;
    while (verdict == DEAD) {
        name_heir(c, before.text, file);
        const int why = place(c, file);
        *is_heir_out = why == 0;
        if (*is_heir_out)
            break;
        LRD_TRY(check(why == EEXIST ? 0 : why, file, "written"));
        LRD_TRY(check(read_claim(file, &before), file, "read"));
        if (!before.there)
            break;
        LRD_TRY(understand(c, &before));
        verdict = judge(c, w, &before);
        if (verdict == ALIVE)
            LRD_TRY(refuse(c, &before));
    }
out:
    return status;
}

/* Replaces a dead claim in one step, which one process alone may do. Between somebody's look at the claim and the right to
 * replace it another one may have done so: with the right in hand it is looked at again, and then nobody else can. */
static lrd_status_t inherit(const lrd_claim_t *c, watch_t *w, const found_t *dead, bool *placed_out)
{
    lrd_status_t status = LRD_OK;
    char heir[PATH_MAX];
    bool is_heir = false;
    found_t now;
    *placed_out = false;
    LRD_TRY(check(write_claim(c, c->own, O_TRUNC), c->own, "written"));
    LRD_TRY(become_heir(c, w, dead, heir, &is_heir));
    if (!is_heir)
        goto out;
    LRD_TRY(check(read_claim(c->path, &now), c->path, "read"));
    if (!now.there || strcmp(now.text, dead->text) != 0)
        goto out;
    LRD_TRY(check(rename(c->own, c->path) == 0 ? 0 : errno, c->path, "written"));
    *placed_out = true;
out:
    if (is_heir)
        unlink(heir);
    unlink(c->own);
    return status;
}

/* What heirs that were killed have left: rights to claims that are gone. */
static void remove_heirs(const lrd_claim_t *c)
{
    DIR *folder = opendir(c->folder);
    const struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (strncmp(entry->d_name, heir_name, sizeof heir_name - 1) == 0)
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder != NULL)
        closedir(folder);
}

/* One look at the folder, and what follows from it. */
static lrd_status_t try_take(const lrd_claim_t *c, watch_t *claim, watch_t *heir, bool *taken_out)
{
    lrd_status_t status = LRD_OK;
    found_t f;
    *taken_out = false;
    LRD_TRY(check(read_claim(c->path, &f), c->path, "read"));
    if (!f.there) {
        const int why = place_first(c);
        *taken_out = why == 0;
        LRD_TRY(check(why == EEXIST ? 0 : why, c->path, "written"));
        goto out;
    }
    LRD_TRY(understand(c, &f));
    switch (judge(c, claim, &f)) {
    case ALIVE:
        LRD_TRY(refuse(c, &f));
        break;
    case DEAD:
        LRD_TRY(inherit(c, heir, &f, taken_out));
        break;
    case WAIT:
        tell(c, claim);
    }
out:
    return status;
}

static lrd_status_t take(const lrd_claim_t *c, const lrd_stop_t *stop)
{
    lrd_status_t status = LRD_OK;
    const struct timespec nap = {.tv_nsec = (long)(look_seconds * 1e9)};
    watch_t claim = {.since = 0}, heir = {.since = 0};
    bool taken = false;
    for (;;) {
        LRD_CHECK_STOP(stop);
        LRD_TRY(try_take(c, &claim, &heir, &taken));
        if (taken)
            break;
        lrd_beat();
        nanosleep(&nap, NULL);
    }
    remove_heirs(c);
out:
    return status;
}

/* ---- keeping it -------------------------------------------------------------------------------- */

/* A sign of life; a claim that somebody has removed by mistake comes back. What fails is tried again next time. */
static void touch(lrd_claim_t *c)
{
    found_t f;
    if (read_claim(c->path, &f) != 0)
        return;
    if (!f.there) {
        place_first(c);
    } else if (strcmp(f.text, c->text.data) == 0) {
        utimensat(AT_FDCWD, c->path, NULL, 0);
    } else {
        c->other = f;
        atomic_store(&c->lost, true);
    }
}

static void *keep(void *arg)
{
    lrd_claim_t *c = arg;
    const double seconds = c->silent_seconds / BEATS_PER_SILENCE;
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&c->mutex);
    while (!c->ends && !atomic_load(&c->lost)) {
        const int64_t after = next.tv_nsec + (int64_t)(seconds * 1e9);
        next.tv_sec += (time_t)(after / 1000000000);
        next.tv_nsec = (long)(after % 1000000000);
        while (!c->ends && pthread_cond_timedwait(&c->wake, &c->mutex, &next) == 0)
            continue;
        if (c->ends)
            break;
        pthread_mutex_unlock(&c->mutex);
        touch(c);
        clock_gettime(CLOCK_MONOTONIC, &next);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

static lrd_status_t start_keeping(lrd_claim_t *c)
{
    lrd_status_t status = LRD_OK;
    sigset_t all, before;
    sigfillset(&all); /* signals are for the thread that trains */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int rc = pthread_create(&c->thread, NULL, keep, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    LRD_CHECK(rc == 0, LRD_ERR_NO_MEMORY, "cannot start the thread that keeps %s: %s", c->path,
              strerror(rc));
    c->runs = true;
out:
    return status;
}

/* What has to be there before anything can be taken; on failure as much of it as there is. */
static lrd_status_t prepare(const lrd_claim_options_t *o, lrd_claim_t *c)
{
    lrd_status_t status = LRD_OK;
    c->silent_seconds = o->silent_seconds < LRD_CLAIM_MOST_SILENT_SECONDS
                            ? o->silent_seconds
                            : LRD_CLAIM_MOST_SILENT_SECONDS;
    c->farewell_seconds = o->farewell_seconds;
    LRD_ALLOC(c->folder, lrd_strdup(o->folder));
    LRD_ALLOC(c->path, lrd_path_join(o->folder, file_name));
    LRD_TRY(lrd_partial_name(c->path, &c->own));
    LRD_TRY(write_text(c, o->host));
out:
    return status;
}

static void destroy(lrd_claim_t *c)
{
    if (c == NULL)
        return;
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->mutex);
    lrd_buf_release(&c->text);
    lrd_free(c->own);
    lrd_free(c->path);
    lrd_free(c->folder);
    lrd_free(c);
}

/* Removes the claim if it is this one still. */
static void give_up(const lrd_claim_t *c)
{
    found_t f;
    if (read_claim(c->path, &f) == 0 && f.there && strcmp(f.text, c->text.data) == 0)
        unlink(c->path);
}

lrd_status_t lrd_claim_take(const lrd_claim_options_t *o, lrd_claim_t **claim_out)
{
    lrd_status_t status = LRD_OK;
    lrd_claim_t *c = NULL;
    pthread_condattr_t clock;
    bool taken = false;
    LRD_NEW(c, 1);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&c->mutex, NULL);
    LRD_TRY(prepare(o, c));
    LRD_TRY(take(c, o->stop));
    taken = true;
    LRD_TRY(start_keeping(c));
    *claim_out = c;
    c = NULL;
out:
    if (taken && c != NULL)
        give_up(c);
    destroy(c);
    return status;
}

bool lrd_claim_is_lost(const lrd_claim_t *c)
{
    return c != NULL && atomic_load(&c->lost);
}

lrd_status_t lrd_claim_check(lrd_claim_t *c)
{
    lrd_status_t status = LRD_OK;
    if (!lrd_claim_is_lost(c))
        goto out;
    LRD_TRY(understand(c, &c->other));
    LRD_FAIL(LRD_ERR_IO,
             "%s was taken over by %s: this run gave no sign of life for %g seconds, and must not "
             "write there any more",
             c->folder, c->other.who, c->silent_seconds);
out:
    return status;
}

void lrd_claim_release(lrd_claim_t *c)
{
    if (c == NULL)
        return;
    pthread_mutex_lock(&c->mutex);
    c->ends = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->mutex);
    if (c->runs)
        pthread_join(c->thread, NULL);
    give_up(c);
    destroy(c);
}
