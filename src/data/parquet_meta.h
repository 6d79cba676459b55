/* data/parquet_meta.h -- what a Parquet file says about itself: schema, row groups, pages (private to data/parquet*.c).
 *
 * Source: apache/parquet-format, parquet.thrift and LogicalTypes.md. Everything is checked against the file's size before it
 * is used; what fails names file and column.
 */
#ifndef LRD_DATA_PARQUET_META_H
#define LRD_DATA_PARQUET_META_H

#include "base/status.h"
#include "data/parquet_thrift.h"

#include <stddef.h>
#include <stdint.h>

typedef enum lrd_parquet_type { /* as values are stored */
                                LRD_PARQUET_BOOLEAN = 0,
                                LRD_PARQUET_INT32 = 1,
                                LRD_PARQUET_INT64 = 2,
                                LRD_PARQUET_INT96 = 3,
                                LRD_PARQUET_FLOAT = 4,
                                LRD_PARQUET_DOUBLE = 5,
                                LRD_PARQUET_BYTE_ARRAY = 6,
                                LRD_PARQUET_FIXED = 7
} lrd_parquet_type_t;

typedef enum lrd_parquet_shape {
    LRD_PARQUET_LEAF,
    LRD_PARQUET_STRUCT, /* also an element of an old list that is a group */
    LRD_PARQUET_LIST,   /* its child is repeated */
    LRD_PARQUET_MAP
} lrd_parquet_shape_t;

/* A column, or a group of them. Nodes stand in the order of the file, each before its children. */
typedef struct lrd_parquet_node {
    char *name;
    lrd_parquet_shape_t shape;
    lrd_parquet_type_t type; /* of a leaf */
    const char *
        refusal; /* of a leaf: what it holds that is not read here, such as "times"; NULL: it is read */
    bool is_unsigned;
    bool optional, repeated;
    int max_def, max_rep;  /* levels of a value that is there */
    size_t next;           /* the node behind this one's last child */
    size_t n_leaves, leaf; /* below it, and the number of the first */
} lrd_parquet_node_t;

typedef struct lrd_parquet_chunk { /* a column of a row group */
    uint64_t begin, bytes;         /* in the file: all its pages */
    int64_t n_values;              /* also those that are null */
    int codec;
} lrd_parquet_chunk_t;

typedef struct lrd_parquet_meta {
    lrd_parquet_node_t *node; /* [n_nodes]; 0 is the root */
    size_t n_nodes, node_capacity, n_leaves;
    int64_t *group_rows;        /* [n_groups] */
    lrd_parquet_chunk_t *chunk; /* [n_groups][n_leaves] */
    size_t n_groups, group_capacity, n_chunks, chunk_capacity;
    int64_t n_rows;
} lrd_parquet_meta_t;

/* Of a whole file in memory; `name` stands in messages. LRD_ERR_FORMAT, LRD_ERR_UNSUPPORTED (encrypted). */
lrd_status_t lrd_parquet_meta_read(const char *name, const uint8_t *data, size_t bytes,
                                   lrd_parquet_meta_t *meta_out);
void lrd_parquet_meta_release(lrd_parquet_meta_t *meta); /* {0} is fine */

typedef enum lrd_parquet_page_kind {
    LRD_PARQUET_PAGE_V1 = 0,
    LRD_PARQUET_PAGE_INDEX = 1,
    LRD_PARQUET_PAGE_DICTIONARY = 2,
    LRD_PARQUET_PAGE_V2 = 3
} lrd_parquet_page_kind_t;

typedef struct lrd_parquet_page {
    int64_t kind, encoding, n_values;
    int64_t packed_bytes, bytes; /* of its body, as it lies in the file and without compression */
    int64_t crc;                 /* of the body; negative: not said */
    int64_t def_encoding, rep_encoding; /* V1 */
    int64_t def_bytes, rep_bytes;       /* V2: of the levels, which are never compressed */
    bool is_packed;                     /* V2: the values are compressed as the column says */
} lrd_parquet_page_t;

/* Reads a page's header; t->at is then where its body begins. False: it is none. */
bool lrd_parquet_page_read(lrd_thrift_t *t, lrd_parquet_page_t *page_out);

#endif /* LRD_DATA_PARQUET_META_H */
