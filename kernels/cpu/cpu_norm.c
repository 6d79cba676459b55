/* Embedding, residual additions and layer norms: one token at a time, statistics in two passes over
 * a row in cache. */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_simd.h"

#include <math.h>
#include <omp.h>

enum { N_ROWS = 3 }; /* float32 rows of C that a thread works in */

static size_t row_bytes(int64_t c)
{
    return cpu_round((size_t)c * sizeof(float));
}

size_t cpu_norm_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    return 2 * row_bytes(l->hidden) + (size_t)be->n_threads * N_ROWS * row_bytes(l->hidden);
}

LRD_CLONES static void statistics(const float *x, int64_t n, float eps, float *mean_out,
                                  float *rstd_out)
{
    float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++)
        sum += x[j];
    const float mean = sum / (float)n;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < n; j++)
        squares += (x[j] - mean) * (x[j] - mean);
    *mean_out = mean;
    *rstd_out = 1.0f / sqrtf(squares / (float)n + eps);
}

LRD_CLONES static void normalize(const float *x, float mean, float rstd, const float *gamma,
                                 const float *beta, float *y, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        y[j] = (x[j] - mean) * rstd * gamma[j] + beta[j];
}

LRD_CLONES static void add_rows(float *x, const float *delta, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        x[j] += delta[j];
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)) with g = dy gamma; in place of dy. */
LRD_CLONES static void backward_row(float *dy, const float *x, float mean, float rstd,
                                    const float *gamma, int64_t n)
{
    float sum = 0, dot = 0;
#pragma omp simd reduction(+ : sum, dot)
    for (int64_t j = 0; j < n; j++) {
        const float g = dy[j] * gamma[j];
        sum += g;
        dot += g * (x[j] - mean);
    }
    const float mean_g = sum / (float)n, mean_gx = dot * rstd / (float)n;
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        dy[j] = rstd * (dy[j] * gamma[j] - mean_g - (x[j] - mean) * rstd * mean_gx);
}

/* gamma and beta as float32, in the scratch that threads share. */
typedef struct affine {
    float *gamma, *beta;
} affine_t;

static affine_t load_affine(lrd_cmat_t gamma, lrd_cmat_t beta, const cpu_scratch_t *s)
{
    const affine_t f = {(float *)s->shared, (float *)(s->shared + row_bytes(gamma.cols))};
    convert_to_f32(gamma.dtype, gamma.data, f.gamma, gamma.cols);
    if (beta.data != NULL)
        convert_to_f32(beta.dtype, beta.data, f.beta, beta.cols);
    return f;
}

static float *thread_row(const cpu_scratch_t *s, int i, int64_t c)
{
    return (float *)((uint8_t *)cpu_scratch_of_thread(s, omp_get_thread_num()) +
                     (size_t)i * row_bytes(c));
}

lrd_status_t cpu_embed_forward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_embed_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = cpu_backend_of(st);
    const int64_t c = a->y.cols;
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, 2 * row_bytes(c), N_ROWS * row_bytes(c), &s));
    const affine_t f = load_affine(a->gamma, a->beta, &s);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t t = 0; t < a->y.rows; t++) {
        float *x = thread_row(&s, 0, c), *y = thread_row(&s, 1, c), mean, rstd;
        convert_to_f32(a->table.dtype, mat_at(a->table, a->token[t], 0), x, c);
        statistics(x, c, a->eps, &mean, &rstd);
        normalize(x, mean, rstd, f.gamma, f.beta, y, c);
        convert_from_f32(a->y.dtype, y, mat_at_mut(a->y, t, 0), c);
    }
out:
    return status;
}

static void addnorm_row(const lrd_addnorm_fwd_t *a, const affine_t *f, const cpu_scratch_t *s,
                        int64_t t)
{
    const int64_t c = a->x.cols;
    float *x = thread_row(s, 0, c), *y = thread_row(s, 1, c), mean, rstd;
    convert_to_f32(a->x.dtype, mat_at(a->x, t, 0), x, c);
    if (a->delta.data != NULL) {
        convert_to_f32(a->delta.dtype, mat_at(a->delta, t, 0), y, c);
        add_rows(x, y, c);
    }
    if (a->res.data != NULL) {
        void *res = mat_at_mut(a->res, t, 0);
        convert_from_f32(a->res.dtype, x, res, c);
        convert_to_f32(a->res.dtype, res, x, c); /* the norm sees what is stored */
    }
    if (a->y.data == NULL)
        return;
    statistics(x, c, a->eps, &mean, &rstd);
    normalize(x, mean, rstd, f->gamma, f->beta, y, c);
    convert_from_f32(a->y.dtype, y, mat_at_mut(a->y, t, 0), c);
    if (a->mean != NULL)
        a->mean[t] = mean;
    if (a->rstd != NULL)
        a->rstd[t] = rstd;
}

lrd_status_t cpu_addnorm_forward(lrd_stream_t *st, lrd_scratch_t scratch,
                                 const lrd_addnorm_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = cpu_backend_of(st);
    const int64_t c = a->x.cols;
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, 2 * row_bytes(c), N_ROWS * row_bytes(c), &s));
    affine_t f = {0};
    if (a->y.data != NULL)
        f = load_affine(a->gamma, a->beta, &s);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t t = 0; t < a->x.rows; t++)
        addnorm_row(a, &f, &s, t);
out:
    return status;
}

lrd_status_t cpu_norm_backward(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_norm_bwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = cpu_backend_of(st);
    const int64_t c = a->dy.cols;
    cpu_scratch_t s;
    LRD_TRY(cpu_scratch_split(be, scratch, 2 * row_bytes(c), N_ROWS * row_bytes(c), &s));
    const affine_t f = load_affine(a->gamma, (lrd_cmat_t){0}, &s);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t t = 0; t < a->dy.rows; t++) {
        float *dy = thread_row(&s, 0, c), *x = thread_row(&s, 1, c);
        convert_to_f32(a->dy.dtype, mat_at(a->dy, t, 0), dy, c);
        convert_to_f32(a->res.dtype, mat_at(a->res, t, 0), x, c);
        backward_row(dy, x, a->mean[t], a->rstd[t], f.gamma, c);
        if (a->accumulate)
            add_from_f32(a->dres.dtype, dy, mat_at_mut(a->dres, t, 0), c);
        else
            convert_from_f32(a->dres.dtype, dy, mat_at_mut(a->dres, t, 0), c);
    }
out:
    return status;
}
