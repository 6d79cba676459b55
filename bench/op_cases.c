#include "bench/op_cases.h"

#include "base/mem.h"
#include "kernels/op_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ALLOCATIONS = 128, NOISE = 1 << 20, SAMPLED = 4, ADAPTED = 16, SEQUENCES = 32 };

typedef struct cases {
    const op_shapes_t *s;
    op_user_t *user;
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    struct {
        void *data;
        size_t bytes;
    } allocation[MAX_ALLOCATIONS];
    int n_allocations;
    uint8_t *noise; /* pinned, NOISE elements of the compute dtype, then as many float32 */
    /* Tensors that several ops share. */
    lrd_mat_t x, y3, y4, dx, gamma, table;
    lrd_lora_rows_t rows;
    lrd_lora_t lora;
    int32_t row_begin[2];
    lrd_mat_t u, da, db;
    const float *slope;
} cases_t;

static lrd_status_t take(cases_t *k, size_t bytes, void **out)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(k->n_allocations < MAX_ALLOCATIONS, LRD_ERR_INTERNAL, "too many tensors");
    LRD_TRY(lrd_mem_alloc(k->be, LRD_MEM_DEVICE, bytes, out));
    k->allocation[k->n_allocations].data = *out;
    k->allocation[k->n_allocations++].bytes = bytes;
out:
    return status;
}

/* A matrix of noise. */
static lrd_status_t make(cases_t *k, int64_t rows, int64_t cols, lrd_dtype_t d, lrd_mat_t *out)
{
    lrd_status_t status = LRD_OK;
    const size_t element = lrd_dtype_bytes(d), bytes = (size_t)(rows * cols) * element;
    const uint8_t *from = d == LRD_F32 ? k->noise + NOISE * lrd_dtype_bytes(k->s->dtype) : k->noise;
    void *data;
    LRD_TRY(take(k, bytes, &data));
    for (size_t at = 0; at < bytes; at += NOISE * element) {
        const size_t left = bytes - at, part = left < NOISE * element ? left : NOISE * element;
        LRD_TRY(lrd_copy(k->st, LRD_COPY_H2D, (uint8_t *)data + at, from, part));
    }
    *out = (lrd_mat_t){data, rows, cols, cols, d};
out:
    return status;
}

static lrd_status_t upload(cases_t *k, const void *data, size_t bytes, void **out)
{
    lrd_status_t status = LRD_OK;
    void *pinned = NULL;
    LRD_TRY(take(k, bytes, out));
    LRD_TRY(lrd_mem_alloc(k->be, LRD_MEM_PINNED, bytes, &pinned));
    memcpy(pinned, data, bytes);
    LRD_TRY(lrd_copy(k->st, LRD_COPY_H2D, *out, pinned, bytes));
    LRD_TRY(lrd_stream_sync(k->st));
out:
    lrd_mem_free(k->be, LRD_MEM_PINNED, pinned, bytes);
    return status;
}

/* Normal numbers of standard deviation 0.05. */
static lrd_status_t make_noise(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const size_t element = lrd_dtype_bytes(k->s->dtype);
    uint64_t seed = 88172645463325252u;
    LRD_TRY(lrd_mem_alloc(k->be, LRD_MEM_PINNED, NOISE * (element + 4), (void **)&k->noise));
    for (size_t i = 0; i < NOISE; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const double u = (double)(seed >> 33) * 0x1p-31, angle = (double)(i % 1009) / 1009;
        const float x = (float)(0.05 * sqrt(-2 * log(1 - u)) * cos(angle * 6.2831853));
        const uint16_t half = k->s->dtype == LRD_F16 ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
        memcpy(k->noise + NOISE * element + i * 4, &x, 4);
        memcpy(k->noise + i * element, k->s->dtype == LRD_F32 ? (const void *)&x : &half, element);
    }
out:
    return status;
}

/* Gives the user an op, with what it must at least do. */
#define USE_ROTATED(text, rotation, name, ...)                                                     \
    do {                                                                                           \
        op_case_t ready = {text, 0, 0, k->st, k->scratch, LRD_OP_##name, (__VA_ARGS__), rotation}; \
        lrd_count_##name(ready.args, &ready.flops, &ready.bytes);                                  \
        LRD_TRY(k->user->use(k->user, &ready));                                                    \
    } while (0)
#define USE(text, name, ...) USE_ROTATED(text, NULL, name, __VA_ARGS__)

lrd_status_t op_case_enqueue(const op_case_t *c, int64_t time)
{
    const op_rotation_t *r = c->rotation;
    if (r != NULL)
        *r->data = r->first + (size_t)(time % r->copies) * r->bytes;
    switch (c->op) {
#define OP(name, args_t) \
    case LRD_OP_##name:  \
        return lrd_##name(c->st, c->scratch, (const args_t *)c->args);
        LRD_OP_LIST(OP)
#undef OP
    case LRD_N_OPS:
        break;
    }
    return LRD_ERR_INTERNAL;
}

static lrd_status_t prepare(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = k->s->tokens, c = k->s->hidden;
    const lrd_limits_t limits = {.tokens = t,
                                 .max_seqlen = k->s->length,
                                 .hidden = c,
                                 .mlp = 4 * c,
                                 .vocab = k->s->vocab,
                                 .n_heads = k->s->heads,
                                 .head_dim = c / k->s->heads,
                                 .rank = k->s->rank,
                                 .compute = k->s->dtype,
                                 .sequences = SEQUENCES,
                                 .cached_len =
                                     k->s->context > k->s->length ? k->s->context : k->s->length,
                                 .training = true};
    uint64_t *key = NULL;
    float *slope = NULL;
    void *dev_key;
    lrd_mat_t lora_a, lora_b;
    LRD_TRY(lrd_backend_open(k->s->backend, &(lrd_backend_options_t){0, k->s->n_threads, NULL},
                             &k->be));
    LRD_TRY(lrd_stream_create(k->be, &k->st));
    LRD_TRY(make_noise(k));
    k->scratch.bytes = lrd_scratch_bytes(k->be, &limits);
    LRD_TRY(take(k, k->scratch.bytes, &k->scratch.data));
    LRD_TRY(make(k, t, c, k->s->dtype, &k->x));
    LRD_TRY(make(k, t, 3 * c, k->s->dtype, &k->y3));
    LRD_TRY(make(k, t, 4 * c, k->s->dtype, &k->y4));
    LRD_TRY(make(k, t, c, k->s->dtype, &k->dx));
    LRD_TRY(make(k, 1, 4 * c, k->s->dtype, &k->gamma));
    LRD_TRY(make(k, k->s->vocab, c, k->s->dtype, &k->table));
    LRD_TRY(make(k, k->s->rank, c, LRD_F32, &lora_a));
    LRD_TRY(make(k, 3 * c, k->s->rank, LRD_F32, &lora_b));
    LRD_TRY(make(k, t, k->s->rank, LRD_F32, &k->u));
    LRD_TRY(make(k, k->s->rank, c, LRD_F32, &k->da));
    LRD_TRY(make(k, 3 * c, k->s->rank, LRD_F32, &k->db));
    LRD_NEW(key, (size_t)t);
    for (int64_t i = 0; i < t; i++)
        key[i] = (uint64_t)i << 32;
    LRD_TRY(upload(k, key, (size_t)t * sizeof *key, &dev_key));
    LRD_NEW(slope, (size_t)k->s->heads);
    for (int h = 0; h < k->s->heads; h++)
        slope[h] = exp2f(-8.0f * (float)(h + 1) / (float)k->s->heads);
    LRD_TRY(upload(k, slope, (size_t)k->s->heads * sizeof *slope, (void **)&k->slope));
    k->lora = (lrd_lora_t){lrd_const(lora_a), lrd_const(lora_b), 2, {0.1f, 0, 42, dev_key}};
    k->row_begin[1] = (int32_t)t;
    k->rows = (lrd_lora_rows_t){1, &k->lora, k->row_begin};
out:
    lrd_free(key);
    lrd_free(slope);
    return status;
}

static lrd_cmat_t bias(const cases_t *k, int64_t n)
{
    return (lrd_cmat_t){k->gamma.data, 1, n, n, k->s->dtype};
}

/* The four linears of a block, and their backward passes. */
static lrd_status_t use_linears(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const int64_t c = k->s->hidden;
    const int64_t room = lrd_lora_columns(k->be, k->s->rank);
    lrd_mat_t m, pre, wide_x, wide_w;
    LRD_TRY(make(k, 4 * c, c, k->s->dtype, &m));
    LRD_TRY(make(k, k->s->tokens, 4 * c, k->s->dtype, &pre));
    LRD_TRY(make(k, k->s->tokens, c + room, k->s->dtype, &wide_x));
    LRD_TRY(make(k, 3 * c, c + room, k->s->dtype, &wide_w));
    wide_x.cols = wide_w.cols = c;
    const lrd_weight_t up = {lrd_const(m)}, down = {{m.data, c, 4 * c, 4 * c, k->s->dtype}},
                       qkv = {{m.data, 3 * c, c, c, k->s->dtype}}, wide_qkv = {lrd_const(wide_w)},
                       dense = {{m.data, c, c, c, k->s->dtype}};
    const lrd_cmat_t x = lrd_const(k->x), y3 = lrd_const(k->y3), y4 = lrd_const(k->y4);
    USE("query_key_value", linear_forward,
        &(lrd_linear_fwd_t){.x = x, .w = &qkv, .bias = bias(k, 3 * c), .y = k->y3});
    USE("query_key_value, adapter", linear_forward,
        &(lrd_linear_fwd_t){
            .x = x, .w = &qkv, .bias = bias(k, 3 * c), .lora = &k->rows, .y = k->y3, .u = k->u});
    if (room > 0)
        USE("query_key_value, adapter in the product", linear_forward,
            &(lrd_linear_fwd_t){.x = lrd_const(wide_x),
                                .w = &wide_qkv,
                                .bias = bias(k, 3 * c),
                                .lora = &k->rows,
                                .y = k->y3,
                                .u = k->u,
                                .x_room = lrd_room(wide_x, room),
                                .w_room = lrd_room(wide_w, room)});
    USE("dense", linear_forward,
        &(lrd_linear_fwd_t){.x = x, .w = &dense, .bias = bias(k, c), .y = k->dx});
    USE("h_to_4h, GELU", linear_forward,
        &(lrd_linear_fwd_t){.x = x,
                            .w = &up,
                            .bias = bias(k, 4 * c),
                            .epilogue = LRD_EPILOGUE_GELU,
                            .y = k->y4,
                            .pre = pre});
    USE("4h_to_h", linear_forward,
        &(lrd_linear_fwd_t){.x = y4, .w = &down, .bias = bias(k, c), .y = k->dx});
    USE("4h_to_h backward, GELU", linear_backward,
        &(lrd_linear_bwd_t){.dy = x, .w = &down, .pre = lrd_const(pre), .dx = k->y4});
    USE("h_to_4h backward", linear_backward, &(lrd_linear_bwd_t){.dy = y4, .w = &up, .dx = k->dx});
    USE("dense backward", linear_backward, &(lrd_linear_bwd_t){.dy = x, .w = &dense, .dx = k->dx});
    USE("query_key_value backward, adapter", linear_backward,
        &(lrd_linear_bwd_t){.dy = y3,
                            .w = &qkv,
                            .lora = &k->rows,
                            .x = x,
                            .u = lrd_const(k->u),
                            .da = &k->da,
                            .db = &k->db,
                            .dx = k->dx});
out:
    return status;
}

/* One for each token, scattered over 0 .. most - 1. */
static lrd_status_t upload_ids(cases_t *k, int most, int32_t **out)
{
    lrd_status_t status = LRD_OK;
    int32_t *id = NULL;
    LRD_NEW(id, k->s->tokens);
    for (int i = 0; i < k->s->tokens; i++)
        id[i] = (int32_t)((int64_t)i * 7919 % most);
    LRD_TRY(upload(k, id, (size_t)k->s->tokens * sizeof *id, (void **)out));
out:
    lrd_free(id);
    return status;
}

static lrd_status_t use_norms(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const lrd_cmat_t x = lrd_const(k->x), g = bias(k, k->s->hidden);
    lrd_mat_t mean, rstd, y;
    int32_t *ids, *rows;
    LRD_TRY(make(k, 1, k->s->tokens, LRD_F32, &mean));
    LRD_TRY(make(k, 1, k->s->tokens, LRD_F32, &rstd));
    LRD_TRY(make(k, k->s->tokens, k->s->hidden, k->s->dtype, &y));
    LRD_TRY(upload_ids(k, k->s->vocab, &ids));
    LRD_TRY(upload_ids(k, k->s->tokens, &rows));
    USE("embedding", embed_forward,
        &(lrd_embed_fwd_t){ids, lrd_const(k->table), g, g, 1e-5f, k->dx});
    USE("rows gathered", gather_rows, &(lrd_gather_rows_t){x, rows, y});
    USE("GELU", gelu_forward,
        &(lrd_gelu_fwd_t){lrd_const(k->y3),
                          {k->y4.data, k->y3.rows, k->y3.cols, k->y3.ld, k->s->dtype}});
    USE("addnorm", addnorm_forward,
        &(lrd_addnorm_fwd_t){x, lrd_const(k->dx), g, g, 1e-5f, k->dx, y, mean.data, rstd.data});
    USE("norm backward", norm_backward,
        &(lrd_norm_bwd_t){x, lrd_const(y), g, mean.data, rstd.data, true, k->dx});
out:
    return status;
}

static lrd_status_t use_attention(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const int32_t n = k->s->tokens / k->s->length, head_dim = k->s->hidden / k->s->heads;
    int32_t *cu = NULL;
    void *dev_cu;
    lrd_mat_t lse, dqkv;
    LRD_NEW(cu, n + 1);
    for (int32_t i = 0; i <= n; i++)
        cu[i] = i * k->s->length;
    LRD_TRY(upload(k, cu, ((size_t)n + 1) * sizeof *cu, &dev_cu));
    LRD_TRY(make(k, k->s->heads, k->s->tokens, LRD_F32, &lse));
    LRD_TRY(make(k, k->s->tokens, 3 * k->s->hidden, k->s->dtype, &dqkv));
    const lrd_attn_fwd_t f = {.qkv = lrd_const(k->y3),
                              .cu_seqlens = dev_cu,
                              .n_seqs = n,
                              .max_seqlen = k->s->length,
                              .n_heads = k->s->heads,
                              .head_dim = head_dim,
                              .slope = k->slope,
                              .scale = 1 / sqrtf((float)head_dim),
                              .out = k->dx,
                              .lse = lse.data};
    USE("attention", attn_forward, &f);
    USE("attention backward", attn_backward, &(lrd_attn_bwd_t){f, lrd_const(k->x), dqkv});
out:
    lrd_free(cu);
    return status;
}

/* Memory for the cache, with noise. */
static lrd_status_t make_cache(cases_t *k, lrd_kv_cache_t *cache)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = lrd_kv_cache_bytes(k->be, &cache->shape);
    lrd_mat_t memory;
    LRD_TRY(make(k, 1, (int64_t)(bytes / lrd_dtype_bytes(k->s->dtype)), k->s->dtype, &memory));
    cache->data = memory.data;
out:
    return status;
}

static lrd_status_t use_prompt(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const int32_t l = k->s->length, prompt[] = {0, l}, none = 0;
    void *dev_prompt, *dev_none;
    lrd_kv_cache_t cache = {{1, l, k->s->heads, k->s->hidden / k->s->heads, k->s->dtype}, NULL};
    LRD_TRY(make_cache(k, &cache));
    LRD_TRY(upload(k, prompt, sizeof prompt, &dev_prompt));
    LRD_TRY(upload(k, &none, sizeof none, &dev_none));
    USE("attention of a prompt", attn_cached,
        &(lrd_attn_cached_t){.qkv = {k->y3.data, l, k->y3.cols, k->y3.ld, k->s->dtype},
                             .cu_seqlens = dev_prompt,
                             .cache_len = dev_none,
                             .slot = dev_none,
                             .n_seqs = 1,
                             .max_len = l,
                             .slope = k->slope,
                             .scale = 1 / sqrtf((float)cache.shape.head_dim),
                             .cache = cache,
                             .out = {k->dx.data, l, k->dx.cols, k->dx.ld, k->s->dtype}});
out:
    return status;
}

/* A linear of n rows of weights and m columns for single rows; the weights are another part of the head's each
 * time. */
static lrd_status_t use_single_linear(cases_t *k, const char *name, int rows, int64_t n, int64_t m,
                                      lrd_mat_t y)
{
    lrd_status_t status = LRD_OK;
    char label[64];
    const size_t bytes = (size_t)(n * m) * lrd_dtype_bytes(k->s->dtype);
    const bool is_head = y.dtype == LRD_F32, is_up = n == 4 * m;
    const lrd_cmat_t none = {0};
    lrd_weight_t w = {{k->table.data, n, m, m, k->s->dtype}};
    const op_rotation_t weights = {(void **)&w.w.data, k->table.data, bytes,
                                   k->table.rows * k->table.cols / (n * m)};
    snprintf(label, sizeof label, "%d single, %s", rows, name);
    if (weights.copies == 0) /* a small vocabulary */
        goto out;
    USE_ROTATED(label, &weights, linear_forward,
                &(lrd_linear_fwd_t){
                    .x = {m == k->s->hidden ? k->x.data : k->y4.data, rows, m, m, k->s->dtype},
                    .w = &w,
                    .bias = is_head ? none : bias(k, n),
                    .n_single = rows,
                    .epilogue = is_up ? LRD_EPILOGUE_GELU : LRD_EPILOGUE_NONE,
                    .y = {y.data, rows, n, n, y.dtype}});
out:
    return status;
}

static lrd_status_t use_single_attention(cases_t *k, int rows, lrd_kv_cache_t cache)
{
    lrd_status_t status = LRD_OK;
    int32_t cu[SEQUENCES + 1] = {0}, past[SEQUENCES], slot[SEQUENCES];
    void *dev_cu, *dev_past, *dev_slot;
    char label[64];
    for (int32_t i = 0; i < rows; i++) {
        cu[i + 1] = i + 1;
        past[i] = k->s->context - 1;
        slot[i] = i;
    }
    LRD_TRY(upload(k, cu, ((size_t)rows + 1) * sizeof *cu, &dev_cu));
    LRD_TRY(upload(k, past, (size_t)rows * sizeof *past, &dev_past));
    LRD_TRY(upload(k, slot, (size_t)rows * sizeof *slot, &dev_slot));
    snprintf(label, sizeof label, "%d single, attention", rows);
    USE(label, attn_cached,
        &(lrd_attn_cached_t){.qkv = {k->y3.data, rows, k->y3.cols, k->y3.ld, k->s->dtype},
                             .cu_seqlens = dev_cu,
                             .cache_len = dev_past,
                             .slot = dev_slot,
                             .n_seqs = rows,
                             .n_single = rows,
                             .max_len = k->s->context,
                             .slope = k->slope,
                             .scale = 1 / sqrtf((float)cache.shape.head_dim),
                             .cache = cache,
                             .out = {k->dx.data, rows, k->dx.cols, k->dx.ld, k->s->dtype}});
out:
    return status;
}

/* A step of generation. */
static lrd_status_t use_single_rows(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    static const int rows[] = {1, 8, SEQUENCES};
    const int64_t c = k->s->hidden;
    lrd_kv_cache_t cache = {
        {SEQUENCES, k->s->context, k->s->heads, (int32_t)(c / k->s->heads), k->s->dtype}, NULL};
    lrd_mat_t logits;
    LRD_TRY(make_cache(k, &cache));
    LRD_TRY(make(k, SEQUENCES, k->s->vocab, LRD_F32, &logits));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && rows[i] <= k->s->tokens; i++) {
        LRD_TRY(use_single_linear(k, "query_key_value", rows[i], 3 * c, c, k->y3));
        LRD_TRY(use_single_attention(k, rows[i], cache));
        LRD_TRY(use_single_linear(k, "dense", rows[i], c, c, k->dx));
        LRD_TRY(use_single_linear(k, "h_to_4h, GELU", rows[i], 4 * c, c, k->y4));
        LRD_TRY(use_single_linear(k, "4h_to_h", rows[i], c, 4 * c, k->dx));
        LRD_TRY(use_single_linear(k, "head", rows[i], k->s->vocab, c, logits));
    }
out:
    return status;
}

static lrd_status_t use_head(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    int32_t *target;
    void *nll;
    LRD_TRY(upload_ids(k, k->s->vocab, &target));
    LRD_TRY(take(k, sizeof(double), &nll));
    USE("head, every token a target", linear_ce,
        &(lrd_linear_ce_t){.h = lrd_const(k->x),
                           .w = &(lrd_weight_t){lrd_const(k->table)},
                           .target = target,
                           .n_targets = k->s->tokens,
                           .nll = nll,
                           .dh = k->dx});
out:
    return status;
}

/* What an update does with the adapters of ADAPTED blocks; one of them folded into its base. */
static lrd_status_t use_update(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    const int64_t a = (int64_t)k->s->rank * k->s->hidden, n = ADAPTED * 4 * a;
    int64_t begin[2 * ADAPTED + 1] = {0};
    const double lr = 1e-4;
    const lrd_step_state_t first = {.adam_t = 1, .loss_scale = 1, .grad_factor = 1};
    void *dev_lr, *state, *sums;
    lrd_mat_t p, m, v, g, w, merged;
    for (int i = 0; i < ADAPTED; i++) {
        begin[2 * i + 1] = begin[2 * i] + a;
        begin[2 * i + 2] = begin[2 * i] + 4 * a;
    }
    LRD_TRY(upload(k, &lr, sizeof lr, &dev_lr));
    LRD_TRY(upload(k, &first, sizeof first, &state));
    LRD_TRY(take(k, 2 * ADAPTED * sizeof(double), &sums));
    LRD_TRY(make(k, 1, n, LRD_F32, &p));
    LRD_TRY(make(k, 1, n, LRD_F32, &m));
    LRD_TRY(make(k, 1, n, LRD_F32, &v));
    LRD_TRY(make(k, 1, n, LRD_F32, &g));
    LRD_TRY(make(k, 3 * k->s->hidden, k->s->hidden, k->s->dtype, &w));
    LRD_TRY(make(k, 3 * k->s->hidden, k->s->hidden, k->s->dtype, &merged));
    USE("sums of squares", sumsq, &(lrd_sumsq_t){g.data, begin, 2 * ADAPTED, sums});
    USE("AdamW", adamw,
        &(lrd_adamw_t){p.data, m.data, v.data, g.data, n, dev_lr, 0.9, 0.999, 1e-8, 0.01, state});
    USE("sum of two", add, &(lrd_add_t){p.data, g.data, n});
    USE("other type", cast,
        &(lrd_cast_t){p.data, LRD_F32, merged.data, k->s->dtype,
                      n < merged.rows * merged.cols ? n : merged.rows * merged.cols});
    USE("merge", merge_weight,
        &(lrd_merge_weight_t){lrd_const(w), k->lora.a, k->lora.b, 2, merged});
out:
    return status;
}

static lrd_status_t use_sampling(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    static const struct {
        const char *label;
        lrd_sample_row_t row;
    } settings[] = {
        {"largest logits", {.top_p = 1, .repetition_penalty = 1}},
        {"sampling, all", {.temperature = 1, .top_p = 1, .repetition_penalty = 1}},
        {"sampling, top-k",
         {.temperature = 1, .top_p = 1, .top_k = 50, .repetition_penalty = 1.1f}},
        {"sampling, top-p", {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1}},
    };
    const size_t words = (size_t)(k->s->vocab + 31) / 32;
    lrd_sample_row_t row[SAMPLED];
    void *dev_row, *seen, *token;
    lrd_mat_t logits;
    LRD_TRY(make(k, SAMPLED, k->s->vocab, LRD_F32, &logits));
    LRD_TRY(take(k, SAMPLED * words * sizeof(uint32_t), &seen));
    LRD_TRY(lrd_zero(k->st, seen, SAMPLED * words * sizeof(uint32_t)));
    LRD_TRY(take(k, SAMPLED * sizeof(int32_t), &token));
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        for (int r = 0; r < SAMPLED; r++) {
            row[r] = settings[i].row;
            row[r].slot = r;
            row[r].seed = 42;
            row[r].request = (uint64_t)r;
        }
        LRD_TRY(upload(k, row, sizeof row, &dev_row));
        USE(settings[i].label, sample,
            &(lrd_sample_t){lrd_const(logits), dev_row, seen, SAMPLED, token});
    }
out:
    return status;
}

static lrd_status_t use_all(cases_t *k)
{
    lrd_status_t status = LRD_OK;
    char about[256];
    LRD_TRY(prepare(k));
    LRD_TRY(lrd_backend_describe(k->be, about, sizeof about));
    LRD_TRY(k->user->begin(k->user, about));
    LRD_TRY(use_linears(k));
    LRD_TRY(use_norms(k));
    LRD_TRY(use_attention(k));
    LRD_TRY(use_prompt(k));
    LRD_TRY(use_single_rows(k));
    LRD_TRY(use_head(k));
    LRD_TRY(use_update(k));
    LRD_TRY(use_sampling(k));
out:
    return status;
}

static void release(cases_t *k)
{
    while (k->n_allocations > 0) {
        k->n_allocations--;
        lrd_mem_free(k->be, LRD_MEM_DEVICE, k->allocation[k->n_allocations].data,
                     k->allocation[k->n_allocations].bytes);
    }
    if (k->noise != NULL)
        lrd_mem_free(k->be, LRD_MEM_PINNED, k->noise,
                     NOISE * (lrd_dtype_bytes(k->s->dtype) + sizeof(float)));
    lrd_stream_destroy(k->st);
    lrd_backend_close(k->be);
}

lrd_status_t op_cases_run(const op_shapes_t *shapes, op_user_t *user)
{
    cases_t k = {.s = shapes, .user = user};
    const lrd_status_t status = use_all(&k);
    release(&k);
    return status;
}
