#include "kernels/cpu/cpu_lora.h"

#include "base/philox.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_simd.h"

#include <omp.h>
#include <string.h>

enum { LANES = 16, BLOCK_R = 8, BLOCK_COLS = PRODUCT_COLS, BLOCK_TOKENS = 64, BLOCK_ROWS = 16 };

typedef float v16f __attribute__((vector_size(64)));

LRD_INLINE v16f load16(const float *p)
{
    v16f v;
    memcpy(&v, p, sizeof v);
    return v;
}

LRD_INLINE void store16(float *p, v16f v)
{
    memcpy(p, &v, sizeof v);
}

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

size_t lora_factor_bytes(int64_t r, int64_t columns)
{
    return cpu_round((size_t)(round_up(r, BLOCK_R) * round_up(columns, LANES)) * sizeof(float));
}

lora_factor_t lora_factor_make(lrd_cmat_t m, bool transposed, float *value)
{
    const int64_t r = transposed ? m.cols : m.rows, columns = transposed ? m.rows : m.cols;
    const int64_t ld = round_up(columns, LANES);
    const float *from = m.data;
    memset(value, 0, lora_factor_bytes(r, columns));
    for (int64_t i = 0; i < r; i++) {
        if (!transposed)
            memcpy(value + i * ld, from + i * m.ld, (size_t)columns * sizeof(float));
        for (int64_t j = 0; transposed && j < columns; j++)
            value[i * ld + j] = from[j * m.ld + i];
    }
    return (lora_factor_t){value, r, ld};
}

size_t lora_thread_bytes(int64_t r, int64_t k)
{
    const int64_t r8 = round_up(r, BLOCK_R);
    const int64_t project = round_up(k, LANES);
    const int64_t expand = r8 * BLOCK_COLS + BLOCK_COLS;
    const int64_t outer = BLOCK_TOKENS * BLOCK_COLS + r8 * BLOCK_COLS + BLOCK_TOKENS * r8;
    const int64_t most =
        project > expand ? (project > outer ? project : outer) : (expand > outer ? expand : outer);
    return cpu_round((size_t)most * sizeof(float));
}

/* mask[j] = 1 / (1 - p) where element (row, col + j) is kept, else 0. col is a multiple of 4;
 * writes up to the next multiple of 64 beyond n. */
LRD_INLINE void mask_block(const lrd_dropout_t *drop, uint64_t key, int64_t col, float keep_scale,
                           float mask[64])
{
    const uint32_t threshold = lrd_dropout_threshold(drop->p);
    LRD_SIMD
    for (int i = 0; i < 16; i++) {
        const lrd_philox_t x = lrd_philox4x32(drop->seed, (uint32_t)key, (uint32_t)(key >> 32),
                                              drop->site, (uint32_t)(col / 4 + i));
        for (int lane = 0; lane < 4; lane++)
            mask[4 * i + lane] = x.x[lane] >= threshold ? keep_scale : 0.0f;
    }
}

LRD_CLONES static void apply_mask(const lrd_dropout_t *drop, uint64_t key, int64_t col, float *x,
                                  int64_t n)
{
    const float keep_scale = 1.0f / (1.0f - drop->p);
    for (int64_t j = 0; j < n; j += 64) {
        float mask[64];
        mask_block(drop, key, col + j, keep_scale, mask);
        const int64_t end = smaller(n - j, 64);
        LRD_SIMD
        for (int64_t i = 0; i < end; i++)
            x[j + i] *= mask[i];
    }
}

static bool drops(const lrd_dropout_t *drop)
{
    return drop != NULL && drop->p > 0;
}

/* out[i] = sum over j of x[j] m[i][j], i < 8. */
LRD_CLONES static void dots8(const float *x, const float *m, int64_t ld, int64_t n,
                             float out[BLOCK_R])
{
    v16f acc[BLOCK_R] = {{0}};
    for (int64_t j = 0; j < n; j += LANES) {
        const v16f v = load16(x + j);
        for (int i = 0; i < BLOCK_R; i++)
            acc[i] += v * load16(m + i * ld + j);
    }
    for (int i = 0; i < BLOCK_R; i++) {
        float sum = 0;
        for (int lane = 0; lane < LANES; lane++)
            sum += acc[i][lane];
        out[i] = sum;
    }
}

static void project_row(lrd_cmat_t x, int64_t t, lora_factor_t f, float scale,
                        const lrd_dropout_t *drop, float *u, float *row)
{
    convert_to_f32(x.dtype, mat_at(x, t, 0), row, x.cols);
    if (drops(drop))
        apply_mask(drop, drop->row_key[t], 0, row, x.cols);
    for (int64_t j = x.cols; j < f.ld; j++)
        row[j] = 0;
    for (int64_t i = 0; i < f.r; i += BLOCK_R) {
        float out[BLOCK_R];
        dots8(row, f.value + i * f.ld, f.ld, f.ld, out);
        for (int64_t j = i; j < smaller(f.r, i + BLOCK_R); j++)
            u[j] = scale * out[j - i];
    }
}

void lora_project(cpu_backend_t *be, lrd_cmat_t x, int64_t begin, int64_t end, lora_factor_t f,
                  float scale, const lrd_dropout_t *drop, float *u, int64_t ldu,
                  const cpu_scratch_t *threads, size_t offset)
{
#pragma omp parallel for schedule(dynamic, BLOCK_ROWS) num_threads(be->n_threads)
    for (int64_t t = begin; t < end; t++) {
        float *row =
            (float *)((uint8_t *)cpu_scratch_of_thread(threads, omp_get_thread_num()) + offset);
        project_row(x, t, f, scale, drop, u + t * ldu, row);
    }
}

/* tile row[j] += mask[j] * sum over i of w[i] m[i][j], for 64 columns. */
LRD_CLONES static void expand_row(float *row, const float *w, const float *m, int64_t r,
                                  const float *mask)
{
    v16f acc[4] = {{0}};
    for (int64_t i = 0; i < r; i++) {
        const v16f wi = w[i] - (v16f){0};
        for (int c = 0; c < 4; c++)
            acc[c] += wi * load16(m + i * BLOCK_COLS + c * LANES);
    }
    for (int c = 0; c < 4; c++) {
        const v16f kept = mask != NULL ? acc[c] * load16(mask + c * LANES) : acc[c];
        store16(row + c * LANES, load16(row + c * LANES) + kept);
    }
}

LRD_CLONES static void mask_row(const lrd_dropout_t *drop, uint64_t key, int64_t col,
                                float mask[BLOCK_COLS])
{
    const float keep_scale = 1.0f / (1.0f - drop->p);
    for (int64_t j = 0; j < BLOCK_COLS; j += 64)
        mask_block(drop, key, col + j, keep_scale, mask + j);
}

void lora_expand(const product_tile_t *tile, int64_t begin, int64_t end, lrd_cmat_t m,
                 bool transposed, float scale, const float *u, int64_t ldu,
                 const lrd_dropout_t *drop, void *thread_scratch)
{
    const int64_t first = tile->row > begin ? tile->row : begin;
    const int64_t last = smaller(tile->row + tile->n_rows, end);
    const int64_t r = transposed ? m.cols : m.rows;
    float *slice = thread_scratch, *mask = slice + round_up(r, BLOCK_R) * BLOCK_COLS;
    if (first >= last)
        return;
    /* The factor's columns under this tile, [r][128], times scale; zeros in the margin. */
    const float *from = m.data;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < BLOCK_COLS; j++) {
            const int64_t col = tile->col + j;
            slice[i * BLOCK_COLS + j] =
                j >= tile->n_cols
                    ? 0.0f
                    : scale * (transposed ? from[col * m.ld + i] : from[i * m.ld + col]);
        }
    }
    for (int64_t t = first; t < last; t++) {
        float *row = tile->value + (t - tile->row) * tile->ld;
        const bool masked = drops(drop);
        if (masked)
            mask_row(drop, drop->row_key[t], tile->col, mask);
        for (int64_t j = 0; j < BLOCK_COLS; j += 64)
            expand_row(row + j, u + t * ldu, slice + j, r, masked ? mask + j : NULL);
    }
}

/* acc[i][j] += sum over t of u[t][i] x[t][j], i < 8, j < 32. */
LRD_CLONES static void outer_block(const float *x, const float *u, int64_t ldu, int64_t n_tokens,
                                   float *acc)
{
    v16f a[BLOCK_R][2];
    for (int i = 0; i < BLOCK_R; i++)
        for (int c = 0; c < 2; c++)
            a[i][c] = load16(acc + i * BLOCK_COLS + c * LANES);
    for (int64_t t = 0; t < n_tokens; t++) {
        const v16f x0 = load16(x + t * BLOCK_COLS), x1 = load16(x + t * BLOCK_COLS + LANES);
        for (int i = 0; i < BLOCK_R; i++) {
            const v16f w = u[t * ldu + i] - (v16f){0};
            a[i][0] += w * x0;
            a[i][1] += w * x1;
        }
    }
    for (int i = 0; i < BLOCK_R; i++)
        for (int c = 0; c < 2; c++)
            store16(acc + i * BLOCK_COLS + c * LANES, a[i][c]);
}

/* The sum over one tile of tokens, for columns col .. col + n_cols - 1: acc[r8][128]. */
static void outer_tile(lrd_cmat_t x, int64_t begin, int64_t end, int64_t col, int64_t n_cols,
                       const float *u, int64_t ldu, int64_t r, const lrd_dropout_t *drop,
                       float *buffer)
{
    const int64_t r8 = round_up(r, BLOCK_R);
    float *acc = buffer, *rows = acc + r8 * BLOCK_COLS, *weights = rows + BLOCK_TOKENS * BLOCK_COLS;
    memset(buffer, 0, lora_thread_bytes(r, 0));
    for (int64_t t0 = begin; t0 < end; t0 += BLOCK_TOKENS) {
        const int64_t n = smaller(end - t0, BLOCK_TOKENS);
        for (int64_t t = 0; t < n; t++) {
            float *row = rows + t * BLOCK_COLS;
            convert_to_f32(x.dtype, mat_at(x, t0 + t, col), row, n_cols);
            if (drops(drop))
                apply_mask(drop, drop->row_key[t0 + t], col, row, n_cols);
            memcpy(weights + t * r8, u + (t0 + t) * ldu, (size_t)r * sizeof(float));
        }
        for (int64_t i = 0; i < r8; i += BLOCK_R)
            for (int64_t j = 0; j < BLOCK_COLS; j += 2 * LANES)
                outer_block(rows + j, weights + i, r8, n, acc + i * BLOCK_COLS + j);
    }
}

void lora_outer(cpu_backend_t *be, lrd_cmat_t x, int64_t begin, int64_t end, const float *u,
                int64_t ldu, int64_t r, float scale, const lrd_dropout_t *drop, bool transposed,
                lrd_mat_t out, const cpu_scratch_t *threads, size_t offset)
{
    float *to = out.data;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t col = 0; col < x.cols; col += BLOCK_COLS) {
        const int64_t n_cols = smaller(x.cols - col, BLOCK_COLS);
        float *acc =
            (float *)((uint8_t *)cpu_scratch_of_thread(threads, omp_get_thread_num()) + offset);
        for (int64_t t0 = begin; t0 < end; t0 += LORA_TOKENS) {
            outer_tile(x, t0, smaller(end, t0 + LORA_TOKENS), col, n_cols, u, ldu, r, drop, acc);
            for (int64_t i = 0; i < r; i++) {
                for (int64_t j = 0; j < n_cols; j++) {
                    float *sum =
                        transposed ? to + (col + j) * out.ld + i : to + i * out.ld + col + j;
                    *sum += scale * acc[i * BLOCK_COLS + j];
                }
            }
        }
    }
}
