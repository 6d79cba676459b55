#include "support/model_folder.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/safetensors.h"
#include "support/test_support.h"

#include <string.h>

static void copy_file(const char *from, const char *to)
{
    lrd_buf_t content = {0};
    assert_ok(lrd_file_read(from, (size_t)1 << 30, &content));
    assert_ok(lrd_file_write(to, content.data, content.size));
    lrd_buf_release(&content);
}

/* In place, float32 to something no wider. */
static void narrow(float *values, int64_t n, lrd_dtype_t dtype)
{
    uint16_t *half = (uint16_t *)values;
    for (int64_t i = 0; i < n && dtype != LRD_F32; i++) {
        float x;
        memcpy(&x, &values[i], sizeof x);
        const uint16_t h = dtype == LRD_F16 ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
        memcpy(&half[i], &h, sizeof h);
    }
}

static void convert_file(const char *from, const char *to, lrd_dtype_t dtype)
{
    lrd_safetensors_t *file = NULL;
    assert_ok(lrd_safetensors_open(from, &file));
    const size_t n = file->n_entries;
    lrd_tensor_spec_t *spec = lrd_calloc(n, sizeof *spec);
    void **data = lrd_calloc(n, sizeof *data);
    for (size_t i = 0; i < n; i++) {
        const lrd_tensor_entry_t *e = &file->entry[i];
        spec[i] = (lrd_tensor_spec_t){.name = e->name, .dtype = dtype, .n_dims = e->n_dims};
        memcpy(spec[i].shape, e->shape, sizeof spec[i].shape);
        data[i] = lrd_calloc((size_t)e->n_elements, sizeof(float));
        assert_ok(lrd_safetensors_read_f32(file, e, data[i]));
        narrow(data[i], e->n_elements, dtype);
    }
    assert_ok(lrd_safetensors_write(to, spec, (const void *const *)data, n));
    for (size_t i = 0; i < n; i++)
        lrd_free(data[i]);
    lrd_free(data);
    lrd_free(spec);
    lrd_safetensors_close(file);
}

static void copy_all(const char *from, const char *to, int dtype)
{
    lrd_names_t names;
    assert_ok(lrd_folder_make(to));
    assert_ok(lrd_folder_list(from, &names));
    for (size_t i = 0; i < names.n; i++) {
        char *source = lrd_path_join(from, names.name[i]), *copy = lrd_path_join(to, names.name[i]);
        if (dtype >= 0 && strstr(source, ".safetensors") != NULL && strstr(source, ".json") == NULL)
            convert_file(source, copy, (lrd_dtype_t)dtype);
        else if (lrd_file_exists(source))
            copy_file(source, copy);
        lrd_free(source);
        lrd_free(copy);
    }
    lrd_names_free(&names);
}

void test_copy_folder(const char *from, const char *to)
{
    copy_all(from, to, -1);
}

void test_copy_folder_as(const char *from, const char *to, lrd_dtype_t dtype)
{
    copy_all(from, to, (int)dtype);
}

void test_put_file(const char *folder, const char *name, const char *content)
{
    char *path = lrd_path_join(folder, name);
    assert_ok(lrd_file_write(path, content, strlen(content)));
    lrd_free(path);
}
