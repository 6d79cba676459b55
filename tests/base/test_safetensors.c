/* The safetensors reader and writer, against files and verdicts of the safetensors library
 * (tests/golden/base/make_safetensors.py). */
#include "support/test_support.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/safetensors_header.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static lrd_buf_t read_file(const char *path)
{
    lrd_buf_t buf = {0};
    assert_ok(lrd_file_read(path, 1 << 26, &buf));
    return buf;
}

static void assert_equal_files(const char *path, const char *expected)
{
    lrd_buf_t a = read_file(path), b = read_file(expected);
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    lrd_buf_release(&a);
    lrd_buf_release(&b);
}

/* Tensors of mixed.safetensors in the order in which the Python script lists them,
 * which gives each its content. */
static const lrd_tensor_spec_t mixed[] = {
    {"h.0.bool", LRD_BOOL, 2, {1, 3}},     {"h.1.uint8", LRD_U8, 2, {2, 3}},
    {"h.2.int8", LRD_I8, 2, {3, 3}},       {"h.3.int16", LRD_I16, 2, {4, 3}},
    {"h.4.uint16", LRD_U16, 2, {5, 3}},    {"h.5.float16", LRD_F16, 2, {6, 3}},
    {"h.6.bfloat16", LRD_BF16, 2, {7, 3}}, {"h.7.int32", LRD_I32, 2, {8, 3}},
    {"h.8.uint32", LRD_U32, 2, {9, 3}},    {"h.9.float32", LRD_F32, 2, {10, 3}},
    {"h.10.float64", LRD_F64, 2, {11, 3}}, {"h.11.int64", LRD_I64, 2, {12, 3}},
    {"h.12.uint64", LRD_U64, 2, {13, 3}},  {"h.10.weight", LRD_F32, 2, {2, 2}},
    {"h.2.weight", LRD_F32, 1, {1}},       {"h.1.weight", LRD_F32, 1, {3}},
    {"scalar", LRD_F32, 0, {0}},           {"empty", LRD_F32, 2, {0, 4}},
};
enum { N_MIXED = sizeof mixed / sizeof mixed[0], MIXED_MAX_BYTES = 13 * 3 * 8 };

static size_t spec_bytes(const lrd_tensor_spec_t *spec)
{
    size_t n = lrd_dtype_bytes(spec->dtype);
    for (int i = 0; i < spec->n_dims; i++)
        n *= (size_t)spec->shape[i];
    return n;
}

static void fill_pattern(uint8_t *out, size_t n, size_t k)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)((i * 7 + k * 3) % 5 % 2);
}

static void test_writes_the_library_s_bytes(void **state)
{
    static uint8_t content[N_MIXED][MIXED_MAX_BYTES];
    const void *data[N_MIXED];
    for (size_t k = 0; k < N_MIXED; k++) {
        fill_pattern(content[k], spec_bytes(&mixed[k]), k);
        data[k] = content[k];
    }
    const char *path = lrd_test_temporary("mixed.safetensors");
    assert_ok(lrd_safetensors_write(path, mixed, data, N_MIXED));
    assert_equal_files(path, lrd_test_golden("base/mixed.safetensors"));

    const float zeros[2] = {0, 0}, one = 1;
    const lrd_tensor_spec_t names[] = {
        {"\xc3\xa9 \"quoted\" \\ \n\t\x01\x7f\xe2\x80\xa8\xf0\x9f\x98\x80/", LRD_F32, 1, {2}},
        {"", LRD_F32, 1, {1}},
    };
    const void *names_data[] = {zeros, &one};
    assert_ok(lrd_safetensors_write(path, names, names_data, 2));
    assert_equal_files(path, lrd_test_golden("base/names.safetensors"));

    assert_ok(lrd_safetensors_write(path, NULL, NULL, 0));
    assert_equal_files(path, lrd_test_golden("base/none.safetensors"));
}

static void test_reads_the_library_s_files(void **state)
{
    uint8_t expected[MIXED_MAX_BYTES];
    lrd_safetensors_t *file;
    assert_ok(lrd_safetensors_open(lrd_test_golden("base/mixed.safetensors"), &file));
    assert_int_equal(file->n_entries, N_MIXED);
    for (size_t k = 0; k < N_MIXED; k++) {
        const lrd_tensor_entry_t *entry = lrd_safetensors_find(file, mixed[k].name);
        assert_non_null(entry);
        assert_string_equal(entry->name, mixed[k].name);
        assert_int_equal(entry->dtype, mixed[k].dtype);
        assert_int_equal(entry->n_dims, mixed[k].n_dims);
        assert_memory_equal(entry->shape, mixed[k].shape, sizeof entry->shape);
        assert_int_equal(entry->bytes, spec_bytes(&mixed[k]));
        assert_int_equal(entry->n_elements * (int64_t)lrd_dtype_bytes(entry->dtype), entry->bytes);
        fill_pattern(expected, entry->bytes, k);
        assert_memory_equal(lrd_safetensors_data(file, entry), expected, entry->bytes);
    }
    assert_null(lrd_safetensors_find(file, "h.1"));
    assert_null(lrd_safetensors_find(file, ""));
    assert_null(lrd_safetensors_find(file, "zzz"));
    assert_null(lrd_safetensors_find(file, "__metadata__"));
    lrd_safetensors_close(file);
}

static void test_reads_floats(void **state)
{
    static const struct {
        const char *name;
        float third, large; /* what 1/3 and 65504 become */
    } cases[] = {
        {"float32", 0x1.555556p-2f, 65504},
        {"float16", 0x1.554p-2f, 65504},
        {"bfloat16", 0x1.56p-2f, 65536},
        {"float64", 0x1.555556p-2f, 65504},
    };
    lrd_safetensors_t *file;
    assert_ok(lrd_safetensors_open(lrd_test_golden("base/floats.safetensors"), &file));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        float out[5];
        const lrd_tensor_entry_t *entry = lrd_safetensors_find(file, cases[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->n_elements, 5);
        assert_ok(lrd_safetensors_read_f32(file, entry, out));
        const float expected[5] = {0.5f, -2.0f, cases[i].third, cases[i].large, INFINITY};
        assert_memory_equal(out, expected, sizeof expected);
    }
    lrd_safetensors_close(file);

    assert_ok(lrd_safetensors_open(lrd_test_golden("base/mixed.safetensors"), &file));
    float out[MIXED_MAX_BYTES];
    assert_ok(lrd_safetensors_read_f32(file, lrd_safetensors_find(file, "empty"), out));
    assert_fails(lrd_safetensors_read_f32(file, lrd_safetensors_find(file, "h.11.int64"), out),
                 LRD_ERR_FORMAT, "tensor \"h.11.int64\" holds I64, expected F32, BF16, F16 or F64");
    lrd_safetensors_close(file);
}

/* Length, header and n zero bytes, parsed from an allocation of exactly that size. */
static lrd_status_t parse(const char *header, size_t header_bytes, size_t data_bytes,
                          lrd_safetensors_t **file_out)
{
    const size_t size = 8 + header_bytes + data_bytes;
    uint8_t *bytes = lrd_calloc(size, 1);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)header_bytes >> 8 * i);
    memcpy(bytes + 8, header, header_bytes);
    const lrd_status_t status = lrd_safetensors_parse(bytes, size, "memory", file_out);
    lrd_free(bytes);
    return status;
}

static void test_accepts_what_the_library_accepts(void **state)
{
    json_t *cases, *test;
    size_t i;
    assert_ok(lrd_json_read(lrd_test_golden("base/safetensors_cases.json"), 1 << 20, &cases));
    assert_true(json_array_size(cases) > 60);
    json_array_foreach(cases, i, test)
    {
        const char *name = json_string_value(json_object_get(test, "name"));
        const char *error = json_string_value(json_object_get(test, "error"));
        const json_t *header = json_object_get(test, "header");
        lrd_safetensors_t *file = NULL;
        const lrd_status_t status =
            parse(json_string_value(header), json_string_length(header),
                  (size_t)json_integer_value(json_object_get(test, "data_bytes")), &file);
        if (status != (error[0] == '\0' ? LRD_OK : LRD_ERR_FORMAT) ||
            (status != LRD_OK && !lrd_test_contains(lrd_error_text(status), error)))
            fail_msg("%s: status %d, \"%s\", expected \"%s\"", name, (int)status,
                     lrd_error_text(status), error);
        assert_true(status == LRD_OK || lrd_test_contains(lrd_error_text(status), "memory"));
        if (json_object_get(test, "why") == NULL)
            assert_int_equal(json_is_true(json_object_get(test, "library_accepts")),
                             status == LRD_OK);
        lrd_safetensors_close(file);
        lrd_error_clear();
    }
    json_decref(cases);
}

static void test_refuses_lengths(void **state)
{
    static const struct {
        uint64_t length;
        const char *error;
    } cases[] = {
        {3, "a header of 3 bytes in a file of 10: the file is incomplete"},
        {100000000, "a header of 100000000 bytes in a file of 10: the file is incomplete"},
        {100000001, "its header length is 100000001, at most 100000000 is allowed"},
        {1ull << 63, "its header length is 9223372036854775808"},
        {UINT64_MAX, "its header length is 18446744073709551615"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t bytes[10] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
        for (int k = 0; k < 8; k++)
            bytes[k] = (uint8_t)(cases[i].length >> 8 * k);
        lrd_safetensors_t *file = NULL;
        assert_fails(lrd_safetensors_parse(bytes, sizeof bytes, "memory", &file), LRD_ERR_FORMAT,
                     cases[i].error);
    }
    for (size_t n = 0; n < 8; n++) {
        lrd_safetensors_t *file = NULL;
        assert_fails(lrd_safetensors_parse("\2\0\0\0\0\0\0", n, "memory", &file), LRD_ERR_FORMAT,
                     "fewer than the 8 of a header length");
    }
}

static void test_refuses_a_header_that_is_not_utf8(void **state)
{
    static const char header[] =
        "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    lrd_safetensors_t *file = NULL;
    assert_fails(parse(header, sizeof header - 1, 4, &file), LRD_ERR_FORMAT,
                 "memory (header): not valid JSON");
}

static void test_refuses_every_truncation(void **state)
{
    lrd_buf_t whole = read_file(lrd_test_golden("base/mixed.safetensors"));
    for (size_t n = 0; n < whole.size; n++) {
        lrd_safetensors_t *file = NULL;
        uint8_t *cut = lrd_malloc(n);
        assert_non_null(cut);
        memcpy(cut, whole.data, n);
        assert_int_equal(lrd_safetensors_parse(cut, n, "memory", &file), LRD_ERR_FORMAT);
        assert_null(file);
        lrd_free(cut);
        lrd_error_clear();
    }
    lrd_buf_release(&whole);
}

static void test_refuses_files(void **state)
{
    lrd_safetensors_t *file = NULL;
    const char *path = lrd_test_temporary("short.safetensors");
    assert_fails(lrd_safetensors_open(path, &file), LRD_ERR_IO, "short.safetensors: No such file");
    assert_fails(lrd_safetensors_open("/tmp", &file), LRD_ERR_IO, "/tmp is a folder");
    assert_ok(lrd_file_write(path, "", 0));
    assert_fails(lrd_safetensors_open(path, &file), LRD_ERR_FORMAT, "it has 0 bytes");
    lrd_buf_t whole = read_file(lrd_test_golden("base/floats.safetensors"));
    assert_ok(lrd_file_write(path, whole.data, whole.size - 1));
    assert_fails(lrd_safetensors_open(path, &file), LRD_ERR_FORMAT, "the file is incomplete");
    assert_null(file);
    lrd_buf_release(&whole);
}

static void test_writer_in_pieces(void **state)
{
    const lrd_tensor_spec_t spec[] = {{"b", LRD_BF16, 1, {2}}, {"a", LRD_F32, 1, {2}}};
    const char *path = lrd_test_temporary("pieces.safetensors");
    lrd_safetensors_writer_t *w = NULL;
    size_t order[2];
    assert_ok(lrd_safetensors_begin(path, spec, 2, order, &w));
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 0);
    assert_ok(lrd_safetensors_add(w, "\0\0\x80", 3));
    assert_ok(lrd_safetensors_add(w, "", 0));
    assert_ok(lrd_safetensors_add(w, "\x3f\0\0\0\xc0\x80\x3f\0", 8));
    assert_fails(lrd_safetensors_add(w, "\0\0", 2), LRD_ERR_ARG, "2 bytes of tensor data, 1 are");
    assert_ok(lrd_safetensors_add(w, "\xc0", 1));
    assert_false(lrd_file_exists(path));
    assert_ok(lrd_safetensors_commit(&w));
    assert_null(w);

    lrd_safetensors_t *file;
    float a[2], b[2];
    assert_ok(lrd_safetensors_open(path, &file));
    assert_ok(lrd_safetensors_read_f32(file, lrd_safetensors_find(file, "a"), a));
    assert_ok(lrd_safetensors_read_f32(file, lrd_safetensors_find(file, "b"), b));
    assert_true(a[0] == 1.0f && a[1] == -2.0f && b[0] == 1.0f && b[1] == -2.0f);
    lrd_safetensors_close(file);
}

static void test_writer_leaves_nothing_behind(void **state)
{
    const lrd_tensor_spec_t spec = {"a", LRD_F32, 1, {2}};
    const char *folder = lrd_test_temporary("nothing");
    const char *path = lrd_test_temporary("nothing/a.safetensors");
    lrd_safetensors_writer_t *w = NULL;
    lrd_names_t names;
    assert_ok(lrd_folder_make(folder));
    assert_ok(lrd_safetensors_begin(path, &spec, 1, NULL, &w));
    lrd_safetensors_abandon(w);
    assert_ok(lrd_safetensors_begin(path, &spec, 1, NULL, &w));
    assert_ok(lrd_safetensors_add(w, "abcd", 4));
    assert_fails(lrd_safetensors_commit(&w), LRD_ERR_ARG, "4 bytes of tensor data are missing");
    assert_null(w);
    assert_ok(lrd_folder_list(folder, &names));
    assert_int_equal(names.n, 0);
    lrd_names_free(&names);
    lrd_safetensors_abandon(NULL);
}

static void test_writer_refuses_arguments(void **state)
{
    static const struct {
        lrd_tensor_spec_t spec;
        const char *error;
    } cases[] = {
        {{"__metadata__", LRD_F32, 0, {0}}, "cannot be named \"__metadata__\""},
        {{"a", LRD_F32, 1, {-1}}, "shape[0] is -1"},
        {{"a", LRD_F32, -1, {0}}, "has -1 dimensions"},
        {{"a", LRD_F32, 9, {0}}, "has 9 dimensions"},
        {{"a", LRD_F32, 2, {1ll << 32, 1ll << 32}}, "shape is too large"},
        {{"a", LRD_F32, 1, {1ll << 62}}, "shape is too large"},
        {{"b", LRD_F16, 0, {0}}, "two tensors are named \"b\""},
        {{"a", LRD_I8, 1, {INT64_MAX}}, "too large together"},
    };
    const char *path = lrd_test_temporary("refused.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const lrd_tensor_spec_t spec[] = {cases[i].spec, {"b", LRD_F32, 0, {0}}};
        lrd_safetensors_writer_t *w = NULL;
        assert_fails(lrd_safetensors_begin(path, spec, 2, NULL, &w), LRD_ERR_ARG, cases[i].error);
        assert_null(w);
    }
    assert_false(lrd_file_exists(path));
}

/* Reads a file and writes what is in it, specs back to front: the same bytes. */
static void rewrite(const char *path)
{
    lrd_safetensors_t *file;
    assert_ok(lrd_safetensors_open(path, &file));
    const size_t n = file->n_entries;
    lrd_tensor_spec_t *spec = lrd_calloc(n, sizeof *spec);
    const void **data = lrd_calloc(n, sizeof *data);
    assert_true(spec != NULL && data != NULL);
    for (size_t i = 0; i < n; i++) {
        const lrd_tensor_entry_t *entry = &file->entry[n - 1 - i];
        spec[i] = (lrd_tensor_spec_t){entry->name, entry->dtype, entry->n_dims, {0}};
        memcpy(spec[i].shape, entry->shape, sizeof entry->shape);
        data[i] = lrd_safetensors_data(file, entry);
    }
    const char *copy = lrd_test_temporary("copy.safetensors");
    assert_ok(lrd_safetensors_write(copy, spec, data, n));
    assert_equal_files(copy, path);
    lrd_free(data);
    lrd_free(spec);
    lrd_safetensors_close(file);
}

static void test_rewrites_peft_s_files(void **state)
{
    static const char *const paths[] = {
        "golden/qkv/adapter/adapter_model.safetensors",
        "golden/qkv/adapter_init/adapter_model.safetensors",
        "golden/all-linear/adapter_bf16/adapter_model.safetensors",
        "golden/all-linear/model/model.safetensors",
        "golden/head128-untied/model/model-00002-of-00002.safetensors",
        "golden/squad/adapter/adapter_model.safetensors",
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        const char *path = lrd_test_shared(paths[i]);
        if (path != NULL) {
            rewrite(path);
            n++;
        }
    }
    if (n == 0) {
        printf("SKIPPED: ../shared/golden is not here\n");
        skip();
    }
    assert_int_equal(n, sizeof paths / sizeof paths[0]);
}

/* ---- running out of memory: this program again, with the n-th allocation failing ---- */

enum { EXIT_NO_MEMORY = 3, MAX_ALLOCATIONS = 200 };

static lrd_status_t copy_file(const char *from, const char *to)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_t *file = NULL;
    const lrd_tensor_spec_t spec = {"copy", LRD_F32, 1, {1}};
    lrd_mem_adopt_json();
    LRD_TRY(lrd_safetensors_open(from, &file));
    const void *data = lrd_safetensors_data(file, lrd_safetensors_find(file, ""));
    LRD_TRY(lrd_safetensors_write(to, &spec, &data, 1));
out:
    lrd_safetensors_close(file);
    return status;
}

static int run_with_failing_allocation(int n, const char *from, const char *to)
{
    char number[16];
    int result = 0;
    snprintf(number, sizeof number, "%d", n);
    const pid_t child = fork();
    if (child == 0) {
        setenv("LRD_FAIL_ALLOC", number, 1);
        execl("/proc/self/exe", "test_safetensors", from, to, (char *)NULL);
        _exit(127);
    }
    assert_true(child > 0 && waitpid(child, &result, 0) == child && WIFEXITED(result));
    return WEXITSTATUS(result);
}

static void test_every_allocation_may_fail(void **state)
{
    const char *from = lrd_test_golden("base/names.safetensors");
    const char *folder = lrd_test_temporary("memory");
    const char *to = lrd_test_temporary("memory/out.safetensors");
    assert_ok(lrd_folder_make(folder));
    int n = 1;
    for (; n < MAX_ALLOCATIONS; n++) {
        lrd_names_t names;
        const int code = run_with_failing_allocation(n, from, to);
        assert_ok(lrd_folder_list(folder, &names));
        const size_t n_files = names.n;
        lrd_names_free(&names);
        if (code == 0)
            break;
        if (code != EXIT_NO_MEMORY || n_files != 0)
            fail_msg("allocation %d fails: exit code %d, %zu files left", n, code, n_files);
    }
    assert_true(n > 20 && n < MAX_ALLOCATIONS);
    assert_true(lrd_file_exists(to));
}

int main(int argc, char **argv)
{
    if (argc == 3) {
        const lrd_status_t status = copy_file(argv[1], argv[2]);
        return status == LRD_OK ? 0 : status == LRD_ERR_NO_MEMORY ? EXIT_NO_MEMORY : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writes_the_library_s_bytes),
        cmocka_unit_test(test_reads_the_library_s_files),
        cmocka_unit_test(test_reads_floats),
        cmocka_unit_test(test_accepts_what_the_library_accepts),
        cmocka_unit_test(test_refuses_lengths),
        cmocka_unit_test(test_refuses_a_header_that_is_not_utf8),
        cmocka_unit_test(test_refuses_every_truncation),
        cmocka_unit_test(test_refuses_files),
        cmocka_unit_test(test_writer_in_pieces),
        cmocka_unit_test(test_writer_leaves_nothing_behind),
        cmocka_unit_test(test_writer_refuses_arguments),
        cmocka_unit_test(test_rewrites_peft_s_files),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
