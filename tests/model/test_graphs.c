/* Passes that come again: each is done as asked, whatever is kept as a graph and what was dropped for it.
 *
 *   test_graphs BACKEND   one that has graphs
 */
#include "model/graphs.h"
#include "support/test_support.h"

#include <string.h>

enum { KEPT = 8, N_PASSES = KEPT + 3, BYTES = 64 };
enum { MOST_NODES = 2 * 64 }; /* of a graph, of passes through one block: graphs.c */

static const char *backend;
static lrd_backend_t *be;
static lrd_stream_t *stream;
static lrd_graphs_t *graphs;
static uint8_t *pinned, *device; /* [N_PASSES + 1][BYTES]: inputs, and the output */
static int n_enqueued, n_more;   /* passes; copies of each beside the three that it needs */

/* Copies its input to the output. */
static lrd_status_t pass(void *context)
{
    lrd_status_t status = LRD_OK;
    const int i = *(const int *)context;
    const size_t at = (size_t)i * BYTES, out = (size_t)N_PASSES * BYTES;
    n_enqueued++;
    LRD_TRY(lrd_copy(stream, LRD_COPY_H2D, device + at, pinned + at, BYTES));
    for (int k = 0; k < n_more; k++)
        LRD_TRY(lrd_copy(stream, LRD_COPY_D2D, device + out, device + at, BYTES));
    LRD_TRY(lrd_copy(stream, LRD_COPY_D2D, device + out, device + at, BYTES));
    LRD_TRY(lrd_copy(stream, LRD_COPY_D2H, pinned + out, device + out, BYTES));
out:
    return status;
}

static lrd_status_t broken(void *context)
{
    lrd_status_t status = pass(context);
    LRD_CHECK(false, LRD_ERR_NONFINITE, "broken");
out:
    return status;
}

static lrd_graphs_t *create(int64_t n_nodes)
{
    lrd_graphs_t *made = NULL;
    const lrd_graphs_limits_t limits = {
        .n = KEPT, .n_blocks = 1, .n_uses = 1, .n_nodes = n_nodes, .n_words = 2};
    assert_ok(lrd_graphs_create(stream, &limits, &made));
    return made;
}

static int setup(void **state)
{
    (void)state;
    assert_ok(lrd_backend_open(backend, &(lrd_backend_options_t){0, 1, NULL}, &be));
    assert_true(lrd_has_graphs(be));
    assert_ok(lrd_stream_create(be, &stream));
    const size_t bytes = (N_PASSES + 1) * BYTES;
    assert_ok(lrd_mem_alloc(be, LRD_MEM_PINNED, bytes, (void **)&pinned));
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes, (void **)&device));
    graphs = create(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lrd_graphs_destroy(graphs);
    lrd_graphs_destroy(NULL);
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, (N_PASSES + 1) * BYTES);
    lrd_mem_free(be, LRD_MEM_DEVICE, device, (N_PASSES + 1) * BYTES);
    lrd_stream_destroy(stream);
    lrd_backend_close(be);
    return 0;
}

static void ask(int i)
{
    static int round;
    memset(pinned + i * BYTES, ++round % 251, BYTES);
    assert_ok(lrd_graphs_run(graphs, (uint64_t[]){(uint64_t)i, 7}, i % 2 == 0 ? 2 : 1, pass, &i));
    assert_ok(lrd_stream_sync(stream));
    assert_memory_equal(pinned + N_PASSES * BYTES, pinned + i * BYTES, BYTES);
}

/* One pass: enqueued twice, once to be done and once to be taken down. */
static void test_one(void **state)
{
    (void)state;
    n_enqueued = 0;
    for (int k = 0; k < 10; k++)
        ask(3);
    assert_int_equal(n_enqueued, 2);
    assert_ok(lrd_graphs_forget(graphs));
    ask(3);
    assert_int_equal(n_enqueued, 3);
}

/* More passes than are kept: one that is asked for all the time stays. */
static void test_many(void **state)
{
    (void)state;
    assert_ok(lrd_graphs_forget(graphs));
    ask(0);
    ask(0);
    for (int k = 0; k < 3; k++) {
        for (int i = 1; i < N_PASSES; i++) {
            ask(i);
            n_enqueued = 0;
            ask(0);
            assert_int_equal(n_enqueued, 0);
        }
    }
}

/* How many of these passes are enqueued, which is not done for those that are graphs. */
static int count(int first, int last)
{
    n_enqueued = 0;
    for (int i = first; i < last; i++)
        ask(i);
    return n_enqueued;
}

/* Passes that come once take no place, nor does one that comes less often than all that are kept; one that comes
 * more often does. */
static void test_places(void **state)
{
    (void)state;
    assert_ok(lrd_graphs_forget(graphs));
    count(0, KEPT);
    assert_int_equal(count(0, KEPT), KEPT);
    assert_int_equal(count(KEPT, N_PASSES), N_PASSES - KEPT);
    assert_int_equal(count(0, KEPT), 0);
    for (int k = 0; k < 3; k++)
        assert_int_equal(count(0, KEPT + 1), 1);
    ask(KEPT);
    assert_int_equal(count(1, KEPT + 1), 0);
    assert_int_equal(count(0, 1), 1);
}

/* A pass that fails while it is taken down leaves the stream usable. */
static void test_failure(void **state)
{
    (void)state;
    int i = 5;
    const uint64_t key[] = {99, 1};
    assert_ok(lrd_graphs_forget(graphs));
    assert_ok(lrd_graphs_run(graphs, key, 2, pass, &i));
    assert_fails(lrd_graphs_run(graphs, key, 2, broken, &i), LRD_ERR_NONFINITE, "broken");
    assert_ok(lrd_stream_sync(stream));
    for (int k = 0; k < 3; k++)
        ask(5);
}

/* 0 on a real device, where others have its memory, too. */
static size_t count_free(void)
{
    char about[256];
    size_t free_bytes, total_bytes;
    assert_ok(lrd_backend_describe(be, about, sizeof about));
    assert_ok(lrd_mem_info(be, &free_bytes, &total_bytes));
    return strstr(about, "emulated device") != NULL ? free_bytes : 0;
}

/* What is kept never takes more than was set aside, whatever the passes are: of large ones fewer are graphs, and one
 * that is too large is none, and is not taken down again. */
static void test_large(void **state)
{
    (void)state;
    assert_ok(lrd_graphs_forget(graphs));
    const size_t before = count_free();
    n_more = MOST_NODES - 3;
    for (int i = 0; i < KEPT; i++) {
        ask(i);
        ask(i);
        assert_true(before - count_free() <= lrd_graphs_reserve(graphs));
    }
    assert_int_equal(count(KEPT - 1, KEPT), 0);
    assert_ok(lrd_graphs_forget(graphs));
    assert_int_equal(count_free(), before);
    n_more = MOST_NODES - 2;
    for (int k = 0; k < 5; k++)
        assert_int_equal(count(1, 2), k == 1 ? 2 : 1);
    assert_int_equal(count_free(), before);
    n_more = 0;
}

/* Where all passes that can come have few nodes, memory is set aside for these alone, and holds what is kept. */
static void test_few(void **state)
{
    (void)state;
    enum { FEW = 5 };
    lrd_graphs_t *usual = graphs, *many = create(1 << 20);
    assert_int_equal(lrd_graphs_reserve(many), lrd_graphs_reserve(usual));
    lrd_graphs_destroy(many);
    graphs = create(FEW);
    const size_t fewer = lrd_graphs_reserve(graphs);
    assert_true(fewer < lrd_graphs_reserve(usual));
    const size_t before = count_free();
    n_more = MOST_NODES / 2;
    for (int i = 0; i < KEPT; i++) {
        ask(i);
        ask(i);
        assert_true(before - count_free() <= fewer);
    }
    assert_int_equal(count(KEPT - 1, KEPT),
                     0); /* the last ones are graphs, the first ones are not */
    assert_int_equal(count(0, 1), 1);
    n_more = 0;
    lrd_graphs_destroy(graphs);
    assert_int_equal(count_free(), before);
    graphs = usual;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return lrd_test_skip("wants a backend that has graphs");
    backend = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),   cmocka_unit_test(test_many), cmocka_unit_test(test_places),
        cmocka_unit_test(test_large), cmocka_unit_test(test_few),  cmocka_unit_test(test_failure)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
