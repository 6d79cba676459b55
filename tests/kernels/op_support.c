#include "op_support.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PINNED = 64 << 20, MAX_LIVE = 64, MAX_KEPT = 128 };

lrd_backend_t *op_be;
lrd_stream_t *op_st;
lrd_scratch_t op_scratch;
const lrd_dtype_t op_dtypes[3] = {LRD_F32, LRD_BF16, LRD_F16};

int op_threads = 2;

static const char *backend_name = "cpu";
static uint8_t *pinned;
static char context[160];
static struct {
    void *data;
    size_t bytes;
} live[MAX_LIVE];
static int n_live;
static ref_mat_t kept[MAX_KEPT];
static int n_kept;

/* How many roundings to the compute dtype lie between the inputs and a result, in the worst case
 * added up: one for each tensor stored in that dtype on the way, the result included, times how
 * much the rest of the op magnifies it. All other arithmetic is float32, where a sum of n terms
 * loses about sqrt(n) roundoffs of its largest partial sum (4 times that is allowed); intermediate
 * float32 values count like stored ones. */
static const struct {
    double f32, half; /* half: BF16 and F16 */
    double device;    /* more of the second on a GPU, which stores an adapter's part of a linear
                         before the product is added to it */
} roundings[OP_N_QUANTITIES] = {
    [OP_COPY] = {1, 1, 0},
    [OP_NORM] = {4, 1, 0}, /* half: y is rounded once; float32: mean, rstd, their product */
    [OP_NORM_BACKWARD] = {8, 1, 0}, /* likewise; the two means are subtracted */
    [OP_LINEAR] = {2, 1, 1},
    [OP_LINEAR_GELU] = {4, 2.2, 1.2}, /* pre is rounded, gelu's slope is up to 1.13; then y */
    /* a GPU rounds u and scale * B before, instead of their product */
    [OP_LINEAR_ROOM] = {2, 1, 2},
    [OP_LINEAR_ROOM_GELU] = {4, 2.2, 2.3},
    /* u, dA, dB: float32 throughout, from inputs as stored. Where a GPU splits B and u into two float16 (its
     * cuda_lora_backward.cu), what is lost of each, 2^-23 of it at most and 2^-24 in the root mean square, adds up like
     * one more roundoff of the sum. */
    [OP_LORA_F32] = {2, 0, 0},
    [OP_LINEAR_DX] = {4, 1, 1.2}, /* float32: times dropout's 1 / (1 - p) and gelu' */
    [OP_GELU] = {4, 1, 0},
    [OP_ATTENTION] = {16, 1, 0}, /* float32: scores of about 8 come to exp with 8 roundoffs */
    /* half: delta is the dot product of dout with `out` as stored; then dqkv itself */
    [OP_ATTENTION_BACKWARD] = {32, 3, 0},
    [OP_HEAD_DH] = {16, 3, 0}, /* half: exp, gradient of the logits, dh */
};

static double roundoff(lrd_dtype_t d)
{
    return d == LRD_F32 ? 0x1p-24 : d == LRD_F16 ? 0x1p-11 : 0x1p-8;
}

double op_bound(op_quantity_t q, lrd_dtype_t compute, double n)
{
    const double r = compute == LRD_F32 ? roundings[q].f32
                     : op_is_device()   ? roundings[q].half + roundings[q].device
                                        : roundings[q].half;
    return r * roundoff(compute) + 4 * sqrt(n) * 0x1p-24;
}

void op_arguments(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--backend") == 0) {
        backend_name = argv[2];
    } else if (argc != 1) {
        fprintf(stderr, "usage: %s [--backend NAME]\n", argv[0]);
        exit(2);
    }
}

bool op_is_device(void)
{
    return strcmp(backend_name, "cuda") == 0;
}

bool op_is_checked(void)
{
    return strcmp(backend_name, "cpu_checked") == 0;
}

void op_open(const lrd_product_options_t *products)
{
    lrd_limits_t limits = {.tokens = 1200,
                           .max_seqlen = 300,
                           .hidden = 512,
                           .mlp = 4352,
                           .vocab = 5120,
                           .n_heads = 8,
                           .head_dim = 128,
                           .rank = 72,
                           .cached_len = 300,
                           .training = true};
    assert_ok(
        lrd_backend_open(backend_name, &(lrd_backend_options_t){0, op_threads, products}, &op_be));
    assert_ok(lrd_stream_create(op_be, &op_st));
    op_scratch.bytes = 0;
    for (int i = 0; i < 3; i++) {
        limits.compute = op_dtypes[i];
        const size_t bytes = lrd_scratch_bytes(op_be, &limits);
        op_scratch.bytes = bytes > op_scratch.bytes ? bytes : op_scratch.bytes;
    }
    assert_ok(lrd_mem_alloc(op_be, LRD_MEM_DEVICE, op_scratch.bytes, &op_scratch.data));
    assert_ok(lrd_mem_alloc(op_be, LRD_MEM_PINNED, PINNED, (void **)&pinned));
}

void op_close(void)
{
    lrd_mem_free(op_be, LRD_MEM_PINNED, pinned, PINNED);
    lrd_mem_free(op_be, LRD_MEM_DEVICE, op_scratch.data, op_scratch.bytes);
    lrd_stream_destroy(op_st);
    lrd_backend_close(op_be);
}

int op_setup(void **state)
{
    (void)state;
    op_open(NULL);
    return 0;
}

int op_teardown(void **state)
{
    (void)state;
    op_close();
    return 0;
}

void *op_device(size_t bytes)
{
    void *p;
    assert_true(n_live < MAX_LIVE);
    bytes += bytes == 0;
    assert_ok(lrd_mem_alloc(op_be, LRD_MEM_DEVICE, bytes, &p));
    live[n_live].data = p;
    live[n_live++].bytes = bytes;
    return p;
}

void *op_upload(const void *data, size_t bytes)
{
    void *p = op_device(bytes);
    assert_true(bytes <= PINNED);
    memcpy(pinned, data, bytes);
    assert_ok(lrd_copy(op_st, LRD_COPY_H2D, p, pinned, bytes));
    assert_ok(lrd_stream_sync(op_st));
    return p;
}

void op_download(const void *data, void *host, size_t bytes)
{
    assert_true(bytes <= PINNED);
    assert_ok(lrd_copy(op_st, LRD_COPY_D2H, pinned, data, bytes));
    assert_ok(lrd_stream_sync(op_st));
    memcpy(host, pinned, bytes);
}

op_mark_t op_mark(void)
{
    return (op_mark_t){n_live, n_kept};
}

void op_free_to(op_mark_t mark)
{
    while (n_live > mark.n_live) {
        n_live--;
        lrd_mem_free(op_be, LRD_MEM_DEVICE, live[n_live].data, live[n_live].bytes);
    }
    while (n_kept > mark.n_kept)
        ref_free(&kept[--n_kept]);
}

void op_free_all(void)
{
    op_free_to((op_mark_t){0, 0});
    context[0] = '\0';
}

ref_mat_t op_zeros(int64_t rows, int64_t cols)
{
    assert_true(n_kept < MAX_KEPT);
    return kept[n_kept++] = ref_new(rows, cols);
}

ref_mat_t op_random(uint64_t *seed, int64_t rows, int64_t cols, double size)
{
    ref_mat_t m = op_zeros(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = size * lrd_test_random(seed);
    return m;
}

static void put(void *row, int64_t i, double v, lrd_dtype_t d)
{
    if (d == LRD_F32)
        ((float *)row)[i] = (float)v;
    else
        ((uint16_t *)row)[i] = d == LRD_F16 ? lrd_f32_to_f16((float)v) : lrd_f32_to_bf16((float)v);
}

static double get(const void *row, int64_t i, lrd_dtype_t d)
{
    if (d == LRD_F32)
        return (double)((const float *)row)[i];
    const uint16_t x = ((const uint16_t *)row)[i];
    return (double)(d == LRD_F16 ? lrd_f16_to_f32(x) : lrd_bf16_to_f32(x));
}

lrd_mat_t op_put(ref_mat_t m, lrd_dtype_t d, int64_t pad)
{
    const int64_t ld = m.cols + pad;
    const size_t e = lrd_dtype_bytes(d), bytes = (size_t)(m.rows * ld) * e;
    uint8_t *host = malloc(bytes + 1);
    memset(host, 0xff, bytes);
    for (int64_t i = 0; i < m.rows; i++) {
        for (int64_t j = 0; j < m.cols; j++) {
            put(host + (size_t)(i * ld) * e, j, m.v[i * m.cols + j], d);
            m.v[i * m.cols + j] = get(host + (size_t)(i * ld) * e, j, d);
        }
    }
    const lrd_mat_t out = {op_upload(host, bytes), m.rows, m.cols, ld, d};
    free(host);
    return out;
}

lrd_mat_t op_empty(int64_t rows, int64_t cols, lrd_dtype_t d, int64_t pad)
{
    ref_mat_t m = op_zeros(rows, cols);
    for (int64_t i = 0; i < rows * cols; i++)
        m.v[i] = 1e4;
    return op_put(m, d, pad);
}

ref_mat_t op_get(lrd_mat_t m)
{
    ref_mat_t r = op_zeros(m.rows, m.cols);
    const size_t e = lrd_dtype_bytes(m.dtype), bytes = (size_t)(m.rows * m.ld) * e;
    const size_t row = (size_t)m.ld * e, used = (size_t)m.cols * e;
    uint8_t *host = malloc(bytes + 1);
    op_download(m.data, host, bytes);
    for (int64_t i = 0; i < m.rows; i++) {
        for (int64_t j = 0; j < m.cols; j++)
            r.v[i * m.cols + j] = get(host + (size_t)i * row, j, m.dtype);
        for (size_t j = used; j < row; j++) {
            if (host[(size_t)i * row + j] != 0xff)
                fail_msg("%s: something was written behind row %ld", context, (long)i);
        }
    }
    free(host);
    return r;
}

void op_context(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
}

void op_near(const char *what, op_quantity_t q, lrd_dtype_t compute, double n, ref_mat_t have,
             ref_mat_t want)
{
    double worst = 0, largest = 1e-300;
    assert_true(have.rows == want.rows && have.cols == want.cols);
    for (int64_t i = 0; i < want.rows * want.cols; i++) {
        const double d = fabs(have.v[i] - want.v[i]);
        if (isnan(d))
            fail_msg("%s (%s, %s; %s): NaN at %ld", what, backend_name,
                     lrd_dtype_setting_name(compute), context, (long)i);
        worst = fmax(worst, d);
        largest = fmax(largest, fabs(want.v[i]));
    }
    if (worst > op_bound(q, compute, n) * largest)
        fail_msg("%s (%s, %s; %s): off by %.3g of the largest, bound %.3g", what, backend_name,
                 lrd_dtype_setting_name(compute), context, worst / largest,
                 op_bound(q, compute, n));
}

void op_check(const char *what, op_quantity_t q, lrd_dtype_t compute, double n, lrd_mat_t have,
              ref_mat_t want)
{
    op_near(what, q, compute, n, op_get(have), want);
}
