/* Micro-batches on their way to the device: what arrives, plain and padded. */
#include "model/feed.h"
#include "support/test_support.h"

#include <string.h>

enum { MAX_TOKENS = 300, MAX_SEQUENCES = 40 };

static lrd_backend_t *be;
static lrd_stream_t *stream;
static lrd_feed_t feed;
static uint8_t *memory;

static int setup(void **state)
{
    (void)state;
    assert_ok(lrd_backend_open("cpu", &(lrd_backend_options_t){0, 1, NULL}, &be));
    assert_ok(lrd_stream_create(be, &stream));
    assert_ok(lrd_feed_open(stream, MAX_TOKENS, MAX_SEQUENCES, &feed));
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, feed.bytes, (void **)&memory));
    feed.device = memory;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lrd_feed_close(&feed);
    lrd_mem_free(be, LRD_MEM_DEVICE, memory, feed.bytes);
    lrd_stream_destroy(stream);
    lrd_backend_close(be);
    return 0;
}

/* n sequences of these lengths, with numbers that tell the rows apart. */
static lrd_batch_t make_batch(const int32_t *length, int64_t n)
{
    static int32_t token[MAX_TOKENS], target[MAX_TOKENS], cu[MAX_SEQUENCES + 1];
    static uint64_t key[MAX_TOKENS];
    for (int64_t s = 0; s < n; s++)
        cu[s + 1] = cu[s] + length[s];
    for (int32_t t = 0; t < cu[n]; t++) {
        token[t] = 1000 + t;
        target[t] = t % 3;
        key[t] = 7000 + (uint64_t)t;
    }
    return (lrd_batch_t){.token = token,
                         .target = target,
                         .row_key = key,
                         .cu_seqlens = cu,
                         .n_tokens = cu[n],
                         .n_sequences = n,
                         .n_targets = cu[n]};
}

/* Of how many targets the head of a padded batch is told. */
static int64_t bound(int64_t targets, int64_t tokens)
{
    static const int64_t bounds[] = {32, 64, 128, 256, 384};
    int i = 0;
    while (bounds[i] < targets)
        i++;
    return bounds[i] < tokens ? bounds[i] : tokens;
}

/* The rows of the batch are there, and its beginning again behind them without targets, cut into
 * sequences at the same places; then empty ones. */
static void check(const lrd_batch_t *b, bool padded)
{
    lrd_micro_batch_t m;
    feed.padded = padded;
    memset(memory, 0xff, feed.bytes);
    assert_ok(lrd_feed_upload(&feed, b, (lrd_ce_call_t){0.5, 3}, &m));
    int64_t tokens = b->n_tokens;
    if (padded && tokens > 0)
        tokens = tokens <= 128 ? 128 : tokens <= 256 ? 256 : MAX_TOKENS;
    assert_int_equal(m.n_tokens, tokens);
    assert_int_equal(m.n_targets, padded ? bound(b->n_targets, tokens) : b->n_targets);
    assert_true(m.call->inv_n_target == 0.5 && m.call->number == 3);
    assert_int_equal(m.cu_seqlens[m.n_seqs], tokens);
    assert_true((const uint8_t *)(m.cu_seqlens + m.n_seqs + 1) <= memory + feed.bytes);
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t from = t % b->n_tokens;
        assert_int_equal(m.token[t], b->token[from]);
        assert_int_equal(m.row_key[t], b->row_key[from]);
        assert_int_equal(m.target[t], t < b->n_tokens ? b->target[t] : LRD_NO_TARGET);
    }
    int64_t s = 0;
    for (int64_t base = 0; base < tokens; base += b->n_tokens) {
        for (int64_t i = 0; i < b->n_sequences && m.cu_seqlens[s] < tokens; i++) {
            const int64_t end = base + b->cu_seqlens[i + 1];
            assert_int_equal(m.cu_seqlens[++s], end < tokens ? end : tokens);
            assert_true(m.cu_seqlens[s] - m.cu_seqlens[s - 1] <= m.max_seqlen);
        }
    }
    for (; s < m.n_seqs; s++)
        assert_int_equal(m.cu_seqlens[s + 1], tokens);
    if (padded && tokens > 0)
        assert_int_equal(m.n_seqs % 16, 0);
    else
        assert_int_equal(m.n_seqs, b->n_sequences);
}

static void test_arrives(void **state)
{
    (void)state;
    int32_t ones[MAX_SEQUENCES];
    for (int i = 0; i < MAX_SEQUENCES; i++)
        ones[i] = 1;
    const struct {
        const int32_t *length;
        int64_t n;
    } cases[] = {{(int32_t[]){3, 2}, 2},    {(int32_t[]){1}, 1},       {(int32_t[]){128}, 1},
                 {(int32_t[]){100, 29}, 2}, {(int32_t[]){200, 70}, 2}, {ones, MAX_SEQUENCES},
                 {(int32_t[]){150, 150}, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_batch_t b = make_batch(cases[i].length, cases[i].n);
        check(&b, false);
        check(&b, true);
        for (b.n_targets = 0; b.n_targets < b.n_tokens; b.n_targets = 2 * b.n_targets + 1)
            check(&b, true);
    }
}

static void test_too_large(void **state)
{
    (void)state;
    lrd_micro_batch_t m;
    lrd_batch_t b = make_batch((int32_t[]){150, 150}, 2);
    b.n_tokens++;
    assert_fails(lrd_feed_upload(&feed, &b, (lrd_ce_call_t){0}, &m), LRD_ERR_ARG,
                 "a micro-batch of 301 tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_arrives),
                                       cmocka_unit_test(test_too_large)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
