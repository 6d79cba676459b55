/* Every op on a backend (argument 1) against the double-precision reference, in each compute dtype,
 * with odd shapes; the reference's own gradients against central differences. */
#include "kernels/ops.h"
#include "op_reference.h"
#include "support/test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *backend_name = "cpu";
static lrd_backend_t *be;
static lrd_stream_t *st;
static lrd_scratch_t scratch;
static uint8_t *pinned;
enum { PINNED = 64 << 20, MAX_LIVE = 64 };
static struct {
    void *data;
    size_t bytes;
} live[MAX_LIVE];
static int n_live;

/* Unit roundoff of the stored type: results are rounded to it once, and so are the intermediate
 * tensors that an op keeps in it. float32 sums of n terms lose about sqrt(n) roundoffs. */
static double roundoff(lrd_dtype_t d)
{
    return d == LRD_F32 ? 0x1p-24 : d == LRD_F16 ? 0x1p-11 : 0x1p-8;
}

static int setup(void **state)
{
    (void)state;
    const lrd_limits_t limits = {.tokens = 512,
                                 .max_seqlen = 256,
                                 .hidden = 512,
                                 .mlp = 2048,
                                 .vocab = 4096,
                                 .n_heads = 8,
                                 .head_dim = 128,
                                 .rank = 64,
                                 .compute = LRD_F32,
                                 .training = true};
    assert_ok(lrd_backend_open(backend_name, &(lrd_backend_options_t){0, 2, NULL}, &be));
    assert_ok(lrd_stream_create(be, &st));
    lrd_limits_t l16 = limits;
    l16.compute = LRD_BF16;
    const size_t a = lrd_scratch_bytes(be, &limits), b = lrd_scratch_bytes(be, &l16);
    scratch.bytes = a > b ? a : b;
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, scratch.bytes, &scratch.data));
    assert_ok(lrd_mem_alloc(be, LRD_MEM_PINNED, PINNED, (void **)&pinned));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, PINNED);
    lrd_mem_free(be, LRD_MEM_DEVICE, scratch.data, scratch.bytes);
    lrd_stream_destroy(st);
    lrd_backend_close(be);
    return 0;
}

static void *device(size_t bytes)
{
    assert_true(n_live < MAX_LIVE);
    void *p;
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes + 256, &p));
    live[n_live].data = p;
    live[n_live++].bytes = bytes + 256;
    return p;
}

static void free_all(void)
{
    while (n_live > 0) {
        n_live--;
        lrd_mem_free(be, LRD_MEM_DEVICE, live[n_live].data, live[n_live].bytes);
    }
}

static void *upload(const void *data, size_t bytes)
{
    void *p = device(bytes);
    assert_true(bytes <= PINNED);
    memcpy(pinned, data, bytes);
    assert_ok(lrd_copy(st, LRD_COPY_H2D, p, pinned, bytes));
    assert_ok(lrd_stream_sync(st));
    return p;
}

static void download(const void *data, void *host, size_t bytes)
{
    assert_ok(lrd_copy(st, LRD_COPY_D2H, pinned, data, bytes));
    assert_ok(lrd_stream_sync(st));
    memcpy(host, pinned, bytes);
}

static void put(void *row, int64_t i, double v, lrd_dtype_t d)
{
    if (d == LRD_F32)
        ((float *)row)[i] = (float)v;
    else
        ((uint16_t *)row)[i] = d == LRD_F16 ? lrd_f32_to_f16((float)v) : lrd_f32_to_bf16((float)v);
}

static double get(const void *row, int64_t i, lrd_dtype_t d)
{
    if (d == LRD_F32)
        return ((const float *)row)[i];
    const uint16_t x = ((const uint16_t *)row)[i];
    return d == LRD_F16 ? lrd_f16_to_f32(x) : lrd_bf16_to_f32(x);
}

/* To the device with a leading dimension beyond the columns; m becomes what was stored. */
static lrd_mat_t to_device(ref_mat_t m, lrd_dtype_t d, int64_t pad)
{
    const int64_t ld = m.cols + pad;
    const size_t e = lrd_dtype_bytes(d), bytes = (size_t)(m.rows * ld) * e;
    uint8_t *host = calloc(1, bytes + 1);
    for (int64_t i = 0; i < m.rows; i++) {
        for (int64_t j = 0; j < m.cols; j++) {
            put(host + (size_t)(i * ld) * e, j, m.v[i * m.cols + j], d);
            m.v[i * m.cols + j] = get(host + (size_t)(i * ld) * e, j, d);
        }
    }
    const lrd_mat_t out = {upload(host, bytes), m.rows, m.cols, ld, d};
    free(host);
    return out;
}

static lrd_mat_t empty(int64_t rows, int64_t cols, lrd_dtype_t d, int64_t pad)
{
    ref_mat_t m = ref_new(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = 1e4; /* outputs are overwritten */
    const lrd_mat_t out = to_device(m, d, pad);
    ref_free(&m);
    return out;
}

static ref_mat_t from_device(lrd_mat_t m)
{
    ref_mat_t r = ref_new(m.rows, m.cols);
    const size_t e = lrd_dtype_bytes(m.dtype), bytes = (size_t)(m.rows * m.ld) * e;
    uint8_t *host = malloc(bytes + 1);
    download(m.data, host, bytes);
    for (int64_t i = 0; i < m.rows; i++) {
        for (int64_t j = 0; j < m.cols; j++)
            r.v[i * m.cols + j] = get(host + (size_t)(i * m.ld) * e, j, m.dtype);
    }
    free(host);
    return r;
}

static ref_mat_t random_mat(uint64_t *seed, int64_t rows, int64_t cols, double size)
{
    ref_mat_t m = ref_new(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = size * lrd_test_random(seed);
    return m;
}

/* Largest difference in units of the largest value. */
static double distance(ref_mat_t a, ref_mat_t b)
{
    double worst = 0, largest = 1e-300;
    for (int64_t i = 0; i < a.rows * a.cols; i++) {
        const double d = fabs(a.v[i] - b.v[i]);
        worst = d > worst || isnan(d) ? d : worst;
        largest = fmax(largest, fabs(b.v[i]));
    }
    return worst / largest;
}

/* n: terms of the longest sum; roundings: how many tensors on the way are stored in dtype d. */
static void check(const char *what, lrd_mat_t have, ref_mat_t want, lrd_dtype_t d, double n,
                  double roundings)
{
    ref_mat_t got = from_device(have);
    const double bound = roundings * roundoff(d) + 4 * sqrt(n) * 0x1p-24;
    const double error = distance(got, want);
    if (!(error <= bound))
        fail_msg("%s (%s, %s): off by %.3g of the largest, bound %.3g", what, backend_name,
                 lrd_dtype_setting_name(d), error, bound);
    ref_free(&got);
}

static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16, LRD_F16};

static void test_norm(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 7 + (uint64_t)k;
        const lrd_dtype_t d = dtypes[k];
        const int64_t t = 13, c = 104;
        ref_mat_t x = random_mat(&seed, t, c, 3), delta = random_mat(&seed, t, c, 1);
        ref_mat_t gamma = random_mat(&seed, 1, c, 1), beta = random_mat(&seed, 1, c, 1);
        ref_mat_t dy = random_mat(&seed, t, c, 1), old = random_mat(&seed, t, c, 1);
        ref_mat_t y = ref_new(t, c), dx = ref_new(t, c), sum = ref_new(t, c);
        const lrd_mat_t dev_x = to_device(x, d, 3), dev_delta = to_device(delta, d, 0);
        const lrd_mat_t g = to_device(gamma, d, 0), b = to_device(beta, d, 0);
        const lrd_mat_t res = empty(t, c, d, 1), out = empty(t, c, d, 0);
        float *mean = device((size_t)t * 4), *rstd = device((size_t)t * 4);
        assert_ok(lrd_addnorm_forward(st, scratch,
                                      &(lrd_addnorm_fwd_t){lrd_const(dev_x), lrd_const(dev_delta),
                                                           lrd_const(g), lrd_const(b), 1e-5f, res,
                                                           out, mean, rstd}));
        for (int64_t i = 0; i < t * c; i++)
            sum.v[i] = x.v[i] + delta.v[i];
        check("addnorm res", res, sum, d, 1, 1);
        ref_mat_t stored = from_device(res); /* a norm sees what is stored */
        ref_layernorm(stored, gamma, beta, 1e-5, y);
        check("addnorm y", out, y, d, (double)c, 1);
        const lrd_mat_t dev_dy = to_device(dy, d, 2), dres = to_device(old, d, 0);
        ref_layernorm_backward(dy, stored, gamma, 1e-5, dx);
        for (int64_t i = 0; i < t * c; i++)
            dx.v[i] += old.v[i];
        assert_ok(lrd_norm_backward(st, scratch,
                                    &(lrd_norm_bwd_t){lrd_const(dev_dy), lrd_const(res),
                                                      lrd_const(g), mean, rstd, true, dres}));
        check("norm_backward", dres, dx, d, (double)c, 1);
        ref_mat_t *all[] = {&x, &delta, &gamma, &beta, &dy, &old, &y, &dx, &sum, &stored};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            ref_free(all[i]);
        free_all();
    }
}

static void test_embed(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 3;
        const int64_t t = 9, v = 31, c = 72;
        const int32_t token[] = {0, 30, 5, 5, 7, 1, 2, 29, 11};
        ref_mat_t table = random_mat(&seed, v, c, 1), x = ref_new(t, c), y = ref_new(t, c);
        ref_mat_t gamma = random_mat(&seed, 1, c, 1), beta = random_mat(&seed, 1, c, 1);
        const lrd_mat_t w = to_device(table, dtypes[k], 0), out = empty(t, c, dtypes[k], 0);
        const lrd_mat_t g = to_device(gamma, dtypes[k], 0), b = to_device(beta, dtypes[k], 0);
        for (int64_t i = 0; i < t; i++)
            memcpy(x.v + i * c, table.v + token[i] * c, (size_t)c * sizeof(double));
        ref_layernorm(x, gamma, beta, 1e-5, y);
        assert_ok(lrd_embed_forward(st, scratch,
                                    &(lrd_embed_fwd_t){upload(token, sizeof token), lrd_const(w),
                                                       lrd_const(g), lrd_const(b), 1e-5f, out}));
        check("embed", out, y, dtypes[k], (double)c, 1);
        ref_mat_t *all[] = {&table, &x, &y, &gamma, &beta};
        for (size_t i = 0; i < 5; i++)
            ref_free(all[i]);
        free_all();
    }
}

/* One linear, forward and backward, with GELU, an adapter and dropout. */
static void check_linear(lrd_dtype_t d, int64_t t, int64_t k, int64_t n, int64_t r, bool gelu,
                         float p)
{
    uint64_t seed = (uint64_t)(t * 31 + k);
    const double scale = 2;
    uint64_t *key = calloc((size_t)t, sizeof *key);
    for (int64_t i = 0; i < t; i++)
        key[i] = (uint64_t)(i % 5) << 32 | (uint64_t)(i / 5);
    ref_mat_t x = random_mat(&seed, t, k, 1), w = random_mat(&seed, n, k, 0.3);
    ref_mat_t bias = random_mat(&seed, 1, n, 1), a = random_mat(&seed, r, k, 0.3);
    ref_mat_t b = random_mat(&seed, n, r, 0.3), dy = random_mat(&seed, t, n, 1);
    ref_mat_t mask = ref_new(t, k), xd = ref_new(t, k), u = ref_new(t, r), y = ref_new(t, n);
    ref_mat_t act = ref_new(t, n), du = ref_new(t, r), da = ref_new(r, k), db = ref_new(n, r);
    ref_mat_t dx = ref_new(t, k), part = ref_new(t, k);
    const lrd_mat_t dev_x = to_device(x, d, 8), dev_w = to_device(w, d, 0);
    const lrd_mat_t dev_bias = to_device(bias, d, 0), dev_a = to_device(a, LRD_F32, 0);
    const lrd_mat_t dev_b = to_device(b, LRD_F32, 0), dev_dy = to_device(dy, d, 0);
    const lrd_mat_t dev_y = empty(t, n, d, 0), dev_pre = empty(t, n, d, 0);
    const lrd_mat_t dev_u = empty(t, r, LRD_F32, 0), dev_dx = empty(t, k, d, 0);
    const lrd_mat_t dev_da = to_device(da, LRD_F32, 0), dev_db = to_device(db, LRD_F32, 0);
    const lrd_weight_t weight = {lrd_const(dev_w)};
    const uint64_t *dev_key = upload(key, (size_t)t * sizeof *key);
    const lrd_lora_t lora = {
        lrd_const(dev_a), lrd_const(dev_b), (float)scale, {p, 12, 42, dev_key}};
    const int32_t begin[] = {0, (int32_t)t};
    const lrd_lora_rows_t rows = {1, &lora, begin};
    assert_ok(
        lrd_linear_forward(st, scratch,
                           &(lrd_linear_fwd_t){lrd_const(dev_x), &weight, lrd_const(dev_bias),
                                               &rows, gelu ? LRD_EPILOGUE_GELU : LRD_EPILOGUE_NONE,
                                               dev_y, gelu ? dev_pre : (lrd_mat_t){0}, dev_u}));
    ref_dropout(&lora.drop, key, mask);
    for (int64_t i = 0; i < t * k; i++)
        xd.v[i] = x.v[i] * mask.v[i];
    ref_product(1, xd, false, a, true, false, u);
    ref_linear(x, w, bias, y);
    ref_product(scale, u, false, b, true, true, y);
    for (int64_t i = 0; i < t * n; i++)
        act.v[i] = gelu ? ref_gelu(y.v[i]) : y.v[i];
    check("linear u", dev_u, u, d, (double)k, 0);
    check("linear y", dev_y, act, d, (double)k, 2);
    if (gelu)
        check("linear pre", dev_pre, y, d, (double)k, 1);
    assert_ok(lrd_linear_backward(st, scratch,
                                  &(lrd_linear_bwd_t){.dy = lrd_const(dev_dy),
                                                      .w = &weight,
                                                      .lora = &rows,
                                                      .x = lrd_const(dev_x),
                                                      .u = lrd_const(dev_u),
                                                      .da = &dev_da,
                                                      .db = &dev_db,
                                                      .dx = dev_dx}));
    ref_product(scale, dy, false, b, false, false, du);
    ref_product(scale, dy, true, u, false, false, db);
    ref_product(1, du, true, xd, false, false, da);
    ref_product(1, dy, false, w, false, false, dx);
    ref_product(1, du, false, a, false, false, part);
    for (int64_t i = 0; i < t * k; i++)
        dx.v[i] += part.v[i] * mask.v[i];
    check("linear dA", dev_da, da, d, (double)(n + t), 0);
    check("linear dB", dev_db, db, d, (double)(k + t), 0);
    check("linear dx", dev_dx, dx, d, (double)n, 1);
    ref_mat_t *all[] = {&x, &w, &bias, &a,  &b,  &dy, &mask, &xd,
                        &u, &y, &act,  &du, &da, &db, &dx,   &part};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        ref_free(all[i]);
    free(key);
    free_all();
}

static void test_linear(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        check_linear(dtypes[k], 1, 8, 24, 1, false, 0);
        check_linear(dtypes[k], 67, 96, 288, 8, false, 0.1f);
        check_linear(dtypes[k], 33, 72, 288, 5, true, 0);
        check_linear(dtypes[k], 130, 320, 80, 16, false, 0.5f);
    }
}

static void check_attention(lrd_dtype_t d, int heads, int dim, const int32_t *cu, int n_seqs)
{
    uint64_t seed = (uint64_t)(heads * dim);
    const int64_t t = cu[n_seqs] + 2; /* two rows of padding */
    float slope[8];
    int32_t longest = 0;
    for (int s = 0; s < n_seqs; s++)
        longest = cu[s + 1] - cu[s] > longest ? cu[s + 1] - cu[s] : longest;
    for (int h = 0; h < heads; h++)
        slope[h] = powf(0.5f, (float)(h + 1));
    ref_mat_t qkv = random_mat(&seed, t, 3 * heads * dim, 2), out = ref_new(t, heads * dim);
    ref_mat_t dout = random_mat(&seed, t, heads * dim, 1), dqkv = ref_new(t, 3 * heads * dim);
    const lrd_mat_t dev_qkv = to_device(qkv, d, 0), dev_out = empty(t, heads * dim, d, 0);
    const lrd_mat_t dev_dout = to_device(dout, d, 0), dev_dqkv = empty(t, 3 * heads * dim, d, 0);
    const lrd_attn_fwd_t fwd = {.qkv = lrd_const(dev_qkv),
                                .cu_seqlens = upload(cu, (size_t)(n_seqs + 1) * sizeof *cu),
                                .n_seqs = n_seqs,
                                .max_seqlen = longest,
                                .n_heads = heads,
                                .head_dim = dim,
                                .slope = upload(slope, sizeof slope),
                                .scale = (float)(1 / sqrt(dim)),
                                .out = dev_out,
                                .lse = device((size_t)(heads * t) * 4)};
    const ref_attention_t ref = {cu, n_seqs, heads, dim, slope, fwd.scale};
    assert_ok(lrd_attn_forward(st, scratch, &fwd));
    ref_attention(&ref, qkv, out);
    lrd_mat_t real_out = dev_out, real_dqkv = dev_dqkv;
    real_out.rows = real_dqkv.rows = out.rows = dqkv.rows = cu[n_seqs];
    check("attention", real_out, out, d, (double)(dim + longest), 2);
    assert_ok(
        lrd_attn_backward(st, scratch, &(lrd_attn_bwd_t){fwd, lrd_const(dev_dout), dev_dqkv}));
    ref_attention_backward(&ref, qkv, dout, dqkv);
    check("attention backward", real_dqkv, dqkv, d, (double)(dim + longest), 6);
    ref_mat_t *all[] = {&qkv, &out, &dout, &dqkv};
    for (size_t i = 0; i < 4; i++)
        ref_free(all[i]);
    free_all();
}

static void test_attention(void **state)
{
    (void)state;
    static const int32_t cu[] = {0, 1, 1, 38, 40, 139}; /* one token, none, and more */
    static const int dims[] = {8, 64, 80, 96, 128};
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < 5; i++)
            check_attention(dtypes[k], i == 0 ? 7 : 3, dims[i], cu, 5);
    }
}

static void test_linear_ce(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 99;
        const lrd_dtype_t d = dtypes[k];
        const int64_t t = 37, c = 88, v = 3001;
        int32_t target[37];
        for (int64_t i = 0; i < t; i++)
            target[i] = i % 4 == 1 ? -1 : (int32_t)lrd_test_random_int(&seed, v);
        ref_mat_t h = random_mat(&seed, t, c, 2), w = random_mat(&seed, v, c, 0.5),
                  dh = ref_new(t, c);
        const lrd_mat_t dev_h = to_device(h, d, 0), dev_w = to_device(w, d, 0);
        const lrd_mat_t dev_dh = empty(t, c, d, 0);
        const lrd_weight_t weight = {lrd_const(dev_w)};
        const lrd_step_state_t clock = {.loss_scale = 8};
        double *nll = device(8), got;
        const lrd_linear_ce_t op = {.h = lrd_const(dev_h),
                                    .w = &weight,
                                    .target = upload(target, sizeof target),
                                    .inv_n_target = 0.25,
                                    .state = upload(&clock, sizeof clock),
                                    .nll = nll,
                                    .dh = dev_dh};
        assert_ok(lrd_linear_ce(st, scratch, &op));
        const double want = ref_linear_ce(h, w, target, 8 * 0.25, dh);
        download(nll, &got, sizeof got);
        assert_true(fabs(got / want - 1) < 1e-6);
        /* The gradient of logits may be rounded to the compute dtype before it meets the head. */
        check("linear_ce dh", dev_dh, dh, d, (double)v, 3);
        lrd_linear_ce_t without = op;
        without.dh = (lrd_mat_t){0};
        assert_ok(lrd_linear_ce(st, scratch, &without));
        download(nll, &got, sizeof got);
        assert_true(fabs(got / want - 1) < 1e-6);
        ref_free(&h);
        ref_free(&w);
        ref_free(&dh);
        free_all();
    }
}

/* Updates against the formulas in double; a bad update changes nothing but the clock. */
static void test_updates(void **state)
{
    (void)state;
    enum { N = 1003, UPDATES = 5 };
    uint64_t seed = 5;
    double p[N], m[N] = {0}, v[N] = {0}, lr[UPDATES] = {0, 0.01, 0.02, 0.01, 0.005};
    float host[N], zero[N] = {0}, g[N];
    for (int i = 0; i < N; i++)
        p[i] = host[i] = (float)lrd_test_random(&seed);
    float *dp = upload(host, sizeof host), *dm = upload(zero, sizeof zero),
          *dv = upload(zero, sizeof zero);
    const double *table = upload(lr, sizeof lr);
    lrd_step_state_t clock = {.loss_scale = 4};
    lrd_step_state_t *dev_clock = upload(&clock, sizeof clock);
    double *sums = device(2 * sizeof(double));
    const int64_t begin[] = {0, 500, N};
    int t = 0;
    for (int update = 0; update < UPDATES + 1; update++) {
        const bool bad = update == 2;
        double norm = 0;
        for (int i = 0; i < N; i++) {
            g[i] = (float)lrd_test_random(&seed);
            norm += (double)g[i] * g[i];
        }
        if (bad)
            g[77] = INFINITY;
        float *dev_g = upload(g, sizeof g);
        assert_ok(lrd_sumsq(st, scratch, &(lrd_sumsq_t){dev_g, begin, 2, sums}));
        assert_ok(
            lrd_step_finish(st, scratch, &(lrd_step_finish_t){sums, 2, 0.5f, true, dev_clock}));
        assert_ok(lrd_adamw(
            st, scratch,
            &(lrd_adamw_t){dp, dm, dv, dev_g, N, table, 0.9, 0.999, 1e-8, 0.1, dev_clock}));
        const double scale = clock.loss_scale;
        download(dev_clock, &clock, sizeof clock);
        assert_int_equal(clock.bad != 0, bad);
        if (bad) {
            assert_true(clock.loss_scale == scale / 2); /* torch's backoff */
            continue;
        }
        norm = sqrt(norm) / scale;
        assert_true(fabs(clock.grad_norm / norm - 1) < 1e-6);
        const double clip = fmin(1, 0.5 / (norm + 1e-6)) / scale;
        t++;
        assert_int_equal((int)clock.adam_t, t);
        for (int i = 0; i < N; i++) {
            const double x = g[i] * clip, rate = lr[t - 1];
            m[i] = 0.9 * m[i] + 0.1 * x;
            v[i] = 0.999 * v[i] + 0.001 * x * x;
            p[i] = p[i] * (1 - rate * 0.1) -
                   rate / (1 - pow(0.9, t)) * m[i] / (sqrt(v[i]) / sqrt(1 - pow(0.999, t)) + 1e-8);
        }
    }
    assert_int_equal(t, UPDATES);
    download(dp, host, sizeof host);
    for (int i = 0; i < N; i++)
        assert_true(fabs(host[i] - p[i]) < 1e-6); /* 5 updates of at most 0.02, float32 moments */
    free_all();
}

/* The reference's gradients are those of its own forward: central differences in double. */
static void test_reference(void **state)
{
    (void)state;
    uint64_t seed = 1;
    static const int32_t cu[] = {0, 3, 9};
    static const float slope[] = {0.5f, 0.25f};
    const ref_attention_t a = {cu, 2, 2, 8, slope, 0.35};
    ref_mat_t qkv = random_mat(&seed, 9, 48, 1), g = random_mat(&seed, 9, 16, 1);
    ref_mat_t out = ref_new(9, 16), grad = ref_new(9, 48);
    ref_attention_backward(&a, qkv, g, grad);
    for (int64_t i = 0; i < 9 * 48; i += 7) {
        const double h = 1e-5, x = qkv.v[i];
        double f[2] = {0, 0};
        for (int side = 0; side < 2; side++) {
            qkv.v[i] = x + (side ? h : -h);
            ref_attention(&a, qkv, out);
            for (int64_t k = 0; k < 9 * 16; k++)
                f[side] += out.v[k] * g.v[k];
        }
        qkv.v[i] = x;
        assert_true(fabs((f[1] - f[0]) / (2 * h) - grad.v[i]) < 1e-8);
    }
    for (double x = -4; x < 4; x += 0.37)
        assert_true(fabs((ref_gelu(x + 1e-5) - ref_gelu(x - 1e-5)) / 2e-5 - ref_gelu_slope(x)) <
                    1e-9);
    ref_mat_t *all[] = {&qkv, &g, &out, &grad};
    for (size_t i = 0; i < 4; i++)
        ref_free(all[i]);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        backend_name = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_norm),      cmocka_unit_test(test_linear),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_linear_ce),
        cmocka_unit_test(test_updates)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
