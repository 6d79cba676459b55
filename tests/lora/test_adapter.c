/* Layout and fresh parameters of adapters, to the bit against PEFT's
 * (tests/golden/lora/make_lora.py, ../shared/golden). */
#include "support/test_support.h"

#include "lora_support.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "lora/peft.h"

#include <math.h>
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

static void test_layout(void **state)
{
    lrd_settings_t *s = settings_from_yaml(
        "lora: {r: 2, lora_alpha: 6, target_modules: [dense_4h_to_h, query_key_value], "
        "rank_pattern: {h.1.mlp.dense_4h_to_h: 3}, exclude_modules: [h.0.mlp.dense_4h_to_h]}");
    lrd_adapter_t *adapter = make(s, 10, 3);
    assert_int_equal(adapter->n_items, 5);
    static const int places[] = {0, 0, 3, 0, 3}, layers[] = {0, 1, 1, 2, 2};
    int64_t at = 0;
    for (int i = 0; i < adapter->n_items; i++) {
        const lrd_adapter_item_t *item = &adapter->items[i];
        assert_int_equal(item->layer, layers[i]);
        assert_int_equal(item->place, places[i]);
        assert_int_equal(item->n_in, places[i] == 0 ? 10 : 40);
        assert_int_equal(item->n_out, places[i] == 0 ? 30 : 10);
        assert_int_equal(item->r, i == 2 ? 3 : 2);
        assert_true(item->alpha == 6.0 && item->scale == 6.0 / (double)item->r);
        assert_int_equal(item->a, at);
        assert_int_equal(item->b, at + item->r * item->n_in);
        assert_int_equal(adapter->begin[2 * i], item->a);
        assert_int_equal(adapter->begin[2 * i + 1], item->b);
        at = item->b + item->r * item->n_out;
        assert_ptr_equal(lrd_adapter_find(adapter, item->layer, item->place), item);
    }
    assert_int_equal(adapter->n_params, at);
    assert_int_equal(adapter->begin[10], at);
    assert_null(lrd_adapter_find(adapter, 0, 3));
    assert_null(lrd_adapter_find(adapter, 0, 1));
    assert_null(lrd_adapter_find(adapter, 3, 0));
    assert_null(lrd_adapter_find(adapter, -1, 0));
    assert_null(lrd_adapter_find(adapter, 0, -1));
    assert_null(lrd_adapter_find(adapter, 0, 4));
    assert_null(lrd_adapter_find(NULL, 0, 0));
    lrd_adapter_free(adapter);
    lrd_adapter_free(NULL);
    lrd_settings_free(s);
}

/* Parts share an adapter out: every number of the whole goes to one of them, and back. */
static void test_parts(void **state)
{
    (void)state;
    enum { LAYERS = 4, PARTS = 3 };
    lrd_settings_t *s = settings_from_yaml(
        "lora: {r: 2, target_modules: [dense, query_key_value], layers_to_transform: [1, 2, 3], "
        "rank_pattern: {h.2.self_attention.dense: 5}}");
    lrd_adapter_t *whole = make(s, 10, LAYERS);
    static const bool keep[PARTS][LAYERS] = {
        {true}, {false, true, false, true}, {false, false, true}};
    static const int n_items[PARTS] = {0, 4, 2};
    float *numbers = lrd_calloc((size_t)whole->n_params, sizeof *numbers);
    float *back = lrd_calloc((size_t)whole->n_params, sizeof *back);
    int64_t n = 0;
    assert_int_equal(whole->lowest_layer, 1);
    for (int64_t i = 0; i < whole->n_params; i++)
        numbers[i] = (float)i + 1;
    for (int p = 0; p < PARTS; p++) {
        lrd_adapter_t *part;
        assert_ok(lrd_adapter_part(whole, keep[p], &part));
        assert_int_equal(part->n_items, n_items[p]);
        assert_int_equal(part->lowest_layer, whole->lowest_layer);
        assert_int_equal(part->lowest_place, whole->lowest_place);
        float *own = lrd_calloc((size_t)part->n_params, sizeof *own);
        lrd_adapter_extract(part, whole, numbers, own);
        for (int i = 0; i < part->n_items; i++) {
            const lrd_adapter_item_t *a = &part->items[i], *b = &whole->items[a->whole];
            assert_true(keep[p][a->layer]);
            assert_string_equal(a->path, b->path);
            assert_ptr_equal(lrd_adapter_find(part, b->layer, b->place), a);
            assert_true(own[a->a] == numbers[b->a] && own[a->b] == numbers[b->b]);
        }
        assert_int_equal(part->begin[2 * part->n_items], part->n_params);
        lrd_adapter_insert(part, whole, own, back);
        n += part->n_params;
        lrd_free(own);
        lrd_adapter_free(part);
    }
    assert_int_equal(n, whole->n_params);
    assert_memory_equal(back, numbers, (size_t)n * sizeof *back);
    lrd_free(back);
    lrd_free(numbers);
    lrd_adapter_free(whole);
    lrd_settings_free(s);
}

static void assert_init(const char *name, const lrd_settings_t *s, const lrd_adapter_t *adapter,
                        lrd_dtype_t dtype, const char *path)
{
    float *params = lrd_calloc((size_t)adapter->n_params, sizeof *params);
    float *out = lrd_calloc((size_t)adapter->n_params, sizeof *out);
    lrd_safetensors_t *file;
    size_t n_read = 0;
    assert_true(params != NULL && out != NULL);
    assert_ok(lrd_adapter_init(adapter, &s->lora, dtype, params));
    assert_ok(lrd_safetensors_open(path, &file));
    for (int i = 0; i < 2 * adapter->n_items; i++) {
        char *tensor = lrd_asprintf("base_model.model.%s.lora_%c.weight",
                                    adapter->items[i / 2].path, i % 2 == 0 ? 'A' : 'B');
        const lrd_tensor_entry_t *entry = lrd_safetensors_find(file, tensor);
        if (entry == NULL || entry->n_elements != adapter->begin[i + 1] - adapter->begin[i])
            fail_msg("%s: %s is not there, or of another size", name, tensor);
        assert_ok(lrd_safetensors_read_f32(file, entry, out));
        const float *ours = params + adapter->begin[i];
        int64_t n_wrong = 0;
        for (int64_t k = 0; k < entry->n_elements; k++)
            n_wrong += memcmp(&out[k], &ours[k], sizeof *out) != 0;
        if (n_wrong > 0)
            fail_msg("%s: %s: %d of %d values differ, such as %.9g from %.9g", name, tensor,
                     (int)n_wrong, (int)entry->n_elements, (double)ours[0], (double)out[0]);
        lrd_free(tensor);
        n_read++;
    }
    assert_int_equal(n_read, file->n_entries);
    lrd_safetensors_close(file);
    lrd_free(params);
    lrd_free(out);
}

static void test_draws_as_peft(void **state)
{
    json_t *cases, *test;
    size_t i;
    assert_ok(lrd_json_read(lrd_test_golden("lora/inits.json"), 1 << 20, &cases));
    json_array_foreach(cases, i, test)
    {
        const char *name = json_string_value(json_object_get(test, "name"));
        lrd_settings_t *s = settings_from_json(json_object_get(test, "lora"));
        lrd_adapter_t *adapter = make(s, json_integer_value(json_object_get(test, "hidden")),
                                      (int)json_integer_value(json_object_get(test, "layers")));
        const int dtype = lrd_dtype_parse(json_string_value(json_object_get(test, "dtype")));
        char *file = lrd_asprintf("lora/init_%s.safetensors", name);
        assert_true(dtype >= 0 && file != NULL);
        assert_init(name, s, adapter, (lrd_dtype_t)dtype, lrd_test_golden(file));
        lrd_free(file);
        lrd_adapter_free(adapter);
        lrd_settings_free(s);
    }
    assert_true(i >= 8);
    json_decref(cases);
}

/* The first numbers that torch 2.13 draws for bloom-560m, and for a small model. */
static void test_draws_known_numbers(void **state)
{
    static const struct {
        int64_t hidden;
        float first[4];
        int n;
    } cases[] = {
        {1024, {0.00179854408f, -0.0272973068f, 0.00736546889f, 0.00973440334f}, 4},
        {32, {0.0984615907f, -0.0263961274f, 0.0750790685f, 0}, 3},
    };
    lrd_settings_t *s = settings_from_yaml("lora: {seed: 42}");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_adapter_t *adapter = make(s, cases[i].hidden, 1);
        float *params = lrd_calloc((size_t)adapter->n_params, sizeof *params);
        assert_non_null(params);
        assert_ok(lrd_adapter_init(adapter, &s->lora, LRD_F32, params));
        for (int k = 0; k < cases[i].n; k++)
            assert_true(fabsf(params[k] - cases[i].first[k]) <= 1e-8f * fabsf(params[k]));
        lrd_free(params);
        lrd_adapter_free(adapter);
    }
    lrd_settings_free(s);
}

static void test_draws_the_shared_cases(void **state)
{
    static const struct {
        const char *name;
        int64_t hidden;
        int layers;
    } cases[] = {
        {"qkv", 128, 3},    {"all-linear", 96, 2},
        {"head80", 160, 2}, {"head128-untied", 256, 2},
        {"squad", 128, 2},  {"post-layernorm", 96, 2},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *folder = lrd_asprintf("golden/%s", cases[i].name);
        const char *path = lrd_test_shared(folder);
        lrd_free(folder);
        if (path == NULL)
            continue;
        char *yaml = lrd_asprintf("%s/config.yaml", path);
        char *weights = lrd_asprintf("%s/adapter_init/adapter_model.safetensors", path);
        char *config_path = lrd_asprintf("%s/model/config.json", path);
        lrd_settings_t *s = NULL;
        json_t *config = NULL;
        assert_ok(lrd_settings_read(yaml, &s));
        assert_ok(lrd_json_read(config_path, 1 << 20, &config));
        const json_t *hidden = json_object_get(config, "hidden_size");
        const json_t *layers = json_object_get(config, "n_layer");
        if (hidden == NULL)
            hidden = json_object_get(config, "n_embed");
        if (layers == NULL)
            layers = json_object_get(config, "num_hidden_layers");
        lrd_adapter_t *adapter =
            make(s, hidden != NULL ? json_integer_value(hidden) : cases[i].hidden,
                 layers != NULL ? (int)json_integer_value(layers) : cases[i].layers);
        assert_init(cases[i].name, s, adapter, LRD_F32, weights);
        lrd_adapter_free(adapter);
        lrd_settings_free(s);
        json_decref(config);
        lrd_free(config_path);
        lrd_free(yaml);
        lrd_free(weights);
        n++;
    }
    if (n == 0) {
        printf("SKIPPED: ../shared/golden is not here\n");
        skip();
    }
    assert_int_equal(n, sizeof cases / sizeof cases[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_draws_as_peft),
        cmocka_unit_test(test_draws_known_numbers),
        cmocka_unit_test(test_draws_the_shared_cases),
    };
    lrd_mem_adopt_json();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
