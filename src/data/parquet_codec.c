#include "data/parquet_codec.h"

#include <limits.h>
#include <snappy-c.h>
#include <zlib.h>
#include <zstd.h>

enum { SNAPPY = 1, GZIP = 2, ZSTANDARD = 6 };

bool lrd_parquet_codec_reads(int codec)
{
    return codec == LRD_PARQUET_UNCOMPRESSED || codec == SNAPPY || codec == GZIP ||
           codec == ZSTANDARD;
}

const char *lrd_parquet_codec_name(int codec)
{
    static const char *const name[] = {"none",   "Snappy", "GZIP",      "LZO",
                                       "Brotli", "LZ4",    "Zstandard", "LZ4_RAW"};
    return codec >= 0 && codec < (int)(sizeof name / sizeof name[0]) ? name[codec]
                                                                     : "an unknown codec";
}

/* zlib's own header or gzip's, and more than one stream in a row, as gzip allows. */
static bool unpack_gzip(const uint8_t *data, size_t bytes, uint8_t *out, size_t n)
{
    enum { ANY_HEADER = 15 + 32 };
    z_stream z = {.next_in = (Bytef *)(uintptr_t)data, .next_out = out};
    if (bytes > UINT_MAX || n > UINT_MAX || inflateInit2(&z, ANY_HEADER) != Z_OK)
        return false;
    z.avail_in = (uInt)bytes;
    z.avail_out = (uInt)n;
    int code = inflate(&z, Z_FINISH);
    while (code == Z_STREAM_END && z.avail_in > 0 && inflateReset(&z) == Z_OK)
        code = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return code == Z_STREAM_END && z.avail_out == 0;
}

bool lrd_parquet_codec_unpack(int codec, const uint8_t *data, size_t bytes, uint8_t *out, size_t n)
{
    size_t size = 0;
    switch (codec) {
    case SNAPPY:
        return snappy_uncompressed_length((const char *)data, bytes, &size) == SNAPPY_OK &&
               size == n &&
               snappy_uncompress((const char *)data, bytes, (char *)out, &size) == SNAPPY_OK;
    case GZIP:
        return unpack_gzip(data, bytes, out, n);
    case ZSTANDARD:
        return ZSTD_decompress(out, n, data, bytes) == n;
    default:
        return false;
    }
}

uint32_t lrd_parquet_codec_crc(const uint8_t *data, size_t bytes)
{
    return (uint32_t)crc32_z(0, data, bytes);
}
