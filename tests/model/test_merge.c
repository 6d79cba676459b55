/* Adapters folded into their bases: weights to the bit, everything else byte for byte. */
#include "merge_support.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the right result ------------------------------------------------------------------------- */

static const lrd_adapter_item_t *item_of(const lrd_adapter_t *adapter, const char *tensor)
{
    char name[300];
    for (int i = 0; i < adapter->n_items; i++) {
        const char *path = adapter->items[i].path;
        snprintf(name, sizeof name, "%s.weight", path);
        if (strcmp(tensor, name) == 0 || strcmp(tensor, name + strlen("transformer.")) == 0)
            return &adapter->items[i];
    }
    return NULL;
}

static float element(const void *data, int64_t i, lrd_dtype_t d)
{
    uint16_t h;
    float f;
    memcpy(d == LRD_F32 ? (void *)&f : (void *)&h,
           (const uint8_t *)data + (size_t)i * lrd_dtype_bytes(d), lrd_dtype_bytes(d));
    return d == LRD_F32 ? f : d == LRD_F16 ? lrd_f16_to_f32(h) : lrd_bf16_to_f32(h);
}

static float rounded(float x, lrd_dtype_t d)
{
    return d == LRD_F32   ? x
           : d == LRD_F16 ? lrd_f16_to_f32(lrd_f32_to_f16(x))
                          : lrd_bf16_to_f32(lrd_f32_to_bf16(x));
}

/* round(w + round(round(sum) * scale)), where the sum is one chain of multiply-adds, fused where the
 * machine can. */
static void check_weight(const lrd_adapter_item_t *item, const float *params, const void *base,
                         const void *merged, lrd_dtype_t d, const char *name)
{
    int64_t fused_off = 0, plain_off = 0, changed = 0;
    for (int64_t i = 0; i < item->n_out * item->n_in; i++) {
        const float *a = params + item->a + i % item->n_in;
        const float *b = params + item->b + i / item->n_in * item->r;
        float fused = 0;
        volatile float plain = 0, product;
        for (int64_t r = 0; r < item->r; r++) {
            fused = fmaf(b[r], a[r * item->n_in], fused);
            product = b[r] * a[r * item->n_in];
            plain = plain + product;
        }
        const float w = element(base, i, d), have = element(merged, i, d);
        volatile float delta = fused * (float)item->scale;
        fused_off += have != rounded(w + delta, d);
        delta = plain * (float)item->scale;
        plain_off += have != rounded(w + delta, d);
        changed += have != w;
    }
    if ((fused_off != 0 && plain_off != 0) || changed == 0)
        fail_msg("%s: %ld elements are not what PEFT's roundings give, %ld changed", name,
                 (long)(fused_off < plain_off ? fused_off : plain_off), (long)changed);
}

static size_t header_bytes(const lrd_safetensors_t *file)
{
    uint64_t n;
    memcpy(&n, file->map.data, sizeof n);
    return sizeof n + (size_t)n;
}

/* The same tensors at the same places; returns how many were merged. */
static int check_shard(const char *base_path, const char *merged_path, const setting_t *s,
                       const float *params)
{
    lrd_safetensors_t *base = NULL, *merged = NULL;
    int n_merged = 0;
    assert_ok(lrd_safetensors_open(base_path, &base));
    assert_ok(lrd_safetensors_open(merged_path, &merged));
    assert_int_equal(base->map.size, merged->map.size);
    assert_memory_equal(base->map.data, merged->map.data, header_bytes(base));
    for (size_t i = 0; i < base->n_entries; i++) {
        const lrd_tensor_entry_t *e = &base->entry[i];
        const lrd_adapter_item_t *item = item_of(s->adapter, e->name);
        const void *from = lrd_safetensors_data(base, e),
                   *to = lrd_safetensors_data(merged, &merged->entry[i]);
        if (item == NULL)
            assert_memory_equal(from, to, e->bytes);
        else
            check_weight(item, params, from, to, e->dtype, e->name);
        n_merged += item != NULL;
    }
    lrd_safetensors_close(base);
    lrd_safetensors_close(merged);
    return n_merged;
}

static bool is_shard(const char *name)
{
    const size_t n = strlen(name), m = strlen(".safetensors");
    return n > m && strcmp(name + n - m, ".safetensors") == 0;
}

static void assert_same_file(const char *a, const char *b)
{
    lrd_map_t x, y;
    assert_ok(lrd_file_map(a, &x));
    assert_ok(lrd_file_map(b, &y));
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    lrd_file_unmap(&x);
    lrd_file_unmap(&y);
}

static char *join(const char *folder, const char *name)
{
    char *path = lrd_path_join(folder, name);
    assert_non_null(path);
    return path;
}

/* The whole folder: base's files, each as it must be, and a card. */
static void check_folder(const char *model, const char *adapter, const char *out)
{
    setting_t s = {0};
    lrd_names_t names, have;
    int n_merged = 0;
    assert_ok(setting_open(model, adapter, "cpu", &s));
    float *params = lrd_calloc((size_t)s.adapter->n_params, sizeof *params);
    assert_ok(lrd_peft_read_params(adapter, s.adapter, params));
    assert_ok(lrd_folder_list(model, &names));
    assert_ok(lrd_folder_list(out, &have));
    assert_int_equal(have.n, names.n + 1);
    assert_string_equal(have.name[0], "README.md");
    for (size_t i = 0; i < names.n; i++) {
        char *from = join(model, names.name[i]), *to = join(out, names.name[i]);
        if (is_shard(names.name[i]))
            n_merged += check_shard(from, to, &s, params);
        else
            assert_same_file(from, to);
        lrd_free(from);
        lrd_free(to);
    }
    assert_int_equal(n_merged, s.adapter->n_items);
    lrd_names_free(&names);
    lrd_names_free(&have);
    lrd_free(params);
    setting_close(&s);
}

static void check_case(const char *name)
{
    static const char *const backends[] = {"cpu", "cpu_checked"};
    char text[128];
    const char *model = case_folder(name, "model"), *adapter = case_folder(name, "adapter");
    if (model == NULL) {
        print_message("SKIPPED: no ../shared here, which has the case %s\n", name);
        skip();
    }
    for (int i = 0; i < 2; i++) {
        snprintf(text, sizeof text, "%s-%s", name, backends[i]);
        const char *out = lrd_test_temporary(text);
        assert_ok(merge(model, adapter, out, backends[i], NULL));
        check_folder(model, adapter, out);
    }
}

#define CASE(function, name)           \
    static void function(void **state) \
    {                                  \
        (void)state;                   \
        check_case(name);              \
    }
CASE(test_all_linear, "all-linear")         /* all linears, rsLoRA */
CASE(test_post_layernorm, "post-layernorm") /* some */
CASE(test_qkv, "qkv")
CASE(test_head80, "head80")         /* BF16, names without prefix, patterns of rank and alpha */
CASE(test_untied, "head128-untied") /* F16, two shards, a head of its own */
CASE(test_squad, "squad")           /* F16, a tokenizer */

/* The committed base in 16 bits, whose weights the adapter was not made for: arithmetic is the same. */
static void test_16_bits(void **state)
{
    (void)state;
    static const lrd_dtype_t dtypes[] = {LRD_F16, LRD_BF16};
    const char *adapter = case_folder("all-linear", "adapter");
    for (int i = 0; i < 2; i++) {
        const char *name = lrd_dtype_file_name(dtypes[i]);
        const char *model = in(lrd_test_temporary("16-bits"), name);
        test_copy_folder_as(case_folder("all-linear", "model"), model, dtypes[i]);
        const char *out = in(lrd_test_temporary("16-bits-merged"), name);
        assert_ok(merge(model, adapter, out, "cpu", NULL));
        check_folder(model, adapter, out);
    }
}

/* A layer that PEFT merged in float32. */
static void test_peft(void **state)
{
    (void)state;
    const char *layer = lrd_test_shared("golden/squad/merged_layer1_float32.safetensors");
    const char *model = lrd_test_temporary("squad-F32"), *out = lrd_test_temporary("squad-peft");
    lrd_safetensors_t *want = NULL, *have = NULL;
    if (layer == NULL) {
        print_message("SKIPPED: no ../shared here, which has a layer that PEFT merged\n");
        skip();
    }
    test_copy_folder_as(case_folder("squad", "model"), model, LRD_F32);
    assert_ok(merge(model, case_folder("squad", "adapter"), out, "cpu", NULL));
    assert_ok(lrd_safetensors_open(layer, &want));
    assert_ok(lrd_safetensors_open(in(out, "model.safetensors"), &have));
    for (size_t i = 0; i < want->n_entries; i++) {
        const lrd_tensor_entry_t *e = &want->entry[i];
        const lrd_tensor_entry_t *f = lrd_safetensors_find(have, e->name);
        const float *x = lrd_safetensors_data(want, e), *y = lrd_safetensors_data(have, f);
        double worst = 0, largest = 0;
        int64_t differ = 0;
        for (int64_t k = 0; k < e->n_elements; k++) {
            differ += x[k] != y[k];
            worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
            largest = fmax(largest, fabs((double)x[k]));
        }
        print_message(
            "%s: %ld of %ld elements differ from PEFT's, by %.2g of the largest at most\n", e->name,
            (long)differ, (long)e->n_elements, worst / largest);
        assert_true(worst <= 1e-6 * largest);
    }
    lrd_safetensors_close(want);
    lrd_safetensors_close(have);
}

/* ---- unusual folders -------------------------------------------------------------------------- */

/* What goes into the result, through links in the folder too, and what does not. */
static void test_files(void **state)
{
    (void)state;
    static const char *const copied[] = {"LICENSE", "chat_template.jinja", "config.json",
                                         "generation_config.json", "tokenizer.json"};
    static const char *const not_copied[] = {".gitattributes",
                                             "README.md",
                                             "adapter_config.json",
                                             "adapter_model.safetensors",
                                             "optimizer.pt",
                                             "model.onnx",
                                             "model.safetensors.index.json",
                                             "pytorch_model.bin",
                                             "flax.msgpack",
                                             "rust_model.H5"};
    const char *model = fresh_model("files");
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        if (strcmp(copied[i], "config.json") != 0)
            test_put_file(model, copied[i], i % 2 != 0 ? copied[i] : "");
    for (size_t i = 0; i < sizeof not_copied / sizeof not_copied[0]; i++)
        test_put_file(model, not_copied[i], "x");
    assert_ok(lrd_folder_make(in(model, "folder")));
    test_put_file(in(model, "folder"), "elsewhere", "linked");
    assert_int_equal(symlink("folder/elsewhere", in(model, "vocab.json")), 0);
    assert_int_equal(symlink("nowhere", in(model, "broken.json")), 0);

    const char *out = lrd_test_temporary("files-out");
    assert_ok(lrd_folder_make(out)); /* an empty folder is as good as none */
    assert_ok(merge(model, case_folder("post-layernorm", "adapter"), in(out, "//"), "cpu", NULL));
    lrd_names_t names;
    assert_ok(lrd_folder_list(out, &names));
    assert_int_equal(names.n, sizeof copied / sizeof copied[0] + 3);
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        assert_same_file(in(model, copied[i]), in(out, copied[i]));
    assert_same_file(in(model, "vocab.json"), in(out, "vocab.json"));
    lrd_buf_t card = {0};
    assert_ok(lrd_file_read(in(out, "README.md"), 1 << 20, &card));
    assert_true(lrd_test_contains(card.data, model));
    assert_true(lrd_test_contains(card.data, case_folder("post-layernorm", "adapter")));
    lrd_buf_release(&card);
    lrd_names_free(&names);
}

/* A file that another program wrote: a header of odd length, so that no element is aligned; a tensor
 * that is no part of the model, in another place than ours. */
static void test_foreign_layout(void **state)
{
    (void)state;
    const char *model = fresh_model("foreign"), *out = lrd_test_temporary("foreign-out");
    const char *path = in(model, "model.safetensors"), *aligned = lrd_test_temporary("aligned-out");
    const char *adapter = case_folder("post-layernorm", "adapter");
    lrd_safetensors_t *file = NULL;
    assert_ok(merge(model, adapter, aligned, "cpu", NULL));
    assert_ok(lrd_safetensors_open(path, &file));
    const size_t old = header_bytes(file), data = file->map.size - old;
    char *text = lrd_strndup((const char *)file->map.data + 8, old - 8);
    char *end = strrchr(text, '}');
    lrd_buf_t buf = {0};
    *end = '\0';
    char *header = lrd_asprintf("%s,\"extra\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":"
                                "[%zu,%zu]}}",
                                text, data, data + 8);
    const uint64_t n = strlen(header) / 2 * 2 + 1;
    assert_ok(lrd_buf_add(&buf, &n, sizeof n));
    assert_ok(lrd_buf_printf(&buf, "%-*s", (int)n, header));
    assert_ok(lrd_buf_add(&buf, file->map.data + old, data));
    assert_ok(lrd_buf_add(&buf, "12345678", 8));
    lrd_safetensors_close(file);
    assert_ok(lrd_file_write(path, buf.data, buf.size));
    assert_ok(merge(model, adapter, out, "cpu", NULL));

    lrd_safetensors_t *want = NULL, *have = NULL;
    assert_ok(lrd_safetensors_open(in(aligned, "model.safetensors"), &want));
    assert_ok(lrd_safetensors_open(in(out, "model.safetensors"), &have));
    assert_int_equal(have->n_entries, want->n_entries + 1);
    assert_int_equal(header_bytes(have) % 8, 0);
    const lrd_tensor_entry_t *extra = lrd_safetensors_find(have, "extra");
    assert_memory_equal(lrd_safetensors_data(have, extra), "12345678", 8);
    assert_int_equal(extra->offset, header_bytes(have)); /* the widest comes first */
    for (size_t i = 0; i < want->n_entries; i++)
        assert_memory_equal(
            lrd_safetensors_data(want, &want->entry[i]),
            lrd_safetensors_data(have, lrd_safetensors_find(have, want->entry[i].name)),
            want->entry[i].bytes);
    lrd_safetensors_close(want);
    lrd_safetensors_close(have);
    lrd_buf_release(&buf);
    lrd_free(header);
    lrd_free(text);
}

int main(void)
{
    lrd_log_set_level(LRD_LOG_WARN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_linear), cmocka_unit_test(test_post_layernorm),
        cmocka_unit_test(test_qkv),        cmocka_unit_test(test_head80),
        cmocka_unit_test(test_untied),     cmocka_unit_test(test_squad),
        cmocka_unit_test(test_16_bits),    cmocka_unit_test(test_peft),
        cmocka_unit_test(test_files),      cmocka_unit_test(test_foreign_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
