#include "kernels/cpu/cpu_product.h"

#include "base/mem.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_pack.h"
#include "kernels/cpu/cpu_tuning.h"

#include <omp.h>
#include <string.h>

enum { CACHE_SLOTS = 1024, CACHE_FULL = 512, GROUP_TILES = 4 };

/* A compiled bfloat16 product: c[m, n] (+)= a[m, k] b[k, n], b packed in pairs. */
typedef struct compiled_key {
    int64_t m, n, k, lda, accumulate;
} compiled_key_t;

typedef struct compiled {
    compiled_key_t key;
    bool used;
    dnnl_primitive_t primitive; /* NULL: oneDNN has no fast kernel for this shape */
    dnnl_memory_desc_t a, b, c;
} compiled_t;

struct product_cache {
    compiled_t slot[CACHE_SLOTS]; /* open addressing */
    int n;
};

lrd_status_t product_cache_create(product_cache_t **cache_out)
{
    lrd_status_t status = LRD_OK;
    product_cache_t *cache;
    LRD_NEW(cache, 1);
    *cache_out = cache;
out:
    return status;
}

static void empty_cache(product_cache_t *cache)
{
    for (int i = 0; i < CACHE_SLOTS; i++) {
        if (cache->slot[i].primitive != NULL)
            dnnl_primitive_destroy(cache->slot[i].primitive);
    }
    memset(cache, 0, sizeof *cache);
}

void product_cache_destroy(product_cache_t *cache)
{
    if (cache == NULL)
        return;
    empty_cache(cache);
    lrd_free(cache);
}

static dnnl_status_t describe_operands(const compiled_key_t *key, compiled_t *p)
{
    dnnl_status_t rc = dnnl_memory_desc_init_by_strides(&p->a, 2, (dnnl_dims_t){key->m, key->k},
                                                        dnnl_bf16, (dnnl_dims_t){key->lda, 1});
    if (rc == dnnl_success)
        rc = dnnl_memory_desc_init_by_tag(&p->b, 2, (dnnl_dims_t){key->k, key->n}, dnnl_bf16,
                                          dnnl_BA16a64b2a);
    if (rc == dnnl_success)
        rc = dnnl_memory_desc_init_by_strides(&p->c, 2, (dnnl_dims_t){key->m, key->n}, dnnl_f32,
                                              (dnnl_dims_t){PRODUCT_COLS, 1});
    return rc;
}

/* Compiles for one thread: a primitive's blocking depends on the number of threads it is made for.
 */
static lrd_status_t compile(dnnl_engine_t engine, const compiled_key_t *key, compiled_t *p)
{
    lrd_status_t status = LRD_OK;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_post_ops_t post = NULL;
    dnnl_primitive_desc_t desc = NULL;
    const char *kernel = "";
    dnnl_status_t rc = describe_operands(key, p);
    if (rc == dnnl_success)
        rc = dnnl_primitive_attr_create(&attr);
    if (rc == dnnl_success && key->accumulate) {
        rc = dnnl_post_ops_create(&post);
        if (rc == dnnl_success)
            rc = dnnl_post_ops_append_sum(post, 1.0f);
        if (rc == dnnl_success)
            rc = dnnl_primitive_attr_set_post_ops(attr, post);
    }
    dnnl_matmul_desc_t matmul;
    if (rc == dnnl_success)
        rc = dnnl_matmul_desc_init(&matmul, &p->a, &p->b, NULL, &p->c);
    if (rc == dnnl_success)
        rc = dnnl_primitive_desc_create(&desc, &matmul, attr, engine, NULL);
    if (rc == dnnl_success)
        rc = dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &kernel);
    /* oneDNN answers some shapes with its reference loops, a thousand times slower. */
    if (rc == dnnl_success && strncmp(kernel, "ref", 3) != 0)
        rc = dnnl_primitive_create(&p->primitive, desc);
    LRD_CHECK(rc == dnnl_success || rc == dnnl_unimplemented,
              rc == dnnl_out_of_memory ? LRD_ERR_NO_MEMORY : LRD_ERR_DEVICE,
              "oneDNN cannot make a %ld x %ld x %ld product: %s", (long)key->m, (long)key->n,
              (long)key->k, dnnl_status2str(rc));
    p->key = *key;
    p->used = true;
out:
    if (desc != NULL)
        dnnl_primitive_desc_destroy(desc);
    if (post != NULL)
        dnnl_post_ops_destroy(post);
    if (attr != NULL)
        dnnl_primitive_attr_destroy(attr);
    return status;
}

/* The slot of a shape: where it is, or where it belongs. */
static compiled_t *find_slot(product_cache_t *cache, const compiled_key_t *key)
{
    const int64_t part[] = {key->m, key->n, key->k, key->lda, key->accumulate};
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < sizeof part / sizeof part[0]; i++)
        h = (h ^ (uint64_t)part[i]) * 0x9e3779b97f4a7c15u;
    uint64_t i = (h ^ h >> 29) % CACHE_SLOTS;
    while (cache->slot[i].used && memcmp(&cache->slot[i].key, key, sizeof *key) != 0)
        i = (i + 1) % CACHE_SLOTS;
    return &cache->slot[i];
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t tiles_of(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

/* Plain float32 is the larger of the two layouts. */
static size_t pack_part(int64_t k)
{
    const int64_t rows = (smaller(k, PRODUCT_K) + 31) / 32 * 32;
    return (size_t)(rows * (PRODUCT_COLS + 16)) * sizeof(float);
}

size_t product_thread_bytes(int64_t m, int64_t k)
{
    const int64_t tiles = k > PRODUCT_K ? smaller(tiles_of(m, PRODUCT_ROWS), GROUP_TILES) : 1;
    return cpu_round(pack_part(k)) +
           cpu_round((size_t)(tiles * PRODUCT_ROWS * PRODUCT_COLS) * sizeof(float));
}

bool product_is_native(const cpu_backend_t *be, lrd_dtype_t x, lrd_dtype_t w, int64_t n, int64_t k,
                       bool transposed)
{
    if (x != LRD_BF16 || w != LRD_BF16)
        return false;
    bool native;
    return tuning_find(be->tuning, n, k, transposed, &native) ? native : be->bf16_native;
}

size_t product_shared_bytes(lrd_dtype_t compute, int64_t m, int64_t k)
{
    return compute == LRD_F32 ? 0 : cpu_round((size_t)(m * k) * sizeof(float));
}

/* What every thread of one product_run needs to know. */
typedef struct plan {
    cpu_backend_t *be;
    const product_t *p;
    lrd_cmat_t x; /* as multiplied: widened unless native */
    bool native;
    int64_t n_k, n_tiles, group; /* blocks of k; row tiles; tiles per item */
    const cpu_scratch_t *threads;
} plan_t;

static compiled_key_t key_of(const plan_t *plan, int64_t n_rows, int64_t n_cols, int64_t block)
{
    const int64_t k = smaller(plan->p->k - block * PRODUCT_K, PRODUCT_K);
    return (compiled_key_t){n_rows, n_cols, k, plan->x.ld, block > 0};
}

/* Compiles every shape that the items will ask for, so that the parallel region only finds. Sets
 * plan->native to false when there is no fast kernel for one of them. */
static lrd_status_t compile_all(plan_t *plan)
{
    lrd_status_t status = LRD_OK;
    const product_t *p = plan->p;
    product_cache_t *cache = plan->be->products;
    const int64_t rows[2] = {smaller(p->m, PRODUCT_ROWS), p->m % PRODUCT_ROWS};
    const int64_t cols[2] = {smaller(p->n, PRODUCT_COLS), p->n % PRODUCT_COLS};
    const int64_t blocks[3] = {0, 1, plan->n_k - 1};
    if (cache->n >= CACHE_FULL)
        empty_cache(cache);
    for (int i = 0; i < 12; i++) {
        const int64_t n_rows = rows[i % 2], n_cols = cols[i / 2 % 2], block = blocks[i / 4];
        if (n_rows == 0 || n_cols == 0 || block >= plan->n_k)
            continue;
        const compiled_key_t key = key_of(plan, n_rows, n_cols, block);
        compiled_t *slot = find_slot(cache, &key);
        if (!slot->used) {
            LRD_TRY(compile(plan->be->engine, &key, slot));
            cache->n++;
        }
        plan->native = plan->native && slot->primitive != NULL;
    }
out:
    return status;
}

static bool run_compiled(const cpu_backend_t *be, const compiled_t *p, int thread, const void *a,
                         const void *b, float *c)
{
    dnnl_memory_t ma = NULL, mb = NULL, mc = NULL;
    bool ok = dnnl_memory_create(&ma, &p->a, be->engine, (void *)a) == dnnl_success &&
              dnnl_memory_create(&mb, &p->b, be->engine, (void *)b) == dnnl_success &&
              dnnl_memory_create(&mc, &p->c, be->engine, c) == dnnl_success;
    if (ok) {
        const dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, ma}, {DNNL_ARG_WEIGHTS, mb}, {DNNL_ARG_DST, mc}};
        ok = dnnl_primitive_execute(p->primitive, be->streams[thread], 3, args) == dnnl_success;
    }
    if (ma != NULL)
        dnnl_memory_destroy(ma);
    if (mb != NULL)
        dnnl_memory_destroy(mb);
    if (mc != NULL)
        dnnl_memory_destroy(mc);
    return ok;
}

/* One tile: rows from `row`, the packed block of columns, block number `block` of k. */
static bool multiply_tile(const plan_t *plan, int64_t row, int64_t n_rows, int64_t n_cols,
                          int64_t block, const pack_layout_t *layout, const void *pack, float *tile,
                          int thread)
{
    const compiled_key_t key = key_of(plan, n_rows, n_cols, block);
    const void *x = mat_at(plan->x, row, block * PRODUCT_K);
    if (plan->native)
        return run_compiled(plan->be, find_slot(plan->be->products, &key), thread, x, pack, tile);
    return dnnl_sgemm('N', 'N', n_rows, n_cols, key.k, 1.0f, x, plan->x.ld, pack, layout->ld,
                      block > 0 ? 1.0f : 0.0f, tile, PRODUCT_COLS) == dnnl_success;
}

/* Column chunk `col`, row tiles first .. first + n - 1. */
static bool run_item(const plan_t *plan, int64_t col, int64_t first, int64_t n, int thread)
{
    const product_t *p = plan->p;
    const int64_t n_cols = smaller(p->n - col, PRODUCT_COLS);
    uint8_t *pack = cpu_scratch_of_thread(plan->threads, thread);
    float *acc = (float *)(pack + cpu_round(pack_part(p->k)));
    for (int64_t block = 0; block < plan->n_k; block++) {
        const int64_t k0 = block * PRODUCT_K, k = smaller(p->k - k0, PRODUCT_K);
        const pack_layout_t layout =
            plan->native ? pack_layout_pairs(k) : pack_layout_plain(n_cols, k);
        const void *from = p->transposed ? mat_at(p->w, col, k0) : mat_at(p->w, k0, col);
        pack_block(&layout, p->w.dtype, from, p->w.ld, p->transposed, n_cols, k, pack);
        for (int64_t i = 0; i < n; i++) {
            const int64_t row = (first + i) * PRODUCT_ROWS,
                          n_rows = smaller(p->m - row, PRODUCT_ROWS);
            float *tile = acc + (plan->n_k > 1 ? i : 0) * PRODUCT_ROWS * PRODUCT_COLS;
            if (!multiply_tile(plan, row, n_rows, n_cols, block, &layout, pack, tile, thread))
                return false;
            if (block == plan->n_k - 1)
                p->emit(p->context,
                        &(product_tile_t){row, n_rows, col, n_cols, tile, PRODUCT_COLS, thread});
        }
    }
    return true;
}

/* Rows of x as float32, where the product is not native. */
static void widen(plan_t *plan, float *wide)
{
    const product_t *p = plan->p;
#pragma omp parallel for schedule(static) num_threads(plan->be->n_threads)
    for (int64_t i = 0; i < p->m; i++)
        convert_to_f32(p->x.dtype, mat_at(p->x, i, 0), wide + i * p->k, p->k);
    plan->x = (lrd_cmat_t){wide, p->m, p->k, p->k, LRD_F32};
}

lrd_status_t product_run(cpu_backend_t *be, const product_t *p, void *shared,
                         const cpu_scratch_t *threads)
{
    lrd_status_t status = LRD_OK;
    plan_t plan = {.be = be, .p = p, .x = p->x, .threads = threads};
    plan.n_k = tiles_of(p->k, PRODUCT_K);
    plan.n_tiles = tiles_of(p->m, PRODUCT_ROWS);
    plan.native = product_is_native(be, p->x.dtype, p->w.dtype, p->n, p->k, p->transposed);
    if (plan.native)
        LRD_TRY(compile_all(&plan));
    if (!plan.native && p->x.dtype != LRD_F32)
        widen(&plan, shared);
    const int64_t n_chunks = tiles_of(p->n, PRODUCT_COLS);
    /* Items are as tall as there is work for every thread: packing is paid once an item. Tiles stay
     * what they are. */
    plan.group = smaller(plan.n_tiles, GROUP_TILES);
    while (plan.group > 1 && n_chunks * tiles_of(plan.n_tiles, plan.group) < 4 * be->n_threads)
        plan.group--;
    const int64_t n_groups = tiles_of(plan.n_tiles, plan.group), n_items = n_chunks * n_groups;

    bool failed = false;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads) reduction(|| : failed)
    for (int64_t item = 0; item < n_items; item++) {
        const int64_t first = item % n_groups * plan.group;
        const int64_t n = smaller(plan.n_tiles - first, plan.group);
        failed = !run_item(&plan, item / n_groups * PRODUCT_COLS, first, n, omp_get_thread_num()) ||
                 failed;
    }
    LRD_CHECK(!failed, LRD_ERR_DEVICE, "oneDNN failed in a %ld x %ld x %ld product", (long)p->m,
              (long)p->n, (long)p->k);
out:
    return status;
}
