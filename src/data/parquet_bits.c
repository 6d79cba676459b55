#include "data/parquet_bits.h"

#include <string.h>

/* `width` bits, at most 64, from bit `at` of data, where nothing is read at `end` or behind. */
static uint64_t bits_at(const uint8_t *data, const uint8_t *end, uint64_t at, int width)
{
    uint64_t low = 0;
    const uint8_t *from = data + (at >> 3);
    const int shift = (int)(at & 7);
    const size_t left = (size_t)(end - from);
    if (width == 0)
        return 0;
    memcpy(&low, from, left < sizeof low ? left : sizeof low); /* little-endian, as this machine */
    low >>= shift;
    if (shift + width > 64 && left > sizeof low)
        low |= (uint64_t)from[8] << (64 - shift);
    return width == 64 ? low : low & (((uint64_t)1 << width) - 1);
}

void lrd_parquet_runs_begin(lrd_parquet_runs_t *runs, const uint8_t *data, size_t bytes, int width)
{
    *runs = (lrd_parquet_runs_t){
        .in = {.at = data, .end = data + bytes}, .width = width, .failed = width < 0 || width > 32};
}

static void next_run(lrd_parquet_runs_t *r)
{
    const uint64_t head = lrd_thrift_varint(&r->in), n = head >> 1;
    const uint64_t room = (uint64_t)(r->in.end - r->in.at);
    if ((head & 1) != 0) {
        const uint64_t bytes = n * (uint64_t)r->width;
        r->failed |= n > UINT64_MAX / 64 || bytes > room;
        r->left = n * 8;
        r->packed = r->in.at;
        r->bit = 0;
        r->in.at += r->failed ? 0 : bytes;
    } else {
        const uint64_t bytes = ((uint64_t)r->width + 7) / 8;
        r->failed |= bytes > room;
        r->left = n;
        r->packed = NULL;
        r->value = 0;
        if (!r->failed) {
            memcpy(&r->value, r->in.at, bytes);
            r->in.at += bytes;
        }
    }
    r->failed |= r->in.failed;
}

uint32_t lrd_parquet_runs_next(lrd_parquet_runs_t *runs)
{
    lrd_parquet_runs_t *r = runs;
    while (r->left == 0 && !r->failed)
        next_run(r);
    if (r->failed)
        return 0;
    r->left--;
    if (r->packed == NULL)
        return r->value;
    const uint64_t at = r->bit;
    r->bit += (uint64_t)r->width;
    return (uint32_t)bits_at(r->packed, r->in.end, at, r->width);
}

void lrd_parquet_deltas_begin(lrd_parquet_deltas_t *deltas, const uint8_t *data, size_t bytes)
{
    enum { MAX_BLOCK = 1 << 20 };
    lrd_parquet_deltas_t *d = deltas;
    *d = (lrd_parquet_deltas_t){.in = {.at = data, .end = data + bytes}};
    d->block_values = lrd_thrift_varint(&d->in);
    d->n_minis = lrd_thrift_varint(&d->in);
    d->n = lrd_thrift_varint(&d->in);
    d->value = (uint64_t)lrd_thrift_signed(lrd_thrift_varint(&d->in));
    d->failed = d->in.failed || d->block_values == 0 || d->block_values > MAX_BLOCK ||
                d->n_minis == 0 || d->block_values % d->n_minis != 0 ||
                d->block_values / d->n_minis % 8 != 0;
    d->mini = d->n_minis;
}

static void next_mini(lrd_parquet_deltas_t *d)
{
    if (d->mini == d->n_minis) {
        d->min = (uint64_t)lrd_thrift_signed(lrd_thrift_varint(&d->in));
        if (d->in.failed || d->n_minis > (uint64_t)(d->in.end - d->in.at)) {
            d->failed = true;
            return;
        }
        d->width = d->in.at;
        d->in.at += d->n_minis;
        d->mini = 0;
    }
    d->left = d->block_values / d->n_minis;
    const uint64_t bytes = d->left / 8 * d->width[d->mini];
    d->failed = d->width[d->mini] > 64 || bytes > (uint64_t)(d->in.end - d->in.at);
    if (d->failed)
        return;
    d->packed = d->in.at;
    d->bit = 0;
    d->in.at += bytes;
    d->mini++;
}

int64_t lrd_parquet_deltas_next(lrd_parquet_deltas_t *deltas)
{
    lrd_parquet_deltas_t *d = deltas;
    if (d->failed || d->n == 0) {
        d->failed = true;
        return 0;
    }
    d->n--;
    if (!d->began) {
        d->began = true;
        return (int64_t)d->value;
    }
    if (d->left == 0)
        next_mini(d);
    if (d->failed)
        return 0;
    const int width = d->width[d->mini - 1];
    d->value += d->min + bits_at(d->packed, d->in.end, d->bit, width);
    d->bit += (uint64_t)width;
    d->left--;
    return (int64_t)d->value;
}

const uint8_t *lrd_parquet_deltas_end(const lrd_parquet_deltas_t *deltas)
{
    lrd_parquet_deltas_t d = *deltas;
    uint64_t n = d.n > 0 ? d.n - 1 : 0;
    while (n > 0 && !d.failed) {
        next_mini(&d);
        n -= n < d.left ? n : d.left;
    }
    return d.failed ? NULL : d.in.at;
}
