/* Blocks that are kept off the device, on a device that does nothing but look: every block finds its own
 * weights, no copy meets ops that read the slot or pinned memory that is still on its way, what comes next
 * travels before the block in work is enqueued, and nothing travels twice for nothing. */
#include "base/mem.h"
#include "kernels/ops.h"
#include "model/ranks.h"
#include "support/test_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_LAYERS = 8, HIDDEN = 8, VOCABULARY = 4, N_TENSORS = 12, MOST_COPIES = 4096 };

/* ---- the device -------------------------------------------------------------------------------- */

/* Who knows of what: [stream of ops, stream of copies, host][operations of the other]. An event carries
 * what its stream knew. */
enum { OPS, COPIES, HOST, N_CLOCKS };
typedef struct knowledge {
    int64_t of[N_CLOCKS];
} knowledge_t;
typedef struct stream {
    lrd_stream_t base;
    int who;
} stream_t;
typedef struct event {
    lrd_event_t base;
    knowledge_t known;
} event_t;
typedef struct copy {
    const uint8_t *from;
    uint8_t *to;
    size_t bytes;
    float first; /* what it brought */
    int64_t at;
} copy_t;

static knowledge_t knows[N_CLOCKS];
static copy_t copies[MOST_COPIES];
static int n_copies, n_streams;
static struct {
    const uint8_t *from;
    size_t bytes;
    int64_t at;
} reads[MOST_COPIES]; /* of ops */
static int n_reads;
static size_t pinned_bytes;

static lrd_status_t fake_alloc(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes, void **ptr_out)
{
    (void)be;
    pinned_bytes += kind == LRD_MEM_PINNED ? bytes : 0;
    *ptr_out = calloc(1, bytes);
    return *ptr_out != NULL ? LRD_OK : LRD_ERR_NO_MEMORY;
}

static void fake_free(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes)
{
    (void)be;
    pinned_bytes -= kind == LRD_MEM_PINNED ? bytes : 0;
    free(ptr);
}

static lrd_status_t fake_stream(lrd_backend_t *be, lrd_stream_t **stream_out)
{
    stream_t *s = calloc(1, sizeof *s);
    s->base.backend = be;
    s->who = n_streams++;
    *stream_out = &s->base;
    return LRD_OK;
}

static void fake_stream_destroy(lrd_stream_t *st)
{
    free(st);
}

static void learn(knowledge_t *k, const knowledge_t *from)
{
    for (int i = 0; i < N_CLOCKS; i++)
        k->of[i] = from->of[i] > k->of[i] ? from->of[i] : k->of[i];
}

static lrd_status_t fake_sync(lrd_stream_t *st)
{
    learn(&knows[HOST], &knows[((stream_t *)st)->who]);
    return LRD_OK;
}

static lrd_status_t fake_event(lrd_backend_t *be, lrd_event_t **event_out)
{
    event_t *e = calloc(1, sizeof *e);
    e->base.backend = be;
    *event_out = &e->base;
    return LRD_OK;
}

static void fake_event_destroy(lrd_event_t *event)
{
    free(event);
}

static lrd_status_t fake_record(lrd_stream_t *st, lrd_event_t *event)
{
    ((event_t *)event)->known = knows[((stream_t *)st)->who];
    return LRD_OK;
}

static lrd_status_t fake_event_sync(lrd_event_t *event)
{
    learn(&knows[HOST], &((event_t *)event)->known);
    return LRD_OK;
}

static lrd_status_t fake_wait(lrd_stream_t *st, lrd_event_t *event)
{
    learn(&knows[((stream_t *)st)->who], &((event_t *)event)->known);
    return LRD_OK;
}

static bool overlap(const uint8_t *a, size_t n, const uint8_t *b, size_t m)
{
    return a < b + m && b < a + n;
}

/* Done at once; what would have gone wrong had it been done at another time is an error here. */
static lrd_status_t fake_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                              size_t bytes)
{
    const int who = ((stream_t *)st)->who;
    memcpy(dst, src, bytes);
    if (who != COPIES)
        return LRD_OK; /* the weights are loaded */
    assert_int_equal(dir, LRD_COPY_H2D);
    for (int i = 0; i < n_reads; i++) { /* ops still read what is overwritten */
        if (overlap(reads[i].from, reads[i].bytes, dst, bytes))
            assert_true(reads[i].at <= knows[COPIES].of[OPS]);
    }
    copy_t c = {src, dst, bytes, *(const float *)src, ++knows[COPIES].of[COPIES]};
    for (int i = 0; i < n_copies; i++) { /* the host wrote here while it was on its way */
        if (copies[i].from == c.from && copies[i].first != c.first)
            assert_true(copies[i].at <= knows[HOST].of[COPIES]);
    }
    assert_true(n_copies < MOST_COPIES);
    copies[n_copies++] = c;
    return LRD_OK;
}

static const lrd_ops_t fake_ops = {.name = "fake",
                                   .mem_alloc = fake_alloc,
                                   .mem_free = fake_free,
                                   .stream_create = fake_stream,
                                   .stream_destroy = fake_stream_destroy,
                                   .stream_sync = fake_sync,
                                   .stream_wait = fake_wait,
                                   .event_create = fake_event,
                                   .event_destroy = fake_event_destroy,
                                   .event_record = fake_record,
                                   .event_sync = fake_event_sync,
                                   .copy = fake_copy};

/* ---- the model --------------------------------------------------------------------------------- */

static lrd_model_config_t config = {.family = &lrd_family_bloom,
                                    .vocab_size = VOCABULARY,
                                    .hidden = HIDDEN,
                                    .mlp = 4 * HIDDEN,
                                    .n_layers = N_LAYERS,
                                    .n_heads = 1,
                                    .head_dim = HIDDEN,
                                    .tie_word_embeddings = true};

static float value_of(int layer, int tensor)
{
    return (float)(layer * N_TENSORS + tensor);
}

static void add(lrd_tensor_spec_t *spec, const lrd_tensor_decl_t *decl, char *name, float value,
                float **data)
{
    const bool vector = decl->shape[1] == LRD_DIM_NONE;
    *spec = (lrd_tensor_spec_t){.name = name, .dtype = LRD_F32, .n_dims = vector ? 1 : 2};
    int64_t n = 1;
    for (int i = 0; i < spec->n_dims; i++)
        n *= spec->shape[i] = lrd_dim_size(&config, decl->shape[i]);
    *data = malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        (*data)[i] = value;
}

/* A file in which every tensor of a block says which one it is. */
static void write_model(const char *folder)
{
    enum { MOST = 16 + N_LAYERS * N_TENSORS };
    const lrd_family_t *f = config.family;
    static lrd_tensor_spec_t spec[MOST];
    static float *data[MOST];
    static char name[MOST][80];
    size_t n = 0;
    assert_int_equal(f->n_block_tensors, N_TENSORS);
    for (int i = 0; i < f->n_embed_tensors; i++, n++) {
        snprintf(name[n], sizeof name[n], "%s", f->embed_tensors[i].name);
        add(&spec[n], &f->embed_tensors[i], name[n], -1, &data[n]);
    }
    for (int i = 0; i < f->n_final_tensors; i++, n++) {
        snprintf(name[n], sizeof name[n], "%s", f->final_tensors[i].name);
        add(&spec[n], &f->final_tensors[i], name[n], -1, &data[n]);
    }
    for (int layer = 0; layer < N_LAYERS; layer++) {
        for (int i = 0; i < N_TENSORS; i++, n++) {
            snprintf(name[n], sizeof name[n], "h.%d.%s", layer, f->block_tensors[i].name);
            add(&spec[n], &f->block_tensors[i], name[n], value_of(layer, i), &data[n]);
        }
    }
    char path[1024];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    assert_ok(lrd_safetensors_write(path, spec, (const void *const *)data, n));
    for (size_t i = 0; i < n; i++)
        free(data[i]);
}

/* ---- a run ------------------------------------------------------------------------------------- */

typedef struct run {
    lrd_backend_t backend;
    lrd_stream_t *stream;
    lrd_weights_t *weights;
    const lrd_home_t *home;
    lrd_arena_t arena;
    int n_before; /* copies */
} run_t;

static void open_run(run_t *r, const lrd_home_t *home)
{
    lrd_span_t all = {0, N_LAYERS, true, true};
    const lrd_runs_t runs = {&all, 1, home};
    lrd_arena_t measured = {.base = NULL};
    uint8_t scratch[1 << 12];
    n_copies = n_reads = n_streams = 0;
    memset(knows, 0, sizeof knows);
    *r = (run_t){.backend = {&fake_ops}, .home = home};
    const char *folder = lrd_test_temporary("model");
    assert_ok(lrd_folder_make(folder));
    write_model(folder);
    assert_ok(lrd_stream_create(&r->backend, &r->stream));
    assert_ok(lrd_weights_open(folder, &config, &runs, LRD_F32, &r->weights));
    lrd_weights_layout(r->weights, &r->backend, &measured);
    r->arena = (lrd_arena_t){.base = calloc(1, measured.used), .capacity = measured.used};
    lrd_weights_layout(r->weights, &r->backend, &r->arena);
    assert_int_equal(r->arena.used, measured.used);
    assert_ok(lrd_weights_load(r->weights, r->stream, (lrd_scratch_t){scratch, sizeof scratch},
                               "Loading", NULL));
    assert_int_equal(pinned_bytes, r->weights->host_bytes);
}

static void close_run(run_t *r)
{
    lrd_weights_close(r->weights);
    lrd_stream_destroy(r->stream);
    assert_int_equal(pinned_bytes, 0);
    free(r->arena.base);
}

/* Ops of a block: they read all of its tensors, which must be there by then. */
static void compute(run_t *r, int layer)
{
    knows[OPS].of[OPS]++;
    for (int i = 0; i < N_TENSORS; i++) {
        const lrd_cmat_t t = lrd_weights_block(r->weights, layer, i);
        const size_t bytes = (size_t)(t.rows * t.cols) * sizeof(float);
        const float *x = t.data;
        assert_non_null(x);
        assert_true(x[0] == value_of(layer, i) && x[t.rows * t.cols - 1] == value_of(layer, i));
        for (int c = 0; c < n_copies; c++) {
            if (overlap(copies[c].to, copies[c].bytes, t.data, bytes))
                assert_true(copies[c].at <= knows[OPS].of[COPIES]);
        }
        assert_true(n_reads < MOST_COPIES);
        reads[n_reads].from = t.data;
        reads[n_reads].bytes = bytes;
        reads[n_reads++].at = knows[OPS].of[OPS];
    }
    for (int other = 0; other < N_LAYERS; other++) /* nobody can use another by mistake */
        assert_true(other == layer || r->home[other] == LRD_HOME_DEVICE ||
                    lrd_weights_block(r->weights, other, 0).data == NULL);
}

static lrd_pass_t passes[8];

/* Computes the passes in a row; what follows each is the next one, and the first behind the last. The
 * blocks that were asked for while a block was begun are written behind it: "0 1+2 2" fetches 2 with 1. */
static const char *go(run_t *r, int n)
{
    static char text[1024];
    size_t at = 0;
    text[0] = '\0';
    for (int p = 0; p < n; p++) {
        lrd_pass_t left = passes[p];
        while (left.n > 0) {
            const int layer = left.first;
            const int before = n_copies;
            int told = -1;
            left = (lrd_pass_t){layer + left.step, left.n - 1, left.step};
            assert_ok(lrd_weights_use(r->weights, r->stream, layer, left, passes[(p + 1) % n]));
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%d", at > 0 ? " " : "", layer);
            for (int c = before; c < n_copies; c++) {
                const int brought = (int)copies[c].first / N_TENSORS;
                if (brought != told)
                    at += (size_t)snprintf(text + at, sizeof text - at, "+%d", brought);
                told = brought;
            }
            compute(r, layer);
        }
    }
    return text;
}

#define D LRD_HOME_DEVICE
#define H LRD_HOME_HOST
#define F LRD_HOME_FILE

/* Forward and back, twice. At the turns nothing travels: what is needed is in the slots. */
static void test_training(void **state)
{
    (void)state;
    static const lrd_home_t home[N_LAYERS] = {D, H, D, H, D, H, D, H};
    run_t r;
    open_run(&r, home);
    assert_int_equal(r.weights->host_bytes, 4 * lrd_weights_block_bytes(r.weights));
    passes[0] = (lrd_pass_t){0, 8, 1};
    passes[1] = (lrd_pass_t){7, 8, -1};
    assert_string_equal(go(&r, 2), "0+1+3 1 2+5 3 4+7 5 6 7 7 6+3 5 4+1 3 2 1 0");
    assert_string_equal(go(&r, 2), "0 1 2+5 3 4+7 5 6 7 7 6+3 5 4+1 3 2 1 0");
    close_run(&r);
}

/* All of them, and a backward pass that ends at the lowest adapter. */
static void test_all_away(void **state)
{
    (void)state;
    static const lrd_home_t home[N_LAYERS] = {H, H, H, H, H, H, H, H};
    run_t r;
    open_run(&r, home);
    passes[0] = (lrd_pass_t){0, 8, 1};
    passes[1] = (lrd_pass_t){7, 3, -1};
    assert_string_equal(go(&r, 2), "0+0+1 1+2 2+3 3+4 4+5 5+6 6+7 7 7 6+5 5+0");
    assert_string_equal(go(&r, 2), "0+1 1+2 2+3 3+4 4+5 5+6 6+7 7 7 6+5 5+0");
    close_run(&r);
}

/* Text is generated: forward again and again. */
static void test_again(void **state)
{
    (void)state;
    static const lrd_home_t home[N_LAYERS] = {D, D, H, H, H, D, D, D};
    run_t r;
    open_run(&r, home);
    passes[0] = passes[1] = (lrd_pass_t){0, 8, 1};
    assert_string_equal(go(&r, 2), "0+2+3 1 2 3+4 4+2 5+3 6 7 0 1 2 3+4 4+2 5+3 6 7");
    close_run(&r);
}

/* What is in a file travels when it is needed, through pinned memory that is used again and again. */
static void test_files(void **state)
{
    (void)state;
    static const lrd_home_t home[N_LAYERS] = {F, D, F, F, H, D, F, H};
    run_t r;
    open_run(&r, home);
    assert_int_equal(r.weights->host_bytes, 4 * lrd_weights_block_bytes(r.weights));
    assert_int_equal(r.weights->file_bytes, 4 * lrd_weights_block_bytes(r.weights));
    passes[0] = (lrd_pass_t){0, 8, 1};
    passes[1] = (lrd_pass_t){7, 8, -1};
    assert_string_equal(go(&r, 2), "0+0 1 2+2 3+3+4 4 5+7 6+6 7 7 6+4 5 4 3+3 2+2 1 0+0");
    close_run(&r);
}

/* One block needs one slot and travels once. */
static void test_one(void **state)
{
    (void)state;
    static const lrd_home_t home[N_LAYERS] = {D, D, D, D, D, H, D, D};
    run_t r;
    open_run(&r, home);
    passes[0] = (lrd_pass_t){0, 8, 1};
    passes[1] = (lrd_pass_t){7, 8, -1};
    assert_string_equal(go(&r, 2), "0+5 1 2 3 4 5 6 7 7 6 5 4 3 2 1 0");
    close_run(&r);
}

/* The homes of a stage's blocks, a letter each, for so many blocks of room on the device beside the slots,
 * and on the host. */
static void assert_spilled(int on_device, int on_host, const char *want)
{
    const lrd_parallel_settings_t settings = {.offload_folder = NULL};
    int begin[] = {0, N_LAYERS};
    lrd_placement_t p = {.n_stages = 1, .n_runs = 1, .begin = begin};
    lrd_weights_t *w;
    assert_ok(lrd_weights_outline(&config, NULL, LRD_F32, true, &w));
    const int64_t block = (int64_t)lrd_weights_block_bytes(w);
    const lrd_spill_room_t room = {on_device * block + block / 2, on_host * block + block / 2};
    assert_ok(lrd_ranks_spill(&settings, w, &room, &p));
    for (int layer = 0; layer < N_LAYERS; layer++)
        assert_int_equal("DHF"[p.home[layer]], want[layer]);
    lrd_free(p.home);
    lrd_weights_close(w);
}

/* As many as fit stay, and take turns with those that travel; the rest of the host's room is for the
 * pieces through which files travel. */
static void test_spill(void **state)
{
    (void)state;
    assert_spilled(0, 8, "HHHHHHHH");
    assert_spilled(4, 8, "DHDHDHDH");
    assert_spilled(5, 3, "DDHDDHDH");
    assert_spilled(6, 0, "DDDDDDDD"); /* the two slots hold the others */
    assert_spilled(4, 3, "DFDFDFDH"); /* two of the three are pieces */
    assert_spilled(0, 6, "FHFHFHFH");
    assert_spilled(0, 1, "FFFFFFFF");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training), cmocka_unit_test(test_all_away),
        cmocka_unit_test(test_again),    cmocka_unit_test(test_files),
        cmocka_unit_test(test_one),      cmocka_unit_test(test_spill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
