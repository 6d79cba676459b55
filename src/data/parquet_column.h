/* data/parquet_column.h -- a column of a row group, entry after entry (private to data/parquet*.c).
 *
 * Of the column one page lies in memory without compression, and its dictionary.
 */
#ifndef LRD_DATA_PARQUET_COLUMN_H
#define LRD_DATA_PARQUET_COLUMN_H

#include "base/buf.h"
#include "data/parquet_meta.h"
#include "data/parquet_values.h"

typedef struct lrd_parquet_column {
    const char *file;                 /* borrowed, for messages */
    char *path;                       /* owned: "answers.list.element" */
    const lrd_parquet_node_t *node;   /* borrowed */
    const lrd_parquet_chunk_t *chunk; /* of the row group, borrowed */
    size_t group;                     /* its number */
    const uint8_t *at, *end;          /* what was not read of it */
    int64_t n_left, n_page; /* entries of the row group, and of the page, behind this one */
    lrd_parquet_runs_t def_runs, rep_runs;
    lrd_parquet_values_t values;
    lrd_buf_t page;
    /* the entry */
    bool ended; /* there is none: the row group ends */
    int def, rep;
    lrd_parquet_value_t value; /* where def is the node's max_def; until the next entry */
} lrd_parquet_column_t;

/* To the first entry of a row group; `data` is the file. */
lrd_status_t lrd_parquet_column_begin(lrd_parquet_column_t *column, const uint8_t *data,
                                      const lrd_parquet_chunk_t *chunk, size_t group);
lrd_status_t lrd_parquet_column_next(lrd_parquet_column_t *column);
void lrd_parquet_column_release(lrd_parquet_column_t *column); /* {0} is fine */

/* Records a failure with the column's place: "train.parquet: row group 3, column answers.text: ...". */
lrd_status_t lrd_parquet_column_fail(const lrd_parquet_column_t *column, lrd_status_t code,
                                     const char *format, ...) __attribute__((format(printf, 3, 4)));

#define LRD_COLUMN_CHECK(condition, column, code, ...)                       \
    do {                                                                     \
        if (!(condition)) {                                                  \
            status = lrd_parquet_column_fail((column), (code), __VA_ARGS__); \
            LRD_KNOW_FAILED(status);                                         \
            goto out;                                                        \
        }                                                                    \
    } while (0)

#endif /* LRD_DATA_PARQUET_COLUMN_H */
