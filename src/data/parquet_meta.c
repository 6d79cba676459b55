#include "data/parquet_meta.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_FOOTER = 256 << 20, MAX_NODES = 10000, MAX_LEVEL = 16 };
enum { TAIL_BYTES = 8, MAGIC_BYTES = 4 };
static const char damaged[] = "the file is damaged or not complete: fetch or write it anew";

/* How the values of a leaf are to be understood, in Thrift's numbers. */
enum { CONVERTED_MAP = 1, CONVERTED_MAP_KEY_VALUE = 2, CONVERTED_LIST = 3 };
enum { LOGICAL_MAP = 2, LOGICAL_LIST = 3, LOGICAL_INTEGER = 10 };

static const char *refuse_converted(int64_t converted)
{
    switch (converted) {
    case 5:
        return "decimal numbers";
    case 6:
        return "dates";
    case 7:
    case 8:
    case 9:
    case 10:
    case 21:
        return "times";
    case 20:
        return "BSON";
    default:
        return NULL;
    }
}

static const char *refuse_logical(int id)
{
    static const char *const what[] = {
        [5] = "decimal numbers", [6] = "dates",  [7] = "times",           [8] = "times",
        [13] = "BSON",           [14] = "UUIDs", [15] = "float16 numbers"};
    return id >= 0 && id < (int)(sizeof what / sizeof what[0]) ? what[id] : NULL;
}

static const char *refuse_type(int64_t type)
{
    return type == LRD_PARQUET_INT96   ? "times (INT96)"
           : type == LRD_PARQUET_FIXED ? "bytes of a fixed length"
                                       : NULL;
}

/* A schema element as it stands in the file. */
typedef struct element {
    lrd_text_t name;
    int64_t type, repetition, n_children, converted;
    int logical; /* the member of the union that is set */
    bool is_unsigned;
} element_t;

static void read_integer(lrd_thrift_t *t, int type, element_t *e)
{
    int id = 0;
    lrd_thrift_struct(t, type);
    while (lrd_thrift_field(t, &id, &type)) {
        if (id == 2)
            e->is_unsigned = !lrd_thrift_bool(t, type);
        else
            lrd_thrift_skip(t, type);
    }
}

static void read_logical(lrd_thrift_t *t, int type, element_t *e)
{
    int id = 0;
    lrd_thrift_struct(t, type);
    while (lrd_thrift_field(t, &id, &type)) {
        e->logical = id;
        if (id == LOGICAL_INTEGER)
            read_integer(t, type, e);
        else
            lrd_thrift_skip(t, type);
    }
}

static void read_element(lrd_thrift_t *t, element_t *e)
{
    int id = 0, type = 0;
    *e = (element_t){.name = {"", 0}, .type = -1, .converted = -1};
    while (lrd_thrift_field(t, &id, &type)) {
        switch (id) {
        case 1:
            e->type = lrd_thrift_int(t, type);
            break;
        case 3:
            e->repetition = lrd_thrift_int(t, type);
            break;
        case 4:
            e->name = lrd_thrift_text(t, type);
            break;
        case 5:
            e->n_children = lrd_thrift_int(t, type);
            break;
        case 6:
            e->converted = lrd_thrift_int(t, type);
            break;
        case 10:
            read_logical(t, type, e);
            break;
        default:
            lrd_thrift_skip(t, type);
        }
    }
    e->is_unsigned = e->is_unsigned || (e->converted >= 11 && e->converted <= 14);
}

static lrd_parquet_shape_t shape_of(const element_t *e)
{
    if (e->n_children == 0)
        return LRD_PARQUET_LEAF;
    if (e->converted == CONVERTED_LIST || e->logical == LOGICAL_LIST)
        return LRD_PARQUET_LIST;
    if (e->converted == CONVERTED_MAP || e->converted == CONVERTED_MAP_KEY_VALUE ||
        e->logical == LOGICAL_MAP)
        return LRD_PARQUET_MAP;
    return LRD_PARQUET_STRUCT;
}

typedef struct schema {
    const char *name; /* of the file */
    lrd_thrift_t *t;
    int64_t n_left; /* elements that were not read yet */
    lrd_parquet_meta_t *meta;
} schema_t;

static bool is_text(lrd_text_t text)
{
    int32_t code = 0;
    for (size_t at = 0; at < text.bytes && code >= 0;)
        at += lrd_utf8_next(text.data + at, text.bytes - at, &code);
    return code >= 0 && memchr(text.data, '\0', text.bytes) == NULL;
}

/* Fills a node from its element. */
static lrd_status_t take_element(schema_t *s, const element_t *e, lrd_parquet_node_t *node)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(!s->t->failed && e->repetition >= 0 && e->repetition <= 2 && e->n_children >= 0 &&
                  (e->n_children > 0 || (e->type >= 0 && e->type <= LRD_PARQUET_FIXED)) &&
                  is_text(e->name),
              LRD_ERR_FORMAT, "%s: the schema cannot be read; %s", s->name, damaged);
    node->shape = shape_of(e);
    if (node->shape == LRD_PARQUET_LEAF) {
        node->type = (lrd_parquet_type_t)e->type;
        node->is_unsigned = e->is_unsigned;
        node->refusal = refuse_logical(e->logical);
        if (node->refusal == NULL)
            node->refusal = refuse_converted(e->converted);
        if (node->refusal == NULL)
            node->refusal = refuse_type(e->type);
    }
    node->optional = e->repetition == 1;
    node->repeated = e->repetition == 2;
    LRD_ALLOC(node->name, lrd_strndup(e->name.data, e->name.bytes));
out:
    return status;
}

/* Reads an element and all below it. */
static lrd_status_t read_node(schema_t *s, int def, int rep, int level)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_meta_t *m = s->meta;
    element_t e;
    const size_t at = m->n_nodes;
    LRD_CHECK(s->n_left > 0 && level < MAX_LEVEL && at < MAX_NODES, LRD_ERR_FORMAT,
              "%s: the schema is no tree, or one of more than %d levels or %d columns; %s", s->name,
              MAX_LEVEL, MAX_NODES, damaged);
    s->n_left--;
    read_element(s->t, &e);
    if (level == 0)
        e.repetition = 0; /* the root's says nothing */
    LRD_GROW(m->node, m->n_nodes, m->node_capacity);
    m->node[at] = (lrd_parquet_node_t){.leaf = m->n_leaves};
    m->n_nodes++;
    LRD_TRY(take_element(s, &e, &m->node[at]));
    m->node[at].max_rep = rep += m->node[at].repeated;
    m->node[at].max_def = def += m->node[at].repeated || m->node[at].optional;
    if (m->node[at].shape == LRD_PARQUET_LEAF)
        m->n_leaves++;
    for (int64_t i = 0; i < e.n_children; i++)
        LRD_TRY(read_node(s, def, rep, level + 1));
    m->node[at].n_leaves = m->n_leaves - m->node[at].leaf;
    m->node[at].next = m->n_nodes;
    if (m->node[at].shape == LRD_PARQUET_LIST)
        LRD_CHECK(e.n_children == 1 && m->node[at + 1].repeated, LRD_ERR_FORMAT,
                  "%s: the list \"%.100s\" has no repeated element; %s", s->name, m->node[at].name,
                  damaged);
out:
    return status;
}

static void read_chunk_meta(lrd_thrift_t *t, int type, lrd_parquet_chunk_t *c)
{
    int id = 0;
    int64_t data = -1, dictionary = -1, bytes = -1;
    lrd_thrift_struct(t, type);
    c->codec = -1;
    c->n_values = -1;
    while (lrd_thrift_field(t, &id, &type)) {
        switch (id) {
        case 4:
            c->codec = (int)lrd_thrift_int(t, type);
            break;
        case 5:
            c->n_values = lrd_thrift_int(t, type);
            break;
        case 7:
            bytes = lrd_thrift_int(t, type);
            break;
        case 9:
            data = lrd_thrift_int(t, type);
            break;
        case 11:
            dictionary = lrd_thrift_int(t, type);
            break;
        default:
            lrd_thrift_skip(t, type);
        }
    }
    const int64_t begin = dictionary > 0 && dictionary < data ? dictionary : data;
    if (begin < 0 || bytes < 0 || c->n_values < 0 || c->codec < 0)
        t->failed = true;
    c->begin = (uint64_t)begin;
    c->bytes = (uint64_t)bytes;
}

/* *encrypted_out, *elsewhere_out: why a chunk without pages in this file has none. */
static void read_chunk(lrd_thrift_t *t, lrd_parquet_chunk_t *c, bool *encrypted_out,
                       bool *elsewhere_out)
{
    int id = 0, type = 0;
    bool has_meta = false;
    while (lrd_thrift_field(t, &id, &type)) {
        *encrypted_out |= id == 8 || id == 9;
        *elsewhere_out |= id == 1;
        has_meta |= id == 3;
        if (id == 3)
            read_chunk_meta(t, type, c);
        else
            lrd_thrift_skip(t, type);
    }
    t->failed |= !has_meta && !*encrypted_out;
}

static lrd_status_t read_chunks(const char *name, lrd_thrift_t *t, int type, lrd_parquet_meta_t *m)
{
    lrd_status_t status = LRD_OK;
    int element = 0;
    const int64_t n = lrd_thrift_list(t, type, &element);
    LRD_CHECK(!t->failed && (size_t)n == m->n_leaves && element == LRD_THRIFT_STRUCT,
              LRD_ERR_FORMAT, "%s: row group %zu has not the columns of the schema; %s", name,
              m->n_groups, damaged);
    for (int64_t i = 0; i < n; i++) {
        lrd_parquet_chunk_t c = {0};
        bool encrypted = false, elsewhere = false;
        read_chunk(t, &c, &encrypted, &elsewhere);
        LRD_CHECK(!encrypted, LRD_ERR_UNSUPPORTED, "%s: the file is encrypted, which is not read",
                  name);
        LRD_CHECK(!elsewhere, LRD_ERR_UNSUPPORTED,
                  "%s: its columns lie in other files, which are not looked for: write it anew in "
                  "one piece",
                  name);
        LRD_CHECK(!t->failed, LRD_ERR_FORMAT, "%s: the columns of row group %zu cannot be read; %s",
                  name, m->n_groups, damaged);
        LRD_GROW(m->chunk, m->n_chunks, m->chunk_capacity);
        m->chunk[m->n_chunks++] = c;
    }
out:
    return status;
}

static lrd_status_t read_group(const char *name, lrd_thrift_t *t, lrd_parquet_meta_t *m)
{
    lrd_status_t status = LRD_OK;
    int id = 0, type = 0;
    int64_t n_rows = -1;
    const size_t n_chunks = m->n_chunks;
    while (lrd_thrift_field(t, &id, &type)) {
        if (id == 1 && m->n_chunks == n_chunks)
            LRD_TRY(read_chunks(name, t, type, m));
        else if (id == 3)
            n_rows = lrd_thrift_int(t, type);
        else
            lrd_thrift_skip(t, type);
    }
    LRD_CHECK(!t->failed && n_rows >= 0 && m->n_chunks - n_chunks == m->n_leaves &&
                  m->n_rows <= INT64_MAX - n_rows,
              LRD_ERR_FORMAT, "%s: row group %zu cannot be read; %s", name, m->n_groups, damaged);
    LRD_GROW(m->group_rows, m->n_groups, m->group_capacity);
    m->group_rows[m->n_groups++] = n_rows;
    m->n_rows += n_rows;
out:
    return status;
}

static lrd_status_t read_groups(const char *name, lrd_thrift_t *t, int type, lrd_parquet_meta_t *m)
{
    lrd_status_t status = LRD_OK;
    int element = 0;
    const int64_t n = lrd_thrift_list(t, type, &element);
    LRD_CHECK(m->n_nodes > 0 && (n == 0 || element == LRD_THRIFT_STRUCT), LRD_ERR_FORMAT,
              "%s: row groups before the schema; %s", name, damaged);
    for (int64_t i = 0; i < n && !t->failed; i++)
        LRD_TRY(read_group(name, t, m));
out:
    return status;
}

static lrd_status_t read_footer(const char *name, lrd_thrift_t *t, lrd_parquet_meta_t *m)
{
    lrd_status_t status = LRD_OK;
    schema_t s = {.name = name, .t = t, .meta = m};
    int id = 0, type = 0, element = 0;
    while (lrd_thrift_field(t, &id, &type)) {
        if (id == 2 && m->n_nodes == 0) {
            s.n_left = lrd_thrift_list(t, type, &element);
            LRD_TRY(read_node(&s, 0, 0, 0));
            LRD_CHECK(s.n_left == 0 && m->node[0].shape == LRD_PARQUET_STRUCT, LRD_ERR_FORMAT,
                      "%s: the schema is no tree; %s", name, damaged);
        } else if (id == 4 && m->n_groups == 0) {
            LRD_TRY(read_groups(name, t, type, m));
        } else {
            LRD_CHECK(id != 8, LRD_ERR_UNSUPPORTED, "%s: the file is encrypted, which is not read",
                      name);
            lrd_thrift_skip(t, type);
        }
    }
    LRD_CHECK(!t->failed && m->n_nodes > 0, LRD_ERR_FORMAT,
              "%s: the footer with schema and row groups cannot be read; %s", name, damaged);
out:
    return status;
}

static lrd_status_t check_chunks(const char *name, size_t pages_end, const lrd_parquet_meta_t *m)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < m->n_chunks; i++) {
        const lrd_parquet_chunk_t *c = &m->chunk[i];
        LRD_CHECK(c->begin <= pages_end && c->bytes <= pages_end - c->begin, LRD_ERR_FORMAT,
                  "%s: row group %zu has pages up to byte %" PRIu64
                  ", and the file's end at %zu; %s",
                  name, i / m->n_leaves, c->begin + c->bytes, pages_end, damaged);
    }
out:
    return status;
}

lrd_status_t lrd_parquet_meta_read(const char *name, const uint8_t *data, size_t bytes,
                                   lrd_parquet_meta_t *meta_out)
{
    lrd_status_t status = LRD_OK;
    lrd_parquet_meta_t m = {0};
    uint32_t footer = 0;
    LRD_CHECK(bytes >= MAGIC_BYTES + TAIL_BYTES &&
                  (memcmp(data + bytes - MAGIC_BYTES, "PAR1", MAGIC_BYTES) == 0 ||
                   memcmp(data + bytes - MAGIC_BYTES, "PARE", MAGIC_BYTES) == 0),
              LRD_ERR_FORMAT, "%s: a Parquet file ends in PAR1, this one of %zu bytes does not; %s",
              name, bytes, damaged);
    LRD_CHECK(data[bytes - 1] == '1', LRD_ERR_UNSUPPORTED,
              "%s: the file is encrypted, which is not read", name);
    memcpy(&footer, data + bytes - TAIL_BYTES, sizeof footer); /* little-endian, as this machine */
    LRD_CHECK(footer <= MAX_FOOTER && footer <= bytes - MAGIC_BYTES - TAIL_BYTES, LRD_ERR_FORMAT,
              "%s: its footer should have %" PRIu32 " bytes, the file has %zu; %s", name, footer,
              bytes, damaged);
    const size_t pages_end = bytes - TAIL_BYTES - footer;
    lrd_thrift_t t = {.at = data + pages_end, .end = data + bytes - TAIL_BYTES};
    LRD_TRY(read_footer(name, &t, &m));
    LRD_TRY(check_chunks(name, pages_end, &m));
    *meta_out = m;
    m = (lrd_parquet_meta_t){0};
out:
    lrd_parquet_meta_release(&m);
    return status;
}

void lrd_parquet_meta_release(lrd_parquet_meta_t *meta)
{
    for (size_t i = 0; i < meta->n_nodes; i++)
        lrd_free(meta->node[i].name);
    lrd_free(meta->node);
    lrd_free(meta->group_rows);
    lrd_free(meta->chunk);
    *meta = (lrd_parquet_meta_t){0};
}

/* What the header says of one kind of page. Of the fields' numbers, -1: this kind has none. */
typedef struct kind_fields {
    int encoding, def_encoding, rep_encoding, def_bytes, rep_bytes, is_packed;
} kind_fields_t;

static void read_kind(lrd_thrift_t *t, int type, const kind_fields_t *f, lrd_parquet_page_t *p)
{
    int id = 0;
    lrd_thrift_struct(t, type);
    while (lrd_thrift_field(t, &id, &type)) {
        if (id == 1)
            p->n_values = lrd_thrift_int(t, type);
        else if (id == f->encoding)
            p->encoding = lrd_thrift_int(t, type);
        else if (id == f->def_encoding)
            p->def_encoding = lrd_thrift_int(t, type);
        else if (id == f->rep_encoding)
            p->rep_encoding = lrd_thrift_int(t, type);
        else if (id == f->def_bytes)
            p->def_bytes = lrd_thrift_int(t, type);
        else if (id == f->rep_bytes)
            p->rep_bytes = lrd_thrift_int(t, type);
        else if (id == f->is_packed)
            p->is_packed = lrd_thrift_bool(t, type);
        else
            lrd_thrift_skip(t, type);
    }
}

bool lrd_parquet_page_read(lrd_thrift_t *t, lrd_parquet_page_t *page_out)
{
    static const kind_fields_t v1 = {2, 3, 4, -1, -1, -1}, dictionary = {2, -1, -1, -1, -1, -1},
                               v2 = {4, -1, -1, 5, 6, 7};
    lrd_parquet_page_t p = {.kind = -1,
                            .encoding = -1,
                            .n_values = 0,
                            .packed_bytes = -1,
                            .bytes = -1,
                            .crc = -1,
                            .is_packed = true};
    int id = 0, type = 0;
    while (lrd_thrift_field(t, &id, &type)) {
        if (id == 1)
            p.kind = lrd_thrift_int(t, type);
        else if (id == 2)
            p.bytes = lrd_thrift_int(t, type);
        else if (id == 3)
            p.packed_bytes = lrd_thrift_int(t, type);
        else if (id == 4)
            p.crc = (int64_t)(uint32_t)lrd_thrift_int(t, type);
        else if (id == 5 || id == 7 || id == 8)
            read_kind(t, type, id == 5 ? &v1 : id == 7 ? &dictionary : &v2, &p);
        else
            lrd_thrift_skip(t, type);
    }
    *page_out = p;
    return !t->failed && p.kind >= 0 && p.n_values >= 0 && p.bytes >= 0 && p.packed_bytes >= 0 &&
           p.packed_bytes <= t->end - t->at && p.def_bytes >= 0 && p.rep_bytes >= 0;
}
