#include "support/test_support.h"

#include "base/file.h"
#include "base/mem.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *kept[256]; /* texts handed out, freed at exit */
static int n_kept;
static char *folder; /* the temporary one */

static void clean_up(void)
{
    if (folder != NULL)
        lrd_folder_remove(folder);
    for (int i = 0; i < n_kept; i++)
        lrd_free(kept[i]);
}

static const char *keep(char *text)
{
    if (n_kept == 0)
        atexit(clean_up);
    if (text == NULL || n_kept == (int)(sizeof kept / sizeof kept[0])) {
        fprintf(stderr, "test_support: no room for another path\n");
        exit(1);
    }
    return kept[n_kept++] = text;
}

static const char *source_dir(void)
{
    const char *dir = getenv("LRD_SOURCE_DIR");
    return dir != NULL ? dir : ".";
}

const char *lrd_test_golden(const char *relative)
{
    return keep(lrd_asprintf("%s/tests/golden/%s", source_dir(), relative));
}

const char *lrd_test_shared(const char *relative)
{
    const char *path = keep(lrd_asprintf("%s/../shared/%s", source_dir(), relative));
    return lrd_file_exists(path) || lrd_folder_exists(path) ? path : NULL;
}

const char *lrd_test_temporary(const char *relative)
{
    if (folder == NULL) {
        const char *base = getenv("TMPDIR");
        folder =
            (char *)keep(lrd_asprintf("%s/lora-dist-test-XXXXXX", base != NULL ? base : "/tmp"));
        if (mkdtemp(folder) == NULL) {
            perror(folder);
            exit(1);
        }
    }
    return keep(lrd_asprintf("%s/%s", folder, relative));
}

int lrd_test_with_failure(int n, const char *const *words)
{
    const pid_t child = fork();
    if (child == 0) {
        char number[16];
        snprintf(number, sizeof number, "%d", n);
        setenv("LRD_FAIL_ALLOC", number, 1);
        execv("/proc/self/exe", (char *const *)words);
        _exit(127);
    }
    int result = -1;
    assert_true(child > 0 && waitpid(child, &result, 0) == child && WIFEXITED(result));
    return WEXITSTATUS(result);
}

pid_t lrd_test_start(lrd_status_t (*work)(void *context), void *context)
{
    int ready[2];
    char word = 0;
    assert_int_equal(pipe(ready), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (work(context) != LRD_OK || write(ready[1], &word, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &word, 1), 1);
    close(ready[0]);
    return pid;
}

void lrd_test_kill(pid_t process)
{
    assert_int_equal(kill(process, SIGKILL), 0);
    assert_int_equal(waitpid(process, NULL, 0), process);
}

size_t lrd_test_count_names(const char *of)
{
    lrd_names_t names = {0};
    assert_ok(lrd_folder_list(of, &names));
    const size_t n = names.n;
    lrd_names_free(&names);
    return n;
}

int lrd_test_skip(const char *reason)
{
    printf("SKIPPED: %s\n", reason);
    return LRD_TEST_SKIP;
}

static uint64_t next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u); /* SplitMix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double lrd_test_random(uint64_t *state)
{
    return (double)(int64_t)(next(state) >> 11) * 0x1p-52 - 1.0;
}

int64_t lrd_test_random_int(uint64_t *state, int64_t n)
{
    return (int64_t)(next(state) % (uint64_t)n);
}

bool lrd_test_contains(const char *text, const char *part)
{
    return strstr(text, part) != NULL;
}
