/* Operations and bytes of each op: what its time is compared with. */
#include "kernels/op_check.h"

static double size_of(lrd_cmat_t m)
{
    return m.data != NULL ? (double)m.rows * (double)m.cols * (double)lrd_dtype_bytes(m.dtype) : 0;
}

void lrd_count_embed_forward(const lrd_embed_fwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 2 * size_of(lrd_const(a->y));
}

void lrd_count_addnorm_forward(const lrd_addnorm_fwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out =
        size_of(a->x) + size_of(a->delta) + size_of(lrd_const(a->res)) + size_of(lrd_const(a->y));
}

void lrd_count_norm_backward(const lrd_norm_bwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out =
        size_of(a->dy) + size_of(a->res) + (a->accumulate ? 2 : 1) * size_of(lrd_const(a->dres));
}

/* Per token of an adapted linear: u = x A' and u B' forward; du, dA, dB and du A backward. */
static double lora_flops(const lrd_lora_rows_t *lora, int64_t n, int64_t k, double per_weight)
{
    double flops = 0;
    for (int i = 0; lora != NULL && i < lora->n; i++) {
        if (lora->adapter[i].a.data != NULL)
            flops += per_weight * (double)(lora->row_begin[i + 1] - lora->row_begin[i]) *
                     (double)lora->adapter[i].a.rows * (double)(n + k);
    }
    return flops;
}

void lrd_count_linear_forward(const lrd_linear_fwd_t *a, double *flops_out, double *bytes_out)
{
    const int64_t n = a->w->w.rows, k = a->w->w.cols;
    *flops_out = 2.0 * (double)a->x.rows * (double)n * (double)k + lora_flops(a->lora, n, k, 2);
    *bytes_out =
        size_of(a->x) + size_of(a->w->w) + size_of(lrd_const(a->y)) + size_of(lrd_const(a->pre));
}

void lrd_count_linear_backward(const lrd_linear_bwd_t *a, double *flops_out, double *bytes_out)
{
    const int64_t n = a->w->w.rows, k = a->w->w.cols;
    *flops_out = (a->dx.data != NULL ? 2.0 : 0.0) * (double)a->dy.rows * (double)n * (double)k +
                 lora_flops(a->lora, n, k, 4);
    *bytes_out = size_of(a->dy) + size_of(a->w->w) + size_of(lrd_const(a->dx)) + size_of(a->pre) +
                 size_of(a->x);
}

void lrd_count_gelu_forward(const lrd_gelu_fwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = size_of(a->pre) + size_of(lrd_const(a->y));
}

void lrd_count_attn_forward(const lrd_attn_fwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out =
        2.0 * (double)a->qkv.rows * (double)a->max_seqlen * (double)(a->n_heads * a->head_dim);
    *bytes_out = size_of(a->qkv) + size_of(lrd_const(a->out));
}

void lrd_count_attn_backward(const lrd_attn_bwd_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 5.0 * (double)a->fwd.qkv.rows * (double)a->fwd.max_seqlen *
                 (double)(a->fwd.n_heads * a->fwd.head_dim);
    *bytes_out = 2 * size_of(a->fwd.qkv) + 2 * size_of(a->dout);
}

/* Lengths are on the device: as if every sequence had the longest. */
void lrd_count_attn_cached(const lrd_attn_cached_t *a, double *flops_out, double *bytes_out)
{
    const lrd_kv_shape_t *k = &a->cache.shape;
    const double c = (double)k->n_heads * k->head_dim, length = a->max_len;
    *flops_out = 4 * c * length * (double)a->qkv.rows;
    *bytes_out = 2 * c * length * a->n_seqs * (double)lrd_dtype_bytes(k->dtype) + size_of(a->qkv) +
                 size_of(lrd_const(a->out));
}

void lrd_count_linear_ce(const lrd_linear_ce_t *a, double *flops_out, double *bytes_out)
{
    const double passes = a->dh.data != NULL ? 2 : 1;
    const double rows = (double)(a->n_targets > 0 ? a->n_targets : a->h.rows);
    *flops_out = passes * 2.0 * rows * (double)a->w->w.rows * (double)a->w->w.cols;
    *bytes_out = passes * (size_of(a->h) + size_of(a->w->w));
}

void lrd_count_gather_rows(const lrd_gather_rows_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 2 * size_of(lrd_const(a->y));
}

void lrd_count_sample(const lrd_sample_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = size_of(a->logits);
}

void lrd_count_sumsq(const lrd_sumsq_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 4.0 * (double)(a->begin[a->n_tensors] - a->begin[0]);
}

void lrd_count_step_finish(const lrd_step_finish_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 8.0 * a->n_tensors;
}

void lrd_count_adamw(const lrd_adamw_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 28.0 * (double)a->n;
}

void lrd_count_add(const lrd_add_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out = 12.0 * (double)a->n;
}

void lrd_count_cast(const lrd_cast_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 0;
    *bytes_out =
        (double)(lrd_dtype_bytes(a->src_dtype) + lrd_dtype_bytes(a->dst_dtype)) * (double)a->n;
}

void lrd_count_merge_weight(const lrd_merge_weight_t *a, double *flops_out, double *bytes_out)
{
    *flops_out = 2.0 * (double)a->w.rows * (double)a->w.cols * (double)a->a.rows;
    *bytes_out = size_of(a->w) + size_of(a->a) + size_of(a->b) + size_of(lrd_const(a->out));
}
