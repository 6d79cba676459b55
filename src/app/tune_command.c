/* Runs the products of a model once on a back end that times the ways of each, and writes down which it
 * took (kernels/tuning.h). */
#include "app/folders.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "kernels/tuning.h"
#include "model/family.h"
#include "model/weights.h"

#include <string.h>

/* Tokens of a micro-batch where the settings do not say: records of a usual length. And those that meet the
 * head. */
enum { USUAL_LENGTH = 256, HEAD_TOKENS = 1024 };

enum { NOISE = 1 << 16, MAX_TENSORS = 16 };

typedef struct tune {
    const lrd_settings_t *settings;
    lrd_model_config_t config;
    lrd_dtype_t dtype;
    int64_t tokens, rank;
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_scratch_t scratch;
    float *noise; /* pinned, NOISE numbers */
    struct {
        void *data;
        size_t bytes;
    } tensor[MAX_TENSORS];
    int n_tensors;
    /* As large as any linear wants them: weights, inputs and outputs; the adapter's. */
    void *w, *x, *y, *pre, *a, *b, *u, *da, *db;
} tune_t;

static lrd_status_t take(tune_t *t, size_t bytes, void **out)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_mem_alloc(t->be, LRD_MEM_DEVICE, bytes, out));
    t->tensor[t->n_tensors].data = *out;
    t->tensor[t->n_tensors++].bytes = bytes;
out:
    return status;
}

/* Small numbers of both signs: what multiplies them draws the power that a run's does. */
static lrd_status_t make_noise(tune_t *t)
{
    lrd_status_t status = LRD_OK;
    uint32_t seed = 1;
    LRD_TRY(lrd_mem_alloc(t->be, LRD_MEM_PINNED, NOISE * sizeof *t->noise, (void **)&t->noise));
    uint16_t *half = (uint16_t *)t->noise;
    for (int i = 0; i < NOISE; i++) {
        seed = seed * 1664525u + 1013904223u;
        const float x = ((float)(seed >> 8) * 0x1p-24f - 0.5f) * 0.1f;
        if (t->dtype == LRD_F32)
            t->noise[i] = x;
        else
            half[i] = t->dtype == LRD_F16 ? lrd_f32_to_f16(x) : lrd_f32_to_bf16(x);
    }
out:
    return status;
}

static lrd_status_t take_noise(tune_t *t, int64_t n, void **out)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = (size_t)n * lrd_dtype_bytes(t->dtype),
                 block = NOISE * lrd_dtype_bytes(t->dtype);
    LRD_TRY(take(t, bytes, out));
    for (size_t at = 0; at < bytes; at += block)
        LRD_TRY(lrd_copy(t->st, LRD_COPY_H2D, (uint8_t *)*out + at, t->noise,
                         bytes - at < block ? bytes - at : block));
out:
    return status;
}

static lrd_status_t take_zeros(tune_t *t, int64_t n, void **out)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = (size_t)n * sizeof(float);
    LRD_TRY(take(t, bytes, out));
    LRD_TRY(lrd_zero(t->st, *out, bytes));
out:
    return status;
}

static lrd_mat_t matrix(const tune_t *t, void *data, int64_t rows, int64_t cols)
{
    return (lrd_mat_t){data, rows, cols, cols, t->dtype};
}

/* The same with `room` columns behind. */
static lrd_mat_t roomy(const tune_t *t, void *data, int64_t rows, int64_t cols, int64_t room)
{
    return (lrd_mat_t){data, rows, cols, cols + room, t->dtype};
}

static lrd_mat_t matrix_f32(void *data, int64_t rows, int64_t cols)
{
    return (lrd_mat_t){data, rows, cols, cols, LRD_F32};
}

static lrd_status_t prepare(tune_t *t)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_config_t *c = &t->config;
    const int64_t widest = c->mlp > 3 * c->hidden ? c->mlp : 3 * c->hidden,
                  weight = widest > c->vocab_size ? widest : c->vocab_size,
                  room = lrd_lora_columns(t->be, t->rank);
    const lrd_limits_t limits = {.tokens = t->tokens,
                                 .max_seqlen = t->tokens,
                                 .hidden = c->hidden,
                                 .mlp = c->mlp,
                                 .vocab = c->vocab_size,
                                 .n_heads = c->n_heads,
                                 .head_dim = c->head_dim,
                                 .rank = t->rank,
                                 .compute = t->dtype,
                                 .training = true};
    LRD_TRY(make_noise(t));
    t->scratch.bytes = lrd_scratch_bytes(t->be, &limits);
    LRD_TRY(take(t, t->scratch.bytes, &t->scratch.data));
    LRD_TRY(take_noise(t, weight * (c->hidden + room), &t->w));
    LRD_TRY(take_noise(t, t->tokens * (widest + room), &t->x));
    LRD_TRY(take_noise(t, t->tokens * widest, &t->y));
    LRD_TRY(take_noise(t, t->tokens * widest, &t->pre));
    LRD_TRY(take_zeros(t, t->rank * widest, &t->a));
    LRD_TRY(take_zeros(t, t->rank * widest, &t->b));
    LRD_TRY(take_zeros(t, t->rank * t->tokens, &t->u));
    LRD_TRY(take_zeros(t, t->rank * widest, &t->da));
    LRD_TRY(take_zeros(t, t->rank * widest, &t->db));
    LRD_TRY(lrd_stream_sync(t->st));
out:
    return status;
}

/* One linear [n, k], both ways; with an adapter or without, and with room for it or without; where it is wide, with GELU
 * behind it; where it takes something wide, with GELU's derivative. */
static lrd_status_t run_linear(tune_t *t, int64_t n, int64_t k, bool adapted, int64_t room)
{
    lrd_status_t status = LRD_OK;
    const int64_t rows = t->tokens, mlp = t->config.mlp;
    const int32_t row_begin[2] = {0, (int32_t)rows};
    const lrd_mat_t x = roomy(t, t->x, rows, k, room), weight = roomy(t, t->w, n, k, room);
    const lrd_weight_t w = {lrd_const(weight)};
    const lrd_lora_t lora = {.a = lrd_const(matrix_f32(t->a, t->rank, k)),
                             .b = lrd_const(matrix_f32(t->b, n, t->rank)),
                             .scale = 1};
    const lrd_lora_rows_t all = {1, &lora, row_begin};
    const lrd_mat_t da = matrix_f32(t->da, t->rank, k), db = matrix_f32(t->db, n, t->rank),
                    u = matrix_f32(t->u, rows, t->rank);
    lrd_linear_fwd_t f = {.x = lrd_const(x),
                          .w = &w,
                          .bias = lrd_const(matrix(t, t->pre, 1, n)),
                          .lora = adapted ? &all : NULL,
                          .y = matrix(t, t->y, rows, n),
                          .x_room = lrd_room(x, room),
                          .w_room = lrd_room(weight, room)};
    lrd_linear_bwd_t b = {.dy = lrd_const(matrix(t, t->x, rows, n)),
                          .w = &w,
                          .lora = adapted ? &all : NULL,
                          .dx = matrix(t, t->y, rows, k)};
    if (adapted) {
        f.u = u;
        b.x = lrd_const(x);
        b.u = lrd_const(u);
        b.da = &da;
        b.db = &db;
    }
    LRD_TRY(lrd_linear_forward(t->st, t->scratch, &f));
    LRD_TRY(lrd_linear_backward(t->st, t->scratch, &b));
    if (n == mlp) {
        f.epilogue = LRD_EPILOGUE_GELU;
        LRD_TRY(lrd_linear_forward(t->st, t->scratch, &f));
        f.pre = matrix(t, t->pre, rows, n);
        LRD_TRY(lrd_linear_forward(t->st, t->scratch, &f));
    }
    if (k == mlp) {
        b.pre = lrd_const(matrix(t, t->pre, rows, k));
        LRD_TRY(lrd_linear_backward(t->st, t->scratch, &b));
    }
    LRD_TRY(lrd_stream_sync(t->st));
out:
    return status;
}

static lrd_status_t run_head(tune_t *t)
{
    lrd_status_t status = LRD_OK;
    const int64_t rows = t->tokens < HEAD_TOKENS ? t->tokens : HEAD_TOKENS, c = t->config.hidden;
    const lrd_weight_t w = {lrd_const(matrix(t, t->w, t->config.vocab_size, c))};
    void *target, *nll;
    LRD_TRY(take_zeros(t, rows, &target));
    LRD_TRY(take_zeros(t, 2, &nll));
    LRD_TRY(lrd_linear_ce(t->st, t->scratch,
                          &(lrd_linear_ce_t){.h = lrd_const(matrix(t, t->x, rows, c)),
                                             .w = &w,
                                             .target = target,
                                             .n_targets = rows,
                                             .nll = nll,
                                             .dh = matrix(t, t->y, rows, c)}));
    LRD_TRY(lrd_stream_sync(t->st));
out:
    return status;
}

static lrd_status_t run_products(tune_t *t)
{
    lrd_status_t status = LRD_OK;
    const lrd_family_t *family = t->config.family;
    for (int i = 0; i < family->n_linears; i++) {
        const lrd_tensor_decl_t *w = &family->block_tensors[family->linears[i].weight];
        const int64_t n = lrd_dim_size(&t->config, w->shape[0]),
                      k = lrd_dim_size(&t->config, w->shape[1]);
        const int64_t room = lrd_lora_columns(t->be, t->rank);
        LRD_TRY(run_linear(t, n, k, false, 0));
        LRD_TRY(run_linear(t, n, k, true, 0));
        if (room > 0)
            LRD_TRY(run_linear(t, n, k, true, room));
    }
    LRD_TRY(run_head(t));
out:
    return status;
}

static lrd_status_t open_backend(tune_t *t, const lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    const lrd_product_options_t products = {.tf32 = t->settings->training.tf32, .tunes = true};
    int n_threads;
    char about[160];
    LRD_TRY(lrd_threads_alone(app, &n_threads));
    LRD_TRY(lrd_backend_open(app->cli->backend, &(lrd_backend_options_t){0, n_threads, &products},
                             &t->be));
    LRD_TRY(lrd_backend_describe(t->be, about, sizeof about));
    LRD_TRY(lrd_stream_create(t->be, &t->st));
    lrd_info("Timing products of %lld tokens on %s", (long long)t->tokens, about);
out:
    return status;
}

static void release(tune_t *t)
{
    for (int i = 0; i < t->n_tensors; i++)
        lrd_mem_free(t->be, LRD_MEM_DEVICE, t->tensor[i].data, t->tensor[i].bytes);
    if (t->noise != NULL)
        lrd_mem_free(t->be, LRD_MEM_PINNED, t->noise, NOISE * sizeof *t->noise);
    lrd_stream_destroy(t->st);
    lrd_backend_close(t->be);
}

static void take_settings(tune_t *t)
{
    const lrd_training_settings_t *x = &t->settings->training;
    const int64_t longest = t->settings->data.max_length,
                  dtype = lrd_weights_dtype(&t->settings->model);
    t->rank = t->settings->lora.r;
    t->dtype = dtype >= 0             ? (lrd_dtype_t)dtype
               : t->config.dtype >= 0 ? (lrd_dtype_t)t->config.dtype
                                      : LRD_F32;
    t->tokens =
        x->max_tokens_per_micro_batch != LRD_SETTING_NULL
            ? x->max_tokens_per_micro_batch
            : x->per_device_train_batch_size * (longest < USUAL_LENGTH ? longest : USUAL_LENGTH);
}

static lrd_status_t write_file(const tune_t *t, const char *out)
{
    lrd_status_t status = LRD_OK;
    lrd_tuning_t tuning;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_backend_tuned(t->be, &tuning));
    LRD_CHECK(tuning.n > 0, LRD_ERR_CONFIG,
              "there is one way alone to multiply %s here: a run needs no tuning file",
              lrd_dtype_setting_name(t->dtype));
    for (size_t i = 0; i < tuning.n; i++)
        lrd_info("%s: %.4f ms, untuned %.4f", tuning.choice[i].product,
                 1e3 * tuning.choice[i].seconds, 1e3 * tuning.choice[i].rule_seconds);
    LRD_TRY(lrd_tuning_write(&tuning, &text));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    LRD_TRY(lrd_file_write(out, text.data, text.size));
    lrd_info("Wrote %s: name it in parallel.tuning_file", out);
out:
    lrd_buf_release(&text);
    return status;
}

lrd_status_t lrd_command_tune(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    tune_t t = {.n_tensors = 0};
    char *folder = NULL;
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL_OUTLINE, &folder));
    LRD_TRY(lrd_model_config_read(folder, &t.config));
    t.settings = settings;
    take_settings(&t);
    LRD_TRY(open_backend(&t, app));
    app->work_began = true;
    LRD_TRY(prepare(&t));
    LRD_TRY(run_products(&t));
    LRD_TRY(write_file(&t, app->cli->out != NULL ? app->cli->out : "tuning.json"));
out:
    release(&t);
    lrd_free(folder);
    lrd_settings_free(settings);
    return status;
}
