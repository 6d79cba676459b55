#include "data/parquet_column.h"

#include "base/beat.h"
#include "base/mem.h"
#include "data/parquet_codec.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_PAGE = 512 << 20 };
static const char damaged[] = "the file is damaged: fetch or write it anew";
static const char rewrite[] =
    "write the file anew, as pyarrow.parquet.write_table or to_parquet() of the Python package "
    "datasets do";

lrd_status_t lrd_parquet_column_fail(const lrd_parquet_column_t *column, lrd_status_t code,
                                     const char *format, ...)
{
    char what[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return lrd_fail(code, __FILE__, __LINE__, "%s: row group %zu, column %.200s: %s", column->file,
                    column->group, column->path, what);
}

static bool is_data(const lrd_parquet_page_t *p)
{
    return p->kind == LRD_PARQUET_PAGE_V1 || p->kind == LRD_PARQUET_PAGE_V2;
}

/* Header and body of the next page. */
static lrd_status_t take_page(lrd_parquet_column_t *c, lrd_parquet_page_t *p,
                              const uint8_t **body_out)
{
    lrd_status_t status = LRD_OK;
    lrd_thrift_t t = {.at = c->at, .end = c->end};
    LRD_COLUMN_CHECK(c->at < c->end, c, LRD_ERR_FORMAT,
                     "the pages end %" PRId64 " values too early; %s", c->n_left, damaged);
    LRD_COLUMN_CHECK(lrd_parquet_page_read(&t, p), c, LRD_ERR_FORMAT,
                     "the header of a page cannot be read; %s", damaged);
    LRD_COLUMN_CHECK(p->bytes <= MAX_PAGE, c, LRD_ERR_UNSUPPORTED,
                     "a page has %" PRId64 " bytes; %d are read. Smaller pages: %s", p->bytes,
                     MAX_PAGE, rewrite);
    LRD_COLUMN_CHECK(p->crc < 0 || p->crc == lrd_parquet_codec_crc(t.at, (size_t)p->packed_bytes),
                     c, LRD_ERR_FORMAT, "a page's check sum is another; %s", damaged);
    *body_out = t.at;
    c->at = t.at + p->packed_bytes;
    lrd_beat();
out:
    return status;
}

/* Where the bytes lie without compression: in the file as they are, or in the buffer. */
static lrd_status_t unpack(const lrd_parquet_column_t *c, bool is_packed, const uint8_t *data,
                           size_t bytes, size_t n, lrd_buf_t *buf, const uint8_t **out)
{
    lrd_status_t status = LRD_OK;
    const int codec = is_packed ? c->chunk->codec : LRD_PARQUET_UNCOMPRESSED;
    if (codec == LRD_PARQUET_UNCOMPRESSED) {
        LRD_COLUMN_CHECK(bytes == n, c, LRD_ERR_FORMAT,
                         "a page has %zu bytes and should have %zu; %s", bytes, n, damaged);
        *out = data;
        goto out;
    }
    lrd_buf_clear(buf);
    LRD_TRY(lrd_buf_reserve(buf, n + 1));
    LRD_COLUMN_CHECK(
        bytes == 0 ? n == 0 : lrd_parquet_codec_unpack(codec, data, bytes, (uint8_t *)buf->data, n),
        c, LRD_ERR_FORMAT, "a page compressed with %s cannot be unpacked; %s",
        lrd_parquet_codec_name(codec), damaged);
    *out = (const uint8_t *)buf->data;
out:
    return status;
}

static lrd_status_t take_dictionary(lrd_parquet_column_t *c, const lrd_parquet_page_t *p,
                                    const uint8_t *body)
{
    lrd_status_t status = LRD_OK;
    bool sound = false;
    LRD_COLUMN_CHECK(
        p->encoding == LRD_PARQUET_PLAIN || p->encoding == LRD_PARQUET_PLAIN_DICTIONARY, c,
        LRD_ERR_FORMAT, "the dictionary's encoding is %" PRId64 "; %s", p->encoding, damaged);
    LRD_TRY(unpack(c, true, body, (size_t)p->packed_bytes, (size_t)p->bytes,
                   &c->values.dictionary_bytes, &body));
    LRD_TRY(lrd_parquet_values_take_dictionary(&c->values, body, (size_t)p->bytes,
                                               (size_t)p->n_values, &sound));
    LRD_COLUMN_CHECK(sound, c, LRD_ERR_FORMAT, "the dictionary cannot be read; %s", damaged);
out:
    return status;
}

static int bits_of(int max_level)
{
    int bits = 0;
    while (max_level >> bits != 0)
        bits++;
    return bits;
}

/* Levels of a page of the first kind: their length, then they. */
static lrd_status_t take_levels(const lrd_parquet_column_t *c, int64_t encoding, int max_level,
                                const uint8_t **at, const uint8_t *end, lrd_parquet_runs_t *runs)
{
    lrd_status_t status = LRD_OK;
    uint32_t bytes = 0;
    if (max_level == 0)
        goto out;
    LRD_COLUMN_CHECK(encoding == LRD_PARQUET_RLE, c, LRD_ERR_UNSUPPORTED,
                     "the levels have encoding %" PRId64 ", of very old writers; %s", encoding,
                     rewrite);
    const size_t left = (size_t)(end - *at);
    if (left >= sizeof bytes)
        memcpy(&bytes, *at, sizeof bytes);
    LRD_COLUMN_CHECK(left >= sizeof bytes && bytes <= left - sizeof bytes, c, LRD_ERR_FORMAT,
                     "a page ends in its levels; %s", damaged);
    lrd_parquet_runs_begin(runs, *at + sizeof bytes, bytes, bits_of(max_level));
    *at += sizeof bytes + bytes;
out:
    return status;
}

static lrd_status_t take_v1(lrd_parquet_column_t *c, const lrd_parquet_page_t *p,
                            const uint8_t *body, const uint8_t **at_out, const uint8_t **end_out)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(unpack(c, true, body, (size_t)p->packed_bytes, (size_t)p->bytes, &c->page, &body));
    const uint8_t *at = body, *end = body + p->bytes;
    LRD_TRY(take_levels(c, p->rep_encoding, c->node->max_rep, &at, end, &c->rep_runs));
    LRD_TRY(take_levels(c, p->def_encoding, c->node->max_def, &at, end, &c->def_runs));
    *at_out = at;
    *end_out = end;
out:
    return status;
}

static lrd_status_t take_v2(lrd_parquet_column_t *c, const lrd_parquet_page_t *p,
                            const uint8_t *body, const uint8_t **at_out, const uint8_t **end_out)
{
    lrd_status_t status = LRD_OK;
    LRD_COLUMN_CHECK(p->rep_bytes <= p->packed_bytes &&
                         p->def_bytes <= p->packed_bytes - p->rep_bytes &&
                         p->rep_bytes + p->def_bytes <= p->bytes,
                     c, LRD_ERR_FORMAT, "a page ends in its levels; %s", damaged);
    const size_t levels = (size_t)(p->rep_bytes + p->def_bytes), n = (size_t)p->bytes - levels;
    lrd_parquet_runs_begin(&c->rep_runs, body, (size_t)p->rep_bytes, bits_of(c->node->max_rep));
    lrd_parquet_runs_begin(&c->def_runs, body + p->rep_bytes, (size_t)p->def_bytes,
                           bits_of(c->node->max_def));
    LRD_TRY(unpack(c, p->is_packed, body + levels, (size_t)p->packed_bytes - levels, n, &c->page,
                   at_out));
    *end_out = *at_out + n;
out:
    return status;
}

static lrd_status_t take_data(lrd_parquet_column_t *c, const lrd_parquet_page_t *p,
                              const uint8_t *body)
{
    lrd_status_t status = LRD_OK;
    const uint8_t *at = NULL, *end = NULL;
    LRD_COLUMN_CHECK(p->n_values <= c->n_left, c, LRD_ERR_FORMAT,
                     "the pages have more values than the column; %s", damaged);
    LRD_COLUMN_CHECK(lrd_parquet_values_reads(c->node->type, p->encoding), c, LRD_ERR_UNSUPPORTED,
                     "values in encoding %" PRId64 " are not read; %s", p->encoding, rewrite);
    if (p->kind == LRD_PARQUET_PAGE_V1)
        LRD_TRY(take_v1(c, p, body, &at, &end));
    else
        LRD_TRY(take_v2(c, p, body, &at, &end));
    LRD_COLUMN_CHECK(lrd_parquet_values_begin(&c->values, (lrd_parquet_encoding_t)p->encoding, at,
                                              (size_t)(end - at)),
                     c, LRD_ERR_FORMAT, "the values of a page cannot be read; %s", damaged);
    c->n_page = p->n_values;
out:
    return status;
}

/* Pages until one has entries. */
static lrd_status_t next_page(lrd_parquet_column_t *c)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_page_t p;
    const uint8_t *body = NULL;
    while (c->n_page == 0) {
        LRD_TRY(take_page(c, &p, &body));
        LRD_COLUMN_CHECK(is_data(&p) || p.kind == LRD_PARQUET_PAGE_INDEX ||
                             p.kind == LRD_PARQUET_PAGE_DICTIONARY,
                         c, LRD_ERR_FORMAT, "a page of the unknown kind %" PRId64 "; %s", p.kind,
                         damaged);
        if (is_data(&p))
            LRD_TRY(take_data(c, &p, body));
        else if (p.kind == LRD_PARQUET_PAGE_DICTIONARY)
            LRD_TRY(take_dictionary(c, &p, body));
    }
out:
    return status;
}

lrd_status_t lrd_parquet_column_next(lrd_parquet_column_t *column)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_column_t *c = column;
    const lrd_parquet_node_t *n = c->node;
    bool sound = true;
    if (c->n_left == 0) {
        c->ended = true;
        c->rep = 0;
        goto out;
    }
    if (c->n_page == 0)
        LRD_TRY(next_page(c));
    c->rep = n->max_rep > 0 ? (int)lrd_parquet_runs_next(&c->rep_runs) : 0;
    c->def = n->max_def > 0 ? (int)lrd_parquet_runs_next(&c->def_runs) : 0;
    LRD_COLUMN_CHECK((n->max_rep == 0 || !c->rep_runs.failed) &&
                         (n->max_def == 0 || !c->def_runs.failed) && c->rep <= n->max_rep &&
                         c->def <= n->max_def,
                     c, LRD_ERR_FORMAT, "the levels of a page cannot be read; %s", damaged);
    if (c->def == n->max_def) {
        LRD_TRY(lrd_parquet_values_next(&c->values, &c->value, &sound));
        LRD_COLUMN_CHECK(sound, c, LRD_ERR_FORMAT, "a page has too few values; %s", damaged);
    }
    c->n_page--;
    c->n_left--;
out:
    return status;
}

lrd_status_t lrd_parquet_column_begin(lrd_parquet_column_t *column, const uint8_t *data,
                                      const lrd_parquet_chunk_t *chunk, size_t group)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_column_t *c = column;
    c->chunk = chunk;
    c->group = group;
    c->at = data + chunk->begin;
    c->end = c->at + chunk->bytes;
    c->n_left = chunk->n_values;
    c->n_page = 0;
    c->ended = false;
    c->values.n_dictionary = 0;
    LRD_COLUMN_CHECK(
        lrd_parquet_codec_reads(chunk->codec), c, LRD_ERR_UNSUPPORTED,
        "it is compressed with %s, which is not read, but Snappy, GZIP and Zstandard; %s",
        lrd_parquet_codec_name(chunk->codec), rewrite);
    LRD_TRY(lrd_parquet_column_next(c));
out:
    return status;
}

void lrd_parquet_column_release(lrd_parquet_column_t *column)
{
    lrd_free(column->path);
    lrd_parquet_values_release(&column->values);
    lrd_buf_release(&column->page);
    *column = (lrd_parquet_column_t){.path = NULL};
}
