/* Linears with adapters, dropout and GELU on a backend, forward and backward,
 * against the reference. */
#include "kernels/cpu/cpu_tuning.h"
#include "op_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ADAPTERS = 6, MAX_T = 1200 };

typedef struct linear_case {
    int64_t k, n;
    int adapters;               /* 0: a plain linear */
    int32_t rows[MAX_ADAPTERS]; /* of each adapter (of the linear, without) */
    int64_t rank[MAX_ADAPTERS]; /* 0: absent */
    float p;
    bool gelu, f32_out, no_bias; /* forward */
    bool pre, accumulate, no_dx; /* backward */
    bool room;                   /* for the adapter behind x and w, where the backend uses it */
    int64_t pad;
    double a_up, b_up; /* A and B are so many times larger, and the scale smaller; 0: once */
} linear_case_t;

/* One case: inputs as stored, what the reference makes of them, and the same on the device. */
typedef struct linear {
    const linear_case_t *x;
    lrd_dtype_t d;
    int64_t t, r; /* tokens, largest rank */
    int64_t room; /* columns */
    int32_t begin[MAX_ADAPTERS + 1];
    ref_mat_t in, w, bias, mask, dropped, u, a[MAX_ADAPTERS], b[MAX_ADAPTERS];
    lrd_mat_t dev_in, dev_w, dev_bias, dev_u;
    lrd_weight_t weight;
    lrd_lora_t lora[MAX_ADAPTERS];
    lrd_lora_rows_t rows;
    uint64_t seed;
} linear_t;

static ref_mat_t rows_of(ref_mat_t m, int64_t begin, int64_t end)
{
    return (ref_mat_t){m.v + begin * m.cols, end - begin, m.cols};
}

static void add_adapter(linear_t *l, int i, const uint64_t *key, const uint64_t *dev_key)
{
    const int64_t r = l->x->rank[i], k = l->x->k, n = l->x->n;
    const int32_t begin = l->begin[i], end = l->begin[i + 1];
    const double a_up = l->x->a_up > 0 ? l->x->a_up : 1, b_up = l->x->b_up > 0 ? l->x->b_up : 1;
    if (r == 0)
        return;
    l->a[i] = op_random(&l->seed, r, k, 0.3 * a_up);
    l->b[i] = op_random(&l->seed, n, r, 0.3 * b_up);
    l->lora[i] = (lrd_lora_t){lrd_const(op_put(l->a[i], LRD_F32, l->x->pad)),
                              lrd_const(op_put(l->b[i], LRD_F32, l->x->pad)),
                              (float)((1.5 + i) / (a_up * b_up)),
                              {l->x->p, (uint32_t)(12 + i), 42 + (uint64_t)i, dev_key}};
    if (l->x->p == 0)
        l->lora[i].drop.row_key = NULL;
    ref_dropout(&l->lora[i].drop, key + begin, rows_of(l->mask, begin, end));
    for (int64_t j = begin * k; j < end * k; j++)
        l->dropped.v[j] = l->in.v[j] * l->mask.v[j];
    ref_mat_t u = op_zeros(end - begin, r);
    ref_product(1, rows_of(l->dropped, begin, end), false, l->a[i], true, false, u);
    for (int64_t t = begin; t < end; t++)
        memcpy(l->u.v + t * l->r, u.v + (t - begin) * r, (size_t)r * sizeof(double));
}

static linear_t make_linear(const linear_case_t *x, lrd_dtype_t d)
{
    linear_t l = {.x = x, .d = d, .seed = (uint64_t)(x->k * 31 + x->n)};
    uint64_t key[MAX_T];
    const int segments = x->adapters > 0 ? x->adapters : 1;
    for (int i = 0; i < segments; i++) {
        l.begin[i + 1] = l.begin[i] + x->rows[i];
        l.r = x->rank[i] > l.r ? x->rank[i] : l.r;
    }
    l.t = l.begin[segments];
    for (int64_t t = 0; t < l.t; t++)
        key[t] = (uint64_t)(t % 5) << 32 | 3u << 16 | (uint64_t)(t / 5);
    op_context("T %ld, K %ld, N %ld, R %ld, %d adapters", (long)l.t, (long)x->k, (long)x->n,
               (long)l.r, x->adapters);
    l.in = op_random(&l.seed, l.t, x->k, 1);
    l.w = op_random(&l.seed, x->n, x->k, 0.3);
    l.room = x->room ? lrd_lora_columns(op_be, l.r) : 0;
    l.dev_in = op_put(l.in, d, x->pad + l.room);
    l.dev_w = op_put(l.w, d, x->pad + l.room);
    l.weight = (lrd_weight_t){lrd_const(l.dev_w)};
    if (!x->no_bias) {
        l.bias = op_random(&l.seed, 1, x->n, 1);
        l.dev_bias = op_put(l.bias, d, 0);
    }
    l.mask = op_zeros(l.t, x->k);
    l.dropped = op_zeros(l.t, x->k);
    l.u = op_zeros(l.t, l.r);
    l.dev_u = x->adapters > 0 ? op_empty(l.t, l.r, LRD_F32, x->pad) : (lrd_mat_t){0};
    const uint64_t *dev_key = op_upload(key, (size_t)l.t * sizeof *key);
    for (int i = 0; i < x->adapters; i++)
        add_adapter(&l, i, key, dev_key);
    return l;
}

/* u means something in the columns of its row's adapter alone. */
static void check_u(const linear_t *l)
{
    ref_mat_t got = op_get(l->dev_u);
    for (int i = 0; i < l->x->adapters; i++) {
        for (int64_t t = l->begin[i]; t < l->begin[i + 1]; t++)
            for (int64_t j = l->x->rank[i]; j < l->r; j++)
                got.v[t * l->r + j] = 0;
    }
    op_near("linear u", OP_LORA_F32, l->d, (double)l->x->k, got, l->u);
}

static void check_forward(linear_t *l)
{
    const linear_case_t *x = l->x;
    const bool in_room = l->room > 0;
    const lrd_dtype_t out = x->f32_out ? LRD_F32 : l->d;
    const lrd_mat_t y = op_empty(l->t, x->n, out, x->pad), none = {0};
    const lrd_mat_t pre = x->gelu ? op_empty(l->t, x->n, out, 0) : none;
    lrd_linear_fwd_t op = {.x = lrd_const(l->dev_in),
                           .w = &l->weight,
                           .bias = lrd_const(l->dev_bias),
                           .lora = x->adapters > 0 ? &l->rows : NULL,
                           .epilogue = x->gelu ? LRD_EPILOGUE_GELU : LRD_EPILOGUE_NONE,
                           .y = y,
                           .pre = pre,
                           .u = l->dev_u,
                           .x_room = lrd_room(l->dev_in, l->room),
                           .w_room = lrd_room(l->dev_w, l->room)};
    assert_ok(lrd_linear_forward(op_st, op_scratch, &op));
    ref_mat_t want = op_zeros(l->t, x->n), act = op_zeros(l->t, x->n);
    ref_linear(l->in, l->w, l->bias, want);
    for (int i = 0; i < x->adapters; i++) {
        if (x->rank[i] == 0)
            continue;
        ref_mat_t u = op_zeros(l->begin[i + 1] - l->begin[i], x->rank[i]);
        for (int64_t t = 0; t < u.rows; t++)
            memcpy(u.v + t * u.cols, l->u.v + (l->begin[i] + t) * l->r,
                   (size_t)u.cols * sizeof(double));
        ref_product((double)l->lora[i].scale, u, false, l->b[i], true, true,
                    rows_of(want, l->begin[i], l->begin[i + 1]));
    }
    for (int64_t i = 0; i < l->t * x->n; i++)
        act.v[i] = x->gelu ? ref_gelu(want.v[i]) : want.v[i];
    const double n = (double)(x->k + l->r);
    if (x->adapters > 0)
        check_u(l);
    if (x->gelu)
        op_check("linear pre", in_room ? OP_LINEAR_ROOM : OP_LINEAR, out, n, pre, want);
    const op_quantity_t plain = x->gelu ? OP_LINEAR_GELU : OP_LINEAR,
                        joined = x->gelu ? OP_LINEAR_ROOM_GELU : OP_LINEAR_ROOM;
    op_check("linear y", in_room ? joined : plain, out, n, y, act);
    if (x->gelu) { /* without pre, as in evaluation: the same y */
        ref_mat_t first = op_get(y);
        op.pre = none;
        assert_ok(lrd_linear_forward(op_st, op_scratch, &op));
        ref_mat_t second = op_get(y);
        assert_memory_equal(first.v, second.v, (size_t)(l->t * x->n) * sizeof(double));
    }
}

/* The reference's dA, dB and part of dx of one adapter. */
static void adapter_backward(const linear_t *l, int i, ref_mat_t dy, ref_mat_t dx, ref_mat_t da,
                             ref_mat_t db)
{
    const int64_t begin = l->begin[i], end = l->begin[i + 1], k = l->x->k, r = l->x->rank[i];
    const double scale = (double)l->lora[i].scale;
    ref_mat_t du = op_zeros(end - begin, r), u = op_zeros(end - begin, r);
    ref_mat_t part = op_zeros(end - begin, k);
    for (int64_t t = 0; t < u.rows; t++)
        memcpy(u.v + t * r, l->u.v + (begin + t) * l->r, (size_t)r * sizeof(double));
    ref_product(scale, rows_of(dy, begin, end), false, l->b[i], false, false, du);
    ref_product(scale, rows_of(dy, begin, end), true, u, false, true, db);
    ref_product(1, du, true, rows_of(l->dropped, begin, end), false, true, da);
    ref_product(1, du, false, l->a[i], false, false, part);
    for (int64_t j = 0; j < part.rows * k; j++)
        dx.v[begin * k + j] += part.v[j] * l->mask.v[begin * k + j];
}

static void check_backward(linear_t *l)
{
    const linear_case_t *x = l->x;
    ref_mat_t dy = op_random(&l->seed, l->t, x->n, 1), pre = op_random(&l->seed, l->t, x->k, 3);
    ref_mat_t dx = op_zeros(l->t, x->k), old = op_random(&l->seed, l->t, x->k, 1);
    ref_mat_t da[MAX_ADAPTERS], db[MAX_ADAPTERS];
    lrd_mat_t dev_da[MAX_ADAPTERS] = {{0}}, dev_db[MAX_ADAPTERS] = {{0}}, none = {0};
    const lrd_mat_t dev_dy = op_put(dy, l->d, x->pad), dev_pre = op_put(pre, l->d, 0);
    const lrd_mat_t dev_dx = op_put(old, l->d, x->pad);
    ref_product(1, dy, false, l->w, false, false, dx);
    for (int i = 0; i < x->adapters; i++) {
        if (x->rank[i] == 0)
            continue;
        da[i] = op_random(&l->seed, x->rank[i], x->k, 1); /* accumulated to what is there */
        db[i] = op_random(&l->seed, x->n, x->rank[i], 1);
        dev_da[i] = op_put(da[i], LRD_F32, x->pad);
        dev_db[i] = op_put(db[i], LRD_F32, x->pad);
        adapter_backward(l, i, dy, dx, da[i], db[i]);
    }
    for (int64_t i = 0; i < l->t * x->k; i++) {
        dx.v[i] *= x->pre ? ref_gelu_slope(pre.v[i]) : 1;
        dx.v[i] += x->accumulate ? old.v[i] : 0;
    }
    assert_ok(lrd_linear_backward(op_st, op_scratch,
                                  &(lrd_linear_bwd_t){.dy = lrd_const(dev_dy),
                                                      .w = &l->weight,
                                                      .lora = x->adapters > 0 ? &l->rows : NULL,
                                                      .x = lrd_const(l->dev_in),
                                                      .u = lrd_const(l->dev_u),
                                                      .da = dev_da,
                                                      .db = dev_db,
                                                      .pre = lrd_const(x->pre ? dev_pre : none),
                                                      .accumulate_dx = x->accumulate,
                                                      .dx = x->no_dx ? none : dev_dx}));
    for (int i = 0; i < x->adapters; i++) {
        if (x->rank[i] == 0)
            continue;
        op_check("linear dA", OP_LORA_F32, l->d, (double)(x->n + l->t), dev_da[i], da[i]);
        op_check("linear dB", OP_LORA_F32, l->d, (double)(x->k + l->t), dev_db[i], db[i]);
    }
    op_check("linear dx", OP_LINEAR_DX, l->d, (double)(x->n + l->r), dev_dx, x->no_dx ? old : dx);
}

static void check_linear(lrd_dtype_t d, const linear_case_t *x)
{
    linear_t l = make_linear(x, d);
    l.rows = (lrd_lora_rows_t){x->adapters, l.lora, l.begin};
    check_forward(&l);
    check_backward(&l);
    op_free_all();
}

static void test_linear(void **state)
{
    (void)state;
    static const linear_case_t cases[] = {
        {.k = 8, .n = 24, .adapters = 1, .rows = {1}, .rank = {1}},
        {.k = 96,
         .n = 288,
         .adapters = 1,
         .rows = {67},
         .rank = {8},
         .p = 0.1f,
         .accumulate = true},
        {.k = 72, .n = 288, .adapters = 1, .rows = {33}, .rank = {5}, .gelu = true, .pad = 3},
        {.k = 320, .n = 80, .adapters = 1, .rows = {130}, .rank = {16}, .p = 0.5f, .pre = true},
        {.k = 17,
         .n = 13,
         .adapters = 1,
         .rows = {5},
         .rank = {3},
         .p = 0.1f,
         .gelu = true,
         .pre = true,
         .accumulate = true,
         .pad = 1},
        {.k = 24, .n = 140, .rows = {601}, .no_bias = true, .pad = 8},
        {.k = 130, .n = 257, .rows = {3}, .gelu = true, .f32_out = true, .accumulate = true},
        {.k = 40, .n = 1, .adapters = 1, .rows = {2}, .rank = {1}, .f32_out = true, .no_dx = true},
        {.k = 1, .n = 9, .adapters = 1, .rows = {4}, .rank = {2}, .p = 0.3f},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_linear(op_dtypes[k], &cases[i]);
    }
}

/* Sums longer than a tile: over k, over tokens, over ranks. */
static void test_long(void **state)
{
    (void)state;
    static const linear_case_t cases[] = {
        {.k = 4101, .n = 12, .adapters = 1, .rows = {9}, .rank = {2}, .p = 0.1f},
        {.k = 12, .n = 4101, .adapters = 1, .rows = {9}, .rank = {2}, .p = 0.1f, .pre = true},
        {.k = 16, .n = 20, .adapters = 1, .rows = {1100}, .rank = {3}, .p = 0.1f},
        {.k = 64, .n = 48, .adapters = 1, .rows = {30}, .rank = {71}},
        {.k = 24, .n = 1032, .adapters = 2, .rows = {300, 213}, .rank = {17, 64}, .p = 0.1f},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_linear(op_dtypes[k], &cases[i]);
    }
}

/* The adapter as further columns of the product. */
static void test_room(void **state)
{
    (void)state;
    static const linear_case_t cases[] = {
        {.k = 8, .n = 24, .adapters = 1, .rows = {1}, .rank = {1}, .room = true},
        {.k = 96, .n = 288, .adapters = 1, .rows = {67}, .rank = {8}, .p = 0.1f, .room = true},
        {.k = 64,
         .n = 40,
         .adapters = 1,
         .rows = {33},
         .rank = {16},
         .gelu = true,
         .room = true,
         .pad = 8},
        {.k = 40, .n = 13, .adapters = 1, .rows = {9}, .rank = {17}, .no_bias = true, .room = true},
        {.k = 17, .n = 24, .adapters = 1, .rows = {5}, .rank = {3}, .room = true, .pad = 1},
        {.k = 72,
         .n = 48,
         .adapters = 1,
         .rows = {30},
         .rank = {71},
         .p = 0.5f,
         .gelu = true,
         .room = true},
        {.k = 40, .n = 16, .adapters = 1, .rows = {6}, .rank = {9}, .f32_out = true, .room = true},
        {.k = 16, .n = 2600, .adapters = 1, .rows = {140}, .rank = {8}, .room = true},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_linear(op_dtypes[k], &cases[i]);
    }
}

static void test_adapters(void **state)
{
    (void)state;
    static const linear_case_t cases[] = {
        {.k = 40,
         .n = 72,
         .adapters = 5,
         .rows = {10, 0, 7, 20, 3},
         .rank = {4, 2, 0, 9, 1},
         .p = 0.2f,
         .pad = 2},
        {.k = 24, .n = 16, .adapters = 2, .rows = {5, 6}, .rank = {0, 0}, .pre = true},
        {.k = 136,
         .n = 16,
         .adapters = 3,
         .rows = {511, 2, 87},
         .rank = {8, 16, 7},
         .p = 0.5f,
         .gelu = true,
         .accumulate = true},
        {.k = 24,
         .n = 130,
         .adapters = 6,
         .rows = {1, 1, 1, 1, 1, 1},
         .rank = {1, 2, 3, 0, 5, 6},
         .p = 0.1f,
         .no_dx = true},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_linear(op_dtypes[k], &cases[i]);
    }
}

/* B as small as a training's first steps make it, u beyond float16's largest number: what back ends make of
 * adapters in 16 bit must keep float32's range. */
static void test_ranges(void **state)
{
    (void)state;
    static const linear_case_t cases[] = {
        {.k = 40, .n = 72, .adapters = 1, .rows = {70}, .rank = {8}, .b_up = 0x1p-20},
        {.k = 40, .n = 72, .adapters = 1, .rows = {70}, .rank = {8}, .a_up = 0x1p17},
    };
    for (int k = 0; k < 3; k++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            check_linear(op_dtypes[k], &cases[i]);
    }
}

/* With A the identity and x all ones, u is the mask itself: right at every element,
 * and as many are kept as p says. */
static void test_dropout(void **state)
{
    (void)state;
    enum { T = 1000, K = 64 };
    static const float p[] = {0.05f, 0.1f, 0.5f, 0.9f};
    uint64_t key[T];
    const int32_t begin[] = {0, T};
    for (int i = 0; i < T; i++)
        key[i] = (uint64_t)i << 32 | 7u << 16 | (uint64_t)(i % 3);
    for (size_t k = 0; k < sizeof p / sizeof p[0]; k++) {
        ref_mat_t ones = op_zeros(T, K), eye = op_zeros(K, K), b = op_zeros(8, K);
        ref_mat_t w = op_zeros(8, K), mask = op_zeros(T, K);
        for (int i = 0; i < T * K; i++)
            ones.v[i] = 1;
        for (int i = 0; i < K; i++)
            eye.v[i * K + i] = 1;
        const lrd_mat_t x = op_put(ones, LRD_F32, 0), u = op_empty(T, K, LRD_F32, 0);
        const lrd_weight_t weight = {lrd_const(op_put(w, LRD_F32, 0))};
        const lrd_lora_t lora = {lrd_const(op_put(eye, LRD_F32, 0)),
                                 lrd_const(op_put(b, LRD_F32, 0)),
                                 1,
                                 {p[k], 4, 0x123456789abcdef0u, op_upload(key, sizeof key)}};
        const lrd_lora_rows_t rows = {1, &lora, begin};
        assert_ok(lrd_linear_forward(op_st, op_scratch,
                                     &(lrd_linear_fwd_t){.x = lrd_const(x),
                                                         .w = &weight,
                                                         .lora = &rows,
                                                         .y = op_empty(T, 8, LRD_F32, 0),
                                                         .u = u}));
        ref_dropout(&lora.drop, key, mask);
        op_check("mask", OP_LORA_F32, LRD_F32, 1, u, mask);
        const ref_mat_t got = op_get(u);
        double n = 0;
        for (int i = 0; i < T * K; i++)
            n += got.v[i] != 0;
        const double q = 1 - (double)p[k], sigma = sqrt((double)(T * K) * q * (1 - q));
        assert_true(fabs(n - q * T * K) < 5 * sigma);
        op_free_all();
    }
}

static void test_gelu(void **state)
{
    (void)state;
    /* f at these, from Hugging Face's bloom_gelu_forward (hf-semantics.md, C.4). */
    static const double at[] = {-3, -1, -0.5, 0, 0.5, 1, 3};
    static const double f[] = {-0.003637433, -0.158807993, -0.154285997, 0,
                               0.345714003,  0.841192007,  2.996362686};
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 8;
        ref_mat_t x = op_random(&seed, 7, 133, 12), y = op_zeros(7, 133);
        for (int i = 0; i < 7; i++) {
            x.v[i] = at[i];
            assert_true(fabs(ref_gelu(at[i]) - f[i]) < 1e-7); /* theirs is float32 */
        }
        const double large[] = {-1e4, 1e4, -60, 60, -11, 1e-6, -1e-6};
        memcpy(x.v + 7, large, sizeof large);
        const lrd_mat_t in = op_put(x, op_dtypes[k], 3), out = op_empty(7, 133, op_dtypes[k], 1);
        for (int i = 0; i < 7 * 133; i++)
            y.v[i] = ref_gelu(x.v[i]);
        assert_ok(lrd_gelu_forward(op_st, op_scratch, &(lrd_gelu_fwd_t){lrd_const(in), out}));
        const ref_mat_t got = op_get(out);
        for (int i = 0; i < 7 * 133; i++) { /* each by itself, small ones too */
            const double u = op_dtypes[k] == LRD_F32    ? 0x1p-24 * (8 + 4 * x.v[i] * x.v[i])
                             : op_dtypes[k] == LRD_BF16 ? 0x1p-8
                                                        : 0x1p-11;
            assert_true(fabs(got.v[i] - y.v[i]) <= 1.01 * u * fabs(y.v[i]) + 0x1p-25);
        }
        op_free_all();
    }
}

/* bfloat16 products both ways, by a tuning file, whichever this machine prefers. */
static void test_routes(void **state)
{
    (void)state;
    static const linear_case_t x = {.k = 42,
                                    .n = 142,
                                    .adapters = 2,
                                    .rows = {530, 7},
                                    .rank = {3, 0},
                                    .p = 0.1f,
                                    .pre = true,
                                    .pad = 2};
    static const char *const routes[] = {"native", "widened"};
    if (op_is_device())
        return; /* it has no routes */
    const char *path = lrd_test_temporary("tuning.json");
    const micro_isa_t *isa;
    char machine[160], text[1024];
    assert_ok(micro_choose(&isa));
    tuning_machine(isa, machine);
    for (int i = 0; i < 2; i++) {
        const int n =
            snprintf(text, sizeof text,
                     "{\"machine\": \"%s\", \"products\": [{\"product\": \"142 x 42 transposed\", "
                     "\"route\": \"%s\"}, {\"product\": \"42 x 142\", \"route\": \"%s\"}]}",
                     machine, routes[i], routes[i]);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, (size_t)n, f), n);
        assert_int_equal(fclose(f), 0);
        op_close();
        op_open(&(lrd_product_options_t){.tuning_file = path});
        check_linear(LRD_BF16, &x);
    }
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear), cmocka_unit_test(test_long),
        cmocka_unit_test(test_room),   cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_ranges), cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_gelu),   cmocka_unit_test(test_routes)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
