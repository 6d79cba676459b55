/* out = w + scale * B A. The product comes from the micro-kernels, whose sums run in ascending R
 * whatever else a call holds; its tiles never leave the first-level cache. Compiled without
 * contraction: the product with scale is rounded before w is added, as in PEFT. */
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_simd.h"

#include <string.h>

enum { TILE_ROWS = 12, TILE_COLS = 256, EDGE_K = 64 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Some rows and columns of B A, [n_rows][TILE_COLS]. */
typedef struct tile {
    int64_t row, n_rows, col, n_cols;
    float value[TILE_ROWS * TILE_COLS];
} tile_t;

/* The last columns, fewer than a panel, from a copy of A's that has zeros behind them. */
static void multiply_edge(const micro_isa_t *isa, const lrd_merge_weight_t *a, tile_t *t,
                          int64_t first, int64_t n)
{
    float panel[EDGE_K][MICRO_PANEL] = {{0}};
    for (int64_t k = 0; k < a->a.rows; k += EDGE_K) {
        const int64_t depth = smaller(a->a.rows - k, EDGE_K);
        for (int64_t i = 0; i < depth; i++)
            memcpy(panel[i], mat_at(a->a, k + i, t->col + first), (size_t)n * sizeof(float));
        isa->f32(&(micro_t){.n_rows = t->n_rows,
                            .n_panels = 1,
                            .k = depth,
                            .a = mat_at(a->b, t->row, k),
                            .a_row = a->b.ld,
                            .a_step = 1,
                            .panel = panel,
                            .panel_stride = MICRO_PANEL,
                            .panel_step = MICRO_PANEL,
                            .c = t->value + first,
                            .ldc = TILE_COLS,
                            .accumulate = k > 0});
    }
}

/* Whole panels of A are used where they lie. */
static void multiply(const micro_isa_t *isa, const lrd_merge_weight_t *a, tile_t *t)
{
    const int64_t n_panels = t->n_cols / MICRO_PANEL, edge = n_panels * MICRO_PANEL;
    isa->f32(&(micro_t){.n_rows = t->n_rows,
                        .n_panels = n_panels,
                        .k = a->a.rows,
                        .a = mat_at(a->b, t->row, 0),
                        .a_row = a->b.ld,
                        .a_step = 1,
                        .panel = mat_at(a->a, 0, t->col),
                        .panel_stride = MICRO_PANEL,
                        .panel_step = a->a.ld,
                        .c = t->value,
                        .ldc = TILE_COLS});
    if (edge < t->n_cols)
        multiply_edge(isa, a, t, edge, t->n_cols - edge);
}

LRD_CLONES static void add_scaled(float *w, const float *delta, float scale, int64_t n)
{
    LRD_SIMD
    for (int64_t j = 0; j < n; j++)
        w[j] = w[j] + delta[j] * scale;
}

static void add_tile(const lrd_merge_weight_t *a, const tile_t *t)
{
    for (int64_t i = 0; i < t->n_rows; i++) {
        float w[TILE_COLS];
        convert_to_f32(a->w.dtype, mat_at(a->w, t->row + i, t->col), w, t->n_cols);
        add_scaled(w, t->value + i * TILE_COLS, a->scale, t->n_cols);
        convert_from_f32(a->out.dtype, w, mat_at_mut(a->out, t->row + i, t->col), t->n_cols);
    }
}

lrd_status_t cpu_merge_weight(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_merge_weight_t *a)
{
    (void)scratch;
    const cpu_backend_t *be = cpu_backend_of(st);
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t row = 0; row < a->w.rows; row += TILE_ROWS) {
        tile_t t = {.row = row, .n_rows = smaller(a->w.rows - row, TILE_ROWS)};
        for (t.col = 0; t.col < a->w.cols; t.col += TILE_COLS) {
            t.n_cols = smaller(a->w.cols - t.col, TILE_COLS);
            multiply(be->isa, a, &t);
            add_tile(a, &t);
        }
    }
    return LRD_OK;
}
