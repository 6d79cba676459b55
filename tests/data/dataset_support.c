#include "dataset_support.h"

#include <string.h>

const char squad_template[] =
    "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### ANSWER\n{answer}</s>";
lrd_tokenizer_t *tokenizer; /* of tests/golden/data */
json_t *golden;             /* cases.json */

lrd_data_settings_t squad_settings(void)
{
    return (lrd_data_settings_t){.format = LRD_FORMAT_SQUAD,
                                 .prompt_template = (char *)squad_template,
                                 .no_answer_text = "Cannot Find Answer",
                                 .max_length = 2048};
}

/* The spec of the small SQuAD file; the caller may change `settings`. */
lrd_dataset_spec_t squad_spec(lrd_data_settings_t *settings)
{
    *settings = squad_settings();
    return (lrd_dataset_spec_t){.path = lrd_test_golden("data/passages.json"),
                                .settings = settings,
                                .tokenizer = tokenizer,
                                .vocab_size = 420};
}

const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

int64_t int_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static int choice_of(const json_t *object, const char *key, const char *const *names, int n)
{
    const char *text = text_of(object, key);
    for (int i = 0; text != NULL && i < n; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    return 0;
}

lrd_data_settings_t settings_of(const json_t *s)
{
    static const char *const formats[] = {"squad", "jsonl", "tokenized"};
    static const char *const losses[] = {"all", "answer"};
    static const char *const too_long[] = {"error", "drop", "truncate_context"};
    return (lrd_data_settings_t){
        .format = choice_of(s, "format", formats, 3),
        .loss_on = choice_of(s, "loss_on", losses, 2),
        .on_too_long = choice_of(s, "on_too_long", too_long, 3),
        .max_length = int_of(s, "max_length"),
        .prompt_template = (char *)text_of(s, "prompt_template"),
        .no_answer_text = (char *)text_of(s, "no_answer_text"),
    };
}

/* Compares record i with its entry in cases.json. */
static void check_record(const lrd_dataset_t *set, int64_t i, const json_t *expected)
{
    const lrd_record_t r = lrd_dataset_record(set, i);
    const json_t *ids = json_object_get(expected, "ids"),
                 *labels = json_object_get(expected, "labels");
    const int64_t ignored = int_of(expected, "ignored");
    int32_t target[1024];
    int64_t n_targets = 0;
    assert_int_equal(r.source, int_of(expected, "source"));
    assert_int_equal(r.n_tokens, json_array_size(ids));
    assert_true(r.n_tokens <= 1024);
    lrd_dataset_targets(set, i, target);
    for (int64_t t = 0; t < r.n_tokens; t++) {
        const size_t next = (size_t)t + 1;
        int64_t label = LRD_NO_TARGET;
        assert_int_equal(r.token[t], json_integer_value(json_array_get(ids, (size_t)t)));
        if (t + 1 < r.n_tokens && (labels != NULL || t + 1 >= ignored))
            label = json_integer_value(json_array_get(labels != NULL ? labels : ids, next));
        if (label < 0)
            label = LRD_NO_TARGET;
        assert_int_equal(target[t], label);
        n_targets += label >= 0;
    }
    assert_int_equal(r.n_targets, n_targets);
}

void check_case(const lrd_dataset_t *set, const json_t *one)
{
    const json_t *records = json_object_get(one, "records");
    const lrd_dataset_info_t *info = lrd_dataset_info(set);
    int64_t n_tokens = 0, n_targets = 0;
    assert_int_equal(info->n_records, json_array_size(records));
    assert_int_equal(info->n_dropped, int_of(one, "n_dropped"));
    assert_int_equal(info->n_truncated, int_of(one, "n_truncated"));
    assert_int_equal(info->n_straddled, int_of(one, "n_straddled"));
    assert_int_equal(info->n_groups, int_of(one, "n_groups"));
    for (int64_t i = 0; i < info->n_records; i++) {
        check_record(set, i, json_array_get(records, (size_t)i));
        n_tokens += lrd_dataset_record(set, i).n_tokens;
        n_targets += lrd_dataset_record(set, i).n_targets;
        assert_true(lrd_dataset_record(set, i).n_tokens <= info->longest_tokens);
        assert_true(lrd_dataset_record(set, i).n_tokens >= info->shortest_tokens);
    }
    assert_int_equal(info->n_tokens, n_tokens);
    assert_int_equal(info->n_targets, n_targets);
    assert_int_equal(info->n_source_records, info->n_records + info->n_dropped);
}

int set_up_golden(void **state)
{
    (void)state;
    assert_ok(lrd_tokenizer_load(lrd_test_golden("data/tokenizer.json"), &tokenizer));
    assert_ok(lrd_json_read(lrd_test_golden("data/cases.json"), 16u << 20, &golden));
    return 0;
}

int tear_down_golden(void **state)
{
    (void)state;
    json_decref(golden);
    lrd_tokenizer_free(tokenizer);
    return 0;
}
