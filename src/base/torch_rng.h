/* base/torch_rng.h -- the random numbers of torch's CPU generator, to the bit.
 *
 * MT19937 (Matsumoto and Nishimura, 1998) seeded with the low 32 bits of the seed.
 * Checked against torch 2.13.
 */
#ifndef LRD_BASE_TORCH_RNG_H
#define LRD_BASE_TORCH_RNG_H

#include <stdint.h>

typedef struct lrd_torch_rng {
    uint32_t state[624];
    int next;
} lrd_torch_rng_t;

void lrd_torch_rng_seed(lrd_torch_rng_t *rng, uint64_t seed);
uint32_t lrd_torch_rng_draw(lrd_torch_rng_t *rng);

/* tensor.uniform_(low, high) of one float32. */
float lrd_torch_rng_uniform(lrd_torch_rng_t *rng, float low, float high);

/* torch.randperm(n): out[n]. n < 2^32 / 20. */
void lrd_torch_rng_permutation(lrd_torch_rng_t *rng, int64_t n, int64_t *out);

#endif /* LRD_BASE_TORCH_RNG_H */
