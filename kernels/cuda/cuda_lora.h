/* kernels/cuda/cuda_lora.h -- an adapter's thin products, and what stands around a linear's large
 * one. All in float32 from values as stored; dropout's mask is made where it is needed. */
#ifndef LRD_CUDA_LORA_H
#define LRD_CUDA_LORA_H

#include "kernels/cuda/cuda_backend.h"

/* A factor of an adapter, element (r, j) at data[r * r_stride + j * j_stride]; r of 0 .. rank - 1. */
typedef struct cuda_factor {
    const float *data;
    int64_t r_stride, j_stride, rank;
} cuda_factor_t;

/* out[t, r] = scale * sum over j of dropout(x[t, j]) factor(r, j), for rows begin .. end - 1 of x and
 * out. drop: NULL for none. rounded (optional; x's dtype): gets the same, with zeros up to a whole group of ranks. */
enum { CUDA_LORA_GROUP = 8 };
lrd_status_t cuda_lora_project(lrd_stream_t *st, lrd_cmat_t x, int64_t begin, int64_t end,
                               cuda_factor_t factor, float scale, const lrd_dropout_t *drop,
                               float *out, int64_t ld_out, lrd_mat_t rounded);

/* out[j, r] = scale * factor(r, j), rounded, with zeros behind the last rank: for all rows and columns of out. */
lrd_status_t cuda_lora_round(lrd_stream_t *st, cuda_factor_t factor, float scale, lrd_mat_t out);

/* dst[r * r_stride + j * j_stride] += scale * sum over rows t of g[t, r] dropout(x[t, j]), in tiles of
 * CUDA_LORA_TILE rows, in order. One of the strides is 1. */
enum { CUDA_LORA_TILE = 1024 };
typedef struct cuda_outer {
    lrd_cmat_t x;
    int64_t begin, end; /* rows of x, g */
    const float *g;
    int64_t ld_g, rank;
    float scale;
    const lrd_dropout_t *drop; /* NULL: none */
    float *dst;
    int64_t r_stride, j_stride;
    float *partial; /* cuda_lora_partials of its shape */
} cuda_outer_t;
lrd_status_t cuda_lora_outer(lrd_stream_t *st, const cuda_outer_t *o);

/* Floats of scratch for rows, columns of x, rank. */
int64_t cuda_lora_partials(int64_t rows, int64_t cols, int64_t rank);

/* dst[i / width * ld + i % width] (+)= scale * sum over tiles, in order, of partial[tile * n + i], i of 0 .. n - 1. */
lrd_status_t cuda_lora_add_partials(lrd_stream_t *st, const float *partial, int64_t tiles,
                                    int64_t n, int64_t width, float scale, bool accumulate,
                                    float *dst, int64_t ld);

/* For rows begin .. end - 1 of dy, u and du, from one reading of dy (cuda_lora_backward.cu):
 *
 *     du[t, r] = scale * sum over j of dy[t, j] b[j, r]
 *     db[j, r] += scale * sum over t of dy[t, j] u[t, r], in tiles of 256 rows, in order
 *
 * A row of du depends on that row of dy and on b alone. dy is of a 16-bit type. */
typedef struct cuda_lora_backward {
    lrd_cmat_t dy;
    int64_t begin, end, rank;
    const float *b, *u;
    int64_t ld_b, ld_u;
    float scale;
    float *du, *db;
    int64_t ld_du, ld_db;
    float *partial; /* cuda_lora_backward_partials of its shape */
} cuda_lora_backward_t;
lrd_status_t cuda_lora_backward(lrd_stream_t *st, const cuda_lora_backward_t *o);

/* Floats of scratch for rows, columns of dy, rank. */
int64_t cuda_lora_backward_partials(int64_t rows, int64_t cols, int64_t rank);

/* What a linear has beside its product, for rows begin .. end - 1:
 *
 *     v = product + bias + scale * mask * sum over r of u[t, r] factor(r, j)
 *     derivative_at:  v = v * gelu'(derivative_at)
 *     accumulate:     v = v + y
 *     pre = v;  y = gelu ? gelu(v) : v
 *
 * Without a product this prepares y for a product that is added to it. */
typedef struct cuda_finish {
    int64_t begin, end;
    const float *product; /* row begin first; NULL: 0 */
    int64_t ld_product;
    lrd_cmat_t bias; /* optional, as are the next */
    const float *u;  /* row 0 of all rows first; NULL: no adapter */
    int64_t ld_u;
    cuda_factor_t factor;
    float scale;
    const lrd_dropout_t *drop;
    lrd_cmat_t derivative_at;
    bool accumulate, gelu;
    lrd_mat_t pre, y;
} cuda_finish_t;
lrd_status_t cuda_linear_finish(lrd_stream_t *st, lrd_dtype_t compute, const cuda_finish_t *f);

#endif /* LRD_CUDA_LORA_H */
