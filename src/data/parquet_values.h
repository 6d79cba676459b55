/* data/parquet_values.h -- the values of a page, in whatever encoding (private to data/parquet*.c).
 *
 * Source: apache/parquet-format, Encodings.md. The bytes may be anything: nothing outside of them is touched.
 */
#ifndef LRD_DATA_PARQUET_VALUES_H
#define LRD_DATA_PARQUET_VALUES_H

#include "base/buf.h"
#include "data/parquet_bits.h"
#include "data/parquet_meta.h"
#include "data/text.h"

typedef enum lrd_parquet_encoding {
    LRD_PARQUET_PLAIN = 0,
    LRD_PARQUET_PLAIN_DICTIONARY = 2, /* places in the dictionary, as RLE_DICTIONARY */
    LRD_PARQUET_RLE = 3,
    LRD_PARQUET_DELTA_BINARY = 5,
    LRD_PARQUET_DELTA_LENGTH = 6,
    LRD_PARQUET_DELTA_BYTES = 7,
    LRD_PARQUET_RLE_DICTIONARY = 8
} lrd_parquet_encoding_t;

/* Which member holds it, the type says: text (BYTE_ARRAY), real (FLOAT, DOUBLE), else integer. */
typedef union lrd_parquet_value {
    lrd_text_t text;
    int64_t integer;
    double real;
} lrd_parquet_value_t;

typedef struct lrd_parquet_values {
    lrd_parquet_type_t type;
    lrd_parquet_encoding_t encoding;
    const uint8_t *at, *end; /* PLAIN, and the bytes of texts */
    int bit;                 /* PLAIN, BOOLEAN */
    lrd_parquet_runs_t runs;
    lrd_parquet_deltas_t deltas; /* integers, or the lengths of texts: DELTA_LENGTH, DELTA_BYTES */
    lrd_parquet_deltas_t shared; /* DELTA_BYTES: how much of the value before begins this one */
    lrd_buf_t text;              /* DELTA_BYTES: the value before */
    lrd_parquet_value_t *dictionary; /* [n_dictionary], of the row group */
    size_t n_dictionary;
    lrd_buf_t dictionary_bytes; /* what its texts point into, unless they lie in the file */
} lrd_parquet_values_t;

/* Whether values of the type are read in this encoding. */
bool lrd_parquet_values_reads(lrd_parquet_type_t type, int64_t encoding);

/* Begins a page in such an encoding; the bytes stay where they are until it ends. False: no page can be so. */
bool lrd_parquet_values_begin(lrd_parquet_values_t *values, lrd_parquet_encoding_t encoding,
                              const uint8_t *data, size_t bytes);

/* The next value; a text holds until the one after it. *sound_out: false where there is none. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_parquet_values_next(lrd_parquet_values_t *values, lrd_parquet_value_t *value_out,
                                     bool *sound_out);

/* Takes a dictionary of n values, which stays until the next one. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_parquet_values_take_dictionary(lrd_parquet_values_t *values, const uint8_t *data,
                                                size_t bytes, size_t n, bool *sound_out);
void lrd_parquet_values_release(lrd_parquet_values_t *values); /* {0} is fine */

#endif /* LRD_DATA_PARQUET_VALUES_H */
