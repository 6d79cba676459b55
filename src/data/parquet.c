#include "data/parquet.h"

#include "base/mem.h"
#include "data/parquet_column.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_ROW = 16 << 20, ENTRY_BYTES = 4 /* of a number in JSON, roughly */ };

struct lrd_parquet {
    const char *name;
    const uint8_t *data;
    lrd_parquet_meta_t meta;
    size_t *member; /* [n_members] the root's children that are wanted */
    size_t n_members;
    lrd_parquet_column_t *column; /* [n_leaves]; path == NULL: not wanted */
    size_t group;                 /* the next row group */
    int64_t n_left;               /* rows of the one in work */
    int64_t row;                  /* number, from 1, of the row in work */
    size_t row_bytes;
};

bool lrd_parquet_begins(const void *data, size_t bytes)
{
    return bytes >= 4 && (memcmp(data, "PAR1", 4) == 0 || memcmp(data, "PARE", 4) == 0);
}

/* The columns that there are, for a message. */
static lrd_status_t list_members(const lrd_parquet_meta_t *m, lrd_buf_t *list)
{
    lrd_status_t status = LRD_OK;
    enum { MAX_LISTED = 1000 };
    for (size_t i = 1; i < m->n_nodes && list->size < MAX_LISTED; i = m->node[i].next)
        LRD_TRY(lrd_buf_printf(list, "%s%.100s", i > 1 ? ", " : "", m->node[i].name));
out:
    return status;
}

/* The wanted column's node; *found_out is false where an optional one is not there. */
static lrd_status_t find_member(const lrd_parquet_t *p, const lrd_parquet_want_t *want,
                                size_t *node_out, bool *found_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_meta_t *m = &p->meta;
    lrd_buf_t list = {0};
    size_t i = 1;
    while (i < m->n_nodes && strcmp(m->node[i].name, want->name) != 0)
        i = m->node[i].next;
    *found_out = i < m->n_nodes;
    *node_out = i;
    if (*found_out || want->optional)
        goto out;
    LRD_TRY(list_members(m, &list));
    LRD_FAIL(LRD_ERR_FORMAT, "%s has no column \"%.100s\", which is needed; its columns are: %s",
             p->name, want->name, list.data != NULL ? list.data : "none");
out:
    lrd_buf_release(&list);
    return status;
}

/* Gives every leaf below a node its column. `path`: of what is above it, "" or "answers.". */
static lrd_status_t make_columns(lrd_parquet_t *p, size_t at, const char *path)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_node_t *n = &p->meta.node[at];
    lrd_parquet_column_t *c = &p->column[n->leaf];
    char *here = NULL;
    const bool is_leaf = n->shape == LRD_PARQUET_LEAF;
    LRD_ALLOC(here, lrd_asprintf("%s%s%s", path, n->name, is_leaf ? "" : "."));
    LRD_CHECK(n->shape != LRD_PARQUET_MAP, LRD_ERR_UNSUPPORTED,
              "%s: column %.200s holds maps, which are not read: make them structs or lists",
              p->name, here);
    if (is_leaf) {
        LRD_CHECK(n->refusal == NULL, LRD_ERR_UNSUPPORTED,
                  "%s: column %.200s holds %s, which are not read, but texts and numbers: make it "
                  "one of these",
                  p->name, here, n->refusal);
        c->file = p->name;
        c->node = n;
        c->values.type = n->type;
        lrd_free(c->path); /* a column that is wanted twice */
        c->path = here;
        here = NULL;
        goto out;
    }
    for (size_t i = at + 1; i < n->next; i = p->meta.node[i].next)
        LRD_TRY(make_columns(p, i, here));
out:
    lrd_free(here);
    return status;
}

lrd_status_t lrd_parquet_open(const char *name, const void *data, size_t bytes,
                              const lrd_parquet_want_t *want, size_t n_wanted,
                              lrd_parquet_t **parquet_out)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_t *p = NULL;
    LRD_NEW(p, 1);
    p->name = name;
    p->data = data;
    LRD_TRY(lrd_parquet_meta_read(name, data, bytes, &p->meta));
    LRD_NEW(p->member, n_wanted + 1);
    LRD_NEW(p->column, p->meta.n_leaves);
    for (size_t i = 0; i < n_wanted; i++) {
        bool found = false;
        size_t node = 0;
        LRD_TRY(find_member(p, &want[i], &node, &found));
        if (found) {
            p->member[p->n_members++] = node;
            LRD_TRY(make_columns(p, node, ""));
        }
    }
    *parquet_out = p;
    p = NULL;
out:
    lrd_parquet_close(p);
    return status;
}

void lrd_parquet_close(lrd_parquet_t *parquet)
{
    if (parquet == NULL)
        return;
    for (size_t i = 0; parquet->column != NULL && i < parquet->meta.n_leaves; i++)
        lrd_parquet_column_release(&parquet->column[i]);
    lrd_free(parquet->column);
    lrd_free(parquet->member);
    lrd_parquet_meta_release(&parquet->meta);
    lrd_free(parquet);
}

int64_t lrd_parquet_n_rows(const lrd_parquet_t *parquet)
{
    return parquet->meta.n_rows;
}

static lrd_status_t fail_levels(const lrd_parquet_column_t *c)
{
    return lrd_parquet_column_fail(
        c, LRD_ERR_FORMAT,
        "the levels of its values do not fit the schema; the file is damaged: fetch or write it "
        "anew");
}

static json_t *make_integer(const lrd_parquet_node_t *n, int64_t value)
{
    if (n->type == LRD_PARQUET_BOOLEAN)
        return json_boolean(value != 0);
    if (n->is_unsigned && n->type == LRD_PARQUET_INT32)
        value = (int64_t)(uint32_t)value;
    return json_integer(value);
}

/* The value that the column stands at. */
static lrd_status_t make_value(const lrd_parquet_column_t *c, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_node_t *n = c->node;
    const lrd_parquet_value_t *v = &c->value;
    json_t *json = NULL;
    if (n->type == LRD_PARQUET_BYTE_ARRAY) {
        json = json_stringn(v->text.data, v->text.bytes);
        LRD_COLUMN_CHECK(json != NULL || lrd_mem_json_failed(), c, LRD_ERR_FORMAT,
                         "a value of %zu bytes is no text in UTF-8; bytes, images and sounds are "
                         "not read",
                         v->text.bytes);
    } else if (n->type == LRD_PARQUET_FLOAT || n->type == LRD_PARQUET_DOUBLE) {
        json = __builtin_isfinite(v->real) ? json_real(v->real) : json_null();
    } else {
        LRD_COLUMN_CHECK(!n->is_unsigned || n->type != LRD_PARQUET_INT64 || v->integer >= 0, c,
                         LRD_ERR_UNSUPPORTED, "a number of 2^63 or more, which is not read");
        json = make_integer(n, v->integer);
    }
    LRD_CHECK(json != NULL, LRD_ERR_NO_MEMORY, "out of memory: a value of a row");
    *json_out = json;
out:
    return status;
}

/* One entry of each column below a node goes, and there is nothing in it. */
static lrd_status_t pass_over(lrd_parquet_t *p, const lrd_parquet_node_t *n)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = n->leaf; i < n->leaf + n->n_leaves; i++)
        LRD_TRY(lrd_parquet_column_next(&p->column[i]));
out:
    return status;
}

static lrd_status_t count_bytes(lrd_parquet_t *p, const lrd_parquet_column_t *c)
{
    lrd_status_t status = LRD_OK;
    const bool is_text = c->node->type == LRD_PARQUET_BYTE_ARRAY && c->def == c->node->max_def;
    p->row_bytes += ENTRY_BYTES + (is_text ? c->value.text.bytes : 0);
    LRD_COLUMN_CHECK(p->row_bytes <= MAX_ROW, c, LRD_ERR_FORMAT,
                     "row %" PRId64 " of the file has more than the %d bytes that are read", p->row,
                     MAX_ROW);
out:
    return status;
}

static lrd_status_t read_value(lrd_parquet_t *p, size_t at, json_t **json_out);

static lrd_status_t read_leaf(lrd_parquet_t *p, const lrd_parquet_node_t *n, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_column_t *c = &p->column[n->leaf];
    json_t *value = NULL;
    LRD_TRY(count_bytes(p, c));
    LRD_TRY(c->def == n->max_def ? make_value(c, &value) : fail_levels(c));
    LRD_TRY(lrd_parquet_column_next(c));
    *json_out = value;
    value = NULL;
out:
    json_decref(value);
    return status;
}

static lrd_status_t read_struct(lrd_parquet_t *p, size_t at, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_node_t *n = &p->meta.node[at];
    json_t *object = json_object(), *value = NULL;
    LRD_CHECK(object != NULL, LRD_ERR_NO_MEMORY, "out of memory: a row");
    for (size_t i = at + 1; i < n->next; i = p->meta.node[i].next) {
        LRD_TRY(read_value(p, i, &value));
        LRD_CHECK(json_object_set_new(object, p->meta.node[i].name, value) == 0, LRD_ERR_NO_MEMORY,
                  "out of memory: a row");
    }
    *json_out = object;
    object = NULL;
out:
    json_decref(object);
    return status;
}

/* The node that is the element of a list's repeated child; the child itself, in the older forms. Source: LogicalTypes.md,
 * "Backward-compatibility rules". */
static size_t find_element(const lrd_parquet_t *p, size_t repeated)
{
    const lrd_parquet_node_t *r = &p->meta.node[repeated];
    const bool one_child =
        r->shape != LRD_PARQUET_LEAF && p->meta.node[repeated + 1].next == r->next;
    if (!one_child || p->meta.node[repeated + 1].repeated || strcmp(r->name, "array") == 0)
        return repeated;
    const size_t n = strlen(r->name);
    const lrd_parquet_node_t *list = r - 1;
    const bool tuple = n >= 6 && strcmp(r->name + n - 6, "_tuple") == 0 &&
                       strlen(list->name) == n - 6 && strncmp(r->name, list->name, n - 6) == 0;
    return tuple ? repeated : repeated + 1;
}

static lrd_status_t read_group(lrd_parquet_t *p, size_t at, json_t **json_out);

/* The elements of a repeated node; `element` is it or its child. */
static lrd_status_t read_elements(lrd_parquet_t *p, size_t repeated, size_t element,
                                  json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_node_t *r = &p->meta.node[repeated];
    const lrd_parquet_column_t *first = &p->column[r->leaf];
    json_t *list = json_array(), *value = NULL;
    LRD_CHECK(list != NULL, LRD_ERR_NO_MEMORY, "out of memory: a row");
    if (first->def < r->max_def) {
        LRD_TRY(pass_over(p, r));
    } else {
        do {
            LRD_TRY(count_bytes(p, first));
            LRD_TRY(element == repeated ? read_group(p, element, &value)
                                        : read_value(p, element, &value));
            LRD_CHECK(json_array_append_new(list, value) == 0, LRD_ERR_NO_MEMORY,
                      "out of memory: a row");
        } while (!first->ended && first->rep == r->max_rep);
    }
    *json_out = list;
    list = NULL;
out:
    json_decref(list);
    return status;
}

/* What stands in a node that is there. */
static lrd_status_t read_group(lrd_parquet_t *p, size_t at, json_t **json_out)
{
    const lrd_parquet_node_t *n = &p->meta.node[at];
    if (n->shape == LRD_PARQUET_LEAF)
        return read_leaf(p, n, json_out);
    if (n->shape == LRD_PARQUET_LIST)
        return read_elements(p, at + 1, find_element(p, at + 1), json_out);
    return read_struct(p, at, json_out);
}

/* What stands in a node, or null. */
static lrd_status_t read_value(lrd_parquet_t *p, size_t at, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parquet_node_t *n = &p->meta.node[at];
    const lrd_parquet_column_t *first = &p->column[n->leaf];
    LRD_TRY(first->ended ? fail_levels(first) : LRD_OK);
    if (n->repeated) { /* without a list around it */
        LRD_TRY(read_elements(p, at, at, json_out));
    } else if (n->optional && first->def < n->max_def) {
        LRD_TRY(count_bytes(p, first));
        LRD_TRY(pass_over(p, n));
        *json_out = json_null();
    } else {
        LRD_TRY(read_group(p, at, json_out));
    }
out:
    return status;
}

/* Every column is where a row begins, or the row group ends. */
static lrd_status_t check_rows(const lrd_parquet_t *p)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < p->meta.n_leaves; i++) {
        const lrd_parquet_column_t *c = &p->column[i];
        LRD_TRY(c->path != NULL && (c->rep != 0 || c->ended != (p->n_left == 0)) ? fail_levels(c)
                                                                                 : LRD_OK);
    }
out:
    return status;
}

static lrd_status_t next_group(lrd_parquet_t *p)
{
    lrd_status_t status = LRD_OK;
    const size_t g = p->group;
    p->group++;
    p->n_left = p->meta.group_rows[g];
    for (size_t i = 0; i < p->meta.n_leaves; i++) {
        if (p->column[i].path != NULL)
            LRD_TRY(lrd_parquet_column_begin(&p->column[i], p->data,
                                             &p->meta.chunk[g * p->meta.n_leaves + i], g));
    }
    LRD_TRY(check_rows(p));
out:
    return status;
}

static lrd_status_t read_row(lrd_parquet_t *p, json_t **row_out)
{
    lrd_status_t status = LRD_OK;
    json_t *row = json_object(), *value = NULL;
    LRD_CHECK(row != NULL, LRD_ERR_NO_MEMORY, "out of memory: a row");
    p->row_bytes = 0;
    p->row++;
    for (size_t i = 0; i < p->n_members; i++) {
        LRD_TRY(read_value(p, p->member[i], &value));
        LRD_CHECK(json_object_set_new(row, p->meta.node[p->member[i]].name, value) == 0,
                  LRD_ERR_NO_MEMORY, "out of memory: a row");
    }
    p->n_left--;
    LRD_TRY(check_rows(p));
    *row_out = row;
    row = NULL;
out:
    json_decref(row);
    return status;
}

lrd_status_t lrd_parquet_next(lrd_parquet_t *parquet, json_t **row_out)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_t *p = parquet;
    while (p->n_left == 0 && p->group < p->meta.n_groups)
        LRD_TRY(next_group(p));
    *row_out = NULL;
    if (p->n_left > 0)
        LRD_TRY(read_row(p, row_out));
out:
    return status;
}
