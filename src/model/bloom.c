/* BLOOM: everything that is this family's alone.
 *
 *   x = LN(E[ids])                               word_embeddings_layernorm
 *   each block:  a = LN(x)                       input_layernorm
 *                y = r(x, a) + dense(attention(qkv(a)))     ALiBi, causal
 *                m = LN(y)                       post_attention_layernorm
 *                x = r(y, m) + h4(gelu(h(m)))    dense_h_to_4h, dense_4h_to_h
 *   logits = LN(x) E'                            ln_f, tied head
 * where r(before, after) is the residual: before the norm, or after it
 * (apply_residual_connection_post_layernorm).
 */
#include "model/bloom_parts.h"
#include "model/stage.h"

#include <math.h>

enum { WORD_EMBEDDINGS, EMBED_GAMMA, EMBED_BETA, N_EMBED };
enum { FINAL_GAMMA, FINAL_BETA, N_FINAL };
enum {
    INPUT_GAMMA,
    INPUT_BETA,
    QKV_W,
    QKV_B,
    DENSE_W,
    DENSE_B,
    POST_GAMMA,
    POST_BETA,
    H4_W,
    H4_B,
    H_W,
    H_B,
    N_BLOCK
};

static const lrd_tensor_decl_t embed_tensors[N_EMBED] = {
    [WORD_EMBEDDINGS] = {"word_embeddings.weight", {LRD_DIM_VOCAB, LRD_DIM_HIDDEN}},
    [EMBED_GAMMA] = {"word_embeddings_layernorm.weight", {LRD_DIM_HIDDEN}},
    [EMBED_BETA] = {"word_embeddings_layernorm.bias", {LRD_DIM_HIDDEN}},
};

static const lrd_tensor_decl_t block_tensors[N_BLOCK] = {
    [INPUT_GAMMA] = {"input_layernorm.weight", {LRD_DIM_HIDDEN}},
    [INPUT_BETA] = {"input_layernorm.bias", {LRD_DIM_HIDDEN}},
    [QKV_W] = {"self_attention.query_key_value.weight", {LRD_DIM_3HIDDEN, LRD_DIM_HIDDEN}},
    [QKV_B] = {"self_attention.query_key_value.bias", {LRD_DIM_3HIDDEN}},
    [DENSE_W] = {"self_attention.dense.weight", {LRD_DIM_HIDDEN, LRD_DIM_HIDDEN}},
    [DENSE_B] = {"self_attention.dense.bias", {LRD_DIM_HIDDEN}},
    [POST_GAMMA] = {"post_attention_layernorm.weight", {LRD_DIM_HIDDEN}},
    [POST_BETA] = {"post_attention_layernorm.bias", {LRD_DIM_HIDDEN}},
    [H4_W] = {"mlp.dense_h_to_4h.weight", {LRD_DIM_MLP, LRD_DIM_HIDDEN}},
    [H4_B] = {"mlp.dense_h_to_4h.bias", {LRD_DIM_MLP}},
    [H_W] = {"mlp.dense_4h_to_h.weight", {LRD_DIM_HIDDEN, LRD_DIM_MLP}},
    [H_B] = {"mlp.dense_4h_to_h.bias", {LRD_DIM_HIDDEN}},
};

static const lrd_tensor_decl_t final_tensors[N_FINAL] = {
    [FINAL_GAMMA] = {"ln_f.weight", {LRD_DIM_HIDDEN}},
    [FINAL_BETA] = {"ln_f.bias", {LRD_DIM_HIDDEN}},
};

static const lrd_linear_decl_t linears[N_LINEARS] = {
    [QKV] = {"self_attention.query_key_value", QKV_W, QKV_B, LRD_INPUT_NORM},
    [DENSE] = {"self_attention.dense", DENSE_W, DENSE_B, LRD_INPUT_OWN},
    [H_TO_4H] = {"mlp.dense_h_to_4h", H4_W, H4_B, LRD_INPUT_NORM2},
    [H4_TO_H] = {"mlp.dense_4h_to_h", H_W, H_B, LRD_INPUT_MLP},
};

/* Powers of a float32 base, as transformers forms them.
 * Heads beyond the largest power of two P take the odd powers of the base for 2 P heads. */
static void bloom_head_slopes(const lrd_model_config_t *c, float *slope)
{
    int log2_p = 0;
    while ((int64_t)2 << log2_p <= c->n_heads)
        log2_p++;
    const int64_t p = (int64_t)1 << log2_p;
    const float base = (float)exp2(-exp2(-(log2_p - 3.0)));
    const float extra = (float)exp2(-exp2(-(log2_p + 1 - 3.0)));
    for (int64_t i = 0; i < c->n_heads; i++)
        slope[i] = i < p ? (float)pow(base, (double)(i + 1))
                         : (float)pow(extra, (double)(2 * (i - p) + 1));
}

/* What one block keeps for its backward pass. */
typedef struct bloom_state {
    lrd_mat_t input, qkv, context, middle, pre; /* [T, C], [T, 3C], [T, C], [T, C], [T, F] */
    lrd_mat_t res0; /* input of the first norm: `input`, once x and delta are added */
    float *mean0, *rstd0, *mean1, *rstd1; /* [T] */
    float *lse;                           /* [H, T] */
    float *u[N_LINEARS];                  /* [T, R] where there is an adapter */
} bloom_state_t;

static float *take_floats(const lrd_stage_t *stage, lrd_arena_t *arena, int64_t per_token)
{
    return lrd_arena_take(arena, "activations",
                          (size_t)(per_token * stage->limits.tokens) * sizeof(float));
}

/* Room for the product of any layer's adapter at a place. */
static int64_t largest_rank(const lrd_stage_t *stage, int place)
{
    int64_t r = 0;
    for (int layer = 0; layer < stage->config->n_layers; layer++) {
        const lrd_adapter_item_t *item = lrd_adapter_find(stage->adapter, layer, place);
        r = item != NULL && item->r > r ? item->r : r;
    }
    return r;
}

static void bloom_layout_input(const lrd_stage_t *stage, lrd_arena_t *arena, void *state)
{
    bloom_state_t *s = state;
    s->input = lrd_stage_take(stage, arena, "activations", stage->config->hidden);
}

static void bloom_borrow_input(void *state, const void *input_state)
{
    ((bloom_state_t *)state)->input = ((const bloom_state_t *)input_state)->input;
}

/* What the attention's half keeps. */
static void layout_attention(const lrd_stage_t *stage, lrd_arena_t *arena, bloom_state_t *s)
{
    const lrd_model_config_t *c = stage->config;
    s->qkv = lrd_stage_take(stage, arena, "activations", 3 * c->hidden);
    s->context =
        lrd_stage_take_roomy(stage, arena, "activations", c->hidden, stage->weights->room[DENSE]);
    s->lse = take_floats(stage, arena, c->n_heads);
}

static void bloom_layout_block(const lrd_stage_t *stage, int layer, lrd_arena_t *arena, void *state)
{
    const lrd_model_config_t *c = stage->config;
    bloom_state_t *s = state;
    const bool again = stage->limits.recompute == LRD_CHECKPOINTING_ATTENTION && layer >= 0;
    const bloom_state_t *work = stage->work_state;
    s->input = lrd_stage_take(stage, arena, "activations", c->hidden);
    if (again) {
        s->qkv = work->qkv;
        s->context = work->context;
        s->lse = work->lse;
    } else {
        layout_attention(stage, arena, s);
    }
    s->middle = lrd_stage_take(stage, arena, "activations", c->hidden);
    if (stage->limits.slots == 0) /* generation has no way back */
        s->pre = lrd_stage_take(stage, arena, "activations", c->mlp);
    s->mean0 = take_floats(stage, arena, 1);
    s->rstd0 = take_floats(stage, arena, 1);
    s->mean1 = take_floats(stage, arena, 1);
    s->rstd1 = take_floats(stage, arena, 1);
    for (int place = 0; place < N_LINEARS; place++) {
        const lrd_adapter_item_t *item = lrd_adapter_find(stage->adapter, layer, place);
        int64_t r = item != NULL ? item->r : 0;
        if (layer < 0 && stage->limits.recompute == LRD_CHECKPOINTING_BLOCK)
            r = largest_rank(stage, place);
        s->u[place] = r > 0 ? take_floats(stage, arena, r) : NULL;
    }
}

static lrd_mat_t bloom_block_input(const void *state)
{
    return ((const bloom_state_t *)state)->input;
}

static lrd_status_t bloom_embed_forward(lrd_stage_t *stage, const lrd_micro_batch_t *batch,
                                        lrd_mat_t x)
{
    const lrd_cmat_t *w = stage->weights->embed;
    return lrd_embed_forward(stage->stream, stage->scratch,
                             &(lrd_embed_fwd_t){.token = batch->token,
                                                .table = w[WORD_EMBEDDINGS],
                                                .gamma = w[EMBED_GAMMA],
                                                .beta = w[EMBED_BETA],
                                                .eps = (float)stage->config->layer_norm_epsilon,
                                                .y = x});
}

/* y = act(x W' + b + adapter); u is kept in state. Where weights have room for the adapter, it is in the product; for
 * adapters that come with the batch they have none. */
static lrd_status_t linear(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer, int place,
                           bloom_state_t *s, lrd_mat_t x, lrd_mat_t y, lrd_mat_t pre)
{
    int64_t r = 0;
    const lrd_lora_rows_t *lora = lrd_stage_lora(stage, batch, layer, place, &r);
    const lrd_weight_t w = {lrd_weights_block(stage->weights, layer, linears[place].weight)};
    float *u = stage->saving ? s->u[place] : stage->u_shared;
    const int64_t room = lora != NULL && batch->n_uses == 0 && batch->n_single == 0
                             ? stage->weights->room[place]
                             : 0;
    return lrd_linear_forward(
        stage->stream, stage->scratch,
        &(lrd_linear_fwd_t){.x = lrd_const(x),
                            .w = &w,
                            .bias = lrd_weights_block(stage->weights, layer, linears[place].bias),
                            .lora = lora,
                            .n_single = batch->n_single,
                            .epilogue = place == H_TO_4H ? LRD_EPILOGUE_GELU : LRD_EPILOGUE_NONE,
                            .y = y,
                            .pre = pre,
                            .u = {lora != NULL ? u : NULL, batch->n_tokens, r, r, LRD_F32},
                            .x_room = lrd_room(x, room),
                            .w_room = room > 0 ? lrd_weights_room(stage->weights, layer, place)
                                               : (lrd_mat_t){0}});
}

/* res = x + delta; y = LN(res). */
static lrd_status_t norm(lrd_stage_t *stage, int layer, int gamma, lrd_mat_t x, lrd_mat_t delta,
                         lrd_mat_t res, lrd_mat_t y, float *mean, float *rstd)
{
    return lrd_addnorm_forward(
        stage->stream, stage->scratch,
        &(lrd_addnorm_fwd_t){.x = lrd_const(x),
                             .delta = lrd_const(delta),
                             .gamma = lrd_weights_block(stage->weights, layer, gamma),
                             .beta = lrd_weights_block(stage->weights, layer, gamma + 1),
                             .eps = (float)stage->config->layer_norm_epsilon,
                             .res = res,
                             .y = y,
                             .mean = mean,
                             .rstd = rstd});
}

static lrd_attn_fwd_t attention(const lrd_stage_t *stage, const lrd_micro_batch_t *batch,
                                const bloom_state_t *s)
{
    const int64_t t = batch->n_tokens;
    return (lrd_attn_fwd_t){.qkv = lrd_const(lrd_rows(s->qkv, t)),
                            .cu_seqlens = batch->cu_seqlens,
                            .n_seqs = batch->n_seqs,
                            .max_seqlen = batch->max_seqlen,
                            .n_heads = (int32_t)stage->config->n_heads,
                            .head_dim = (int32_t)stage->config->head_dim,
                            .slope = stage->slope,
                            .scale = (float)(1.0 / sqrt((double)stage->config->head_dim)),
                            .out = lrd_rows(s->context, t),
                            .lse = s->lse};
}

/* Attention of the batch's tokens, against the layer's cache where it names slots. */
static lrd_status_t attend(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                           const lrd_attn_fwd_t *plain)
{
    if (batch->cache_len == NULL)
        return lrd_attn_forward(stage->stream, stage->scratch, plain);
    return lrd_attn_cached(stage->stream, stage->scratch,
                           &(lrd_attn_cached_t){.qkv = plain->qkv,
                                                .cu_seqlens = batch->cu_seqlens,
                                                .cache_len = batch->cache_len,
                                                .slot = batch->slot,
                                                .n_seqs = batch->n_seqs,
                                                .n_single = batch->n_single,
                                                .max_len = batch->max_len,
                                                .slope = plain->slope,
                                                .scale = plain->scale,
                                                .cache = stage->cache[layer],
                                                .out = plain->out});
}

static bool has_adapter(const lrd_stage_t *stage, int layer, int place)
{
    return lrd_adapter_find(stage->adapter, layer, place) != NULL;
}

static lrd_status_t bloom_block_forward(lrd_stage_t *stage, const lrd_micro_batch_t *batch,
                                        int layer, void *state, lrd_residual_t *residual)
{
    lrd_status_t status = LRD_OK;
    bloom_state_t *s = state;
    const int64_t t = batch->n_tokens;
    const bool after = stage->config->residual_after_norm;
    const lrd_mat_t a = lrd_rows(stage->norm, t), m = lrd_rows(stage->norm2, t),
                    out = lrd_rows(stage->out, t);
    const lrd_mat_t middle = lrd_rows(s->middle, t), mlp = lrd_rows(stage->mlp, t), none = {0};
    const bool add = residual->delta.data != NULL;
    s->res0 = add ? lrd_rows(s->input, t) : residual->x;
    const lrd_attn_fwd_t attn = attention(stage, batch, s);

    LRD_TRY(norm(stage, layer, INPUT_GAMMA, residual->x, residual->delta, add ? s->res0 : none, a,
                 s->mean0, s->rstd0));
    LRD_TRY(linear(stage, batch, layer, QKV, s, a, lrd_rows(s->qkv, t), none));
    LRD_TRY(attend(stage, batch, layer, &attn));
    LRD_TRY(linear(stage, batch, layer, DENSE, s, attn.out, out, none));
    LRD_TRY(
        norm(stage, layer, POST_GAMMA, after ? a : s->res0, out, middle, m, s->mean1, s->rstd1));
    LRD_TRY(linear(stage, batch, layer, H_TO_4H, s, m, mlp, lrd_rows(s->pre, t)));
    /* Its output is of no use on the way back; what its adapter keeps is. */
    if (!stage->recomputing || has_adapter(stage, layer, H4_TO_H))
        LRD_TRY(linear(stage, batch, layer, H4_TO_H, s, mlp, out, none));
    *residual = (lrd_residual_t){after ? m : middle, out};
out:
    return status;
}

/* dx (+)= dy W and the adapter's part; dA and dB. x is what the forward pass saw: needed with an
 * adapter only. Nothing at all when neither is wanted. */
static lrd_status_t linear_backward(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                    int place, const bloom_state_t *s, lrd_mat_t dy, lrd_mat_t x,
                                    lrd_mat_t pre, bool accumulate, lrd_mat_t dx)
{
    int64_t r = 0;
    lrd_mat_t da = {0}, db = {0};
    const lrd_lora_rows_t *lora = lrd_stage_lora(stage, batch, layer, place, &r);
    const bool needs_dx = lrd_stage_needs_dx(stage, layer, place);
    const lrd_weight_t w = {lrd_weights_block(stage->weights, layer, linears[place].weight)};
    if (lora == NULL && !needs_dx)
        return LRD_OK;
    if (lora != NULL)
        lrd_stage_lora_grads(stage, layer, place, &da, &db);
    return lrd_linear_backward(stage->stream, stage->scratch,
                               &(lrd_linear_bwd_t){.dy = lrd_const(dy),
                                                   .w = &w,
                                                   .lora = lora,
                                                   .x = lrd_const(x),
                                                   .u = {lora != NULL ? s->u[place] : NULL,
                                                         batch->n_tokens, r, r, LRD_F32},
                                                   .da = &da,
                                                   .db = &db,
                                                   .pre = lrd_const(pre),
                                                   .accumulate_dx = accumulate,
                                                   .dx = needs_dx ? dx : (lrd_mat_t){0}});
}

static lrd_status_t norm_backward(lrd_stage_t *stage, int layer, int gamma, lrd_mat_t dy,
                                  lrd_mat_t res, const float *mean, const float *rstd,
                                  bool accumulate, lrd_mat_t dres)
{
    return lrd_norm_backward(
        stage->stream, stage->scratch,
        &(lrd_norm_bwd_t){.dy = lrd_const(dy),
                          .res = lrd_const(res),
                          .gamma = lrd_weights_block(stage->weights, layer, gamma),
                          .mean = mean,
                          .rstd = rstd,
                          .accumulate = accumulate,
                          .dres = dres});
}

/* The MLP's half: d becomes the gradient of `middle`. False in *more_out:
 * nothing below is adapted. */
static lrd_status_t mlp_backward(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                 bloom_state_t *s, lrd_mat_t d)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = batch->n_tokens;
    const bool after = stage->config->residual_after_norm;
    const lrd_mat_t d_mlp = lrd_rows(stage->d_mlp, t), pre = lrd_rows(s->pre, t),
                    act = lrd_rows(stage->act_mlp, t);
    const lrd_mat_t middle = lrd_rows(s->middle, t), m = lrd_rows(stage->norm, t),
                    d_m = lrd_rows(stage->d_norm, t);
    const lrd_mat_t none = {0};
    if (has_adapter(stage, layer, H4_TO_H))
        LRD_TRY(lrd_gelu_forward(stage->stream, stage->scratch,
                                 &(lrd_gelu_fwd_t){lrd_const(pre), act}));
    LRD_TRY(linear_backward(stage, batch, layer, H4_TO_H, s, d, act, pre, false, d_mlp));
    if (!lrd_stage_needs_dx(stage, layer, H4_TO_H))
        goto out;
    if (has_adapter(stage, layer, H_TO_4H))
        LRD_TRY(norm(stage, layer, POST_GAMMA, middle, none, none, m, NULL, NULL));
    /* The residual taken after the norm adds its gradient before
     * the norm's backward, else behind. */
    LRD_TRY(
        linear_backward(stage, batch, layer, H_TO_4H, s, d_mlp, m, none, after, after ? d : d_m));
    if (lrd_stage_needs_dx(stage, layer, H_TO_4H))
        LRD_TRY(norm_backward(stage, layer, POST_GAMMA, after ? d : d_m, middle, s->mean1, s->rstd1,
                              !after, d));
out:
    return status;
}

/* What the attention's half did not keep; leaves its input in stage->norm. */
static lrd_status_t attention_again(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                    bloom_state_t *s)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = batch->n_tokens;
    const lrd_mat_t a = lrd_rows(stage->norm, t), none = {0};
    const lrd_attn_fwd_t attn = attention(stage, batch, s);
    LRD_TRY(norm(stage, layer, INPUT_GAMMA, lrd_rows(s->res0, t), none, none, a, NULL, NULL));
    LRD_TRY(linear(stage, batch, layer, QKV, s, a, lrd_rows(s->qkv, t), none));
    LRD_TRY(lrd_attn_forward(stage->stream, stage->scratch, &attn));
out:
    return status;
}

static lrd_status_t attention_backward(lrd_stage_t *stage, const lrd_micro_batch_t *batch,
                                       int layer, bloom_state_t *s, lrd_mat_t d)
{
    lrd_status_t status = LRD_OK;
    const int64_t t = batch->n_tokens;
    const bool after = stage->config->residual_after_norm;
    const lrd_mat_t context = lrd_rows(s->context, t), d_norm = lrd_rows(stage->d_norm, t);
    const lrd_mat_t d_qkv = lrd_rows(stage->d_qkv, t), a = lrd_rows(stage->norm, t), none = {0};
    if (stage->limits.recompute == LRD_CHECKPOINTING_ATTENTION)
        LRD_TRY(attention_again(stage, batch, layer, s));
    LRD_TRY(linear_backward(stage, batch, layer, DENSE, s, d, context, none, false, d_norm));
    if (!lrd_stage_needs_dx(stage, layer, DENSE))
        goto out;
    LRD_TRY(
        lrd_attn_backward(stage->stream, stage->scratch,
                          &(lrd_attn_bwd_t){attention(stage, batch, s), lrd_const(d_norm), d_qkv}));
    if (has_adapter(stage, layer, QKV))
        LRD_TRY(norm(stage, layer, INPUT_GAMMA, lrd_rows(s->res0, t), none, none, a, NULL, NULL));
    LRD_TRY(
        linear_backward(stage, batch, layer, QKV, s, d_qkv, a, none, after, after ? d : d_norm));
    if (lrd_stage_needs_dx(stage, layer, QKV))
        LRD_TRY(norm_backward(stage, layer, INPUT_GAMMA, after ? d : d_norm, lrd_rows(s->res0, t),
                              s->mean0, s->rstd0, !after, d));
out:
    return status;
}

static lrd_status_t bloom_block_backward(lrd_stage_t *stage, const lrd_micro_batch_t *batch,
                                         int layer, void *state, lrd_mat_t d)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(mlp_backward(stage, batch, layer, state, d));
    if (lrd_stage_needs_dx(stage, layer, H_TO_4H))
        LRD_TRY(attention_backward(stage, batch, layer, state, d));
out:
    return status;
}

const lrd_family_t lrd_family_bloom = {
    .model_type = "bloom",
    .prefix = "transformer.",
    .block_prefix = "h.",
    .embed_tensors = embed_tensors,
    .n_embed_tensors = N_EMBED,
    .block_tensors = block_tensors,
    .n_block_tensors = N_BLOCK,
    .final_tensors = final_tensors,
    .n_final_tensors = N_FINAL,
    .head_name = "lm_head.weight",
    .word_embeddings = WORD_EMBEDDINGS,
    .linears = linears,
    .n_linears = N_LINEARS,
    .default_target = "query_key_value",
    .block_state_bytes = sizeof(bloom_state_t),
    .read_config = lrd_bloom_read_config,
    .list_modules = lrd_bloom_list_modules,
    .print = lrd_bloom_print,
    .head_slopes = bloom_head_slopes,
    .layout_block = bloom_layout_block,
    .layout_input = bloom_layout_input,
    .borrow_input = bloom_borrow_input,
    .block_input = bloom_block_input,
    .embed_forward = bloom_embed_forward,
    .block_forward = bloom_block_forward,
    .block_backward = bloom_block_backward,
};
