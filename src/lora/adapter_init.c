/* Fresh parameters, in the order in which PEFT and torch draw them: for each module the
 * constructors of A and of B fill theirs, then A is filled again (unless init_lora_weights
 * is false) and B is zero.
 *
 * Sources: peft 0.21.2 (tuners/lora/layer.py), torch 2.13 (nn/init.py, DistributionTemplates.h,
 * avx_mathfun.h). The normal distribution follows torch's code for x86 with AVX2, whose logarithm,
 * sine and cosine are those of Cephes with fused multiply-adds.
 */
#include "lora/adapter.h"

#include "base/torch_rng.h"

#include <math.h>
#include <stdbool.h>

/* ---- torch's normal_ ------------------------------------------------------------------------- */

/* Natural logarithm of a normal number, 0 < x <= 1. */
static float cephes_log(float x)
{
    static const float p[] = {-1.1514610310e-1f, 1.1676998740e-1f,  -1.2420140846e-1f,
                              1.4249322787e-1f,  -1.6668057665e-1f, 2.0000714765e-1f,
                              -2.4999993993e-1f, 3.3333331174e-1f};
    int exponent;
    x = frexpf(x, &exponent);
    float e = (float)exponent;
    if (x < 0.707106781186547524f) {
        e -= 1.0f;
        x = (x - 1.0f) + x;
    } else {
        x -= 1.0f;
    }
    const float z = x * x;
    float y = 7.0376836292e-2f;
    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
        y = fmaf(y, x, p[i]);
    y *= x;
    y = fmaf(y, z, e * -2.12194440e-4f);
    y -= z * 0.5f;
    return fmaf(e, 0.693359375f, x + y);
}

/* Sine and cosine of 0 <= x < 8192. */
static void cephes_sincos(float x, float *sin_out, float *cos_out)
{
    const int octant = ((int)(x * 1.27323954473516f) + 1) & ~1;
    const float k = (float)octant;
    x = fmaf(k, -0.78515625f, x);
    x = fmaf(k, -2.4187564849853515625e-4f, x);
    x = fmaf(k, -3.77489497744594108e-8f, x);
    const float z = x * x;
    float c = fmaf(2.443315711809948e-5f, z, -1.388731625493765e-3f);
    c = fmaf(c, z, 4.166664568298827e-2f);
    c = fmaf(c * z, z, -(z * 0.5f)) + 1.0f;
    float s = fmaf(-1.9515295891e-4f, z, 8.3321608736e-3f);
    s = fmaf(s, z, -1.6666654611e-1f);
    s = fmaf(s * z, x, x);
    const bool is_swapped = (octant & 2) != 0;
    const float sine = is_swapped ? c : s, cosine = is_swapped ? s : c;
    *sin_out = (octant & 4) != 0 ? -sine : sine;
    *cos_out = ((octant - 2) & 4) == 0 ? -cosine : cosine;
}

/* Box and Muller's transform of 16 uniform numbers in place: pairs j and j + 8. */
static void normal_16(float *x, float deviation)
{
    for (int j = 0; j < 8; j++) {
        const float radius = sqrtf(-2.0f * cephes_log(1.0f - x[j]));
        float sine, cosine;
        cephes_sincos(6.28318530717958648f * x[j + 8], &sine, &cosine);
        x[j] = fmaf(radius * cosine, deviation, 0.0f); /* 0, not -0 */
        x[j + 8] = fmaf(radius * sine, deviation, 0.0f);
    }
}

static double uniform_double(lrd_torch_rng_t *rng)
{
    const uint64_t high = lrd_torch_rng_draw(rng), low = lrd_torch_rng_draw(rng);
    return (double)((high << 32 | low) & ((1ull << 53) - 1)) * 0x1p-53;
}

/* The generator, with the second of a pair of normal numbers, which waits for the next tensor. */
typedef struct generator {
    lrd_torch_rng_t rng;
    double kept;
    bool has_kept;
} generator_t;

static void fill_normal_small(generator_t *g, float *out, int64_t n, double deviation)
{
    for (int64_t i = 0; i < n; i++) {
        double x = g->kept;
        if (!g->has_kept) {
            const double u1 = uniform_double(&g->rng), u2 = uniform_double(&g->rng);
            const double radius = sqrt(-2.0 * log1p(-u2)), angle = 2.0 * M_PI * u1;
            g->kept = radius * sin(angle);
            x = radius * cos(angle);
        }
        g->has_kept = !g->has_kept;
        out[i] = (float)(x * deviation);
    }
}

static void fill_normal(generator_t *g, float *out, int64_t n, double deviation)
{
    if (n < 16) {
        fill_normal_small(g, out, n, deviation);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = lrd_torch_rng_uniform(&g->rng, 0.0f, 1.0f);
    for (int64_t i = 0; i + 16 <= n; i += 16)
        normal_16(out + i, (float)deviation);
    if (n % 16 != 0) {
        for (int64_t i = n - 16; i < n; i++)
            out[i] = lrd_torch_rng_uniform(&g->rng, 0.0f, 1.0f);
        normal_16(out + n - 16, (float)deviation);
    }
}

/* ---- PEFT's parameters ----------------------------------------------------------------------- */

/* torch.nn.Linear's weight: kaiming_uniform_(a=sqrt(5)) over n_in inputs. */
static void fill_linear(generator_t *g, float *out, int64_t n, int64_t n_in)
{
    const double a = sqrt(5.0);
    const double gain = sqrt(2.0 / (1.0 + a * a));
    const double bound = sqrt(3.0) * (gain / sqrt((double)n_in));
    for (int64_t i = 0; i < n; i++)
        out[i] = lrd_torch_rng_uniform(&g->rng, (float)-bound, (float)bound);
}

static float through_dtype(float x, lrd_dtype_t dtype)
{
    if (dtype == LRD_F16)
        return lrd_f16_to_f32(lrd_f32_to_f16(x));
    if (dtype == LRD_BF16)
        return lrd_bf16_to_f32(lrd_f32_to_bf16(x));
    return x;
}

lrd_status_t lrd_adapter_init(const lrd_adapter_t *adapter, const lrd_lora_settings_t *settings,
                              lrd_dtype_t base_dtype, float *params)
{
    generator_t g = {.has_kept = false};
    lrd_torch_rng_seed(&g.rng, (uint64_t)settings->seed);
    for (int k = 0; k < adapter->n_items; k++) {
        const lrd_adapter_item_t *item = &adapter->items[k];
        float *a = params + item->a, *b = params + item->b;
        const int64_t n_a = item->r * item->n_in, n_b = item->n_out * item->r;
        fill_linear(&g, a, n_a, item->n_in);
        fill_linear(&g, b, n_b, item->r);
        if (settings->init_lora_weights == LRD_LORA_INIT_FALSE)
            continue;
        if (settings->init_lora_weights == LRD_LORA_INIT_GAUSSIAN)
            fill_normal(&g, a, n_a, 1.0 / (double)item->r);
        else
            fill_linear(&g, a, n_a, item->n_in);
        for (int64_t i = 0; i < n_b; i++)
            b[i] = 0.0f;
    }
    for (int64_t i = 0; i < adapter->n_params; i++)
        params[i] = through_dtype(params[i], base_dtype);
    return LRD_OK;
}
