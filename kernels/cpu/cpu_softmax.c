#include "kernels/cpu/cpu_attention.h"

#include "kernels/cpu/cpu_simd.h"

#include <math.h>

void attn_alibi(float slope, int64_t n, float *out)
{
    for (int64_t j = 0; j < n; j++)
        out[j] = slope * (float)j;
}

LRD_CLONES float attn_softmax(float *s, int64_t n, int64_t padded, float scale, const float *alibi,
                              float alibi_i, float *sum_out)
{
    float most = -INFINITY, sum = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) {
        const float x = s[j] * scale + (alibi[j] - alibi_i);
        s[j] = x;
        most = x > most ? x : most;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) {
        const float e = exp_softmax(s[j] - most);
        s[j] = e;
        sum += e;
    }
    for (int64_t j = n; j < padded; j++)
        s[j] = 0;
    *sum_out = sum;
    return most;
}

LRD_CLONES void attn_scale(float *x, float factor, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        x[j] *= factor;
}
