/* An op's bits do not depend on the number of threads: 4,096 tokens on 1, 2, 3 and 8 threads, in one
 * block of memory that is compared byte by byte. Dropout is on. */
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
            ((uint16_t *)data)[i] = lrd_f32_to_bf16(x);
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

static void run_ops(lrd_stream_t *st, lrd_scratch_t scratch, block_t *b, lrd_dtype_t d)
{
    static const int32_t begin[] = {0, T}, cu[] = {0, 1000, 1001, 3100, T};
    static const float slope[H] = {0.5f, 0.25f, 0.125f, 0.0625f};
    static uint64_t key[T];
    static int32_t target[T];
    for (int i = 0; i < T; i++) {
        key[i] = (uint64_t)i << 16;
        target[i] = i % 3 == 0 ? -1 : i * 7 % V;
    }
    const lrd_mat_t x = take(b, T, C, d, 1), w = take(b, F, C, d, 2), bias = take(b, 1, F, d, 3);
    const lrd_mat_t la = take(b, R, C, LRD_F32, 4), lb = take(b, F, R, LRD_F32, 5);
    const lrd_mat_t y = take(b, T, F, d, 0), u = take(b, T, R, LRD_F32, 0),
                    dx = take(b, T, C, d, 0);
    const lrd_mat_t da = take(b, R, C, LRD_F32, 0), db = take(b, F, R, LRD_F32, 0);
    const lrd_mat_t out = take(b, T, C, d, 0), dy = take(b, T, F, d, 6), dqkv = take(b, T, F, d, 0);
    const lrd_mat_t head = take(b, V, C, d, 7), dh = take(b, T, C, d, 0),
                    nll = take(b, 1, 2, LRD_F32, 0);
    const lrd_mat_t lse = take(b, H, T, LRD_F32, 0), mean = take(b, 1, T, LRD_F32, 0);
    const lrd_mat_t rstd = take(b, 1, T, LRD_F32, 0), gamma = take(b, 1, C, d, 8),
                    res = take(b, T, C, d, 0);
    const lrd_mat_t norm = take(b, T, C, d, 0), dres = take(b, T, C, d, 0);
    const lrd_weight_t weight = {lrd_const(w)}, head_weight = {lrd_const(head)};
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
    assert_ok(lrd_addnorm_forward(st, scratch,
                                  &(lrd_addnorm_fwd_t){lrd_const(x), lrd_const(out),
                                                       lrd_const(gamma), lrd_const(gamma), 1e-5f,
                                                       res, norm, mean.data, rstd.data}));
    assert_ok(lrd_norm_backward(st, scratch,
                                &(lrd_norm_bwd_t){lrd_const(dx), lrd_const(res), lrd_const(gamma),
                                                  mean.data, rstd.data, false, dres}));
    assert_ok(lrd_linear_ce(st, scratch,
                            &(lrd_linear_ce_t){.h = lrd_const(norm),
                                               .w = &head_weight,
                                               .target = target,
                                               .inv_n_target = 1.0 / T,
                                               .nll = (double *)nll.data,
                                               .dh = dh}));
    assert_ok(lrd_stream_sync(st));
}

static void digest(lrd_dtype_t d, int n_threads, char hex[LRD_SHA256_HEX])
{
    enum { BYTES = 64 << 20 };
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_sha256_t *hash = NULL;
    lrd_scratch_t scratch;
    block_t block = {.used = 0};
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
    assert_ok(lrd_backend_open("cpu", &(lrd_backend_options_t){0, n_threads, NULL}, &be));
    assert_ok(lrd_stream_create(be, &st));
    scratch.bytes = lrd_scratch_bytes(be, &limits);
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, scratch.bytes, &scratch.data));
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, BYTES, (void **)&block.data));
    memset(block.data, 0, BYTES);
    run_ops(st, scratch, &block, d);
    assert_true(block.used <= BYTES);
    assert_ok(lrd_sha256_begin(&hash));
    assert_ok(lrd_sha256_add(hash, block.data, block.used));
    assert_ok(lrd_sha256_end(hash, hex));
    lrd_sha256_free(hash);
    lrd_mem_free(be, LRD_MEM_DEVICE, block.data, BYTES);
    lrd_mem_free(be, LRD_MEM_DEVICE, scratch.data, scratch.bytes);
    lrd_stream_destroy(st);
    lrd_backend_close(be);
}

static void test_threads(void **state)
{
    (void)state;
    static const lrd_dtype_t dtypes[] = {LRD_F32, LRD_BF16};
    static const int threads[] = {2, 3, 8};
    for (int k = 0; k < 2; k++) {
        char one[LRD_SHA256_HEX], many[LRD_SHA256_HEX];
        digest(dtypes[k], 1, one);
        for (size_t i = 0; i < 3; i++) {
            digest(dtypes[k], threads[i], many);
            if (strcmp(one, many) != 0)
                fail_msg("%s: %d threads give other bits than one",
                         lrd_dtype_setting_name(dtypes[k]), threads[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
