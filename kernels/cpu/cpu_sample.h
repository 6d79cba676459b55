/* kernels/cpu/cpu_sample.h -- from a row of logits to the tokens that may be chosen, their scores
 * and weights. The op `sample` draws one of them; tests compare them all.
 */
#ifndef LRD_CPU_SAMPLE_H
#define LRD_CPU_SAMPLE_H

#include "kernels/ops.h"

enum { SAMPLE_BLOCK = 128, SAMPLE_BINS = 2048 };

/* The tokens of one row that are still there, by ascending id. Arrays have room for a whole row,
 * rounded up to blocks of SAMPLE_BLOCK. */
typedef struct sample_list {
    float *score;   /* after penalty and temperature; never NaN or +infinity */
    int32_t *id;    /* unwritten while `all` */
    double *weight; /* e^(score - largest), which makes that of the largest 1 */
    double *sum;    /* of each block's weights */
    float *peak;    /* largest score of each block; only while `all` */
    double *bin;    /* [SAMPLE_BINS] */
    int64_t n;
    bool all;      /* nothing was taken out yet: token i stands at i */
    float largest; /* score; it is never taken out */
    double total;  /* of all weights */
} sample_list_t;

size_t sample_row_bytes(int64_t v);

/* Lays the arrays out in sample_row_bytes(v) of memory, aligned to 64. */
void sample_lay_out(sample_list_t *l, int64_t v, void *memory);

/* What temperature (> 0), penalty and filters of `row` leave of v logits, weighed. seen: the bits
 * of this row, or NULL. False: no logit is finite, and there is no token to choose. Tokens of score
 * -infinity count as taken out, even where the list still has them. */
bool sample_process(sample_list_t *l, const lrd_sample_row_t *row, const uint32_t *seen,
                    const float *logit, int64_t v);

#endif /* LRD_CPU_SAMPLE_H */
