/* The files of tokenized data sets. Oracle: whatever happened to them before, a build ends with the
 * records of tests/golden/data/cases.json, and with one file. */
#include "dataset_support.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/h5_file.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *program; /* this one, to be run again */

static size_t count_files(const char *folder)
{
    lrd_names_t names = {0};
    assert_ok(lrd_folder_list(folder, &names));
    const size_t n = names.n;
    lrd_names_free(&names);
    return n;
}

static void test_cache_hit(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *cache = lrd_test_temporary("hit/deeper");
    char *path[2] = {NULL, NULL};
    struct stat before, after;
    assert_ok(lrd_dataset_build(&spec, cache, &path[0]));
    assert_int_equal(stat(path[0], &before), 0);
    assert_ok(lrd_dataset_build(&spec, cache, &path[1]));
    assert_int_equal(stat(path[1], &after), 0);
    assert_string_equal(path[0], path[1]);
    assert_int_equal(before.st_ino, after.st_ino);
    assert_int_equal(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
    lrd_names_t names = {0};
    assert_ok(lrd_folder_list(cache, &names));
    assert_int_equal(names.n, 1);
    assert_int_equal(strlen(names.name[0]), 64 + 3);
    lrd_names_free(&names);
    lrd_free(path[0]);
    lrd_free(path[1]);
}

/* Builds, and compares the key with the one before. */
static void check_key(const lrd_dataset_spec_t *spec, const char *base, bool same)
{
    char *path = NULL;
    assert_ok(lrd_dataset_build(spec, lrd_test_temporary("keys"), &path));
    if ((strcmp(path, base) == 0) != same)
        fail_msg("%s against %s", path, base);
    lrd_free(path);
}

static void test_keys(void **state)
{
    (void)state;
    lrd_data_settings_t d;
    lrd_dataset_spec_t spec = squad_spec(&d);
    char *base = NULL;
    assert_ok(lrd_dataset_build(&spec, lrd_test_temporary("keys"), &base));
    d.prompt_template = "{context}{question}{answer}";
    check_key(&spec, base, false);
    d = squad_settings();
    d.no_answer_text = "None";
    check_key(&spec, base, false);
    d = squad_settings();
    d.loss_on = LRD_LOSS_ON_ANSWER;
    check_key(&spec, base, false);
    d = squad_settings();
    d.max_length = 2047;
    check_key(&spec, base, false);
    d = squad_settings();
    d.on_too_long = LRD_TOO_LONG_DROP;
    check_key(&spec, base, false);
    d = squad_settings();
    spec.vocab_size = 421;
    check_key(&spec, base, false);
    spec = squad_spec(&d);

    lrd_buf_t buf = {0}; /* the same file elsewhere; another file; another tokenizer.json */
    const char *copy = lrd_test_temporary("copy.json");
    assert_ok(lrd_file_read(spec.path, 1u << 20, &buf));
    assert_ok(lrd_file_write(copy, buf.data, buf.size));
    spec.path = copy;
    check_key(&spec, base, true);
    assert_ok(lrd_buf_add_text(&buf, "\n"));
    assert_ok(lrd_file_write(copy, buf.data, buf.size));
    check_key(&spec, base, false);
    spec = squad_spec(&d);
    lrd_buf_clear(&buf);
    lrd_tokenizer_t *other = NULL;
    assert_ok(lrd_file_read(lrd_test_golden("data/tokenizer.json"), 1u << 20, &buf));
    assert_ok(lrd_buf_add_text(&buf, "\n"));
    assert_ok(lrd_tokenizer_parse(buf.data, buf.size, "other", &other));
    spec.tokenizer = other;
    check_key(&spec, base, false);
    lrd_tokenizer_free(other);
    lrd_buf_release(&buf);

    spec = squad_spec(&d); /* what does not matter */
    d.train_file = "x";
    d.eval_file = "y";
    d.validation_split = 0.5;
    d.cache_dir = "z";
    spec.n_threads = 3;
    check_key(&spec, base, true);
    lrd_free(base);
}

static void build_and_check(const lrd_dataset_spec_t *spec, const char *cache)
{
    char *path = NULL;
    lrd_dataset_t *set = NULL;
    assert_ok(lrd_dataset_build(spec, cache, &path));
    assert_ok(lrd_dataset_open(path, &set));
    check_case(set, json_array_get(json_object_get(golden, "cases"), 0));
    lrd_dataset_close(set);
    lrd_free(path);
}

/* Whatever becomes of the file, building ends with a good one, and opening never does worse than
 * fail. Readers are asked directly as well: they check less. */
static void check_damage(const lrd_dataset_spec_t *spec, const char *cache, const char *path,
                         const void *data, size_t bytes)
{
    lrd_dataset_t *set = NULL;
    assert_ok(lrd_file_write(path, data, bytes));
    const lrd_status_t status = lrd_dataset_open(path, &set);
    assert_true(status == LRD_OK || status == LRD_ERR_FORMAT);
    if (status != LRD_OK && strstr(lrd_error_text(status), lrd_path_base(path)) == NULL)
        fail_msg("the file is not named: %s", lrd_error_text(status));
    lrd_error_clear();
    lrd_dataset_close(set);
    build_and_check(spec, cache);
    assert_int_equal(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL), 0); /* all is closed */
}

static void test_damaged_files(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *cache = lrd_test_temporary("damaged");
    lrd_buf_t good = {0};
    char *path = NULL;
    assert_ok(lrd_dataset_build(&spec, cache, &path));
    assert_ok(lrd_file_read(path, 1u << 24, &good));
    for (size_t n = 0; n < good.size; n += 1 + good.size / 37)
        check_damage(&spec, cache, path, good.data, n);
    check_damage(&spec, cache, path, good.data, good.size - 1);
    uint64_t random = 5;
    for (int i = 0; i < 400; i++) { /* most of a small file's bytes that matter come early */
        const size_t at =
            (size_t)lrd_test_random_int(&random, i % 2 == 0 ? 6000 : (int64_t)good.size);
        const char kept = good.data[at];
        good.data[at] = (char)(kept ^ (1 << lrd_test_random_int(&random, 8)));
        check_damage(&spec, cache, path, good.data, good.size);
        good.data[at] = kept;
    }
    static const char text[] = "this is not HDF5";
    check_damage(&spec, cache, path, text, sizeof text);

    settings.loss_on = LRD_LOSS_ON_ANSWER; /* a good file under another's name */
    char *other = NULL;
    lrd_dataset_t *set = NULL;
    assert_ok(lrd_dataset_build(&spec, cache, &other));
    assert_int_equal(rename(other, path), 0);
    settings.loss_on = LRD_LOSS_ON_ALL;
    build_and_check(&spec, cache);
    assert_fails(lrd_dataset_open(other, &set), LRD_ERR_IO, "cannot open");
    lrd_free(other);
    lrd_buf_release(&good);
    lrd_free(path);
}

static void test_unwritable(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *file = lrd_test_temporary("a-file"), *cache = lrd_test_temporary("taken");
    char *path = NULL;
    assert_ok(lrd_file_write(file, "x", 1));
    assert_fails(lrd_dataset_build(&spec, lrd_test_temporary("a-file/below"), &path), LRD_ERR_IO,
                 "cannot make the folder");
    assert_ok(lrd_dataset_build(&spec, cache, &path)); /* a folder stands in the file's place */
    assert_int_equal(unlink(path), 0);
    assert_ok(lrd_folder_make(path));
    char *again = NULL;
    assert_fails(lrd_dataset_build(&spec, cache, &again), LRD_ERR_IO, "cannot rename");
    assert_int_equal(count_files(cache), 1); /* and nothing half-written is left */
    lrd_free(path);
}

/* Runs this program again to build the small set into `cache`; LRD_FAIL_ALLOC=n when n > 0. */
static pid_t start_elsewhere(const char *cache, int fail_alloc)
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char text[16];
        snprintf(text, sizeof text, "%d", fail_alloc);
        if (fail_alloc > 0)
            setenv("LRD_FAIL_ALLOC", text, 1);
        execl(program, program, "--build", cache, lrd_test_golden("data/tokenizer.json"),
              lrd_test_golden("data/passages.json"), (char *)NULL);
        _exit(126);
    }
    return pid;
}

/* The exit code, or -1 when it was killed. */
static int wait_for(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Both in one; killed after so many microseconds, unless that is negative. */
static int build_elsewhere(const char *cache, int kill_after, int fail_alloc)
{
    const pid_t pid = start_elsewhere(cache, fail_alloc);
    if (kill_after >= 0) {
        usleep((useconds_t)kill_after);
        kill(pid, SIGKILL);
    }
    return wait_for(pid);
}

/* The other side: --build CACHE TOKENIZER SOURCE. */
static int build_here(char **argument)
{
    lrd_data_settings_t settings = squad_settings();
    lrd_dataset_spec_t spec = {
        .path = argument[2], .settings = &settings, .vocab_size = 420, .n_threads = 1};
    char *path = NULL;
    lrd_mem_adopt_json();
    lrd_status_t status = lrd_tokenizer_load(argument[1], &tokenizer);
    if (status == LRD_OK) {
        spec.tokenizer = tokenizer;
        status = lrd_dataset_build(&spec, argument[0], &path);
    }
    lrd_free(path);
    lrd_tokenizer_free(tokenizer);
    return (int)status;
}

/* Processes killed at any time leave a complete file or none under the final name, and what else
 * they leave is removed by the next. */
static void test_killed_builds(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *cache = lrd_test_temporary("killed");
    uint64_t random = 11;
    int killed = 0, complete = 0;
    const double begun = lrd_clock_seconds();
    assert_int_equal(build_elsewhere(cache, -1, 0), 0);
    const int whole =
        (int)(1.3e6 * (lrd_clock_seconds() - begun)); /* microseconds, and some more */
    assert_ok(lrd_folder_remove(cache));
    for (int i = 0; i < 60; i++) {
        lrd_names_t names = {0};
        assert_ok(lrd_folder_make(cache));
        killed += build_elsewhere(cache, (int)lrd_test_random_int(&random, whole), 0) != 0;
        assert_ok(lrd_folder_list(cache, &names));
        for (size_t n = 0; n < names.n; n++) {
            if (strlen(names.name[n]) != 67)
                continue;
            char *path = lrd_path_join(cache, names.name[n]);
            lrd_dataset_t *set = NULL;
            assert_ok(lrd_dataset_open(path, &set));
            lrd_dataset_close(set);
            lrd_free(path);
            complete++;
        }
        lrd_names_free(&names);
        if (i % 3 == 2)
            assert_ok(lrd_folder_remove(cache));
    }
    print_message("%d of 60 were killed, %d times a complete file stood\n", killed, complete);
    assert_true(killed > 0);
    build_and_check(&spec, cache);
    assert_int_equal(count_files(cache), 1);
}

/* Several at once, as the tasks of an array do it, half of them killed: each of the others has its
 * file, and nobody takes away what another one is writing. */
static void test_shared_cache(void **state)
{
    (void)state;
    enum { TASKS = 6 };
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *cache = lrd_test_temporary("shared");
    uint64_t random = 3;
    int killed = 0;
    for (int round = 0; round < 8; round++) {
        pid_t pid[TASKS];
        assert_ok(lrd_folder_remove(cache));
        for (int i = 0; i < TASKS; i++)
            pid[i] = start_elsewhere(cache, 0);
        for (int i = 0; i < TASKS / 2; i++) {
            usleep((useconds_t)lrd_test_random_int(&random, 60000));
            kill(pid[i], SIGKILL);
            killed += wait_for(pid[i]) != 0;
        }
        for (int i = TASKS / 2; i < TASKS; i++)
            assert_int_equal(wait_for(pid[i]), 0);
        build_and_check(&spec, cache);
        assert_int_equal(count_files(cache), 1);
    }
    print_message("%d of %d were killed\n", killed, 8 * TASKS / 2);
}

/* What is left of one set goes when another one is built, if its writer is known to be gone. */
static void test_leftovers(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *cache = lrd_test_temporary("leftovers");
    char *other = lrd_path_join(cache, "0123.h5"), *elsewhere = NULL, *path = NULL;
    const pid_t gone = fork();
    assert_true(gone >= 0);
    if (gone == 0) {
        lrd_writer_t *w = NULL; /* which is not removed in order */
        _exit(lrd_folder_make(cache) != LRD_OK || lrd_writer_open(other, &w) != LRD_OK);
    }
    assert_int_equal(wait_for(gone), 0);
    elsewhere = lrd_asprintf("%s.partial.1.1.another-machine", other);
    assert_non_null(elsewhere);
    assert_ok(lrd_file_write(elsewhere, "x", 1));
    assert_int_equal(count_files(cache), 2);
    assert_ok(lrd_dataset_build(&spec, cache, &path));
    assert_true(lrd_file_exists(path) && lrd_file_exists(elsewhere));
    assert_int_equal(count_files(cache), 2);
    lrd_free(elsewhere);
    lrd_free(other);
    lrd_free(path);
}

/* Memory runs out at any allocation: an error, and nothing half-written. (Where there is no memory
 * to look for leftovers of killed builds, the build itself goes on.) */
static void test_no_memory(void **state)
{
    (void)state;
    const char *cache = lrd_test_temporary("no-memory");
    int failed = 0, in_a_row = 0, n;
    for (n = 1; in_a_row < 4; n += 1 + n / 32) {
        assert_ok(lrd_folder_remove(cache));
        const int code = build_elsewhere(cache, -1, n);
        in_a_row = code == 0 ? in_a_row + 1 : 0;
        if (code == 0)
            continue;
        assert_int_equal(code, LRD_ERR_NO_MEMORY);
        failed++;
        lrd_names_t names = {0};
        if (lrd_folder_exists(cache))
            assert_ok(lrd_folder_list(cache, &names));
        assert_int_equal(names.n, 0);
        lrd_names_free(&names);
    }
    print_message("%d allocations failed, of about %d\n", failed, n);
    assert_true(failed > 60);
}

/* What h5dump -A shows. */
static void test_attributes(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    static const char *const text[][2] = {
        {"format", "lora-dist tokenized data set"},
        {"format_version", "1"},
        {"prompt_template", squad_template},
        {"no_answer_text", "Cannot Find Answer"},
        {"data_format", "squad"},
        {"loss_on", "all"},
        {"on_too_long", "error"},
        {"max_length", "2048"},
    };
    char *path = NULL;
    hid_t file = -1;
    lrd_buf_t buf = {0};
    int64_t value = 0;
    assert_ok(lrd_dataset_build(&spec, lrd_test_temporary("attributes"), &path));
    assert_ok(lrd_h5_open(path, &file));
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        lrd_buf_clear(&buf);
        assert_ok(lrd_h5_get_text(file, path, text[i][0], &buf));
        assert_string_equal(buf.data, text[i][1]);
    }
    lrd_buf_clear(&buf);
    assert_ok(lrd_h5_get_text(file, path, "source_file", &buf));
    assert_string_equal(buf.data, spec.path);
    assert_ok(lrd_h5_get_int(file, path, "n_records", &value));
    assert_int_equal(value, 18);
    uint64_t offset = 1;
    assert_ok(lrd_h5_get_int(file, path, "n_tokens", &value));
    assert_ok(lrd_h5_find_array(file, path, "tokens", H5T_STD_I32LE, (size_t)value, &offset));
    assert_int_equal(offset % 4096, 0);
    assert_fails(lrd_h5_get_int(file, path, "absent", &value), LRD_ERR_FORMAT,
                 "the attribute absent is missing");
    assert_fails(lrd_h5_get_int(file, path, "format", &value), LRD_ERR_FORMAT,
                 "the attribute format is not a 64-bit integer");
    assert_ok(lrd_h5_close(&file, path));
    lrd_buf_release(&buf);
    lrd_free(path);
}

/* Arrays that lie in another file, or only seem to lie in this one, are not followed. */
static void test_links(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    const char *other = lrd_test_temporary("links/other.h5");
    char *path = NULL;
    lrd_dataset_t *set = NULL;
    lrd_buf_t good = {0};
    assert_ok(lrd_dataset_build(&spec, lrd_test_temporary("links"), &path));
    assert_ok(lrd_file_read(path, 1u << 24, &good));
    assert_ok(lrd_file_write(other, good.data, good.size));
    for (int soft = 0; soft < 2; soft++) {
        assert_ok(lrd_file_write(path, good.data, good.size));
        const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
        assert_true(file >= 0 &&
                    H5Lmove(file, "tokens", file, "elsewhere", H5P_DEFAULT, H5P_DEFAULT) >= 0);
        assert_true((soft ? H5Lcreate_soft("elsewhere", file, "tokens", H5P_DEFAULT, H5P_DEFAULT)
                          : H5Lcreate_external(other, "tokens", file, "tokens", H5P_DEFAULT,
                                               H5P_DEFAULT)) >= 0);
        assert_true(H5Fclose(file) >= 0);
        assert_fails(lrd_dataset_open(path, &set), LRD_ERR_FORMAT,
                     "the array tokens is a link, which may lead to another file");
    }
    lrd_buf_release(&good);
    lrd_free(path);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cache_hit),     cmocka_unit_test(test_keys),
        cmocka_unit_test(test_damaged_files), cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_killed_builds), cmocka_unit_test(test_shared_cache),
        cmocka_unit_test(test_leftovers),     cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_attributes),    cmocka_unit_test(test_links),
    };
    lrd_log_set_level(LRD_LOG_ERROR);
    if (argc == 5 && strcmp(argv[1], "--build") == 0)
        return build_here(argv + 2);
    program = argv[0];
    return cmocka_run_group_tests(tests, set_up_golden, tear_down_golden);
}
