/* data/parquet_bits.h -- Parquet's encodings of whole numbers: runs, bit packing, differences (private to
 * data/parquet*.c).
 *
 * Source: apache/parquet-format, Encodings.md. The bytes may be anything: what cannot be read sets `failed`, gives 0, and
 * nothing behind `end` is touched.
 */
#ifndef LRD_DATA_PARQUET_BITS_H
#define LRD_DATA_PARQUET_BITS_H

#include "data/parquet_thrift.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Runs of one number, and numbers packed into `width` bits each: levels, and places in a dictionary. */
typedef struct lrd_parquet_runs {
    lrd_thrift_t in;
    int width;             /* 0 .. 32 */
    uint64_t left;         /* of the run */
    const uint8_t *packed; /* NULL: the run is of `value` */
    uint64_t bit;          /* in packed */
    uint32_t value;
    bool failed;
} lrd_parquet_runs_t;

void lrd_parquet_runs_begin(lrd_parquet_runs_t *runs, const uint8_t *data, size_t bytes, int width);
uint32_t lrd_parquet_runs_next(lrd_parquet_runs_t *runs);

/* DELTA_BINARY_PACKED: each number as its difference to the one before, in blocks of one bit width. */
typedef struct lrd_parquet_deltas {
    lrd_thrift_t in;
    uint64_t n;                           /* numbers that were not taken yet */
    uint64_t block_values, n_minis, mini; /* miniblocks of a block, and the one in work */
    const uint8_t *width;                 /* [n_minis] */
    const uint8_t *packed;                /* of the miniblock */
    uint64_t bit, left;                   /* in packed; numbers left there */
    uint64_t value, min;
    bool began, failed;
} lrd_parquet_deltas_t;

void lrd_parquet_deltas_begin(lrd_parquet_deltas_t *deltas, const uint8_t *data, size_t bytes);
int64_t lrd_parquet_deltas_next(lrd_parquet_deltas_t *deltas);

/* Where the bytes behind all of them begin, before the first is taken; NULL: nowhere. */
const uint8_t *lrd_parquet_deltas_end(const lrd_parquet_deltas_t *deltas);

#endif /* LRD_DATA_PARQUET_BITS_H */
