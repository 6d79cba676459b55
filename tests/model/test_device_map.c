/* Maps of modules: accelerate's own answers (tests/golden/model/make_device_maps.py), maps of settings,
 * and what cannot be placed. */
#include "base/json.h"
#include "base/mem.h"
#include "model/device_map.h"
#include "support/test_support.h"

#include <stdio.h>
#include <string.h>

enum { MOST_PARTS = 80, MOST_DEVICES = 8 };

static lrd_model_config_t config_of(int64_t layers, int64_t hidden)
{
    return (lrd_model_config_t){.family = &lrd_family_bloom,
                                .vocab_size = 250880,
                                .hidden = hidden,
                                .mlp = 4 * hidden,
                                .n_layers = layers,
                                .n_heads = 16};
}

static int64_t number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void test_as_accelerate(void **state)
{
    (void)state;
    json_t *cases = NULL;
    const json_t *one;
    size_t i;
    assert_ok(lrd_json_read(lrd_test_golden("model/device_maps.json"), 1 << 20, &cases));
    json_array_foreach(cases, i, one)
    {
        const lrd_model_config_t c = config_of(number(one, "layers"), number(one, "hidden"));
        const json_t *memory = json_object_get(one, "memory"),
                     *want = json_object_get(one, "devices");
        const char *kind = json_string_value(json_object_get(one, "kind"));
        int64_t bytes[MOST_DEVICES];
        int device[MOST_PARTS];
        const int n = (int)json_array_size(memory);
        for (int d = 0; d < n; d++)
            bytes[d] = json_integer_value(json_array_get(memory, (size_t)d));
        assert_ok(lrd_device_map_infer(&c, (size_t)number(one, "element_bytes"),
                                       json_is_true(json_object_get(one, "tied")),
                                       strcmp(kind, "balanced") == 0, bytes, n, 0, device));
        for (int part = 0; part < lrd_device_map_parts(&c); part++) {
            const int64_t expected = json_integer_value(json_array_get(want, (size_t)part));
            if (device[part] != expected)
                fail_msg("case %zu (%s, %d layers of %d, %d devices): part %d is on %d, not on %d",
                         i, kind, (int)c.n_layers, (int)c.hidden, n, part, device[part],
                         (int)expected);
        }
    }
    assert_int_equal(i, json_array_size(cases));
    assert_true(i > 100);
    json_decref(cases);
}

/* The map of settings given as YAML. */
static lrd_status_t read_map(const char *map, const lrd_model_config_t *c, int *device)
{
    lrd_settings_t *s = NULL;
    char yaml[1024];
    const int n = snprintf(yaml, sizeof yaml, "parallel: {device_map: %s}", map);
    assert_ok(lrd_settings_parse(yaml, (size_t)n, "test", &s));
    const lrd_status_t status = lrd_device_map_read(&s->parallel.device_map, c, device);
    lrd_settings_free(s);
    return status;
}

/* A map, and the runs that it must give. */
static void assert_runs(const char *map, int n_stages, int n_runs, const int *begin)
{
    const lrd_model_config_t c = config_of(4, 64);
    int device[MOST_PARTS];
    lrd_placement_t p;
    assert_ok(read_map(map, &c, device));
    assert_ok(lrd_device_map_place(&c, device, &p));
    assert_int_equal(p.n_stages, n_stages);
    assert_int_equal(p.n_runs, n_runs);
    for (int i = 0; i <= n_runs; i++)
        assert_int_equal(p.begin[i], begin[i]);
    lrd_placement_release(&p);
}

#define EMBEDDINGS "transformer.word_embeddings: 0, transformer.word_embeddings_layernorm: 0, "

static void test_explicit(void **state)
{
    (void)state;
    assert_runs("{'': 0}", 1, 1, (int[]){0, 4});
    assert_runs("{'': 0, transformer.h.2: 1, transformer.h.3: 1, transformer.ln_f: 1}", 2, 2,
                (int[]){0, 2, 4});
    assert_runs("{" EMBEDDINGS "transformer.h: 1, transformer.ln_f: 1, lm_head: 1}", 2, 2,
                (int[]){0, 0, 4}); /* the embedding alone */
    assert_runs("{transformer: 0, transformer.h.3: 1, transformer.ln_f: 1, lm_head: 2}", 3, 3,
                (int[]){0, 3, 4, 4}); /* the head alone */
    assert_runs("{transformer: 0, transformer.h.1: 1, transformer.h.3: 1, lm_head: 1}", 2, 4,
                (int[]){0, 1, 2, 3, 4}); /* twice round */
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *map, *message;
    } refused[] = {
        {"{transformer: 0}", "lm_head has no device"},
        {"{'': 0, transformer.h.7: 1}", "no module transformer.h.7"},
        {"{'': 0, transformer.h.2.mlp: 1}", "piece of transformer.h.2"},
        {"{'': 0, transformer.word_embeddings: cpu}",
         "transformer.word_embeddings is on no device"},
        {"{'': 0, lm_head: disk}", "lm_head is on no device"},
        {"{'': 1}", "device 0 has no layers (1 of the devices 0 to 1 have none)"},
        {"{'': 3}", "Start 1 rank instead"},
        {"{'': 0, transformer.h.2: 2, transformer.h.3: 2}", "device 1 has no layers"},
        {"{transformer: 1, lm_head: 0, transformer.h.2: 0}", "layer 0 begins on device 1"},
        {"{'': 0, transformer.h.1: 1}", "3 separate runs"},
    };
    const lrd_model_config_t c = config_of(4, 64);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        int device[MOST_PARTS];
        lrd_placement_t p;
        lrd_status_t status = read_map(refused[i].map, &c, device);
        if (status == LRD_OK)
            status = lrd_device_map_place(&c, device, &p);
        assert_fails(status, LRD_ERR_CONFIG, refused[i].message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_accelerate),
        cmocka_unit_test(test_explicit),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
