/* The sum of the micro-batches' gradients on any number of ranks: a toy of a few parameters. Run
 * under mpirun; every rank checks, rank 0 speaks.
 *
 *   test_reduce [--backend NAME [--direct]]   --direct: between devices, without the host
 */
#include "base/mem.h"
#include "comm/comm.h"
#include "comm/reduce.h"
#include "support/test_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N = 37, MAX_LEAVES = 19 };
static lrd_comm_t *comm;
static const char *backend_name = "cpu";
static bool direct;

/* Gradient of micro-batch m of an update: sizes that make the order of additions visible. */
static void leaf(int64_t n_leaves, int64_t m, float *g)
{
    uint64_t seed = (uint64_t)(n_leaves * 1000 + m);
    for (int i = 0; i < N; i++)
        g[i] = (float)(lrd_test_random(&seed) * pow(10, (double)lrd_test_random_int(&seed, 6)));
}

/* The tree by its definition: node (level, index) over leaves; a missing right half is skipped. */
static void node(int64_t n_leaves, int64_t first, int64_t width, float *sum)
{
    float right[N];
    if (width == 1) {
        leaf(n_leaves, first, sum);
        return;
    }
    node(n_leaves, first, width / 2, sum);
    if (first + width / 2 >= n_leaves)
        return;
    node(n_leaves, first + width / 2, width / 2, right);
    for (int i = 0; i < N; i++)
        sum[i] += right[i];
}

static void want_sum(int64_t n_leaves, float *sum)
{
    int64_t width = 1;
    while (width < n_leaves)
        width *= 2;
    node(n_leaves, 0, width, sum);
}

static void run_update(lrd_reduce_t *r, lrd_stream_t *st, float *pinned, int64_t n_leaves,
                       float *sum)
{
    int64_t first, last;
    float *buffer, *before = NULL;
    lrd_reduce_begin(r, n_leaves, &first, &last);
    for (int64_t m = first; m < last; m++, before = buffer) {
        assert_ok(lrd_reduce_leaf(r, &buffer));
        assert_true(before == NULL || before == buffer);
        leaf(n_leaves, m, pinned);
        assert_ok(lrd_copy(st, LRD_COPY_H2D, buffer, pinned, N * sizeof(float)));
        assert_ok(lrd_stream_sync(st));
        assert_ok(lrd_reduce_leaf_done(r));
    }
    assert_ok(lrd_reduce_end(r, &buffer));
    assert_ok(lrd_copy(st, LRD_COPY_D2H, pinned, buffer, N * sizeof(float)));
    assert_ok(lrd_stream_sync(st));
    memcpy(sum, pinned, N * sizeof(float));
}

static void check(bool reproducible)
{
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_devcomm_t *devices = NULL;
    lrd_reduce_t *r;
    lrd_arena_t arena = {0};
    float *pinned, have[N], want[N];
    void *memory;
    assert_ok(lrd_backend_open(backend_name, &(lrd_backend_options_t){lrd_comm_rank(comm), 1, NULL},
                               &be));
    assert_ok(lrd_stream_create(be, &st));
    if (direct)
        assert_ok(lrd_devcomm_open(comm, st, 30, &devices));
    assert_ok(lrd_mem_alloc(be, LRD_MEM_PINNED, sizeof have, (void **)&pinned));
    assert_ok(lrd_reduce_create(&(lrd_reduce_options_t){.comm = comm,
                                                        .devices = devices,
                                                        .stream = st,
                                                        .n = N,
                                                        .max_leaves = MAX_LEAVES,
                                                        .reproducible = reproducible},
                                &r));
    lrd_reduce_layout(r, &arena);
    const size_t bytes = arena.used;
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes, &memory));
    arena = (lrd_arena_t){.base = memory, .capacity = bytes};
    lrd_reduce_layout(r, &arena);
    for (int64_t n_leaves = 1; n_leaves <= MAX_LEAVES; n_leaves++) {
        run_update(r, st, pinned, n_leaves, have);
        want_sum(n_leaves, want);
        if (reproducible)
            assert_memory_equal(have, want, sizeof have);
        for (int i = 0; i < N; i++) /* 19 terms of up to 1e5 */
            assert_true(fabs((double)have[i] - want[i]) <= 19 * 1e5 * 0x1p-24 * 19);
    }
    lrd_reduce_destroy(r);
    lrd_mem_free(be, LRD_MEM_DEVICE, memory, bytes);
    lrd_mem_free(be, LRD_MEM_PINNED, pinned, sizeof have);
    lrd_devcomm_close(devices);
    lrd_stream_destroy(st);
    lrd_backend_close(be);
}

static void test_reproducible(void **state)
{
    (void)state;
    check(true);
}

static void test_fast(void **state)
{
    (void)state;
    check(false);
}

int main(int argc, char **argv)
{
    direct = argc == 4 && strcmp(argv[3], "--direct") == 0;
    if (argc >= 3 && strcmp(argv[1], "--backend") == 0)
        backend_name = argv[2];
    else if (argc != 1)
        return 2;
    if (lrd_comm_open(_exit, &comm) != LRD_OK)
        return 1;
    if (lrd_comm_rank(comm) != 0 && freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reproducible),
                                       cmocka_unit_test(test_fast)};
    int64_t failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lrd_comm_max_i64(comm, &failed, 1) != LRD_OK)
        failed = 1;
    lrd_comm_close(comm);
    return failed != 0;
}
