#include "data/rows.h"

#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

static const size_t max_list_bytes = (size_t)1 << 30;

typedef struct source {
    const char *path;
    lrd_map_t map;
    bool is_list;
    lrd_parquet_t *parquet; /* NULL: it is none */
    int64_t begin;          /* number before its first record */
} source_t;

struct lrd_rows {
    source_t *source; /* [n] */
    size_t n, at;
    bool began; /* source[at] is being read */
    int64_t total;
    json_t *list; /* of source[at], where it is one */
    lrd_jsonl_t reader;
};

static int64_t count_lines(const lrd_map_t *map)
{
    if (map->size == 0)
        return 0;
    const char *text = (const char *)map->data, *end = text + map->size;
    int64_t n = end[-1] != '\n';
    for (const char *at = text; (at = memchr(at, '\n', (size_t)(end - at))) != NULL; at++)
        n++;
    return n;
}

static lrd_status_t open_source(source_t *s, const lrd_parquet_want_t *want, size_t n_wanted,
                                int64_t *total)
{
    lrd_status_t status = LRD_OK;
    int64_t n;
    LRD_TRY(lrd_file_map(s->path, &s->map));
    if (lrd_parquet_begins(s->map.data, s->map.size)) {
        LRD_TRY(lrd_parquet_open(s->path, s->map.data, s->map.size, want, n_wanted, &s->parquet));
        n = lrd_parquet_n_rows(s->parquet);
    } else {
        s->is_list = lrd_jsonl_first_byte(s->map.data, s->map.size) == '[';
        n = count_lines(&s->map);
    }
    *total = *total <= INT64_MAX - n ? *total + n : INT64_MAX;
out:
    return status;
}

lrd_status_t lrd_rows_open(const char *name, const lrd_names_t *files,
                           const lrd_parquet_want_t *want, size_t n_wanted, lrd_rows_t **rows_out)
{
    lrd_status_t status = LRD_OK;
    lrd_rows_t *r = NULL;
    LRD_NEW(r, 1);
    r->n = files != NULL ? files->n : 1;
    LRD_NEW(r->source, r->n);
    for (size_t i = 0; i < r->n; i++) {
        r->source[i].path = files != NULL ? files->name[i] : name;
        LRD_TRY(open_source(&r->source[i], want, n_wanted, &r->total));
    }
    *rows_out = r;
    r = NULL;
out:
    lrd_rows_close(r);
    return status;
}

static void close_source(source_t *s)
{
    lrd_parquet_close(s->parquet);
    s->parquet = NULL;
    lrd_file_unmap(&s->map);
}

void lrd_rows_close(lrd_rows_t *rows)
{
    if (rows == NULL)
        return;
    for (size_t i = 0; rows->source != NULL && i < rows->n; i++)
        close_source(&rows->source[i]);
    lrd_free(rows->source);
    json_decref(rows->list);
    lrd_free(rows);
}

int64_t lrd_rows_total(const lrd_rows_t *rows)
{
    return rows->total;
}

const lrd_jsonl_t *lrd_rows_reader(const lrd_rows_t *rows)
{
    return &rows->reader;
}

static lrd_status_t parse_list(lrd_rows_t *r, const source_t *s)
{
    lrd_status_t status = LRD_OK;
    const char *text = (const char *)s->map.data + r->reader.at; /* behind a byte order mark */
    const size_t bytes = s->map.size - r->reader.at;
    LRD_CHECK(bytes <= max_list_bytes, LRD_ERR_FORMAT,
              "%s is a list of %zu bytes; lists of up to %zu are read: make it JSON lines, which "
              "may be longer",
              s->path, bytes, max_list_bytes);
    LRD_TRY(lrd_json_parse(text, bytes, s->path, &r->list));
out:
    return status;
}

static lrd_status_t begin_source(lrd_rows_t *r)
{
    lrd_status_t status = LRD_OK;
    source_t *s = &r->source[r->at];
    s->begin = r->at > 0 ? s[-1].begin + r->reader.line : 0;
    lrd_jsonl_begin(&r->reader, s->path, s->map.data, s->map.size);
    if (s->is_list)
        LRD_TRY(parse_list(r, s));
    r->began = true;
out:
    return status;
}

static void end_source(lrd_rows_t *r)
{
    json_decref(r->list);
    r->list = NULL;
    close_source(&r->source[r->at]);
    r->at++;
    r->began = false;
}

static lrd_status_t next_of_list(lrd_rows_t *r, json_t **row_out)
{
    lrd_status_t status = LRD_OK;
    const size_t i = (size_t)r->reader.line;
    json_t *row = json_array_get(r->list, i);
    *row_out = NULL;
    if (row == NULL)
        goto out;
    r->reader.line++;
    LRD_CHECK(json_is_object(row), LRD_ERR_FORMAT,
              "%s:%" PRId64 ": the record is %s, expected an object", r->reader.name,
              r->reader.line, lrd_json_type_name(row));
    *row_out = json_incref(row);
    json_array_set_new(r->list, i, json_null()); /* the caller's alone, to change and to free */
out:
    return status;
}

static lrd_status_t next_of_source(lrd_rows_t *r, json_t **row_out)
{
    lrd_status_t status = LRD_OK;
    source_t *s = &r->source[r->at];
    if (s->parquet != NULL) {
        LRD_TRY(lrd_parquet_next(s->parquet, row_out));
        r->reader.line += *row_out != NULL;
    } else if (s->is_list) {
        LRD_TRY(next_of_list(r, row_out));
    } else {
        LRD_TRY(lrd_jsonl_next(&r->reader, row_out));
    }
out:
    return status;
}

lrd_status_t lrd_rows_next(lrd_rows_t *rows, json_t **row_out, int64_t *number_out)
{
    lrd_status_t status = LRD_OK;
    lrd_rows_t *r = rows;
    json_t *row = NULL;
    while (row == NULL && r->at < r->n) {
        if (!r->began)
            LRD_TRY(begin_source(r));
        LRD_TRY(next_of_source(r, &row));
        if (row == NULL)
            end_source(r);
    }
    *number_out = row != NULL ? r->source[r->at].begin + r->reader.line : 0;
    *row_out = row;
out:
    return status;
}

lrd_status_t lrd_rows_place(const lrd_rows_t *rows, int64_t number, lrd_buf_t *buf)
{
    size_t i = rows->at < rows->n ? rows->at : rows->n - 1; /* files behind have no number yet */
    while (i > 0 && rows->source[i].begin >= number)
        i--;
    return lrd_buf_printf(buf, "%s:%" PRId64, rows->source[i].path, number - rows->source[i].begin);
}
