/* Which modules get an adapter, against PEFT's choices (tests/golden/lora/make_lora.py). */
#include "support/test_support.h"

#include "lora_support.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

static lrd_status_t find(const char *yaml, int layers, lrd_target_t **targets, size_t *n)
{
    bloom_modules_t m = bloom_modules_make(8, layers);
    lrd_settings_t *s = settings_from_yaml(yaml);
    const lrd_status_t status =
        lrd_targets_find(&s->lora, m.module, m.n, "query_key_value", targets, n);
    lrd_settings_free(s);
    bloom_modules_free(&m);
    return status;
}

/* The status that a case of the table asks for. */
static bool is_expected(const char *error, lrd_status_t status)
{
    if (error == NULL)
        return status == LRD_OK;
    if (strcmp(error, "unsupported") == 0)
        return status == LRD_ERR_UNSUPPORTED;
    return status == LRD_ERR_CONFIG || status == LRD_ERR_UNSUPPORTED;
}

static void check_case(json_t *test, const bloom_modules_t *m)
{
    lrd_settings_t *s = settings_from_json(json_object_get(test, "lora"));
    const json_t *expected = json_object_get(test, "targets");
    const char *error = json_string_value(json_object_get(test, "error"));
    char *text = json_dumps(json_object_get(test, "lora"), JSON_COMPACT);
    lrd_adapter_t *adapter = NULL;
    const lrd_status_t status =
        lrd_adapter_create(&s->lora, m->module, m->n, "query_key_value", &adapter);
    if (!is_expected(error, status))
        fail_msg("%s: status %d, \"%s\", expected %s", text, (int)status, lrd_error_text(status),
                 error != NULL ? error : "success");
    lrd_error_clear();
    if (status == LRD_OK && adapter->n_items != (int)json_array_size(expected))
        fail_msg("%s: %d targets, expected %zu", text, adapter->n_items, json_array_size(expected));
    for (int i = 0; status == LRD_OK && i < adapter->n_items; i++) {
        const lrd_adapter_item_t *item = &adapter->items[i];
        const json_t *want = json_array_get(expected, (size_t)i);
        const char *path = json_string_value(json_array_get(want, 0));
        if (strcmp(item->path, path) != 0 ||
            item->r != json_integer_value(json_array_get(want, 1)) ||
            item->alpha != json_number_value(json_array_get(want, 2)) ||
            item->scale != json_number_value(json_array_get(want, 3)))
            fail_msg("%s: target %d is %s, r %d, alpha %g, scale %.17g; expected %s, %g, %.17g",
                     text, i, item->path, (int)item->r, item->alpha, item->scale, path,
                     json_number_value(json_array_get(want, 2)),
                     json_number_value(json_array_get(want, 3)));
    }
    lrd_adapter_free(adapter);
    lrd_free(text);
    lrd_settings_free(s);
}

static void test_chooses_as_peft(void **state)
{
    json_t *cases, *test;
    size_t i;
    bloom_modules_t m = bloom_modules_make(8, 12);
    assert_ok(lrd_json_read(lrd_test_golden("lora/targets.json"), 1 << 20, &cases));
    assert_true(json_array_size(cases) > 50);
    json_array_foreach(cases, i, test)
    {
        check_case(test, &m);
    }
    json_decref(cases);
    bloom_modules_free(&m);
}

static void test_gives_the_numbers_of_modules(void **state)
{
    lrd_target_t *targets = NULL;
    size_t n = 0;
    bloom_modules_t m = bloom_modules_make(8, 2);
    assert_ok(find("lora: {target_modules: [dense], r: 5, lora_alpha: 3}", 2, &targets, &n));
    assert_int_equal(n, 2);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(m.module[targets[i].module].layer, i);
        assert_int_equal(m.module[targets[i].module].place, 1);
        assert_int_equal(targets[i].r, 5);
        assert_true(targets[i].alpha == 3.0);
    }
    lrd_free(targets);
    bloom_modules_free(&m);
}

static void test_refuses(void **state)
{
    static const struct {
        const char *yaml;
        lrd_status_t status;
        const char *text;
    } cases[] = {
        {"lora: {target_modules: [q_proj, v_proj]}", LRD_ERR_CONFIG,
         "no layer of the model matches \"q_proj, v_proj\"; its linear layers are named "
         "query_key_value, dense, dense_h_to_4h, dense_4h_to_h"},
        {"lora: {exclude_modules: [query_key_value]}", LRD_ERR_CONFIG,
         "matches \"query_key_value\" beside lora.exclude_modules"},
        {"lora: {layers_to_transform: [7]}", LRD_ERR_CONFIG,
         "in the blocks of lora.layers_to_transform"},
        {"lora: {target_modules: all-linear, layers_to_transform: [0]}", LRD_ERR_CONFIG,
         "lora.layers_to_transform cannot be used"},
        {"lora: {target_modules: '('}", LRD_ERR_CONFIG,
         "lora.target_modules: \"(\" is not a valid regular expression"},
        {"lora: {exclude_modules: '['}", LRD_ERR_CONFIG, "lora.exclude_modules: \"[\" is not"},
        {"lora: {rank_pattern: {'(': 2}}", LRD_ERR_CONFIG, "lora.rank_pattern: \"(\" is not"},
        {"lora: {alpha_pattern: {'x)': 2}}", LRD_ERR_CONFIG, "lora.alpha_pattern: \"x)\" is not"},
        {"lora: {target_modules: [lm_head]}", LRD_ERR_UNSUPPORTED, "matches lm_head (Linear)"},
        {"lora: {target_modules: [word_embeddings]}", LRD_ERR_UNSUPPORTED,
         "matches transformer.word_embeddings (Embedding)"},
        {"lora: {target_modules: '.*h.1'}", LRD_ERR_UNSUPPORTED,
         "matches transformer.h.1 (BloomBlock)"},
        {"lora: {target_modules: '(\\w*\\w*)*(\\w*\\w*)*\\d!'}", LRD_ERR_CONFIG, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_target_t *targets = NULL;
        size_t n = 0;
        assert_fails(find(cases[i].yaml, 2, &targets, &n), cases[i].status, cases[i].text);
        assert_null(targets);
        assert_int_equal(n, 0);
    }
}

static void test_needs_a_fallback_for_null(void **state)
{
    bloom_modules_t m = bloom_modules_make(8, 1);
    lrd_settings_t *s = settings_from_yaml("lora: {r: 2}");
    lrd_target_t *targets = NULL;
    size_t n = 0;
    assert_fails(lrd_targets_find(&s->lora, m.module, m.n, NULL, &targets, &n), LRD_ERR_CONFIG,
                 "lora.target_modules is needed");
    lrd_settings_free(s);
    bloom_modules_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chooses_as_peft),
        cmocka_unit_test(test_gives_the_numbers_of_modules),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_needs_a_fallback_for_null),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
