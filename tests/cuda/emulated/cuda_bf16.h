/* tests/cuda/emulated/cuda_bf16.h -- bfloat16 for kernels that run on the CPU. */
#ifndef LRD_EMULATED_CUDA_BF16_H
#define LRD_EMULATED_CUDA_BF16_H

#include "base/dtype.h"

struct __nv_bfloat16 {
    uint16_t bits;
};

static inline float __bfloat162float(__nv_bfloat16 x)
{
    return lrd_bf16_to_f32(x.bits);
}

static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return {lrd_f32_to_bf16(x)};
}

#endif /* LRD_EMULATED_CUDA_BF16_H */
