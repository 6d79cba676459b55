/* data/rows.h -- the records of data files as JSON objects, one after the other: JSON lines, one JSON list of objects, or
 * Parquet, which a file's first bytes tell. Several files are read as one.
 */
#ifndef LRD_DATA_ROWS_H
#define LRD_DATA_ROWS_H

#include "base/buf.h"
#include "base/file.h"
#include "data/jsonl.h"
#include "data/parquet.h"

typedef struct lrd_rows lrd_rows_t;

/* `name` is the file, or, where `files` is not NULL, what stands for them; `want` are the members that are looked at, which
 * of Parquet are all that is read. All borrowed, `want` only for the call. LRD_ERR_IO, LRD_ERR_FORMAT, LRD_ERR_UNSUPPORTED. */
lrd_status_t lrd_rows_open(const char *name, const lrd_names_t *files,
                           const lrd_parquet_want_t *want, size_t n_wanted, lrd_rows_t **rows_out);
void lrd_rows_close(lrd_rows_t *rows); /* NULL is fine */

/* How many there are, or more: lines may be empty. */
int64_t lrd_rows_total(const lrd_rows_t *rows);

/* The next record, or NULL at the end. The caller owns it (json_decref). *number_out: what lrd_rows_place takes; ascending,
 * from 1. In one file: the line, or the record's number. */
lrd_status_t lrd_rows_next(lrd_rows_t *rows, json_t **row_out, int64_t *number_out);

/* For what reads members of the record that next gave last: its file and line. */
const lrd_jsonl_t *lrd_rows_reader(const lrd_rows_t *rows);

/* Appends "file:line". */
lrd_status_t lrd_rows_place(const lrd_rows_t *rows, int64_t number, lrd_buf_t *buf);

#endif /* LRD_DATA_ROWS_H */
