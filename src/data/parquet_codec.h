/* data/parquet_codec.h -- what compresses pages (private to data/parquet*.c): Snappy, zlib and Zstandard. */
#ifndef LRD_DATA_PARQUET_CODEC_H
#define LRD_DATA_PARQUET_CODEC_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LRD_PARQUET_UNCOMPRESSED = 0 };

/* By the codec's number in the file. */
bool lrd_parquet_codec_reads(int codec);
const char *lrd_parquet_codec_name(int codec);

/* Fills out[n]. False: the bytes are not so compressed, or are others than n. */
bool lrd_parquet_codec_unpack(int codec, const uint8_t *data, size_t bytes, uint8_t *out, size_t n);

/* The page's check sum, as its header has it. */
uint32_t lrd_parquet_codec_crc(const uint8_t *data, size_t bytes);

#endif /* LRD_DATA_PARQUET_CODEC_H */
