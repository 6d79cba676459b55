#include "kernels/cpu/cpu_product.h"

#include "base/clock.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_micro.h"
#include "kernels/cpu/cpu_pack.h"
#include "kernels/cpu/cpu_tuning.h"

#include <omp.h>
#include <string.h>

/* Elements of k packed at a time: four panels of 512 are a quarter of a megabyte, which stays in
 * the second-level cache while all rows of the item pass over them. With few rows reading the
 * weights is all that costs: one panel of 64 stays in the first-level cache. */
enum { MANY_K = 512, FEW_K = 64, FEW_ROWS = 32 };

/* Rows of an item: packing is paid once for all of them. Tiles go to `emit` some rows at a time. */
enum { ITEM_ROWS = 768, EMIT_ROWS = 192, LEAST_ROWS = 96 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t parts_of(int64_t n, int64_t part)
{
    return (n + part - 1) / part;
}

enum { PACK_BYTES = PRODUCT_COLS * MANY_K * 4, TILE_BYTES = ITEM_ROWS * PRODUCT_COLS * 4 };

size_t product_thread_bytes(void)
{
    return PACK_BYTES + TILE_BYTES;
}

/* Rows that are copied lie PAD elements further apart than they are long: where k is a power of two,
 * all rows of a group would fall into the same lines of the first-level cache (16 rows of 1,024:
 * half the speed). */
enum { PAD = 16 };

/* Of a route that is timed: runs, and the seconds after which two must do. */
enum { REPEATS = 5, LONG = 1 };

size_t product_shared_bytes(lrd_dtype_t compute, int64_t m, int64_t k)
{
    const int64_t rows = compute == LRD_F32 ? smaller(m, FEW_ROWS) : m;
    return cpu_round((size_t)(rows * (k + PAD)) * sizeof(float));
}

static bool has_choice(const cpu_backend_t *be, lrd_dtype_t x, lrd_dtype_t w, int64_t k)
{
    return x == LRD_BF16 && w == LRD_BF16 && be->isa->pairs != NULL && k % 2 == 0;
}

bool product_is_native(const cpu_backend_t *be, lrd_dtype_t x, lrd_dtype_t w, int64_t n, int64_t k,
                       bool transposed)
{
    if (!has_choice(be, x, w, k))
        return false;
    bool native;
    return tuning_find(be->tuning, n, k, transposed, &native) ? native : be->isa->pairs_faster;
}

/* What every thread of one product_run needs to know. */
typedef struct plan {
    const cpu_backend_t *be;
    const product_t *p;
    lrd_cmat_t x; /* as multiplied: widened unless native */
    bool native;
    int64_t cols, rows; /* of an item */
    const cpu_scratch_t *threads;
} plan_t;

/* Packs elements k0 .. k0 + k - 1 of columns col .. col + n_cols - 1; panels are panel_stride
 * apart. */
static void pack(const plan_t *plan, int64_t col, int64_t n_cols, int64_t k0, int64_t k,
                 uint32_t *panel, int64_t panel_stride)
{
    const product_t *p = plan->p;
    pack_panels(&(pack_t){.dtype = p->w.dtype,
                          .pairs = plan->native,
                          .transposed = p->transposed,
                          .src = p->transposed ? mat_at(p->w, col, k0) : mat_at(p->w, k0, col),
                          .row_stride = p->w.ld,
                          .n = n_cols,
                          .k = k},
                panel, panel_stride);
}

/* tile (+)= rows row .. row + n_rows - 1 of x, elements k0 .. k0 + k - 1, times the panels. */
static void multiply(const plan_t *plan, int64_t row, int64_t n_rows, int64_t k0, int64_t k,
                     const uint32_t *panel, int64_t n_panels, int64_t panel_stride, float *tile)
{
    const int64_t unit = plan->native ? 2 : 1;
    const micro_t m = {.n_rows = n_rows,
                       .n_panels = n_panels,
                       .k = k / unit,
                       .a = mat_at(plan->x, row, k0),
                       .a_row = plan->x.ld / unit,
                       .a_step = 1,
                       .panel = panel,
                       .panel_stride = panel_stride,
                       .panel_step = MICRO_PANEL,
                       .c = tile,
                       .ldc = PRODUCT_COLS,
                       .accumulate = k0 > 0};
    if (plan->native)
        plan->be->isa->pairs(&m);
    else
        plan->be->isa->f32(&m);
}

static void emit(const plan_t *plan, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols,
                 float *tile, int thread)
{
    const product_t *p = plan->p;
    p->emit(p->context, &(product_tile_t){row, n_rows, col, n_cols, tile, PRODUCT_COLS, thread});
}

/* Many rows: the chunk is packed MANY_K at a time, all rows pass over it. */
static void run_many(const plan_t *plan, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols,
                     int thread)
{
    const product_t *p = plan->p;
    uint32_t *panel = cpu_scratch_of_thread(plan->threads, thread);
    float *tile = (float *)((uint8_t *)panel + PACK_BYTES);
    const int64_t block = plan->native ? 2 * MANY_K : MANY_K, n_panels = pack_panels_of(n_cols);
    const int64_t stride = MANY_K * MICRO_PANEL;
    for (int64_t k0 = 0; k0 < p->k; k0 += block) {
        const int64_t k = smaller(p->k - k0, block);
        pack(plan, col, n_cols, k0, k, panel, stride);
        for (int64_t i = 0; i < n_rows; i += EMIT_ROWS) {
            const int64_t n = smaller(n_rows - i, EMIT_ROWS);
            float *part = tile + i * PRODUCT_COLS;
            multiply(plan, row + i, n, k0, k, panel, n_panels, stride, part);
            if (k0 + k == p->k)
                emit(plan, row + i, n, col, n_cols, part, thread);
        }
    }
}

/* The first elements of k of a whole panel, without writing it down. Returns how many. */
static int64_t multiply_direct(const plan_t *plan, int64_t row, int64_t n_rows, int64_t col,
                               float *tile)
{
    const product_t *p = plan->p;
    const int64_t unit = plan->native ? 2 : 1, k = p->k / (DIRECT_K * unit) * DIRECT_K;
    if (plan->be->isa->direct == NULL || !p->transposed || p->n - col < MICRO_PANEL)
        return 0;
    for (int64_t i = 0; i < n_rows; i++)
        memset(tile + i * PRODUCT_COLS, 0, MICRO_PANEL * sizeof *tile);
    for (int64_t j = 0; j < MICRO_PANEL; j += DIRECT_COLS)
        plan->be->isa->direct(
            &(micro_direct_t){.n_rows = n_rows,
                              .k = k,
                              .a = mat_at(plan->x, row, 0),
                              .a_row = plan->x.ld / unit,
                              .dtype = p->w.dtype,
                              .pairs = plan->native,
                              .w = mat_at(p->w, col + j, 0),
                              .w_row_bytes = p->w.ld * (int64_t)lrd_dtype_bytes(p->w.dtype),
                              .c = tile + j,
                              .ldc = PRODUCT_COLS});
    return k * unit;
}

/* Few rows: panel by panel, directly where the machine can, else FEW_K at a time. */
static void run_few(const plan_t *plan, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols,
                    int thread)
{
    const product_t *p = plan->p;
    uint32_t *panel = cpu_scratch_of_thread(plan->threads, thread);
    float *tile = (float *)((uint8_t *)panel + PACK_BYTES);
    const int64_t block = plan->native ? 2 * FEW_K : FEW_K;
    for (int64_t j = 0; j < n_cols; j += MICRO_PANEL) {
        int64_t k0 = multiply_direct(plan, row, n_rows, col + j, tile + j);
        for (; k0 < p->k; k0 += block) {
            const int64_t k = smaller(p->k - k0, block);
            pack(plan, col + j, smaller(n_cols - j, MICRO_PANEL), k0, k, panel, 0);
            multiply(plan, row, n_rows, k0, k, panel, 1, 0, tile + j);
        }
    }
    emit(plan, row, n_rows, col, n_cols, tile, thread);
}

/* Rows of x as float32, where the product is not native. */
static void widen(plan_t *plan, float *wide)
{
    const product_t *p = plan->p;
    const int64_t ld = p->k + PAD;
#pragma omp parallel for schedule(static) num_threads(plan->be->n_threads) if (p->m > FEW_ROWS)
    for (int64_t i = 0; i < p->m; i++)
        convert_to_f32(p->x.dtype, mat_at(p->x, i, 0), wide + i * ld, p->k);
    plan->x = (lrd_cmat_t){wide, p->m, p->k, ld, LRD_F32};
}

/* A few rows as they are: every panel passes over them again. */
static void spread(plan_t *plan, void *copy)
{
    const product_t *p = plan->p;
    const int64_t ld = p->k + PAD;
    const lrd_mat_t to = {copy, p->m, p->k, ld, p->x.dtype};
    for (int64_t i = 0; i < p->m; i++)
        memcpy(mat_at_mut(to, i, 0), mat_at(p->x, i, 0),
               (size_t)p->k * lrd_dtype_bytes(p->x.dtype));
    plan->x = lrd_const(to);
}

/* Items are as large as leaves some for every thread. */
static void cut(plan_t *plan)
{
    const product_t *p = plan->p;
    const int64_t wanted = 4 * plan->be->n_threads;
    plan->cols = PRODUCT_COLS;
    plan->rows = p->m;
    if (p->m <= FEW_ROWS) {
        if (!p->whole_chunks && parts_of(p->n, PRODUCT_COLS) < 16 * wanted)
            plan->cols = MICRO_PANEL;
        return;
    }
    int64_t groups = parts_of(p->m, ITEM_ROWS);
    while (parts_of(p->n, PRODUCT_COLS) * groups < wanted && p->m / (groups + 1) >= LEAST_ROWS)
        groups++;
    plan->rows = parts_of(p->m, groups);
}

static void run_route(const cpu_backend_t *be, const product_t *p, bool native, void *shared,
                      const cpu_scratch_t *threads)
{
    plan_t plan = {.be = be, .p = p, .x = p->x, .native = native, .threads = threads};
    const bool few = p->m <= FEW_ROWS;
    if (!plan.native && p->x.dtype != LRD_F32)
        widen(&plan, shared);
    else if (few)
        spread(&plan, shared);
    cut(&plan);
    const int64_t n_groups = parts_of(p->m, plan.rows), n_chunks = parts_of(p->n, plan.cols);
    const int64_t n_items = n_groups * n_chunks;
    /* In one run of neighbours for each thread: packing asks the memory for the next panel ahead of
     * time. */
    const int64_t run = few ? parts_of(n_items, be->n_threads) : 1;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t first = 0; first < n_items; first += run) {
        for (int64_t item = first; item < smaller(n_items, first + run); item++) {
            const int64_t row = item % n_groups * plan.rows, col = item / n_groups * plan.cols;
            const int64_t n_rows = smaller(p->m - row, plan.rows);
            const int64_t n_cols = smaller(p->n - col, plan.cols);
            if (few)
                run_few(&plan, row, n_rows, col, n_cols, omp_get_thread_num());
            else
                run_many(&plan, row, n_rows, col, n_cols, omp_get_thread_num());
        }
    }
}

/* The best of some runs, fewer where they take long; the first one does not count. */
static double time_route(const cpu_backend_t *be, const product_t *p, bool native, void *shared,
                         const cpu_scratch_t *threads)
{
    const double first = lrd_clock_seconds();
    double best = 0;
    for (int i = 0; i <= REPEATS && (i < 2 || lrd_clock_seconds() - first < LONG); i++) {
        const double begun = lrd_clock_seconds();
        run_route(be, p, native, shared, threads);
        const double seconds = lrd_clock_seconds() - begun;
        if (i == 1 || (i > 1 && seconds < best))
            best = seconds;
    }
    return best;
}

void product_run(cpu_backend_t *be, const product_t *p, void *shared, const cpu_scratch_t *threads)
{
    bool known;
    /* Pairs are read as 32-bit elements. */
    const bool fits = p->x.ld % 2 == 0 && (uintptr_t)p->x.data % 4 == 0;
    if (be->tunes && fits && has_choice(be, p->x.dtype, p->w.dtype, p->k) &&
        !tuning_find(be->tuning, p->n, p->k, p->transposed, &known)) {
        const double seconds[2] = {time_route(be, p, false, shared, threads),
                                   time_route(be, p, true, shared, threads)};
        tuning_add(be->tuning, p->n, p->k, p->transposed, seconds, be->isa->pairs_faster);
    }
    run_route(be, p,
              fits && product_is_native(be, p->x.dtype, p->w.dtype, p->n, p->k, p->transposed),
              shared, threads);
}
