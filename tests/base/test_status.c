/* The recorded cause of a failure is its thread's own. */
#include "support/test_support.h"

#include "base/status.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { N_THREADS = 4, N_TURNS = 2000 };

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *turn;
    int number;
    int n_wrong; /* turns in which it did not find what it should */
} worker_t;

static lrd_status_t fail_by(int number, int turn)
{
    lrd_status_t status = LRD_OK;
    LRD_FAIL(LRD_ERR_IO, "thread %d, turn %d", number, turn);
out:
    return status;
}

static bool is_recorded(const char *text)
{
    return strcmp(lrd_error_text(LRD_ERR_IO), text) == 0;
}

/* In each turn all record, all look, and some forget: the others still have theirs. */
static void *work(void *arg)
{
    worker_t *w = arg;
    char mine[64] = "";
    for (int turn = 0; turn < N_TURNS; turn++) {
        const bool forgets = (turn + w->number) % 3 == 0;
        fail_by(w->number, turn);
        if (mine[0] == '\0') /* the first cause stands until it is forgotten */
            snprintf(mine, sizeof mine, "thread %d, turn %d", w->number, turn);
        pthread_barrier_wait(w->turn);
        w->n_wrong += !is_recorded(mine);
        pthread_barrier_wait(w->turn);
        if (forgets) {
            lrd_error_clear();
            mine[0] = '\0';
        }
        pthread_barrier_wait(w->turn);
        w->n_wrong += !is_recorded(forgets ? lrd_status_text(LRD_ERR_IO) : mine);
    }
    return NULL;
}

static void every_thread_has_its_own_cause(void **unused)
{
    (void)unused;
    pthread_barrier_t turn;
    worker_t worker[N_THREADS];
    assert_int_equal(pthread_barrier_init(&turn, NULL, N_THREADS), 0);
    fail_by(-1, 0);
    for (int i = 0; i < N_THREADS; i++) {
        worker[i] = (worker_t){.turn = &turn, .number = i};
        assert_int_equal(pthread_create(&worker[i].thread, NULL, work, &worker[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(worker[i].thread, NULL);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(worker[i].n_wrong, 0);
    assert_string_equal(lrd_error_text(LRD_ERR_IO), "thread -1, turn 0");
    lrd_error_clear();
    assert_string_equal(lrd_error_text(LRD_ERR_IO), lrd_status_text(LRD_ERR_IO));
    pthread_barrier_destroy(&turn);
}

static void a_long_cause_is_cut(void **unused)
{
    (void)unused;
    char text[2 * LRD_ERROR_BYTES];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_int_equal(lrd_fail(LRD_ERR_IO, "here", 1, "%s", text), LRD_ERR_IO);
    assert_int_equal(strlen(lrd_error_text(LRD_ERR_IO)), LRD_ERROR_BYTES - 1);
    lrd_error_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_has_its_own_cause),
        cmocka_unit_test(a_long_cause_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
