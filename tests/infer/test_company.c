/* What a request is given does not depend on its company: logits to the bit, tokens, sampled ones
 * too. 32 adapters of different ranks and targets, and the base, side by side over one model. */
#include "base/json.h"
#include "base/mem.h"
#include "infer/generator.h"
#include "model/engine.h"
#include "support/test_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_ADAPTERS = 32, MAX_REQUESTS = 40, MAX_PROMPT = 70, NEW_TOKENS = 12, CAPACITY = 128 };

static const char *backend = "cpu";
static int n_requests = MAX_REQUESTS;
static lrd_engine_t engine;
static lrd_adapter_use_t use[N_ADAPTERS];
static int32_t prompt[MAX_REQUESTS][MAX_PROMPT];
static lrd_request_t request[MAX_REQUESTS];

/* Stage or generator, whichever a test needs; laid out on demand. */
static lrd_stage_t *stage;
static lrd_generator_t *generator;
static uint8_t *inputs; /* device */
static float *logits;   /* device */
enum { INPUT_BYTES = 1 << 16, MAX_ROWS = 48 };

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    (void)context;
    inputs = lrd_arena_take(step, "inputs", INPUT_BYTES);
    logits = lrd_arena_take(step, "logits",
                            (size_t)(MAX_ROWS * engine.config.vocab_size) * sizeof *logits);
    if (stage != NULL)
        lrd_stage_layout(stage, model, step);
    if (generator != NULL)
        lrd_generator_layout(generator, model, step);
}

/* An adapter of some rank on some of the linears, with large random numbers. */
static lrd_adapter_use_t make_adapter(uint64_t *seed, int i)
{
    static const char *const targets[] = {"[query_key_value]", "all-linear",
                                          "[dense, dense_4h_to_h]",
                                          "[query_key_value, dense_h_to_4h]"};
    lrd_settings_t *settings = NULL;
    lrd_adapter_use_t u = {NULL, NULL};
    lrd_adapter_t *adapter;
    float *pinned;
    char text[128];
    assert_ok(lrd_settings_create(&settings));
    snprintf(text, sizeof text, "lora.r=%d", 1 + i % 11);
    assert_ok(lrd_settings_set(settings, text));
    snprintf(text, sizeof text, "lora.target_modules=%s", targets[i % 4]);
    assert_ok(lrd_settings_set(settings, text));
    assert_ok(lrd_model_adapter_create(&engine.config, &settings->lora, &adapter));
    const size_t bytes = (size_t)adapter->n_params * sizeof *u.params;
    assert_ok(lrd_mem_alloc(engine.backend, LRD_MEM_PINNED, bytes, (void **)&pinned));
    assert_ok(lrd_mem_alloc(engine.backend, LRD_MEM_DEVICE, bytes, (void **)&u.params));
    for (int64_t k = 0; k < adapter->n_params; k++)
        pinned[k] = 0.2f * (float)lrd_test_random(seed);
    assert_ok(lrd_copy(engine.stream, LRD_COPY_H2D, u.params, pinned, bytes));
    assert_ok(lrd_stream_sync(engine.stream));
    lrd_mem_free(engine.backend, LRD_MEM_PINNED, pinned, bytes);
    lrd_settings_free(settings);
    u.adapter = adapter;
    return u;
}

static int setup(void **state)
{
    (void)state;
    uint64_t seed = 11;
    assert_ok(
        lrd_engine_open(&(lrd_engine_options_t){.folder = lrd_test_golden("runs/all-linear/model"),
                                                .dtype = LRD_F32,
                                                .backend = backend,
                                                .n_threads = 2},
                        &engine));
    for (int i = 0; i < N_ADAPTERS; i++)
        use[i] = make_adapter(&seed, i);
    for (int i = 0; i < n_requests; i++) {
        request[i] =
            (lrd_request_t){.prompt = prompt[i],
                            .n_prompt = 1 + (int32_t)lrd_test_random_int(&seed, MAX_PROMPT),
                            .max_new_tokens = 1 + (int32_t)lrd_test_random_int(&seed, NEW_TOKENS),
                            .number = (uint64_t)i};
        for (int k = 0; k < request[i].n_prompt; k++)
            prompt[i][k] = (int32_t)lrd_test_random_int(&seed, engine.config.vocab_size);
        if (i < N_ADAPTERS)
            request[i].use = use[(i * 13) % N_ADAPTERS];
        else if (i % 2 == 0)
            request[i].use = use[i % 5];
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < N_ADAPTERS; i++) {
        lrd_mem_free(engine.backend, LRD_MEM_DEVICE, use[i].params,
                     (size_t)use[i].adapter->n_params * sizeof(float));
        lrd_adapter_free((lrd_adapter_t *)use[i].adapter);
    }
    lrd_engine_close(&engine);
    return 0;
}

static bool have_memory;

static void take_memory(size_t scratch_bytes)
{
    if (have_memory) {
        assert_ok(lrd_memory_resize(&engine.memory, scratch_bytes));
        return;
    }
    lrd_engine_plan(&engine, layout, NULL, scratch_bytes);
    assert_ok(lrd_engine_allocate(&engine));
    have_memory = true;
}

/* Logits of the last token of requests first .. first + n - 1, grouped as they stand; fed `piece`
 * tokens at a time. out[n][vocab]. */
static void last_logits(const int *which, int n, int32_t piece, float *out)
{
    const int64_t v = engine.config.vocab_size;
    int32_t past[MAX_ROWS] = {0};
    uint8_t *pinned;
    const size_t row_bytes = (size_t)v * sizeof(float);
    assert_ok(lrd_mem_alloc(engine.backend, LRD_MEM_PINNED, INPUT_BYTES + row_bytes * MAX_ROWS,
                            (void **)&pinned));
    for (bool more = true; more;) {
        int32_t *token = (int32_t *)pinned, *cu = token + 8192, *len = cu + 64, *slot = len + 64,
                *last = slot + 64, begin[MAX_ROWS + 1], owner[MAX_ROWS];
        lrd_adapter_use_t used[MAX_ROWS];
        int32_t n_seqs = 0, n_rows = 0, t = 0, max_len = 0, longest = 0;
        more = false;
        cu[0] = 0;
        for (int i = 0; i < n; i++) {
            const lrd_request_t *q = &request[which[i]];
            const int32_t left = q->n_prompt - past[i], m = left < piece ? left : piece;
            if (m == 0)
                continue;
            memcpy(token + t, q->prompt + past[i], (size_t)m * sizeof *token);
            used[n_seqs] = q->use;
            begin[n_seqs] = t;
            t += m;
            len[n_seqs] = past[i];
            slot[n_seqs++] = MAX_ROWS - 1 - i;
            cu[n_seqs] = t;
            past[i] += m;
            max_len = past[i] > max_len ? past[i] : max_len;
            longest = m > longest ? m : longest;
            if (past[i] == q->n_prompt) {
                owner[n_rows] = i;
                last[n_rows++] = t - 1;
            }
            more = more || past[i] < q->n_prompt;
        }
        begin[n_seqs] = t;
        assert_ok(lrd_copy(engine.stream, LRD_COPY_H2D, inputs, pinned, INPUT_BYTES));
        const int32_t *at = (const int32_t *)inputs;
        const lrd_micro_batch_t batch = {.token = at,
                                         .cu_seqlens = at + 8192,
                                         .n_tokens = t,
                                         .n_seqs = n_seqs,
                                         .max_seqlen = longest,
                                         .cache_len = at + 8192 + 64,
                                         .slot = at + 8192 + 128,
                                         .max_len = max_len,
                                         .use = used,
                                         .use_begin = begin,
                                         .n_uses = n_seqs};
        if (n_rows == 0) {
            assert_ok(lrd_stage_take_in(stage, &batch));
            assert_ok(lrd_stream_sync(engine.stream));
            continue;
        }
        assert_ok(lrd_stage_next(stage, &batch, at + 8192 + 192, n_rows,
                                 (lrd_mat_t){logits, n_rows, v, v, LRD_F32}));
        assert_ok(lrd_copy(engine.stream, LRD_COPY_D2H, pinned + INPUT_BYTES, logits,
                           row_bytes * (size_t)n_rows));
        assert_ok(lrd_stream_sync(engine.stream));
        for (int32_t r = 0; r < n_rows; r++)
            memcpy(out + owner[r] * v, pinned + INPUT_BYTES + (size_t)r * row_bytes, row_bytes);
    }
    lrd_mem_free(engine.backend, LRD_MEM_PINNED, pinned, INPUT_BYTES + row_bytes * MAX_ROWS);
}

static void test_logits(void **state)
{
    (void)state;
    const int64_t v = engine.config.vocab_size;
    static int all[MAX_REQUESTS], backwards[MAX_REQUESTS];
    float *alone = lrd_calloc((size_t)(n_requests * v), sizeof(float));
    float *together = lrd_calloc((size_t)(n_requests * v), sizeof(float));
    float *pinned;
    const lrd_stage_limits_t limits = {.tokens = (int64_t)n_requests * MAX_PROMPT,
                                       .sequences = MAX_ROWS,
                                       .max_seqlen = CAPACITY,
                                       .slots = MAX_ROWS,
                                       .capacity = CAPACITY,
                                       .rank = 16};
    assert_ok(lrd_stage_create(engine.weights, NULL, engine.stream, limits, &stage));
    take_memory(lrd_stage_scratch_bytes(stage));
    stage->scratch = engine.memory.scratch;
    assert_ok(lrd_mem_alloc(engine.backend, LRD_MEM_PINNED, 4096, (void **)&pinned));
    assert_ok(lrd_stage_prepare(stage, pinned));
    for (int i = 0; i < n_requests; i++) {
        all[i] = i;
        backwards[i] = n_requests - 1 - i;
        last_logits(&i, 1, CAPACITY, alone + i * v);
    }
    static const int32_t pieces[] = {CAPACITY, 17, 1};
    for (int p = 0; p < 3; p++) {
        last_logits(all, n_requests, pieces[p], together);
        for (int i = 0; i < n_requests; i++) {
            if (memcmp(together + i * v, alone + i * v, (size_t)v * sizeof(float)) != 0)
                fail_msg("request %d, %d tokens at a time: other logits than alone", i, pieces[p]);
        }
    }
    last_logits(backwards, n_requests, CAPACITY, together);
    for (int i = 0; i < n_requests; i++)
        assert_memory_equal(together + i * v, alone + (n_requests - 1 - i) * v,
                            (size_t)v * sizeof(float));
    lrd_mem_free(engine.backend, LRD_MEM_PINNED, pinned, 4096);
    lrd_stage_destroy(stage);
    stage = NULL;
    lrd_free(together);
    lrd_free(alone);
}

static void run_generator(int32_t slots, const lrd_sampling_t *sampling, const lrd_request_t *q,
                          size_t n, lrd_reply_t *reply)
{
    const lrd_generator_limits_t limits = {.slots = slots,
                                           .capacity = CAPACITY,
                                           .rank = 16,
                                           .penalty = true,
                                           .graphs = lrd_has_graphs(engine.backend)};
    const int32_t eos[] = {2, 7};
    assert_ok(lrd_generator_create(engine.weights, engine.stream, limits, eos, 2, &generator));
    take_memory(lrd_generator_scratch_bytes(generator));
    assert_ok(lrd_generator_prepare(generator, engine.memory.scratch));
    assert_ok(lrd_generate(generator, sampling, q, n, NULL, reply));
    lrd_generator_destroy(generator);
    generator = NULL;
}

static void check_tokens(const lrd_sampling_t *sampling)
{
    static lrd_reply_t alone[MAX_REQUESTS], together[MAX_REQUESTS];
    static const int32_t slots[] = {1, 3, 40};
    run_generator(1, sampling, request, n_requests, alone);
    for (int i = 0; i < n_requests; i++)
        assert_true(alone[i].n >= 1 && alone[i].n <= request[i].max_new_tokens);
    for (size_t k = 0; k < 3; k++) {
        run_generator(slots[k], sampling, request, n_requests, together);
        for (int i = 0; i < n_requests; i++) {
            assert_int_equal(together[i].n, alone[i].n);
            assert_int_equal(together[i].finish, alone[i].finish);
            assert_memory_equal(together[i].token, alone[i].token,
                                (size_t)alone[i].n * sizeof(int32_t));
        }
        lrd_replies_release(together, n_requests);
    }
    /* Some of them, in another order: their numbers name them, not their places. */
    const int which[3] = {n_requests / 2, 1, n_requests - 1};
    lrd_request_t some[3];
    for (int i = 0; i < 3; i++)
        some[i] = request[which[i]];
    run_generator(2, sampling, some, 3, together);
    for (int i = 0; i < 3; i++)
        assert_memory_equal(together[i].token, alone[which[i]].token,
                            (size_t)alone[which[i]].n * 4);
    lrd_replies_release(together, 3);
    lrd_replies_release(alone, n_requests);
}

static void test_greedy(void **state)
{
    (void)state;
    lrd_sampling_t s = lrd_sampling_default();
    check_tokens(&s);
    s.repetition_penalty = 1.4f;
    check_tokens(&s);
}

static void test_sampled(void **state)
{
    (void)state;
    static lrd_reply_t one[MAX_REQUESTS], other[MAX_REQUESTS];
    lrd_sampling_t s = lrd_sampling_default();
    int differ = 0;
    s.do_sample = true;
    s.temperature = 1.5f;
    s.top_p = 0.9f;
    s.repetition_penalty = 1.2f;
    check_tokens(&s);
    run_generator(7, &s, request, n_requests, one);
    s.seed = 43;
    run_generator(7, &s, request, n_requests, other);
    for (int i = 0; i < n_requests; i++)
        differ += one[i].n != other[i].n ||
                  memcmp(one[i].token, other[i].token, (size_t)one[i].n * 4) != 0;
    assert_true(differ > n_requests / 2); /* another seed draws otherwise */
    lrd_replies_release(one, n_requests);
    lrd_replies_release(other, n_requests);
}

/* A listener that ends requests, cancels, and sees every token. */
typedef struct heard {
    int tokens, done;
    volatile sig_atomic_t cancel;
} heard_t;

static lrd_status_t hear(void *context, size_t i, const lrd_reply_t *reply, bool *stop_out)
{
    heard_t *h = context;
    h->tokens++;
    *stop_out = i == 2 && reply->n == 2;
    return LRD_OK;
}

static lrd_status_t hear_done(void *context, size_t i, const lrd_reply_t *reply)
{
    (void)i;
    (void)reply;
    heard_t *h = context;
    h->cancel = ++h->done == 4;
    return LRD_OK;
}

static void test_listener(void **state)
{
    (void)state;
    lrd_reply_t reply[6];
    lrd_request_t q[6];
    heard_t h = {.tokens = 0};
    const lrd_sampling_t s = lrd_sampling_default();
    const lrd_generator_limits_t limits = {.slots = 2, .capacity = CAPACITY, .rank = 16};
    memcpy(q, request, sizeof q);
    for (int i = 0; i < 6; i++)
        q[i].max_new_tokens = 5;
    assert_ok(lrd_generator_create(engine.weights, engine.stream, limits, NULL, 0, &generator));
    take_memory(lrd_generator_scratch_bytes(generator));
    assert_ok(lrd_generator_prepare(generator, engine.memory.scratch));
    const lrd_listener_t l = {&h, hear, hear_done, &h.cancel};
    assert_fails(lrd_generate(generator, &s, q, 6, &l, reply), LRD_ERR_INTERRUPTED, "interrupted");
    assert_int_equal(reply[2].n, 2);
    assert_int_equal(reply[2].finish, LRD_FINISH_STOP);
    assert_int_equal(reply[0].finish, LRD_FINISH_LENGTH);
    assert_true(h.tokens >= 17 && h.tokens < 30);
    lrd_replies_release(reply, 6);
    q[1].max_new_tokens = CAPACITY;
    assert_fails(lrd_generate(generator, &s, q, 6, NULL, reply), LRD_ERR_ARG, "request 1");
    lrd_replies_release(reply, 6);
    lrd_sampling_t penalty = s;
    penalty.repetition_penalty = 2;
    assert_fails(lrd_generate(generator, &penalty, q, 1, NULL, reply), LRD_ERR_ARG, "penalty");
    lrd_generator_destroy(generator);
    generator = NULL;
}

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--backend") == 0)
            backend = argv[i + 1];
        else if (strcmp(argv[i], "--requests") == 0) /* 6 to MAX_REQUESTS */
            n_requests = (int)strtol(argv[i + 1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_logits), cmocka_unit_test(test_greedy),
                                       cmocka_unit_test(test_sampled),
                                       cmocka_unit_test(test_listener)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
