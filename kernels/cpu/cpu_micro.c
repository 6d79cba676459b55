#include "kernels/cpu/cpu_micro.h"

#include "kernels/cpu/cpu_simd.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* A kernel computes `rows` rows (a constant where it is called, so that the accumulators are
 * registers) of one panel; a driver cuts the call into such pieces. step_is_1 and row_is_1 are
 * constants too. */
typedef struct piece {
    int64_t k, a_row, a_step, b_step, ldc;
    const void *a;
    const uint32_t *b;
    float *c;
    bool accumulate;
} piece_t;

/* All panels of a group of rows before the next group: the rows stay in the first-level cache, the
 * panels in the second. */
#define DRIVER(name, attribute, most, kernel)                                                 \
    attribute static void name(const micro_t *m)                                              \
    {                                                                                         \
        for (int64_t i = 0; i < m->n_rows; i += (most)) {                                     \
            const int64_t rows = m->n_rows - i < (most) ? m->n_rows - i : (most);             \
            for (int64_t p = 0; p < m->n_panels; p++) {                                       \
                const piece_t piece = {.k = m->k,                                             \
                                       .a_row = m->a_row,                                     \
                                       .a_step = m->a_step,                                   \
                                       .b_step = m->panel_step,                               \
                                       .ldc = m->ldc,                                         \
                                       .a = (const uint32_t *)m->a + i * m->a_row,            \
                                       .b = (const uint32_t *)m->panel + p * m->panel_stride, \
                                       .c = m->c + i * m->ldc + p * MICRO_PANEL,              \
                                       .accumulate = m->accumulate};                          \
                if (m->a_step == 1)                                                           \
                    kernel##_along(&piece, (int)rows);                                        \
                else                                                                          \
                    kernel##_across(&piece, (int)rows);                                       \
            }                                                                                 \
        }                                                                                     \
    }

/* Picks the kernel of this many rows. */
#define CASE(n, kernel, ...)           \
    case n:                            \
        kernel(piece, n, __VA_ARGS__); \
        break;
#define CASES_4(kernel, ...)     \
    CASE(1, kernel, __VA_ARGS__) \
    CASE(2, kernel, __VA_ARGS__) CASE(3, kernel, __VA_ARGS__) CASE(4, kernel, __VA_ARGS__)
#define CASES_6(kernel, ...) \
    CASES_4(kernel, __VA_ARGS__) CASE(5, kernel, __VA_ARGS__) CASE(6, kernel, __VA_ARGS__)
#define CASES_12(kernel, ...)    \
    CASES_6(kernel, __VA_ARGS__) \
    CASE(7, kernel, __VA_ARGS__) \
    CASE(8, kernel, __VA_ARGS__) \
    CASE(9, kernel, __VA_ARGS__) \
    CASE(10, kernel, __VA_ARGS__) CASE(11, kernel, __VA_ARGS__) CASE(12, kernel, __VA_ARGS__)

#define SWITCH(name, attribute, cases, kernel)                          \
    attribute static void name##_along(const piece_t *piece, int rows)  \
    {                                                                   \
        switch (rows) {                                                 \
            cases(kernel, true)                                         \
        }                                                               \
    }                                                                   \
    attribute static void name##_across(const piece_t *piece, int rows) \
    {                                                                   \
        switch (rows) {                                                 \
            cases(kernel, false)                                        \
        }                                                               \
    }

/* Any machine: what the compiler makes of plain loops. */
enum { PLAIN_ROWS = 4, PLAIN_COLS = 16 };

LRD_INLINE void plain_kernel(const piece_t *x, int rows, bool along)
{
    const float *a = x->a;
    const int64_t a_row = along ? x->a_row : 1, a_step = along ? 1 : x->a_step;
    for (int64_t half = 0; half < MICRO_PANEL; half += PLAIN_COLS) {
        float acc[PLAIN_ROWS][PLAIN_COLS];
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < PLAIN_COLS; j++)
                acc[i][j] = x->accumulate ? x->c[i * x->ldc + half + j] : 0.0f;
        for (int64_t k = 0; k < x->k; k++) {
            const uint32_t *b = x->b + k * x->b_step + half;
            for (int i = 0; i < rows; i++) {
                const float w = a[i * a_row + k * a_step];
                LRD_SIMD
                for (int j = 0; j < PLAIN_COLS; j++)
                    acc[i][j] += w * bits_to_f32(b[j]);
            }
        }
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < PLAIN_COLS; j++)
                x->c[i * x->ldc + half + j] = acc[i][j];
    }
}

SWITCH(plain, , CASES_4, plain_kernel)
DRIVER(plain_f32, , PLAIN_ROWS, plain)

static const micro_isa_t plain_isa = {"plain C", plain_f32, NULL, false, NULL};

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX2   __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
#define BF16   __attribute__((target("avx512f,avx512bf16")))
#define UNROLL LRD_PRAGMA(GCC unroll 16)

enum { AVX2_ROWS = 6, AVX512_ROWS = 12 };

/* Six rows of sixteen columns fill the sixteen registers: a panel in two halves. */
AVX2 LRD_INLINE void avx2_kernel(const piece_t *x, int rows, bool along)
{
    const int64_t a_row = along ? x->a_row : 1, a_step = along ? 1 : x->a_step;
    for (int64_t half = 0; half < MICRO_PANEL; half += 16) {
        const float *a = x->a, *b = (const float *)x->b + half;
        float *c = x->c + half;
        __m256 acc[AVX2_ROWS][2];
        UNROLL
        for (int i = 0; i < rows; i++) {
            acc[i][0] = x->accumulate ? _mm256_loadu_ps(c + i * x->ldc) : _mm256_setzero_ps();
            acc[i][1] = x->accumulate ? _mm256_loadu_ps(c + i * x->ldc + 8) : _mm256_setzero_ps();
        }
        for (int64_t k = 0; k < x->k; k++, a += a_step, b += x->b_step) {
            const __m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);
            UNROLL
            for (int i = 0; i < rows; i++) {
                const __m256 w = _mm256_broadcast_ss(a + i * a_row);
                acc[i][0] = _mm256_fmadd_ps(w, b0, acc[i][0]);
                acc[i][1] = _mm256_fmadd_ps(w, b1, acc[i][1]);
            }
        }
        UNROLL
        for (int i = 0; i < rows; i++) {
            _mm256_storeu_ps(c + i * x->ldc, acc[i][0]);
            _mm256_storeu_ps(c + i * x->ldc + 8, acc[i][1]);
        }
    }
}

SWITCH(avx2, AVX2, CASES_6, avx2_kernel)
DRIVER(avx2_f32, AVX2, AVX2_ROWS, avx2)

/* Twelve rows of a panel: 24 accumulators of 32 registers. */
#define AVX512_KERNEL(name, attribute, panel_t, load, broadcast, multiply_add)                 \
    attribute LRD_INLINE void name(const piece_t *x, int rows, bool along)                     \
    {                                                                                          \
        const int64_t a_row = along ? x->a_row : 1, a_step = along ? 1 : x->a_step;            \
        const int32_t *a = x->a;                                                               \
        const uint32_t *b = x->b;                                                              \
        float *c = x->c;                                                                       \
        __m512 acc[AVX512_ROWS][2];                                                            \
        UNROLL                                                                                 \
        for (int i = 0; i < rows; i++) {                                                       \
            acc[i][0] = x->accumulate ? _mm512_loadu_ps(c + i * x->ldc) : _mm512_setzero_ps(); \
            acc[i][1] =                                                                        \
                x->accumulate ? _mm512_loadu_ps(c + i * x->ldc + 16) : _mm512_setzero_ps();    \
        }                                                                                      \
        for (int64_t k = 0; k < x->k; k++, a += a_step, b += x->b_step) {                      \
            const panel_t b0 = load(b), b1 = load(b + 16);                                     \
            UNROLL                                                                             \
            for (int i = 0; i < rows; i++) {                                                   \
                const panel_t w = broadcast(a + i * a_row);                                    \
                acc[i][0] = multiply_add(acc[i][0], w, b0);                                    \
                acc[i][1] = multiply_add(acc[i][1], w, b1);                                    \
            }                                                                                  \
        }                                                                                      \
        UNROLL                                                                                 \
        for (int i = 0; i < rows; i++) {                                                       \
            _mm512_storeu_ps(c + i * x->ldc, acc[i][0]);                                       \
            _mm512_storeu_ps(c + i * x->ldc + 16, acc[i][1]);                                  \
        }                                                                                      \
    }

#define LOAD_F32(p)        _mm512_loadu_ps(p)
#define BROADCAST_F32(p)   _mm512_castsi512_ps(_mm512_set1_epi32(*(p)))
#define FMA_F32(c, a, b)   _mm512_fmadd_ps(a, b, c)
#define LOAD_PAIRS(p)      (__m512bh) _mm512_loadu_si512(p)
#define BROADCAST_PAIRS(p) (__m512bh) _mm512_set1_epi32(*(p))
#define DOT_PAIRS(c, a, b) _mm512_dpbf16_ps(c, a, b)

AVX512_KERNEL(avx512_kernel, AVX512, __m512, LOAD_F32, BROADCAST_F32, FMA_F32)
SWITCH(avx512, AVX512, CASES_12, avx512_kernel)
DRIVER(avx512_f32, AVX512, AVX512_ROWS, avx512)

AVX512_KERNEL(bf16_kernel, BF16, __m512bh, LOAD_PAIRS, BROADCAST_PAIRS, DOT_PAIRS)
SWITCH(bf16, BF16, CASES_12, bf16_kernel)
DRIVER(avx512_pairs, BF16, AVX512_ROWS, bf16)

static const micro_isa_t avx2_isa = {"AVX2", avx2_f32, NULL, false, NULL};
static const micro_isa_t avx512_isa = {"AVX-512", avx512_f32, NULL, false, micro_direct_avx512};
/* AMD's units take as many pairs a cycle as numbers; Intel's take fewer: measured,
 * docs/decisions.md. */
static const micro_isa_t avx512_bf16_isa = {"AVX-512 BF16", avx512_f32, avx512_pairs, false,
                                            micro_direct_bf16};
static const micro_isa_t avx512_bf16_amd_isa = {"AVX-512 BF16", avx512_f32, avx512_pairs, true,
                                                micro_direct_bf16};

const micro_isa_t *const *micro_isas(int *n_out)
{
    static const micro_isa_t *found[4];
    int n = 0;
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
        if (__builtin_cpu_supports("avx512bf16"))
            found[n++] = __builtin_cpu_is("amd") ? &avx512_bf16_amd_isa : &avx512_bf16_isa;
        found[n++] = &avx512_isa;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        found[n++] = &avx2_isa;
    found[n++] = &plain_isa;
    *n_out = n;
    return found;
}

#else

const micro_isa_t *const *micro_isas(int *n_out)
{
    static const micro_isa_t *const found[] = {&plain_isa};
    *n_out = 1;
    return found;
}

#endif

lrd_status_t micro_choose(const micro_isa_t **isa_out)
{
    lrd_status_t status = LRD_OK;
    const char *wanted = getenv("LRD_CPU_ISA");
    int n, i = 0;
    const micro_isa_t *const *isas = micro_isas(&n);
    while (wanted != NULL && i < n && strcmp(isas[i]->name, wanted) != 0)
        i++;
    LRD_CHECK(i < n, LRD_ERR_UNAVAILABLE,
              "LRD_CPU_ISA is \"%s\": this processor's fastest is \"%s\", the one that runs "
              "everywhere \"%s\"",
              wanted, isas[0]->name, isas[n - 1]->name);
    *isa_out = isas[i];
out:
    return status;
}
