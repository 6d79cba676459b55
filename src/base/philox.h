/* base/philox.h -- Philox4x32-10, a counter-based random number generator:
 * one header for C and CUDA.
 *
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). A
 * pure function of (key, counter), so that a random number can be named by what it is for instead
 * of by when it was drawn.
 */
#ifndef LRD_BASE_PHILOX_H
#define LRD_BASE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define LRD_DEVICE_INLINE static __host__ __device__ __forceinline__
#else
#define LRD_DEVICE_INLINE static inline __attribute__((always_inline))
#endif

typedef struct lrd_philox {
    uint32_t x[4];
} lrd_philox_t;

/* Four 32-bit numbers for a 128-bit counter and a 64-bit key. */
LRD_DEVICE_INLINE lrd_philox_t lrd_philox4x32(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                              uint32_t c3)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    lrd_philox_t r;
    r.x[0] = c0;
    r.x[1] = c1;
    r.x[2] = c2;
    r.x[3] = c3;
    return r;
}

/* Dropout's mask: column j of a token is kept iff lrd_philox4x32(seed, key low, key high, site, j /
 * 4).x[j % 4] >= lrd_dropout_threshold(p). row_key and site: kernels/ops.h. */
LRD_DEVICE_INLINE uint32_t lrd_dropout_threshold(float p)
{
    const double t = (double)p * 4294967296.0;
    return t >= 4294967295.0 ? 4294967295u : (uint32_t)t;
}

/* Sampling's number, uniform in [0, 1) in steps of 2^-53: for the token that a request is given
 * after `index` others. Its counter's last word is one that dropout, where it is a column / 4,
 * cannot reach. */
LRD_DEVICE_INLINE double lrd_sample_uniform(uint64_t seed, uint64_t request, uint32_t index)
{
    const lrd_philox_t r =
        lrd_philox4x32(seed, (uint32_t)request, (uint32_t)(request >> 32), index, 0x53414d50u);
    return ((double)(r.x[0] >> 5) * 67108864.0 + (double)(r.x[1] >> 6)) * 0x1p-53;
}

#endif /* LRD_BASE_PHILOX_H */
