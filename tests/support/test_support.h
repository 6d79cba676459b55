/* tests/support/test_support.h -- what tests share. Includes cmocka in the order it wants. */
#ifndef LRD_TEST_SUPPORT_H
#define LRD_TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "base/status.h"

/* Exit code: the whole program was skipped, and its last line said why. */
enum { LRD_TEST_SKIP = 77 };

/* Path of something in the project's tests/golden, or in ../shared beside the checkout (NULL where
 * that is absent). The texts live until the program ends. */
const char *lrd_test_golden(const char *relative);
const char *lrd_test_shared(const char *relative);

/* Path below a fresh folder of this process, removed at exit. */
const char *lrd_test_temporary(const char *relative);

/* This program again, in a process of its own with these words (argv[0] first, NULL last) and with
 * its n-th allocation failing (LRD_FAIL_ALLOC, base/mem.h). Returns its exit code. */
int lrd_test_with_failure(int n, const char *const *words);

/* A process that does the work, and stays when that has succeeded, until it is killed. */
pid_t lrd_test_start(lrd_status_t (*work)(void *context), void *context);
void lrd_test_kill(pid_t process);

/* How many names a folder has. */
size_t lrd_test_count_names(const char *folder);

/* Prints "SKIPPED: reason" and returns LRD_TEST_SKIP, for main() to return. */
int lrd_test_skip(const char *reason);

/* A repeatable random number: uniform in [-1, 1), or an integer in [0, n). */
double lrd_test_random(uint64_t *state);
int64_t lrd_test_random_int(uint64_t *state, int64_t n);

/* The call succeeded; otherwise the test fails with the recorded cause. */
#define assert_ok(call)                                                  \
    do {                                                                 \
        const lrd_status_t assert_ok_status = (call);                    \
        if (assert_ok_status != LRD_OK)                                  \
            fail_msg("%s: %s", #call, lrd_error_text(assert_ok_status)); \
    } while (0)

/* The call failed with this status, and the recorded cause contains the text. Clears the cause. */
#define assert_fails(call, expected_status, text)                                   \
    do {                                                                            \
        const lrd_status_t assert_fails_status = (call);                            \
        if (assert_fails_status != (expected_status) ||                             \
            !lrd_test_contains(lrd_error_text(assert_fails_status), text))          \
            fail_msg("%s gave %d \"%s\", expected %d with \"%s\"", #call,           \
                     (int)assert_fails_status, lrd_error_text(assert_fails_status), \
                     (int)(expected_status), text);                                 \
        lrd_error_clear();                                                          \
    } while (0)

bool lrd_test_contains(const char *text, const char *part);

#endif /* LRD_TEST_SUPPORT_H */
