/* An op's bits do not depend on the number of threads: 4,096 tokens on 1, 2, 3 and 8 threads, and
 * once more on one, in one block of memory that is compared byte by byte. Dropout is on. And a row
 * of a forward op does not depend on the rows after it. */
#include "base/hash.h"
#include "base/mem.h"
#include "kernels/ops.h"
#include "support/test_support.h"

#include <math.h>
#include <string.h>

enum { T = 4096, C = 64, F = 192, R = 8, H = 4, D = 16, V = 601 };

/* Reproducible inputs. */
static void fill(void *data, int64_t n, lrd_dtype_t d, uint64_t seed)
{
    for (int64_t i = 0; i < n; i++) {
        const float x = (float)lrd_test_random(&seed);
        if (d == LRD_F32)
            ((float *)data)[i] = x;
        else
            ((uint16_t *)data)[i] = d == LRD_F16 ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
    }
}

typedef struct block {
    uint8_t *data;
    size_t used;
} block_t;

static lrd_mat_t take(block_t *b, int64_t rows, int64_t cols, lrd_dtype_t d, uint64_t seed)
{
    lrd_mat_t m = {b->data + b->used, rows, cols, cols, d};
    b->used += (size_t)(rows * cols) * lrd_dtype_bytes(d);
    b->used = (b->used + 255) / 256 * 256;
    if (seed != 0)
        fill(m.data, rows * cols, d, seed);
    return m;
}

static const float slope[H] = {0.5f, 0.25f, 0.125f, 0.0625f};
static uint64_t key[T];

static void make_keys(void)
{
    for (int i = 0; i < T; i++)
        key[i] = (uint64_t)i << 16;
}

/* Norm and head, forward and backward. */
static void run_head(lrd_stream_t *st, lrd_scratch_t scratch, block_t *b, lrd_dtype_t d,
                     lrd_cmat_t x, lrd_cmat_t delta, lrd_cmat_t dy)
{
    static int32_t target[T];
    for (int i = 0; i < T; i++)
        target[i] = i % 3 == 0 ? -1 : i * 7 % V;
    const lrd_mat_t head = take(b, V, C, d, 7), dh = take(b, T, C, d, 0);
    const lrd_mat_t nll = take(b, 1, 2, LRD_F32, 0), mean = take(b, 1, T, LRD_F32, 0);
    const lrd_mat_t rstd = take(b, 1, T, LRD_F32, 0), gamma = take(b, 1, C, d, 8);
    const lrd_mat_t res = take(b, T, C, d, 0), norm = take(b, T, C, d, 0);
    const lrd_mat_t dres = take(b, T, C, d, 0), token_nll = take(b, 1, T, LRD_F32, 0);
    const lrd_weight_t head_weight = {lrd_const(head)};
    assert_ok(lrd_addnorm_forward(st, scratch,
                                  &(lrd_addnorm_fwd_t){x, delta, lrd_const(gamma), lrd_const(gamma),
                                                       1e-5f, res, norm, mean.data, rstd.data}));
    assert_ok(lrd_norm_backward(st, scratch,
                                &(lrd_norm_bwd_t){dy, lrd_const(res), lrd_const(gamma), mean.data,
                                                  rstd.data, false, dres}));
    assert_ok(lrd_linear_ce(st, scratch,
                            &(lrd_linear_ce_t){.h = lrd_const(norm),
                                               .w = &head_weight,
                                               .target = target,
                                               .nll = (double *)nll.data,
                                               .token_nll = token_nll.data,
                                               .dh = dh}));
}

static void run_ops(lrd_stream_t *st, lrd_scratch_t scratch, block_t *b, lrd_dtype_t d)
{
    static const int32_t begin[] = {0, T}, cu[] = {0, 1000, 1001, 3100, T};
    make_keys();
    const lrd_mat_t x = take(b, T, C, d, 1), w = take(b, F, C, d, 2), bias = take(b, 1, F, d, 3);
    const lrd_mat_t la = take(b, R, C, LRD_F32, 4), lb = take(b, F, R, LRD_F32, 5);
    const lrd_mat_t y = take(b, T, F, d, 0), u = take(b, T, R, LRD_F32, 0),
                    dx = take(b, T, C, d, 0);
    const lrd_mat_t da = take(b, R, C, LRD_F32, 0), db = take(b, F, R, LRD_F32, 0);
    const lrd_mat_t out = take(b, T, C, d, 0), dy = take(b, T, F, d, 6), dqkv = take(b, T, F, d, 0);
    const lrd_mat_t lse = take(b, H, T, LRD_F32, 0);
    const lrd_weight_t weight = {lrd_const(w)};
    const lrd_lora_t lora = {lrd_const(la), lrd_const(lb), 2, {0.1f, 4, 42, key}};
    const lrd_lora_rows_t rows = {1, &lora, begin};
    const lrd_attn_fwd_t attn = {.qkv = lrd_const(y),
                                 .cu_seqlens = cu,
                                 .n_seqs = 4,
                                 .max_seqlen = 2099,
                                 .n_heads = H,
                                 .head_dim = D,
                                 .slope = slope,
                                 .scale = 0.25f,
                                 .out = out,
                                 .lse = lse.data};
    assert_ok(lrd_linear_forward(st, scratch,
                                 &(lrd_linear_fwd_t){.x = lrd_const(x),
                                                     .w = &weight,
                                                     .bias = lrd_const(bias),
                                                     .lora = &rows,
                                                     .y = y,
                                                     .u = u}));
    assert_ok(lrd_linear_backward(st, scratch,
                                  &(lrd_linear_bwd_t){.dy = lrd_const(dy),
                                                      .w = &weight,
                                                      .lora = &rows,
                                                      .x = lrd_const(x),
                                                      .u = lrd_const(u),
                                                      .da = &da,
                                                      .db = &db,
                                                      .dx = dx}));
    assert_ok(lrd_attn_forward(st, scratch, &attn));
    assert_ok(lrd_attn_backward(st, scratch, &(lrd_attn_bwd_t){attn, lrd_const(x), dqkv}));
    run_head(st, scratch, b, d, lrd_const(x), lrd_const(out), lrd_const(dx));
    assert_ok(lrd_merge_weight(st, scratch,
                               &(lrd_merge_weight_t){.w = lrd_const(w),
                                                     .a = lrd_const(la),
                                                     .b = lrd_const(lb),
                                                     .scale = 2,
                                                     .out = take(b, F, C, d, 0)}));
    assert_ok(lrd_stream_sync(st));
}

typedef struct machine {
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    block_t block;
} machine_t;

enum { BYTES = 64 << 20 };

static machine_t machine_open(lrd_dtype_t d, int n_threads)
{
    machine_t m = {.block = {.used = 0}};
    const lrd_limits_t limits = {.tokens = T,
                                 .max_seqlen = T,
                                 .hidden = C,
                                 .mlp = F,
                                 .vocab = V,
                                 .n_heads = H,
                                 .head_dim = D,
                                 .rank = R,
                                 .compute = d,
                                 .training = true};
    assert_ok(lrd_backend_open("cpu", &(lrd_backend_options_t){0, n_threads, NULL}, &m.be));
    assert_ok(lrd_stream_create(m.be, &m.st));
    m.scratch.bytes = lrd_scratch_bytes(m.be, &limits);
    assert_ok(lrd_mem_alloc(m.be, LRD_MEM_DEVICE, m.scratch.bytes, &m.scratch.data));
    assert_ok(lrd_mem_alloc(m.be, LRD_MEM_DEVICE, BYTES, (void **)&m.block.data));
    memset(m.block.data, 0, BYTES);
    memset(m.scratch.data, 0xff, m.scratch.bytes); /* NaN: no result may come from it */
    return m;
}

static void machine_close(machine_t *m)
{
    assert_true(m->block.used <= BYTES);
    lrd_mem_free(m->be, LRD_MEM_DEVICE, m->block.data, BYTES);
    lrd_mem_free(m->be, LRD_MEM_DEVICE, m->scratch.data, m->scratch.bytes);
    lrd_stream_destroy(m->st);
    lrd_backend_close(m->be);
}

static void digest(lrd_dtype_t d, int n_threads, char hex[LRD_SHA256_HEX])
{
    lrd_sha256_t *hash = NULL;
    machine_t m = machine_open(d, n_threads);
    run_ops(m.st, m.scratch, &m.block, d);
    assert_ok(lrd_sha256_begin(&hash));
    assert_ok(lrd_sha256_add(hash, m.block.data, m.block.used));
    assert_ok(lrd_sha256_end(hash, hex));
    lrd_sha256_free(hash);
    machine_close(&m);
}

static void test_threads(void **state)
{
    (void)state;
    static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16, LRD_F16};
    static const int threads[] = {1, 2, 3, 8};
    for (int k = 0; k < 3; k++) {
        char one[LRD_SHA256_HEX], many[LRD_SHA256_HEX];
        digest(dtypes[k], 1, one);
        for (size_t i = 0; i < 4; i++) {
            digest(dtypes[k], threads[i], many);
            if (strcmp(one, many) != 0)
                fail_msg("%s: %d threads give other bits than the first run on one",
                         lrd_dtype_setting_name(dtypes[k]), threads[i]);
        }
    }
}

/* Outputs of the forward ops on the first n of the T rows. */
typedef struct outputs {
    lrd_mat_t y, u, act, out, res, norm, gelu, embed, token_nll;
} outputs_t;

static lrd_cmat_t first_rows(lrd_mat_t m, int64_t n)
{
    m.rows = n;
    return lrd_const(m);
}

static void forward_attention(machine_t *m, lrd_cmat_t qkv, lrd_mat_t out)
{
    const int32_t n = (int32_t)qkv.rows;
    const int32_t cu[] = {0, n < 13 ? n : 13, n < 213 ? n : 213, n};
    assert_ok(lrd_attn_forward(m->st, m->scratch,
                               &(lrd_attn_fwd_t){.qkv = qkv,
                                                 .cu_seqlens = cu,
                                                 .n_seqs = 3,
                                                 .max_seqlen = n,
                                                 .n_heads = H,
                                                 .head_dim = D,
                                                 .slope = slope,
                                                 .scale = 0.25f,
                                                 .out = out}));
}

static outputs_t forward_rows(machine_t *m, lrd_dtype_t d, int32_t n)
{
    static int32_t target[T];
    static double nll;
    block_t *b = &m->block;
    const int32_t begin[] = {0, n};
    b->used = 0;
    memset(b->data, 0, BYTES);
    make_keys();
    for (int i = 0; i < T; i++)
        target[i] = i * 7 % V;
    const lrd_mat_t x = take(b, T, C, d, 1), w = take(b, F, C, d, 2), bias = take(b, 1, F, d, 3);
    const lrd_mat_t la = take(b, R, C, LRD_F32, 4), lb = take(b, F, R, LRD_F32, 5);
    const lrd_mat_t head = take(b, V, C, d, 7), gamma = take(b, 1, C, d, 8);
    const lrd_mat_t delta = take(b, T, C, d, 9), qkv = take(b, T, F, d, 10);
    const outputs_t o = {take(b, n, F, d, 0), take(b, n, R, LRD_F32, 0), take(b, n, F, d, 0),
                         take(b, n, C, d, 0), take(b, n, C, d, 0),       take(b, n, C, d, 0),
                         take(b, n, F, d, 0), take(b, n, C, d, 0),       take(b, n, 1, LRD_F32, 0)};
    const lrd_weight_t weight = {lrd_const(w)}, head_weight = {lrd_const(head)};
    const lrd_lora_t lora = {lrd_const(la), lrd_const(lb), 2, {0.1f, 4, 42, key}};
    const lrd_lora_rows_t rows = {1, &lora, begin};
    lrd_linear_fwd_t linear = {.x = first_rows(x, n),
                               .w = &weight,
                               .bias = lrd_const(bias),
                               .lora = &rows,
                               .y = o.y,
                               .u = o.u};
    assert_ok(lrd_linear_forward(m->st, m->scratch, &linear));
    linear.y = o.act;
    linear.epilogue = LRD_EPILOGUE_GELU;
    assert_ok(lrd_linear_forward(m->st, m->scratch, &linear));
    forward_attention(m, first_rows(qkv, n), o.out);
    assert_ok(lrd_addnorm_forward(m->st, m->scratch,
                                  &(lrd_addnorm_fwd_t){.x = first_rows(x, n),
                                                       .delta = first_rows(delta, n),
                                                       .gamma = lrd_const(gamma),
                                                       .beta = lrd_const(gamma),
                                                       .eps = 1e-5f,
                                                       .res = o.res,
                                                       .y = o.norm}));
    assert_ok(lrd_linear_ce(m->st, m->scratch,
                            &(lrd_linear_ce_t){.h = first_rows(x, n),
                                               .w = &head_weight,
                                               .target = target,
                                               .nll = &nll,
                                               .token_nll = o.token_nll.data}));
    assert_ok(lrd_gelu_forward(m->st, m->scratch, &(lrd_gelu_fwd_t){first_rows(qkv, n), o.gelu}));
    assert_ok(lrd_embed_forward(m->st, m->scratch,
                                &(lrd_embed_fwd_t){target, lrd_const(head), lrd_const(gamma),
                                                   lrd_const(gamma), 1e-5f, o.embed}));
    return o;
}

static void same_rows(const char *what, lrd_dtype_t d, int32_t n, lrd_mat_t some, lrd_mat_t all)
{
    const size_t row = (size_t)some.cols * lrd_dtype_bytes(some.dtype);
    for (int64_t t = 0; t < n; t++) {
        if (memcmp((uint8_t *)some.data + (size_t)t * row, (uint8_t *)all.data + (size_t)t * row,
                   row) != 0)
            fail_msg("%s, %s: row %ld of the first %d has other bits than among more rows", what,
                     lrd_dtype_setting_name(d), (long)t, n);
    }
}

static void test_rows(void **state)
{
    (void)state;
    static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16, LRD_F16};
    static const int32_t sizes[] = {1, 2, 7, 13, 100, 213, 512, 513, 700, 1024};
    for (int k = 0; k < 3; k++) {
        machine_t all = machine_open(dtypes[k], 2), some = machine_open(dtypes[k], 2);
        const outputs_t a = forward_rows(&all, dtypes[k], 1030);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            const int32_t n = sizes[i];
            const outputs_t s = forward_rows(&some, dtypes[k], n);
            same_rows("linear", dtypes[k], n, s.y, a.y);
            same_rows("linear u", dtypes[k], n, s.u, a.u);
            same_rows("linear with GELU", dtypes[k], n, s.act, a.act);
            same_rows("attention", dtypes[k], n, s.out, a.out);
            same_rows("residual", dtypes[k], n, s.res, a.res);
            same_rows("norm", dtypes[k], n, s.norm, a.norm);
            same_rows("gelu", dtypes[k], n, s.gelu, a.gelu);
            same_rows("embed", dtypes[k], n, s.embed, a.embed);
            same_rows("head", dtypes[k], n, s.token_nll, a.token_nll);
        }
        machine_close(&some);
        machine_close(&all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads), cmocka_unit_test(test_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
