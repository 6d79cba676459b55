/* data/dataset_store.h -- the storage behind data sets (private to data/dataset*.c): arrays that
 * grow while records are added, or that lie in a mapped file.
 *
 * Labels take one number per record in all usual cases: label_start[i] = k >= 0 says that the
 * labels before position k are ignored and the others equal the tokens. Where labels are anything
 * else, label_start[i] = -1 and the record's labels stand in `label`, record after record.
 */
#ifndef LRD_DATA_DATASET_STORE_H
#define LRD_DATA_DATASET_STORE_H

#include "base/file.h"
#include "base/status.h"
#include "data/dataset.h"

/*  name         type     elements    HDF5 data sets of these names hold them */
#define LRD_STORE_ARRAYS(X)                    \
    X(tokens, int32_t, s->n_tokens)            \
    X(labels, int32_t, s->n_labels)            \
    X(offsets, int64_t, s->n_records + 1)      \
    X(label_start, int32_t, s->n_records)      \
    X(n_record_targets, int32_t, s->n_records) \
    X(source, int64_t, s->n_records)           \
    X(group, int64_t, s->n_records)

/*  counts that the file keeps as attributes */
#define LRD_STORE_COUNTS(X) \
    X(n_records)            \
    X(n_tokens)             \
    X(n_labels)             \
    X(n_targets)            \
    X(n_source_records)     \
    X(n_groups)             \
    X(n_dropped)            \
    X(n_truncated)          \
    X(n_straddled)          \
    X(vocab_size)

typedef struct lrd_store {
    int n_references;
    char *name; /* the source file */
#define X(count) int64_t count;
    LRD_STORE_COUNTS(X)
#undef X
#define X(array, type, n) type *array;
    LRD_STORE_ARRAYS(X)
#undef X
    size_t record_capacity, token_capacity, label_capacity;
    lrd_map_t map;     /* data != NULL: the arrays lie in it, read-only */
    int64_t *label_at; /* [n_records] where explicit labels begin; NULL while n_labels == 0 */
} lrd_store_t;

lrd_status_t lrd_store_create(const char *name, lrd_store_t **store_out);
void lrd_store_release(lrd_store_t *store); /* drops one reference; NULL is fine */

/* Adds a record. label_start >= 0 as above, and label is not looked at; else label[n]. */
lrd_status_t lrd_store_add(lrd_store_t *store, const int32_t *token, size_t n, int64_t label_start,
                           const int32_t *label, int64_t source, int64_t group);

/* The compact form of labels: k when they are ignored before k and equal the tokens
 * from there on, else -1. */
int64_t lrd_label_start(const int32_t *token, const int32_t *label, size_t n);

/* Checks that the arrays make sense together, whatever they hold (tokens and explicit labels apart,
 * which are not read), and finishes the store for reading. LRD_ERR_FORMAT. */
lrd_status_t lrd_store_finish(lrd_store_t *store);

/* The whole store as a data set; takes over the caller's reference, also on failure. */
lrd_status_t lrd_dataset_of_store(lrd_store_t *store, lrd_dataset_t **set_out);

/* Tokenizes into a store: the work of lrd_dataset_tokenize. */
lrd_status_t lrd_store_build(const lrd_dataset_spec_t *spec, lrd_store_t **store_out);

/* SHA-256 over the arrays in order, in hexadecimal. */
lrd_status_t lrd_store_hash(const lrd_store_t *store, char hex_out[65]);

#endif /* LRD_DATA_DATASET_STORE_H */
