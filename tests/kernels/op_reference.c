#include "op_reference.h"

#include "base/philox.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

ref_mat_t ref_new(int64_t rows, int64_t cols)
{
    return (ref_mat_t){calloc((size_t)(rows * cols + 1), sizeof(double)), rows, cols};
}

void ref_free(ref_mat_t *m)
{
    free(m->v);
    *m = (ref_mat_t){0};
}

void ref_product(double scale, ref_mat_t a, bool at, ref_mat_t b, bool bt, bool accumulate,
                 ref_mat_t c)
{
    const int64_t inner = at ? a.rows : a.cols;
    for (int64_t i = 0; i < c.rows; i++) {
        for (int64_t j = 0; j < c.cols; j++) {
            double sum = 0;
            for (int64_t k = 0; k < inner; k++)
                sum += (at ? a.v[k * a.cols + i] : a.v[i * a.cols + k]) *
                       (bt ? b.v[j * b.cols + k] : b.v[k * b.cols + j]);
            c.v[i * c.cols + j] = (accumulate ? c.v[i * c.cols + j] : 0) + scale * sum;
        }
    }
}

void ref_linear(ref_mat_t x, ref_mat_t w, ref_mat_t bias, ref_mat_t y)
{
    ref_product(1, x, false, w, true, false, y);
    for (int64_t i = 0; bias.v != NULL && i < y.rows * y.cols; i++)
        y.v[i] += bias.v[i % y.cols];
}

double ref_gelu(double x)
{
    return 0.5 * x * (1 + tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
}

double ref_gelu_slope(double x)
{
    const double t = tanh(0.79788456 * x * (1 + 0.044715 * x * x));
    return 0.5 * x * (1 - t * t) * (0.79788456 + 3 * 0.79788456 * 0.044715 * x * x) + 0.5 * (1 + t);
}

void ref_dropout(const lrd_dropout_t *drop, const uint64_t *row_key, ref_mat_t mask)
{
    for (int64_t t = 0; t < mask.rows; t++) {
        for (int64_t j = 0; j < mask.cols; j++) {
            bool keep = true;
            if (drop->p > 0) {
                const lrd_philox_t r =
                    lrd_philox4x32(drop->seed, (uint32_t)row_key[t], (uint32_t)(row_key[t] >> 32),
                                   drop->site, (uint32_t)(j / 4));
                keep = r.x[j % 4] >= lrd_dropout_threshold(drop->p);
            }
            mask.v[t * mask.cols + j] = keep ? 1 / (1 - (double)drop->p) : 0;
        }
    }
}

static void moments(const double *x, int64_t n, double eps, double *mean, double *rstd)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += (x[i] - *mean) * (x[i] - *mean);
    *rstd = 1 / sqrt(square / (double)n + eps);
}

void ref_layernorm(ref_mat_t x, ref_mat_t gamma, ref_mat_t beta, double eps, ref_mat_t y)
{
    for (int64_t t = 0; t < x.rows; t++) {
        const double *row = x.v + t * x.cols;
        double mean, rstd;
        moments(row, x.cols, eps, &mean, &rstd);
        for (int64_t i = 0; i < x.cols; i++)
            y.v[t * x.cols + i] = (row[i] - mean) * rstd * gamma.v[i] + beta.v[i];
    }
}

void ref_layernorm_backward(ref_mat_t dy, ref_mat_t x, ref_mat_t gamma, double eps, ref_mat_t dx)
{
    const double n = (double)x.cols;
    for (int64_t t = 0; t < x.rows; t++) {
        const double *row = x.v + t * x.cols, *g = dy.v + t * x.cols;
        double mean, rstd, sum = 0, dot = 0;
        moments(row, x.cols, eps, &mean, &rstd);
        for (int64_t i = 0; i < x.cols; i++) {
            sum += g[i] * gamma.v[i];
            dot += g[i] * gamma.v[i] * (row[i] - mean) * rstd;
        }
        for (int64_t i = 0; i < x.cols; i++)
            dx.v[t * x.cols + i] =
                rstd * (g[i] * gamma.v[i] - sum / n - (row[i] - mean) * rstd * dot / n);
    }
}

/* Element c of part p (q, k, v) of head h in row t. */
static int64_t at(const ref_attention_t *a, int64_t t, int h, int p, int c)
{
    return ((t * a->n_heads + h) * 3 + p) * a->head_dim + c;
}

/* Probabilities of query i over keys first .. i; the log-sum-exp of its scores. */
static double probabilities(const ref_attention_t *a, ref_mat_t qkv, int h, int64_t first,
                            int64_t i, double *p)
{
    double largest = -INFINITY, sum = 0;
    for (int64_t j = first; j <= i; j++) {
        double s = 0;
        for (int c = 0; c < a->head_dim; c++)
            s += qkv.v[at(a, i, h, 0, c)] * qkv.v[at(a, j, h, 1, c)];
        p[j - first] = a->scale * s + (double)a->slope[h] * (double)(j - first);
        largest = fmax(largest, p[j - first]);
    }
    for (int64_t j = first; j <= i; j++)
        sum += p[j - first] = exp(p[j - first] - largest);
    for (int64_t j = first; j <= i; j++)
        p[j - first] /= sum;
    return largest + log(sum) - (double)a->slope[h] * (double)(i - first);
}

void ref_attention(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t out)
{
    double *p = malloc((size_t)(qkv.rows + 1) * sizeof *p);
    for (int s = 0; s < a->n_seqs; s++) {
        for (int64_t i = a->cu_seqlens[s]; i < a->cu_seqlens[s + 1]; i++) {
            for (int h = 0; h < a->n_heads; h++) {
                probabilities(a, qkv, h, a->cu_seqlens[s], i, p);
                for (int c = 0; c < a->head_dim; c++) {
                    double sum = 0;
                    for (int64_t j = a->cu_seqlens[s]; j <= i; j++)
                        sum += p[j - a->cu_seqlens[s]] * qkv.v[at(a, j, h, 2, c)];
                    out.v[i * out.cols + h * a->head_dim + c] = sum;
                }
            }
        }
    }
    free(p);
}

void ref_attention_lse(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t lse)
{
    double *p = malloc((size_t)(qkv.rows + 1) * sizeof *p);
    for (int s = 0; s < a->n_seqs; s++) {
        for (int64_t i = a->cu_seqlens[s]; i < a->cu_seqlens[s + 1]; i++) {
            for (int h = 0; h < a->n_heads; h++)
                lse.v[h * lse.cols + i] = probabilities(a, qkv, h, a->cu_seqlens[s], i, p);
        }
    }
    free(p);
}

/* One query's part of the gradients. */
static void query_backward(const ref_attention_t *a, ref_mat_t qkv, const double *g, int h,
                           int64_t first, int64_t i, const double *p, ref_mat_t dqkv)
{
    double *dp = malloc((size_t)(i - first + 1) * sizeof *dp), dot = 0;
    for (int64_t j = first; j <= i; j++) {
        dp[j - first] = 0;
        for (int c = 0; c < a->head_dim; c++)
            dp[j - first] += g[c] * qkv.v[at(a, j, h, 2, c)];
        dot += p[j - first] * dp[j - first];
    }
    for (int64_t j = first; j <= i; j++) {
        const double ds = p[j - first] * (dp[j - first] - dot) * a->scale;
        for (int c = 0; c < a->head_dim; c++) {
            dqkv.v[at(a, i, h, 0, c)] += ds * qkv.v[at(a, j, h, 1, c)];
            dqkv.v[at(a, j, h, 1, c)] += ds * qkv.v[at(a, i, h, 0, c)];
            dqkv.v[at(a, j, h, 2, c)] += p[j - first] * g[c];
        }
    }
    free(dp);
}

void ref_attention_backward(const ref_attention_t *a, ref_mat_t qkv, ref_mat_t dout, ref_mat_t dqkv)
{
    double *p = malloc((size_t)(qkv.rows + 1) * sizeof *p);
    for (int64_t i = 0; i < dqkv.rows * dqkv.cols; i++)
        dqkv.v[i] = 0;
    for (int s = 0; s < a->n_seqs; s++) {
        for (int64_t i = a->cu_seqlens[s]; i < a->cu_seqlens[s + 1]; i++) {
            for (int h = 0; h < a->n_heads; h++) {
                probabilities(a, qkv, h, a->cu_seqlens[s], i, p);
                query_backward(a, qkv, dout.v + i * dout.cols + h * a->head_dim, h,
                               a->cu_seqlens[s], i, p, dqkv);
            }
        }
    }
    free(p);
}

double ref_linear_ce(ref_mat_t h, ref_mat_t w, const int32_t *target, double scale, ref_mat_t dh)
{
    ref_mat_t z = ref_new(h.rows, w.rows);
    double loss = 0;
    ref_product(1, h, false, w, true, false, z);
    for (int64_t t = 0; t < h.rows; t++) {
        double *row = z.v + t * z.cols, largest = -INFINITY, sum = 0;
        for (int64_t v = 0; v < z.cols; v++)
            largest = fmax(largest, row[v]);
        for (int64_t v = 0; v < z.cols; v++)
            sum += exp(row[v] - largest);
        if (target[t] >= 0)
            loss += largest + log(sum) - row[target[t]];
        for (int64_t v = 0; v < z.cols; v++)
            row[v] = target[t] >= 0
                         ? scale * (exp(row[v] - largest) / sum - (v == target[t] ? 1 : 0))
                         : 0;
    }
    if (dh.v != NULL)
        ref_product(1, z, false, w, false, false, dh);
    ref_free(&z);
    return loss;
}

/* A finite value stays one. */
static float bounded(double x)
{
    return (float)fmax(fmin(x, (double)FLT_MAX), -(double)FLT_MAX);
}

static float sample_score(const lrd_sample_row_t *row, const uint32_t *seen, float x, int64_t i)
{
    const double penalty = (double)row->repetition_penalty;
    if (isnan(x) || x == -INFINITY)
        return -INFINITY;
    if (seen != NULL && (seen[i / 32] >> i % 32 & 1) != 0)
        x = bounded(x < 0 ? (double)x * penalty : (double)x / penalty);
    return bounded((double)bounded((double)x) / (double)row->temperature);
}

typedef struct scored {
    float score;
    int32_t id;
} scored_t;

static int compare_scored(const void *a, const void *b)
{
    const scored_t *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return x->id > y->id ? -1 : 1;
}

/* Sorted ascending: the first that stays after top_k, then after top_p, then after min_p. */
static int64_t first_kept(const lrd_sample_row_t *row, const scored_t *s, int64_t v, bool *unsure)
{
    int64_t first = 0;
    while (s[first].score == -INFINITY)
        first++;
    if (row->top_k > 0 && row->top_k < v - first)
        first = v - row->top_k;
    while (first > 0 && row->top_k > 0 && s[first - 1].score == s[first].score)
        first--;
    const long double largest = (long double)s[v - 1].score;
    long double total = 0, below = 0;
    for (int64_t i = first; i < v; i++)
        total += expl((long double)s[i].score - largest);
    if (row->top_p < 1) {
        const long double q = 1 - (long double)row->top_p;
        for (; first < v - 1; first++) {
            below += expl((long double)s[first].score - largest) / total;
            *unsure |= fabsl(below - q) <= 1e-12L;
            if (below > q)
                break;
        }
    }
    for (; row->min_p > 0 && first < v - 1; first++) {
        const long double p = expl((long double)s[first].score - largest);
        *unsure |= fabsl(p - (long double)row->min_p) <= 1e-12L * (long double)row->min_p &&
                   s[first].score < s[v - 1].score;
        if (p >= (long double)row->min_p)
            break;
    }
    return first;
}

bool ref_sample(const lrd_sample_row_t *row, const uint32_t *seen, const float *logit, int64_t v,
                ref_sample_t *r)
{
    bool finite = false;
    for (int64_t i = 0; i < v; i++)
        finite |= isfinite(logit[i]) != 0;
    if (!finite)
        return false;
    *r = (ref_sample_t){v, calloc((size_t)v, sizeof(float)), calloc((size_t)v, sizeof(bool)),
                        calloc((size_t)v, sizeof(double)), false};
    scored_t *sorted = calloc((size_t)v, sizeof *sorted);
    for (int64_t i = 0; i < v; i++) {
        r->score[i] = sample_score(row, seen, logit[i], i);
        sorted[i] = (scored_t){r->score[i], (int32_t)i};
    }
    qsort(sorted, (size_t)v, sizeof *sorted, compare_scored);
    long double total = 0;
    const int64_t first = first_kept(row, sorted, v, &r->unsure);
    for (int64_t i = first; i < v; i++)
        total += expl((long double)sorted[i].score - (long double)sorted[v - 1].score);
    for (int64_t i = first; i < v; i++) {
        const scored_t *s = &sorted[i];
        r->kept[s->id] = true;
        r->p[s->id] =
            (double)(expl((long double)s->score - (long double)sorted[v - 1].score) / total);
    }
    free(sorted);
    return true;
}

void ref_sample_free(ref_sample_t *r)
{
    free(r->score);
    free(r->kept);
    free(r->p);
    *r = (ref_sample_t){0};
}

int32_t ref_sample_draw(ref_sample_t *r, const lrd_sample_row_t *row)
{
    const lrd_philox_t x = lrd_philox4x32(row->seed, (uint32_t)row->request,
                                          (uint32_t)(row->request >> 32), row->index, 0x53414d50);
    const uint64_t bits = (uint64_t)(x.x[0] >> 5) << 26 | x.x[1] >> 6;
    const long double u = (long double)bits / 9007199254740992.0L;
    long double sum = 0;
    int32_t token = -1;
    for (int64_t i = 0; i < r->v; i++) {
        sum += (long double)r->p[i];
        r->unsure |= r->p[i] > 0 && fabsl(sum - u) <= 1e-12L;
        if (token < 0 && sum > u)
            token = (int32_t)i;
    }
    return token;
}
