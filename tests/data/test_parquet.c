/* Parquet files, and data sets made of them. Oracles: rows as pyarrow reads them (tests/golden/parquet/make_parquet.py), the
 * records that the same data sets give as JSON (tests/golden/data/cases.json), exact messages; damaged files and memory that
 * runs out end in an error. */
#include "dataset_support.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/parquet.h"
#include "data/rows.h"
#include "data/squad.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *program;

static const char *golden_file(const char *name, const char *suffix)
{
    char file[128];
    snprintf(file, sizeof file, "parquet/%s.%s", name, suffix);
    return lrd_test_golden(file);
}

/* All columns of the first of these rows. */
static size_t want_members(json_t *row, lrd_parquet_want_t want[32])
{
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(row, key, value)
    {
        assert_true(n < 32);
        want[n++] = (lrd_parquet_want_t){.name = key};
    }
    return n;
}

static json_t *read_lines(const char *path)
{
    lrd_map_t map;
    lrd_jsonl_t lines;
    json_t *rows = json_array(), *row = NULL;
    assert_ok(lrd_file_map(path, &map));
    lrd_jsonl_begin(&lines, path, map.data, map.size);
    for (;;) {
        assert_ok(lrd_jsonl_next(&lines, &row));
        if (row == NULL)
            break;
        json_array_append_new(rows, row);
    }
    lrd_file_unmap(&map);
    return rows;
}

/* The rows of bytes, or NULL where they cannot be read. */
static json_t *read_bytes(const void *data, size_t bytes, const lrd_parquet_want_t *want, size_t n)
{
    lrd_parquet_t *parquet = NULL;
    json_t *rows = json_array(), *row = NULL;
    lrd_status_t status = lrd_parquet_open("f.parquet", data, bytes, want, n, &parquet);
    while (status == LRD_OK) {
        status = lrd_parquet_next(parquet, &row);
        if (status != LRD_OK || row == NULL)
            break;
        json_array_append_new(rows, row);
    }
    lrd_parquet_close(parquet);
    if (status == LRD_OK)
        return rows;
    assert_true(status == LRD_ERR_FORMAT || status == LRD_ERR_UNSUPPORTED);
    assert_true(lrd_test_contains(lrd_error_text(status), "f.parquet"));
    lrd_error_clear();
    json_decref(rows);
    return NULL;
}

static void test_rows_are_those_of_pyarrow(void **state)
{
    (void)state;
    static const char *const file[] = {"kinds", "delta", "legacy"};
    for (size_t i = 0; i < sizeof file / sizeof file[0]; i++) {
        lrd_parquet_want_t want[32];
        lrd_map_t map;
        json_t *expected = read_lines(golden_file(file[i], "jsonl"));
        const size_t n = want_members(json_array_get(expected, 0), want);
        assert_ok(lrd_file_map(golden_file(file[i], "parquet"), &map));
        json_t *rows = read_bytes(map.data, map.size, want, n);
        assert_non_null(rows);
        assert_int_equal(json_array_size(rows), json_array_size(expected));
        for (size_t r = 0; r < json_array_size(rows); r++) {
            if (!json_equal(json_array_get(rows, r), json_array_get(expected, r)))
                fail_msg("%s: row %zu: %s", file[i], r,
                         json_dumps(json_array_get(rows, r), JSON_COMPACT));
        }
        json_decref(rows);
        rows = read_bytes(map.data, map.size, &want[n - 1], 1); /* one column alone */
        assert_non_null(rows);
        assert_int_equal(json_array_size(rows), json_array_size(expected));
        json_decref(rows);
        json_decref(expected);
        lrd_file_unmap(&map);
    }
}

/* The case as records of a Parquet file give it: no article without a question, and no empty lines between records. */
static json_t *expected_of(const json_t *one)
{
    json_t *expected = json_deep_copy(one);
    if (strcmp(text_of(one, "file"), "passages.json") == 0)
        json_object_set_new(expected, "n_groups", json_integer(int_of(one, "n_groups") - 1));
    const bool has_gap = strcmp(text_of(one, "file"), "letters.jsonl") == 0;
    json_t *records = json_object_get(expected, "records");
    for (size_t i = 1; has_gap && i < json_array_size(records); i++) {
        json_t *record = json_array_get(records, i);
        json_object_set_new(record, "source", json_integer(int_of(record, "source") - 1));
    }
    return expected;
}

static void check_set(const lrd_dataset_spec_t *spec, const json_t *expected)
{
    lrd_dataset_t *set = NULL;
    char *path = NULL;
    assert_ok(lrd_dataset_tokenize(spec, &set));
    check_case(set, expected);
    lrd_dataset_close(set);
    for (int again = 0; again < 2; again++) {
        assert_ok(lrd_dataset_build(spec, lrd_test_temporary("cache"), &path));
        assert_ok(lrd_dataset_open(path, &set));
        check_case(set, expected);
        assert_string_equal(lrd_dataset_info(set)->name, spec->path);
        lrd_dataset_close(set);
        lrd_free(path);
    }
}

static void test_data_sets_are_those_of_json(void **state)
{
    (void)state;
    const json_t *cases = json_object_get(golden, "cases");
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *one = json_array_get(cases, c);
        const lrd_data_settings_t settings = settings_of(json_object_get(one, "settings"));
        json_t *expected = expected_of(one);
        char name[64], *pieces[2];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(text_of(one, "file"), "."),
                 text_of(one, "file"));
        print_message("%s\n", text_of(one, "name"));
        lrd_dataset_spec_t spec = {.path = golden_file(name, "parquet"),
                                   .settings = &settings,
                                   .tokenizer = tokenizer,
                                   .vocab_size = int_of(golden, "vocab_size")};
        check_set(&spec, expected);
        if (strcmp(name, "passages") == 0) {
            pieces[0] = lrd_strdup(golden_file("passages-0", "parquet"));
            pieces[1] = lrd_strdup(golden_file("passages-1", "parquet"));
            spec.files = &(lrd_names_t){pieces, 2};
            spec.path = "org/passages";
            check_set(&spec, expected);
            lrd_free(pieces[0]);
            lrd_free(pieces[1]);
        }
        json_decref(expected);
    }
}

/* Passages as SQuAD's own file without the article that has no questions, of which records tell nothing. */
static const char *write_articles(void)
{
    const char *path = lrd_test_temporary("articles.json");
    json_t *root = NULL;
    assert_ok(lrd_json_read(lrd_test_golden("data/passages.json"), 1u << 20, &root));
    json_t *articles = json_object_get(root, "data");
    for (size_t i = json_array_size(articles); i-- > 0;) {
        if (json_array_size(json_object_get(json_array_get(articles, i), "paragraphs")) == 0)
            json_array_remove(articles, i);
    }
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    return path;
}

static void test_validation_takes_the_same_articles(void **state)
{
    (void)state;
    const char *path[] = {write_articles(), golden_file("passages", "parquet")};
    const lrd_data_settings_t settings = squad_settings();
    lrd_dataset_t *set[2], *train[2], *eval[2];
    for (int i = 0; i < 2; i++)
        assert_ok(lrd_dataset_tokenize(
            &(lrd_dataset_spec_t){
                .path = path[i], .settings = &settings, .tokenizer = tokenizer, .vocab_size = 420},
            &set[i]));
    for (uint64_t seed = 0; seed < 12; seed++) {
        for (int i = 0; i < 2; i++)
            assert_ok(lrd_dataset_split(set[i], 0.4, seed, &train[i], &eval[i]));
        const int64_t n = lrd_dataset_info(eval[0])->n_records;
        assert_int_equal(lrd_dataset_info(eval[1])->n_records, n);
        for (int64_t r = 0; r < n; r++)
            assert_int_equal(lrd_dataset_record(eval[0], r).source,
                             lrd_dataset_record(eval[1], r).source);
        for (int i = 0; i < 2; i++) {
            lrd_dataset_close(train[i]);
            lrd_dataset_close(eval[i]);
        }
    }
    lrd_dataset_close(set[0]);
    lrd_dataset_close(set[1]);
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = lrd_test_temporary(name);
    assert_ok(lrd_file_write(path, text, strlen(text)));
    return path;
}

/* Rows of several files of different kinds, numbered through; where each stands. */
static void test_rows_of_several_files(void **state)
{
    (void)state;
    char *name[] = {(char *)write_text("a.jsonl", "{\"n\": 1}\n\n{\"n\": 2}\n"),
                    (char *)write_text("empty.jsonl", ""),
                    (char *)write_text("b.json", " \n[{\"n\": 3},\n {\"n\": 4}]\n"),
                    (char *)write_text("c.jsonl", "{\"n\": 5}")};
    static const char *const place[] = {"a.jsonl:1", "a.jsonl:3", "b.json:1", "b.json:2",
                                        "c.jsonl:1"};
    int64_t number[5], last;
    const lrd_names_t files = {name, 4};
    lrd_rows_t *rows = NULL;
    json_t *row = NULL;
    assert_ok(lrd_rows_open("all", &files, NULL, 0, &rows));
    assert_true(lrd_rows_total(rows) >= 5);
    for (int i = 0; i < 5; i++) {
        assert_ok(lrd_rows_next(rows, &row, &number[i]));
        assert_int_equal(json_integer_value(json_object_get(row, "n")), i + 1);
        json_decref(row);
    }
    assert_ok(lrd_rows_next(rows, &row, &last));
    assert_null(row);
    for (int i = 0; i < 5; i++) {
        lrd_buf_t text = {0};
        assert_ok(lrd_rows_place(rows, number[i], &text));
        assert_true(lrd_test_contains(text.data, place[i]));
        lrd_buf_release(&text);
    }
    lrd_rows_close(rows);
    assert_ok(lrd_rows_open(write_text("d.json", "[{}, 3]"), NULL, NULL, 0, &rows));
    assert_ok(lrd_rows_next(rows, &row, &last));
    json_decref(row);
    assert_fails(lrd_rows_next(rows, &row, &last), LRD_ERR_FORMAT,
                 "d.json:2: the record is a number, expected an object");
    lrd_rows_close(rows);
    assert_ok(lrd_rows_open(write_text("e.json", "[{}"), NULL, NULL, 0, &rows));
    assert_fails(lrd_rows_next(rows, &row, &last), LRD_ERR_FORMAT, "e.json: not valid JSON");
    lrd_rows_close(rows);
}

/* Questions of one title are of one article wherever they stand; without titles, those of one context. */
static void test_questions_in_lines(void **state)
{
    (void)state;
    static const char text[] =
        "{\"id\":\"1\",\"title\":\"B\",\"context\":\"c\",\"question\":\"q\",\"answers\":{\"text\":["
        "\"x\",\"y\"]}}\n"
        "{\"id\":\"2\",\"title\":\"A\",\"context\":\"d\",\"question\":\"q\",\"answers\":[{\"text\":"
        "\"z\"}]}\n"
        "{\"id\":\"3\",\"title\":\"B\",\"context\":\"c\",\"question\":\"q\",\"answers\":{\"text\":["
        "]}}\n"
        "{\"id\":\"4\",\"context\":\"d\",\"question\":\"q\",\"answers\":{\"text\":[]}}\n"
        "{\"id\":\"5\",\"title\":null,\"context\":\"d\",\"question\":\"q\",\"answers\":{\"text\":[]"
        "}}\n";
    static const uint32_t article[] = {0, 1, 0, 2, 2};
    static const size_t n_answers[] = {2, 1, 0, 0, 0};
    lrd_squad_t *s = NULL;
    lrd_buf_t place = {0};
    assert_ok(lrd_squad_read(write_text("lines.jsonl", text), &s));
    assert_int_equal(lrd_squad_n_questions(s), 5);
    assert_int_equal(lrd_squad_n_articles(s), 3);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(lrd_squad_question(s, i)->article, article[i]);
        assert_int_equal(lrd_squad_question(s, i)->n_answers, n_answers[i]);
    }
    assert_memory_equal(lrd_squad_answer(s, 0, 1).data, "y", 1);
    assert_memory_equal(lrd_squad_answer(s, 1, 0).data, "z", 1);
    assert_ok(lrd_squad_place(s, 2, &place));
    assert_true(lrd_test_contains(place.data, "lines.jsonl: record 3 (id 3)"));
    lrd_buf_release(&place);
    lrd_squad_free(s);
}

static void test_wrong_questions(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"[{\"id\":1}]", "w.json:1: \"id\" is a number, expected a string"},
        {"[{\"id\":\"1\"}]", "w.json:1: \"context\" is missing, expected a string"},
        {"{\"id\":\"1\",\"context\":\"\",\"question\":null}",
         "w.json:1: \"question\" is null, expected a string"},
        {"{\"id\":\"1\",\"context\":\"\",\"question\":\"\"}",
         "w.json:1: \"answers\" has no list \"text\""},
        {"{\"id\":\"1\",\"context\":\"\",\"question\":\"\",\"answers\":{\"text\":[\"a\",2]}}",
         "w.json:1: text 1 of \"answers\" is a number, expected a string"},
        {"{\"id\":\"1\",\"context\":\"\",\"question\":\"\",\"answers\":[{}]}",
         "w.json:1: text 0 of \"answers\" is missing, expected a string"},
    };
    lrd_squad_t *s = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(lrd_squad_read(write_text("w.json", bad[i].text), &s), LRD_ERR_FORMAT,
                     bad[i].message);
    char *name[] = {(char *)lrd_test_golden("data/passages.json"),
                    (char *)lrd_test_golden("data/passages.json")};
    assert_fails(lrd_squad_read_files("org/two", &(lrd_names_t){name, 2}, &s), LRD_ERR_UNSUPPORTED,
                 "org/two: 2 files");
}

static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        const char *column, *message;
        lrd_status_t status;
    } bad[] = {
        {"time", "refused.parquet: column time holds times, which are not read",
         LRD_ERR_UNSUPPORTED},
        {"date", "column date holds dates", LRD_ERR_UNSUPPORTED},
        {"money", "column money holds decimal numbers", LRD_ERR_UNSUPPORTED},
        {"map", "column map. holds maps", LRD_ERR_UNSUPPORTED},
        {"fixed", "column fixed holds bytes of a fixed length", LRD_ERR_UNSUPPORTED},
        {"bytes", "row group 0, column bytes: a value of 2 bytes is no text in UTF-8",
         LRD_ERR_FORMAT},
        {"big", "row group 0, column big: a number of 2^63 or more", LRD_ERR_UNSUPPORTED},
        {"split", "row group 0, column split: values in encoding 9 are not read",
         LRD_ERR_UNSUPPORTED},
        {"brotli", "column brotli: it is compressed with Brotli, which is not read",
         LRD_ERR_UNSUPPORTED},
        {"none", "has no column \"none\", which is needed; its columns are: text, time, date",
         LRD_ERR_FORMAT},
    };
    const char *path = golden_file("refused", "parquet");
    lrd_map_t map;
    assert_ok(lrd_file_map(path, &map));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const lrd_parquet_want_t want = {.name = bad[i].column};
        lrd_parquet_t *parquet = NULL;
        json_t *row = NULL;
        lrd_status_t status = lrd_parquet_open(path, map.data, map.size, &want, 1, &parquet);
        for (int r = 0; r < 2 && status == LRD_OK; r++) {
            status = lrd_parquet_next(parquet, &row);
            if (status == LRD_OK)
                json_decref(row);
        }
        assert_fails(status, bad[i].status, bad[i].message);
        lrd_parquet_close(parquet);
    }
    const lrd_parquet_want_t text = {.name = "text"}; /* beside which the others do no harm */
    json_t *rows = read_bytes(map.data, map.size, &text, 1);
    assert_int_equal(json_array_size(rows), 2);
    json_decref(rows);
    lrd_file_unmap(&map);
}

/* A file of which the end is missing is refused, whatever is left; one of which a byte is another gives the same rows (the
 * byte said nothing of them) or is refused: its pages have check sums. */
static void test_damage(void **state)
{
    (void)state;
    lrd_parquet_want_t want[32];
    lrd_buf_t file = {0};
    json_t *expected = read_lines(golden_file("kinds", "jsonl"));
    int n_refused = 0, n_tried = 0;
    const size_t n = want_members(json_array_get(expected, 0), want);
    assert_ok(lrd_file_read(golden_file("kinds", "parquet"), 1u << 20, &file));
    for (size_t bytes = 0; bytes < file.size; bytes += bytes < file.size - 64 ? 101 : 1)
        assert_null(read_bytes(file.data, bytes, want, n));
    uint32_t footer;
    memcpy(&footer, file.data + file.size - 8, sizeof footer);
    for (size_t at = 0; at < file.size; at += 11, n_tried++) {
        file.data[at] = (char)(file.data[at] ^ (1 << at % 8));
        json_t *rows = read_bytes(file.data, file.size, want, n);
        if (at < file.size - 8 - footer && rows != NULL && !json_equal(rows, expected))
            fail_msg("byte %zu is another, and the rows are read", at);
        n_refused += rows == NULL;
        json_decref(rows);
        file.data[at] = (char)(file.data[at] ^ (1 << at % 8));
    }
    print_message("%d of %d changed bytes were noticed\n", n_refused, n_tried);
    assert_true(n_refused > n_tried / 4);
    json_decref(expected);
    lrd_buf_release(&file);
}

enum { NOT_REACHED = 100 };

/* The other side of the test below: --read PARQUET, with LRD_FAIL_ALLOC. */
static int read_here(char **argument)
{
    lrd_squad_t *squad = NULL;
    const lrd_names_t names = {argument, 1};
    const char *fails = getenv("LRD_FAIL_ALLOC");
    lrd_mem_adopt_json();
    const lrd_status_t status = lrd_squad_read_files("data", &names, &squad);
    lrd_squad_free(squad);
    const bool reached = fails != NULL && lrd_mem_allocations() >= atol(fails);
    return reached || status != LRD_OK ? (int)status : NOT_REACHED;
}

/* jansson's are tried once more, and then all is well. */
static void test_memory_runs_out(void **state)
{
    (void)state;
    const char *words[] = {program, "--read", golden_file("passages-0", "parquet"), NULL};
    int code = LRD_OK, n_failed = 0, n = 0;
    while (code == LRD_OK || code == LRD_ERR_NO_MEMORY) {
        code = lrd_test_with_failure(++n, words);
        n_failed += code == LRD_ERR_NO_MEMORY;
    }
    assert_int_equal(code, NOT_REACHED);
    print_message("of %d allocations that fail %d end it\n", n - 1, n_failed);
    assert_true(n_failed > 20);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--read") == 0)
        return read_here(argv + 2);
    program = argv[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_those_of_pyarrow),
        cmocka_unit_test(test_data_sets_are_those_of_json),
        cmocka_unit_test(test_validation_takes_the_same_articles),
        cmocka_unit_test(test_rows_of_several_files),
        cmocka_unit_test(test_questions_in_lines),
        cmocka_unit_test(test_wrong_questions),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_memory_runs_out),
    };
    return cmocka_run_group_tests(tests, set_up_golden, tear_down_golden);
}
