/* Names of files under construction, and which of them are removed. Oracle: the writers, who are
 * alive or not. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/partial.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static lrd_status_t write_half(void *path)
{
    lrd_status_t status = LRD_OK;
    lrd_writer_t *w = NULL;
    LRD_TRY(lrd_writer_open(path, &w));
    LRD_TRY(lrd_writer_add(w, "half", 4));
out:
    return status;
}

/* A process that begins a file and stays until it is killed. */
static pid_t begin_file(const char *path)
{
    return lrd_test_start(write_half, (void *)path);
}

/* A file that may be of any writer, and was written to so many hours ago. */
static void leave(const char *folder, const char *name, int hours)
{
    char *path = lrd_path_join(folder, name);
    const struct timespec when[2] = {{.tv_sec = time(NULL) - 3600 * hours},
                                     {.tv_sec = time(NULL) - 3600 * hours}};
    assert_non_null(path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fclose(file);
    assert_int_equal(utimensat(AT_FDCWD, path, when, 0), 0);
    lrd_free(path);
}

static bool is_there(const char *folder, const char *name)
{
    char *path = lrd_path_join(folder, name);
    const bool there = lrd_file_exists(path);
    lrd_free(path);
    return there;
}

static void test_killed_writer(void **state)
{
    (void)state;
    const char *folder = lrd_test_temporary("killed");
    char *a = lrd_path_join(folder, "a.h5"), *b = lrd_path_join(folder, "b.h5");
    assert_ok(lrd_folder_make(folder));
    const pid_t first = begin_file(a), second = begin_file(b);
    lrd_partial_tidy_folder(folder);
    assert_int_equal(lrd_test_count_names(folder), 2); /* both are at work */
    lrd_test_kill(first);
    lrd_partial_tidy(b); /* of b's none is gone */
    assert_int_equal(lrd_test_count_names(folder), 2);
    const pid_t third = begin_file(a); /* which tidies up first */
    assert_int_equal(lrd_test_count_names(folder), 2);
    lrd_test_kill(second);
    lrd_test_kill(third);
    lrd_partial_tidy_folder(folder);
    assert_int_equal(lrd_test_count_names(folder), 0);
    lrd_free(a);
    lrd_free(b);
}

/* A killed process whose parent does not ask what became of it, as in many a container. */
static void test_unasked_writer(void **state)
{
    (void)state;
    const char *folder = lrd_test_temporary("unasked");
    char *a = lrd_path_join(folder, "a.h5");
    siginfo_t info;
    assert_ok(lrd_folder_make(folder));
    const pid_t pid = begin_file(a);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(lrd_test_count_names(folder), 1);
    lrd_partial_tidy(a);
    assert_int_equal(lrd_test_count_names(folder), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    lrd_free(a);
}

/* A process's number is given to another one; a file of a process that cannot be seen from here. */
static void test_names(void **state)
{
    (void)state;
    static const char *const others[] = {"x",
                                         "x.partial",
                                         "x.partial.",
                                         "x.partial.12",
                                         "x.partial.12.7",
                                         "x.partial..7.m",
                                         "x.partial.-1.7.m",
                                         "x.partial.0.7.m",
                                         "x.partial.99999999999.7.m",
                                         "x.partial.12a.7.m",
                                         ".partial.12.7.m"};
    enum { N_OTHERS = sizeof others / sizeof others[0] };
    const char *folder = lrd_test_temporary("names");
    char *own = NULL, *path = lrd_path_join(folder, "x");
    assert_ok(lrd_folder_make(folder));
    assert_ok(lrd_partial_name(path, &own));
    const char *mine = lrd_path_base(own), *machine = strrchr(mine, '.') + 1;
    char reused[256], elsewhere[256];
    assert_true(strlen(machine) > 36);
    snprintf(reused, sizeof reused, "x.partial.%ld.1.%s", (long)getpid(), machine);
    snprintf(elsewhere, sizeof elsewhere, "x.partial.1.1.another-%s", machine);
    for (size_t i = 0; i < N_OTHERS; i++)
        leave(folder, others[i], 1000);
    leave(folder, mine, 1000);
    leave(folder, reused, 0);
    leave(folder, elsewhere, 23);
    lrd_partial_tidy(path);
    assert_false(is_there(folder, reused));
    assert_true(is_there(folder, mine) && is_there(folder, elsewhere));
    leave(folder, elsewhere, 25);
    lrd_partial_tidy(path);
    assert_false(is_there(folder, elsewhere));
    leave(folder, "y.partial.1.1.", 25); /* a machine that does not say which one it is */
    lrd_partial_tidy(path);
    assert_true(is_there(folder, "y.partial.1.1."));
    lrd_partial_tidy_folder(folder);
    assert_false(is_there(folder, "y.partial.1.1."));
    for (size_t i = 0; i < N_OTHERS; i++)
        assert_true(is_there(folder, others[i]));
    assert_int_equal(lrd_test_count_names(folder), N_OTHERS + 1); /* and nothing was added */
    lrd_free(own);
    lrd_free(path);
}

static void test_no_folder(void **state)
{
    (void)state;
    lrd_partial_tidy_folder(lrd_test_temporary("nowhere"));
    lrd_partial_tidy(lrd_test_temporary("nowhere/x"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_killed_writer),
        cmocka_unit_test(test_unasked_writer),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
