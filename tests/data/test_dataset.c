/* Tokenized data sets. Oracles: records computed in Python (tests/golden/data/make_data.py), hashes
 * of transformers' own preprocessing (where ../shared is), torch's permutations for splits, exact
 * messages, and equality of what any number of threads builds. */
#include "dataset_support.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_golden_cases(void **state)
{
    (void)state;
    const json_t *cases = json_object_get(golden, "cases");
    const char *cache = lrd_test_temporary("golden");
    assert_true(json_array_size(cases) >= 10);
    for (size_t c = 0; c < json_array_size(cases); c++) {
        const json_t *one = json_array_get(cases, c);
        const lrd_data_settings_t settings = settings_of(json_object_get(one, "settings"));
        char file[128];
        snprintf(file, sizeof file, "data/%s", text_of(one, "file"));
        lrd_dataset_spec_t spec = {.path = lrd_test_golden(file),
                                   .settings = &settings,
                                   .tokenizer = tokenizer,
                                   .vocab_size = int_of(golden, "vocab_size")};
        print_message("%s\n", text_of(one, "name"));
        for (spec.n_threads = 1; spec.n_threads <= 8; spec.n_threads *= 2) {
            lrd_dataset_t *set = NULL;
            assert_ok(lrd_dataset_tokenize(&spec, &set));
            check_case(set, one);
            lrd_dataset_close(set);
        }
        char *path = NULL;
        for (int again = 0; again < 2; again++) {
            lrd_dataset_t *set = NULL;
            assert_ok(lrd_dataset_build(&spec, cache, &path));
            assert_ok(lrd_dataset_open(path, &set));
            check_case(set, one);
            assert_string_equal(lrd_dataset_info(set)->name, spec.path);
            lrd_dataset_close(set);
            lrd_free(path);
        }
    }
}

static void assert_same_sets(const lrd_dataset_t *a, const lrd_dataset_t *b)
{
    const lrd_dataset_info_t *x = lrd_dataset_info(a), *y = lrd_dataset_info(b);
    assert_int_equal(x->n_records, y->n_records);
    assert_int_equal(x->n_tokens, y->n_tokens);
    int32_t *target[2] = {malloc((size_t)x->longest_tokens * 4),
                          malloc((size_t)x->longest_tokens * 4)};
    assert_true(target[0] != NULL && target[1] != NULL);
    for (int64_t i = 0; i < x->n_records; i++) {
        const lrd_record_t r = lrd_dataset_record(a, i), s = lrd_dataset_record(b, i);
        assert_int_equal(r.n_tokens, s.n_tokens);
        assert_int_equal(r.n_targets, s.n_targets);
        assert_int_equal(r.source, s.source);
        assert_memory_equal(r.token, s.token, (size_t)r.n_tokens * sizeof r.token[0]);
        lrd_dataset_targets(a, i, target[0]);
        lrd_dataset_targets(b, i, target[1]);
        assert_memory_equal(target[0], target[1], (size_t)r.n_tokens * sizeof target[0][0]);
    }
    free(target[0]);
    free(target[1]);
}

/* Several rounds of records of very unequal lengths, a third of which must be cut. */
static void test_threads(void **state)
{
    (void)state;
    const char *path = lrd_test_temporary("many.jsonl");
    lrd_buf_t buf = {0};
    uint64_t random = 1;
    for (int i = 0; i < 9000; i++) {
        assert_ok(lrd_buf_printf(&buf, "{\"context\":\""));
        for (int64_t w = lrd_test_random_int(&random, i % 1000 == 0 ? 900 : 30); w >= 0; w--)
            assert_ok(lrd_buf_printf(&buf, "%s strand%d\\n", w % 7 == 0 ? "caf\\u00e9" : "The turn",
                                     (int)w));
        assert_ok(lrd_buf_printf(&buf, "\",\"answer\":\"it is %d\"}\n", i));
    }
    assert_ok(lrd_file_write(path, buf.data, buf.size));
    lrd_buf_release(&buf);
    lrd_data_settings_t settings = {.format = LRD_FORMAT_JSONL,
                                    .prompt_template = "{context}A: {answer}</s>",
                                    .loss_on = LRD_LOSS_ON_ANSWER,
                                    .on_too_long = LRD_TOO_LONG_TRUNCATE_CONTEXT,
                                    .max_length = 120};
    lrd_dataset_spec_t spec = {
        .path = path, .settings = &settings, .tokenizer = tokenizer, .vocab_size = 420};
    static const int threads[] = {1, 2, 8, 0};
    lrd_dataset_t *first = NULL;
    char *key = NULL;
    for (int i = 0; i < 4; i++) {
        char folder[32];
        char *file = NULL;
        lrd_dataset_t *set = NULL;
        snprintf(folder, sizeof folder, "threads%d", i);
        spec.n_threads = threads[i];
        assert_ok(lrd_dataset_build(&spec, lrd_test_temporary(folder), &file));
        assert_ok(lrd_dataset_open(file, &set));
        if (first == NULL) {
            first = set;
            key = file;
            assert_true(lrd_dataset_info(set)->n_truncated > 2000);
            assert_int_equal(lrd_dataset_info(set)->longest_tokens, 120);
            continue;
        }
        assert_string_equal(lrd_path_base(file), lrd_path_base(key));
        assert_same_sets(first, set);
        lrd_dataset_close(set);
        lrd_free(file);
    }
    lrd_dataset_close(first);
    lrd_free(key);
}

/* ---- validation splits ---- */

static void check_part(const lrd_dataset_t *part, const int64_t *source, int n)
{
    int64_t n_tokens = 0;
    assert_int_equal(lrd_dataset_info(part)->n_records, n);
    for (int i = 0; i < n; i++) {
        assert_int_equal(lrd_dataset_record(part, i).source, source[i]);
        n_tokens += lrd_dataset_record(part, i).n_tokens;
    }
    assert_int_equal(lrd_dataset_info(part)->n_tokens, n_tokens);
}

/* torch.randperm(5), seed 42: 2 4 3 0 1; articles have 6, 4, 5, 0 and 3 questions. */
static void test_split_by_article(void **state)
{
    (void)state;
    lrd_data_settings_t settings;
    const lrd_dataset_spec_t spec = squad_spec(&settings);
    static const int64_t in[] = {10, 11, 12, 13, 14, 15, 16, 17},
                         out[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    lrd_dataset_t *set = NULL, *train = NULL, *eval = NULL;
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    assert_ok(lrd_dataset_split(set, 0.4, 42, &train, &eval));
    lrd_dataset_close(set); /* the parts live on */
    check_part(eval, in, 8);
    check_part(train, out, 10);
    lrd_dataset_close(eval);
    check_part(train, out, 10);
    lrd_dataset_close(train);

    assert_ok(lrd_dataset_tokenize(&spec, &set)); /* seed 43 draws article 3, which is empty */
    assert_fails(lrd_dataset_split(set, 0.2, 43, &train, &eval), LRD_ERR_CONFIG,
                 "data.validation_split leaves no record for validation");
    assert_fails(lrd_dataset_split(set, 0, 43, &train, &eval), LRD_ERR_CONFIG,
                 "data.validation_split is 0, expected a number between 0 and 1");
    assert_fails(lrd_dataset_split(set, 1, 43, &train, &eval), LRD_ERR_CONFIG,
                 "data.validation_split is 1, expected");
    lrd_dataset_close(set);
}

/* torch.randperm(10), seed 42: 2 6 1 8 4 5 0 9 3 7, of the lines,
 * also of those that are dropped. */
static void test_split_by_record(void **state)
{
    (void)state;
    const char *path = lrd_test_temporary("ten.jsonl");
    lrd_buf_t buf = {0};
    for (int i = 0; i < 10; i++)
        assert_ok(lrd_buf_printf(&buf, "{\"input_ids\":[%d,1%s]}\n", i, i == 6 ? ",1,1,1" : ""));
    assert_ok(lrd_file_write(path, buf.data, buf.size));
    lrd_data_settings_t settings = {.format = LRD_FORMAT_TOKENIZED, .max_length = 5};
    const lrd_dataset_spec_t spec = {.path = path, .settings = &settings, .vocab_size = 20};
    static const int64_t in[] = {2, 3, 7}, out[] = {1, 4, 5, 6, 8, 9, 10}, fewer[] = {2, 3},
                         tenth[] = {3}, most[] = {8};
    lrd_dataset_t *set = NULL, *train = NULL, *eval = NULL;
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    assert_ok(lrd_dataset_split(set, 0.3, 42, &train, &eval));
    check_part(eval, in, 3);
    check_part(train, out, 7);
    lrd_dataset_close(eval);
    lrd_dataset_close(train);
    assert_ok(lrd_dataset_split(set, 0.25, 42, &train, &eval)); /* 2.5 + 0.5 */
    check_part(eval, in, 3);
    lrd_dataset_close(eval);
    lrd_dataset_close(train);
    assert_ok(lrd_dataset_split(set, 0.24, 42, &train, &eval));
    assert_int_equal(lrd_dataset_info(eval)->n_records, 2);
    lrd_dataset_close(eval);
    lrd_dataset_close(train);
    assert_ok(lrd_dataset_split(set, 0.01, 42, &train, &eval)); /* at least one */
    check_part(eval, tenth, 1);
    lrd_dataset_close(eval);
    lrd_dataset_close(train);
    assert_ok(lrd_dataset_split(set, 0.99, 42, &train, &eval)); /* and not all */
    check_part(train, most, 1);
    lrd_dataset_close(eval);
    lrd_dataset_close(train);
    lrd_dataset_close(set);

    settings.max_length = 2;
    settings.on_too_long = LRD_TOO_LONG_DROP;
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    assert_ok(lrd_dataset_split(set, 0.3, 42, &train, &eval));
    check_part(eval, fewer, 2);
    check_part(train, out, 7);
    lrd_dataset_close(train);
    lrd_dataset_close(eval);
    lrd_dataset_close(set);

    assert_ok(lrd_file_write(path, "{\"input_ids\":[1]}", 17));
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    assert_fails(lrd_dataset_split(set, 0.5, 1, &train, &eval), LRD_ERR_CONFIG,
                 "needs two records (articles, for squad) or more, the file has 1");
    lrd_dataset_close(set);
    lrd_buf_release(&buf);
}

/* ---- errors ---- */

static void test_squad_errors(void **state)
{
    (void)state;
    lrd_data_settings_t d;
    lrd_dataset_spec_t spec = squad_spec(&d);
    lrd_dataset_t *set = NULL;
    static const struct {
        const char *template, *message;
    } bad[] = {
        {"{context} {question}", "data.prompt_template does not name {answer}, which format squad "
                                 "needs"},
        {"{answer} {question}",
         "data.prompt_template: the last field is {question}, but format squad "
         "needs {answer} last"},
        {"{context} {Question} {answer}",
         "data.prompt_template: {Question} is no field of format squad; its fields are context,"},
        {"{context", "data.prompt_template: the brace at character 1 opens a field"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        d.prompt_template = (char *)bad[i].template;
        assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG, bad[i].message);
    }
    d.prompt_template = NULL;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG,
                 "data.prompt_template is not set");
    d.prompt_template = "{question} {answer}";
    d.on_too_long = LRD_TOO_LONG_TRUNCATE_CONTEXT;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG,
                 "data.on_too_long is truncate_context, but data.prompt_template does not name "
                 "{context}");
    for (spec.n_threads = 1; spec.n_threads <= 8; spec.n_threads *= 2) {
        d = squad_settings();
        d.max_length = 165; /* the first of several */
        assert_fails(
            lrd_dataset_tokenize(&spec, &set), LRD_ERR_FORMAT,
            "passages.json: data[0].paragraphs[0].qas[1] (id 000000000000000000000001) has "
            "166 tokens, more than data.max_length 165; raise it, or set");
        d.on_too_long = LRD_TOO_LONG_TRUNCATE_CONTEXT;
        d.max_length = 44;
        assert_fails(
            lrd_dataset_tokenize(&spec, &set), LRD_ERR_FORMAT,
            "data[0].paragraphs[0].qas[0] (id 000000000000000000000000) has 163 tokens, and ");
        d.on_too_long = LRD_TOO_LONG_DROP;
        assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_FORMAT,
                     "passages.json: all 18 records are longer than data.max_length 44 and were "
                     "dropped");
    }
    d = squad_settings();
    d.max_length = 65537;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG,
                 "data.max_length is 65537, expected 1 to 65536");
    d = squad_settings();
    spec.vocab_size = 300;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_FORMAT,
                 "outside the model's vocabulary of 300: tokenizer and model do not match");
    spec.tokenizer = NULL;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_ARG, "needs a tokenizer");
    assert_null(set);
}

static void test_line_errors(void **state)
{
    (void)state;
    const char *path = lrd_test_temporary("lines.jsonl");
    lrd_data_settings_t d = {.max_length = 4, .prompt_template = "{a}"};
    const lrd_dataset_spec_t spec = {
        .path = path, .settings = &d, .tokenizer = tokenizer, .vocab_size = 420};
    static const struct {
        int format, on_too_long;
        const char *text, *message;
    } bad[] = {
        {LRD_FORMAT_JSONL, 0, "{\"a\":\"x\"}\n{\"a\":\"\"}\n",
         "lines.jsonl:2: the record's text is empty, it has no tokens"},
        {LRD_FORMAT_JSONL, 0, "{\"a\":\"x\"}\n\n{\"b\":\"\"}\n", "lines.jsonl:3: \"a\" is missing"},
        {LRD_FORMAT_JSONL, 0, "\n\n", "lines.jsonl holds no records"},
        {LRD_FORMAT_JSONL, 0, "", "lines.jsonl holds no records"},
        {LRD_FORMAT_JSONL, 0, "\n{\"a\":\"1 2 3 4 5 6 7\"}", "lines.jsonl:2 has "},
        {LRD_FORMAT_TOKENIZED, 0, "", "lines.jsonl holds no records"},
        {LRD_FORMAT_TOKENIZED, 0, "{\"input_ids\":[1,2,3,4,5]}",
         "lines.jsonl:1 has 5 tokens, more than data.max_length 4; raise it, or set "
         "data.on_too_long to drop"},
        {LRD_FORMAT_TOKENIZED, 1, "{\"input_ids\":[1,2,3,4,5]}",
         "lines.jsonl: all 1 records are longer than data.max_length 4 and were dropped"},
        {LRD_FORMAT_TOKENIZED, 0, "{\"input_ids\":[1,420]}",
         "lines.jsonl:1: input_ids[1] is 420, outside the model's vocabulary of 420"},
    };
    lrd_dataset_t *set = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        d.format = bad[i].format;
        d.on_too_long = bad[i].on_too_long;
        assert_ok(lrd_file_write(path, bad[i].text, strlen(bad[i].text)));
        assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_FORMAT, bad[i].message);
        assert_null(set);
    }
    d.on_too_long = LRD_TOO_LONG_TRUNCATE_CONTEXT;
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG,
                 "records of format tokenized have no context; choose error or drop");
    d.format = LRD_FORMAT_JSONL;
    d.prompt_template = "{a}{context}";
    assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_CONFIG,
                 "{context} is the last field of data.prompt_template, that is, the answer");
    const lrd_dataset_spec_t absent = {.path = lrd_test_temporary("none"),
                                       .settings = &d,
                                       .tokenizer = tokenizer,
                                       .vocab_size = 420};
    d.prompt_template = "{context}{a}";
    assert_fails(lrd_dataset_tokenize(&absent, &set), LRD_ERR_IO, "cannot open");
    char *built = NULL;
    assert_fails(lrd_dataset_build(&absent, lrd_test_temporary("unused"), &built), LRD_ERR_IO,
                 "cannot open");
}

/* ---- the tutorial's run ---- */

/* SHA-256 of all ids of all records, little-endian int32, in file order. */
static void hash_ids(const lrd_dataset_t *set, char hex[LRD_SHA256_HEX])
{
    lrd_sha256_t *hash = NULL;
    assert_ok(lrd_sha256_begin(&hash));
    for (int64_t i = 0; i < lrd_dataset_info(set)->n_records; i++) {
        const lrd_record_t r = lrd_dataset_record(set, i);
        assert_ok(lrd_sha256_add(hash, r.token, (size_t)r.n_tokens * sizeof r.token[0]));
    }
    assert_ok(lrd_sha256_end(hash, hex));
    lrd_sha256_free(hash);
}

static void check_order(const lrd_dataset_t *set, const json_t *expected)
{
    const lrd_loader_settings_t s = {
        .records_per_micro_batch = 4, .records_per_update = 16, .seed = 42};
    const json_t *order = json_object_get(expected, "order"),
                 *log = json_object_get(json_object_get(expected, "float32"), "log");
    lrd_loader_t *loader = NULL;
    size_t at = 0;
    assert_ok(lrd_loader_create(set, &s, &loader));
    assert_int_equal(json_array_size(log), 100);
    for (size_t i = 0; i < 100; i++) {
        lrd_update_t u;
        assert_ok(lrd_loader_update(loader, (int64_t)i, &u));
        assert_true(u.epoch_after ==
                    json_real_value(json_object_get(json_array_get(log, i), "epoch")));
        for (int64_t j = 0; j < u.n_records; j++)
            assert_int_equal(u.record[j], json_integer_value(json_array_get(order, at++)));
    }
    lrd_loader_free(loader);
}

static void test_tutorial(void **state)
{
    (void)state;
    const char *train = lrd_test_shared("data/squad/train-v2.0.first10articles.json"),
               *dev = lrd_test_shared("golden/squad/dev-small.json"),
               *vocabulary = lrd_test_shared("golden/squad/model/tokenizer.json"),
               *results = lrd_test_shared("golden/squad/expected.json");
    if (train == NULL || dev == NULL || vocabulary == NULL || results == NULL) {
        print_message("SKIPPED: SQuAD and the reference run are not beside the checkout\n");
        skip();
    }
    lrd_tokenizer_t *bloom = NULL;
    json_t *expected = NULL;
    lrd_data_settings_t settings = squad_settings();
    char hex[LRD_SHA256_HEX];
    settings.max_length = 384;
    settings.on_too_long = LRD_TOO_LONG_DROP;
    assert_ok(lrd_tokenizer_load(vocabulary, &bloom));
    assert_ok(lrd_json_read(results, 64u << 20, &expected));
    lrd_dataset_spec_t spec = {
        .path = train, .settings = &settings, .tokenizer = bloom, .vocab_size = 8200};
    for (spec.n_threads = 1; spec.n_threads <= 8; spec.n_threads *= 2) {
        lrd_dataset_t *set = NULL;
        assert_ok(lrd_dataset_tokenize(&spec, &set));
        assert_int_equal(lrd_dataset_info(set)->n_records, int_of(expected, "n_train_records"));
        hash_ids(set, hex);
        assert_string_equal(hex, text_of(expected, "train_ids_sha256"));
        check_order(set, expected);
        lrd_dataset_close(set);
    }
    lrd_dataset_t *set = NULL;
    spec.path = dev;
    assert_ok(lrd_dataset_tokenize(&spec, &set));
    assert_int_equal(lrd_dataset_info(set)->n_records, int_of(expected, "n_eval_records"));
    lrd_dataset_close(set);
    json_decref(expected);
    lrd_tokenizer_free(bloom);
}

/* Asked to stop, both ways of building leave at the next record or round. */
static void test_stop(void **state)
{
    (void)state;
    static const char *const lines[] = {"{\"a\":\"x y\",\"b\":\"z\"}\n",
                                        "{\"input_ids\":[1,2,3]}\n"};
    const char *path = lrd_test_temporary("stop.jsonl");
    lrd_stop_t stop = 0;
    for (int i = 0; i < 2; i++) {
        lrd_data_settings_t settings = {.format = i == 0 ? LRD_FORMAT_JSONL : LRD_FORMAT_TOKENIZED,
                                        .prompt_template = "{a}{b}",
                                        .on_too_long = LRD_TOO_LONG_ERROR,
                                        .max_length = 100};
        lrd_dataset_spec_t spec = {.path = path,
                                   .settings = &settings,
                                   .tokenizer = tokenizer,
                                   .vocab_size = 420,
                                   .stop = &stop};
        lrd_dataset_t *set = NULL;
        assert_ok(lrd_file_write(path, lines[i], strlen(lines[i])));
        stop = 0;
        assert_ok(lrd_dataset_tokenize(&spec, &set));
        lrd_dataset_close(set);
        set = NULL;
        stop = 1;
        assert_fails(lrd_dataset_tokenize(&spec, &set), LRD_ERR_INTERRUPTED, "interrupted");
        assert_null(set);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_cases),     cmocka_unit_test(test_threads),
        cmocka_unit_test(test_split_by_article), cmocka_unit_test(test_split_by_record),
        cmocka_unit_test(test_squad_errors),     cmocka_unit_test(test_line_errors),
        cmocka_unit_test(test_tutorial),         cmocka_unit_test(test_stop),
    };
    lrd_log_set_level(LRD_LOG_ERROR);
    return cmocka_run_group_tests(tests, set_up_golden, tear_down_golden);
}
