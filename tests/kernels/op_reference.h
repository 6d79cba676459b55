/* tests/kernels/op_reference.h -- every op once more, in double and as plainly as possible. */
#ifndef LRD_TEST_OP_REFERENCE_H
#define LRD_TEST_OP_REFERENCE_H

#include "kernels/ops.h"

#include <stdbool.h>
#include <stdint.h>

/* Row-major doubles [rows, cols]. */
typedef struct ref_mat {
    double *v;
    int64_t rows, cols;
} ref_mat_t;

ref_mat_t ref_new(int64_t rows, int64_t cols); /* zeros; free with ref_free */
void ref_free(ref_mat_t *m);

/* y = x W' (+ bias); x [T, K], w [N, K], bias [1, N] or {0}. */
void ref_linear(ref_mat_t x, ref_mat_t w, ref_mat_t bias, ref_mat_t y);

/* c (+)= scale * a b, a' b or a b' by the flags. */
void ref_product(double scale, ref_mat_t a, bool a_transposed, ref_mat_t b, bool b_transposed,
                 bool accumulate, ref_mat_t c);

double ref_gelu(double x);
double ref_gelu_slope(double x);

/* Keep mask of the dropout over [T, K], scaled: 0 or 1 / (1 - p). */
void ref_dropout(const lrd_dropout_t *drop, const uint64_t *row_key, ref_mat_t mask);

void ref_layernorm(ref_mat_t x, ref_mat_t gamma, ref_mat_t beta, double eps, ref_mat_t y);
/* dx = J(x)' dy */
void ref_layernorm_backward(ref_mat_t dy, ref_mat_t x, ref_mat_t gamma, double eps, ref_mat_t dx);

typedef struct ref_attention {
    const int32_t *cu_seqlens;
    int32_t n_seqs, n_heads, head_dim;
    const float *slope;
    double scale;
} ref_attention_t;
void ref_attention(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t out);
/* lse: [H, T] log-sum-exp of score rows, less the ALiBi of the query's own place. */
void ref_attention_lse(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t lse);
void ref_attention_backward(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t dout,
                            ref_mat_t dqkv);

/* Sum over targets of -log softmax(h w')[target]; dh (may be {0}) = scale * its gradient. */
double ref_linear_ce(ref_mat_t h, ref_mat_t w, const int32_t *target, double scale, ref_mat_t dh);

/* What `sample` leaves of a row at a temperature > 0. */
typedef struct ref_sample {
    int64_t v;
    float *score; /* after penalty and temperature */
    bool *kept;
    double *p;   /* probabilities of what is kept, 0 elsewhere */
    bool unsure; /* some condition is within 1e-12 of its threshold */
} ref_sample_t;
/* False, with nothing to free: no logit is finite. */
bool ref_sample(const lrd_sample_row_t *row, const uint32_t *seen, const float *logit, int64_t v,
                ref_sample_t *r);
void ref_sample_free(ref_sample_t *r);
/* The choice from it; unsure (above) where the number is within 1e-12 of another one. */
int32_t ref_sample_draw(ref_sample_t *r, const lrd_sample_row_t *row);

#endif /* LRD_TEST_OP_REFERENCE_H */
