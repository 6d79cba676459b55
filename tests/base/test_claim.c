/* A folder that belongs to one run at a time. Oracle: processes that live, end, are killed or were never here; of many that
 * want a folder at once, one has it. */
#include "support/test_support.h"

#include "base/claim.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/partial.h"
#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Seconds of silence: for claims that are waited for, and for others, which would show if they were. */
static const double brief = 0.6, endless = 60, at_once = 30;

static const char *make_folder(const char *name)
{
    const char *folder = lrd_test_temporary(name);
    assert_ok(lrd_folder_make(folder));
    return folder;
}

static char *claim_path(const char *folder)
{
    char *path = lrd_path_join(folder, "run.claim");
    assert_non_null(path);
    return path;
}

/* Without waiting for one that may be about to end. */
static lrd_status_t take(const char *folder, double silent_seconds, lrd_claim_t **claim_out)
{
    return lrd_claim_take(
        &(lrd_claim_options_t){.folder = folder, .host = "here", .silent_seconds = silent_seconds},
        claim_out);
}

static lrd_status_t hold(void *folder)
{
    lrd_claim_t *c = NULL;
    return take(folder, endless, &c);
}

static pid_t start_holder(const char *folder)
{
    return lrd_test_start(hold, (void *)folder);
}

/* Leaves a claim of a process that cannot be seen from here, last touched so many seconds ago. */
static void leave_foreign(const char *folder, const char *text, int seconds_ago)
{
    char *path = claim_path(folder);
    struct timespec when[2];
    clock_gettime(CLOCK_REALTIME, &when[0]);
    when[0].tv_sec -= seconds_ago;
    when[1] = when[0];
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(utimensat(AT_FDCWD, path, when, 0), 0);
    lrd_free(path);
}

/* Of a process that cannot be seen from here. */
#define FOREIGN(silent_seconds)                                                                 \
    "{\"host\": \"node7\", \"process\": 41, \"process_start\": 7, \"machine\": \"another-1\", " \
    "\"started\": \"2026-01-02T03:04:05.000000Z\", \"silent_seconds\": " silent_seconds "}\n"

static void test_one_after_another(void **state)
{
    (void)state;
    const char *folder = make_folder("after");
    for (int i = 0; i < 3; i++) {
        lrd_claim_t *c = NULL;
        assert_ok(take(folder, brief, &c));
        assert_int_equal(lrd_test_count_names(folder), 1);
        assert_ok(lrd_claim_check(c));
        lrd_claim_release(c);
        assert_int_equal(lrd_test_count_names(folder), 0);
    }
    lrd_claim_release(NULL);
    assert_ok(lrd_claim_check(NULL));
    lrd_claim_t *c = NULL;
    assert_fails(take(lrd_test_temporary("nowhere"), brief, &c), LRD_ERR_IO, "nowhere");
}

/* While the first lives the second is refused by name; once it is killed there is no wait. */
static void test_killed_holder(void **state)
{
    (void)state;
    const char *folder = make_folder("killed");
    const pid_t first = start_holder(folder);
    lrd_claim_t *c = NULL;
    char name[64];
    snprintf(name, sizeof name, "process %ld on here, started 20", (long)first);
    assert_fails(take(folder, endless, &c), LRD_ERR_CONFIG, name);
    assert_null(c);
    assert_int_equal(lrd_test_count_names(folder), 1);
    lrd_test_kill(first);
    const double begun = lrd_clock_seconds();
    assert_ok(take(folder, endless, &c));
    assert_true(lrd_clock_seconds() - begun < at_once);
    lrd_claim_release(c);
    assert_int_equal(lrd_test_count_names(folder), 0);
}

/* One that ends while the next already waits for it. */
static void test_ending_holder(void **state)
{
    (void)state;
    const char *folder = make_folder("ending");
    const pid_t first = start_holder(folder), killer = fork();
    if (killer == 0) {
        usleep(300000); /* less would not make it wait, which is all this is for */
        _exit(kill(first, SIGKILL));
    }
    lrd_claim_t *c = NULL;
    const lrd_claim_options_t patient = {
        .folder = folder, .host = "here", .silent_seconds = brief, .farewell_seconds = 60};
    assert_ok(lrd_claim_take(&patient, &c)); /* sees a zombie: nobody has asked what became of it */
    assert_int_equal(waitpid(first, NULL, 0), first);
    assert_int_equal(waitpid(killer, NULL, 0), killer);
    lrd_claim_release(c);
}

/* The number of a process was given to another one; the process was of another start of the machine. */
static void test_reused_number(void **state)
{
    (void)state;
    const char *folder = make_folder("reused");
    const lrd_process_t self = lrd_process_self();
    char text[512];
    lrd_claim_t *c = NULL;
    snprintf(text, sizeof text,
             "{\"host\": \"here\", \"process\": %ld, \"process_start\": 1, \"machine\": \"%s\"}",
             (long)getpid(), self.machine);
    leave_foreign(folder, text, 0);
    const double begun = lrd_clock_seconds();
    assert_ok(take(folder, endless, &c));
    assert_true(lrd_clock_seconds() - begun < at_once);
    lrd_claim_release(c);
}

/* Nobody can look at it: it has so many seconds, unless it has been left long ago. */
static void test_silent_foreigner(void **state)
{
    (void)state;
    const char *folder = make_folder("silent");
    lrd_claim_t *c = NULL;
    leave_foreign(folder, FOREIGN("0.6"), 0);
    double begun = lrd_clock_seconds();
    assert_ok(take(folder, endless, &c));
    double waited = lrd_clock_seconds() - begun;
    assert_true(waited >= 0.6 && waited < at_once); /* its own word counts, not this one's */
    lrd_claim_release(c);
    leave_foreign(folder, FOREIGN("60"), 3600);
    begun = lrd_clock_seconds();
    assert_ok(take(folder, endless, &c));
    assert_true(lrd_clock_seconds() - begun < at_once);
    lrd_claim_release(c);
    /* A clock that runs ahead of this one: it is watched all the same. */
    leave_foreign(folder, FOREIGN("0.6"), -1000);
    assert_ok(take(folder, endless, &c));
    lrd_claim_release(c);
    assert_int_equal(lrd_test_count_names(folder), 0);
}

static volatile sig_atomic_t stop_touching;

static void *touch_now_and_then(void *path)
{
    while (!stop_touching) {
        utimensat(AT_FDCWD, path, NULL, 0);
        usleep(100000);
    }
    return NULL;
}

static void test_living_foreigner(void **state)
{
    (void)state;
    const char *folder = make_folder("living");
    char *path = claim_path(folder);
    pthread_t thread;
    lrd_claim_t *c = NULL;
    leave_foreign(folder, FOREIGN("60"), 100); /* a look finds it silent for longer than it says */
    stop_touching = 0;
    assert_int_equal(pthread_create(&thread, NULL, touch_now_and_then, path), 0);
    assert_fails(take(folder, brief, &c), LRD_ERR_CONFIG,
                 "process 41 on node7, started 2026-01-02T03:04:05.000000Z");
    stop_touching = 1;
    assert_int_equal(pthread_join(thread, NULL), 0);
    /* Asked to stop while it waits. */
    volatile sig_atomic_t stop = 1;
    const lrd_claim_options_t stopped = {
        .folder = folder, .host = "here", .silent_seconds = endless, .stop = &stop};
    assert_fails(lrd_claim_take(&stopped, &c), LRD_ERR_INTERRUPTED, "");
    assert_int_equal(lrd_test_count_names(folder), 1);
    lrd_free(path);
}

/* What says nothing, or nonsense, may be of somebody: it is watched. */
static void test_nonsense(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "{",
                                        "[]",
                                        "null",
                                        "\"run\"",
                                        "{}",
                                        "{\"process\": -1}",
                                        "{\"process\": 0}",
                                        "{\"process\": \"1\"}",
                                        "{\"process\": 99999999999}",
                                        "{\"silent_seconds\": 1e300}",
                                        "{\"process\": 5, \"silent_seconds\": -1}",
                                        "\xff\xfe",
                                        "{\"host\": 3}"};
    const char *folder = make_folder("nonsense");
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        lrd_claim_t *c = NULL;
        leave_foreign(folder, texts[i], 0);
        const double begun = lrd_clock_seconds();
        assert_ok(take(folder, 0.2, &c));
        const double waited = lrd_clock_seconds() - begun;
        if (waited < 0.2 || waited > at_once)
            fail_msg("%s: %g seconds", texts[i], waited);
        lrd_claim_release(c);
        assert_int_equal(lrd_test_count_names(folder), 0);
    }
}

/* All cut-off texts and many damaged ones of a sound claim: refused, watched or taken, never worse. */
static void test_damage(void **state)
{
    (void)state;
    const char *folder = make_folder("damage");
    uint64_t random = 7;
    char text[sizeof FOREIGN("0.6")];
    for (size_t i = 0; i < 2 * sizeof text; i++) {
        lrd_claim_t *c = NULL;
        memcpy(text, FOREIGN("0.6"), sizeof text);
        if (i < sizeof text)
            text[i] = '\0';
        else
            text[lrd_test_random_int(&random, sizeof text - 1)] =
                (char)(1 + lrd_test_random_int(&random, 255));
        leave_foreign(folder, text, 3600);
        assert_ok(take(folder, brief, &c)); /* nothing for an hour */
        lrd_claim_release(c);
    }
}

/* One that was taken for dead finds out; one whose claim is removed by hand puts it back. */
static void test_taken_over(void **state)
{
    (void)state;
    const char *folder = make_folder("over");
    char *path = claim_path(folder);
    lrd_claim_t *c = NULL;
    lrd_status_t status = LRD_OK;
    assert_ok(take(folder, brief, &c));
    assert_int_equal(unlink(path), 0);
    for (int i = 0; i < 3000 && !lrd_file_exists(path); i++)
        usleep(10000);
    assert_true(lrd_file_exists(path));
    assert_ok(lrd_claim_check(c));
    leave_foreign(folder, FOREIGN("0.6"), 0);
    for (int i = 0; i < 3000 && status == LRD_OK; i++) {
        usleep(10000);
        status = lrd_claim_check(c);
    }
    assert_fails(status, LRD_ERR_IO, "process 41 on node7");
    lrd_claim_release(c);
    assert_true(lrd_file_exists(path)); /* it is the other's */
    lrd_free(path);
}

/* ---- many at once ------------------------------------------------------------------------------ */

enum { RACERS = 8 };

/* Waits for the word, wants the folder, and stays until it is told to end. */
static void race(const char *folder, int begin, int done, int leave)
{
    lrd_claim_t *c = NULL;
    char word;
    if (read(begin, &word, 1) != 0) /* the other side is closed: all at once */
        _exit(3);
    const lrd_status_t status = take(folder, brief, &c);
    word = status == LRD_OK ? '1' : status == LRD_ERR_CONFIG ? '0' : 'x';
    if (write(done, &word, 1) != 1 || read(leave, &word, 1) != 0)
        _exit(3);
    _exit(lrd_claim_check(c) == LRD_OK ? 0 : 4); /* as one that is killed: it is not given back */
}

/* Of RACERS processes exactly one gets the folder, whatever lies there. */
static void run_race(const char *folder)
{
    int begin[2], done[2], leave[2];
    pid_t pid[RACERS];
    int winners = 0;
    assert_int_equal(pipe(begin) | pipe(done) | pipe(leave), 0);
    for (int i = 0; i < RACERS; i++) {
        pid[i] = fork();
        assert_true(pid[i] >= 0);
        if (pid[i] == 0) {
            close(begin[1]);
            close(leave[1]);
            race(folder, begin[0], done[1], leave[0]);
        }
    }
    close(begin[1]);
    for (int i = 0; i < RACERS; i++) {
        char word = 0;
        assert_int_equal(read(done[0], &word, 1), 1);
        assert_true(word == '0' || word == '1');
        winners += word == '1';
    }
    close(leave[1]);
    for (int i = 0; i < RACERS; i++) {
        int code;
        assert_int_equal(waitpid(pid[i], &code, 0), pid[i]);
        assert_int_equal(code, 0);
    }
    close(begin[0]);
    close(done[0]);
    close(done[1]);
    close(leave[0]);
    assert_int_equal(winners, 1);
    assert_int_equal(lrd_test_count_names(folder), 1);
}

static void test_races(void **state)
{
    (void)state;
    const char *text = getenv("LRD_RACES");
    const int n = text != NULL ? atoi(text) : 40;
    const char *folder = make_folder("races");
    char *path = claim_path(folder);
    for (int i = 0; i < n; i++) {
        run_race(folder); /* for nothing */
        run_race(folder); /* for the claim of one that ended without giving it back */
        assert_int_equal(unlink(path), 0);
    }
    lrd_free(path);
}

/* Processes that are killed in the middle of wanting a folder leave nothing that stops the next one. */
static void test_killed_racers(void **state)
{
    (void)state;
    const char *folder = make_folder("doomed");
    uint64_t random = 3;
    /* Without links a claim may be left half-written, of nobody knows whom. */
    const double silence = getenv("LRD_NO_LINKS") != NULL ? 0.1 : endless;
    for (int i = 0; i < 40; i++) {
        pid_t pid[RACERS];
        lrd_claim_t *c = NULL;
        for (int k = 0; k < RACERS; k++) {
            pid[k] = fork();
            assert_true(pid[k] >= 0);
            if (pid[k] == 0) {
                take(folder, silence, &c);
                for (;;)
                    pause();
            }
        }
        for (int k = 0; k < RACERS; k++) {
            usleep((useconds_t)lrd_test_random_int(&random, 500));
            lrd_test_kill(pid[k]);
        }
        const double begun = lrd_clock_seconds();
        assert_ok(take(folder, silence, &c));
        assert_true(lrd_clock_seconds() - begun < at_once);
        lrd_claim_release(c);
        lrd_partial_tidy_folder(folder);
        assert_int_equal(lrd_test_count_names(folder), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_after_another), cmocka_unit_test(test_killed_holder),
        cmocka_unit_test(test_ending_holder),     cmocka_unit_test(test_reused_number),
        cmocka_unit_test(test_silent_foreigner),  cmocka_unit_test(test_living_foreigner),
        cmocka_unit_test(test_nonsense),          cmocka_unit_test(test_damage),
        cmocka_unit_test(test_taken_over),        cmocka_unit_test(test_races),
        cmocka_unit_test(test_killed_racers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
