/* bench/op_speed.c -- time of every op of one training step beside its operations and bytes; prints
 * one JSON object.
 *
 *   op_speed [--backend NAME] [--dtype D] [--hidden C] [--heads H] [--vocab V] [--tokens T]
 *            [--length L] [--rank R] [--repeat N] [--threads N]
 *
 * Random data in the shapes of a BLOOM block and head (hidden 2560, 32 heads: bloom-3b), T tokens in
 * sequences of L. Each op runs three times, then N times between two synchronizations. "ms" is the mean;
 * "tflops" and "gb_per_s" count what kernels/op_count.c counts: the least that the op must do.
 */
#include "base/clock.h"
#include "base/json_writer.h"
#include "base/mem.h"
#include "kernels/op_check.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ALLOCATIONS = 64, NOISE = 1 << 20, WARM_UP = 3 };

typedef struct bench {
    const char *backend, *dtype_name;
    int hidden, heads, vocab, tokens, length, rank, repeat, n_threads;
    lrd_dtype_t dtype;
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    struct {
        void *data;
        size_t bytes;
    } allocation[MAX_ALLOCATIONS];
    int n_allocations;
    uint8_t *noise; /* pinned, NOISE elements of the compute dtype, then as many float32 */
    lrd_json_writer_t json;
    /* Tensors that several ops share. */
    lrd_mat_t x, y3, y4, dx, gamma;
    lrd_lora_rows_t rows;
    lrd_lora_t lora;
    int32_t row_begin[2];
    lrd_mat_t u, da, db;
} bench_t;

static lrd_status_t take(bench_t *b, size_t bytes, void **out)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(b->n_allocations < MAX_ALLOCATIONS, LRD_ERR_INTERNAL, "too many tensors");
    LRD_TRY(lrd_mem_alloc(b->be, LRD_MEM_DEVICE, bytes, out));
    b->allocation[b->n_allocations].data = *out;
    b->allocation[b->n_allocations++].bytes = bytes;
out:
    return status;
}

/* A matrix of noise. */
static lrd_status_t make(bench_t *b, int64_t rows, int64_t cols, lrd_dtype_t d, lrd_mat_t *out)
{
    lrd_status_t status = LRD_OK;
    const size_t element = lrd_dtype_bytes(d), bytes = (size_t)(rows * cols) * element;
    const uint8_t *from = d == LRD_F32 ? b->noise + NOISE * lrd_dtype_bytes(b->dtype) : b->noise;
    void *data;
    LRD_TRY(take(b, bytes, &data));
    for (size_t at = 0; at < bytes; at += NOISE * element) {
        const size_t left = bytes - at, part = left < NOISE * element ? left : NOISE * element;
        LRD_TRY(lrd_copy(b->st, LRD_COPY_H2D, (uint8_t *)data + at, from, part));
    }
    *out = (lrd_mat_t){data, rows, cols, cols, d};
out:
    return status;
}

static lrd_status_t upload(bench_t *b, const void *data, size_t bytes, void **out)
{
    lrd_status_t status = LRD_OK;
    void *pinned = NULL;
    LRD_TRY(take(b, bytes, out));
    LRD_TRY(lrd_mem_alloc(b->be, LRD_MEM_PINNED, bytes, &pinned));
    memcpy(pinned, data, bytes);
    LRD_TRY(lrd_copy(b->st, LRD_COPY_H2D, *out, pinned, bytes));
    LRD_TRY(lrd_stream_sync(b->st));
out:
    lrd_mem_free(b->be, LRD_MEM_PINNED, pinned, bytes);
    return status;
}

/* Normal numbers of standard deviation 0.05. */
static lrd_status_t make_noise(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const size_t element = lrd_dtype_bytes(b->dtype);
    uint64_t seed = 88172645463325252u;
    LRD_TRY(lrd_mem_alloc(b->be, LRD_MEM_PINNED, NOISE * (element + 4), (void **)&b->noise));
    for (size_t i = 0; i < NOISE; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const double u = (double)(seed >> 33) * 0x1p-31, angle = (double)(i % 1009) / 1009;
        const float x = (float)(0.05 * sqrt(-2 * log(1 - u)) * cos(angle * 6.2831853));
        const uint16_t half = b->dtype == LRD_F16 ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
        memcpy(b->noise + NOISE * element + i * 4, &x, 4);
        memcpy(b->noise + i * element, b->dtype == LRD_F32 ? (const void *)&x : &half, element);
    }
out:
    return status;
}

/* Runs the op and adds its line to the report. */
#define TIME(label, op, ...)                                              \
    do {                                                                  \
        double flops, bytes, begun = 0;                                   \
        for (int k = -WARM_UP; k < b->repeat; k++) {                      \
            if (k == 0) {                                                 \
                LRD_TRY(lrd_stream_sync(b->st));                          \
                begun = lrd_clock_seconds();                              \
            }                                                             \
            LRD_TRY(lrd_##op(b->st, b->scratch, (__VA_ARGS__)));          \
        }                                                                 \
        LRD_TRY(lrd_stream_sync(b->st));                                  \
        const double seconds = (lrd_clock_seconds() - begun) / b->repeat; \
        lrd_count_##op((__VA_ARGS__), &flops, &bytes);                    \
        report(b, label, seconds, flops, bytes);                          \
    } while (0)

static double rounded(double x)
{
    return round(x * 1e4) / 1e4;
}

static void report(bench_t *b, const char *label, double seconds, double flops, double bytes)
{
    lrd_json_key(&b->json, label);
    lrd_json_open(&b->json, '{');
    lrd_json_key(&b->json, "ms");
    lrd_json_real(&b->json, rounded(seconds * 1e3));
    lrd_json_key(&b->json, "tflops");
    lrd_json_real(&b->json, rounded(flops / seconds * 1e-12));
    lrd_json_key(&b->json, "gb_per_s");
    lrd_json_real(&b->json, rounded(bytes / seconds * 1e-9));
    lrd_json_close(&b->json, '}');
}

static lrd_status_t prepare(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = b->tokens, c = b->hidden;
    const lrd_limits_t limits = {.tokens = t,
                                 .max_seqlen = b->length,
                                 .hidden = c,
                                 .mlp = 4 * c,
                                 .vocab = b->vocab,
                                 .n_heads = b->heads,
                                 .head_dim = c / b->heads,
                                 .rank = b->rank,
                                 .compute = b->dtype,
                                 .training = true};
    uint64_t *key = NULL;
    void *dev_key;
    lrd_mat_t lora_a, lora_b;
    LRD_TRY(lrd_backend_open(b->backend, &(lrd_backend_options_t){0, b->n_threads, NULL}, &b->be));
    LRD_TRY(lrd_stream_create(b->be, &b->st));
    LRD_TRY(make_noise(b));
    b->scratch.bytes = lrd_scratch_bytes(b->be, &limits);
    LRD_TRY(take(b, b->scratch.bytes, &b->scratch.data));
    LRD_TRY(make(b, t, c, b->dtype, &b->x));
    LRD_TRY(make(b, t, 3 * c, b->dtype, &b->y3));
    LRD_TRY(make(b, t, 4 * c, b->dtype, &b->y4));
    LRD_TRY(make(b, t, c, b->dtype, &b->dx));
    LRD_TRY(make(b, 1, 4 * c, b->dtype, &b->gamma));
    LRD_TRY(make(b, b->rank, c, LRD_F32, &lora_a));
    LRD_TRY(make(b, 3 * c, b->rank, LRD_F32, &lora_b));
    LRD_TRY(make(b, t, b->rank, LRD_F32, &b->u));
    LRD_TRY(make(b, b->rank, c, LRD_F32, &b->da));
    LRD_TRY(make(b, 3 * c, b->rank, LRD_F32, &b->db));
    LRD_NEW(key, (size_t)t);
    for (int64_t i = 0; i < t; i++)
        key[i] = (uint64_t)i << 32;
    LRD_TRY(upload(b, key, (size_t)t * sizeof *key, &dev_key));
    b->lora = (lrd_lora_t){lrd_const(lora_a), lrd_const(lora_b), 2, {0.1f, 0, 42, dev_key}};
    b->row_begin[1] = (int32_t)t;
    b->rows = (lrd_lora_rows_t){1, &b->lora, b->row_begin};
out:
    lrd_free(key);
    return status;
}

static lrd_cmat_t bias(const bench_t *b, int64_t n)
{
    return (lrd_cmat_t){b->gamma.data, 1, n, n, b->dtype};
}

/* The four linears of a block, and their backward passes. */
static lrd_status_t time_linears(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const int64_t c = b->hidden;
    lrd_mat_t m, pre;
    LRD_TRY(make(b, 4 * c, c, b->dtype, &m));
    LRD_TRY(make(b, b->tokens, 4 * c, b->dtype, &pre));
    const lrd_weight_t up = {lrd_const(m)}, down = {{m.data, c, 4 * c, 4 * c, b->dtype}},
                       qkv = {{m.data, 3 * c, c, c, b->dtype}},
                       dense = {{m.data, c, c, c, b->dtype}};
    const lrd_cmat_t x = lrd_const(b->x), y3 = lrd_const(b->y3), y4 = lrd_const(b->y4);
    TIME("query_key_value", linear_forward,
         &(lrd_linear_fwd_t){.x = x, .w = &qkv, .bias = bias(b, 3 * c), .y = b->y3});
    TIME("query_key_value, adapter", linear_forward,
         &(lrd_linear_fwd_t){
             .x = x, .w = &qkv, .bias = bias(b, 3 * c), .lora = &b->rows, .y = b->y3, .u = b->u});
    TIME("dense", linear_forward,
         &(lrd_linear_fwd_t){.x = x, .w = &dense, .bias = bias(b, c), .y = b->dx});
    TIME("h_to_4h, GELU", linear_forward,
         &(lrd_linear_fwd_t){.x = x,
                             .w = &up,
                             .bias = bias(b, 4 * c),
                             .epilogue = LRD_EPILOGUE_GELU,
                             .y = b->y4,
                             .pre = pre});
    TIME("4h_to_h", linear_forward,
         &(lrd_linear_fwd_t){.x = y4, .w = &down, .bias = bias(b, c), .y = b->dx});
    TIME("4h_to_h backward, GELU", linear_backward,
         &(lrd_linear_bwd_t){.dy = x, .w = &down, .pre = lrd_const(pre), .dx = b->y4});
    TIME("h_to_4h backward", linear_backward, &(lrd_linear_bwd_t){.dy = y4, .w = &up, .dx = b->dx});
    TIME("dense backward", linear_backward, &(lrd_linear_bwd_t){.dy = x, .w = &dense, .dx = b->dx});
    TIME("query_key_value backward, adapter", linear_backward,
         &(lrd_linear_bwd_t){.dy = y3,
                             .w = &qkv,
                             .lora = &b->rows,
                             .x = x,
                             .u = lrd_const(b->u),
                             .da = &b->da,
                             .db = &b->db,
                             .dx = b->dx});
out:
    return status;
}

static lrd_status_t time_norms(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const lrd_cmat_t x = lrd_const(b->x), g = bias(b, b->hidden);
    lrd_mat_t mean, rstd, y;
    LRD_TRY(make(b, 1, b->tokens, LRD_F32, &mean));
    LRD_TRY(make(b, 1, b->tokens, LRD_F32, &rstd));
    LRD_TRY(make(b, b->tokens, b->hidden, b->dtype, &y));
    TIME("addnorm", addnorm_forward,
         &(lrd_addnorm_fwd_t){x, lrd_const(b->dx), g, g, 1e-5f, b->dx, y, mean.data, rstd.data});
    TIME("norm backward", norm_backward,
         &(lrd_norm_bwd_t){x, lrd_const(y), g, mean.data, rstd.data, true, b->dx});
out:
    return status;
}

static lrd_status_t time_attention(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    const int32_t n = b->tokens / b->length;
    int32_t *cu = NULL;
    float *slope = NULL;
    void *dev_cu, *dev_slope;
    lrd_mat_t lse, dqkv;
    LRD_NEW(cu, n + 1);
    LRD_NEW(slope, b->heads);
    for (int32_t i = 0; i <= n; i++)
        cu[i] = i * b->length;
    for (int h = 0; h < b->heads; h++)
        slope[h] = exp2f(-8.0f * (float)(h + 1) / (float)b->heads);
    LRD_TRY(upload(b, cu, ((size_t)n + 1) * sizeof *cu, &dev_cu));
    LRD_TRY(upload(b, slope, (size_t)b->heads * sizeof *slope, &dev_slope));
    LRD_TRY(make(b, b->heads, b->tokens, LRD_F32, &lse));
    LRD_TRY(make(b, b->tokens, 3 * b->hidden, b->dtype, &dqkv));
    const lrd_attn_fwd_t f = {.qkv = lrd_const(b->y3),
                              .cu_seqlens = dev_cu,
                              .n_seqs = n,
                              .max_seqlen = b->length,
                              .n_heads = b->heads,
                              .head_dim = b->hidden / b->heads,
                              .slope = dev_slope,
                              .scale = 1 / sqrtf((float)(b->hidden / b->heads)),
                              .out = b->dx,
                              .lse = lse.data};
    TIME("attention", attn_forward, &f);
    TIME("attention backward", attn_backward, &(lrd_attn_bwd_t){f, lrd_const(b->x), dqkv});
out:
    lrd_free(cu);
    lrd_free(slope);
    return status;
}

static lrd_status_t time_head(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    int32_t *target = NULL;
    void *dev_target, *nll;
    lrd_mat_t w;
    LRD_NEW(target, b->tokens);
    for (int i = 0; i < b->tokens; i++)
        target[i] = (int32_t)((int64_t)i * 7919 % b->vocab);
    LRD_TRY(upload(b, target, (size_t)b->tokens * sizeof *target, &dev_target));
    LRD_TRY(take(b, sizeof(double), &nll));
    LRD_TRY(make(b, b->vocab, b->hidden, b->dtype, &w));
    TIME("head, every token a target", linear_ce,
         &(lrd_linear_ce_t){.h = lrd_const(b->x),
                            .w = &(lrd_weight_t){lrd_const(w)},
                            .target = dev_target,
                            .n_targets = b->tokens,
                            .nll = nll,
                            .dh = b->dx});
out:
    lrd_free(target);
    return status;
}

static lrd_status_t run(bench_t *b)
{
    lrd_status_t status = LRD_OK;
    char about[256];
    LRD_TRY(prepare(b));
    LRD_TRY(lrd_backend_describe(b->be, about, sizeof about));
    lrd_json_open(&b->json, '{');
    lrd_json_key(&b->json, "device");
    lrd_json_text(&b->json, about);
    lrd_json_key(&b->json, "dtype");
    lrd_json_text(&b->json, b->dtype_name);
    lrd_json_key(&b->json, "hidden");
    lrd_json_int(&b->json, b->hidden);
    lrd_json_key(&b->json, "tokens");
    lrd_json_int(&b->json, b->tokens);
    lrd_json_key(&b->json, "length");
    lrd_json_int(&b->json, b->length);
    LRD_TRY(time_linears(b));
    LRD_TRY(time_norms(b));
    LRD_TRY(time_attention(b));
    LRD_TRY(time_head(b));
    lrd_json_close(&b->json, '}');
    LRD_TRY(lrd_json_writer_status(&b->json));
out:
    return status;
}

static void release(bench_t *b)
{
    while (b->n_allocations > 0) {
        b->n_allocations--;
        lrd_mem_free(b->be, LRD_MEM_DEVICE, b->allocation[b->n_allocations].data,
                     b->allocation[b->n_allocations].bytes);
    }
    if (b->noise != NULL)
        lrd_mem_free(b->be, LRD_MEM_PINNED, b->noise,
                     NOISE * (lrd_dtype_bytes(b->dtype) + sizeof(float)));
    lrd_stream_destroy(b->st);
    lrd_backend_close(b->be);
}

/* Fills b from the command line; false: the usage is wrong. */
static bool read_options(bench_t *b, int argc, char **argv)
{
    static const struct option options[] = {{"backend", required_argument, NULL, 'b'},
                                            {"dtype", required_argument, NULL, 'd'},
                                            {"hidden", required_argument, NULL, 'c'},
                                            {"heads", required_argument, NULL, 'h'},
                                            {"vocab", required_argument, NULL, 'v'},
                                            {"tokens", required_argument, NULL, 't'},
                                            {"length", required_argument, NULL, 'l'},
                                            {"rank", required_argument, NULL, 'r'},
                                            {"repeat", required_argument, NULL, 'n'},
                                            {"threads", required_argument, NULL, 'j'},
                                            {0}};
    static const char letters[] = "chvtlrnj";
    int *const numbers[] = {&b->hidden, &b->heads, &b->vocab,  &b->tokens,
                            &b->length, &b->rank,  &b->repeat, &b->n_threads};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        const char *at = strchr(letters, c);
        if (c == 'b')
            b->backend = optarg;
        else if (c == 'd')
            b->dtype_name = optarg;
        else if (at != NULL)
            *numbers[at - letters] = (int)strtol(optarg, NULL, 10);
        else
            return false;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (*numbers[i] < 1)
            return false;
    }
    const int dtype = lrd_dtype_parse(b->dtype_name);
    b->dtype = (lrd_dtype_t)dtype;
    return optind == argc && (dtype == LRD_F32 || dtype == LRD_BF16 || dtype == LRD_F16) &&
           b->hidden % b->heads == 0 && b->tokens % b->length == 0;
}

int main(int argc, char **argv)
{
    lrd_buf_t out = {0};
    bench_t b = {.backend = "auto",
                 .dtype_name = "bfloat16",
                 .hidden = 2560,
                 .heads = 32,
                 .vocab = 250880,
                 .tokens = 8192,
                 .length = 512,
                 .rank = 8,
                 .repeat = 20,
                 .n_threads = 1,
                 .json = {.buf = &out, .indent = 1}};
    if (!read_options(&b, argc, argv)) {
        fprintf(stderr, "usage: op_speed [--backend NAME] [--dtype D] [--hidden C] [--heads H] "
                        "[--vocab V] [--tokens T] [--length L] [--rank R] [--repeat N] "
                        "[--threads N]; H divides C, L divides T\n");
        return 2;
    }
    const lrd_status_t status = run(&b);
    if (status == LRD_OK)
        printf("%s\n", out.data);
    else
        fprintf(stderr, "op_speed: %s\n", lrd_error_text(status));
    lrd_buf_release(&out);
    release(&b);
    return status != LRD_OK;
}
