/* tests/cuda/emulated/cuda_fp16.h -- float16 for kernels that run on the CPU. */
#ifndef LRD_EMULATED_CUDA_FP16_H
#define LRD_EMULATED_CUDA_FP16_H

#include "base/dtype.h"

struct __half {
    uint16_t bits;
};

static inline float __half2float(__half x)
{
    return lrd_f16_to_f32(x.bits);
}

static inline __half __float2half_rn(float x)
{
    return {lrd_f32_to_f16(x)};
}

#endif /* LRD_EMULATED_CUDA_FP16_H */
