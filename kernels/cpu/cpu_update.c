/* What happens once an update: norm, clock, AdamW; and the small element-wise ops. */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_simd.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 4096 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Sixteen running sums, so that the order does not depend on the vector width. */
LRD_CLONES static double sum_of_squares(const float *x, int64_t n)
{
    double lane[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        LRD_SIMD
        for (int l = 0; l < 16; l++)
            lane[l] += (double)x[i + l] * (double)x[i + l];
    }
    for (int l = 0; i + l < n; l++)
        lane[l] += (double)x[i + l] * (double)x[i + l];
    double sum = 0;
    for (int l = 0; l < 16; l++)
        sum += lane[l];
    return sum;
}

lrd_status_t cpu_sumsq(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_sumsq_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int i = 0; i < a->n_tensors; i++)
        a->out[i] = sum_of_squares(a->x + a->begin[i], a->begin[i + 1] - a->begin[i]);
    return LRD_OK;
}

/* torch.amp.GradScaler's constants. */
static const float scale_backoff = 0.5f, scale_growth = 2.0f;
static const int32_t scale_growth_interval = 2000;

lrd_status_t cpu_step_finish(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_step_finish_t *a)
{
    (void)st;
    (void)scratch;
    lrd_step_state_t *s = a->state;
    double sum = 0;
    for (int i = 0; i < a->n_tensors; i++)
        sum += a->sumsq[i];
    const double norm = sqrt(sum) / s->loss_scale;
    s->grad_norm = norm;
    s->bad = !isfinite(norm);
    if (s->bad) {
        const bool searching = a->scaler && s->loss_scale > 1.0f;
        s->bad_in_a_row += searching ? 0 : 1;
        s->good_steps = 0;
        if (a->scaler)
            s->loss_scale *= scale_backoff;
        return LRD_OK;
    }
    double clip = 1.0;
    if (a->max_norm > 0)
        clip = fmin(1.0, a->max_norm / (norm + 1e-6));
    s->grad_factor = (float)(clip / s->loss_scale);
    s->bad_in_a_row = 0;
    s->adam_t++;
    if (a->scaler && ++s->good_steps == scale_growth_interval) {
        const float grown = s->loss_scale * scale_growth;
        s->loss_scale = isfinite(grown) ? grown : s->loss_scale;
        s->good_steps = 0;
    }
    return LRD_OK;
}

typedef struct adam {
    float decay, one_minus_beta1, beta2, one_minus_beta2, root_correction2, eps, step_size, factor;
} adam_t;

LRD_CLONES static void adamw_range(const adam_t *k, float *p, float *m, float *v, const float *g,
                                   int64_t n)
{
    LRD_SIMD
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * k->factor;
        m[i] = m[i] + k->one_minus_beta1 * (grad - m[i]);
        v[i] = v[i] * k->beta2 + k->one_minus_beta2 * (grad * grad);
        const float denominator = sqrtf(v[i]) / k->root_correction2 + k->eps;
        p[i] = p[i] * k->decay - k->step_size * (m[i] / denominator);
    }
}

lrd_status_t cpu_adamw(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_adamw_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
    if (a->state->bad)
        return LRD_OK;
    const double t = (double)a->state->adam_t, lr = a->lr_table[a->state->adam_t - 1];
    const adam_t k = {
        .decay = (float)(1.0 - lr * a->weight_decay),
        .one_minus_beta1 = (float)(1.0 - a->beta1),
        .beta2 = (float)a->beta2,
        .one_minus_beta2 = (float)(1.0 - a->beta2),
        .root_correction2 = (float)sqrt(1.0 - pow(a->beta2, t)),
        .eps = (float)a->eps,
        .step_size = (float)(lr / (1.0 - pow(a->beta1, t))),
        .factor = a->state->grad_factor,
    };
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t i = 0; i < a->n; i += CHUNK)
        adamw_range(&k, a->p + i, a->m + i, a->v + i, a->g + i, smaller(a->n - i, CHUNK));
    return LRD_OK;
}

lrd_status_t cpu_add(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_add_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t i = 0; i < a->n; i += CHUNK)
        add_from_f32(LRD_F32, a->src + i, a->dst + i, smaller(a->n - i, CHUNK));
    return LRD_OK;
}

lrd_status_t cpu_gather_rows(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_gather_rows_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
    const size_t bytes = (size_t)a->y.cols * lrd_dtype_bytes(a->y.dtype);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t i = 0; i < a->y.rows; i++)
        memcpy(mat_at_mut(a->y, i, 0), mat_at(a->x, a->row[i], 0), bytes);
    return LRD_OK;
}

lrd_status_t cpu_cast(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_cast_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
    const int64_t from = (int64_t)lrd_dtype_bytes(a->src_dtype),
                  to = (int64_t)lrd_dtype_bytes(a->dst_dtype);
#pragma omp parallel for schedule(static) num_threads(be->n_threads)
    for (int64_t i = 0; i < a->n; i += CHUNK) {
        const int64_t n = smaller(a->n - i, CHUNK);
        const uint8_t *src = (const uint8_t *)a->src + i * from;
        uint8_t *dst = (uint8_t *)a->dst + i * to;
        float wide[CHUNK];
        convert_to_f32(a->src_dtype, src, wide, n);
        convert_from_f32(a->dst_dtype, wide, dst, n);
    }
    return LRD_OK;
}
