/* A safetensors file through the reader. What it accepts keeps the promises of the contract, and
 * the writer's header for the same tensors is accepted too and describes the same. */
#include "fuzz/fuzz_target.h"

#include "base/mem.h"
#include "base/safetensors_header.h"

#include <string.h>

enum { MAX_WRITTEN_BYTES = 1 << 20 };

static void check_entry(const lrd_safetensors_t *file, size_t i)
{
    const lrd_tensor_entry_t *entry = &file->entry[i];
    FUZZ_CHECK(i == 0 || strcmp(file->entry[i - 1].name, entry->name) < 0);
    FUZZ_CHECK(lrd_safetensors_find(file, entry->name) == entry);
    FUZZ_CHECK(entry->offset <= file->map.size && entry->bytes <= file->map.size - entry->offset);
    FUZZ_CHECK(entry->bytes == (size_t)entry->n_elements * lrd_dtype_bytes(entry->dtype));
    float *out = lrd_malloc((size_t)entry->n_elements * sizeof *out); /* at most 4 x the input */
    FUZZ_CHECK(out != NULL);
    const lrd_status_t status = lrd_safetensors_read_f32(file, entry, out);
    FUZZ_CHECK(status == (entry->dtype <= LRD_F64 ? LRD_OK : LRD_ERR_FORMAT));
    lrd_free(out);
}

static void check_equal(const lrd_safetensors_t *a, const lrd_safetensors_t *b)
{
    FUZZ_CHECK(a->n_entries == b->n_entries);
    for (size_t i = 0; i < a->n_entries; i++) {
        const lrd_tensor_entry_t *x = &a->entry[i], *y = &b->entry[i];
        FUZZ_CHECK(strcmp(x->name, y->name) == 0 && x->dtype == y->dtype);
        FUZZ_CHECK(x->n_dims == y->n_dims && memcmp(x->shape, y->shape, sizeof x->shape) == 0);
        FUZZ_CHECK(x->n_elements == y->n_elements && x->bytes == y->bytes);
    }
}

static void write_and_read(const lrd_safetensors_t *file)
{
    lrd_buf_t buf = {0};
    size_t data_bytes = 0, expected_bytes = 0;
    lrd_tensor_spec_t *spec = lrd_calloc(file->n_entries, sizeof *spec);
    FUZZ_CHECK(spec != NULL);
    for (size_t i = 0; i < file->n_entries; i++) {
        const lrd_tensor_entry_t *entry = &file->entry[i];
        spec[i] = (lrd_tensor_spec_t){entry->name, entry->dtype, entry->n_dims, {0}};
        memcpy(spec[i].shape, entry->shape, sizeof entry->shape);
        expected_bytes += entry->bytes;
    }
    FUZZ_CHECK(lrd_safetensors_header("written", spec, file->n_entries, NULL, &buf, &data_bytes) ==
               LRD_OK);
    FUZZ_CHECK(data_bytes == expected_bytes && buf.size % 8 == 0);
    if (data_bytes <= MAX_WRITTEN_BYTES) {
        lrd_safetensors_t *again = NULL;
        FUZZ_CHECK(lrd_buf_reserve(&buf, data_bytes) == LRD_OK);
        memset(buf.data + buf.size, 0, data_bytes);
        FUZZ_CHECK(lrd_safetensors_parse(buf.data, buf.size + data_bytes, "written", &again) ==
                   LRD_OK);
        check_equal(file, again);
        lrd_safetensors_close(again);
    }
    lrd_free(spec);
    lrd_buf_release(&buf);
}

static void check_file(const void *data, size_t size)
{
    lrd_safetensors_t *file = NULL;
    const lrd_status_t status = lrd_safetensors_parse(data, size, "fuzz", &file);
    if (status == LRD_OK) {
        for (size_t i = 0; i < file->n_entries; i++)
            check_entry(file, i);
        FUZZ_CHECK(lrd_safetensors_find(file, "__metadata__") == NULL);
        write_and_read(file);
        lrd_safetensors_close(file);
    } else {
        FUZZ_CHECK(status == LRD_ERR_FORMAT && file == NULL);
    }
    lrd_error_clear();
}

/* Every input is a file; and it is a header behind the number of data bytes, so that a change of
 * the header's length does not end at the check of the length. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_file(data, size);
    if (size > 0) {
        const size_t n = size - 1, n_data = data[0];
        uint8_t *made = lrd_calloc(8 + n + n_data, 1);
        FUZZ_CHECK(made != NULL);
        for (int i = 0; i < 8; i++)
            made[i] = (uint8_t)((uint64_t)n >> 8 * i);
        memcpy(made + 8, data + 1, n);
        check_file(made, 8 + n + n_data);
        lrd_free(made);
    }
    return 0;
}
