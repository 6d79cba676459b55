/* An adapter folded into a weight: against double precision element by element, to the bit against
 * the roundings that ops.h promises, and the same bits in row blocks of any size. */
#include "op_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float scale = 0.37f;

typedef struct merge {
    lrd_mat_t w, a, b, out;
    ref_mat_t rw, ra, rb; /* what was stored */
} merge_t;

static merge_t make(uint64_t *seed, lrd_dtype_t d, int64_t n, int64_t k, int64_t r, bool in_place)
{
    merge_t m = {.rw = op_random(seed, n, k, 2),
                 .ra = op_random(seed, r, k, 0.5),
                 .rb = op_random(seed, n, r, 0.5)};
    m.w = op_put(m.rw, d, 3);
    m.a = op_put(m.ra, LRD_F32, 5);
    m.b = op_put(m.rb, LRD_F32, 1);
    m.out = in_place ? m.w : op_empty(n, k, d, 7);
    return m;
}

/* Rows from .. from + n - 1 of a matrix. */
static lrd_mat_t rows(lrd_mat_t m, int64_t from, int64_t n)
{
    m.data = (uint8_t *)m.data + (size_t)(from * m.ld) * lrd_dtype_bytes(m.dtype);
    m.rows = n;
    return m;
}

static void run(const merge_t *m, int64_t block)
{
    for (int64_t i = 0; i < m->w.rows; i += block) {
        const int64_t n = m->w.rows - i < block ? m->w.rows - i : block;
        assert_ok(lrd_merge_weight(op_st, (lrd_scratch_t){0},
                                   &(lrd_merge_weight_t){.w = lrd_const(rows(m->w, i, n)),
                                                         .a = lrd_const(m->a),
                                                         .b = lrd_const(rows(m->b, i, n)),
                                                         .scale = scale,
                                                         .out = rows(m->out, i, n)}));
    }
    assert_ok(lrd_stream_sync(op_st));
}

static double stored(lrd_dtype_t d, float x)
{
    return (double)(d == LRD_F32    ? x
                    : d == LRD_BF16 ? lrd_bf16_to_f32(lrd_f32_to_bf16(x))
                                    : lrd_f16_to_f32(lrd_f32_to_f16(x)));
}

/* With u = 2^-24 and S the sum of |b a|: the sum of R products is off by at most R + 1 roundings of
 * S, the product with scale and the sum with w are one each, of the result at most |w| + |scale| S.
 * Then comes the output's own rounding: half a unit in the last place, below 2^-14 half of float16's
 * smallest number. */
static double bound(lrd_dtype_t d, double want, double w, double size, double r)
{
    const double u = 0x1p-24, s = fabs((double)scale) * size;
    const double in_f32 = ((r + 2) * s + fabs(w) + s) * u * 1.001;
    const double rounding = d == LRD_F32    ? 0
                            : d == LRD_BF16 ? 0x1p-8 * (fabs(want) + in_f32)
                                            : 0x1p-11 * (fabs(want) + in_f32) + 0x1p-25;
    return in_f32 + rounding;
}

/* One element: in double with the sum of sizes, and in float32 with fused steps and without. */
typedef struct element {
    double want, size;
    float fused, plain;
} element_t;

static element_t element(const merge_t *m, int64_t i, int64_t j)
{
    const int64_t r = m->ra.rows, k = m->ra.cols;
    element_t e = {0};
    float fused = 0;
    volatile float plain = 0, product;
    for (int64_t l = 0; l < r; l++) {
        const double x = m->rb.v[i * r + l], y = m->ra.v[l * k + j];
        e.want += x * y;
        e.size += fabs(x * y);
        fused = fmaf((float)x, (float)y, fused);
        product = (float)x * (float)y;
        plain = plain + product;
    }
    const double w = m->rw.v[i * k + j];
    volatile float delta = fused * scale;
    e.want = w + (double)scale * e.want;
    e.fused = (float)w + delta;
    delta = plain * scale;
    e.plain = (float)w + delta;
    return e;
}

static void check(const merge_t *m)
{
    const ref_mat_t got = op_get(m->out);
    const lrd_dtype_t d = m->out.dtype;
    int64_t n_fused = 0, n_plain = 0;
    for (int64_t at = 0; at < got.rows * got.cols; at++) {
        const element_t e = element(m, at / got.cols, at % got.cols);
        const double most = bound(d, e.want, m->rw.v[at], e.size, (double)m->ra.rows);
        if (!(fabs(got.v[at] - e.want) <= most))
            fail_msg("%s, N %ld, K %ld, R %ld: element %ld is %.9g, expected %.9g within %.2g",
                     lrd_dtype_file_name(d), (long)got.rows, (long)got.cols, (long)m->ra.rows,
                     (long)at, got.v[at], e.want, most);
        n_fused += got.v[at] == stored(d, e.fused);
        n_plain += got.v[at] == stored(d, e.plain);
    }
    if (n_fused != got.rows * got.cols && n_plain != got.rows * got.cols)
        fail_msg("%s, N %ld, K %ld, R %ld: not the promised roundings (%ld and %ld of %ld equal)",
                 lrd_dtype_file_name(d), (long)got.rows, (long)got.cols, (long)m->ra.rows,
                 (long)n_fused, (long)n_plain, (long)(got.rows * got.cols));
}

static void test_shapes(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},    {1, 32, 8},   {12, 31, 8},   {13, 33, 16},
                                        {25, 255, 4}, {11, 256, 1}, {24, 257, 63}, {3, 288, 64},
                                        {30, 40, 65}, {5, 600, 130}};
    uint64_t seed = 23;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        for (int k = 0; k < 6; k++) {
            const merge_t m =
                make(&seed, op_dtypes[k % 3], shapes[i][0], shapes[i][1], shapes[i][2], k >= 3);
            run(&m, shapes[i][0]);
            check(&m);
            op_free_all();
        }
    }
}

static void test_row_blocks(void **state)
{
    (void)state;
    static const int64_t blocks[] = {1, 2, 5, 12, 13, 40};
    for (int k = 0; k < 3; k++) {
        uint64_t seed = 29;
        const merge_t whole = make(&seed, op_dtypes[k], 67, 300, 8, false);
        run(&whole, 67);
        const ref_mat_t want = op_get(whole.out);
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
            merge_t some = whole;
            some.out = op_empty(67, 300, op_dtypes[k], 0);
            run(&some, blocks[i]);
            const ref_mat_t got = op_get(some.out);
            assert_memory_equal(got.v, want.v, 67 * 300 * sizeof *got.v);
        }
        op_free_all();
    }
}

/* No rows; float16 has no number above 65504; what is not a number stays none. */
static void test_edges(void **state)
{
    (void)state;
    ref_mat_t w = op_zeros(1, 3), a = op_zeros(1, 3), b = op_zeros(1, 1);
    w.v[0] = 65504;
    w.v[1] = NAN;
    w.v[2] = -65504;
    a.v[0] = 1000;
    a.v[1] = 1;
    a.v[2] = -1000;
    b.v[0] = 1;
    merge_t m = {
        .w = op_put(w, LRD_F16, 0), .a = op_put(a, LRD_F32, 0), .b = op_put(b, LRD_F32, 0)};
    m.out = m.w;
    run(&m, 1);
    const ref_mat_t got = op_get(m.out);
    assert_true(got.v[0] == INFINITY && isnan(got.v[1]) && got.v[2] == -INFINITY);
    assert_ok(lrd_merge_weight(op_st, (lrd_scratch_t){0},
                               &(lrd_merge_weight_t){.w = lrd_const(rows(m.w, 0, 0)),
                                                     .a = lrd_const(m.a),
                                                     .b = lrd_const(rows(m.b, 0, 0)),
                                                     .scale = 1,
                                                     .out = rows(m.w, 0, 0)}));
    assert_ok(lrd_stream_sync(op_st));
    op_free_all();
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes),
                                       cmocka_unit_test(test_row_blocks),
                                       cmocka_unit_test(test_edges)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
