/* Streams and events: what one stream writes and another reads arrives, whatever order the backend
 * gives to streams that do not wait for each other. And graphs: what was taken down and is launched gives
 * the bits of the ops themselves. */
#include "op_support.h"

#include <string.h>

enum { N = 1000, BYTES = N * sizeof(int32_t), ROUNDS = 5 };

static lrd_stream_t *other;
static lrd_event_t *event, *second;
static int32_t *host[ROUNDS]; /* pinned */

static int setup(void **state)
{
    op_setup(state);
    assert_ok(lrd_stream_create(op_be, &other));
    assert_ok(lrd_event_create(op_be, &event));
    assert_ok(lrd_event_create(op_be, &second));
    for (int i = 0; i < ROUNDS; i++)
        assert_ok(lrd_mem_alloc(op_be, LRD_MEM_PINNED, BYTES, (void **)&host[i]));
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < ROUNDS; i++)
        lrd_mem_free(op_be, LRD_MEM_PINNED, host[i], BYTES);
    lrd_event_destroy(second);
    lrd_event_destroy(event);
    lrd_event_destroy(NULL);
    lrd_stream_destroy(other);
    op_free_all();
    return op_teardown(state);
}

static void fill(int32_t *x, int32_t value)
{
    for (int i = 0; i < N; i++)
        x[i] = value + i;
}

static bool holds(const int32_t *x, int32_t value)
{
    for (int i = 0; i < N; i++) {
        if (x[i] != value + i)
            return false;
    }
    return true;
}

static void up(lrd_stream_t *st, void *device, const int32_t *from)
{
    assert_ok(lrd_copy(st, LRD_COPY_H2D, device, from, BYTES));
}

static void down(lrd_stream_t *st, int32_t *to, const void *device)
{
    assert_ok(lrd_copy(st, LRD_COPY_D2H, to, device, BYTES));
}

static void test_reader_waits(void **state)
{
    (void)state;
    void *x = op_device(BYTES);
    fill(host[0], 7);
    up(other, x, host[0]);
    assert_ok(lrd_event_record(other, event));
    assert_ok(lrd_stream_wait(op_st, event));
    down(op_st, host[1], x);
    assert_ok(lrd_stream_sync(op_st));
    assert_true(holds(host[1], 7));
    op_free_all();
}

/* One buffer, written by one stream and read by the other in turn; the host waits once. */
static void test_turns(void **state)
{
    (void)state;
    void *x = op_device(BYTES), *seen[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        seen[i] = op_device(BYTES);
        fill(host[i], 100 * i);
        assert_ok(lrd_stream_wait(other, second)); /* never recorded at first */
        up(other, x, host[i]);
        assert_ok(lrd_event_record(other, event));
        assert_ok(lrd_stream_wait(op_st, event));
        assert_ok(lrd_copy(op_st, LRD_COPY_D2D, seen[i], x, BYTES));
        assert_ok(lrd_event_record(op_st, second));
    }
    assert_ok(lrd_event_sync(second));
    for (int i = 0; i < ROUNDS; i++) {
        down(op_st, host[i], seen[i]);
        assert_ok(lrd_stream_sync(op_st));
        assert_true(holds(host[i], 100 * i));
    }
    op_free_all();
}

/* A wait is for the place that the event named then; neither a later record nor the event's end change
 * that. */
static void test_record_again(void **state)
{
    (void)state;
    void *x = op_device(BYTES), *y = op_device(BYTES);
    lrd_event_t *short_lived;
    assert_ok(lrd_event_create(op_be, &short_lived));
    fill(host[0], 1);
    fill(host[1], 2);
    memset(host[3], 0, BYTES);
    up(other, x, host[0]);
    assert_ok(lrd_event_record(other, short_lived));
    assert_ok(lrd_stream_wait(op_st, short_lived));
    up(other, y, host[1]);
    down(other, host[3], y);
    assert_ok(lrd_event_record(other, short_lived));
    down(op_st, host[2], x);
    assert_ok(lrd_stream_sync(op_st));
    assert_true(holds(host[2], 1));
    if (op_is_checked())
        assert_int_equal(host[3][5], 0); /* nobody asked for it */
    assert_ok(lrd_stream_wait(op_st, short_lived));
    lrd_event_destroy(short_lived);
    down(op_st, host[2], y);
    assert_ok(lrd_stream_sync(op_st));
    assert_true(holds(host[2], 2) && holds(host[3], 2));
    op_free_all();
}

/* Pinned memory is free again behind an event, while the rest of the stream may wait. */
static void test_host_waits(void **state)
{
    (void)state;
    void *x[2] = {op_device(BYTES), op_device(BYTES)};
    assert_ok(lrd_event_sync(event)); /* an old place */
    lrd_event_t *fresh;
    assert_ok(lrd_event_create(op_be, &fresh));
    assert_ok(lrd_event_sync(fresh)); /* never recorded */
    for (int i = 0; i < 2; i++) {
        fill(host[0], 10 * i);
        up(op_st, x[i], host[0]);
        assert_ok(lrd_event_record(op_st, fresh));
        down(op_st, host[1 + i], x[i]);
        assert_ok(lrd_event_sync(fresh));
    }
    assert_ok(lrd_stream_sync(op_st));
    assert_true(holds(host[1], 0) && holds(host[2], 10));
    lrd_event_destroy(fresh);
    op_free_all();
}

/* cpu_checked finds a forgotten wait: the reader sees memory that nobody has written. */
static void test_forgotten_wait(void **state)
{
    (void)state;
    if (!op_is_checked())
        return;
    void *x = op_device(BYTES);
    fill(host[0], 7);
    up(other, x, host[0]);
    down(op_st, host[1], x);
    assert_ok(lrd_stream_sync(op_st));
    assert_int_equal(host[1][3], -1);
    assert_ok(lrd_stream_sync(other));
    op_free_all();
}

/* y = gelu(x W^T): the input from host[0], the result to host[1]. */
typedef struct pass {
    lrd_mat_t x, y;
    lrd_weight_t w;
} pass_t;

static void enqueue(const pass_t *p)
{
    up(op_st, p->x.data, host[0]);
    assert_ok(lrd_linear_forward(
        op_st, op_scratch,
        &(lrd_linear_fwd_t){
            .x = lrd_const(p->x), .w = &p->w, .epilogue = LRD_EPILOGUE_GELU, .y = p->y}));
    down(op_st, host[1], p->y.data);
}

static void fill_floats(uint64_t *seed)
{
    for (int i = 0; i < N; i++)
        ((float *)host[0])[i] = (float)lrd_test_random(seed);
}

static pass_t make_pass(uint64_t *seed)
{
    enum { ROWS = 10, COLS = N / ROWS };
    const ref_mat_t x = op_random(seed, ROWS, COLS, 1), w = op_random(seed, COLS, COLS, 1);
    pass_t p = {.x = op_put(x, LRD_F32, 0), .y = op_empty(ROWS, COLS, LRD_F32, 0)};
    p.w.w = lrd_const(op_put(w, LRD_F32, 0));
    return p;
}

static void test_graph(void **state)
{
    (void)state;
    uint64_t seed = 5;
    static int32_t want[ROUNDS][N];
    assert_int_equal(lrd_has_graphs(op_be), op_is_device());
    if (!lrd_has_graphs(op_be))
        return;
    const pass_t p = make_pass(&seed);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t own = 100 + (uint64_t)i;
        fill_floats(&own);
        enqueue(&p);
        assert_ok(lrd_stream_sync(op_st));
        memcpy(want[i], host[1], BYTES);
    }
    lrd_graph_t *graph;
    assert_ok(lrd_graph_begin(op_st));
    enqueue(&p);
    memset(host[1], 0, BYTES);
    assert_ok(lrd_graph_end(op_st, 100, &graph));
    assert_ok(lrd_stream_sync(op_st));
    assert_int_equal(host[1][5], 0); /* taken down, not done */
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t own = 100 + (uint64_t)i;
        fill_floats(&own);
        assert_ok(lrd_graph_launch(op_st, graph));
        assert_ok(lrd_stream_sync(op_st));
        assert_memory_equal(host[1], want[i], BYTES);
    }
    lrd_graph_destroy(graph);
    lrd_graph_destroy(NULL);
    op_free_all();
}

/* What may not be done meanwhile fails, and spoils what is taken down; the stream is whole again after. */
static void test_graph_refuses(void **state)
{
    (void)state;
    uint64_t seed = 6;
    lrd_graph_t *graph = NULL;
    void *memory;
    if (!lrd_has_graphs(op_be))
        return;
    const pass_t p = make_pass(&seed);
    fill_floats(&seed);
    for (int i = 0; i < 2; i++) {
        assert_ok(lrd_graph_begin(op_st));
        enqueue(&p);
        if (i == 0)
            assert_fails(lrd_stream_sync(op_st), LRD_ERR_DEVICE, "capturing");
        else
            assert_fails(lrd_mem_alloc(op_be, LRD_MEM_DEVICE, BYTES, &memory), LRD_ERR_DEVICE,
                         "capturing");
        assert_fails(lrd_graph_end(op_st, 100, &graph), LRD_ERR_DEVICE, "cudaStreamEndCapture");
    }
    assert_ok(lrd_graph_begin(op_st));
    assert_ok(lrd_graph_end(op_st, 0, NULL));
    enqueue(&p);
    assert_ok(lrd_stream_sync(op_st));
    op_free_all();
}

/* Timers: places in their order, at no later time than work behind them; the whole is its parts, to the rounding
 * of CUDA's milliseconds. */
static void test_timers(void **state)
{
    (void)state;
    enum { PLACES = 4 };
    lrd_event_t *timer[PLACES];
    double part, whole, sum = 0;
    if (op_be->ops->timer_create == NULL)
        return;
    void *x = op_device(BYTES);
    fill(host[0], 1);
    for (int i = 0; i < PLACES; i++) {
        assert_ok(lrd_timer_create(op_be, &timer[i]));
        assert_ok(lrd_event_record(op_st, timer[i]));
        up(op_st, x, host[0]);
    }
    assert_ok(lrd_stream_sync(op_st));
    for (int i = 1; i < PLACES; i++) {
        assert_ok(lrd_timer_seconds(timer[i - 1], timer[i], &part));
        assert_true(part >= 0);
        sum += part;
    }
    assert_ok(lrd_timer_seconds(timer[0], timer[PLACES - 1], &whole));
    assert_true(sum >= whole - 2e-6 &&
                sum <= whole + 2e-6); /* its clock has steps of half a microsecond */
    for (int i = 0; i < PLACES; i++)
        lrd_event_destroy(timer[i]);
    op_free_all();
}

int main(int argc, char **argv)
{
    op_arguments(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_waits),   cmocka_unit_test(test_turns),
        cmocka_unit_test(test_record_again),   cmocka_unit_test(test_host_waits),
        cmocka_unit_test(test_forgotten_wait), cmocka_unit_test(test_graph),
        cmocka_unit_test(test_graph_refuses),  cmocka_unit_test(test_timers)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
