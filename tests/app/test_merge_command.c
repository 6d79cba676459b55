/* The merged model computes what the base computes with the adapter, by the program itself.
 *
 *   test_merge_command CASE
 *
 * CASE is a folder of tests/golden/runs, or of ../shared/golden where that is present.
 */
#include "support/model_folder.h"
#include "support/test_support.h"

#include "base/file.h"
#include "base/json.h"
#include "base/json_writer.h"
#include "base/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *case_name, *folder, *records;

/* Runs the program with these words, under a launcher or alone. */
__attribute__((format(printf, 2, 3))) static void run(const char *launcher, const char *format, ...)
{
    char words[6000], command[8192];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    snprintf(command, sizeof command, "%s '%s' %s > '%s' 2> '%s'", launcher, getenv("LRD_PROGRAM"),
             words, lrd_test_temporary("stdout"), lrd_test_temporary("stderr"));
    if (system(command) != 0) {
        lrd_buf_t log = {0};
        assert_ok(lrd_file_read(lrd_test_temporary("stderr"), 1 << 20, &log));
        fail_msg("%s\n%s", words, log.data);
    }
}

/* The case's probe, a record a line. */
static void write_records(void)
{
    char path[1200];
    json_t *expected = NULL, *ids;
    lrd_buf_t text = {0};
    size_t i;
    snprintf(path, sizeof path, "%s/expected.json", folder);
    assert_ok(lrd_json_read(path, 1 << 26, &expected));
    json_array_foreach(json_object_get(expected, "probe"), i, ids)
    {
        lrd_json_writer_t w = {.buf = &text};
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "input_ids");
        lrd_json_value(&w, ids);
        lrd_json_close(&w, '}');
        assert_ok(lrd_json_writer_status(&w));
        assert_ok(lrd_buf_add_text(&text, "\n"));
    }
    assert_true(i > 1);
    assert_ok(lrd_file_write(records, text.data, text.size));
    lrd_buf_release(&text);
    json_decref(expected);
}

static double compare_logits(const char *a, const char *b)
{
    lrd_safetensors_t *x = NULL, *y = NULL;
    double worst = 0, largest = 0;
    assert_ok(lrd_safetensors_open(a, &x));
    assert_ok(lrd_safetensors_open(b, &y));
    assert_true(x->n_entries > 1 && x->n_entries == y->n_entries);
    for (size_t i = 0; i < x->n_entries; i++) {
        const float *p = lrd_safetensors_data(x, &x->entry[i]),
                    *q = lrd_safetensors_data(y, &y->entry[i]);
        assert_int_equal(x->entry[i].n_elements, y->entry[i].n_elements);
        for (int64_t k = 0; k < x->entry[i].n_elements; k++) {
            worst = fmax(worst, fabs((double)p[k] - (double)q[k]));
            largest = fmax(largest, fabs((double)q[k]));
        }
    }
    lrd_safetensors_close(x);
    lrd_safetensors_close(y);
    return worst / largest;
}

/* How far the merged model's logits are from those of base and adapter; both computed in float32. */
static double difference(const char *model, const char *name)
{
    char merged[64], logits[2][64];
    snprintf(merged, sizeof merged, "%s-merged", name);
    for (int i = 0; i < 2; i++)
        snprintf(logits[i], sizeof logits[i], "%s-%d.safetensors", name, i);
    const char *out = lrd_test_temporary(merged);
    run("", "merge --model '%s' --adapter '%s/adapter' --out '%s'", model, folder, out);
    run("",
        "score --dtype float32 --model '%s' --adapter '%s/adapter' --data '%s' --logits-out '%s'",
        model, folder, records, lrd_test_temporary(logits[0]));
    run("", "score --dtype float32 --model '%s' --data '%s' --logits-out '%s'", out, records,
        lrd_test_temporary(logits[1]));
    return compare_logits(lrd_test_temporary(logits[1]), lrd_test_temporary(logits[0]));
}

/* The base as float32: W x + s B (A x) against (W + s B A) x, which differ by rounding as any two
 * orders of a sum do (docs/numerics.md: 2e-5 of the largest logit). */
static void test_float32(void **state)
{
    (void)state;
    char model[1200];
    snprintf(model, sizeof model, "%s/model", folder);
    test_copy_folder_as(model, lrd_test_temporary("float32"), LRD_F32);
    const double off = difference(lrd_test_temporary("float32"), "float32");
    print_message("%s: float32, off by %.2g of the largest logit\n", case_name, off);
    assert_true(off <= 2e-5);
}

/* The base as it is stored. In 16 bits each merged weight is rounded once more, by at most u of
 * itself. Rounding errors of a row are independent: an output of a linear is off by about u / sqrt 3
 * of its size, the logits after n adapted linears by sqrt(n / 3) u, and the largest of thousands of
 * logits by 4 to 5 times that: 8 u for up to 8 linears. */
static void test_as_stored(void **state)
{
    (void)state;
    char path[2400], model[1200];
    lrd_names_t names;
    lrd_safetensors_t *file = NULL;
    double u = 0;
    snprintf(model, sizeof model, "%s/model", folder);
    assert_ok(lrd_folder_list(model, &names));
    for (size_t i = 0; i < names.n && u == 0; i++) {
        if (strstr(names.name[i], ".safetensors") == NULL || strstr(names.name[i], ".json") != NULL)
            continue;
        snprintf(path, sizeof path, "%s/%s", model, names.name[i]);
        assert_ok(lrd_safetensors_open(path, &file));
        const lrd_dtype_t d = file->entry[0].dtype;
        u = d == LRD_F16 ? 0x1p-11 : d == LRD_BF16 ? 0x1p-8 : 0x1p-24;
        lrd_safetensors_close(file);
    }
    lrd_names_free(&names);
    const double off = difference(model, "stored");
    print_message("%s: as stored (u = %.2g), off by %.2g u of the largest logit\n", case_name, u,
                  off / u);
    assert_true(off <= fmax(8 * u, 2e-5));
}

/* On two ranks one does it. */
static void test_ranks(void **state)
{
    (void)state;
    lrd_names_t names;
    const char *one = lrd_test_temporary("stored-merged"), *two = lrd_test_temporary("two");
    char a[2400], b[2400];
    run("mpirun -np 2 --bind-to none", "merge --model '%s/model' --adapter '%s/adapter' --out '%s'",
        folder, folder, two);
    assert_ok(lrd_folder_list(one, &names));
    for (size_t i = 0; i < names.n; i++) {
        lrd_map_t x, y;
        snprintf(a, sizeof a, "%s/%s", one, names.name[i]);
        snprintf(b, sizeof b, "%s/%s", two, names.name[i]);
        assert_ok(lrd_file_map(a, &x));
        assert_ok(lrd_file_map(b, &y));
        assert_int_equal(x.size, y.size);
        assert_memory_equal(x.data, y.data, x.size);
        lrd_file_unmap(&x);
        lrd_file_unmap(&y);
    }
    lrd_names_free(&names);
}

int main(int argc, char **argv)
{
    char name[256];
    if (argc != 2)
        return 2;
    case_name = argv[1];
    snprintf(name, sizeof name, "runs/%s", case_name);
    folder = lrd_test_golden(name);
    if (!lrd_folder_exists(folder)) {
        snprintf(name, sizeof name, "golden/%s", case_name);
        folder = lrd_test_shared(name);
    }
    if (folder == NULL)
        return lrd_test_skip("no ../shared here, which has the case");
    assert_ok(lrd_folder_make(lrd_test_temporary("")));
    records = lrd_test_temporary("records.jsonl");
    write_records();
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_float32),
                                       cmocka_unit_test(test_as_stored),
                                       cmocka_unit_test(test_ranks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
