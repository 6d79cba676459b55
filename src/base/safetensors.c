#include "base/safetensors.h"

#include "base/json.h"
#include "base/json_writer.h"
#include "base/mem.h"
#include "base/safetensors_header.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, MAX_HEADER_BYTES = 100000000 };

static const char metadata_name[] = "__metadata__";

/* ---- reading ---- */

/* The product of a shape and its size in bytes, counted as the format's own reader does: left to
 * right, so that a product that overflows is refused even where a zero follows. */
static bool count_elements(const int64_t *shape, int n_dims, lrd_dtype_t dtype,
                           int64_t *n_elements_out, size_t *bytes_out)
{
    int64_t n = 1;
    for (int i = 0; i < n_dims; i++) {
        if (__builtin_mul_overflow(n, shape[i], &n))
            return false;
    }
    *n_elements_out = n;
    return !__builtin_mul_overflow((size_t)n, lrd_dtype_bytes(dtype), bytes_out);
}

static lrd_status_t read_dtype(const json_t *json, const char *file, lrd_tensor_entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(json, "dtype");
    LRD_CHECK(json_is_string(value), LRD_ERR_FORMAT, "%s: tensor \"%s\": \"dtype\" is not a string",
              file, entry->name);
    const char *text = json_string_value(value);
    const int dtype = lrd_dtype_parse(text);
    LRD_CHECK(dtype >= 0 && strcmp(lrd_dtype_file_name((lrd_dtype_t)dtype), text) == 0,
              LRD_ERR_FORMAT, "%s: tensor \"%s\": dtype \"%s\" is not supported", file, entry->name,
              text);
    entry->dtype = (lrd_dtype_t)dtype;
out:
    return status;
}

static lrd_status_t read_shape(const json_t *json, const char *file, lrd_tensor_entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(json, "shape");
    LRD_CHECK(json_is_array(value), LRD_ERR_FORMAT, "%s: tensor \"%s\": \"shape\" is not an array",
              file, entry->name);
    const size_t n_dims = json_array_size(value);
    LRD_CHECK(n_dims <= LRD_TENSOR_MAX_DIMS, LRD_ERR_FORMAT,
              "%s: tensor \"%s\" has %zu dimensions, at most %d are supported", file, entry->name,
              n_dims, LRD_TENSOR_MAX_DIMS);
    for (size_t i = 0; i < n_dims; i++) {
        const json_t *dim = json_array_get(value, i);
        LRD_CHECK(json_is_integer(dim) && json_integer_value(dim) >= 0, LRD_ERR_FORMAT,
                  "%s: tensor \"%s\": shape[%zu] is not an integer of at least 0", file,
                  entry->name, i);
        entry->shape[i] = json_integer_value(dim);
    }
    entry->n_dims = (int)n_dims;
    LRD_CHECK(count_elements(entry->shape, entry->n_dims, entry->dtype, &entry->n_elements,
                             &entry->bytes),
              LRD_ERR_FORMAT, "%s: tensor \"%s\": shape is too large", file, entry->name);
out:
    return status;
}

/* Offsets in the file count from the end of the header;
 * entry->offset from the start of the file. */
static lrd_status_t read_range(const json_t *json, const char *file, size_t data_start,
                               size_t data_bytes, lrd_tensor_entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(json, "data_offsets");
    const json_t *first = json_array_get(value, 0), *last = json_array_get(value, 1);
    LRD_CHECK(json_array_size(value) == 2 && json_is_integer(first) && json_is_integer(last),
              LRD_ERR_FORMAT, "%s: tensor \"%s\": \"data_offsets\" is not a pair of integers", file,
              entry->name);
    const json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    LRD_CHECK(begin >= 0 && end >= begin, LRD_ERR_FORMAT,
              "%s: tensor \"%s\": data_offsets [%" PRId64 ", %" PRId64 "] are not a range", file,
              entry->name, (int64_t)begin, (int64_t)end);
    LRD_CHECK((uint64_t)end <= data_bytes, LRD_ERR_FORMAT,
              "%s: tensor \"%s\" ends at byte %" PRId64
              " of the data, which has %zu: the file is incomplete; copy or download it again",
              file, entry->name, (int64_t)end, data_bytes);
    LRD_CHECK((uint64_t)(end - begin) == entry->bytes, LRD_ERR_FORMAT,
              "%s: tensor \"%s\": data_offsets span %" PRId64
              " bytes, its shape and dtype need %zu",
              file, entry->name, (int64_t)(end - begin), entry->bytes);
    entry->offset = data_start + (size_t)begin;
out:
    return status;
}

static lrd_status_t read_entry(const json_t *json, size_t data_start, lrd_safetensors_t *file,
                               const char *name)
{
    lrd_status_t status = LRD_OK;
    lrd_tensor_entry_t *entry = &file->entry[file->n_entries];
    LRD_CHECK(json_is_object(json), LRD_ERR_FORMAT, "%s: tensor \"%s\" is not an object",
              file->path, name);
    char *copy;
    LRD_ALLOC(copy, lrd_strdup(name));
    entry->name = copy;
    file->n_entries++; /* from here on closing the file frees it */
    LRD_TRY(read_dtype(json, file->path, entry));
    LRD_TRY(read_shape(json, file->path, entry));
    LRD_TRY(read_range(json, file->path, data_start, file->map.size - data_start, entry));
out:
    return status;
}

static lrd_status_t check_metadata(const json_t *json, const char *file)
{
    lrd_status_t status = LRD_OK;
    if (json_is_null(json))
        goto out;
    LRD_CHECK(json_is_object(json), LRD_ERR_FORMAT, "%s: \"%s\" is not an object", file,
              metadata_name);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)json, key, value)
        LRD_CHECK(json_is_string(value), LRD_ERR_FORMAT, "%s: \"%s\": \"%s\" is not a string", file,
                  metadata_name, key);
out:
    return status;
}

static int compare_entry_places(const void *a, const void *b)
{
    const lrd_tensor_entry_t *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors first */
}

static int compare_entry_names(const void *a, const void *b)
{
    const lrd_tensor_entry_t *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Sorts the entries by place and checks that they cover the data without gap or overlap. */
static lrd_status_t check_tiling(lrd_safetensors_t *file, size_t data_start)
{
    lrd_status_t status = LRD_OK;
    size_t at = data_start;
    qsort(file->entry, file->n_entries, sizeof file->entry[0], compare_entry_places);
    for (size_t i = 0; i < file->n_entries; i++) {
        const lrd_tensor_entry_t *entry = &file->entry[i];
        LRD_CHECK(entry->offset == at, LRD_ERR_FORMAT,
                  "%s: tensor \"%s\" begins at byte %zu of the data, expected %zu: tensors %s",
                  file->path, entry->name, entry->offset - data_start, at - data_start,
                  entry->offset > at ? "leave a gap" : "overlap");
        at += entry->bytes;
    }
    LRD_CHECK(at == file->map.size, LRD_ERR_FORMAT,
              "%s: %zu bytes follow the last tensor, expected none", file->path,
              file->map.size - at);
out:
    return status;
}

static lrd_status_t read_header(lrd_safetensors_t *file, json_t **json_out, size_t *data_start_out)
{
    lrd_status_t status = LRD_OK;
    char *name = NULL;
    uint64_t n = 0;
    LRD_CHECK(
        file->map.size >= LENGTH_BYTES, LRD_ERR_FORMAT,
        "%s is not a safetensors file: it has %zu bytes, fewer than the %d of a header length",
        file->path, file->map.size, LENGTH_BYTES);
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | file->map.data[i];
    LRD_CHECK(n <= MAX_HEADER_BYTES, LRD_ERR_FORMAT,
              "%s is not a safetensors file: its header length is %" PRIu64
              ", at most %d is allowed",
              file->path, n, MAX_HEADER_BYTES);
    LRD_CHECK(n <= file->map.size - LENGTH_BYTES, LRD_ERR_FORMAT,
              "%s: a header of %" PRIu64
              " bytes in a file of %zu: the file is incomplete; copy or download it again",
              file->path, n, file->map.size);
    LRD_ALLOC(name, lrd_asprintf("%s (header)", file->path));
    LRD_TRY(lrd_json_parse((const char *)file->map.data + LENGTH_BYTES, (size_t)n, name, json_out));
    *data_start_out = LENGTH_BYTES + (size_t)n;
out:
    lrd_free(name);
    return status;
}

lrd_status_t lrd_safetensors_parse(const void *data, size_t size, const char *name,
                                   lrd_safetensors_t **file_out)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_t *file = NULL;
    json_t *json = NULL, *value;
    const char *key;
    size_t data_start = 0;
    LRD_NEW(file, 1);
    LRD_ALLOC(file->path, lrd_strdup(name));
    file->map = (lrd_map_t){data, size};
    LRD_TRY(read_header(file, &json, &data_start));
    LRD_CHECK(json_is_object(json), LRD_ERR_FORMAT, "%s: the header is not a JSON object", name);
    LRD_NEW(file->entry, json_object_size(json));
    json_object_foreach(json, key, value)
    {
        if (strcmp(key, metadata_name) == 0)
            LRD_TRY(check_metadata(value, name));
        else
            LRD_TRY(read_entry(value, data_start, file, key));
    }
    LRD_TRY(check_tiling(file, data_start));
    qsort(file->entry, file->n_entries, sizeof file->entry[0], compare_entry_names);
    *file_out = file;
    file = NULL;
out:
    json_decref(json);
    lrd_safetensors_close(file);
    return status;
}

lrd_status_t lrd_safetensors_open(const char *path, lrd_safetensors_t **file_out)
{
    lrd_status_t status = LRD_OK;
    lrd_map_t map = {0};
    lrd_safetensors_t *file;
    LRD_TRY(lrd_file_map(path, &map));
    LRD_TRY(lrd_safetensors_parse(map.data, map.size, path, &file));
    file->owns_map = true;
    map = (lrd_map_t){0};
    *file_out = file;
out:
    lrd_file_unmap(&map);
    return status;
}

void lrd_safetensors_close(lrd_safetensors_t *file)
{
    if (file == NULL)
        return;
    for (size_t i = 0; i < file->n_entries; i++)
        lrd_free((char *)file->entry[i].name);
    lrd_free(file->entry);
    if (file->owns_map)
        lrd_file_unmap(&file->map);
    lrd_free(file->path);
    lrd_free(file);
}

static int compare_name_to_entry(const void *name, const void *entry)
{
    return strcmp(name, ((const lrd_tensor_entry_t *)entry)->name);
}

const lrd_tensor_entry_t *lrd_safetensors_find(const lrd_safetensors_t *file, const char *name)
{
    return bsearch(name, file->entry, file->n_entries, sizeof file->entry[0],
                   compare_name_to_entry);
}

const void *lrd_safetensors_data(const lrd_safetensors_t *file, const lrd_tensor_entry_t *entry)
{
    return file->map.data + entry->offset;
}

size_t lrd_safetensors_data_begin(const lrd_safetensors_t *file)
{
    size_t begin = file->map.size;
    for (size_t i = 0; i < file->n_entries; i++)
        begin = file->entry[i].offset < begin ? file->entry[i].offset : begin;
    return begin;
}

lrd_status_t lrd_safetensors_read_f32(const lrd_safetensors_t *file,
                                      const lrd_tensor_entry_t *entry, float *out)
{
    lrd_status_t status = LRD_OK;
    const uint8_t *data = lrd_safetensors_data(file, entry);
    const int64_t n = entry->n_elements;
    uint16_t half;
    double wide;
    switch (entry->dtype) { /* memcpy: a tensor may begin at any byte */
    case LRD_F32:
        if (n > 0)
            memcpy(out, data, entry->bytes);
        break;
    case LRD_BF16:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&half, data + i * 2, sizeof half);
            out[i] = lrd_bf16_to_f32(half);
        }
        break;
    case LRD_F16:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&half, data + i * 2, sizeof half);
            out[i] = lrd_f16_to_f32(half);
        }
        break;
    case LRD_F64:
        for (int64_t i = 0; i < n; i++) {
            memcpy(&wide, data + i * 8, sizeof wide);
            out[i] = (float)wide;
        }
        break;
    default:
        LRD_FAIL(LRD_ERR_FORMAT, "%s: tensor \"%s\" holds %s, expected F32, BF16, F16 or F64",
                 file->path, entry->name, lrd_dtype_file_name(entry->dtype));
    }
out:
    return status;
}

/* ---- writing ---- */

/* Where a dtype's tensors stand in a file: those of the widest elements first. */
static int dtype_rank(lrd_dtype_t dtype)
{
    static const lrd_dtype_t order[] = {LRD_U64, LRD_I64,  LRD_F64, LRD_F32, LRD_U32,
                                        LRD_I32, LRD_BF16, LRD_F16, LRD_U16, LRD_I16,
                                        LRD_I8,  LRD_U8,   LRD_BOOL};
    int rank = 0;
    while (order[rank] != dtype)
        rank++;
    return rank;
}

static int compare_spec_names(const void *a, const void *b)
{
    const lrd_tensor_spec_t *x = *(lrd_tensor_spec_t *const *)a,
                            *y = *(lrd_tensor_spec_t *const *)b;
    return strcmp(x->name, y->name);
}

static int compare_spec_places(const void *a, const void *b)
{
    const lrd_tensor_spec_t *x = *(lrd_tensor_spec_t *const *)a,
                            *y = *(lrd_tensor_spec_t *const *)b;
    const int difference = dtype_rank(x->dtype) - dtype_rank(y->dtype);
    return difference != 0 ? difference : strcmp(x->name, y->name);
}

static lrd_status_t check_spec(const lrd_tensor_spec_t *spec, const char *file, size_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    int64_t n_elements;
    LRD_CHECK(strcmp(spec->name, metadata_name) != 0, LRD_ERR_ARG,
              "%s: a tensor cannot be named \"%s\"", file, metadata_name);
    LRD_CHECK(spec->n_dims >= 0 && spec->n_dims <= LRD_TENSOR_MAX_DIMS, LRD_ERR_ARG,
              "%s: tensor \"%s\" has %d dimensions, expected 0 to %d", file, spec->name,
              spec->n_dims, LRD_TENSOR_MAX_DIMS);
    for (int i = 0; i < spec->n_dims; i++)
        LRD_CHECK(spec->shape[i] >= 0, LRD_ERR_ARG,
                  "%s: tensor \"%s\": shape[%d] is %" PRId64 ", expected at least 0", file,
                  spec->name, i, spec->shape[i]);
    LRD_CHECK(count_elements(spec->shape, spec->n_dims, spec->dtype, &n_elements, bytes_out),
              LRD_ERR_ARG, "%s: tensor \"%s\": shape is too large", file, spec->name);
out:
    return status;
}

static void write_entry(lrd_json_writer_t *w, const lrd_tensor_spec_t *spec, size_t begin,
                        size_t end)
{
    lrd_json_key(w, spec->name);
    lrd_json_open(w, '{');
    lrd_json_key(w, "dtype");
    lrd_json_text(w, lrd_dtype_file_name(spec->dtype));
    lrd_json_key(w, "shape");
    lrd_json_open(w, '[');
    for (int i = 0; i < spec->n_dims; i++)
        lrd_json_int(w, spec->shape[i]);
    lrd_json_close(w, ']');
    lrd_json_key(w, "data_offsets");
    lrd_json_open(w, '[');
    lrd_json_int(w, (int64_t)begin);
    lrd_json_int(w, (int64_t)end);
    lrd_json_close(w, ']');
    lrd_json_close(w, '}');
}

/* The JSON text, padded with spaces to a multiple of 8. */
static lrd_status_t write_json(const char *file, const lrd_tensor_spec_t *const *sorted, size_t n,
                               lrd_buf_t *json, size_t *data_bytes_out)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = json, .indent = -1, .utf8 = true};
    size_t at = 0;
    lrd_json_open(&w, '{');
    lrd_json_key(&w, metadata_name);
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "format");
    lrd_json_text(&w, "pt");
    lrd_json_close(&w, '}');
    for (size_t i = 0; i < n; i++) {
        size_t bytes = 0, end;
        LRD_TRY(check_spec(sorted[i], file, &bytes));
        LRD_CHECK(!__builtin_add_overflow(at, bytes, &end) && end <= INT64_MAX, LRD_ERR_ARG,
                  "%s: the tensors are too large together", file);
        write_entry(&w, sorted[i], at, end);
        at = end;
    }
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    while (json->size % LENGTH_BYTES != 0)
        LRD_TRY(lrd_buf_add(json, " ", 1));
    LRD_CHECK(json->size <= MAX_HEADER_BYTES, LRD_ERR_ARG,
              "%s: a header of %zu bytes, at most %d is allowed", file, json->size,
              MAX_HEADER_BYTES);
    *data_bytes_out = at;
out:
    return status;
}

lrd_status_t lrd_safetensors_header(const char *name, const lrd_tensor_spec_t *spec, size_t n,
                                    size_t *order_out, lrd_buf_t *buf, size_t *data_bytes_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_tensor_spec_t **sorted = NULL;
    lrd_buf_t json = {0};
    LRD_NEW(sorted, n);
    for (size_t i = 0; i < n; i++)
        sorted[i] = &spec[i];
    qsort(sorted, n, sizeof sorted[0], compare_spec_names);
    for (size_t i = 1; i < n; i++)
        LRD_CHECK(strcmp(sorted[i - 1]->name, sorted[i]->name) != 0, LRD_ERR_ARG,
                  "%s: two tensors are named \"%s\"", name, sorted[i]->name);
    qsort(sorted, n, sizeof sorted[0], compare_spec_places);
    LRD_TRY(write_json(name, sorted, n, &json, data_bytes_out));
    uint8_t length[LENGTH_BYTES];
    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (uint8_t)((uint64_t)json.size >> 8 * i);
    LRD_TRY(lrd_buf_add(buf, length, sizeof length));
    LRD_TRY(lrd_buf_add(buf, json.data, json.size));
    for (size_t i = 0; order_out != NULL && i < n; i++)
        order_out[i] = (size_t)(sorted[i] - spec);
out:
    lrd_buf_release(&json);
    lrd_free(sorted);
    return status;
}

struct lrd_safetensors_writer {
    char *path;
    lrd_writer_t *file;
    size_t left; /* bytes of data still to come */
};

lrd_status_t lrd_safetensors_begin(const char *path, const lrd_tensor_spec_t *spec, size_t n,
                                   size_t *order_out, lrd_safetensors_writer_t **writer_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t header = {0};
    lrd_safetensors_writer_t *w = NULL;
    LRD_NEW(w, 1);
    LRD_ALLOC(w->path, lrd_strdup(path));
    LRD_TRY(lrd_safetensors_header(path, spec, n, order_out, &header, &w->left));
    LRD_TRY(lrd_writer_open(path, &w->file));
    LRD_TRY(lrd_writer_add(w->file, header.data, header.size));
    *writer_out = w;
    w = NULL;
out:
    lrd_safetensors_abandon(w);
    lrd_buf_release(&header);
    return status;
}

lrd_status_t lrd_safetensors_add(lrd_safetensors_writer_t *writer, const void *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(bytes <= writer->left, LRD_ERR_ARG,
              "%s: %zu bytes of tensor data, %zu are left to write", writer->path, bytes,
              writer->left);
    LRD_TRY(lrd_writer_add(writer->file, data, bytes));
    writer->left -= bytes;
out:
    return status;
}

lrd_status_t lrd_safetensors_commit(lrd_safetensors_writer_t **writer)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_writer_t *w = *writer;
    *writer = NULL;
    LRD_CHECK(w->left == 0, LRD_ERR_ARG, "%s: %zu bytes of tensor data are missing", w->path,
              w->left);
    LRD_TRY(lrd_writer_commit(&w->file));
out:
    lrd_safetensors_abandon(w);
    return status;
}

void lrd_safetensors_abandon(lrd_safetensors_writer_t *writer)
{
    if (writer == NULL)
        return;
    lrd_writer_abandon(writer->file);
    lrd_free(writer->path);
    lrd_free(writer);
}

lrd_status_t lrd_safetensors_write(const char *path, const lrd_tensor_spec_t *spec,
                                   const void *const *data, size_t n)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_writer_t *w = NULL;
    size_t *order = NULL;
    LRD_NEW(order, n);
    LRD_TRY(lrd_safetensors_begin(path, spec, n, order, &w));
    for (size_t i = 0; i < n; i++) {
        const lrd_tensor_spec_t *s = &spec[order[i]];
        int64_t n_elements = 0;
        size_t bytes = 0;
        count_elements(s->shape, s->n_dims, s->dtype, &n_elements, &bytes);
        LRD_TRY(lrd_safetensors_add(w, data[order[i]], bytes));
    }
    LRD_TRY(lrd_safetensors_commit(&w));
out:
    lrd_safetensors_abandon(w);
    lrd_free(order);
    return status;
}
