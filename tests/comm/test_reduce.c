/* The sum of the micro-batches' gradients on any number of ranks: a toy of a few parameters. Run
 * under mpirun; every rank checks, rank 0 speaks.
 *
 *   test_reduce [--backend NAME [--direct]]   --direct: between devices, without the host
 */
#include "base/mem.h"
#include "base/share.h"
#include "comm/comm.h"
#include "comm/reduce.h"
#include "support/test_support.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { N = 37, MAX_LEAVES = 19, MAX_SHARE = 9, CUTS = 6, MAX_RANKS = 16 };
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
                       const int64_t *begin, float *sum)
{
    const int rank = lrd_comm_rank(comm);
    float *buffer, *before = NULL;
    lrd_reduce_begin(r, n_leaves, begin);
    for (int64_t m = begin[rank]; m < begin[rank + 1]; m++, before = buffer) {
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

/* Shares of an update: even, or any of up to max_share; empty ones among them where they can be. */
static void cut(int64_t n_leaves, int64_t max_share, uint64_t *seed, int64_t *begin)
{
    const int size = lrd_comm_size(comm);
    for (int rank = 0; rank <= size; rank++)
        begin[rank] = lrd_share_begin(n_leaves, rank, size);
    for (int rank = 1; rank < size && max_share > 0; rank++) {
        const int64_t behind =
            n_leaves - (size - rank) * max_share; /* the others can have the rest */
        const int64_t least = behind > begin[rank - 1] ? behind : begin[rank - 1];
        const int64_t most = begin[rank - 1] + max_share;
        begin[rank] =
            least + lrd_test_random_int(seed, (most < n_leaves ? most : n_leaves) - least + 1);
    }
}

/* max_share 0: even shares. */
static void check(bool reproducible, int64_t max_share)
{
    lrd_backend_t *be;
    lrd_stream_t *st;
    lrd_devcomm_t *devices = NULL;
    lrd_reduce_t *r;
    lrd_arena_t arena = {0};
    float *pinned, have[N], want[N];
    void *memory;
    uint64_t seed = 11;
    int64_t begin[MAX_RANKS + 1];
    const int size = lrd_comm_size(comm);
    assert_true(size <= MAX_RANKS);
    if (max_share > 0 && max_share * size < MAX_LEAVES)
        max_share = (MAX_LEAVES + size - 1) / size;
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
                                                        .max_share = max_share,
                                                        .reproducible = reproducible},
                                &r));
    lrd_reduce_layout(r, &arena);
    const size_t bytes = arena.used;
    assert_ok(lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes, &memory));
    arena = (lrd_arena_t){.base = memory, .capacity = bytes};
    lrd_reduce_layout(r, &arena);
    for (int64_t update = 0; update < MAX_LEAVES * (max_share > 0 ? CUTS : 1); update++) {
        const int64_t n_leaves = update % MAX_LEAVES + 1;
        cut(n_leaves, max_share, &seed, begin);
        run_update(r, st, pinned, n_leaves, begin, have);
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
    check(true, 0);
}

/* Each update has other shares. */
static void test_any_shares(void **state)
{
    (void)state;
    check(true, MAX_SHARE);
}

static void test_fast(void **state)
{
    (void)state;
    check(false, 0);
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
                                       cmocka_unit_test(test_any_shares),
                                       cmocka_unit_test(test_fast)};
    int64_t failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lrd_comm_max_i64(comm, &failed, 1) != LRD_OK)
        failed = 1;
    lrd_comm_close(comm);
    return failed != 0;
}
