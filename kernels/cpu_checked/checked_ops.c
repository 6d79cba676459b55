/* Recording: every op copies its arguments with all that they point to on the host,
 * and checks that the rest is device memory. One block per record: the argument struct,
 * then the descriptors behind it. */
#include "base/mem.h"
#include "kernels/cpu_checked/checked_backend.h"

#include <string.h>

extern const lrd_ops_t lrd_cpu_ops;

/* Device memory that a record names; the first wrong one is kept. */
typedef struct visit {
    lrd_stream_t *st;
    const char *wrong;
} visit_t;

static void see(visit_t *v, const void *ptr, size_t bytes, const char *name)
{
    if (ptr != NULL && bytes > 0 && v->wrong == NULL && !checked_is_device(v->st, ptr, bytes))
        v->wrong = name;
}

static void see_mat(visit_t *v, lrd_cmat_t m, const char *name)
{
    if (m.rows > 0 && m.cols > 0)
        see(v, m.data, (size_t)((m.rows - 1) * m.ld + m.cols) * lrd_dtype_bytes(m.dtype), name);
}

#define SEE(ptr, count) see(v, (ptr), (size_t)(count) * sizeof *(ptr), #ptr)
#define SEE_CMAT(m)     see_mat(v, (m), #m)
#define SEE_MAT(m)      see_mat(v, lrd_const(m), #m)

static size_t lora_bytes(const lrd_lora_rows_t *l)
{
    return l == NULL ? 0
                     : sizeof *l + (size_t)l->n * sizeof *l->adapter +
                           ((size_t)l->n + 2) / 2 * 2 * sizeof(int32_t);
}

/* Copies the descriptor to *at and moves it on. NULL stays NULL. */
static const lrd_lora_rows_t *copy_lora(const lrd_lora_rows_t *l, uint8_t **at)
{
    if (l == NULL)
        return NULL;
    lrd_lora_rows_t *copy = (lrd_lora_rows_t *)*at;
    lrd_lora_t *adapter = (lrd_lora_t *)(copy + 1);
    int32_t *row_begin = (int32_t *)(adapter + l->n);
    memcpy(adapter, l->adapter, (size_t)l->n * sizeof *adapter);
    memcpy(row_begin, l->row_begin, ((size_t)l->n + 1) * sizeof *row_begin);
    *copy = (lrd_lora_rows_t){l->n, adapter, row_begin};
    *at += lora_bytes(l);
    return copy;
}

static const void *copy_bytes(const void *from, size_t bytes, uint8_t **at)
{
    void *copy = *at;
    memcpy(copy, from, bytes);
    *at += bytes;
    return copy;
}

static void see_lora(visit_t *v, const lrd_lora_rows_t *l)
{
    for (int i = 0; l != NULL && i < l->n; i++) {
        const lrd_lora_t *adapter = &l->adapter[i];
        SEE_CMAT(adapter->a);
        SEE_CMAT(adapter->b);
        SEE(adapter->drop.row_key, adapter->drop.row_key != NULL ? l->row_begin[l->n] : 0);
    }
}

static void see_embed_forward(visit_t *v, const lrd_embed_fwd_t *a)
{
    SEE(a->token, a->y.rows);
    SEE_CMAT(a->table);
    SEE_CMAT(a->gamma);
    SEE_CMAT(a->beta);
    SEE_MAT(a->y);
}

static void see_addnorm_forward(visit_t *v, const lrd_addnorm_fwd_t *a)
{
    SEE_CMAT(a->x);
    SEE_CMAT(a->delta);
    SEE_CMAT(a->gamma);
    SEE_CMAT(a->beta);
    SEE_MAT(a->res);
    SEE_MAT(a->y);
    SEE(a->mean, a->x.rows);
    SEE(a->rstd, a->x.rows);
}

static void see_norm_backward(visit_t *v, const lrd_norm_bwd_t *a)
{
    SEE_CMAT(a->dy);
    SEE_CMAT(a->res);
    SEE_CMAT(a->gamma);
    SEE(a->mean, a->dy.rows);
    SEE(a->rstd, a->dy.rows);
    SEE_MAT(a->dres);
}

static void see_linear_forward(visit_t *v, const lrd_linear_fwd_t *a)
{
    SEE_CMAT(a->x);
    SEE_CMAT(a->w->w);
    SEE_CMAT(a->bias);
    see_lora(v, a->lora);
    SEE_MAT(a->y);
    SEE_MAT(a->pre);
    SEE_MAT(a->u);
}

static void see_linear_backward(visit_t *v, const lrd_linear_bwd_t *a)
{
    SEE_CMAT(a->dy);
    SEE_CMAT(a->w->w);
    see_lora(v, a->lora);
    SEE_CMAT(a->x);
    SEE_CMAT(a->u);
    for (int i = 0; a->lora != NULL && i < a->lora->n; i++) {
        SEE_MAT(a->da[i]);
        SEE_MAT(a->db[i]);
    }
    SEE_CMAT(a->pre);
    SEE_MAT(a->dx);
}

static void see_gelu_forward(visit_t *v, const lrd_gelu_fwd_t *a)
{
    SEE_CMAT(a->pre);
    SEE_MAT(a->y);
}

static void see_attn_forward(visit_t *v, const lrd_attn_fwd_t *a)
{
    SEE_CMAT(a->qkv);
    SEE(a->cu_seqlens, a->n_seqs + 1);
    SEE(a->slope, a->n_heads);
    SEE_MAT(a->out);
    SEE(a->lse, a->n_heads * a->qkv.rows);
}

static void see_attn_backward(visit_t *v, const lrd_attn_bwd_t *a)
{
    see_attn_forward(v, &a->fwd);
    SEE_CMAT(a->dout);
    SEE_MAT(a->dqkv);
}

static void see_attn_cached(visit_t *v, const lrd_attn_cached_t *a)
{
    SEE_CMAT(a->qkv);
    SEE(a->cu_seqlens, a->n_seqs + 1);
    SEE(a->cache_len, a->n_seqs);
    SEE(a->slot, a->n_seqs);
    SEE(a->slope, a->cache.shape.n_heads);
    see(v, a->cache.data, lrd_kv_cache_bytes(v->st->backend, &a->cache.shape), "cache");
    SEE_MAT(a->out);
}

static void see_linear_ce(visit_t *v, const lrd_linear_ce_t *a)
{
    SEE_CMAT(a->h);
    SEE_CMAT(a->w->w);
    SEE(a->target, a->h.rows);
    SEE(a->call, 1);
    SEE(a->state, 1);
    SEE(a->nll, 1);
    SEE(a->token_nll, a->h.rows);
    SEE_MAT(a->dh);
}

static void see_gather_rows(visit_t *v, const lrd_gather_rows_t *a)
{
    SEE_CMAT(a->x);
    SEE(a->row, a->y.rows);
    SEE_MAT(a->y);
}

static void see_sample(visit_t *v, const lrd_sample_t *a)
{
    SEE_CMAT(a->logits);
    SEE(a->row, a->logits.rows);
    SEE(a->seen, a->n_slots * ((a->logits.cols + 31) / 32));
    SEE(a->token, a->logits.rows);
}

static void see_sumsq(visit_t *v, const lrd_sumsq_t *a)
{
    SEE(a->x, a->begin[a->n_tensors]);
    SEE(a->out, a->n_tensors);
}

static void see_step_finish(visit_t *v, const lrd_step_finish_t *a)
{
    SEE(a->sumsq, a->n_tensors);
    SEE(a->state, 1);
}

static void see_adamw(visit_t *v, const lrd_adamw_t *a)
{
    SEE(a->p, a->n);
    SEE(a->m, a->n);
    SEE(a->v, a->n);
    SEE(a->g, a->n);
    SEE(a->lr_table, 1);
    SEE(a->state, 1);
}

static void see_add(visit_t *v, const lrd_add_t *a)
{
    SEE(a->dst, a->n);
    SEE(a->src, a->n);
}

static void see_cast(visit_t *v, const lrd_cast_t *a)
{
    see(v, a->src, (size_t)a->n * lrd_dtype_bytes(a->src_dtype), "src");
    see(v, a->dst, (size_t)a->n * lrd_dtype_bytes(a->dst_dtype), "dst");
}

static void see_merge_weight(visit_t *v, const lrd_merge_weight_t *a)
{
    SEE_CMAT(a->w);
    SEE_CMAT(a->a);
    SEE_CMAT(a->b);
    SEE_MAT(a->out);
}

/* Bytes behind the argument struct, and the function that moves them there. Most ops have none. */
#define NO_DESCRIPTORS(name, args)                 \
    static size_t name##_extra(const args *a)      \
    {                                              \
        (void)a;                                   \
        return 0;                                  \
    }                                              \
    static void name##_adopt(args *a, uint8_t *at) \
    {                                              \
        (void)a;                                   \
        (void)at;                                  \
    }

NO_DESCRIPTORS(embed_forward, lrd_embed_fwd_t)
NO_DESCRIPTORS(addnorm_forward, lrd_addnorm_fwd_t)
NO_DESCRIPTORS(norm_backward, lrd_norm_bwd_t)
NO_DESCRIPTORS(gelu_forward, lrd_gelu_fwd_t)
NO_DESCRIPTORS(attn_forward, lrd_attn_fwd_t)
NO_DESCRIPTORS(attn_backward, lrd_attn_bwd_t)
NO_DESCRIPTORS(attn_cached, lrd_attn_cached_t)
NO_DESCRIPTORS(gather_rows, lrd_gather_rows_t)
NO_DESCRIPTORS(sample, lrd_sample_t)
NO_DESCRIPTORS(step_finish, lrd_step_finish_t)
NO_DESCRIPTORS(adamw, lrd_adamw_t)
NO_DESCRIPTORS(add, lrd_add_t)
NO_DESCRIPTORS(cast, lrd_cast_t)
NO_DESCRIPTORS(merge_weight, lrd_merge_weight_t)

static size_t linear_forward_extra(const lrd_linear_fwd_t *a)
{
    return sizeof *a->w + lora_bytes(a->lora);
}

static void linear_forward_adopt(lrd_linear_fwd_t *a, uint8_t *at)
{
    a->w = copy_bytes(a->w, sizeof *a->w, &at);
    a->lora = copy_lora(a->lora, &at);
}

static size_t linear_backward_extra(const lrd_linear_bwd_t *a)
{
    const size_t n = a->lora != NULL ? (size_t)a->lora->n : 0;
    return sizeof *a->w + lora_bytes(a->lora) + 2 * n * sizeof *a->da;
}

static void linear_backward_adopt(lrd_linear_bwd_t *a, uint8_t *at)
{
    a->w = copy_bytes(a->w, sizeof *a->w, &at);
    if (a->lora != NULL) {
        const size_t bytes = (size_t)a->lora->n * sizeof *a->da;
        a->da = copy_bytes(a->da, bytes, &at);
        a->db = copy_bytes(a->db, bytes, &at);
    }
    a->lora = copy_lora(a->lora, &at);
}

static size_t linear_ce_extra(const lrd_linear_ce_t *a)
{
    return sizeof *a->w;
}

static void linear_ce_adopt(lrd_linear_ce_t *a, uint8_t *at)
{
    a->w = copy_bytes(a->w, sizeof *a->w, &at);
}

static size_t sumsq_extra(const lrd_sumsq_t *a)
{
    return ((size_t)a->n_tensors + 1) * sizeof *a->begin;
}

static void sumsq_adopt(lrd_sumsq_t *a, uint8_t *at)
{
    a->begin = copy_bytes(a->begin, sumsq_extra(a), &at);
}

#define OP(name, op_args)                                                                          \
    static lrd_status_t run_##name(lrd_stream_t *inner, const record_t *r)                         \
    {                                                                                              \
        return lrd_cpu_ops.name(inner, r->scratch, r->args);                                       \
    }                                                                                              \
    lrd_status_t checked_##name(lrd_stream_t *st, lrd_scratch_t scratch, const op_args *a)         \
    {                                                                                              \
        lrd_status_t status = LRD_OK;                                                              \
        visit_t v = {.st = st};                                                                    \
        see_##name(&v, a);                                                                         \
        LRD_CHECK(v.wrong == NULL, LRD_ERR_ARG, "cpu_checked: " #name ": %s is not device memory", \
                  v.wrong);                                                                        \
        op_args *copy;                                                                             \
        LRD_ALLOC(copy, lrd_malloc(sizeof *copy + name##_extra(a)));                               \
        *copy = *a;                                                                                \
        name##_adopt(copy, (uint8_t *)(copy + 1));                                                 \
        status = checked_record(st, run_##name, scratch, copy);                                    \
    out:                                                                                           \
        return status;                                                                             \
    }
LRD_OP_LIST(OP)
#undef OP
