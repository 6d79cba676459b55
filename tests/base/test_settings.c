/* Settings: values of every kind, defaults, files, JSON there and back, documents. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "base/settings.h"

#include <stdio.h>
#include <string.h>

static lrd_settings_t *parse(const char *text)
{
    lrd_settings_t *s = NULL;
    assert_ok(lrd_settings_parse(text, strlen(text), "t.yaml", &s));
    return s;
}

static void set(lrd_settings_t *s, const char *assignment)
{
    assert_ok(lrd_settings_set(s, assignment));
}

static json_t *to_json(const lrd_settings_t *s)
{
    lrd_buf_t buf = {0};
    json_t *json = NULL;
    lrd_json_writer_t writer = {.buf = &buf, .indent = 2};
    assert_ok(lrd_settings_write_json(s, &writer));
    assert_ok(lrd_json_parse(buf.data, buf.size, "settings", &json));
    lrd_buf_release(&buf);
    return json;
}

static void count_difference(void *user, lrd_key_t key, const char *a, const char *b)
{
    (void)key, (void)a, (void)b;
    ++*(int *)user;
}

static int count_differences(const lrd_settings_t *a, const lrd_settings_t *b)
{
    int n = 0;
    assert_ok(lrd_settings_compare(a, b, count_difference, &n));
    return n;
}

/* PEFT's and transformers' own defaults, written by make_defaults.py,
 * but for what is meant to differ. */
static void test_defaults_are_peft_and_transformers(void **state)
{
    static const struct {
        const char *key, *value;
    } differs[] = {
        {"logging_steps", "1"},
        {"gradient_checkpointing", "\"none\""}, /* false there */
        {"metric_for_best_model", "\"loss\""},  /* null there, and loss when it is used */
        {"tf32", "false"},                      /* null there: torch's own default, which is off */
        {"hub_private_repo", "false"},          /* null there: as the organization has it */
    };
    json_t *expected = NULL;
    lrd_settings_t *s = NULL;
    assert_ok(lrd_json_read(lrd_test_golden("base/defaults.json"), 1 << 20, &expected));
    assert_ok(lrd_settings_create(&s));
    json_t *ours = to_json(s);
    int n_compared = 0;
    static const char *const sections[] = {"lora", "training"};
    for (int i = 0; i < 2; i++) {
        const char *name;
        json_t *value;
        json_object_foreach(json_object_get(ours, sections[i]), name, value)
        {
            json_t *theirs = json_object_get(json_object_get(expected, sections[i]), name);
            if (theirs == NULL || (i == 0 && strcmp(name, "seed") == 0))
                continue;
            char *text = json_dumps(value, JSON_ENCODE_ANY);
            bool equal = json_equal(value, theirs) ||
                         (json_is_number(value) && json_is_number(theirs) &&
                          json_number_value(value) == json_number_value(theirs));
            if (strcmp(name, "init_lora_weights") == 0)
                equal = strcmp(text, "\"true\"") == 0 && json_is_true(theirs);
            for (size_t k = 0; k < sizeof differs / sizeof differs[0]; k++) {
                if (strcmp(differs[k].key, name) == 0)
                    equal = strcmp(text, differs[k].value) == 0;
            }
            if (!equal)
                fail_msg("%s.%s: %s", sections[i], name, text);
            lrd_free(text);
            n_compared++;
        }
    }
    assert_true(n_compared >= 30);
    json_decref(ours);
    json_decref(expected);
    lrd_settings_free(s);
}

/* Of the keys that are lora-dist's own. */
static void test_own_defaults(void **state)
{
    lrd_settings_t *s = NULL;
    assert_ok(lrd_settings_create(&s));
    assert_null(s->model.name_or_path);
    assert_string_equal(s->model.revision, "main");
    assert_int_equal(s->model.dtype, LRD_MODEL_DTYPE_AUTO);
    assert_int_equal(s->lora.seed, 42);
    assert_int_equal(s->data.format, LRD_FORMAT_SQUAD);
    assert_int_equal(s->data.max_length, 2048);
    assert_string_equal(s->data.no_answer_text, "Cannot Find Answer");
    assert_string_equal(s->data.prompt_template,
                        "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### "
                        "ANSWER\n{answer}</s>");
    assert_int_equal(s->training.max_nonfinite_steps, 25);
    assert_int_equal(s->training.global_batch_size, LRD_SETTING_NULL);
    assert_int_equal(s->training.data_seed, LRD_SETTING_NULL);
    assert_int_equal(s->parallel.pipeline, LRD_SETTING_AUTO);
    assert_int_equal(s->parallel.device_map.kind, LRD_DEVICE_MAP_AUTO);
    assert_int_equal(s->parallel.max_memory.n, 0);
    assert_true(s->parallel.timeout_seconds == 60);
    for (int key = 0; key < LRD_N_KEYS; key++)
        assert_false(lrd_settings_written(s, key));
    assert_ok(lrd_settings_check(s));
    lrd_settings_free(s);
}

static void test_every_kind(void **state)
{
    lrd_settings_t *s =
        parse("model: {name_or_path: 'a # b', revision: \"123\", dtype: bfloat16}\n"
              "lora:\n"
              "  r: 1_6\n"
              "  lora_alpha: 12.5\n"
              "  target_modules: [query_key_value, \"dense\"]\n"
              "  exclude_modules: '.*\\.h\\.0\\..*'\n"
              "  rank_pattern:\n"
              "    h.1.mlp: 3\n"
              "    dense: 2\n"
              "  alpha_pattern: {dense: 1, h.0.mlp: 0.5}\n"
              "  layers_to_transform: [0, 2]\n"
              "  init_lora_weights: gaussian\n"
              "data:\n"
              "  prompt_template: |\n"
              "    {a}\n"
              "    {b}\n"
              "training:\n"
              "  learning_rate: 1e-3\n"
              "  overwrite_output_dir: yes\n"
              "  save_total_limit: 2\n"
              "  resume_from_checkpoint: out/checkpoint-5\n"
              "parallel:\n"
              "  pipeline: 2\n"
              "  device_map: {transformer.h.0: 1, transformer.h.1: cpu, ln: \"0\", lm_head: disk}\n"
              "  max_memory: {0: 24GiB, cpu: 1.5 TB, 1: 1000}\n");
    assert_string_equal(s->model.name_or_path, "a # b");
    assert_string_equal(s->model.revision, "123");
    assert_int_equal(s->model.dtype, LRD_MODEL_DTYPE_BFLOAT16);
    assert_int_equal(s->lora.r, 16);
    assert_true(s->lora.lora_alpha == 12.5);
    assert_int_equal(s->lora.target_modules.n, 2);
    assert_false(s->lora.target_modules.is_single);
    assert_string_equal(s->lora.target_modules.text[1], "dense");
    assert_true(s->lora.exclude_modules.is_single);
    assert_string_equal(s->lora.exclude_modules.text[0], ".*\\.h\\.0\\..*");
    assert_int_equal(s->lora.rank_pattern.n, 2);
    assert_string_equal(s->lora.rank_pattern.entry[0].text, "h.1.mlp"); /* the order written */
    assert_true(s->lora.rank_pattern.entry[1].value == 2);
    assert_true(s->lora.alpha_pattern.entry[1].value == 0.5);
    assert_int_equal(s->lora.layers_to_transform.n, 2);
    assert_int_equal(s->lora.layers_to_transform.value[1], 2);
    assert_int_equal(s->lora.init_lora_weights, LRD_LORA_INIT_GAUSSIAN);
    assert_string_equal(s->data.prompt_template, "{a}\n{b}\n");
    assert_true(s->training.learning_rate == 1e-3);
    assert_true(s->training.overwrite_output_dir);
    assert_int_equal(s->training.save_total_limit, 2);
    assert_int_equal(s->training.resume_from_checkpoint.kind, LRD_RESUME_FOLDER);
    assert_string_equal(s->training.resume_from_checkpoint.folder, "out/checkpoint-5");
    assert_int_equal(s->parallel.pipeline, 2);
    assert_int_equal(s->parallel.device_map.kind, LRD_DEVICE_MAP_EXPLICIT);
    assert_int_equal(s->parallel.device_map.n, 4);
    assert_int_equal(s->parallel.device_map.entry[0].device, 1);
    assert_int_equal(s->parallel.device_map.entry[1].device, LRD_DEVICE_CPU);
    assert_int_equal(s->parallel.device_map.entry[2].device, 0);
    assert_string_equal(s->parallel.device_map.entry[3].module, "lm_head");
    assert_int_equal(s->parallel.device_map.entry[3].device, LRD_DEVICE_DISK);
    assert_int_equal(s->parallel.max_memory.n, 3);
    assert_int_equal(s->parallel.max_memory.entry[0].bytes, 24LL << 30);
    assert_int_equal(s->parallel.max_memory.entry[1].device, LRD_DEVICE_CPU);
    assert_int_equal(s->parallel.max_memory.entry[1].bytes, 1500000000000);
    assert_int_equal(s->parallel.max_memory.entry[2].bytes, 1000);
    lrd_settings_free(s);
}

/* YAML's spellings, one at a time: assignment, key, the value as JSON. */
static void test_spellings(void **state)
{
    static const struct {
        const char *assignment, *section, *name, *json;
    } cases[] = {
        {"training.max_steps=10", "training", "max_steps", "10"},
        {"training.max_steps=+10", "training", "max_steps", "10"},
        {"training.max_steps=-1", "training", "max_steps", "-1"},
        {"training.max_steps=  7  # seven", "training", "max_steps", "7"},
        {"training.max_steps=null", "training", "max_steps", "-1"},
        {"training.max_steps=", "training", "max_steps", "-1"},
        {"training.max_steps=~", "training", "max_steps", "-1"},
        {"lora.seed=4294967295", "lora", "seed", "4294967295"},
        {"training.learning_rate=1", "training", "learning_rate", "1.0"},
        {"training.learning_rate=1.0e-3", "training", "learning_rate", "0.001"},
        {"training.learning_rate=1E-3", "training", "learning_rate", "0.001"},
        {"training.learning_rate=.5", "training", "learning_rate", "0.5"},
        {"training.learning_rate=5.", "training", "learning_rate", "5.0"},
        {"training.learning_rate=2e+0", "training", "learning_rate", "2.0"},
        {"training.push_to_hub=true", "training", "push_to_hub", "true"},
        {"training.push_to_hub=Yes", "training", "push_to_hub", "true"},
        {"training.push_to_hub=ON", "training", "push_to_hub", "true"},
        {"training.push_to_hub=off", "training", "push_to_hub", "false"},
        {"training.push_to_hub=False", "training", "push_to_hub", "false"},
        {"training.output_dir=a b", "training", "output_dir", "\"a b\""},
        {"training.output_dir='null'", "training", "output_dir", "\"null\""},
        {"training.output_dir=\"\\u00e9\\n\"", "training", "output_dir", "\"\\u00e9\\n\""},
        {"model.revision=0123456", "model", "revision", "\"0123456\""},
        {"model.revision=1e5abc", "model", "revision", "\"1e5abc\""},
        {"model.revision=12:30", "model", "revision", "\"12:30\""},
        {"data.no_answer_text=\"\"", "data", "no_answer_text", "\"\""},
        {"lora.init_lora_weights=no", "lora", "init_lora_weights", "\"false\""},
        {"lora.init_lora_weights='true'", "lora", "init_lora_weights", "\"true\""},
        {"lora.target_modules=all-linear", "lora", "target_modules", "\"all-linear\""},
        {"lora.target_modules=[a]", "lora", "target_modules", "[\"a\"]"},
        {"lora.exclude_modules=[]", "lora", "exclude_modules", "[]"},
        {"lora.layers_to_transform=3", "lora", "layers_to_transform", "[3]"},
        {"lora.rank_pattern={a: 4}", "lora", "rank_pattern", "{\"a\": 4}"},
        {"lora.rank_pattern=null", "lora", "rank_pattern", "{}"},
        {"training.resume_from_checkpoint=true", "training", "resume_from_checkpoint", "true"},
        {"training.resume_from_checkpoint=false", "training", "resume_from_checkpoint", "false"},
        {"training.resume_from_checkpoint='true'", "training", "resume_from_checkpoint",
         "\"true\""},
        {"training.eval_steps=5", "training", "eval_steps", "5"},
        {"parallel.data=auto", "parallel", "data", "\"auto\""},
        {"parallel.data=4", "parallel", "data", "4"},
        {"parallel.device_map=sequential", "parallel", "device_map", "\"sequential\""},
        {"parallel.device_map={'': 0}", "parallel", "device_map", "{\"\": 0}"},
        {"parallel.max_memory=[24GiB, 800 MB]", "parallel", "max_memory",
         "{\"0\": 25769803776, \"1\": 800000000}"},
        {"parallel.max_memory=[0.5KiB, 3B]", "parallel", "max_memory", "{\"0\": 512, \"1\": 3}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_settings_t *s = NULL;
        json_t *expected = NULL;
        assert_ok(lrd_settings_create(&s));
        set(s, cases[i].assignment);
        json_t *all = to_json(s);
        const json_t *got = json_object_get(json_object_get(all, cases[i].section), cases[i].name);
        assert_ok(lrd_json_parse(cases[i].json, strlen(cases[i].json), "expected", &expected));
        if (!json_equal(got, expected)) {
            char *text = json_dumps(got, JSON_ENCODE_ANY);
            fail_msg("%s gave %s", cases[i].assignment, text);
        }
        json_decref(expected);
        json_decref(all);
        lrd_settings_free(s);
    }
}

static void test_null_and_set(void **state)
{
    lrd_settings_t *s = parse("training:\n  max_steps: 5\n  seed: null\n  eval_steps: ~\nlora:\n");
    assert_true(lrd_settings_written(s, LRD_KEY_training_max_steps));
    assert_int_equal(s->place[LRD_KEY_training_max_steps], 2);
    assert_false(lrd_settings_written(s, LRD_KEY_training_seed));
    assert_int_equal(s->training.seed, 42);
    set(s, "training.max_steps=6");
    assert_int_equal(s->training.max_steps, 6);
    assert_int_equal(s->place[LRD_KEY_training_max_steps], LRD_PLACE_SET);
    set(s, "training.max_steps=null");
    assert_int_equal(s->training.max_steps, -1);
    assert_false(lrd_settings_written(s, LRD_KEY_training_max_steps));
    set(s, "data.train_file=a");
    assert_int_equal(lrd_settings_set(s, "data.train_file=[b]"), LRD_ERR_CONFIG);
    lrd_error_clear();
    assert_string_equal(s->data.train_file, "a"); /* a failure leaves it alone */
    assert_ok(lrd_settings_require(s, LRD_KEY_data_train_file));
    assert_fails(lrd_settings_require(s, LRD_KEY_model_name_or_path), LRD_ERR_CONFIG,
                 "t.yaml: model.name_or_path is needed: write name_or_path in the section model, "
                 "or --set model.name_or_path=...");
    lrd_settings_free(s);
}

static void test_byte_order_mark_and_line_ends(void **state)
{
    lrd_settings_t *s = parse("\xef\xbb\xbf# a comment\r\nlora:\r\n  r: 3\r\n...\r\n");
    assert_int_equal(s->lora.r, 3);
    assert_int_equal(s->place[LRD_KEY_lora_r], 3);
    lrd_settings_free(s);
}

static void name_difference(void *user, lrd_key_t key, const char *a, const char *b)
{
    lrd_buf_t *buf = user;
    assert_ok(lrd_buf_printf(buf, "%s: %s -> %s\n", lrd_key_name(key), a, b));
}

static void test_compare(void **state)
{
    lrd_buf_t buf = {0};
    lrd_settings_t *a = parse("lora: {r: 4, rank_pattern: {a: 1, b: 2}}");
    lrd_settings_t *b = parse("lora: {rank_pattern: {b: 2, a: 1}}\nparallel: {max_memory: [1GiB]}");
    assert_ok(lrd_settings_compare(a, b, name_difference, &buf));
    assert_string_equal(buf.data,
                        "lora.r: 4 -> 8\n"
                        "lora.rank_pattern: {\"a\": 1, \"b\": 2} -> {\"b\": 2, \"a\": 1}\n"
                        "parallel.max_memory: null -> {\"0\": 1073741824}\n");
    assert_int_equal(count_differences(a, a), 0);
    lrd_settings_free(a);
    lrd_settings_free(b);
    lrd_buf_release(&buf);
}

/* What a checkpoint stores reads back the same, whatever characters texts hold. */
static void test_json_there_and_back(void **state)
{
    lrd_settings_t *s = parse("model: {name_or_path: \"\\x7f \\U0001F600 \\u2028 \\\" \\e \\N\"}\n"
                              "lora: {target_modules: a, rank_pattern: {x: 1}, r: 65536}\n"
                              "training: {resume_from_checkpoint: false, max_steps: 2147483647}\n"
                              "parallel: {device_map: {a: disk}, max_memory: {cpu: 1, 3: 2TiB}}\n");
    lrd_settings_t *back = NULL;
    json_t *json = to_json(s);
    assert_int_equal(json_object_size(json), 5);
    assert_ok(lrd_settings_read_json(json, "checkpoint", &back));
    assert_int_equal(count_differences(s, back), 0);
    assert_string_equal(back->model.name_or_path, s->model.name_or_path);
    assert_int_equal(back->place[LRD_KEY_lora_r], LRD_PLACE_JSON);
    assert_false(lrd_settings_written(back, LRD_KEY_training_eval_steps)); /* null */
    lrd_settings_free(back);

    back = NULL;
    json_object_del(json_object_get(json, "lora"), "r"); /* a writer that did not know the key */
    assert_ok(lrd_settings_read_json(json, "checkpoint", &back));
    assert_int_equal(back->lora.r, 8);
    lrd_settings_free(back);
    back = NULL;
    json_object_set_new(json_object_get(json, "lora"), "lora_alhpa", json_integer(1));
    assert_fails(lrd_settings_read_json(json, "checkpoint", &back), LRD_ERR_CONFIG,
                 "checkpoint: lora.lora_alhpa: unknown key; did you mean lora_alpha?");
    json_decref(json);
    lrd_settings_free(s);
}

/* Every file there reads, and passes the rules without an error. */
static int read_folder(const char *folder, const char *file)
{
    lrd_names_t names = {0};
    int n = 0;
    assert_ok(lrd_folder_list(folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        lrd_settings_t *s = NULL;
        char *path = file == NULL ? lrd_path_join(folder, names.name[i])
                                  : lrd_asprintf("%s/%s/%s", folder, names.name[i], file);
        assert_non_null(path);
        if (lrd_file_exists(path)) {
            assert_ok(lrd_settings_read(path, &s));
            assert_ok(lrd_settings_check(s));
            assert_ok(lrd_settings_require(s, LRD_KEY_model_name_or_path));
            assert_ok(lrd_settings_require(s, LRD_KEY_data_train_file));
            n++;
        }
        lrd_settings_free(s);
        lrd_free(path);
    }
    lrd_names_free(&names);
    return n;
}

static void test_configs(void **state)
{
    assert_true(read_folder(lrd_test_golden("../../configs"), NULL) >= 7);
}

static void test_golden_configs(void **state)
{
    const char *folder = lrd_test_shared("golden");
    if (folder == NULL) {
        print_message("SKIPPED: ../shared/golden is absent\n");
        skip();
    }
    assert_true(read_folder(folder, "config.yaml") >= 6);
    lrd_settings_t *s = NULL;
    assert_ok(lrd_settings_read(lrd_test_shared("golden/head128-untied/config.yaml"), &s));
    assert_true(s->lora.target_modules.is_single);
    assert_string_equal(s->lora.target_modules.text[0],
                        ".*\\.h\\.1\\.mlp\\.dense_(h_to_4h|4h_to_h)");
    lrd_settings_free(s);
}

/* The tutorial's run, value by value. */
static void test_tutorial(void **state)
{
    lrd_settings_t *s = NULL;
    assert_ok(lrd_settings_read(lrd_test_golden("../../configs/squad.yaml"), &s));
    assert_string_equal(s->model.name_or_path, "bigscience/bloom-3b");
    assert_int_equal(s->model.dtype, LRD_MODEL_DTYPE_FLOAT16);
    assert_int_equal(s->lora.r, 8);
    assert_true(s->lora.lora_alpha == 16 && s->lora.lora_dropout == 0.05);
    assert_string_equal(s->lora.target_modules.text[0], "query_key_value");
    assert_int_equal(s->lora.target_modules.n, 1);
    assert_int_equal(s->lora.exclude_modules.n, 0);
    assert_int_equal(s->lora.rank_pattern.n, 0);
    assert_int_equal(s->data.format, LRD_FORMAT_SQUAD);
    assert_string_equal(s->data.train_file, "rajpurkar/squad_v2");
    assert_null(s->data.eval_file);
    assert_string_equal(s->data.prompt_template,
                        "### CONTEXT\n{context}\n\n### QUESTION\n{question}\n\n### "
                        "ANSWER\n{answer}</s>");
    assert_int_equal(s->data.on_too_long, LRD_TOO_LONG_ERROR);
    assert_string_equal(s->training.output_dir, "out");
    assert_int_equal(s->training.per_device_train_batch_size, 4);
    assert_int_equal(s->training.gradient_accumulation_steps, 4);
    assert_int_equal(s->training.max_steps, 100);
    assert_true(s->training.learning_rate == 1e-3 && s->training.warmup_steps == 100);
    assert_true(s->training.adam_epsilon == 1e-8 && s->training.adam_beta2 == 0.999);
    assert_int_equal(s->training.resume_from_checkpoint.kind, LRD_RESUME_INTERRUPTED);
    assert_int_equal(s->training.gradient_checkpointing, LRD_CHECKPOINTING_NONE);
    assert_int_equal(s->training.data_seed, LRD_SETTING_NULL);
    assert_int_equal(s->parallel.reduction, LRD_REDUCTION_REPRODUCIBLE);
    assert_int_equal(s->parallel.pipeline_chunks, LRD_SETTING_AUTO);
    lrd_settings_free(s);
}

/* docs/configuration.md is what the table says. print_reference makes it. */
static void test_reference(void **state)
{
    lrd_buf_t expected = {0}, file = {0};
    assert_ok(lrd_settings_print_reference(&expected));
    assert_ok(lrd_file_read(lrd_test_golden("../../docs/configuration.md"), 1 << 20, &file));
    if (expected.size != file.size || memcmp(expected.data, file.data, file.size) != 0)
        fail_msg("docs/configuration.md is out of date: see tests/app/print_reference.c");
    lrd_buf_release(&expected);
    lrd_buf_release(&file);
}

static void test_help(void **state)
{
    lrd_buf_t help = {0};
    assert_ok(lrd_settings_print_help(&help));
    for (int key = 0; key < LRD_N_KEYS; key++) {
        char name[128];
        snprintf(name, sizeof name, "\n  %s: ", strchr(lrd_key_name(key), '.') + 1);
        assert_true(lrd_test_contains(help.data, name));
    }
    assert_true(lrd_test_contains(
        help.data, "  max_steps: -1  (a whole number, -1 to 2147483647)\n"
                   "      Updates to make. Above 0 it wins over num_train_epochs.\n"));
    assert_null(strchr(help.data, '`'));
    lrd_buf_release(&help);
}

static void test_nearest(void **state)
{
    static const char *const names[] = {"lora_alpha", "lora_dropout", "r", "use_rslora", "bias"};
    static const struct {
        const char *word, *nearest;
    } cases[] = {
        {"lora_alhpa", "lora_alpha"},
        {"alpha", NULL},
        {"LoRA-Alpha", "lora_alpha"},
        {"lora_drop", "lora_dropout"},
        {"lora_dropotu", "lora_dropout"},
        {"rslora", NULL},
        {"biass", "bias"},
        {"bisa", "bias"},
        {"", NULL},
        {"x", NULL},
        {"xxxx", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *nearest = lrd_nearest(cases[i].word, names, 5);
        if (cases[i].nearest == NULL ? nearest != NULL
                                     : nearest == NULL || strcmp(nearest, cases[i].nearest) != 0)
            fail_msg("%s gave %s", cases[i].word, nearest != NULL ? nearest : "nothing");
    }
    char long_word[100] = {0};
    memset(long_word, 'a', 64);
    assert_null(lrd_nearest(long_word, names, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_peft_and_transformers),
        cmocka_unit_test(test_own_defaults),
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_null_and_set),
        cmocka_unit_test(test_byte_order_mark_and_line_ends),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_json_there_and_back),
        cmocka_unit_test(test_configs),
        cmocka_unit_test(test_golden_configs),
        cmocka_unit_test(test_tutorial),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_nearest),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
