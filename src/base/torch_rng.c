#include "base/torch_rng.h"

enum { N = 624, M = 397 };

void lrd_torch_rng_seed(lrd_torch_rng_t *rng, uint64_t seed)
{
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++)
        rng->state[i] = 1812433253u * (rng->state[i - 1] ^ rng->state[i - 1] >> 30) + i;
    rng->next = N;
}

static void refill(lrd_torch_rng_t *rng)
{
    uint32_t *s = rng->state;
    for (int i = 0; i < N; i++) {
        const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ y >> 1 ^ ((y & 1u) ? 0x9908b0dfu : 0u);
    }
    rng->next = 0;
}

uint32_t lrd_torch_rng_draw(lrd_torch_rng_t *rng)
{
    if (rng->next >= N)
        refill(rng);
    uint32_t y = rng->state[rng->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

float lrd_torch_rng_uniform(lrd_torch_rng_t *rng, float low, float high)
{
    const double x = (double)(lrd_torch_rng_draw(rng) & 0xffffffu) * 0x1p-24;
    const float range = high - low;
    return (float)(x * (double)range + (double)low);
}

void lrd_torch_rng_permutation(lrd_torch_rng_t *rng, int64_t n, int64_t *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
    for (int64_t i = 0; i + 1 < n; i++) {
        const int64_t z = (int64_t)(lrd_torch_rng_draw(rng) % (uint64_t)(n - i));
        const int64_t x = out[i];
        out[i] = out[i + z];
        out[i + z] = x;
    }
}
