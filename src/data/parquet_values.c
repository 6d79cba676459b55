#include "data/parquet_values.h"

#include "base/mem.h"

#include <string.h>

static bool is_integer(lrd_parquet_type_t type)
{
    return type == LRD_PARQUET_INT32 || type == LRD_PARQUET_INT64;
}

bool lrd_parquet_values_reads(lrd_parquet_type_t type, int64_t encoding)
{
    switch (encoding) {
    case LRD_PARQUET_PLAIN:
    case LRD_PARQUET_PLAIN_DICTIONARY:
    case LRD_PARQUET_RLE_DICTIONARY:
        return true;
    case LRD_PARQUET_RLE:
        return type == LRD_PARQUET_BOOLEAN;
    case LRD_PARQUET_DELTA_BINARY:
        return is_integer(type);
    case LRD_PARQUET_DELTA_LENGTH:
    case LRD_PARQUET_DELTA_BYTES:
        return type == LRD_PARQUET_BYTE_ARRAY;
    default:
        return false;
    }
}

/* What an integer column keeps: 32 bits of it where it is INT32. */
static int64_t narrow(lrd_parquet_type_t type, int64_t value)
{
    return type == LRD_PARQUET_INT32 ? (int32_t)(uint32_t)(uint64_t)value : value;
}

static bool next_text(lrd_parquet_values_t *v, size_t bytes, lrd_text_t *text_out)
{
    if (bytes > (size_t)(v->end - v->at))
        return false;
    *text_out = (lrd_text_t){(const char *)v->at, bytes};
    v->at += bytes;
    return true;
}

static bool next_number(lrd_parquet_values_t *v, void *number_out, size_t bytes)
{
    if (bytes > (size_t)(v->end - v->at))
        return false;
    memcpy(number_out, v->at, bytes); /* little-endian, as this machine */
    v->at += bytes;
    return true;
}

static bool next_plain(lrd_parquet_values_t *v, lrd_parquet_value_t *value_out)
{
    int32_t integer = 0;
    uint32_t bytes = 0;
    float real = 0;
    switch (v->type) {
    case LRD_PARQUET_BOOLEAN:
        if (v->at == v->end)
            return false;
        value_out->integer = *v->at >> v->bit & 1;
        v->bit = (v->bit + 1) % 8;
        v->at += v->bit == 0;
        return true;
    case LRD_PARQUET_INT32:
        if (!next_number(v, &integer, sizeof integer))
            return false;
        value_out->integer = integer;
        return true;
    case LRD_PARQUET_INT64:
        return next_number(v, &value_out->integer, sizeof value_out->integer);
    case LRD_PARQUET_FLOAT:
        if (!next_number(v, &real, sizeof real))
            return false;
        value_out->real = (double)real;
        return true;
    case LRD_PARQUET_DOUBLE:
        return next_number(v, &value_out->real, sizeof value_out->real);
    default:
        return next_number(v, &bytes, sizeof bytes) && next_text(v, bytes, &value_out->text);
    }
}

/* Lengths, of which there are two lists where values share their beginnings; behind them the bytes. */
static bool begin_texts(lrd_parquet_values_t *v)
{
    lrd_buf_clear(&v->text);
    if (v->encoding == LRD_PARQUET_DELTA_BYTES) {
        lrd_parquet_deltas_begin(&v->shared, v->at, (size_t)(v->end - v->at));
        v->at = lrd_parquet_deltas_end(&v->shared);
        if (v->at == NULL)
            return false;
    }
    lrd_parquet_deltas_begin(&v->deltas, v->at, (size_t)(v->end - v->at));
    v->at = lrd_parquet_deltas_end(&v->deltas);
    return v->at != NULL;
}

/* The bytes behind a length of 4 bytes. */
static bool begin_truth_runs(lrd_parquet_values_t *v)
{
    uint32_t bytes = 0;
    lrd_text_t runs = {"", 0};
    const bool sound = next_number(v, &bytes, sizeof bytes) && next_text(v, bytes, &runs);
    lrd_parquet_runs_begin(&v->runs, (const uint8_t *)runs.data, runs.bytes, 1);
    return sound;
}

bool lrd_parquet_values_begin(lrd_parquet_values_t *values, lrd_parquet_encoding_t encoding,
                              const uint8_t *data, size_t bytes)
{
    lrd_parquet_values_t *v = values;
    v->encoding = encoding == LRD_PARQUET_PLAIN_DICTIONARY ? LRD_PARQUET_RLE_DICTIONARY : encoding;
    v->at = data;
    v->end = data + bytes;
    v->bit = 0;
    if (bytes == 0) { /* nulls only: to take a value fails */
        v->encoding = LRD_PARQUET_PLAIN;
        return true;
    }
    switch (v->encoding) {
    case LRD_PARQUET_RLE_DICTIONARY: /* the width, then the runs */
        lrd_parquet_runs_begin(&v->runs, data + 1, bytes - 1, data[0]);
        return !v->runs.failed;
    case LRD_PARQUET_RLE:
        return begin_truth_runs(v);
    case LRD_PARQUET_DELTA_BINARY:
        lrd_parquet_deltas_begin(&v->deltas, data, bytes);
        return !v->deltas.failed;
    case LRD_PARQUET_DELTA_LENGTH:
    case LRD_PARQUET_DELTA_BYTES:
        return begin_texts(v);
    default:
        return true;
    }
}

/* Its own bytes, behind what it shares with the value before. */
static lrd_status_t next_delta_text(lrd_parquet_values_t *v, lrd_text_t *text_out, bool *sound_out)
{
    lrd_status_t status = LRD_OK;
    lrd_text_t rest = {"", 0};
    const int64_t bytes = lrd_parquet_deltas_next(&v->deltas);
    *sound_out = !v->deltas.failed && bytes >= 0 && next_text(v, (size_t)bytes, &rest);
    if (*sound_out && v->encoding == LRD_PARQUET_DELTA_BYTES) {
        const int64_t shared = lrd_parquet_deltas_next(&v->shared);
        *sound_out = !v->shared.failed && shared >= 0 && (size_t)shared <= v->text.size;
        if (!*sound_out)
            goto out;
        v->text.size = (size_t)shared;
        LRD_TRY(lrd_buf_add(&v->text, rest.data, rest.bytes));
        rest = v->text.size > 0 ? (lrd_text_t){v->text.data, v->text.size} : rest;
    }
    *text_out = rest;
out:
    return status;
}

lrd_status_t lrd_parquet_values_next(lrd_parquet_values_t *values, lrd_parquet_value_t *value_out,
                                     bool *sound_out)
{
    lrd_parquet_values_t *v = values;
    size_t place;
    switch (v->encoding) {
    case LRD_PARQUET_RLE_DICTIONARY:
        place = lrd_parquet_runs_next(&v->runs);
        *sound_out = !v->runs.failed && place < v->n_dictionary;
        if (*sound_out)
            *value_out = v->dictionary[place];
        return LRD_OK;
    case LRD_PARQUET_RLE:
        value_out->integer = lrd_parquet_runs_next(&v->runs);
        *sound_out = !v->runs.failed;
        return LRD_OK;
    case LRD_PARQUET_DELTA_BINARY:
        value_out->integer = narrow(v->type, lrd_parquet_deltas_next(&v->deltas));
        *sound_out = !v->deltas.failed;
        return LRD_OK;
    case LRD_PARQUET_DELTA_LENGTH:
    case LRD_PARQUET_DELTA_BYTES:
        return next_delta_text(v, &value_out->text, sound_out);
    default:
        *sound_out = next_plain(v, value_out);
        return LRD_OK;
    }
}

lrd_status_t lrd_parquet_values_take_dictionary(lrd_parquet_values_t *values, const uint8_t *data,
                                                size_t bytes, size_t n, bool *sound_out)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_values_t *v = values;
    lrd_free(v->dictionary);
    v->dictionary = NULL;
    v->n_dictionary = 0;
    *sound_out = v->type != LRD_PARQUET_BOOLEAN && n <= bytes / 4; /* the shortest values */
    if (!*sound_out)
        goto out;
    LRD_ALLOC(v->dictionary, lrd_malloc((n + 1) * sizeof *v->dictionary));
    v->at = data;
    v->end = data + bytes;
    v->bit = 0;
    while (v->n_dictionary < n && *sound_out) {
        *sound_out = next_plain(v, &v->dictionary[v->n_dictionary]);
        v->n_dictionary += *sound_out;
    }
out:
    return status;
}

void lrd_parquet_values_release(lrd_parquet_values_t *values)
{
    lrd_free(values->dictionary);
    lrd_buf_release(&values->text);
    lrd_buf_release(&values->dictionary_bytes);
    *values = (lrd_parquet_values_t){.bit = 0};
}
