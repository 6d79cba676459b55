/* What goes wrong while a checkpoint is written is handed over by the thread that writes it, and is no matter of
 * failures of the one that trains. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/mem.h"
#include "train/saver.h"

#include <sched.h>
#include <string.h>

/* A saver whose checkpoints have no place: output_dir is a file. */
static void open_saver(lrd_saver_t *saver, lrd_settings_t *settings)
{
    char *path = lrd_strdup(lrd_test_temporary("a-file"));
    assert_non_null(path);
    assert_ok(lrd_file_write(path, "x", 1));
    memset(settings, 0, sizeof *settings);
    settings->training.output_dir = path;
    settings->training.save_total_limit = LRD_SETTING_NULL;
    assert_ok(lrd_saver_open(saver, 1));
    saver->snapshot.settings = settings;
    saver->snapshot.checkpoint.step = 7;
}

static void close_saver(lrd_saver_t *saver, lrd_settings_t *settings)
{
    lrd_saver_close(saver);
    lrd_free(settings->training.output_dir);
}

static void a_failure_is_handed_over(void **unused)
{
    (void)unused;
    lrd_saver_t saver;
    lrd_settings_t settings;
    lrd_status_t status = LRD_OK;
    open_saver(&saver, &settings);
    assert_ok(lrd_saver_start(&saver));
    while (status == LRD_OK) { /* the thread that trains deals with failures of its own */
        lrd_fail(LRD_ERR_FORMAT, __FILE__, __LINE__, "a damaged checkpoint, passed over");
        lrd_error_clear();
        status = lrd_saver_poll(&saver);
        sched_yield();
    }
    assert_int_equal(status, LRD_ERR_IO);
    assert_true(lrd_test_contains(lrd_error_text(status), "a-file/checkpoint-7"));
    lrd_error_clear();
    assert_fails(lrd_saver_wait(&saver), LRD_ERR_IO, "a-file/checkpoint-7");
    close_saver(&saver, &settings);
}

static void it_does_not_hide_the_failure_of_the_training(void **unused)
{
    (void)unused;
    lrd_saver_t saver;
    lrd_settings_t settings;
    open_saver(&saver, &settings);
    assert_ok(lrd_saver_start(&saver));
    while (!atomic_load(&saver.failed))
        sched_yield();
    assert_int_equal(lrd_fail(LRD_ERR_NONFINITE, __FILE__, __LINE__, "the loss"),
                     LRD_ERR_NONFINITE);
    assert_string_equal(lrd_error_text(LRD_ERR_NONFINITE), "the loss");
    close_saver(&saver, &settings);
    assert_string_equal(lrd_error_text(LRD_ERR_NONFINITE), "the loss");
    lrd_error_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_is_handed_over),
        cmocka_unit_test(it_does_not_hide_the_failure_of_the_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
