/* data/dataset_source.h -- the records of text files, squad or jsonl, as values for a prompt
 * template (private to data/dataset*.c). */
#ifndef LRD_DATA_DATASET_SOURCE_H
#define LRD_DATA_DATASET_SOURCE_H

#include "base/buf.h"
#include "base/json.h"
#include "base/status.h"
#include "data/dataset.h"
#include "data/prompt.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_source lrd_source_t;

/* One record: what its fields hold, and where it comes from. */
typedef struct lrd_source_row {
    lrd_text_t *value; /* [fields of the prompt], the array is the caller's */
    json_t *owner;     /* of the values (jsonl): lrd_source_row_release; NULL: the source is */
    int64_t source, group;
} lrd_source_row_t;

/* Opens the files, and compiles the template and checks it against the format. LRD_ERR_CONFIG,
 * LRD_ERR_FORMAT, LRD_ERR_IO: as lrd_dataset_tokenize says. */
lrd_status_t lrd_source_open(const lrd_dataset_spec_t *spec, lrd_source_t **source_out);
void lrd_source_close(lrd_source_t *source); /* NULL is fine */

const lrd_prompt_t *lrd_source_prompt(const lrd_source_t *source);

/* The prompt's field `context` for truncate_context; negative: the setting is another. */
int lrd_source_context_field(const lrd_source_t *source);

/* How many records there are, or more: lines may be empty. */
int64_t lrd_source_total(const lrd_source_t *source);

/* How many groups, of what has been read. */
int64_t lrd_source_n_groups(const lrd_source_t *source);

/* Fills row->value and the rest. *more_out: false at the end. */
lrd_status_t lrd_source_next(lrd_source_t *source, lrd_source_row_t *row, bool *more_out);
void lrd_source_row_release(lrd_source_row_t *row);

/* Appends the row's place for messages: "train.jsonl:7". */
lrd_status_t lrd_source_place(const lrd_source_t *source, const lrd_source_row_t *row,
                              lrd_buf_t *buf);

#endif /* LRD_DATA_DATASET_SOURCE_H */
