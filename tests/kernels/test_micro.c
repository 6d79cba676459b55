/* The innermost products on every instruction set of this machine: against double precision, and to
 * the bit among any number of rows and panels, cut anywhere in k, along rows or across. */
#include "base/dtype.h"
#include "kernels/cpu/cpu_micro.h"
#include "kernels/cpu/cpu_pack.h"
#include "support/test_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { M = 31, N = 77, K = 330, PANELS = 3, COLS = PANELS * MICRO_PANEL };

static float a[M][K], across[K][M], w[N][K], c[M][COLS], d[M][COLS];
static uint16_t a16[M][K], w16[N][K];
static uint32_t panel[PANELS][K][MICRO_PANEL], pairs[PANELS][K / 2][MICRO_PANEL];

static int setup(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int i = 0; i < M; i++) {
        for (int k = 0; k < K; k++) {
            across[k][i] = a[i][k] = (float)lrd_test_random(&seed);
            a16[i][k] = lrd_f32_to_bf16(a[i][k]);
        }
    }
    for (int j = 0; j < N; j++) {
        for (int k = 0; k < K; k++) {
            w[j][k] = (float)lrd_test_random(&seed);
            w16[j][k] = lrd_f32_to_bf16(w[j][k]);
        }
    }
    const pack_t plain = {
        .dtype = LRD_F32, .transposed = true, .src = w, .row_stride = K, .n = N, .k = K};
    pack_panels(&plain, &panel[0][0][0], (int64_t)K * MICRO_PANEL);
    pack_t two = plain;
    two.dtype = LRD_BF16;
    two.src = w16;
    two.pairs = true;
    pack_panels(&two, &pairs[0][0][0], (int64_t)K / 2 * MICRO_PANEL);
    return 0;
}

static micro_t all_f32(void)
{
    return (micro_t){.n_rows = M,
                     .n_panels = PANELS,
                     .k = K,
                     .a = a,
                     .a_row = K,
                     .a_step = 1,
                     .panel = panel,
                     .panel_stride = (int64_t)K * MICRO_PANEL,
                     .panel_step = MICRO_PANEL,
                     .c = &c[0][0],
                     .ldc = COLS};
}

static micro_t all_pairs(void)
{
    micro_t m = all_f32();
    m.k = K / 2;
    m.a = a16;
    m.a_row = K / 2;
    m.panel = pairs;
    m.panel_stride = (int64_t)K / 2 * MICRO_PANEL;
    return m;
}

/* A sum of K products is off by at most K * 2^-24 of the sum of their sizes (Higham, Accuracy and
 * Stability, 3.5); pairs round twice as often. */
static void check_values(const char *name, bool bf16)
{
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < COLS; j++) {
            double want = 0, size = 0;
            for (int k = 0; k < K && j < N; k++) {
                const double x = bf16 ? (double)lrd_bf16_to_f32(a16[i][k]) : (double)a[i][k];
                const double y = bf16 ? (double)lrd_bf16_to_f32(w16[j][k]) : (double)w[j][k];
                want += x * y;
                size += fabs(x * y);
            }
            if (!(fabs((double)c[i][j] - want) <= (bf16 ? 2 : 1) * K * 0x1p-24 * size))
                fail_msg("%s: row %d, column %d: %g, expected %g", name, i, j, (double)c[i][j],
                         want);
        }
    }
}

/* The same numbers from calls of few rows, single panels, and k in pieces. */
static void check_pieces(const char *name, void (*run)(const micro_t *), micro_t all)
{
    static const int64_t cuts[] = {0, 1, 64, 65, 165};
    const size_t element = 4;
    for (int64_t rows = 1; rows <= M; rows++) {
        memset(d, 0xff, sizeof d);
        for (int64_t i = 0; i < M; i += rows) {
            for (int64_t p = 0; p < PANELS; p++) {
                for (size_t cut = 0; cut < 5; cut++) {
                    const int64_t first = cuts[cut] < all.k ? cuts[cut] : all.k;
                    const int64_t last = cut < 4 && cuts[cut + 1] < all.k ? cuts[cut + 1] : all.k;
                    micro_t m = all;
                    if (first == last)
                        continue;
                    m.n_rows = M - i < rows ? M - i : rows;
                    m.n_panels = 1;
                    m.k = last - first;
                    m.a = (const char *)all.a + (size_t)(i * m.a_row + first * m.a_step) * element;
                    m.panel = (const char *)all.panel +
                              (size_t)(p * m.panel_stride + first * m.panel_step) * element;
                    m.c = &d[i][p * MICRO_PANEL];
                    m.accumulate = first > 0;
                    run(&m);
                }
            }
        }
        if (memcmp(c, d, sizeof c) != 0)
            fail_msg("%s: %ld rows at a time give other bits", name, (long)rows);
    }
}

static void test_f32(void **state)
{
    (void)state;
    static float fused[M][COLS];
    bool have_fused = false;
    int n;
    const micro_isa_t *const *isa = micro_isas(&n);
    for (int i = 0; i < n; i++) {
        printf("%s%s\n", isa[i]->name, isa[i]->pairs != NULL ? ", with pairs of bfloat16" : "");
        micro_t m = all_f32();
        isa[i]->f32(&m);
        check_values(isa[i]->name, false);
        check_pieces(isa[i]->name, isa[i]->f32, m);
        m.a = across;
        m.a_row = 1;
        m.a_step = M;
        memcpy(d, c, sizeof d);
        isa[i]->f32(&m);
        assert_memory_equal(c, d, sizeof c);
        check_pieces(isa[i]->name, isa[i]->f32, m);
        /* The last one is plain C, which need not fuse multiply and add. */
        if (have_fused && i < n - 1)
            assert_memory_equal(c, fused, sizeof c);
        memcpy(fused, c, sizeof c);
        have_fused = true;
    }
}

static void test_pairs(void **state)
{
    (void)state;
    int n, found = 0;
    const micro_isa_t *const *isa = micro_isas(&n);
    for (int i = 0; i < n; i++) {
        if (isa[i]->pairs == NULL)
            continue;
        const micro_t m = all_pairs();
        isa[i]->pairs(&m);
        check_values(isa[i]->name, true);
        check_pieces(isa[i]->name, isa[i]->pairs, m);
        found++;
    }
    if (found == 0) {
        printf("SKIPPED: this processor multiplies no bfloat16\n");
        skip();
    }
}

/* Weights as they lie give the chains of weights in panels, to the bit. */
static void check_direct(const micro_isa_t *isa, lrd_dtype_t dtype, bool two, const void *from)
{
    const int64_t unit = two ? 2 : 1, k = K / (DIRECT_K * unit) * DIRECT_K;
    const size_t element = lrd_dtype_bytes(dtype);
    static uint32_t some[PANELS][K][MICRO_PANEL];
    pack_panels(&(pack_t){.dtype = dtype,
                          .pairs = two,
                          .transposed = true,
                          .src = from,
                          .row_stride = K,
                          .n = N,
                          .k = k * unit},
                &some[0][0][0], (int64_t)K * MICRO_PANEL);
    micro_t m = two ? all_pairs() : all_f32();
    m.k = k;
    m.panel = some;
    m.panel_stride = (int64_t)K * MICRO_PANEL;
    (two ? isa->pairs : isa->f32)(&m);
    for (int64_t rows = 1; rows <= M; rows++) {
        memset(d, 0, sizeof d);
        for (int64_t j = 0; j + DIRECT_COLS <= N; j += DIRECT_COLS)
            isa->direct(&(micro_direct_t){.n_rows = rows,
                                          .k = k,
                                          .a = m.a,
                                          .a_row = m.a_row,
                                          .dtype = dtype,
                                          .pairs = two,
                                          .w = (const uint8_t *)from + (size_t)(j * K) * element,
                                          .w_row_bytes = (int64_t)(K * element),
                                          .c = &d[0][j],
                                          .ldc = COLS});
        for (int64_t i = 0; i < rows; i++)
            assert_memory_equal(d[i], c[i], (size_t)(N / DIRECT_COLS * DIRECT_COLS) * 4);
    }
}

static void test_direct(void **state)
{
    (void)state;
    static uint16_t h[N][K];
    int n, found = 0;
    const micro_isa_t *const *isa = micro_isas(&n);
    for (int j = 0; j < N; j++)
        for (int k = 0; k < K; k++)
            h[j][k] = lrd_f32_to_f16(w[j][k]);
    for (int i = 0; i < n; i++) {
        if (isa[i]->direct == NULL)
            continue;
        check_direct(isa[i], LRD_F32, false, w);
        check_direct(isa[i], LRD_BF16, false, w16);
        check_direct(isa[i], LRD_F16, false, h);
        if (isa[i]->pairs != NULL)
            check_direct(isa[i], LRD_BF16, true, w16);
        found++;
    }
    if (found == 0) {
        printf("SKIPPED: this processor multiplies few rows through panels\n");
        skip();
    }
}

/* Packing against its definition, straight and transposed, every dtype, ragged in both directions. */
static void test_pack(void **state)
{
    (void)state;
    static uint32_t out[PANELS][K][MICRO_PANEL];
    static uint16_t h[N][K];
    for (int j = 0; j < N; j++)
        for (int k = 0; k < K; k++)
            h[j][k] = lrd_f32_to_f16(w[j][k]);
    static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16, LRD_F16};
    const void *const src[] = {w, w16, h};
    for (int kind = 0; kind < 3; kind++) {
        for (int transposed = 0; transposed < 2; transposed++) {
            /* Straight: the same memory seen as K' = N rows of N' = 70 columns. */
            const int64_t n = transposed ? N : 70, k = transposed ? K : N;
            memset(out, 0xff, sizeof out);
            pack_panels(&(pack_t){.dtype = dtypes[kind],
                                  .transposed = transposed,
                                  .src = src[kind],
                                  .row_stride = K,
                                  .n = n,
                                  .k = k},
                        &out[0][0][0], (int64_t)K * MICRO_PANEL);
            for (int64_t j = 0; j < pack_panels_of(n) * MICRO_PANEL; j++) {
                for (int64_t i = 0; i < k; i++) {
                    const int64_t at = transposed ? j * K + i : i * K + j;
                    float want = 0, have;
                    if (j < n)
                        want = kind == 0   ? (&w[0][0])[at]
                               : kind == 1 ? lrd_bf16_to_f32((&w16[0][0])[at])
                                           : lrd_f16_to_f32((&h[0][0])[at]);
                    memcpy(&have, &out[j / MICRO_PANEL][i][j % MICRO_PANEL], sizeof have);
                    assert_true(have == want);
                }
            }
        }
    }
    /* Pairs of straight rows; setup packs transposed ones. */
    const int64_t k = N / 2 * 2;
    pack_panels(
        &(pack_t){.dtype = LRD_BF16, .pairs = true, .src = w16, .row_stride = K, .n = 70, .k = k},
        &out[0][0][0], (int64_t)K * MICRO_PANEL);
    for (int64_t j = 0; j < 70; j++)
        for (int64_t i = 0; i < k; i += 2)
            assert_int_equal(out[j / MICRO_PANEL][i / 2][j % MICRO_PANEL],
                             (uint32_t)w16[i][j] | (uint32_t)w16[i + 1][j] << 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_f32), cmocka_unit_test(test_pairs),
                                       cmocka_unit_test(test_direct), cmocka_unit_test(test_pack)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
