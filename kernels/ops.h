/* kernels/ops.h -- the one contract between the model and a device.
 *
 * Shape letters used in every comment:
 *   T tokens in the packed micro-batch   S sequences packed in it
 *   C hidden size   H heads   D head size (C = H*D)   F MLP size
 *   V vocabulary    R LoRA rank   K/N inputs/outputs of one linear
 * All matrices are row-major; element (i, j) is at data[i*ld + j].
 *
 * Every op only enqueues work on its stream. It returns argument and launch errors at once; device
 * faults surface at the next lrd_stream_sync(). No op allocates device memory, prints, aborts or
 * communicates. Unless said otherwise outputs are overwritten, inputs and outputs do not overlap,
 * and pointers are device memory; argument structs and the descriptors they point to (lrd_weight_t,
 * lrd_lora_rows_t, gradient views) are host memory and are read before the op returns.
 * T may exceed cu_seqlens[S]: rows beyond are padding, whose outputs are unspecified (attention leaves theirs as
 * they are) and decide no other row's; linear_backward, which sums over rows, is given none.
 *
 * "Compute dtype" is the dtype of activations: float32, bfloat16 or float16. Sums are formed in
 * float32 at least. Adapters and their gradients are float32.
 *
 * Bits: an op's result is a function of its arguments alone on a given device: never of the number
 * of threads, of timing, or of what ran before.
 *
 * Single rows (n_single: they come first) may be computed otherwise, as suits few rows. That may decide their
 * bits; so it is for the token to say, not for its company: tokens that were generated are single, and
 * before the head those behind which one is to be chosen, but none of a prompt for being a piece by itself.
 */
#ifndef LRD_KERNELS_OPS_H
#define LRD_KERNELS_OPS_H

#include "base/dtype.h"
#include "base/status.h"
#include "kernels/product_options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A plugin built against another version of this file is refused. */
enum { LRD_OPS_ABI_VERSION = 10 };

typedef struct lrd_ops lrd_ops_t;

/* A device in use. Backends extend it: this is the first member of their own struct. */
typedef struct lrd_backend {
    const lrd_ops_t *ops;
} lrd_backend_t;

typedef struct lrd_event lrd_event_t;

/* Where work of a stream needs other ranks (comm/devcomm.h), who may never do their part: `wait` comes
 * before each wait of the host for the stream, or for a place in it (event). It returns when that is
 * reached, or with the reason why it will not be. */
typedef struct lrd_stream_guard {
    lrd_status_t (*wait)(struct lrd_stream_guard *guard, lrd_event_t *event);
} lrd_stream_guard_t;

/* An ordered queue of work on a device. Extended by backends likewise. */
typedef struct lrd_stream {
    lrd_backend_t *backend;
    lrd_stream_guard_t *guard; /* NULL: it needs this device alone */
} lrd_stream_t;

/* A place in a stream's order, which the host or another stream can wait for. Extended likewise. */
struct lrd_event {
    lrd_backend_t *backend;
    lrd_stream_t *stream; /* where it was recorded last: not destroyed before; NULL: nowhere */
};

/* Work that was taken down once and is asked for again in one call. Extended likewise. */
typedef struct lrd_graph {
    lrd_backend_t *backend;
    size_t n_nodes; /* ops, copies and what they consist of */
} lrd_graph_t;

typedef enum lrd_memkind {
    LRD_MEM_PINNED, /* host memory that copies to and from the device need */
    LRD_MEM_DEVICE
} lrd_memkind_t;

typedef enum lrd_copydir { LRD_COPY_H2D, LRD_COPY_D2H, LRD_COPY_D2D } lrd_copydir_t;

typedef enum lrd_epilogue { LRD_EPILOGUE_NONE, LRD_EPILOGUE_GELU } lrd_epilogue_t;

/* Non-owning views. An absent optional view has data == NULL. */
typedef struct lrd_mat {
    void *data;
    int64_t rows, cols, ld;
    lrd_dtype_t dtype;
} lrd_mat_t;

typedef struct lrd_cmat {
    const void *data;
    int64_t rows, cols, ld;
    lrd_dtype_t dtype;
} lrd_cmat_t;

static inline lrd_cmat_t lrd_const(lrd_mat_t m)
{
    lrd_cmat_t c = {m.data, m.rows, m.cols, m.ld, m.dtype};
    return c;
}

/* Columns behind those of m, for which its rows are far enough apart; none: absent. */
static inline lrd_mat_t lrd_room(lrd_mat_t m, int64_t columns)
{
    uint8_t *end = (uint8_t *)m.data + (size_t)m.cols * lrd_dtype_bytes(m.dtype);
    lrd_mat_t room = {columns > 0 ? end : NULL, m.rows, columns, m.ld, m.dtype};
    return room;
}

/* A frozen weight in compute dtype. (Quantized storage will add its scales here.) */
typedef struct lrd_weight {
    lrd_cmat_t w; /* [N, K] */
} lrd_weight_t;

/* Counter-based dropout (base/philox.h): element (t, j) is kept iff
 *   philox4x32(key = seed, counter = {row_key[t] low, row_key[t] high, site, j / 4}).x[j % 4]
 *   >= threshold(p)
 * and then scaled by 1 / (1 - p). row_key names the token by sample << 32 | epoch << 16 | position
 * in the example, site the linear (4 x global layer + its place in the block): never rank, row or
 * thread, so that the mask is the same for every backend, packing and rank count. */
typedef struct lrd_dropout {
    float p; /* 0 disables: row_key may then be NULL */
    uint32_t site;
    uint64_t seed;
    const uint64_t *row_key; /* [T] */
} lrd_dropout_t;

typedef struct lrd_lora {
    lrd_cmat_t a; /* [R, K] F32; data == NULL: the plain base */
    lrd_cmat_t b; /* [N, R] F32 */
    float scale;  /* lora_alpha / R, or lora_alpha / sqrt(R) for rsLoRA */
    lrd_dropout_t drop;
} lrd_lora_t;

/* Which adapter acts on which rows: adapter[i] on rows row_begin[i] .. row_begin[i + 1] - 1 of x.
 * Training one adapter passes n = 1; a batch of requests for several adapters passes more. */
typedef struct lrd_lora_rows {
    int32_t n;
    const lrd_lora_t *adapter; /* [n], host; ranks may differ */
    const int32_t *row_begin;  /* [n + 1], host; row_begin[0] == 0, row_begin[n] == T */
} lrd_lora_rows_t;

typedef struct lrd_scratch {
    void *data; /* device; contents undefined before and after an op */
    size_t bytes;
} lrd_scratch_t;

/* y = LN(word_embedding[token]); frozen, so it has no backward. */
typedef struct lrd_embed_fwd {
    const int32_t *token; /* [T], each in 0 .. V-1 */
    lrd_cmat_t table;     /* [V, C] */
    lrd_cmat_t gamma;     /* [1, C] */
    lrd_cmat_t beta;      /* [1, C] */
    float eps;
    lrd_mat_t y; /* [T, C] */
} lrd_embed_fwd_t;

/* res = x + delta;  y = LN(res) = (res - mean) * rstd * gamma + beta, variance over C, not C - 1.
 * delta absent: only the norm. y absent: only the residual add, as at a pipeline boundary.
 * Statistics and y come from res as rounded to its dtype. */
typedef struct lrd_addnorm_fwd {
    lrd_cmat_t x;     /* [T, C] */
    lrd_cmat_t delta; /* [T, C] optional */
    lrd_cmat_t gamma; /* [1, C] with y */
    lrd_cmat_t beta;  /* [1, C] with y */
    float eps;
    lrd_mat_t res; /* [T, C] optional (required with delta); may be x or delta itself */
    lrd_mat_t y;   /* [T, C] optional */
    float *mean;   /* [T] optional, with y */
    float *rstd;   /* [T] optional, with y: 1 / sqrt(variance + eps) */
} lrd_addnorm_fwd_t;

/* dres (+)= J_LN(res)^T dy.  gamma and beta are frozen. */
typedef struct lrd_norm_bwd {
    lrd_cmat_t dy;     /* [T, C] */
    lrd_cmat_t res;    /* [T, C] the input the forward normalized */
    lrd_cmat_t gamma;  /* [1, C] */
    const float *mean; /* [T] */
    const float *rstd; /* [T] */
    bool accumulate;   /* += (residual before the norm) or = (residual after it) */
    lrd_mat_t dres;    /* [T, C]; without accumulate it may be dy itself */
} lrd_norm_bwd_t;

/* y = act(x W^T + bias + scale * u B^T),  u = dropout(x) A^T. */
typedef struct lrd_linear_fwd {
    lrd_cmat_t x;                /* [T, K] */
    const lrd_weight_t *w;       /* [N, K] */
    lrd_cmat_t bias;             /* [1, N] optional */
    const lrd_lora_rows_t *lora; /* NULL: no adapter on this linear */
    int64_t n_single;            /* the first so many rows are single */
    lrd_epilogue_t epilogue;
    lrd_mat_t y;   /* [T, N] compute dtype, or F32 */
    lrd_mat_t pre; /* [T, N] value before act, for the backward; optional; not with n_single */
    lrd_mat_t u;   /* [T, largest R] F32, kept for the backward; required with lora */
    /* Room in which the back end may put u and scale * B, rounded to the compute dtype, so that one product makes all
     * of y: lrd_lora_columns columns behind those of x and of w, with their leading dimensions. Contents undefined
     * before and after. Both or neither; only with one adapter for all rows, and without single ones. */
    lrd_mat_t x_room; /* [T, E] */
    lrd_mat_t w_room; /* [N, E] */
} lrd_linear_fwd_t;

/* With g = dy:  du = scale * g B;   dB += scale * g^T u;   dA += du^T dropout(x);
 * dx (+)= (g W + dropout'(du A)) * gelu'(pre).   W and bias are frozen.
 * dA and dB sum over tokens in fixed tiles of at most 1,024, in order. */
typedef struct lrd_linear_bwd {
    lrd_cmat_t dy;               /* [T, N] */
    const lrd_weight_t *w;       /* [N, K] */
    const lrd_lora_rows_t *lora; /* NULL: only dx */
    lrd_cmat_t x;                /* [T, K] required with lora: what the forward saw */
    lrd_cmat_t u;                /* [T, largest R] F32, required with lora */
    const lrd_mat_t *da;         /* [n] of [R, K] F32, accumulated */
    const lrd_mat_t *db;         /* [n] of [N, R] F32, accumulated */
    lrd_cmat_t pre;              /* [T, K] where x = gelu(pre), else absent */
    bool accumulate_dx;
    lrd_mat_t dx; /* [T, K] optional: absent below the first adapter */
} lrd_linear_bwd_t;

/* y = gelu(pre): Megatron's tanh form, 0.5 x (1 + tanh(0.79788456 x (1 + 0.044715 x^2))). */
typedef struct lrd_gelu_fwd {
    lrd_cmat_t pre; /* [T, F] */
    lrd_mat_t y;    /* [T, F] */
} lrd_gelu_fwd_t;

/* out = softmax(scale * q k^T + slope[h] * j, causal) v inside each packed sequence (j: the key's
 * position in its sequence). Nothing of size T*T is written to memory. */
typedef struct lrd_attn_fwd {
    lrd_cmat_t qkv;            /* [T, H*3*D], BLOOM order: head, then q|k|v, then D */
    const int32_t *cu_seqlens; /* [S + 1] token offsets, non-decreasing, from 0 to at most T */
    /* max_seqlen: the longest. Only a back end without graphs may look at it: a graph meets other packings of as
     * many tokens into as many sequences than the one that it was captured with. */
    int32_t n_seqs, max_seqlen;
    int32_t n_heads, head_dim;
    const float *slope; /* [H] ALiBi slopes */
    float scale;        /* 1 / sqrt(D) */
    lrd_mat_t out;      /* [T, H*D] */
    /* [H, T] log-sum-exp of each score row less slope[h] * its own position, for the backward; optional */
    float *lse;
} lrd_attn_fwd_t;

typedef struct lrd_attn_bwd {
    lrd_attn_fwd_t fwd; /* the forward's arguments, outputs now inputs */
    lrd_cmat_t dout;    /* [T, H*D] */
    lrd_mat_t dqkv;     /* [T, H*3*D] */
} lrd_attn_bwd_t;

/* Keys and values of one layer, kept while text is generated: n_slots sequences of up to `capacity`
 * tokens. The layout is the backend's; lrd_kv_cache_bytes says how much memory it takes. */
typedef struct lrd_kv_shape {
    int32_t n_slots, capacity, n_heads, head_dim;
    lrd_dtype_t dtype; /* compute dtype */
} lrd_kv_shape_t;

typedef struct lrd_kv_cache {
    lrd_kv_shape_t shape;
    void *data;
} lrd_kv_cache_t;

/* Attention of new tokens: their keys and values enter the cache behind those that are there, then
 * each attends to all of its sequence up to itself, with ALiBi at the position in the sequence. A
 * prompt may come in one piece or in several, and single tokens follow: the same bits for the same
 * sequence, whatever else the call holds; for rows that are not single, those of attn_forward.
 * Bounds, not checked on the device: new tokens and what is there fit the capacity, slots differ. */
typedef struct lrd_attn_cached {
    lrd_cmat_t qkv;            /* [T, H*3*D] of the new tokens */
    const int32_t *cu_seqlens; /* [S + 1] new tokens of each sequence, as in lrd_attn_fwd_t */
    const int32_t *cache_len;  /* [S] tokens that its slot holds already */
    const int32_t *slot;       /* [S] */
    int32_t n_seqs;
    int32_t n_single;   /* the first so many bring one row each, a single one */
    int32_t max_len;    /* no cache_len + new tokens is more */
    const float *slope; /* [H] */
    float scale;        /* 1 / sqrt(D) */
    lrd_kv_cache_t cache;
    lrd_mat_t out; /* [T, H*D] */
} lrd_attn_cached_t;

/* State of the optimizer's clock. On the device, so that a step needs no answer from the host. */
typedef struct lrd_step_state {
    int64_t adam_t;     /* updates taken: Adam's t; the update in work uses lr_table[adam_t - 1] */
    double grad_norm;   /* of the mean gradient, not clipped; NaN or infinite after a bad update */
    float loss_scale;   /* 1 without float16 */
    float grad_factor;  /* what adamw multiplies gradients with: clip coefficient / loss_scale */
    int32_t good_steps; /* since the scale last changed */
    int32_t bad;        /* this update is not finite: adamw does nothing */
    int32_t bad_in_a_row; /* skipped updates, those of the search for the loss scale apart */
    int32_t reserved;
} lrd_step_state_t;

/* What differs from one micro-batch to the next. Lives on the device, so that the same call of linear_ce
 * can be made again for another one (lrd_graph_begin). */
typedef struct lrd_ce_call {
    double inv_n_target; /* 1 / targets of the whole update, over all ranks */
    int64_t number;      /* of the micro-batch */
} lrd_ce_call_t;

/* nll[number] = sum over targets of -log softmax(h W^T)[target]; [T, V] is never stored.
 * dh = loss_scale * inv_n_target * gradient of that sum; rows without a target get zero, at no cost. */
typedef struct lrd_linear_ce {
    lrd_cmat_t h;          /* [T, C] */
    const lrd_weight_t *w; /* [V, C] */
    const int32_t *target; /* [T] in 0 .. V-1; negative: not a target */
    /* No more of the T are targets, 0: the host does not know; it decides the cost, not the result. */
    int64_t n_targets;
    const lrd_ce_call_t *call;     /* NULL: inv_n_target 1, number 0 */
    const lrd_step_state_t *state; /* loss_scale; NULL for 1 */
    double *nll;                   /* [number + 1] */
    float *token_nll;              /* [T] optional; 0 where there is no target */
    lrd_mat_t dh;                  /* [T, C] optional: absent for evaluation */
} lrd_linear_ce_t;

/* y[i] = x[row[i]]. */
typedef struct lrd_gather_rows {
    lrd_cmat_t x;       /* [., C] */
    const int32_t *row; /* [n] rows of x; a row may come more than once */
    lrd_mat_t y;        /* [n, C], of x's dtype */
} lrd_gather_rows_t;

/* How a row of logits becomes a token. Lives on the device; the caller has checked its values. A
 * temperature > 0 samples; 0 takes the largest logit after the penalty, of equals the lowest id, and
 * nothing else applies. Settings that do nothing: penalty 1, temperature 1, top_k 0, top_p 1,
 * min_p 0. */
typedef struct lrd_sample_row {
    float temperature;        /* finite */
    float top_p, min_p;       /* each 0 .. 1 */
    float repetition_penalty; /* > 0 */
    int32_t top_k;            /* V or more does nothing */
    /* row of `seen`; negative: none, neither read nor written; one that `seen` does not have is
     * LRD_ERR_ARG where the host can see it, and gives token -1 on a GPU */
    int32_t slot;
    uint64_t seed, request; /* with index the name of the random number: lrd_sample_uniform
                                 (base/philox.h) */
    uint32_t index;         /* how many tokens the request was given before this one */
    uint32_t reserved;
} lrd_sample_row_t;

/* token[i] = a choice from row i, as generate() of transformers 5.23 makes it, in this order. Each
 * step sees the scores that those before it left:
 *   penalty      scores of ids seen so far: s < 0 ? s * penalty : s / penalty, once for each id
 *   temperature  s / temperature
 *   top_k        scores below the k-th largest are dropped: equals of it stay
 *   top_p        p = softmax; in ascending order those whose cumulative sum, their own p included,
 *                is at most 1 - top_p are dropped, the largest never. Of equals the highest ids go
 *                first (transformers leaves that to torch.sort, which is not stable)
 *   min_p        p < min_p * the largest p is dropped; p relative to the largest is the same before
 *                and after top_p
 *   choice       the first id whose cumulative softmax in order of ids exceeds the random number
 * Penalty and temperature round to float32; what follows is double.
 *
 * NaN counts as -infinity, +infinity as the largest float32. A row without any finite logit gives
 * token -1, which the caller reports. A row's token depends on its logits, its lrd_sample_row_t and
 * its bits of `seen` alone: never on other rows or on how many there are. */
typedef struct lrd_sample {
    lrd_cmat_t logits;           /* [n, V] F32; not changed */
    const lrd_sample_row_t *row; /* [n] */
    uint32_t *seen; /* [n_slots][(V + 31) / 32] optional. Bit j % 32 of word j / 32: id j is in the
                       prompt or was given. The token's bit is set. Absent: no row has a penalty.
                       No two rows of a call share a slot */
    int32_t n_slots;
    int32_t *token; /* [n] */
} lrd_sample_t;

/* Sum of squares of each tensor in a flat buffer, in double, in a fixed order. */
typedef struct lrd_sumsq {
    const float *x;
    const int64_t *begin; /* [n_tensors + 1] host: tensor i is x[begin[i]] .. x[begin[i + 1] - 1] */
    int32_t n_tensors;
    double *out; /* [n_tensors] */
} lrd_sumsq_t;

/* From all tensors' sums of squares: finite or bad; norm and clip coefficient as
 * torch.nn.utils.clip_grad_norm_; with scaler, loss scale and its counters as
 * torch.amp.GradScaler (backoff 0.5, growth 2 after 2,000 good updates).
 * A good update moves adam_t, a bad one does not. */
typedef struct lrd_step_finish {
    const double *sumsq; /* [n_tensors] of the gradient times loss_scale, global parameter order */
    int32_t n_tensors;
    float max_norm; /* <= 0: no clipping */
    bool scaler;    /* float16 */
    lrd_step_state_t *state;
} lrd_step_finish_t;

/* One update of a flat range, as torch.optim.AdamW (decoupled decay); nothing when state->bad. */
typedef struct lrd_adamw {
    float *p;       /* [n] parameters */
    float *m, *v;   /* [n] moments */
    const float *g; /* [n] gradient times loss_scale */
    int64_t n;
    const double *lr_table; /* [updates of the run] learning rate of each update */
    double beta1, beta2, eps, weight_decay;
    const lrd_step_state_t *state;
} lrd_adamw_t;

/* dst += src over n floats: one node of the reduction tree. */
typedef struct lrd_add {
    float *dst;
    const float *src;
    int64_t n;
} lrd_add_t;

/* dst = src, element by element, rounded to nearest even. F32, BF16, F16; F64 as source.
 * dst and src must not overlap. */
typedef struct lrd_cast {
    const void *src;
    lrd_dtype_t src_dtype;
    void *dst;
    lrd_dtype_t dst_dtype;
    int64_t n;
} lrd_cast_t;

/* out = w + scale * B A for some rows of a weight: an adapter folded in, as PEFT's merge() does. B A
 * is summed in float32 in ascending R, multiplied by scale, added to w, each time rounded to
 * float32, and then rounded once to the dtype of out. An element's bits depend on its row of w and B
 * and its column of A alone, not on how many rows are given. */
typedef struct lrd_merge_weight {
    lrd_cmat_t w; /* [N, K] F32, BF16 or F16 */
    lrd_cmat_t a; /* [R, K] F32 */
    lrd_cmat_t b; /* [N, R] F32 */
    float scale;
    lrd_mat_t out; /* [N, K] dtype of w; may be w itself */
} lrd_merge_weight_t;

#define LRD_OP_LIST(OP)                    \
    OP(embed_forward, lrd_embed_fwd_t)     \
    OP(addnorm_forward, lrd_addnorm_fwd_t) \
    OP(norm_backward, lrd_norm_bwd_t)      \
    OP(linear_forward, lrd_linear_fwd_t)   \
    OP(linear_backward, lrd_linear_bwd_t)  \
    OP(gelu_forward, lrd_gelu_fwd_t)       \
    OP(attn_forward, lrd_attn_fwd_t)       \
    OP(attn_backward, lrd_attn_bwd_t)      \
    OP(attn_cached, lrd_attn_cached_t)     \
    OP(linear_ce, lrd_linear_ce_t)         \
    OP(gather_rows, lrd_gather_rows_t)     \
    OP(sample, lrd_sample_t)               \
    OP(sumsq, lrd_sumsq_t)                 \
    OP(step_finish, lrd_step_finish_t)     \
    OP(adamw, lrd_adamw_t)                 \
    OP(add, lrd_add_t)                     \
    OP(cast, lrd_cast_t)                   \
    OP(merge_weight, lrd_merge_weight_t)

typedef enum lrd_op {
#define OP(name, args) LRD_OP_##name,
    LRD_OP_LIST(OP)
#undef OP
        LRD_N_OPS
} lrd_op_t;

/* Largest shapes a run will pass; the scratch is sized once from it. */
typedef struct lrd_limits {
    int64_t tokens, max_seqlen, hidden, mlp, vocab, n_heads, head_dim, rank;
    lrd_dtype_t compute;
    int64_t cached_len; /* longest sequence in a cache; 0: nothing is generated */
    int64_t sequences;  /* rows of logits that `sample` is given, and single rows; 0: neither */
    bool training;      /* backward ops will run */
} lrd_limits_t;

/* What a backend is asked when it is opened. */
typedef struct lrd_backend_options {
    int device_index; /* the rank's number on its host: its device, modulo those it sees */
    int n_threads;    /* CPU threads; > 0 */
    const lrd_product_options_t *products; /* NULL: its own rules, float32 as it is */
} lrd_backend_options_t;

enum { LRD_DEVICE_ID = 48 }; /* bytes of a device's name among all others */
enum { LRD_SOFTWARE = 512 }; /* bytes of lrd_backend_software's text */

/* The table that a backend fills. Call through the front functions below. */
struct lrd_ops {
    uint32_t abi_version;   /* first: see kernels/plugin.h */
    const char *name;       /* "cpu" */
    bool reads_host_memory; /* ops take ordinary host pointers: mapped weights serve in place */
    bool has_graphs;        /* false: the functions graph_... may be NULL */

    lrd_status_t (*open)(const lrd_backend_options_t *options, lrd_backend_t **backend_out);
    void (*close)(lrd_backend_t *be);
    /* For people; devices that are described alike are equally fast. */
    lrd_status_t (*describe)(lrd_backend_t *be, char *text, size_t size);
    void (*device_id)(lrd_backend_t *be, char text[LRD_DEVICE_ID]); /* NULL: there is none */
    void (*software)(lrd_backend_t *be, char text[LRD_SOFTWARE]);   /* NULL: nothing */
    lrd_status_t (*mem_info)(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out);
    lrd_status_t (*mem_alloc)(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes, void **ptr_out);
    void (*mem_free)(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes);
    lrd_status_t (*stream_create)(lrd_backend_t *be, lrd_stream_t **stream_out);
    void (*stream_destroy)(lrd_stream_t *st);
    lrd_status_t (*stream_sync)(lrd_stream_t *st);
    lrd_status_t (*stream_wait)(lrd_stream_t *st, lrd_event_t *event);
    lrd_status_t (*event_create)(lrd_backend_t *be, lrd_event_t **event_out);
    void (*event_destroy)(lrd_event_t *event);
    lrd_status_t (*event_record)(lrd_stream_t *st, lrd_event_t *event);
    lrd_status_t (*event_sync)(lrd_event_t *event);
    /* Its place is passed, or never will be. NULL where stream_native is. */
    bool (*event_is_done)(lrd_event_t *event);
    /* NULL where stream_native is. */
    lrd_status_t (*timer_create)(lrd_backend_t *be, lrd_event_t **timer_out);
    lrd_status_t (*timer_seconds)(lrd_event_t *begin, lrd_event_t *end, double *seconds_out);
    lrd_status_t (*graph_begin)(lrd_stream_t *st);
    lrd_status_t (*graph_end)(lrd_stream_t *st, size_t most_nodes, lrd_graph_t **graph_out);
    lrd_status_t (*graph_launch)(lrd_stream_t *st, lrd_graph_t *graph);
    void (*graph_destroy)(lrd_graph_t *graph);
    /* The device library's own handle (CUDA's cudaStream_t), for other libraries; NULL: there is none. */
    void *(*stream_native)(lrd_stream_t *st);
    lrd_status_t (*copy)(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                         size_t bytes);
    lrd_status_t (*zero)(lrd_stream_t *st, void *dst, size_t bytes);
    size_t (*scratch_bytes)(const lrd_backend_t *be, const lrd_limits_t *limits);
    size_t (*kv_cache_bytes)(const lrd_backend_t *be, const lrd_kv_shape_t *shape);
    int64_t (*lora_columns)(int64_t rank);                              /* NULL: always 0 */
    lrd_status_t (*tuned)(lrd_backend_t *be, lrd_tuning_t *tuning_out); /* NULL: no choice */

#define OP(name, args) \
    lrd_status_t (*name)(lrd_stream_t * st, lrd_scratch_t scratch, const args *a);
    LRD_OP_LIST(OP)
#undef OP
};

/* Backends by name: "cpu", "cpu_checked", "cuda". "auto" takes the GPU where there is one.
 * LRD_ERR_UNAVAILABLE: not built in, or no such device; the message says which backends there are.
 * The caller closes it. */
lrd_status_t lrd_backend_open(const char *name, const lrd_backend_options_t *options,
                              lrd_backend_t **backend_out);
void lrd_backend_close(lrd_backend_t *be); /* NULL is fine */

/* Names of the backends of this program, in order of preference; n_out receives their number. */
const char *const *lrd_backend_names(int *n_out);

/* For people: "cpu: 2 threads, Intel ..., bfloat16 products: native". */
lrd_status_t lrd_backend_describe(lrd_backend_t *be, char *text, size_t size);

/* What tells the device from all others, anywhere. Empty: it is meant to be shared, as a CPU is. */
void lrd_backend_device_id(lrd_backend_t *be, char text[LRD_DEVICE_ID]);

/* What ranks must have alike for their bits and the order of their work, beside settings: versions, and what the
 * environment says. For comm/alike.h. */
void lrd_backend_software(lrd_backend_t *be, char text[LRD_SOFTWARE]);

/* Memory of the device that is free for this process, and in all. */
lrd_status_t lrd_mem_info(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out);

/* What is free, to tell people what became less: 0 where the device does not say, which is no failure. */
size_t lrd_mem_free_bytes(lrd_backend_t *be);

/* Uninitialized memory, aligned to 256. LRD_ERR_NO_MEMORY says how much was asked and is free. */
lrd_status_t lrd_mem_alloc(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes, void **ptr_out);
/* NULL is fine. */
void lrd_mem_free(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes);

lrd_status_t lrd_stream_create(lrd_backend_t *be, lrd_stream_t **stream_out);
void lrd_stream_destroy(lrd_stream_t *st); /* NULL is fine; pending work is dropped */

/* Waits for everything enqueued; returns the first error that any of it met. */
lrd_status_t lrd_stream_sync(lrd_stream_t *st);

/* Streams are in no order with each other but where one waits for an event of the other. An event names
 * the place where it was recorded last, behind everything enqueued there until then; one that was never
 * recorded is nothing to wait for. It may be recorded again, on any stream, also while somebody waits:
 * a wait is for the place that the event named when the wait was asked for. */
lrd_status_t lrd_event_create(lrd_backend_t *be, lrd_event_t **event_out);
void lrd_event_destroy(lrd_event_t *event); /* NULL is fine; waits that were asked for stand */
lrd_status_t lrd_event_record(lrd_stream_t *st, lrd_event_t *event);

/* The host waits until the event's place is passed; returns errors as lrd_stream_sync. */
lrd_status_t lrd_event_sync(lrd_event_t *event);

/* What is enqueued on the stream from now on waits for the event's place; the host does not. */
lrd_status_t lrd_stream_wait(lrd_stream_t *st, lrd_event_t *event);

/* An event that keeps the time at which its place was passed, by the device's clock. Only where the stream is one
 * of a device library's (stream_native). */
lrd_status_t lrd_timer_create(lrd_backend_t *be, lrd_event_t **timer_out);
/* Seconds from one place to a later one; both were passed. */
lrd_status_t lrd_timer_seconds(lrd_event_t *begin, lrd_event_t *end, double *seconds_out);

/* Between begin and end what is enqueued on the stream is not done but taken down, with the arguments that it was
 * given: ops and copies. Their memory must be there whenever the graph is launched; what lies in it is read then.
 * Meanwhile nobody may wait for the stream, nor it for an event, and no memory be allocated or freed. What a backend
 * decides when it meets an op first must have been decided: let the same ops run once before. Every begin has its end;
 * graph_out NULL drops what was taken down, and does not fail. Of more than most_nodes none is made: *graph_out is NULL. */
lrd_status_t lrd_graph_begin(lrd_stream_t *st);
lrd_status_t lrd_graph_end(lrd_stream_t *st, size_t most_nodes, lrd_graph_t **graph_out);
lrd_status_t lrd_graph_launch(lrd_stream_t *st, lrd_graph_t *graph);
void lrd_graph_destroy(lrd_graph_t *graph); /* NULL is fine; when no launch of it is under way */

/* False: there are none, or ops are being measured one by one (kernels/op_profile.h): run the ops. */
bool lrd_has_graphs(const lrd_backend_t *be);

/* Enqueued like ops. Host memory of H2D and D2H is LRD_MEM_PINNED and must stay valid until the copy is known
 * to be done: the stream, or an event behind the copy, was waited for. */
lrd_status_t lrd_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                      size_t bytes);
lrd_status_t lrd_zero(lrd_stream_t *st, void *dst, size_t bytes);

/* Scratch that every op with shapes within the limits is satisfied with. */
size_t lrd_scratch_bytes(const lrd_backend_t *be, const lrd_limits_t *limits);

/* Device memory of one layer's cache. */
size_t lrd_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *shape);

/* Columns of room that linear_forward would use for an adapter of this rank; 0: none. */
int64_t lrd_lora_columns(const lrd_backend_t *be, int64_t rank);

/* The choices that a backend which tunes has made so far; they are the backend's, until it is asked again.
 * LRD_ERR_UNSUPPORTED: it never has a choice. */
lrd_status_t lrd_backend_tuned(lrd_backend_t *be, lrd_tuning_t *tuning_out);

/* Front functions: they check the arguments once, measure when asked to, and dispatch. */
#define OP(name, args) \
    lrd_status_t lrd_##name(lrd_stream_t *st, lrd_scratch_t scratch, const args *a);
LRD_OP_LIST(OP)
#undef OP

#ifdef __cplusplus
}
#endif
#endif /* LRD_KERNELS_OPS_H */
