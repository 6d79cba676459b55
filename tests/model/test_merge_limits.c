/* Merges that are refused, stopped or run out of memory leave nothing; one that runs takes little
 * memory. */
#include "merge_support.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/partial.h"
#include "base/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what is refused -------------------------------------------------------------------------- */

/* Nothing at that place, complete or not. */
static void assert_nothing(const char *out)
{
    char *partial = lrd_asprintf("%s.partial", out);
    assert_false(lrd_folder_exists(out) || lrd_folder_exists(partial));
    lrd_free(partial);
}

#define REFUSED(model, adapter, out, status, text) \
    assert_fails(merge(model, adapter, out, "cpu", NULL), status, text)

static void test_places(void **state)
{
    (void)state;
    const char *model = fresh_model("places"), *out = lrd_test_temporary("places-out");
    const char *adapter = lrd_test_temporary("places-adapter.partial");
    test_copy_folder(case_folder("post-layernorm", "adapter"), adapter);
    assert_ok(lrd_folder_make(out));
    test_put_file(out, "mine", "x");
    REFUSED(model, adapter, out, LRD_ERR_ARG, "is not empty");
    REFUSED(model, adapter, in(out, "mine"), LRD_ERR_ARG, "is a file");
    REFUSED(model, adapter, in(out, "mine/below"), LRD_ERR_IO, "Not a directory");
    REFUSED(model, adapter, adapter, LRD_ERR_ARG, "is not empty");
    REFUSED(model, adapter, model, LRD_ERR_ARG, "is the base model's folder");
    REFUSED(model, adapter, in(model, "a/b"), LRD_ERR_ARG, "or lies in it");
    REFUSED(model, adapter, "/proc/lora-dist", LRD_ERR_IO, "/proc/lora-dist.partial");
    assert_int_equal(symlink(model, lrd_test_temporary("places-link")), 0);
    REFUSED(model, adapter, lrd_test_temporary("places-link"), LRD_ERR_ARG, "the base model's");
    REFUSED(model, adapter, lrd_test_temporary("places-link/a"), LRD_ERR_ARG, "or lies in it");
    REFUSED(lrd_test_temporary("places-link"), adapter, in(model, "a"), LRD_ERR_ARG, "lies in it");
    /* The name under which the result would be built. */
    REFUSED(model, adapter, lrd_test_temporary("places-adapter"), LRD_ERR_ARG, "would be built");
    assert_int_equal(rename(model, lrd_test_temporary("base.partial")), 0);
    model = lrd_test_temporary("base.partial");
    REFUSED(model, adapter, lrd_test_temporary("base"), LRD_ERR_ARG, "would be built");
    assert_true(lrd_file_exists(in(model, "model.safetensors")));
    assert_true(lrd_file_exists(in(adapter, "adapter_config.json")));
    assert_true(lrd_file_exists(in(out, "mine")));
}

static void test_bad_models(void **state)
{
    (void)state;
    const char *adapter = case_folder("post-layernorm", "adapter");
    const char *out = lrd_test_temporary("bad-out");
    const char *model = fresh_model("bad"), *weights = in(model, "model.safetensors");
    struct stat s;
    assert_int_equal(stat(weights, &s), 0);
    assert_int_equal(truncate(weights, s.st_size - 1), 0);
    REFUSED(model, adapter, out, LRD_ERR_FORMAT, "model.safetensors");
    assert_int_equal(rename(weights, in(model, "pytorch_model.bin")), 0);
    REFUSED(model, adapter, out, LRD_ERR_UNSUPPORTED, "save_pretrained(NEW_FOLDER)");
    assert_int_equal(unlink(in(model, "pytorch_model.bin")), 0);
    REFUSED(model, adapter, out, LRD_ERR_IO, "has no weights");
    assert_nothing(out);

    model = fresh_model("bad");
    assert_int_equal(rename(weights, in(model, "a.safetensors")), 0);
    test_put_file(model, "model.safetensors.index.json",
                  "{\"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\"}}");
    REFUSED(model, adapter, out, LRD_ERR_IO, "b.safetensors");
    assert_nothing(out);
}

static void test_bad_adapters(void **state)
{
    (void)state;
    const char *model = case_folder("post-layernorm", "model");
    const char *out = lrd_test_temporary("misfit-out"), *adapter = lrd_test_temporary("misfit");
    REFUSED(model, "/no-such-adapter", out, LRD_ERR_IO, "/no-such-adapter");
    test_copy_folder(case_folder("post-layernorm", "adapter"), adapter);
    test_put_file(adapter, "adapter_config.json",
                  "{\"peft_type\": \"LORA\", \"r\": 3, \"target_modules\": [\"query_key_value\"]}");
    REFUSED(model, adapter, out, LRD_ERR_FORMAT, "expected [3, 96]");
    test_put_file(adapter, "adapter_config.json",
                  "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": [\"dense\"]}");
    REFUSED(model, adapter, out, LRD_ERR_FORMAT, "dense.lora_A.weight\" is missing");
    test_put_file(adapter, "adapter_config.json",
                  "{\"peft_type\": \"LORA\", \"r\": 2, \"target_modules\": [\"other\"]}");
    REFUSED(model, adapter, out, LRD_ERR_CONFIG, "other");
    assert_nothing(out);
}

/* A file of n sparse bytes behind this header. */
static void write_sparse(const char *path, const lrd_tensor_spec_t *spec, size_t n, off_t bytes)
{
    lrd_safetensors_writer_t *writer = NULL;
    lrd_buf_t head = {0};
    assert_ok(lrd_safetensors_begin(path, spec, n, NULL, &writer));
    char *partial = NULL;
    assert_ok(lrd_partial_name(path, &partial));
    assert_ok(lrd_file_read(partial, 1 << 20, &head));
    lrd_safetensors_abandon(writer);
    assert_ok(lrd_file_write(path, head.data, head.size));
    assert_int_equal(truncate(path, (off_t)head.size + bytes), 0);
    lrd_buf_release(&head);
    lrd_free(partial);
}

static void test_too_little_room(void **state)
{
    (void)state;
    const int64_t tebibyte = (int64_t)1 << 40;
    const char *model = fresh_model("large"), *out = lrd_test_temporary("large-out");
    const lrd_tensor_spec_t extra = {
        .name = "extra", .dtype = LRD_U8, .n_dims = 1, .shape = {8 * tebibyte}};
    uint64_t left = 0;
    assert_ok(lrd_folder_free_bytes(model, &left));
    if (left > (uint64_t)(8 * tebibyte)) {
        print_message("SKIPPED: there are more than 8 TiB left here\n");
        skip();
    }
    assert_int_equal(rename(in(model, "model.safetensors"), in(model, "a.safetensors")), 0);
    write_sparse(in(model, "b.safetensors"), &extra, 1, 8 * tebibyte);
    test_put_file(model, "model.safetensors.index.json",
                  "{\"weight_map\": {\"a\": \"a.safetensors\", \"extra\": \"b.safetensors\"}}");
    REFUSED(model, case_folder("post-layernorm", "adapter"), out, LRD_ERR_IO,
            "the merged model takes 8192.0 GiB, and there are");
    assert_nothing(out);
}

/* A signal came: it ends at the next piece. */
static void test_stop(void **state)
{
    (void)state;
    static const volatile sig_atomic_t now = 1;
    const char *out = lrd_test_temporary("stop-out");
    const lrd_status_t status = merge(case_folder("post-layernorm", "model"),
                                      case_folder("post-layernorm", "adapter"), out, "cpu", &now);
    assert_int_equal(status, LRD_ERR_INTERRUPTED);
    assert_true(lrd_test_contains(lrd_error_text(status), "was not written"));
    lrd_error_clear();
    assert_nothing(out);
}

/* ---- memory ----------------------------------------------------------------------------------- */

enum { LAYERS = 6, HIDDEN = 1024, VOCAB = 20000 };

/* A model of zeros as holes in a file, and an adapter for all of its linears. */
static void make_large(const char *model, const char *adapter)
{
    const lrd_family_t *f = &lrd_family_bloom;
    const lrd_model_config_t c = {
        .vocab_size = VOCAB, .hidden = HIDDEN, .mlp = 4 * HIDDEN, .n_layers = LAYERS};
    static lrd_tensor_spec_t spec[LAYERS * 12 + 5];
    static char names[LAYERS * 12 + 5][96];
    char text[256];
    size_t n = 0;
    off_t bytes = 0;
    for (int layer = -2; layer < LAYERS; layer++) {
        const lrd_tensor_decl_t *decl = layer == -2   ? f->embed_tensors
                                        : layer == -1 ? f->final_tensors
                                                      : f->block_tensors;
        const int n_decl = layer == -2   ? f->n_embed_tensors
                           : layer == -1 ? f->n_final_tensors
                                         : f->n_block_tensors;
        for (int i = 0; i < n_decl; i++, n++) {
            if (layer < 0)
                snprintf(names[n], sizeof names[n], "transformer.%s", decl[i].name);
            else
                snprintf(names[n], sizeof names[n], "transformer.h.%d.%s", layer, decl[i].name);
            spec[n] = (lrd_tensor_spec_t){
                .name = names[n],
                .dtype = LRD_F32,
                .n_dims = decl[i].shape[1] == LRD_DIM_NONE ? 1 : 2,
                .shape = {lrd_dim_size(&c, decl[i].shape[0]), lrd_dim_size(&c, decl[i].shape[1])}};
            bytes += (off_t)(spec[n].shape[0] * spec[n].shape[1] * 4);
        }
    }
    assert_ok(lrd_folder_make(model));
    write_sparse(in(model, "model.safetensors"), spec, n, bytes);
    snprintf(text, sizeof text,
             "{\"model_type\": \"bloom\", \"vocab_size\": %d, \"hidden_size\": %d, \"n_head\": 16, "
             "\"n_layer\": %d}",
             VOCAB, HIDDEN, LAYERS);
    test_put_file(model, "config.json", text);

    lrd_settings_t *settings = NULL;
    lrd_model_config_t config;
    lrd_adapter_t *a = NULL;
    assert_ok(lrd_settings_create(&settings));
    assert_ok(lrd_settings_set(settings, "lora.target_modules=all-linear"));
    assert_ok(lrd_model_config_read(model, &config));
    assert_ok(lrd_model_adapter_create(&config, &settings->lora, &a));
    float *params = lrd_calloc((size_t)a->n_params, sizeof *params);
    for (int64_t i = 0; i < a->n_params; i++)
        params[i] = 0.001f * (float)(i % 1000);
    assert_ok(lrd_folder_make(adapter));
    assert_ok(lrd_peft_write(adapter, a, &settings->lora, params, &(lrd_peft_card_t){model, 0, 0}));
    lrd_free(params);
    lrd_adapter_free(a);
    lrd_settings_free(settings);
}

/* 366 MiB, of which the embedding has 78: memory grows by less than that one tensor. */
static void test_memory(void **state)
{
    (void)state;
    const char *model = lrd_test_temporary("memory"), *out = lrd_test_temporary("memory-out");
    const char *adapter = lrd_test_temporary("memory-adapter");
    make_large(model, adapter);
    const size_t before = lrd_mem_peak_bytes();
    assert_ok(merge(model, adapter, out, "cpu", NULL));
    const size_t grown = lrd_mem_peak_bytes() - before;
    print_message("memory: %zu MiB more at the peak\n", grown >> 20);
    assert_true(grown < (size_t)60 << 20);
    assert_ok(lrd_folder_remove(model));
    assert_ok(lrd_folder_remove(out));
}

/* ---- allocations that fail -------------------------------------------------------------------- */

enum { EXIT_NO_MEMORY = 3, EXIT_WRONG = 4, MAX_ALLOCATIONS = 20000 };

/* This program as the child: --once MODEL ADAPTER OUT, or --once-json. */
static int run_once(char **argv)
{
    if (strcmp(argv[1], "--once-json") == 0)
        lrd_mem_adopt_json();
    const lrd_status_t status = merge(argv[2], argv[3], argv[4], "cpu_checked", NULL);
    return status == LRD_OK ? 0 : status == LRD_ERR_NO_MEMORY ? EXIT_NO_MEMORY : EXIT_WRONG;
}

static int run_with_failure(int n, const char *mode, const char *model, const char *adapter,
                            const char *out)
{
    return lrd_test_with_failure(
        n, (const char *[]){"test_merge_limits", mode, model, adapter, out, NULL});
}

static void check_allocations(const char *mode, int step)
{
    const char *out = lrd_test_temporary("allocations");
    const char *model = case_folder("post-layernorm", "model"),
               *adapter = case_folder("post-layernorm", "adapter");
    int n = 1, code = EXIT_NO_MEMORY;
    for (; n < MAX_ALLOCATIONS && code == EXIT_NO_MEMORY; n += step) {
        code = run_with_failure(n, mode, model, adapter, out);
        if (code == EXIT_NO_MEMORY)
            assert_nothing(out);
    }
    if (code != 0)
        fail_msg("allocation %d fails: exit code %d", n - step, code);
    print_message("%s: about %d allocations\n", mode, n - step);
    assert_true(n > 100);
    assert_ok(lrd_folder_remove(out));
}

static void test_allocations(void **state)
{
    (void)state;
    check_allocations("--once", 1);
    check_allocations("--once-json", 23); /* jansson's are many */
}

int main(int argc, char **argv)
{
    lrd_log_set_level(LRD_LOG_WARN);
    if (argc == 5)
        return run_once(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory), /* first: a peak does not go down again */
        cmocka_unit_test(test_places),       cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_bad_adapters), cmocka_unit_test(test_too_little_room),
        cmocka_unit_test(test_stop),         cmocka_unit_test(test_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
