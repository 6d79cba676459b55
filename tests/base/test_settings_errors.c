/* Settings that are refused: the whole message, with its place. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/settings.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The text is refused with exactly this message. */
static void refuse(const char *text, size_t bytes, const char *message)
{
    lrd_settings_t *s = NULL;
    const lrd_status_t status = lrd_settings_parse(text, bytes, "t.yaml", &s);
    if (status != LRD_ERR_CONFIG || strcmp(lrd_error_text(status), message) != 0)
        fail_msg("%.200s\ngave %d \"%s\"\nexpected \"%s\"", text, (int)status,
                 lrd_error_text(status), message);
    assert_null(s);
    lrd_error_clear();
}

typedef struct refused {
    const char *text, *message;
} refused_t;

static void refuse_all(const refused_t *cases, size_t n)
{
    for (size_t i = 0; i < n; i++)
        refuse(cases[i].text, strlen(cases[i].text), cases[i].message);
}

#define SECTIONS "model, lora, data, training, parallel"

static void test_keys_and_sections(void **state)
{
    static const refused_t cases[] = {
        {"lora:\n  r: 8\n\n  lora_alhpa: 16\n",
         "t.yaml:4: lora.lora_alhpa: unknown key; did you mean lora_alpha?"},
        {"lora:\n  max_steps: 8\n",
         "t.yaml:2: lora.max_steps: unknown key; max_steps belongs to the section training"},
        {"lora:\n  max_step: 8\n",
         "t.yaml:2: lora.max_step: unknown key; did you mean training.max_steps?"},
        {"training:\n  fp16: true\n",
         "t.yaml:2: training.fp16: unknown key; write model.dtype: float16"},
        {"lora: {use_dora: true}", "t.yaml:1: lora.use_dora: unknown key; DoRA is not supported"},
        {"lora:\n  zebra: 8\n",
         "t.yaml:2: lora.zebra: unknown key (lora-dist train --help lists them)"},
        {"trainning:\n  r: 8\n", "t.yaml:1: trainning: unknown section; did you mean training?"},
        {"# x\nzebra:\n", "t.yaml:2: zebra: unknown section; there are " SECTIONS},
        {"max_steps: 3\n",
         "t.yaml:1: max_steps: unknown section; max_steps is a key of the section training"},
        {"lora:\n  r: 8\n  r: 9\n", "t.yaml:3: lora.r: the key is repeated"},
        {"lora:\n  r: null\n  r: 9\n", "t.yaml:3: lora.r: the key is repeated"},
        {"lora:\nmodel:\nlora:\n", "t.yaml:3: lora: the section is repeated"},
        {"lora: 3\n",
         "t.yaml:1: lora: expected keys and values, indented below the section's name"},
        {"lora: [r]\n",
         "t.yaml:1: lora: expected keys and values, indented below the section's name"},
        {"[1]: 3\n", "t.yaml:1: a list or map stands where a key is expected"},
        {"lora:\n  {r: 8}: 3\n", "t.yaml:2: lora: a list or map stands where a key is expected"},
        {"lora:\n  rank_pattern:\n    ? [a]\n    : 3\n",
         "t.yaml:3: lora.rank_pattern: a list or map stands where a key is expected"},
        {"\"lo\\0ra\": 3\n", "t.yaml:1: a key holds the character U+0000"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_types(void **state)
{
    static const refused_t cases[] = {
        {"lora:\n  r: \"8\"\n",
         "t.yaml:2: lora.r: expected a whole number, got the text \"8\"; write it without quotes"},
        {"lora:\n  r: eight\n",
         "t.yaml:2: lora.r: expected a whole number, got the text \"eight\""},
        {"lora:\n  r: 8.0\n", "t.yaml:2: lora.r: expected a whole number, got the number 8.0"},
        {"lora:\n  r: 010\n", "t.yaml:2: lora.r: expected a whole number, got the text \"010\"; "
                              "write it without quotes"},
        {"lora:\n  r: [8]\n", "t.yaml:2: lora.r: expected a whole number, got a list"},
        {"lora:\n  r: {a: 8}\n", "t.yaml:2: lora.r: expected a whole number, got a map"},
        {"lora:\n  lora_alpha: yes\n", "t.yaml:2: lora.lora_alpha: expected a number, got true"},
        {"training:\n  learning_rate: 1e-3x\n",
         "t.yaml:2: training.learning_rate: expected a number, got the text \"1e-3x\""},
        {"training:\n  eval_steps: 0.1\n",
         "t.yaml:2: training.eval_steps: expected a whole number or null, got the number 0.1"},
        {"training:\n  push_to_hub: 1\n",
         "t.yaml:2: training.push_to_hub: expected true or false, got the number 1"},
        {"model:\n  revision: 1234567\n",
         "t.yaml:2: model.revision: expected text, got the number 1234567; put it in quotes"},
        {"training:\n  output_dir: no\n",
         "t.yaml:2: training.output_dir: expected text, got false; put it in quotes"},
        {"data:\n  prompt_template: {context}\n",
         "t.yaml:2: data.prompt_template: expected text, got a map; put it in quotes"},
        {"data:\n  train_file: \"\"\n", "t.yaml:2: data.train_file: the text is empty"},
        {"data:\n  train_file: \"a\\0b\"\n",
         "t.yaml:2: data.train_file: the text holds the character U+0000"},
        {"lora:\n  target_modules: 3\n",
         "t.yaml:2: lora.target_modules: expected a list of names or a single text, got the "
         "number 3"},
        {"lora:\n  target_modules:\n  - a\n  - 3\n",
         "t.yaml:2: lora.target_modules[1]: expected text, got the number 3; put it in quotes"},
        {"lora:\n  target_modules: [a, ~]\n",
         "t.yaml:2: lora.target_modules[1]: expected text, got null"},
        {"lora:\n  target_modules: []\n", "t.yaml:2: lora.target_modules: the list is empty"},
        {"lora:\n  layers_to_transform: [0, a]\n",
         "t.yaml:2: lora.layers_to_transform[1]: expected a whole number, got the text \"a\""},
        {"lora:\n  layers_to_transform: a\n",
         "t.yaml:2: lora.layers_to_transform: expected a whole number or a list of them, got the "
         "text \"a\""},
        {"lora:\n  rank_pattern: [1]\n",
         "t.yaml:2: lora.rank_pattern: expected a map of patterns to whole numbers, got a list"},
        {"lora:\n  rank_pattern: {a: 1.5}\n",
         "t.yaml:2: lora.rank_pattern.\"a\": expected a whole number, got the number 1.5"},
        {"lora:\n  rank_pattern:\n    a: 1\n    b: 2\n    a: 3\n",
         "t.yaml:5: lora.rank_pattern: \"a\" is repeated"},
        {"training:\n  resume_from_checkpoint: 5\n",
         "t.yaml:2: training.resume_from_checkpoint: expected true, false or a folder, got the "
         "number 5"},
        {"parallel:\n  data: full\n",
         "t.yaml:2: parallel.data: expected a whole number or auto, got the text \"full\""},
        {"parallel:\n  device_map: even\n",
         "t.yaml:2: parallel.device_map: expected auto, balanced, sequential or a map of modules "
         "to devices, got the text \"even\""},
        {"parallel:\n  device_map: {a: gpu}\n",
         "t.yaml:2: parallel.device_map.\"a\": expected the number of a device, cpu or disk, got "
         "the text \"gpu\""},
        {"parallel:\n  device_map: {a: -1}\n",
         "t.yaml:2: parallel.device_map.\"a\": expected the number of a device, cpu or disk, got "
         "the number -1"},
        {"parallel:\n  max_memory: 24GiB\n",
         "t.yaml:2: parallel.max_memory: expected a list of sizes such as 24GiB, or a map of "
         "devices to sizes, got the text \"24GiB\""},
        {"parallel:\n  max_memory: [24 Gib]\n",
         "t.yaml:2: parallel.max_memory[0]: expected a size such as 24GiB or 800MB, got the text "
         "\"24 Gib\""},
        {"parallel:\n  max_memory: [0]\n",
         "t.yaml:2: parallel.max_memory[0]: expected a size such as 24GiB or 800MB, got the "
         "number 0"},
        {"parallel:\n  max_memory: {gpu: 1GB}\n",
         "t.yaml:2: parallel.max_memory: expected the number of a device, cpu or disk, got "
         "\"gpu\""},
        {"parallel:\n  max_memory: [9999999999TiB]\n",
         "t.yaml:2: parallel.max_memory[0]: expected a size such as 24GiB or 800MB, got the text "
         "\"9999999999TiB\""},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_ranges_and_choices(void **state)
{
    static const refused_t cases[] = {
        {"lora:\n  r: 0\n", "t.yaml:2: lora.r: the number 0 is out of range: 1 to 65536"},
        {"lora:\n  lora_alpha: 0\n",
         "t.yaml:2: lora.lora_alpha: the number 0 is out of range: above 0"},
        {"lora:\n  lora_dropout: 1.0\n",
         "t.yaml:2: lora.lora_dropout: the number 1.0 is out of range: at least 0 and below 1"},
        {"lora:\n  seed: 4294967296\n",
         "t.yaml:2: lora.seed: the number 4294967296 is out of range: 0 to 4294967295"},
        {"lora:\n  alpha_pattern: {b: 1, a: -0.5}\n",
         "t.yaml:2: lora.alpha_pattern.\"a\": the number -0.5 is out of range: above 0"},
        {"training:\n  learning_rate: -1e-3\n",
         "t.yaml:2: training.learning_rate: the number -0.001 is out of range: at least 0"},
        {"training:\n  max_steps: -2\n",
         "t.yaml:2: training.max_steps: the number -2 is out of range: -1 to 2147483647"},
        {"training:\n  max_steps: 9223372036854775808\n",
         "t.yaml:2: training.max_steps: the number 9223372036854775808 does not fit in 64 bits"},
        {"training:\n  max_steps: -9223372036854775808\n",
         "t.yaml:2: training.max_steps: the number -9223372036854775808 is out of range: -1 to "
         "2147483647"},
        {"training:\n  learning_rate: 1e999\n",
         "t.yaml:2: training.learning_rate: 1e999 is not a finite number"},
        {"training:\n  learning_rate: .nan\n",
         "t.yaml:2: training.learning_rate: .nan is not a finite number"},
        {"training:\n  weight_decay: -.Inf\n",
         "t.yaml:2: training.weight_decay: -.Inf is not a finite number"},
        {"training:\n  lr_scheduler_type: cosin\n",
         "t.yaml:2: training.lr_scheduler_type: expected one of linear, cosine, constant, "
         "constant_with_warmup (did you mean cosine?), got the text \"cosin\""},
        {"training:\n  gradient_checkpointing: true\n",
         "t.yaml:2: training.gradient_checkpointing: expected one of none, attention, block, auto, "
         "got true"},
        {"model:\n  dtype: 16\n",
         "t.yaml:2: model.dtype: expected one of auto, float32, float16, bfloat16, got the number "
         "16"},
        {"lora:\n  bias: lora_only\n",
         "t.yaml:2: lora.bias: \"lora_only\": the biases stay frozen; not supported"},
        {"lora:\n  init_lora_weights: pissa\n",
         "t.yaml:2: lora.init_lora_weights: \"pissa\": pissa changes the base weights; not "
         "supported"},
        {"lora:\n  init_lora_weights: pissa_niter_16\n",
         "t.yaml:2: lora.init_lora_weights: \"pissa_niter_16\": pissa changes the base weights; "
         "not supported"},
        {"lora:\n  init_lora_weights: gausian\n",
         "t.yaml:2: lora.init_lora_weights: expected one of true, false, gaussian (did you mean "
         "gaussian?), got the text \"gausian\""},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
}

static void test_yaml(void **state)
{
    static const char none[] =
        "t.yaml: there are no settings in it; expected the sections " SECTIONS;
    static const char no_map[] =
        "t.yaml:1: expected the sections " SECTIONS ", each a name with a colon";
    const refused_t cases[] = {
        {"", none},
        {"# nothing\n\n", none},
        {"---\n...\n", none},
        {"null\n", none},
        {"hello\n", no_map},
        {"- lora\n", no_map},
        {"\"\"\n", no_map},
        {"lora: {r: 8}\n---\nlora: {r: 9}\n",
         "t.yaml:2: a second document begins here; one is expected"},
        {"lora:\n  r: &x 8\n", "t.yaml:2: the anchor &x: anchors are not supported (a text that "
                               "begins with & needs quotes)"},
        {"lora:\n  target_modules: &x [a]\n",
         "t.yaml:2: the anchor &x: anchors are not supported (a text that begins with & needs "
         "quotes)"},
        {"lora: &x\n  r: 3\n", "t.yaml:1: the anchor &x: anchors are not supported (a text that "
                               "begins with & needs quotes)"},
        {"lora:\n  target_modules: *x\n",
         "t.yaml:2: the alias *x: aliases are not supported; write the value out (a text that "
         "begins with * needs quotes)"},
        {"lora:\n  r: !!int 8\n", "t.yaml:2: the tag tag:yaml.org,2002:int: tags are not supported "
                                  "(a text that begins with ! needs quotes)"},
        {"lora:\n  r: ! 8\n", "t.yaml:2: the tag !: tags are not supported (a text that begins "
                              "with ! needs quotes)"},
        {"lora:\n  target_modules: [[[[a]]]]\n",
         "t.yaml:2: lora.target_modules: nested deeper than any setting is"},
        {"lora:\n\tr: 8\n",
         "t.yaml:2: not valid YAML in column 1: found character that cannot start any token (a "
         "tab? YAML indents with spaces; put text with special characters in quotes)"},
        {"data:\n  no_answer_text: Answer: none\n",
         "t.yaml:2: not valid YAML in column 25: mapping values are not allowed in this context "
         "(is the line above indented right? put text with \": \" in quotes)"},
        {"lora:\n  target_modules: [a, b\ntraining:\n  seed: 1\n",
         "t.yaml:3: not valid YAML in column 9: did not find expected ',' or ']'"},
        {"lora:\n  r: 8\n seed: 3\n",
         "t.yaml:3: not valid YAML in column 2: did not find expected key"},
        {"lora:\n  r: \"8\n", "t.yaml:3: not valid YAML in column 1: found unexpected end of "
                              "stream"},
        {"lora:\n  r: 8\xff\n", "t.yaml:2: not valid UTF-8 (byte 12)"},
        {"lora:\n  r: \xed\xa0\x80\n", "t.yaml:2: not valid UTF-8 (byte 11)"},
        {"lora:\n  r: \x01\n",
         "t.yaml: not valid YAML: control characters are not allowed (byte 11)"},
        {"%YAML 2.0\n---\nlora:\n",
         "t.yaml:1: not valid YAML in column 1: found incompatible YAML document"},
    };
    refuse_all(cases, sizeof cases / sizeof cases[0]);
    refuse("lora:\n  r: 8\n\0", 14,
           "t.yaml: not valid YAML: control characters are not allowed (byte 13)");
    refuse("\xff\xfel\0o\0", 6, "t.yaml:1: not valid UTF-8 (byte 0)"); /* UTF-16 */
}

/* Long input ends in a message, and soon. */
static void test_sizes(void **state)
{
    const size_t n = 1 << 20;
    char *text = lrd_malloc(n + 1);
    assert_non_null(text);
    lrd_settings_t *s = NULL;
    memset(text, '[', n);
    assert_int_equal(lrd_settings_parse(text, n, "t.yaml", &s), LRD_ERR_CONFIG);
    lrd_error_clear();
    memcpy(text, "lora: {target_modules: ", 23);
    assert_int_equal(lrd_settings_parse(text, n, "t.yaml", &s), LRD_ERR_CONFIG);
    lrd_error_clear();
    for (size_t i = 23; i < n; i++)
        text[i] = i % 2 == 0 ? 'a' : ',';
    text[23] = '[';
    refuse(text, n, "t.yaml:1: lora.target_modules: more than 4096 entries");
    memset(text, 'x', n);
    assert_int_equal(lrd_settings_parse(text, n, "t.yaml", &s), LRD_ERR_CONFIG);
    lrd_error_clear();
    text[n] = '\n';
    assert_fails(lrd_settings_parse(text, n + 1, "t.yaml", &s), LRD_ERR_CONFIG,
                 "t.yaml: 1048577 bytes of settings, more than the 1048576 that are read");
    const char *path = lrd_test_temporary("large.yaml");
    assert_ok(lrd_file_write(path, text, n + 1));
    assert_fails(lrd_settings_read(path, &s), LRD_ERR_IO, "large.yaml has 1048577 bytes");
    assert_fails(lrd_settings_read(lrd_test_temporary("absent.yaml"), &s), LRD_ERR_IO,
                 "absent.yaml: No such file");
    lrd_free(text);
}

static void test_set(void **state)
{
    static const refused_t cases[] = {
        {"training.max_steps",
         "--set training.max_steps: expected section.key=value, such as training.max_steps=10"},
        {"max_steps=10", "--set max_steps: did you mean training.max_steps=10?"},
        {"zebra=10", "--set zebra=10: expected section.key=value, such as training.max_steps=10"},
        {"trianing.seed=1", "--set: trianing: unknown section; did you mean training?"},
        {"training.sede=1", "--set: training.sede: unknown key; did you mean seed?"},
        {"training.seed=x", "--set training.seed: expected a whole number, got the text \"x\""},
        {"training.seed=-1", "--set training.seed: the number -1 is out of range: 0 to 4294967295"},
        {"training.output_dir=a: b",
         "--set training.output_dir: expected text, got a map; put it in quotes"},
        {"training.seed=1\n--- 2", "--set training.seed: a second document begins here; one is "
                                   "expected"},
        {"training.seed=[", "--set training.seed: not valid YAML in column 1: did not find "
                            "expected node content"},
        {"training.seed=\xff", "--set training.seed: not valid UTF-8 (byte 0)"},
        {"training.seed=*x", "--set training.seed: the alias *x: aliases are not supported; write "
                             "the value out (a text that begins with * needs quotes)"},
        {"lora.rank_pattern={a: 1, a: 1}", "--set lora.rank_pattern: \"a\" is repeated"},
    };
    lrd_settings_t *s = NULL;
    assert_ok(lrd_settings_create(&s));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const lrd_status_t status = lrd_settings_set(s, cases[i].text);
        if (status != LRD_ERR_CONFIG || strcmp(lrd_error_text(status), cases[i].message) != 0)
            fail_msg("%s gave \"%s\"", cases[i].text, lrd_error_text(status));
        lrd_error_clear();
    }
    for (int key = 0; key < LRD_N_KEYS; key++)
        assert_false(lrd_settings_written(s, key));
    lrd_settings_free(s);
}

/* The rules between keys; a message that is NULL: no error. */
static void test_rules(void **state)
{
    static const refused_t cases[] = {
        {"training:\n  gradient_accumulation_steps: 4\n  global_batch_size: 16\n",
         "t.yaml:3: training.global_batch_size: stands beside gradient_accumulation_steps, and "
         "both say how large an update is: leave one out"},
        {"training: {gradient_accumulation_steps: 4, global_batch_size: null}", NULL},
        {"training:\n  warmup_steps: 1.5\n",
         "t.yaml:2: training.warmup_steps: 1.5 is neither a whole number of updates nor a "
         "fraction below 1"},
        {"training: {warmup_steps: 0.5}", NULL},
        {"data:\n  eval_file: a\n  validation_split: 0.1\n",
         "t.yaml:3: data.validation_split: stands beside eval_file, and both say what to evaluate "
         "on: leave one out"},
        {"training:\n  eval_steps: 5\n",
         "t.yaml:2: training.eval_steps: there is nothing to evaluate on: write data.eval_file or "
         "data.validation_split"},
        {"training: {eval_steps: 5}\ndata: {validation_split: 0.1}", NULL},
        {"training:\n  metric_for_best_model: f1\n",
         "t.yaml:2: training.metric_for_best_model: needs evaluations: write eval_steps"},
        {"training:\n  metric_for_best_model: f1\n  eval_steps: 5\n"
         "data: {eval_file: a, format: tokenized}\n",
         "t.yaml:2: training.metric_for_best_model: exact and f1 compare answers, which only "
         "data.format: squad has"},
        {"training: {metric_for_best_model: loss}", NULL},
        {"training:\n  predict_with_generate: true\n",
         "t.yaml:2: training.predict_with_generate: needs evaluations: write eval_steps"},
        {"training:\n  predict_with_generate: true\n  eval_steps: 5\n"
         "data: {eval_file: a, max_length: 64}\n",
         "t.yaml:2: training.predict_with_generate: answers of "
         "training.generation_max_new_tokens 64 leave no room for a question in data.max_length "
         "64"},
        {"training: {predict_with_generate: true, eval_steps: 5}\ndata: {eval_file: a}\n", NULL},
        {"training:\n  load_best_model_at_end: true\n",
         "t.yaml:2: training.load_best_model_at_end: needs evaluations: write eval_steps"},
        {"training:\n  load_best_model_at_end: true\n  eval_steps: 7\ndata: {eval_file: a}\n",
         "t.yaml:2: training.load_best_model_at_end: needs a checkpoint at evaluated steps: "
         "save_steps 500 is not a multiple of eval_steps 7"},
        {"training: {load_best_model_at_end: true, eval_steps: 250}\ndata: {eval_file: a}\n", NULL},
        {"data:\n  format: jsonl\n",
         "t.yaml:2: data.format: jsonl needs data.prompt_template, which names the members of a "
         "record"},
        {"data:\n  format: tokenized\n  on_too_long: truncate_context\n",
         "t.yaml:3: data.on_too_long: truncate_context cuts the context, which only data.format: "
         "squad has; write drop or error"},
        {"lora:\n  layers_to_transform: 1\n  target_modules: all-linear\n",
         "t.yaml:2: lora.layers_to_transform: cannot stand beside a target_modules that is a "
         "single text, as in PEFT: write target_modules as a list, or the layers into the regular "
         "expression"},
        {"lora: {layers_to_transform: 1, target_modules: [dense]}", NULL},
        {"training:\n  resume_from_checkpoint: true\n  overwrite_output_dir: true\n",
         "t.yaml:3: training.overwrite_output_dir: starts anew, and resume_from_checkpoint: true "
         "goes on: leave one out"},
        {"training: {resume_from_checkpoint: false, overwrite_output_dir: true}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_settings_t *s = NULL;
        assert_ok(lrd_settings_parse(cases[i].text, strlen(cases[i].text), "t.yaml", &s));
        const lrd_status_t status = lrd_settings_check(s);
        const char *message = status == LRD_OK ? NULL : lrd_error_text(status);
        if (cases[i].message == NULL ? message != NULL
                                     : message == NULL || strcmp(message, cases[i].message) != 0)
            fail_msg("%s\ngave \"%s\"", cases[i].text, message != NULL ? message : "success");
        lrd_error_clear();
        lrd_settings_free(s);
    }
}

/* What a check writes to standard error. */
static void warnings_of(const char *yaml, char *text_out, size_t n)
{
    lrd_settings_t *s = NULL;
    FILE *log = tmpfile();
    assert_non_null(log);
    assert_ok(lrd_settings_parse(yaml, strlen(yaml), "t.yaml", &s));
    assert_ok(lrd_settings_set(s, "training.seed=1"));
    fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    dup2(fileno(log), STDERR_FILENO);
    const lrd_status_t status = lrd_settings_check(s);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(log);
    text_out[fread(text_out, 1, n - 1, log)] = '\0';
    fclose(log);
    assert_ok(status);
    lrd_settings_free(s);
}

static void test_warnings(void **state)
{
    static const refused_t cases[] = {
        {"training:\n  max_steps: 10\n  num_train_epochs: 2\n",
         "warning: t.yaml:3: training.num_train_epochs: has no effect: max_steps 10 wins\n"},
        {"training: {max_steps: -1, num_train_epochs: 2}", ""},
        {"training: {max_steps: 10}", ""},
        {"training:\n  warmup_steps: 10\n  warmup_ratio: 0.5\n",
         "warning: t.yaml:3: training.warmup_ratio: has no effect: warmup_steps 10 wins\n"},
        {"training:\n  warmup_ratio: 0.1\n  lr_scheduler_type: constant\n",
         "warning: t.yaml:3: training.lr_scheduler_type: constant has no warm-up; "
         "constant_with_warmup has\n"},
        {"training:\n  max_tokens_per_micro_batch: 9\n  per_device_train_batch_size: 2\n"
         "  global_batch_size: 8\n",
         "warning: t.yaml:3: training.per_device_train_batch_size: has no effect beside "
         "max_tokens_per_micro_batch and global_batch_size\n"},
        {"data:\n  format: tokenized\n  prompt_template: x\n",
         "warning: t.yaml:3: data.prompt_template: has no effect: the records are tokens "
         "already\n"},
        {"data:\n  format: tokenized\n  loss_on: answer\n",
         "warning: t.yaml:3: data.loss_on: has no effect: the records' labels say what counts\n"},
        {"data:\n  format: tokenized\n  no_answer_text: x\n",
         "warning: t.yaml:3: data.no_answer_text: has no effect: only squad has questions without "
         "an answer\n"},
        {"training: {hub_model_id: a/b}",
         "warning: t.yaml:1: training.hub_model_id: has no effect without push_to_hub: true\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        warnings_of(cases[i].text, text, sizeof text);
        assert_string_equal(text, cases[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_and_sections),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_ranges_and_choices),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_set),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_warnings),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
