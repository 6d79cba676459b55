/* The front functions refuse arguments that do not fit together, before any backend sees them. */
#include "op_support.h"

static float data[4096]; /* never read: every call here is refused */

static lrd_mat_t mat(int64_t rows, int64_t cols)
{
    return (lrd_mat_t){data, rows, cols, cols, LRD_F32};
}

static lrd_cmat_t cmat(int64_t rows, int64_t cols)
{
    return lrd_const(mat(rows, cols));
}

/* `op` with one field changed is refused. */
#define REFUSED(name, op, change, status, text)                              \
    do {                                                                     \
        __typeof__(op) changed = (op);                                       \
        changed.change;                                                      \
        assert_fails(lrd_##name(op_st, op_scratch, &changed), status, text); \
    } while (0)

static void test_embed(void **state)
{
    (void)state;
    static const int32_t token[4] = {0};
    lrd_embed_fwd_t op = {token, cmat(9, 16), cmat(1, 16), cmat(1, 16), 1e-5f, mat(4, 16)};
    REFUSED(embed_forward, op, token = NULL, LRD_ERR_ARG, "token is missing");
    REFUSED(embed_forward, op, table.data = NULL, LRD_ERR_ARG, "table is missing");
    REFUSED(embed_forward, op, table.cols = 15, LRD_ERR_SHAPE, "table");
    REFUSED(embed_forward, op, table.ld = 15, LRD_ERR_SHAPE, "table");
    REFUSED(embed_forward, op, gamma.cols = 8, LRD_ERR_SHAPE, "gamma");
    REFUSED(embed_forward, op, beta.rows = 2, LRD_ERR_SHAPE, "beta");
    REFUSED(embed_forward, op, y.dtype = LRD_F64, LRD_ERR_SHAPE, "not a compute dtype");
    REFUSED(embed_forward, op, table.dtype = LRD_I32, LRD_ERR_SHAPE, "not a compute dtype");
}

static void test_norm(void **state)
{
    (void)state;
    lrd_addnorm_fwd_t op = {cmat(4, 16), cmat(4, 16), cmat(1, 16), cmat(1, 16), 1e-5f,
                            mat(4, 16),  mat(4, 16),  data,        data};
    REFUSED(addnorm_forward, op, x.data = NULL, LRD_ERR_ARG, "x is missing");
    REFUSED(addnorm_forward, op, delta.rows = 3, LRD_ERR_SHAPE, "delta");
    REFUSED(addnorm_forward, op, delta.dtype = LRD_I64, LRD_ERR_SHAPE, "delta");
    REFUSED(addnorm_forward, op, res.data = NULL, LRD_ERR_ARG, "res is missing");
    REFUSED(addnorm_forward, op, res.dtype = LRD_F64, LRD_ERR_SHAPE, "res");
    REFUSED(addnorm_forward, op, y.cols = 8, LRD_ERR_SHAPE, "y is 4 x 8");
    REFUSED(addnorm_forward, op, y.dtype = LRD_U8, LRD_ERR_SHAPE, "y is U8");
    REFUSED(addnorm_forward, op, gamma.data = NULL, LRD_ERR_ARG, "gamma is missing");
    REFUSED(addnorm_forward, op, beta.data = NULL, LRD_ERR_ARG, "beta is missing");
    lrd_norm_bwd_t back = {cmat(4, 16), cmat(4, 16), cmat(1, 16), data, data, false, mat(4, 16)};
    REFUSED(norm_backward, back, res.rows = 5, LRD_ERR_SHAPE, "res");
    REFUSED(norm_backward, back, mean = NULL, LRD_ERR_ARG, "mean is missing");
    REFUSED(norm_backward, back, rstd = NULL, LRD_ERR_ARG, "rstd is missing");
    REFUSED(norm_backward, back, dres.cols = 17, LRD_ERR_SHAPE, "dres");
    REFUSED(norm_backward, back, dy.dtype = LRD_F64, LRD_ERR_SHAPE, "dy");
}

static void test_linear_forward(void **state)
{
    (void)state;
    const lrd_weight_t w = {cmat(24, 16)}, narrow = {cmat(24, 8)};
    const lrd_weight_t half = {{data, 24, 16, 16, LRD_BF16}};
    lrd_linear_fwd_t op = {
        .x = cmat(4, 16), .w = &w, .bias = cmat(1, 24), .y = mat(4, 24), .pre = mat(4, 24)};
    REFUSED(linear_forward, op, w = NULL, LRD_ERR_ARG, "w is missing");
    REFUSED(linear_forward, op, w = &narrow, LRD_ERR_SHAPE, "x is 4 x 16");
    REFUSED(linear_forward, op, w = &half, LRD_ERR_SHAPE, "BF16");
    REFUSED(linear_forward, op, x.dtype = LRD_F64, LRD_ERR_SHAPE, "not a compute dtype");
    REFUSED(linear_forward, op, bias.cols = 16, LRD_ERR_SHAPE, "bias");
    REFUSED(linear_forward, op, bias.dtype = LRD_I32, LRD_ERR_SHAPE, "bias");
    REFUSED(linear_forward, op, y.rows = 3, LRD_ERR_SHAPE, "y is 3 x 24");
    REFUSED(linear_forward, op, y.dtype = LRD_F16, LRD_ERR_SHAPE, "F16");
    REFUSED(linear_forward, op, pre.dtype = LRD_F16, LRD_ERR_SHAPE, "pre");
    REFUSED(linear_forward, op, n_single = 4, LRD_ERR_ARG, "single rows have no pre");
    op.pre.data = NULL;
    REFUSED(linear_forward, op, n_single = 5, LRD_ERR_ARG, "5 of 4 rows");
    REFUSED(linear_forward, op, n_single = -1, LRD_ERR_ARG, "-1 of 4 rows");
}

/* Room for an adapter in the product. */
static void test_room(void **state)
{
    (void)state;
    const lrd_lora_t lora[2] = {{.a = cmat(8, 16), .b = cmat(24, 8), .scale = 1},
                                {.a = cmat(8, 16), .b = cmat(24, 8), .scale = 1}};
    const int32_t begin[3] = {0, 4, 4};
    const lrd_lora_rows_t one = {1, lora, begin}, two = {2, lora, begin};
    const lrd_weight_t w = {{data, 24, 16, 32, LRD_F32}};
    lrd_linear_fwd_t op = {.x = {data, 4, 16, 24, LRD_F32},
                           .w = &w,
                           .lora = &one,
                           .y = mat(4, 24),
                           .u = mat(4, 8),
                           .x_room = {data + 16, 4, 8, 24, LRD_F32},
                           .w_room = {data + 16, 24, 8, 32, LRD_F32}};
    static const char not_behind[] = "not behind x and w", not_one[] = "not one adapter";
    REFUSED(linear_forward, op, x_room.data = NULL, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, w_room.data = NULL, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, x_room.data = data + 17, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, w_room.ld = 24, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, x_room.rows = 3, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, x_room.cols = 9, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, w_room.cols = 16, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, x_room.dtype = LRD_BF16, LRD_ERR_SHAPE, not_behind);
    REFUSED(linear_forward, op, lora = NULL, LRD_ERR_ARG, not_one);
    REFUSED(linear_forward, op, lora = &two, LRD_ERR_ARG, not_one);
    REFUSED(linear_forward, op, n_single = 1, LRD_ERR_ARG, not_one);
}

/* An adapter with one field changed, under a linear that is right. */
#define LORA_REFUSED(change, status, text)                                         \
    do {                                                                           \
        lrd_lora_t lora = {cmat(2, 16), cmat(24, 2), 1, {0.1f, 0, 0, key}};        \
        int32_t begin[] = {0, 4};                                                  \
        lrd_lora_rows_t rows = {1, &lora, begin};                                  \
        lrd_mat_t u = mat(4, 2), da = mat(2, 16), db = mat(24, 2);                 \
        change;                                                                    \
        const lrd_linear_fwd_t f = {                                               \
            .x = cmat(4, 16), .w = &w, .lora = &rows, .y = mat(4, 24), .u = u};    \
        const lrd_linear_bwd_t b = {.dy = cmat(4, 24),                             \
                                    .w = &w,                                       \
                                    .lora = &rows,                                 \
                                    .x = cmat(4, 16),                              \
                                    .u = lrd_const(u),                             \
                                    .da = &da,                                     \
                                    .db = &db};                                    \
        if (da.rows == 2 && db.cols == 2 && da.dtype == LRD_F32)                   \
            assert_fails(lrd_linear_forward(op_st, op_scratch, &f), status, text); \
        assert_fails(lrd_linear_backward(op_st, op_scratch, &b), status, text);    \
    } while (0)

static void test_lora(void **state)
{
    (void)state;
    static const uint64_t key[4];
    const lrd_weight_t w = {cmat(24, 16)};
    LORA_REFUSED(rows.n = 0, LRD_ERR_ARG, "empty lora rows");
    LORA_REFUSED(rows.row_begin = NULL, LRD_ERR_ARG, "empty lora rows");
    LORA_REFUSED(begin[1] = 3, LRD_ERR_SHAPE, "rows 0 to 3, expected 0 to 4");
    LORA_REFUSED(begin[0] = 1, LRD_ERR_SHAPE, "rows 1 to 4");
    LORA_REFUSED(lora.b.data = NULL, LRD_ERR_SHAPE, "adapter 0");
    LORA_REFUSED(lora.a.cols = 15, LRD_ERR_SHAPE, "adapter 0");
    LORA_REFUSED(lora.b.cols = 3, LRD_ERR_SHAPE, "adapter 0");
    LORA_REFUSED(lora.b.rows = 16, LRD_ERR_SHAPE, "adapter 0");
    LORA_REFUSED(lora.a.dtype = LRD_BF16, LRD_ERR_SHAPE, "adapter 0");
    LORA_REFUSED(lora.drop.p = 1, LRD_ERR_ARG, "dropout");
    LORA_REFUSED(lora.drop.p = -0.1f, LRD_ERR_ARG, "dropout");
    LORA_REFUSED(lora.drop.row_key = NULL, LRD_ERR_ARG, "row keys");
    LORA_REFUSED(u.data = NULL, LRD_ERR_SHAPE, "u is");
    LORA_REFUSED(u.cols = 1, LRD_ERR_SHAPE, "u is 4 x 1");
    LORA_REFUSED(u.dtype = LRD_F16, LRD_ERR_SHAPE, "u is");
    LORA_REFUSED(da.rows = 3, LRD_ERR_SHAPE, "da[i]");
    LORA_REFUSED(db.cols = 3, LRD_ERR_SHAPE, "db[i]");
    LORA_REFUSED(da.dtype = LRD_BF16, LRD_ERR_SHAPE, "da[i]");
    const lrd_lora_t two[] = {{.a = cmat(2, 16), .b = cmat(24, 2), .scale = 1}, {.scale = 1}};
    const int32_t falling[] = {0, 5, 4};
    const lrd_lora_rows_t rows = {2, two, falling};
    lrd_linear_fwd_t op = {
        .x = cmat(4, 16), .w = &w, .lora = &rows, .y = mat(4, 24), .u = mat(4, 2)};
    assert_fails(lrd_linear_forward(op_st, op_scratch, &op), LRD_ERR_SHAPE, "decreases");
}

static void test_linear_backward(void **state)
{
    (void)state;
    const lrd_weight_t w = {cmat(24, 16)};
    lrd_linear_bwd_t op = {.dy = cmat(4, 24), .w = &w, .pre = cmat(4, 16), .dx = mat(4, 16)};
    REFUSED(linear_backward, op, dx.data = NULL, LRD_ERR_ARG, "neither dx nor lora");
    REFUSED(linear_backward, op, dx.cols = 24, LRD_ERR_SHAPE, "dx");
    REFUSED(linear_backward, op, dx.dtype = LRD_I8, LRD_ERR_SHAPE, "dx");
    REFUSED(linear_backward, op, dy.cols = 16, LRD_ERR_SHAPE, "dy");
    REFUSED(linear_backward, op, dy.dtype = LRD_BF16, LRD_ERR_SHAPE, "F32");
    REFUSED(linear_backward, op, pre.cols = 24, LRD_ERR_SHAPE, "pre");
    REFUSED(linear_backward, op, w = NULL, LRD_ERR_ARG, "w is missing");
}

static void test_attention(void **state)
{
    (void)state;
    static const int32_t cu[] = {0, 4};
    lrd_attn_fwd_t op = {.qkv = cmat(4, 48),
                         .cu_seqlens = cu,
                         .n_seqs = 1,
                         .max_seqlen = 4,
                         .n_heads = 2,
                         .head_dim = 8,
                         .slope = data,
                         .scale = 1,
                         .out = mat(4, 16),
                         .lse = data};
    REFUSED(attn_forward, op, head_dim = 12, LRD_ERR_UNSUPPORTED, "head size 12");
    REFUSED(attn_forward, op, head_dim = 136, LRD_ERR_UNSUPPORTED, "head size 136");
    REFUSED(attn_forward, op, head_dim = 0, LRD_ERR_UNSUPPORTED, "head size 0");
    REFUSED(attn_forward, op, n_heads = 3, LRD_ERR_SHAPE, "qkv");
    REFUSED(attn_forward, op, n_heads = 0, LRD_ERR_ARG, "0 heads");
    REFUSED(attn_forward, op, n_seqs = -1, LRD_ERR_ARG, "-1 sequences");
    REFUSED(attn_forward, op, max_seqlen = 5, LRD_ERR_ARG, "at most 5 in 4");
    REFUSED(attn_forward, op, out.rows = 3, LRD_ERR_SHAPE, "out");
    REFUSED(attn_forward, op, out.dtype = LRD_F64, LRD_ERR_SHAPE, "out");
    REFUSED(attn_forward, op, qkv.dtype = LRD_I16, LRD_ERR_SHAPE, "qkv");
    REFUSED(attn_forward, op, cu_seqlens = NULL, LRD_ERR_ARG, "cu_seqlens is missing");
    REFUSED(attn_forward, op, slope = NULL, LRD_ERR_ARG, "slope is missing");
    lrd_attn_bwd_t back = {op, cmat(4, 16), mat(4, 48)};
    REFUSED(attn_backward, back, fwd.lse = NULL, LRD_ERR_ARG, "lse is missing");
    REFUSED(attn_backward, back, dout.cols = 8, LRD_ERR_SHAPE, "dout");
    REFUSED(attn_backward, back, dqkv.rows = 5, LRD_ERR_SHAPE, "dqkv");
    REFUSED(attn_backward, back, dqkv.dtype = LRD_F64, LRD_ERR_SHAPE, "dqkv");
}

static void test_others(void **state)
{
    (void)state;
    static const int32_t target[4] = {0};
    const lrd_weight_t w = {cmat(24, 16)}, half = {{data, 24, 16, 16, LRD_F16}};
    static double nll[1];
    lrd_linear_ce_t ce = {
        .h = cmat(4, 16), .w = &w, .target = target, .nll = nll, .dh = mat(4, 16)};
    REFUSED(linear_ce, ce, w = NULL, LRD_ERR_ARG, "w is missing");
    REFUSED(linear_ce, ce, w = &half, LRD_ERR_SHAPE, "F16");
    REFUSED(linear_ce, ce, h.cols = 8, LRD_ERR_SHAPE, "w is 24 x 16");
    REFUSED(linear_ce, ce, target = NULL, LRD_ERR_ARG, "target is missing");
    REFUSED(linear_ce, ce, nll = NULL, LRD_ERR_ARG, "nll is missing");
    REFUSED(linear_ce, ce, n_targets = 5, LRD_ERR_ARG, "5 targets in 4 rows");
    REFUSED(linear_ce, ce, n_targets = -1, LRD_ERR_ARG, "-1 targets");
    REFUSED(linear_ce, ce, dh.rows = 3, LRD_ERR_SHAPE, "dh");
    REFUSED(linear_ce, ce, dh.dtype = LRD_BF16, LRD_ERR_SHAPE, "dh");
    lrd_gelu_fwd_t gelu = {cmat(4, 16), mat(4, 16)};
    REFUSED(gelu_forward, gelu, y.rows = 5, LRD_ERR_SHAPE, "pre");
    REFUSED(gelu_forward, gelu, y.dtype = LRD_BF16, LRD_ERR_SHAPE, "y is BF16");
    REFUSED(gelu_forward, gelu, pre.dtype = LRD_F64, LRD_ERR_SHAPE, "pre is F64");
    lrd_cast_t cast = {data, LRD_F32, data, LRD_BF16, 1};
    REFUSED(cast, cast, dst_dtype = LRD_F64, LRD_ERR_UNSUPPORTED, "from F32 to F64");
    REFUSED(cast, cast, src_dtype = LRD_I32, LRD_ERR_UNSUPPORTED, "from I32 to BF16");
    REFUSED(cast, cast, src = NULL, LRD_ERR_ARG, "src is missing");
    lrd_merge_weight_t merge = {cmat(24, 16), cmat(2, 16), cmat(24, 2), 1, mat(24, 16)};
    REFUSED(merge_weight, merge, a.rows = 0, LRD_ERR_SHAPE, "rank 0");
    REFUSED(merge_weight, merge, a.rows = 3, LRD_ERR_SHAPE, "b is 24 x 2");
    REFUSED(merge_weight, merge, a.cols = 15, LRD_ERR_SHAPE, "a->a is 2 x 15");
    REFUSED(merge_weight, merge, a.dtype = LRD_BF16, LRD_ERR_SHAPE, "a->a is BF16");
    REFUSED(merge_weight, merge, b.dtype = LRD_F16, LRD_ERR_SHAPE, "b is F16");
    REFUSED(merge_weight, merge, b.data = NULL, LRD_ERR_ARG, "b is missing");
    REFUSED(merge_weight, merge, w.dtype = LRD_F64, LRD_ERR_SHAPE, "not a compute dtype");
    REFUSED(merge_weight, merge, w.ld = 15, LRD_ERR_SHAPE, "w is 24 x 16 (ld 15)");
    REFUSED(merge_weight, merge, out.dtype = LRD_F16, LRD_ERR_SHAPE, "out is F16");
    REFUSED(merge_weight, merge, out.rows = 23, LRD_ERR_SHAPE, "out is 23 x 16");
    lrd_add_t add = {data, data, 1};
    REFUSED(add, add, dst = NULL, LRD_ERR_ARG, "dst is missing");
    const lrd_sumsq_t sumsq = {data, NULL, 1, nll};
    assert_fails(lrd_sumsq(op_st, op_scratch, &sumsq), LRD_ERR_ARG, "begin is missing");
    const lrd_step_finish_t finish = {nll, 1, 1, false, NULL};
    assert_fails(lrd_step_finish(op_st, op_scratch, &finish), LRD_ERR_ARG, "state is missing");
    const lrd_step_state_t clock = {0};
    const lrd_adamw_t adamw = {data, data, data, data, 1, NULL, 0.9, 0.999, 1e-8, 0, &clock};
    assert_fails(lrd_adamw(op_st, op_scratch, &adamw), LRD_ERR_ARG, "lr_table is missing");
}

static void test_generation(void **state)
{
    (void)state;
    static int32_t numbers[4];
    static const lrd_sample_row_t row[4];
    static uint32_t seen[4];
    lrd_gather_rows_t gather = {cmat(9, 16), numbers, mat(4, 16)};
    REFUSED(gather_rows, gather, x.data = NULL, LRD_ERR_ARG, "x is missing");
    REFUSED(gather_rows, gather, row = NULL, LRD_ERR_ARG, "row is missing");
    REFUSED(gather_rows, gather, y.cols = 15, LRD_ERR_SHAPE, "x is 9 x 16");
    REFUSED(gather_rows, gather, y.ld = 15, LRD_ERR_SHAPE, "y is 4 x 16 (ld 15)");
    REFUSED(gather_rows, gather, y.dtype = LRD_BF16, LRD_ERR_SHAPE, "y is BF16");
    REFUSED(gather_rows, gather, x.dtype = LRD_F64, LRD_ERR_SHAPE, "x is F64");
    lrd_sample_t op = {cmat(4, 100), row, seen, 1, numbers};
    REFUSED(sample, op, logits.data = NULL, LRD_ERR_ARG, "logits is missing");
    REFUSED(sample, op, logits.ld = 99, LRD_ERR_SHAPE, "ld 99");
    REFUSED(sample, op, logits.dtype = LRD_BF16, LRD_ERR_SHAPE, "logits is BF16, expected F32");
    REFUSED(sample, op, logits.cols = 0, LRD_ERR_SHAPE, "vocabulary of 0");
    REFUSED(sample, op, row = NULL, LRD_ERR_ARG, "row is missing");
    REFUSED(sample, op, token = NULL, LRD_ERR_ARG, "token is missing");
    REFUSED(sample, op, n_slots = 0, LRD_ERR_ARG, "seen has 0 slots");
    lrd_sample_t huge = op;
    huge.logits.cols = huge.logits.ld = (int64_t)INT32_MAX + 1;
    assert_fails(lrd_sample(op_st, op_scratch, &huge), LRD_ERR_SHAPE, "vocabulary of 2147483648");
}

/* Shapes beyond what the scratch was sized for are refused, not written past its end. */
static void test_scratch(void **state)
{
    (void)state;
    if (op_is_checked())
        return; /* it finds out at the synchronization */
    const lrd_weight_t w = {cmat(24, 16)};
    lrd_linear_fwd_t op = {.x = cmat(4, 16), .w = &w, .y = mat(4, 24)};
    const lrd_scratch_t small = {op_scratch.data, 512};
    assert_fails(lrd_linear_forward(op_st, small, &op), LRD_ERR_ARG, "of scratch");
    const lrd_sample_t sample = {
        .logits = cmat(1, 1000), .row = &(lrd_sample_row_t){0}, .token = &(int32_t){0}};
    assert_fails(lrd_sample(op_st, small, &sample), LRD_ERR_ARG, "of scratch");
}

/* cpu_checked's own rules; and names of backends. */
static void test_backends(void **state)
{
    (void)state;
    lrd_backend_t *be = NULL;
    int n;
    const char *const *names = lrd_backend_names(&n);
    assert_int_equal(n, 3);
    assert_string_equal(names[0], "cuda");
    assert_string_equal(names[1], "cpu");
    assert_string_equal(names[2], "cpu_checked");
    assert_fails(lrd_backend_open("tpu", &(lrd_backend_options_t){0, 1, NULL}, &be),
                 LRD_ERR_UNAVAILABLE, "cuda, cpu and cpu_checked");
    assert_null(be);
    if (!op_is_checked())
        return;
    float host[4] = {0}, *dev = op_device(sizeof host);
    assert_fails(lrd_add(op_st, (lrd_scratch_t){0}, &(lrd_add_t){dev, host, 4}), LRD_ERR_ARG,
                 "src is not device memory");
    assert_fails(lrd_add(op_st, (lrd_scratch_t){0}, &(lrd_add_t){dev, dev, 5}), LRD_ERR_ARG,
                 "not device memory"); /* beyond its end */
    assert_fails(lrd_copy(op_st, LRD_COPY_H2D, dev, host, sizeof host), LRD_ERR_ARG, "pinned");
    assert_fails(lrd_zero(op_st, host, sizeof host), LRD_ERR_ARG, "not device memory");
    op_free_all();
}

static void test_attn_cached(void **state)
{
    (void)state;
    static const int32_t numbers[4] = {0};
    lrd_attn_cached_t op = {.qkv = cmat(4, 96),
                            .cu_seqlens = numbers,
                            .cache_len = numbers,
                            .slot = numbers,
                            .n_seqs = 2,
                            .max_len = 8,
                            .slope = data,
                            .scale = 1,
                            .cache = {{2, 8, 2, 16, LRD_F32}, data},
                            .out = mat(4, 32)};
    REFUSED(attn_cached, op, qkv.cols = 95, LRD_ERR_SHAPE, "qkv");
    REFUSED(attn_cached, op, qkv.data = NULL, LRD_ERR_ARG, "qkv is missing");
    REFUSED(attn_cached, op, qkv.dtype = LRD_BF16, LRD_ERR_SHAPE, "the cache F32");
    REFUSED(attn_cached, op, out.rows = 3, LRD_ERR_SHAPE, "out");
    REFUSED(attn_cached, op, out.dtype = LRD_I32, LRD_ERR_SHAPE, "not a compute dtype");
    REFUSED(attn_cached, op, cu_seqlens = NULL, LRD_ERR_ARG, "cu_seqlens is missing");
    REFUSED(attn_cached, op, cache_len = NULL, LRD_ERR_ARG, "cache_len is missing");
    REFUSED(attn_cached, op, slot = NULL, LRD_ERR_ARG, "slot is missing");
    REFUSED(attn_cached, op, slope = NULL, LRD_ERR_ARG, "slope is missing");
    REFUSED(attn_cached, op, cache.data = NULL, LRD_ERR_ARG, "cache.data is missing");
    REFUSED(attn_cached, op, max_len = 9, LRD_ERR_SHAPE, "2 slots of 8");
    REFUSED(attn_cached, op, n_seqs = 0, LRD_ERR_SHAPE, "0 sequences");
    REFUSED(attn_cached, op, n_single = 3, LRD_ERR_ARG, "3 of 2 sequences");
    REFUSED(attn_cached, op, n_single = -1, LRD_ERR_ARG, "-1 of 2 sequences");
    REFUSED(attn_cached, op, cache.shape.head_dim = 12, LRD_ERR_SHAPE, "heads of size 12");
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),          cmocka_unit_test(test_norm),
        cmocka_unit_test(test_linear_forward), cmocka_unit_test(test_lora),
        cmocka_unit_test(test_room),           cmocka_unit_test(test_linear_backward),
        cmocka_unit_test(test_attention),      cmocka_unit_test(test_others),
        cmocka_unit_test(test_generation),     cmocka_unit_test(test_attn_cached),
        cmocka_unit_test(test_scratch),        cmocka_unit_test(test_backends)};
    return cmocka_run_group_tests(tests, op_setup, op_teardown);
}
