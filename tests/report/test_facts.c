/* What a run left: processes that went on, histories of another run, lines that broke off, folders of all kinds. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "report/facts.h"
#include "report/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A folder of a test of its own. */
static const char *folder_of(const char *name)
{
    const char *folder = lrd_test_temporary(name);
    assert_ok(lrd_folder_make(folder));
    return folder;
}

static void put(const char *folder, const char *name, const char *text)
{
    char *path = lrd_path_join(folder, name);
    assert_ok(lrd_file_write(path, text, strlen(text)));
    lrd_free(path);
}

static const char start[] =
    "{\"event\": \"start\", \"step\": 0, \"updates\": 6, \"ranks\": [{}]}\n";

#define UPDATE(step, loss, seconds)                                                     \
    "{\"event\": \"update\", \"step\": " step ", \"loss\": " loss ", \"tokens\": 100, " \
    "\"updates\": 1, \"seconds\": " seconds "}\n"

static bool is_remarked(const lrd_facts_t *f, const char *words)
{
    size_t i;
    const json_t *remark;
    json_array_foreach(f->remarks, i, remark)
    {
        if (strstr(json_string_value(remark), words) != NULL)
            return true;
    }
    return false;
}

static void updates_made_again_count_once(void **unused)
{
    (void)unused;
    const char *folder = folder_of("again");
    lrd_facts_t f;
    char text[4096];
    snprintf(text, sizeof text, "%s%s%s", start,
             UPDATE("1", "3.5", "2") UPDATE("2", "3.25", "2") UPDATE("3", "NaN", "2"),
             "{\"event\": \"start\", \"step\": 1, \"updates\": 6, \"ranks\": [{}, {}]}\n" UPDATE(
                 "2", "3.25", "1")
                 UPDATE("3", "-Infinity", "1") "{\"event\": \"end\", \"state\": \"interrupted\", "
                                               "\"step\": 3, \"seconds\": 5}\n");
    put(folder, "run.jsonl", text);
    assert_ok(lrd_facts_read(folder, &f));
    const lrd_series_t *loss = &f.curve[LRD_CURVE_LOSS], *time = &f.curve[LRD_CURVE_TIME];
    assert_int_equal(loss->n, 3);
    assert_true(loss->y[0] == 3.5 && loss->y[1] == 3.25 && loss->y[2] == -INFINITY);
    assert_true(time->n == 3 && time->y[0] == 2 && time->y[1] == 3 && time->y[2] == 4);
    assert_true(f.curve[LRD_CURVE_TOKEN_RATE].y[0] == 50);
    assert_true(f.rank_seconds == 6 + 2 * 5);
    assert_true(f.seconds == 6 + 5); /* of the first process, lost; of the second, as it said */
    assert_true(f.tokens == 500);
    assert_int_equal(f.step, 3);
    assert_int_equal(f.max_steps, 6);
    assert_int_equal(f.outcome, LRD_OUTCOME_INTERRUPTED);
    assert_int_equal(json_array_size(f.resumes), 1);
    lrd_facts_close(&f);
}

static void a_history_is_continued_by_the_log(void **unused)
{
    (void)unused;
    const char *folder = folder_of("running");
    lrd_facts_t f;
    char text[4096];
    snprintf(text, sizeof text, "%s%s", start,
             UPDATE("1", "3.5", "1") UPDATE("2", "NaN", "1")
                 UPDATE("3", "2.5", "1") "{\"event\": \"upd");
    put(folder, "run.jsonl", text);
    char *checkpoint = lrd_path_join(folder, "checkpoint-2");
    assert_ok(lrd_folder_make(checkpoint));
    put(checkpoint, "trainer_state.json",
        "{\"global_step\": 2, \"max_steps\": 6, \"log_history\": [{\"step\": 1, \"loss\": 3.5, "
        "\"grad_norm\": 7.0},"
        " {\"step\": 2, \"loss\": NaN, \"grad_norm\": Infinity}, {\"step\": 2, \"eval_loss\": "
        "1.5}]}");
    assert_ok(lrd_facts_read(folder, &f));
    assert_non_null(f.state);
    assert_int_equal(f.curve[LRD_CURVE_LOSS].n, 3);
    assert_true(isnan(f.curve[LRD_CURVE_LOSS].y[1]) && f.curve[LRD_CURVE_LOSS].y[2] == 2.5);
    assert_true(f.curve[LRD_CURVE_GRAD_NORM].y[1] == INFINITY);
    assert_true(f.curve[LRD_CURVE_EVAL_LOSS].n == 1 && f.curve[LRD_CURVE_EVAL_LOSS].y[0] == 1.5);
    assert_int_equal(f.step, 3);
    assert_int_equal(f.outcome, LRD_OUTCOME_OPEN);
    assert_true(is_remarked(&f, "the last one, which is being written"));
    assert_true(is_remarked(&f, "checkpoint-2 lacks adapter_model.safetensors"));
    assert_true(is_remarked(&f, "there is no adapter_model.safetensors"));
    lrd_facts_close(&f);
    lrd_free(checkpoint);
}

static void a_history_of_another_run_is_not_shown(void **unused)
{
    (void)unused;
    const char *folder = folder_of("other");
    lrd_facts_t f;
    char text[4096];
    snprintf(text, sizeof text, "%s%s", start, UPDATE("1", "3.5", "1"));
    put(folder, "run.jsonl", text);
    put(folder, "trainer_state.json",
        "{\"global_step\": 9, \"log_history\": [{\"step\": 1, \"loss\": 3.5000000000000004}]}");
    assert_ok(lrd_facts_read(folder, &f));
    assert_null(f.state);
    assert_int_equal(f.step, 1);
    assert_true(is_remarked(&f, "are of an earlier run"));
    lrd_facts_close(&f);
}

/* A run that starts over has made its first updates: results and checkpoints of the one before still stand. */
static void results_of_another_run_are_not_shown(void **unused)
{
    (void)unused;
    static const char others[] =
        "{\"global_step\": 9, \"log_history\": [{\"step\": 1, \"loss\": 3.25}]}";
    const char *folder = folder_of("overwritten");
    lrd_facts_t f;
    char text[4096];
    snprintf(text, sizeof text, "%s%s", start, UPDATE("1", "3.5", "1"));
    put(folder, "run.jsonl", text);
    put(folder, "trainer_state.json", others);
    put(folder, "adapter_config.json", "{\"r\": 8}");
    put(folder, "adapter_model.safetensors", "not this run's");
    char *checkpoint[2];
    for (int i = 0; i < 2; i++) {
        checkpoint[i] = lrd_path_join(folder, i == 0 ? "checkpoint-4" : "checkpoint-9");
        assert_ok(lrd_folder_make(checkpoint[i]));
        put(checkpoint[i], "trainer_state.json", others);
        put(checkpoint[i], "adapter_model.safetensors", "not this run's");
    }
    assert_ok(lrd_facts_read(folder, &f));
    assert_null(f.state);
    assert_null(f.config);
    assert_int_equal(f.n_checkpoints, 0);
    assert_true(f.adapter_bytes == 0);
    assert_int_equal(f.step, 1);
    assert_true(is_remarked(&f, "overwritten: adapter and history there are of an earlier run"));
    assert_true(is_remarked(&f, "checkpoint-9: adapter and history there are of an earlier run"));
    lrd_facts_close(&f);

    /* Its own first checkpoint, before the others are removed. */
    put(checkpoint[0], "trainer_state.json",
        "{\"global_step\": 4, \"log_history\": [{\"step\": 1, \"loss\": 3.5}]}");
    put(checkpoint[0], "adapter_config.json", "{\"r\": 4}");
    assert_ok(lrd_facts_read(folder, &f));
    assert_int_equal(f.n_checkpoints, 1);
    assert_int_equal(f.checkpoint[0].step, 4);
    assert_int_equal(f.step, 4);
    assert_int_equal(json_integer_value(json_object_get(f.config, "r")), 4);
    lrd_facts_close(&f);
    for (int i = 0; i < 2; i++)
        lrd_free(checkpoint[i]);
}

/* Whatever stands in a file, there is a page. */
static void damaged_files_leave_a_page(void **unused)
{
    (void)unused;
    static const char *const file[] = {"run.jsonl", "trainer_state.json", "adapter_config.json",
                                       "x.evaluation.json", "adapter_model.safetensors"};
    static const char *const content[] = {
        "",
        "{",
        "[]",
        "null",
        "{\"log_history\": 3}",
        "{\"log_history\": [1, {\"step\": {}}]}",
        "{\"log_history\": [{\"step\": NaN, \"loss\": 1}, {\"step\": 1e300, \"loss\": 1}, "
        "{\"step\": 3, \"loss\": \"x\"}]}",
        "{\"event\": \"start\", \"ranks\": 5, \"stages\": [[[4, 1], [-3, 99999999999]], 7], "
        "\"memory\": {\"a\": -1, "
        "\"b\": NaN}, \"model\": {\"layers\": 1e9, \"parameters\": -5}, \"settings\": [1]}",
        "{\"event\": \"update\", \"step\": 1, \"loss\": 1, \"seconds\": -1, \"tokens\": Infinity}",
        "{\"event\": \"end\", \"ranks\": [1, null, {\"updating\": 0}]}",
        "{\"metrics\": [], \"examples\": [0, {}]}",
        "{\"r\": {\"deep\": [[[]]]}, \"base_model_name_or_path\": 7}",
        "\xff\xfe",
        "{\"a\": 1, \"a\": 2}"};
    for (size_t i = 0; i < sizeof file / sizeof file[0]; i++) {
        for (size_t k = 0; k < sizeof content / sizeof content[0]; k++) {
            char name[32];
            snprintf(name, sizeof name, "damaged-%zu-%zu", i, k);
            const char *folder = folder_of(name);
            lrd_buf_t page = {0}, again = {0};
            put(folder, file[i], content[k]);
            put(folder, "predictions.json", "{}");
            const char *folders[2] = {folder, folder};
            assert_ok(lrd_report_print(folders, 1, &page));
            assert_ok(lrd_report_print(folders, 1, &again));
            assert_int_equal(page.size, again.size);
            assert_memory_equal(page.data, again.data, page.size);
            assert_non_null(strstr(page.data, "</html>"));
            lrd_buf_clear(&page);
            assert_ok(lrd_report_print(folders, 2, &page));
            lrd_buf_release(&page);
            lrd_buf_release(&again);
        }
    }
}

static void what_is_no_run_is_refused(void **unused)
{
    (void)unused;
    const char *folder = folder_of("strange");
    const char *folders[13];
    lrd_facts_t f;
    lrd_buf_t page = {0};
    assert_ok(lrd_facts_read(folder, &f)); /* empty: has not begun */
    assert_int_equal(f.outcome, LRD_OUTCOME_UNKNOWN);
    assert_true(is_remarked(&f, "there is no run.jsonl"));
    lrd_facts_close(&f);
    const char *begins = folder_of("begins");
    put(begins, "run.claim", "{}");
    assert_ok(lrd_facts_read(begins, &f)); /* a run is at work, before its first update */
    assert_int_equal(f.outcome, LRD_OUTCOME_UNKNOWN);
    lrd_facts_close(&f);
    put(folder, "letter.txt", "x");
    for (int i = 0; i < 13; i++)
        folders[i] = folder;
    assert_int_equal(lrd_report_print(folders, 1, &page), LRD_ERR_ARG);
    assert_non_null(strstr(lrd_error_text(LRD_ERR_ARG), "is not the output_dir of a run"));
    lrd_error_clear();
    folders[0] = lrd_test_temporary("absent");
    assert_int_equal(lrd_report_print(folders, 1, &page), LRD_ERR_ARG);
    assert_non_null(strstr(lrd_error_text(LRD_ERR_ARG), "no such folder"));
    lrd_error_clear();
    assert_int_equal(lrd_report_print(folders, 13, &page), LRD_ERR_ARG);
    lrd_error_clear();
    assert_int_equal(page.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_made_again_count_once),
        cmocka_unit_test(a_history_is_continued_by_the_log),
        cmocka_unit_test(a_history_of_another_run_is_not_shown),
        cmocka_unit_test(results_of_another_run_are_not_shown),
        cmocka_unit_test(damaged_files_leave_a_page),
        cmocka_unit_test(what_is_no_run_is_refused),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
