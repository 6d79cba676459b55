#include "kernels/op_check.h"

/* A matrix that must be there, with these rows and columns. */
#define CHECK_MAT(m, n_rows, n_cols)                                                               \
    do {                                                                                           \
        LRD_CHECK((m).data != NULL, LRD_ERR_ARG, "%s: %s is missing", __func__ + 10, #m);          \
        LRD_CHECK((m).rows == (n_rows) && (m).cols == (n_cols) && (m).ld >= (m).cols,              \
                  LRD_ERR_SHAPE, "%s: %s is %ld x %ld (ld %ld), expected %ld x %ld",               \
                  __func__ + 10, #m, (long)(m).rows, (long)(m).cols, (long)(m).ld, (long)(n_rows), \
                  (long)(n_cols));                                                                 \
    } while (0)

#define CHECK_DTYPE(m, expected)                                                                  \
    LRD_CHECK((m).dtype == (expected), LRD_ERR_SHAPE, "%s: %s is %s, expected %s", __func__ + 10, \
              #m, lrd_dtype_file_name((m).dtype), lrd_dtype_file_name(expected))

#define CHECK_COMPUTE(m)                                                             \
    LRD_CHECK((m).dtype == LRD_F32 || (m).dtype == LRD_BF16 || (m).dtype == LRD_F16, \
              LRD_ERR_SHAPE, "%s: %s is %s, not a compute dtype", __func__ + 10, #m, \
              lrd_dtype_file_name((m).dtype))

#define CHECK_THERE(pointer) \
    LRD_CHECK((pointer) != NULL, LRD_ERR_ARG, "%s: %s is missing", __func__ + 10, #pointer)

lrd_status_t lrd_check_embed_forward(const lrd_embed_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->token);
    CHECK_MAT(a->table, a->table.rows, a->y.cols);
    CHECK_MAT(a->gamma, 1, a->y.cols);
    CHECK_MAT(a->beta, 1, a->y.cols);
    CHECK_MAT(a->y, a->y.rows, a->table.cols);
    CHECK_COMPUTE(a->table);
    CHECK_COMPUTE(a->gamma);
    CHECK_COMPUTE(a->beta);
    CHECK_COMPUTE(a->y);
out:
    return status;
}

lrd_status_t lrd_check_addnorm_forward(const lrd_addnorm_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = a->x.rows, c = a->x.cols;
    CHECK_MAT(a->x, t, c);
    CHECK_COMPUTE(a->x);
    if (a->delta.data != NULL) {
        CHECK_MAT(a->delta, t, c);
        CHECK_COMPUTE(a->delta);
        CHECK_MAT(a->res, t, c);
    }
    if (a->res.data != NULL) {
        CHECK_MAT(a->res, t, c);
        CHECK_COMPUTE(a->res);
    }
    if (a->y.data != NULL) {
        CHECK_MAT(a->y, t, c);
        CHECK_COMPUTE(a->y);
        CHECK_MAT(a->gamma, 1, c);
        CHECK_COMPUTE(a->gamma);
        CHECK_MAT(a->beta, 1, c);
        CHECK_COMPUTE(a->beta);
    }
out:
    return status;
}

lrd_status_t lrd_check_norm_backward(const lrd_norm_bwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = a->dy.rows, c = a->dy.cols;
    CHECK_MAT(a->dy, t, c);
    CHECK_MAT(a->res, t, c);
    CHECK_MAT(a->gamma, 1, c);
    CHECK_MAT(a->dres, t, c);
    CHECK_COMPUTE(a->dy);
    CHECK_COMPUTE(a->res);
    CHECK_COMPUTE(a->gamma);
    CHECK_COMPUTE(a->dres);
    CHECK_THERE(a->mean);
    CHECK_THERE(a->rstd);
out:
    return status;
}

static lrd_status_t check_lora(const char *op, const lrd_lora_rows_t *lora, int64_t t, int64_t n,
                               int64_t k, lrd_cmat_t u)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(lora->n > 0 && lora->adapter != NULL && lora->row_begin != NULL, LRD_ERR_ARG,
              "%s: empty lora rows", op);
    LRD_CHECK(lora->row_begin[0] == 0 && lora->row_begin[lora->n] == t, LRD_ERR_SHAPE,
              "%s: adapters cover rows %d to %d, expected 0 to %ld", op, lora->row_begin[0],
              lora->row_begin[lora->n], (long)t);
    for (int i = 0; i < lora->n; i++) {
        const lrd_lora_t *l = &lora->adapter[i];
        LRD_CHECK(lora->row_begin[i] <= lora->row_begin[i + 1], LRD_ERR_SHAPE,
                  "%s: row_begin decreases at %d", op, i);
        if (l->a.data == NULL)
            continue;
        const int64_t r = l->a.rows;
        LRD_CHECK(
            l->b.data != NULL && l->a.cols == k && l->b.rows == n && l->b.cols == r &&
                l->a.ld >= k && l->b.ld >= r && l->a.dtype == LRD_F32 && l->b.dtype == LRD_F32,
            LRD_ERR_SHAPE,
            "%s: adapter %d has A %ld x %ld and B %ld x %ld, expected R x %ld and %ld x R in F32",
            op, i, (long)l->a.rows, (long)l->a.cols, (long)l->b.rows, (long)l->b.cols, (long)k,
            (long)n);
        LRD_CHECK(l->drop.p >= 0 && l->drop.p < 1 && (l->drop.p == 0 || l->drop.row_key != NULL),
                  LRD_ERR_ARG, "%s: dropout of %g without row keys, or outside 0 to 1", op,
                  (double)l->drop.p);
        LRD_CHECK(u.data != NULL && u.rows == t && u.cols >= r && u.ld >= u.cols &&
                      u.dtype == LRD_F32,
                  LRD_ERR_SHAPE, "%s: u is %ld x %ld, expected %ld x %ld or wider in F32", op,
                  (long)u.rows, (long)u.cols, (long)t, (long)r);
    }
out:
    return status;
}

/* `room` lies behind the columns of m. */
static bool is_behind(lrd_mat_t room, lrd_cmat_t m)
{
    const uint8_t *end = (const uint8_t *)m.data + (size_t)m.cols * lrd_dtype_bytes(m.dtype);
    return room.data == end && room.rows == m.rows && room.cols > 0 && room.dtype == m.dtype &&
           room.ld == m.ld && m.cols + room.cols <= m.ld;
}

static lrd_status_t check_room(const lrd_linear_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    if (a->x_room.data == NULL && a->w_room.data == NULL)
        goto out;
    LRD_CHECK(is_behind(a->x_room, a->x) && is_behind(a->w_room, a->w->w) &&
                  a->x_room.cols == a->w_room.cols,
              LRD_ERR_SHAPE, "linear_forward: room for an adapter that is not behind x and w");
    LRD_CHECK(a->lora != NULL && a->lora->n == 1 && a->lora->adapter[0].a.data != NULL &&
                  a->n_single == 0,
              LRD_ERR_ARG, "linear_forward: room for an adapter, and not one adapter for all rows");
out:
    return status;
}

lrd_status_t lrd_check_linear_forward(const lrd_linear_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->w);
    const int64_t t = a->x.rows, n = a->w->w.rows, k = a->w->w.cols;
    CHECK_MAT(a->x, t, k);
    CHECK_MAT(a->w->w, n, k);
    CHECK_MAT(a->y, t, n);
    CHECK_COMPUTE(a->x);
    CHECK_DTYPE(a->w->w, a->x.dtype);
    if (a->bias.data != NULL) {
        CHECK_MAT(a->bias, 1, n);
        CHECK_COMPUTE(a->bias);
    }
    if (a->pre.data != NULL) {
        CHECK_MAT(a->pre, t, n);
        CHECK_DTYPE(a->pre, a->y.dtype);
    }
    LRD_CHECK(a->y.dtype == a->x.dtype || a->y.dtype == LRD_F32, LRD_ERR_SHAPE,
              "linear_forward: y is neither of the compute dtype nor F32");
    LRD_CHECK(a->n_single >= 0 && a->n_single <= t, LRD_ERR_ARG,
              "linear_forward: %ld of %ld rows are single", (long)a->n_single, (long)t);
    LRD_CHECK(a->n_single == 0 || a->pre.data == NULL, LRD_ERR_ARG,
              "linear_forward: single rows have no pre");
    if (a->lora != NULL)
        LRD_TRY(check_lora("linear_forward", a->lora, t, n, k, lrd_const(a->u)));
    LRD_TRY(check_room(a));
out:
    return status;
}

lrd_status_t lrd_check_linear_backward(const lrd_linear_bwd_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->w);
    const int64_t t = a->dy.rows, n = a->w->w.rows, k = a->w->w.cols;
    CHECK_MAT(a->dy, t, n);
    CHECK_MAT(a->w->w, n, k);
    CHECK_COMPUTE(a->dy);
    CHECK_DTYPE(a->w->w, a->dy.dtype);
    if (a->dx.data != NULL) {
        CHECK_MAT(a->dx, t, k);
        CHECK_COMPUTE(a->dx);
    }
    if (a->pre.data != NULL) {
        CHECK_MAT(a->pre, t, k);
        CHECK_COMPUTE(a->pre);
    }
    LRD_CHECK(a->dx.data != NULL || a->lora != NULL, LRD_ERR_ARG,
              "linear_backward: neither dx nor lora is wanted");
    if (a->lora != NULL) {
        CHECK_MAT(a->x, t, k);
        CHECK_COMPUTE(a->x);
        CHECK_THERE(a->da);
        CHECK_THERE(a->db);
        LRD_TRY(check_lora("linear_backward", a->lora, t, n, k, a->u));
        for (int i = 0; i < a->lora->n; i++) {
            const int64_t r = a->lora->adapter[i].a.rows;
            if (a->lora->adapter[i].a.data == NULL)
                continue;
            CHECK_MAT(a->da[i], r, k);
            CHECK_DTYPE(a->da[i], LRD_F32);
            CHECK_MAT(a->db[i], n, r);
            CHECK_DTYPE(a->db[i], LRD_F32);
        }
    }
out:
    return status;
}

lrd_status_t lrd_check_gelu_forward(const lrd_gelu_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_MAT(a->pre, a->y.rows, a->y.cols);
    CHECK_MAT(a->y, a->pre.rows, a->pre.cols);
    CHECK_COMPUTE(a->pre);
    CHECK_DTYPE(a->y, a->pre.dtype);
out:
    return status;
}

lrd_status_t lrd_check_attn_forward(const lrd_attn_fwd_t *a)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = a->qkv.rows, h = a->n_heads, d = a->head_dim;
    LRD_CHECK(d > 0 && d <= 128 && d % 8 == 0, LRD_ERR_UNSUPPORTED,
              "attention: head size %ld: multiples of 8 up to 128 are supported", (long)d);
    LRD_CHECK(h > 0 && a->n_seqs >= 0 && a->max_seqlen >= 0 && a->max_seqlen <= t, LRD_ERR_ARG,
              "attention: %ld heads, %d sequences of at most %d in %ld tokens", (long)h, a->n_seqs,
              a->max_seqlen, (long)t);
    CHECK_MAT(a->qkv, t, 3 * h * d);
    CHECK_MAT(a->out, t, h * d);
    CHECK_COMPUTE(a->qkv);
    CHECK_COMPUTE(a->out);
    CHECK_THERE(a->cu_seqlens);
    CHECK_THERE(a->slope);
out:
    return status;
}

lrd_status_t lrd_check_attn_backward(const lrd_attn_bwd_t *a)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_check_attn_forward(&a->fwd));
    CHECK_THERE(a->fwd.lse);
    CHECK_MAT(a->dout, a->fwd.out.rows, a->fwd.out.cols);
    CHECK_MAT(a->dqkv, a->fwd.qkv.rows, a->fwd.qkv.cols);
    CHECK_COMPUTE(a->dout);
    CHECK_COMPUTE(a->dqkv);
out:
    return status;
}

lrd_status_t lrd_check_attn_cached(const lrd_attn_cached_t *a)
{
    lrd_status_t status = LRD_OK;
    const lrd_kv_shape_t *k = &a->cache.shape;
    const int64_t t = a->qkv.rows, d = k->head_dim, c = k->n_heads * d;
    LRD_CHECK(k->n_heads > 0 && d > 0 && d <= 128 && d % 8 == 0, LRD_ERR_SHAPE,
              "attn_cached: %d heads of size %d", k->n_heads, k->head_dim);
    LRD_CHECK(a->n_seqs > 0 && k->n_slots > 0 && a->max_len > 0 && a->max_len <= k->capacity,
              LRD_ERR_SHAPE, "attn_cached: %d sequences of up to %d tokens, %d slots of %d",
              a->n_seqs, a->max_len, k->n_slots, k->capacity);
    LRD_CHECK(a->n_single >= 0 && a->n_single <= a->n_seqs && a->n_single <= t, LRD_ERR_ARG,
              "attn_cached: %d of %d sequences and %ld rows are single", a->n_single, a->n_seqs,
              (long)t);
    CHECK_MAT(a->qkv, t, 3 * c);
    CHECK_MAT(a->out, t, c);
    CHECK_COMPUTE(a->qkv);
    CHECK_COMPUTE(a->out);
    LRD_CHECK(a->qkv.dtype == k->dtype, LRD_ERR_SHAPE, "attn_cached: qkv is %s, the cache %s",
              lrd_dtype_file_name(a->qkv.dtype), lrd_dtype_file_name(k->dtype));
    CHECK_THERE(a->cu_seqlens);
    CHECK_THERE(a->cache_len);
    CHECK_THERE(a->slot);
    CHECK_THERE(a->slope);
    CHECK_THERE(a->cache.data);
out:
    return status;
}

lrd_status_t lrd_check_linear_ce(const lrd_linear_ce_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->w);
    CHECK_MAT(a->w->w, a->w->w.rows, a->h.cols);
    CHECK_MAT(a->h, a->h.rows, a->w->w.cols);
    CHECK_COMPUTE(a->h);
    CHECK_DTYPE(a->w->w, a->h.dtype);
    CHECK_THERE(a->target);
    CHECK_THERE(a->nll);
    LRD_CHECK(a->n_targets >= 0 && a->n_targets <= a->h.rows, LRD_ERR_ARG,
              "linear_ce: %ld targets in %ld rows", (long)a->n_targets, (long)a->h.rows);
    if (a->dh.data != NULL) {
        CHECK_MAT(a->dh, a->h.rows, a->h.cols);
        CHECK_DTYPE(a->dh, a->h.dtype);
    }
out:
    return status;
}

lrd_status_t lrd_check_gather_rows(const lrd_gather_rows_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_MAT(a->x, a->x.rows, a->y.cols);
    CHECK_MAT(a->y, a->y.rows, a->x.cols);
    CHECK_COMPUTE(a->x);
    CHECK_DTYPE(a->y, a->x.dtype);
    CHECK_THERE(a->row);
out:
    return status;
}

lrd_status_t lrd_check_sample(const lrd_sample_t *a)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = a->logits.rows, v = a->logits.cols;
    CHECK_MAT(a->logits, n, v);
    CHECK_DTYPE(a->logits, LRD_F32);
    LRD_CHECK(v > 0 && v <= INT32_MAX, LRD_ERR_SHAPE, "sample: a vocabulary of %ld", (long)v);
    CHECK_THERE(a->row);
    CHECK_THERE(a->token);
    LRD_CHECK(a->seen == NULL || a->n_slots > 0, LRD_ERR_ARG, "sample: seen has %d slots",
              a->n_slots);
out:
    return status;
}

lrd_status_t lrd_check_sumsq(const lrd_sumsq_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->x);
    CHECK_THERE(a->begin);
    CHECK_THERE(a->out);
out:
    return status;
}

lrd_status_t lrd_check_step_finish(const lrd_step_finish_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->sumsq);
    CHECK_THERE(a->state);
out:
    return status;
}

lrd_status_t lrd_check_adamw(const lrd_adamw_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->p);
    CHECK_THERE(a->m);
    CHECK_THERE(a->v);
    CHECK_THERE(a->g);
    CHECK_THERE(a->lr_table);
    CHECK_THERE(a->state);
out:
    return status;
}

lrd_status_t lrd_check_add(const lrd_add_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->dst);
    CHECK_THERE(a->src);
out:
    return status;
}

lrd_status_t lrd_check_cast(const lrd_cast_t *a)
{
    lrd_status_t status = LRD_OK;
    CHECK_THERE(a->src);
    CHECK_THERE(a->dst);
    LRD_CHECK((a->dst_dtype == LRD_F32 || a->dst_dtype == LRD_BF16 || a->dst_dtype == LRD_F16) &&
                  (a->src_dtype == LRD_F32 || a->src_dtype == LRD_BF16 || a->src_dtype == LRD_F16 ||
                   a->src_dtype == LRD_F64),
              LRD_ERR_UNSUPPORTED, "cast: from %s to %s", lrd_dtype_file_name(a->src_dtype),
              lrd_dtype_file_name(a->dst_dtype));
out:
    return status;
}

lrd_status_t lrd_check_merge_weight(const lrd_merge_weight_t *a)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = a->w.rows, k = a->w.cols, r = a->a.rows;
    LRD_CHECK(r > 0, LRD_ERR_SHAPE, "merge_weight: rank %ld", (long)r);
    CHECK_MAT(a->w, n, k);
    CHECK_COMPUTE(a->w);
    CHECK_MAT(a->a, r, k);
    CHECK_DTYPE(a->a, LRD_F32);
    CHECK_MAT(a->b, n, r);
    CHECK_DTYPE(a->b, LRD_F32);
    CHECK_MAT(a->out, n, k);
    CHECK_DTYPE(a->out, a->w.dtype);
out:
    return status;
}
