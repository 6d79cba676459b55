/* data/parquet.h -- Parquet files, as those of the Hub's data sets: a row at a time, as a JSON object.
 *
 * A row becomes what its line would be if the file were JSON lines: columns are members, structs are objects, lists are
 * lists, a null is null. Texts have to be UTF-8; a number that is infinite or none is null, as pandas writes it. A row has
 * at most 16 MiB.
 *
 * Of a file one page of each column is in memory, and its dictionary. Read are texts, integers, truth values, float and
 * double, structs and lists of them at any depth (three-level lists and the older forms), data pages of both versions, the
 * encodings PLAIN, dictionary, RLE and DELTA_*, compressed with Snappy, GZIP, Zstandard or not at all. All else is refused
 * in words. Source of the format: apache/parquet-format. docs/decisions.md says why no library does this.
 *
 * Errors name the file, and row group and column where it is theirs.
 */
#ifndef LRD_DATA_PARQUET_H
#define LRD_DATA_PARQUET_H

#include "base/json.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lrd_parquet lrd_parquet_t;

/* A column that is wanted, with all that is in it. */
typedef struct lrd_parquet_want {
    const char *name; /* of the outermost level */
    bool optional;    /* no error if there is none */
} lrd_parquet_want_t;

/* Whether a file that begins so is a Parquet file. */
bool lrd_parquet_begins(const void *data, size_t bytes);

/* Opens a file in memory, for some of its columns; what the others hold is not looked at. `name` and the bytes are borrowed.
 * LRD_ERR_FORMAT: damaged, or a wanted column is not there. LRD_ERR_UNSUPPORTED: one cannot be read here. */
lrd_status_t lrd_parquet_open(const char *name, const void *data, size_t bytes,
                              const lrd_parquet_want_t *want, size_t n_wanted,
                              lrd_parquet_t **parquet_out);
void lrd_parquet_close(lrd_parquet_t *parquet); /* NULL is fine */

/* As the file says. */
int64_t lrd_parquet_n_rows(const lrd_parquet_t *parquet);

/* The next row, or NULL at the end. The caller owns it (json_decref). */
lrd_status_t lrd_parquet_next(lrd_parquet_t *parquet, json_t **row_out);

#endif /* LRD_DATA_PARQUET_H */
