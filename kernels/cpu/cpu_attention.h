/* kernels/cpu/cpu_attention.h -- what attention with and without a cache share: the rows between its
 * two products. */
#ifndef LRD_CPU_ATTENTION_H
#define LRD_CPU_ATTENTION_H

#include <stdint.h>

/* ALiBi as transformers tabulates it: out[j] = slope * position j, rounded to float32. */
void attn_alibi(float slope, int64_t n, float *out);

/* Softmax of s[j] * scale + (alibi[j] - alibi_i) over j < n, left unnormalized in s; zeros up to
 * padded. Returns the largest of these scores, *sum_out is the sum. The bias is taken relative to
 * the diagonal: scores stay small and keep their digits. */
float attn_softmax(float *s, int64_t n, int64_t padded, float scale, const float *alibi,
                   float alibi_i, float *sum_out);

void attn_scale(float *x, float factor, int64_t n);

#endif /* LRD_CPU_ATTENTION_H */
