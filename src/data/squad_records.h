/* data/squad_records.h -- records of questions, put into SQuAD's own form (private to data/squad*.c). */
#ifndef LRD_DATA_SQUAD_RECORDS_H
#define LRD_DATA_SQUAD_RECORDS_H

#include "base/file.h"
#include "base/json.h"

#include <stdbool.h>
#include <stddef.h>

/* Whether a file holds records: Parquet, a JSON list, or lines whose first is an object that asks a "question".
 * LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_squad_records_begin(const void *data, size_t bytes, bool *records_out);

/* {"data": [...]} of files as lrd_rows_open takes them; the caller owns it. An article is a run of records of one title, a
 * paragraph a run of one context. LRD_ERR_FORMAT: a member is missing or of another type; with the record's place. */
lrd_status_t lrd_squad_records_read(const char *name, const lrd_names_t *files, json_t **root_out);

#endif /* LRD_DATA_SQUAD_RECORDS_H */
