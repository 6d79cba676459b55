/* Attention of new tokens against a cache of keys and values.
 *
 * A slot of the cache holds, head after head, the keys in the panels that the micro-kernels read
 * ([capacity / 32][d][32], one column a token), then, head after head, the values ([capacity][d]);
 * so that float32 is multiplied where it lies, and 16-bit after widening, which keeps the order.
 * Capacities are in whole panels; behind the last slot there are 32 elements more, since the last
 * panel of a row of values may reach beyond it.
 *
 * An item is one head of one sequence, on one thread: it enters the new keys and values, then takes
 * the new queries in blocks, against all keys up to the block's last.
 */
#include "kernels/cpu/cpu_attention.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_convert.h"
#include "kernels/cpu/cpu_pack.h"

#include <omp.h>
#include <string.h>

enum { BLOCK = 64, TAIL = MICRO_PANEL };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t whole_panels(int64_t n)
{
    return pack_panels_of(n) * MICRO_PANEL;
}

size_t cpu_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *s)
{
    (void)be;
    const int64_t slot = 2 * whole_panels(s->capacity) * s->n_heads * s->head_dim;
    return (size_t)(s->n_slots * slot + TAIL) * lrd_dtype_bytes(s->dtype);
}

/* Floats of one thread's scratch: queries, scores, outputs of a block; ALiBi; keys and values
 * widened. */
static size_t thread_floats(int64_t length, int64_t d, bool widened)
{
    const int64_t rows = whole_panels(length), ld = rows + 16;
    return (size_t)(BLOCK * (d + ld + whole_panels(d)) + rows +
                    (widened ? 2 * rows * d + TAIL : 0));
}

size_t cpu_attn_cached_scratch(const cpu_backend_t *be, const lrd_limits_t *l)
{
    if (l->cached_len == 0)
        return 0;
    return (size_t)be->n_threads *
           cpu_round(thread_floats(l->cached_len, l->head_dim, l->compute != LRD_F32) *
                     sizeof(float));
}

typedef struct cached {
    const cpu_backend_t *be;
    const lrd_attn_cached_t *a;
    int64_t d, rows, ld; /* rows: longest sequence in whole panels; ld: of a row of scores */
    cpu_scratch_t threads;
} cached_t;

/* One head of one sequence in the cache. */
typedef struct head {
    int64_t t0, n_new, past; /* its new tokens in the batch; tokens already in the cache */
    int64_t index;
    uint8_t *keys, *values;
} head_t;

static head_t find_head(const cached_t *c, int64_t sequence, int64_t index)
{
    const lrd_attn_cached_t *a = c->a;
    const lrd_kv_shape_t *s = &a->cache.shape;
    const int64_t element = (int64_t)lrd_dtype_bytes(s->dtype);
    const int64_t part = whole_panels(s->capacity) * c->d * element; /* keys or values of a head */
    uint8_t *slot = (uint8_t *)a->cache.data + a->slot[sequence] * 2 * part * s->n_heads;
    return (head_t){.t0 = a->cu_seqlens[sequence],
                    .n_new = a->cu_seqlens[sequence + 1] - a->cu_seqlens[sequence],
                    .past = a->cache_len[sequence],
                    .index = index,
                    .keys = slot + index * part,
                    .values = slot + (s->n_heads + index) * part};
}

/* New keys become columns of the panels, new values rows. */
static void enter(const cached_t *c, const head_t *h)
{
    const lrd_cmat_t qkv = c->a->qkv;
    const size_t element = lrd_dtype_bytes(qkv.dtype);
    for (int64_t i = 0; i < h->n_new; i++) {
        const int64_t at = h->past + i, col = h->index * 3 * c->d + c->d;
        const void *key = mat_at(qkv, h->t0 + i, col);
        const int64_t column = at / MICRO_PANEL * c->d * MICRO_PANEL + at % MICRO_PANEL;
        if (element == 4) {
            for (int64_t j = 0; j < c->d; j++)
                ((uint32_t *)h->keys)[column + j * MICRO_PANEL] = ((const uint32_t *)key)[j];
        } else {
            for (int64_t j = 0; j < c->d; j++)
                ((uint16_t *)h->keys)[column + j * MICRO_PANEL] = ((const uint16_t *)key)[j];
        }
        memcpy(h->values + (size_t)(at * c->d) * element, mat_at(qkv, h->t0 + i, col + c->d),
               (size_t)c->d * element);
    }
}

/* Queries first .. first + n - 1 of the new ones, against keys and values in float32. */
static void attend(const cached_t *c, const head_t *h, int64_t first, int64_t n, const float *keys,
                   const float *values, const float *alibi, float *scratch)
{
    const lrd_attn_cached_t *a = c->a;
    const int64_t d = c->d, width = whole_panels(d), length = h->past + first + n;
    float *q = scratch, *s = q + BLOCK * d, *o = s + BLOCK * c->ld, sum[BLOCK];
    for (int64_t i = 0; i < n; i++)
        convert_to_f32(a->qkv.dtype, mat_at(a->qkv, h->t0 + first + i, h->index * 3 * d), q + i * d,
                       d);
    c->be->isa->f32(&(micro_t){.n_rows = n,
                               .n_panels = pack_panels_of(length),
                               .k = d,
                               .a = q,
                               .a_row = d,
                               .a_step = 1,
                               .panel = keys,
                               .panel_stride = d * MICRO_PANEL,
                               .panel_step = MICRO_PANEL,
                               .c = s,
                               .ldc = c->ld});
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = h->past + first + i;
        attn_softmax(s + i * c->ld, at + 1, length, a->scale, alibi, alibi[at], &sum[i]);
    }
    c->be->isa->f32(&(micro_t){.n_rows = n,
                               .n_panels = width / MICRO_PANEL,
                               .k = length,
                               .a = s,
                               .a_row = c->ld,
                               .a_step = 1,
                               .panel = values,
                               .panel_stride = MICRO_PANEL,
                               .panel_step = d,
                               .c = o,
                               .ldc = width});
    for (int64_t i = 0; i < n; i++) {
        attn_scale(o + i * width, 1.0f / sum[i], d);
        convert_from_f32(a->out.dtype, o + i * width,
                         mat_at_mut(a->out, h->t0 + first + i, h->index * d), d);
    }
}

static void run_item(const cached_t *c, int64_t sequence, int64_t index, int thread)
{
    const lrd_attn_cached_t *a = c->a;
    const head_t h = find_head(c, sequence, index);
    const int64_t length = h.past + h.n_new, d = c->d;
    float *scratch = cpu_scratch_of_thread(&c->threads, thread);
    float *alibi = scratch + BLOCK * (d + c->ld + whole_panels(d)), *wide = alibi + c->rows;
    const float *keys = (const float *)h.keys, *values = (const float *)h.values;
    if (h.n_new == 0)
        return;
    enter(c, &h);
    attn_alibi(a->slope[index], length, alibi);
    if (a->qkv.dtype != LRD_F32) {
        convert_to_f32(a->qkv.dtype, h.keys, wide, whole_panels(length) * d);
        convert_to_f32(a->qkv.dtype, h.values, wide + c->rows * d, length * d);
        keys = wide;
        values = wide + c->rows * d;
    }
    for (int64_t first = 0; first < h.n_new; first += BLOCK)
        attend(c, &h, first, smaller(h.n_new - first, BLOCK), keys, values, alibi, scratch);
}

lrd_status_t cpu_attn_cached(lrd_stream_t *st, lrd_scratch_t scratch, const lrd_attn_cached_t *a)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = cpu_backend_of(st);
    const lrd_kv_shape_t *s = &a->cache.shape;
    cached_t c = {.be = be, .a = a, .d = s->head_dim, .rows = whole_panels(a->max_len)};
    c.ld = c.rows + 16;
    const size_t floats = thread_floats(a->max_len, c.d, s->dtype != LRD_F32);
    LRD_TRY(cpu_scratch_split(be, scratch, 0, floats * sizeof(float), &c.threads));
    const int64_t n_items = (int64_t)a->n_seqs * s->n_heads;
#pragma omp parallel for schedule(dynamic) num_threads(be->n_threads)
    for (int64_t item = 0; item < n_items; item++)
        run_item(&c, item / s->n_heads, item % s->n_heads, omp_get_thread_num());
out:
    return status;
}
