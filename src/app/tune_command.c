/* Times each product of a model both ways, as bfloat16 and widened to float32, and writes the
 * faster way down. Only a bfloat16 base has a choice. */
#include "app/folders.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "comm/cpus.h"
#include "kernels/cpu/cpu_tuning.h"
#include "model/family.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 512, REPEATS = 5, MAX_PRODUCTS = 4 * LRD_MAX_LINEARS };

typedef struct product {
    int64_t n, k;
    bool transposed;   /* dx = dy W, else y = x W' */
    double seconds[2]; /* widened, native */
} product_t;

typedef struct tune {
    product_t product[MAX_PRODUCTS];
    int n_products;
    char machine[160];
} tune_t;

static void add_product(tune_t *t, int64_t n, int64_t k, bool transposed)
{
    for (int i = 0; i < t->n_products; i++) {
        const product_t *p = &t->product[i];
        if (p->n == n && p->k == k && p->transposed == transposed)
            return;
    }
    t->product[t->n_products++] = (product_t){n, k, transposed, {0, 0}};
}

static void list_products(tune_t *t, const lrd_model_config_t *c)
{
    for (int i = 0; i < c->family->n_linears; i++) {
        const lrd_tensor_decl_t *w = &c->family->block_tensors[c->family->linears[i].weight];
        const int64_t n_out = lrd_dim_size(c, w->shape[0]), n_in = lrd_dim_size(c, w->shape[1]);
        add_product(t, n_out, n_in, false);
        add_product(t, n_in, n_out, true);
    }
}

/* The tuning file as text; native < 0: as timed. */
static lrd_status_t write_text(const tune_t *t, int native, lrd_buf_t *buf)
{
    lrd_json_writer_t w = {.buf = buf, .indent = 2};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "machine");
    lrd_json_text(&w, t->machine);
    lrd_json_key(&w, "products");
    lrd_json_open(&w, '[');
    for (int i = 0; i < t->n_products; i++) {
        const product_t *p = &t->product[i];
        const bool is_native = native < 0 ? p->seconds[1] < p->seconds[0] : native > 0;
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "n");
        lrd_json_int(&w, p->n);
        lrd_json_key(&w, "k");
        lrd_json_int(&w, p->k);
        lrd_json_key(&w, "transposed");
        lrd_json_bool(&w, p->transposed);
        lrd_json_key(&w, "route");
        lrd_json_text(&w, is_native ? "native" : "widened");
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    lrd_json_close(&w, '}');
    return lrd_json_writer_status(&w);
}

/* Device memory of a product. */
typedef struct operands {
    lrd_mat_t x, w, y;
    lrd_scratch_t scratch;
} operands_t;

static lrd_status_t time_product(lrd_stream_t *st, const operands_t *o, const product_t *p,
                                 double *seconds_out)
{
    lrd_status_t status = LRD_OK;
    /* W is [N, K] as stored: p->n outputs of p->k inputs, the other way round when transposed. */
    const int64_t rows = p->transposed ? p->k : p->n, cols = p->transposed ? p->n : p->k;
    const lrd_weight_t w = {{o->w.data, rows, cols, cols, LRD_BF16}};
    const lrd_mat_t x = {o->x.data, TOKENS, p->k, p->k, LRD_BF16};
    const lrd_mat_t y = {o->y.data, TOKENS, p->n, p->n, LRD_BF16};
    double best = 0;
    for (int i = 0; i <= REPEATS; i++) { /* the first one builds the kernel */
        const double begun = lrd_clock_seconds();
        if (p->transposed)
            LRD_TRY(lrd_linear_backward(st, o->scratch,
                                        &(lrd_linear_bwd_t){.dy = lrd_const(x), .w = &w, .dx = y}));
        else
            LRD_TRY(lrd_linear_forward(st, o->scratch,
                                       &(lrd_linear_fwd_t){.x = lrd_const(x), .w = &w, .y = y}));
        LRD_TRY(lrd_stream_sync(st));
        const double seconds = lrd_clock_seconds() - begun;
        if (i == 1 || (i > 1 && seconds < best))
            best = seconds;
    }
    *seconds_out = best;
out:
    return status;
}

/* Times all products on a backend that takes one way for all of them. */
static lrd_status_t time_route(tune_t *t, const lrd_model_config_t *c, const char *file, int native,
                               int n_threads)
{
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = NULL;
    lrd_stream_t *st = NULL;
    lrd_buf_t text = {0};
    void *memory = NULL, *scratch = NULL;
    const size_t row = (size_t)TOKENS * (size_t)c->mlp * 2,
                 weight = (size_t)(c->mlp * c->hidden) * 2;
    const lrd_limits_t limits = {.tokens = TOKENS,
                                 .max_seqlen = TOKENS,
                                 .hidden = c->hidden,
                                 .mlp = c->mlp,
                                 .vocab = c->vocab_size,
                                 .n_heads = c->n_heads,
                                 .head_dim = c->head_dim,
                                 .compute = LRD_BF16,
                                 .training = true};
    size_t scratch_bytes = 0;
    LRD_TRY(write_text(t, native, &text));
    LRD_TRY(lrd_file_write(file, text.data, text.size));
    LRD_TRY(lrd_backend_open("cpu", &(lrd_backend_options_t){0, n_threads, file}, &be));
    LRD_TRY(lrd_stream_create(be, &st));
    scratch_bytes = lrd_scratch_bytes(be, &limits);
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, 2 * row + weight, &memory));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, scratch_bytes, &scratch));
    LRD_TRY(lrd_zero(st, memory, 2 * row + weight));
    const operands_t o = {.x = {.data = memory},
                          .y = {.data = (char *)memory + row},
                          .w = {.data = (char *)memory + 2 * row},
                          .scratch = {scratch, scratch_bytes}};
    for (int i = 0; i < t->n_products; i++)
        LRD_TRY(time_product(st, &o, &t->product[i], &t->product[i].seconds[native]));
out:
    if (be != NULL) {
        lrd_mem_free(be, LRD_MEM_DEVICE, scratch, scratch_bytes);
        lrd_mem_free(be, LRD_MEM_DEVICE, memory, 2 * row + weight);
    }
    lrd_stream_destroy(st);
    lrd_backend_close(be);
    lrd_buf_release(&text);
    return status;
}

static void report(const tune_t *t)
{
    for (int i = 0; i < t->n_products; i++) {
        const product_t *p = &t->product[i];
        const double flops = 2.0 * TOKENS * (double)p->n * (double)p->k;
        lrd_info("%lld x %lld%s: widened %.0f GFLOP/s, native %.0f GFLOP/s", (long long)p->n,
                 (long long)p->k, p->transposed ? " transposed" : "", flops / p->seconds[0] / 1e9,
                 flops / p->seconds[1] / 1e9);
    }
}

lrd_status_t lrd_command_tune(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    lrd_model_config_t config;
    tune_t t = {.n_products = 0};
    lrd_buf_t text = {0};
    int n_threads;
    const micro_isa_t *isa;
    const char *out = app->cli->out != NULL ? app->cli->out : "tuning.json";
    char *trial = NULL, *folder = NULL;
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL_OUTLINE, &folder));
    LRD_TRY(lrd_model_config_read(folder, &config));
    LRD_TRY(lrd_cpus_threads(app->comm, app->cli->threads, &n_threads));
    LRD_ALLOC(trial, lrd_asprintf("%s.trial", out));
    LRD_TRY(micro_choose(&isa));
    tuning_machine(isa, t.machine);
    list_products(&t, &config);
    app->work_began = true;
    for (int native = 0; native < 2; native++)
        LRD_TRY(time_route(&t, &config, trial, native, n_threads));
    report(&t);
    LRD_TRY(write_text(&t, -1, &text));
    LRD_TRY(lrd_buf_add_text(&text, "\n"));
    LRD_TRY(lrd_file_write(out, text.data, text.size));
    lrd_info("Wrote %s: name it in parallel.tuning_file", out);
out:
    if (trial != NULL)
        unlink(trial);
    lrd_free(trial);
    lrd_free(folder);
    lrd_buf_release(&text);
    lrd_settings_free(settings);
    return status;
}
