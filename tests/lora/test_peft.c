/* Adapters on disk, against folders that PEFT wrote
 * (tests/golden/lora/make_lora.py, ../shared/golden). */
#include "support/test_support.h"

#include "lora_support.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "base/version.h"
#include "lora/peft.h"

#include <stdio.h>
#include <string.h>

static lrd_adapter_t *make(const lrd_settings_t *s, int64_t hidden, int layers)
{
    bloom_modules_t m = bloom_modules_make(hidden, layers);
    lrd_adapter_t *adapter = NULL;
    assert_ok(lrd_adapter_create(&s->lora, m.module, m.n, "query_key_value", &adapter));
    bloom_modules_free(&m);
    return adapter;
}

static float *make_params(const lrd_adapter_t *adapter)
{
    float *params = lrd_calloc((size_t)adapter->n_params, sizeof *params);
    assert_non_null(params);
    return params;
}

static lrd_buf_t read_in(const char *folder, const char *name)
{
    lrd_buf_t buf = {0};
    char *path = lrd_path_join(folder, name);
    assert_non_null(path);
    assert_ok(lrd_file_read(path, 1 << 26, &buf));
    lrd_free(path);
    return buf;
}

static void write_in(const char *folder, const char *name, const char *text)
{
    char *path = lrd_path_join(folder, name);
    assert_non_null(path);
    assert_ok(lrd_folder_make(folder));
    assert_ok(lrd_file_write(path, text, strlen(text)));
    lrd_free(path);
}

static const lrd_peft_card_t card = {"bigscience/bloom-560m", NULL, "What it is.\n"};

static void assert_same_settings(const lrd_lora_settings_t *a, const lrd_lora_settings_t *b)
{
    assert_int_equal(a->r, b->r);
    assert_true(a->lora_alpha == b->lora_alpha && a->lora_dropout == b->lora_dropout);
    assert_int_equal(a->use_rslora, b->use_rslora);
    assert_int_equal(a->init_lora_weights, b->init_lora_weights);
    assert_int_equal(a->layers_to_transform.n, b->layers_to_transform.n);
    for (size_t i = 0; i < a->layers_to_transform.n; i++)
        assert_int_equal(a->layers_to_transform.value[i], b->layers_to_transform.value[i]);
    assert_int_equal(a->target_modules.n, b->target_modules.n);
    for (size_t i = 0; i < a->target_modules.n; i++)
        assert_string_equal(a->target_modules.text[i], b->target_modules.text[i]);
    assert_int_equal(a->exclude_modules.n, b->exclude_modules.n);
    assert_int_equal(a->rank_pattern.n, b->rank_pattern.n);
    assert_int_equal(a->alpha_pattern.n, b->alpha_pattern.n);
    for (size_t i = 0; i < a->rank_pattern.n; i++) {
        assert_string_equal(a->rank_pattern.entry[i].text, b->rank_pattern.entry[i].text);
        assert_true(a->rank_pattern.entry[i].value == b->rank_pattern.entry[i].value);
    }
}

/* Reads a folder, writes it again, and compares the weights' bytes and the settings. */
static void rewrite(const char *folder, int64_t hidden, int layers, const char *copy)
{
    lrd_settings_t *s = NULL, *again = NULL;
    assert_ok(lrd_peft_read_config(folder, &s));
    lrd_adapter_t *adapter = make(s, hidden, layers);
    float *params = make_params(adapter);
    assert_ok(lrd_peft_read_params(folder, adapter, params));
    assert_ok(lrd_folder_make(copy));
    assert_ok(lrd_peft_write(copy, adapter, &s->lora, params, &card));
    lrd_buf_t a = read_in(folder, "adapter_model.safetensors");
    lrd_buf_t b = read_in(copy, "adapter_model.safetensors");
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    lrd_buf_release(&a);
    lrd_buf_release(&b);
    assert_ok(lrd_peft_read_config(copy, &again));
    assert_same_settings(&s->lora, &again->lora);
    lrd_settings_free(again);
    lrd_settings_free(s);
    lrd_free(params);
    lrd_adapter_free(adapter);
}

static void test_rewrites_peft_s_folder(void **state)
{
    lrd_settings_t *s = NULL;
    const char *folder = lrd_test_golden("lora/saved"), *copy = lrd_test_temporary("copy");
    rewrite(folder, 16, 11, copy);
    assert_ok(lrd_peft_read_config(folder, &s));
    assert_int_equal(s->lora.r, 2);
    assert_true(s->lora.lora_alpha == 16 && s->lora.lora_dropout == 0.05 && s->lora.use_rslora);
    assert_int_equal(s->lora.layers_to_transform.n, 3);
    assert_int_equal(s->lora.layers_to_transform.value[2], 10);
    assert_int_equal(s->lora.exclude_modules.n, 1);
    assert_true(s->lora.alpha_pattern.entry[0].value == 5);
    assert_null(s->model.name_or_path);
    lrd_settings_free(s);
}

static void test_rewrites_the_shared_folders(void **state)
{
    static const struct {
        const char *folder;
        int64_t hidden;
        int layers;
    } cases[] = {
        {"golden/qkv/adapter", 128, 3},
        {"golden/qkv/adapter_init", 128, 3},
        {"golden/all-linear/adapter_init", 96, 2},
        {"golden/all-linear/adapter_bf16", 96, 2},
        {"golden/head80/adapter", 160, 2},
        {"golden/head128-untied/adapter", 256, 2},
        {"golden/post-layernorm/adapter", 96, 2},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *folder = lrd_test_shared(cases[i].folder);
        if (folder == NULL)
            continue;
        rewrite(folder, cases[i].hidden, cases[i].layers, lrd_test_temporary("shared"));
        n++;
    }
    if (n == 0) {
        printf("SKIPPED: ../shared/golden is not here\n");
        skip();
    }
    assert_int_equal(n, sizeof cases / sizeof cases[0]);
}

static const char expected_config[] = "{\n"
                                      "  \"alpha_pattern\": {},\n"
                                      "  \"auto_mapping\": null,\n"
                                      "  \"base_model_name_or_path\": \"a \\\"b\\\"\",\n"
                                      "  \"bias\": \"none\",\n"
                                      "  \"fan_in_fan_out\": false,\n"
                                      "  \"inference_mode\": true,\n"
                                      "  \"init_lora_weights\": true,\n"
                                      "  \"layers_pattern\": null,\n"
                                      "  \"layers_to_transform\": null,\n"
                                      "  \"lora_alpha\": 16,\n"
                                      "  \"lora_dropout\": 0.0,\n"
                                      "  \"modules_to_save\": null,\n"
                                      "  \"peft_type\": \"LORA\",\n"
                                      "  \"r\": 8,\n"
                                      "  \"rank_pattern\": {},\n"
                                      "  \"revision\": \"main\",\n"
                                      "  \"target_modules\": [\n"
                                      "    \"query_key_value\"\n"
                                      "  ],\n"
                                      "  \"task_type\": \"CAUSAL_LM\"\n"
                                      "}";

static void test_writes_the_keys_of_old_versions(void **state)
{
    const lrd_peft_card_t odd = {"a \"b\"", "main", NULL};
    const char *folder = lrd_test_temporary("keys");
    lrd_settings_t *s = settings_from_yaml("lora: {lora_alpha: 16}");
    lrd_adapter_t *adapter = make(s, 8, 2);
    float *params = make_params(adapter);
    assert_ok(lrd_folder_make(folder));
    assert_ok(lrd_peft_write(folder, adapter, &s->lora, params, &odd));
    lrd_buf_t config = read_in(folder, "adapter_config.json");
    lrd_buf_t readme = read_in(folder, "README.md");
    assert_string_equal(config.data, expected_config);
    assert_true(lrd_test_contains(readme.data, "---\nbase_model: \"a \\\"b\\\"\"\nlibrary_name"));
    assert_true(lrd_test_contains(readme.data, "\n- \"base_model:adapter:a \\\"b\\\"\"\n- lora\n"));
    assert_true(
        lrd_test_contains(readme.data, "from_pretrained(\"a \\\"b\\\"\", revision=\"main\")\n"));
    lrd_buf_release(&config);
    lrd_buf_release(&readme);
    lrd_free(params);
    lrd_adapter_free(adapter);
    lrd_settings_free(s);
}

static void test_writes_all_linear_as_names(void **state)
{
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"lora: {target_modules: all-linear, init_lora_weights: gaussian, lora_alpha: 2.5}",
         "\"target_modules\": [\n    \"query_key_value\",\n    \"dense\",\n"
         "    \"dense_h_to_4h\",\n    \"dense_4h_to_h\"\n  ]"},
        {"lora: {target_modules: '.*dense'}", "\"target_modules\": \".*dense\""},
        {"lora: {init_lora_weights: gaussian}", "\"init_lora_weights\": \"gaussian\""},
        {"lora: {init_lora_weights: false}", "\"init_lora_weights\": false"},
        {"lora: {lora_alpha: 2.5}", "\"lora_alpha\": 2.5"},
        {"lora: {rank_pattern: {z_x: 4, query_key_value: 2}}",
         "\"rank_pattern\": {\n    \"z_x\": 4,\n    \"query_key_value\": 2\n  }"},
    };
    const char *folder = lrd_test_temporary("names");
    assert_ok(lrd_folder_make(folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_settings_t *s = settings_from_yaml(cases[i].yaml);
        lrd_adapter_t *adapter = make(s, 8, 2);
        float *params = make_params(adapter);
        assert_ok(lrd_peft_write(folder, adapter, &s->lora, params, &card));
        lrd_buf_t config = read_in(folder, "adapter_config.json");
        if (!lrd_test_contains(config.data, cases[i].text))
            fail_msg("%s gave %s", cases[i].yaml, config.data);
        lrd_buf_release(&config);
        lrd_free(params);
        lrd_adapter_free(adapter);
        lrd_settings_free(s);
    }
}

static void test_writes_the_card(void **state)
{
    const char *copy = lrd_test_temporary("card");
    rewrite(lrd_test_golden("lora/saved"), 16, 11, copy);
    lrd_buf_t readme = read_in(copy, "README.md"), front = {0};
    assert_ok(lrd_file_read(lrd_test_golden("lora/front_matter.md"), 1 << 16, &front));
    assert_true(readme.size > front.size);
    assert_memory_equal(readme.data, front.data, front.size);
    assert_string_equal(readme.data + front.size,
                        "\n# LoRA adapter for bigscience/bloom-560m\n\nWhat it is.\n\n"
                        "## How to use it\n\n```python\nfrom peft import PeftModel\n"
                        "from transformers import AutoModelForCausalLM\n\n"
                        "base = AutoModelForCausalLM.from_pretrained(\"bigscience/bloom-560m\")\n"
                        "model = PeftModel.from_pretrained(base, \".\")  # this folder\n```\n\n"
                        "### Framework versions\n\n- lora-dist " LRD_VERSION "\n");
    lrd_buf_release(&readme);
    lrd_buf_release(&front);
}

static void test_reads_configs(void **state)
{
    static const struct {
        const char *members;
        lrd_status_t status;
        const char *text;
    } cases[] = {
        {"\"r\": 4", LRD_OK, ""},
        {"\"layers_pattern\": \"h\", \"layers_to_transform\": 1", LRD_OK, ""},
        {"\"layers_pattern\": [\"h\"]", LRD_OK, ""},
        {"\"layers_pattern\": []", LRD_OK, ""},
        {"\"layers_pattern\": \"layers\"", LRD_ERR_UNSUPPORTED, "layers_pattern is not supported"},
        {"\"layers_pattern\": [\"h\", \"g\"]", LRD_ERR_UNSUPPORTED, "layers_pattern is not"},
        {"\"future_key\": 1, \"merge_weights\": false", LRD_OK, ""},
        {"\"modules_to_save\": [], \"enable_lora\": null, \"lora_alpha\": null", LRD_OK, ""},
        {"\"init_lora_weights\": \"Gaussian\"", LRD_OK, ""},
        {"\"init_lora_weights\": \"eva\", \"eva_config\": {\"rho\": 2}", LRD_OK, ""},
        {"\"init_lora_weights\": \"pissa_niter_4\"", LRD_ERR_UNSUPPORTED,
         "init_lora_weights \"pissa_niter_4\" is not supported"},
        {"\"init_lora_weights\": \"olora\"", LRD_ERR_UNSUPPORTED, "\"olora\" is not supported"},
        {"\"init_lora_weights\": 1", LRD_ERR_FORMAT, "\"init_lora_weights\" is a number"},
        {"\"use_dora\": true", LRD_ERR_UNSUPPORTED, "the adapter uses use_dora"},
        {"\"lora_bias\": true", LRD_ERR_UNSUPPORTED, "the adapter uses lora_bias"},
        {"\"fan_in_fan_out\": true", LRD_ERR_UNSUPPORTED, "the adapter uses fan_in_fan_out"},
        {"\"enable_lora\": [true, false, true]", LRD_ERR_UNSUPPORTED, "uses enable_lora"},
        {"\"modules_to_save\": [\"lm_head\"]", LRD_ERR_UNSUPPORTED, "uses modules_to_save"},
        {"\"layer_replication\": [[0, 2]]", LRD_ERR_UNSUPPORTED, "uses layer_replication"},
        {"\"trainable_token_indices\": [1]", LRD_ERR_UNSUPPORTED, "uses trainable_token_indices"},
        {"\"target_parameters\": [\"w\"]", LRD_ERR_UNSUPPORTED, "uses target_parameters"},
        {"\"bias\": \"all\"", LRD_ERR_UNSUPPORTED, "bias \"all\" is not supported"},
        {"\"task_type\": \"SEQ_CLS\"", LRD_ERR_UNSUPPORTED, "task_type \"SEQ_CLS\" is not"},
        {"\"r\": 0", LRD_ERR_FORMAT, "lora.r"},
        {"\"r\": \"8\"", LRD_ERR_FORMAT, "lora.r"},
        {"\"target_modules\": []", LRD_ERR_FORMAT, "lora.target_modules"},
        {"\"target_modules\": 3", LRD_ERR_FORMAT, "lora.target_modules"},
        {"\"rank_pattern\": [1]", LRD_ERR_FORMAT, "lora.rank_pattern"},
    };
    const char *folder = lrd_test_temporary("config");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_settings_t *s = NULL;
        char *text = lrd_asprintf("{\"peft_type\": \"LORA\", %s}", cases[i].members);
        assert_non_null(text);
        write_in(folder, "adapter_config.json", text);
        const lrd_status_t status = lrd_peft_read_config(folder, &s);
        if (status != cases[i].status ||
            (status != LRD_OK && !lrd_test_contains(lrd_error_text(status), cases[i].text)) ||
            (status == LRD_OK) != (s != NULL))
            fail_msg("%s: %d, \"%s\"", text, (int)status, lrd_error_text(status));
        lrd_error_clear();
        lrd_settings_free(s);
        lrd_free(text);
    }
}

static void test_refuses_other_files(void **state)
{
    const char *folder = lrd_test_temporary("other");
    lrd_settings_t *s = NULL;
    assert_fails(lrd_peft_read_config(folder, &s), LRD_ERR_IO, "no adapter folder");
    write_in(folder, "adapter_config.json", "{\"peft_type\": \"IA3\"}");
    assert_fails(lrd_peft_read_config(folder, &s), LRD_ERR_UNSUPPORTED, "peft_type \"IA3\" is not");
    write_in(folder, "adapter_config.json", "{\"r\": 8}");
    assert_fails(lrd_peft_read_config(folder, &s), LRD_ERR_FORMAT, "\"peft_type\" is missing");
    write_in(folder, "adapter_config.json", "[]");
    assert_fails(lrd_peft_read_config(folder, &s), LRD_ERR_FORMAT, "expected an object");
    write_in(folder, "adapter_config.json", "{");
    assert_fails(lrd_peft_read_config(folder, &s), LRD_ERR_FORMAT, "not valid JSON");
    assert_null(s);
}

static const char qkv[] = "base_model.model.transformer.h.0.self_attention.query_key_value";

static void test_reads_params(void **state)
{
    static const struct {
        const char *name_a, *name_b, *name_c; /* after the module; c: one more, or NULL */
        lrd_dtype_t dtype;
        int64_t r;
        lrd_status_t status;
        const char *text;
    } cases[] = {
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_F32, 2, LRD_OK, ""},
        {".lora_A.default.weight", ".lora_B.default.weight", NULL, LRD_F32, 2, LRD_OK, ""},
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_BF16, 2, LRD_OK, ""},
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_F16, 2, LRD_OK, ""},
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_F64, 2, LRD_OK, ""},
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_I32, 2, LRD_ERR_FORMAT, "holds I32"},
        {".lora_A.weight", ".lora_B.weight", NULL, LRD_F32, 3, LRD_ERR_FORMAT,
         "query_key_value.lora_A.weight\" has shape [3, 4], expected [2, 4]"},
        {".lora_A.weight", ".lora_C.weight", NULL, LRD_F32, 2, LRD_ERR_FORMAT,
         "query_key_value.lora_B.weight\" is missing"},
        {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector", LRD_F32, 2, LRD_ERR_FORMAT,
         "query_key_value.lora_magnitude_vector\" fits nothing in this adapter"},
        {".lora_A.weight", ".lora_B.weight", ".lora_A.default.weight", LRD_F32, 2, LRD_ERR_FORMAT,
         "query_key_value.lora_A.default.weight\" fits nothing"},
    };
    static const char zeros[12 * 3 * 8];
    const void *data[3] = {zeros, zeros, zeros};
    const char *folder = lrd_test_temporary("params");
    const char *path = lrd_test_temporary("params/adapter_model.safetensors");
    lrd_settings_t *s = settings_from_yaml("lora: {r: 2}");
    lrd_adapter_t *adapter = make(s, 4, 1);
    float *params = make_params(adapter);
    assert_ok(lrd_folder_make(folder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *a = lrd_asprintf("%s%s", qkv, cases[i].name_a);
        char *b = lrd_asprintf("%s%s", qkv, cases[i].name_b);
        char *c = lrd_asprintf("%s%s", qkv, cases[i].name_c != NULL ? cases[i].name_c : "");
        const lrd_tensor_spec_t spec[] = {
            {a, cases[i].dtype, 2, {cases[i].r, 4}},
            {b, cases[i].dtype, 2, {12, cases[i].r}},
            {c, cases[i].dtype, 1, {12}},
        };
        assert_ok(lrd_safetensors_write(path, spec, data, cases[i].name_c != NULL ? 3 : 2));
        const lrd_status_t status = lrd_peft_read_params(folder, adapter, params);
        if (status != cases[i].status ||
            (status != LRD_OK && !lrd_test_contains(lrd_error_text(status), cases[i].text)))
            fail_msg("case %zu: %d, \"%s\"", i, (int)status, lrd_error_text(status));
        lrd_error_clear();
        lrd_free(a);
        lrd_free(b);
        lrd_free(c);
    }
    lrd_free(params);
    lrd_adapter_free(adapter);
    lrd_settings_free(s);
}

static void test_refuses_missing_params(void **state)
{
    const char *folder = lrd_test_temporary("missing");
    lrd_settings_t *s = settings_from_yaml("lora: {r: 2}");
    lrd_adapter_t *adapter = make(s, 4, 1);
    float *params = make_params(adapter);
    assert_ok(lrd_folder_make(folder));
    assert_fails(lrd_peft_read_params(folder, adapter, params), LRD_ERR_IO,
                 "adapter_model.safetensors: No such file");
    write_in(folder, "adapter_model.bin", "PK");
    assert_fails(lrd_peft_read_params(folder, adapter, params), LRD_ERR_UNSUPPORTED,
                 "Load the adapter with a recent version of PEFT and save it again");
    write_in(folder, "adapter_model.safetensors", "PK");
    assert_fails(lrd_peft_read_params(folder, adapter, params), LRD_ERR_FORMAT, "it has 2 bytes");
    assert_fails(lrd_peft_write(lrd_test_temporary("nowhere"), adapter, &s->lora, params, &card),
                 LRD_ERR_IO, "nowhere");
    lrd_free(params);
    lrd_adapter_free(adapter);
    lrd_settings_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rewrites_peft_s_folder),
        cmocka_unit_test(test_rewrites_the_shared_folders),
        cmocka_unit_test(test_writes_the_keys_of_old_versions),
        cmocka_unit_test(test_writes_all_linear_as_names),
        cmocka_unit_test(test_writes_the_card),
        cmocka_unit_test(test_reads_configs),
        cmocka_unit_test(test_refuses_other_files),
        cmocka_unit_test(test_reads_params),
        cmocka_unit_test(test_refuses_missing_params),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
