/* Device memory between ranks (comm/devcomm.h): who uses it, what arrives, and that all ranks agree when it
 * cannot be opened. Run under mpirun with as many devices as ranks, emulated or real; every rank checks,
 * rank 0 speaks. */
#include "comm/devcomm.h"
#include "support/test_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LARGE = 1 << 20, MOST_RANKS = 8 };
static lrd_comm_t *comm;
static int rank, size;

/* A device, a stream, and memory on both sides. */
typedef struct fixture {
    lrd_backend_t *be;
    lrd_stream_t *st;
    size_t bytes;
    void *device, *pinned;
} fixture_t;

static void open_device(const char *backend, int index, size_t bytes, fixture_t *f)
{
    assert_ok(lrd_backend_open(backend, &(lrd_backend_options_t){index, 1, NULL}, &f->be));
    assert_ok(lrd_stream_create(f->be, &f->st));
    assert_ok(lrd_mem_alloc(f->be, LRD_MEM_DEVICE, bytes, &f->device));
    assert_ok(lrd_mem_alloc(f->be, LRD_MEM_PINNED, bytes, &f->pinned));
    f->bytes = bytes;
}

static void close_device(fixture_t *f)
{
    lrd_mem_free(f->be, LRD_MEM_PINNED, f->pinned, f->bytes);
    lrd_mem_free(f->be, LRD_MEM_DEVICE, f->device, f->bytes);
    lrd_stream_destroy(f->st);
    lrd_backend_close(f->be);
}

static void move(const fixture_t *f, lrd_copydir_t dir)
{
    void *to = dir == LRD_COPY_H2D ? f->device : f->pinned;
    assert_ok(lrd_copy(f->st, dir, to, dir == LRD_COPY_H2D ? f->pinned : f->device, f->bytes));
    assert_ok(lrd_stream_sync(f->st));
}

static bool chosen(const fixture_t *f, lrd_transport_t transport)
{
    bool use;
    assert_ok(
        lrd_devcomm_choose(comm, f->st, &(lrd_parallel_settings_t){.transport = transport}, &use));
    return use;
}

static void refused(const fixture_t *f, const char *text)
{
    bool use;
    assert_fails(lrd_devcomm_choose(comm, f->st,
                                    &(lrd_parallel_settings_t){.transport = LRD_TRANSPORT_NCCL},
                                    &use),
                 LRD_ERR_UNAVAILABLE, text);
}

static void test_choice(void **state)
{
    (void)state;
    fixture_t own, shared, cpu;
    char *plugin = strdup(getenv("LRD_NCCL_PLUGIN"));
    open_device("cuda", rank, 16, &own);
    open_device("cuda", 0, 16, &shared);
    open_device("cpu", rank, 16, &cpu);
    assert_true(chosen(&own, LRD_TRANSPORT_AUTO) == (size > 1));
    assert_true(chosen(&own, LRD_TRANSPORT_NCCL) == (size > 1));
    assert_false(chosen(&own, LRD_TRANSPORT_MPI));
    assert_false(chosen(&shared, LRD_TRANSPORT_AUTO));
    assert_false(chosen(&cpu, LRD_TRANSPORT_AUTO));
    if (size > 1) {
        refused(&shared, "ranks share a GPU");
        refused(&cpu, "rank 0 (");
        refused(&cpu, "the memory of back end cpu is not a GPU's");
        if (rank == 1) /* one rank lacks it: nobody uses it */
            assert_int_equal(setenv("LRD_NCCL_PLUGIN", "/no/such/library.so", 1), 0);
        assert_false(chosen(&own, LRD_TRANSPORT_AUTO));
        refused(&own, "parallel.transport: nccl: rank 1 (");
        refused(&own, "/no/such/library.so: cannot open");
    }
    assert_int_equal(setenv("LRD_NCCL_PLUGIN", plugin, 1), 0);
    free(plugin);
    close_device(&cpu);
    close_device(&shared);
    close_device(&own);
}

/* Byte i of message k from one rank to another. */
static unsigned char content(int from, int to, int k, size_t i)
{
    uint64_t seed = (uint64_t)((from * MOST_RANKS + to) * 16 + k) << 32 | i;
    return (unsigned char)lrd_test_random_int(&seed, 256);
}

static void test_exchange(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        lrd_dtype_t dtype;
    } kind[] = {{5, LRD_F32}, {7, LRD_BF16}, {LARGE, LRD_F32}, {3, LRD_F16}};
    enum { KINDS = 4, STEP = 4 * LARGE + 256 };
    lrd_device_message_t send[KINDS * MOST_RANKS], receive[KINDS * MOST_RANKS];
    lrd_devcomm_t *d;
    fixture_t f;
    int n = 0;
    open_device("cuda", rank, (size_t)2 * KINDS * (size_t)size * STEP, &f);
    assert_ok(lrd_devcomm_open(comm, f.st, 30, &d));
    memset(f.pinned, 0, f.bytes);
    for (int r = 0; r < size; r++) {
        for (int k = 0; k < KINDS && r != rank; k++, n++) {
            const size_t out = (size_t)(r * KINDS + k) * STEP, in = f.bytes / 2 + out;
            const size_t bytes = (size_t)kind[k].n * lrd_dtype_bytes(kind[k].dtype);
            for (size_t i = 0; i < bytes; i++)
                ((unsigned char *)f.pinned)[out + i] = content(rank, r, k, i);
            send[n] = (lrd_device_message_t){(char *)f.device + out, kind[k].n, kind[k].dtype, r};
            receive[n] = (lrd_device_message_t){(char *)f.device + in, kind[k].n, kind[k].dtype, r};
        }
    }
    move(&f, LRD_COPY_H2D);
    if (n > 0)
        assert_ok(lrd_devcomm_exchange(d, send, n, receive, n));
    move(&f, LRD_COPY_D2H);
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)((char *)receive[i].data - (char *)f.device);
        const size_t bytes = (size_t)receive[i].n * lrd_dtype_bytes(receive[i].dtype);
        for (size_t b = 0; b < bytes; b++)
            assert_int_equal(((unsigned char *)f.pinned)[at + b],
                             content(receive[i].rank, rank, i % KINDS, b));
        assert_int_equal(((unsigned char *)f.pinned)[at + bytes], 0); /* and nothing behind it */
    }
    lrd_devcomm_close(d);
    close_device(&f);
}

/* Whole numbers, whose sums are exact in any order; gathered and summed, out of place and in place. */
static void test_collectives(void **state)
{
    (void)state;
    enum { EACH = 1000 };
    lrd_devcomm_t *d;
    fixture_t f;
    open_device("cuda", rank, (size_t)(size + 3) * EACH * sizeof(float), &f);
    assert_ok(lrd_devcomm_open(comm, f.st, 30, &d));
    float *mine = f.device, *sum = mine + EACH, *again = sum + EACH, *all = again + EACH;
    float *host = f.pinned;
    for (int i = 0; i < EACH; i++)
        host[i] = host[2 * EACH + i] = (float)(rank * EACH + i);
    move(&f, LRD_COPY_H2D);
    assert_ok(lrd_devcomm_sum_f32(d, mine, sum, EACH));
    assert_ok(lrd_devcomm_sum_f32(d, again, again, EACH));
    assert_ok(lrd_devcomm_all_gather_f32(d, mine, all, EACH));
    move(&f, LRD_COPY_D2H);
    for (int i = 0; i < EACH; i++) {
        const float want = (float)(size * i + size * (size - 1) / 2 * EACH);
        assert_true(host[EACH + i] == want && host[2 * EACH + i] == want);
        for (int r = 0; r < size; r++)
            assert_true(host[(3 + r) * EACH + i] == (float)(r * EACH + i));
    }
    lrd_devcomm_close(d);
    close_device(&f);
}

/* Two groups on one stream, closed in either order: a wait looks at both. */
static void test_two_groups(void **state)
{
    (void)state;
    lrd_devcomm_t *d[2];
    fixture_t f;
    open_device("cuda", rank, sizeof(float), &f);
    for (int first = 0; first < 2; first++) {
        assert_ok(lrd_devcomm_open(comm, f.st, 30, &d[0]));
        assert_ok(lrd_devcomm_open(comm, f.st, 30, &d[1]));
        *(float *)f.pinned = 1;
        move(&f, LRD_COPY_H2D);
        assert_ok(lrd_devcomm_sum_f32(d[0], f.device, f.device, 1));
        assert_ok(lrd_devcomm_sum_f32(d[1], f.device, f.device, 1));
        move(&f, LRD_COPY_D2H);
        assert_true(*(float *)f.pinned == (float)(size * size));
        lrd_devcomm_close(d[first]);
        assert_ok(lrd_devcomm_sum_f32(d[1 - first], f.device, f.device, 1));
        move(&f, LRD_COPY_D2H);
        assert_true(*(float *)f.pinned == (float)(size * size * size));
        lrd_devcomm_close(d[1 - first]);
        assert_null(f.st->guard);
    }
    close_device(&f);
}

static void fails_to_open(const fixture_t *f, const char *fault, lrd_status_t status,
                          const char *text)
{
    lrd_devcomm_t *d = NULL;
    assert_int_equal(setenv("LRD_EMULATED_NCCL", fault, 1), 0);
    assert_fails(lrd_devcomm_open(comm, f->st, 2, &d), status, text);
    assert_int_equal(unsetenv("LRD_EMULATED_NCCL"), 0);
    assert_null(d);
    assert_null(f->st->guard);
}

static void test_failures(void **state)
{
    (void)state;
    fixture_t f, shared;
    if (size == 1 || getenv("LRD_EMULATED_DEVICES") == NULL) /* failures are planted there */
        skip();
    open_device("cuda", rank, 16, &f);
    fails_to_open(&f, "-1:0:error", LRD_ERR_COMM, "rank 0 (");
    fails_to_open(&f, "-1:0:error", LRD_ERR_COMM,
                  "NCCL: ncclGetUniqueId: unhandled system error (run with NCCL_DEBUG=INFO for "
                  "details): planted: no socket interface found");
    fails_to_open(&f, "1:0:error", LRD_ERR_COMM, "rank 1 (");
    fails_to_open(&f, "1:0:error", LRD_ERR_COMM, "planted: no memory");
    fails_to_open(&f, "1:0:hang", LRD_ERR_PEER, "ranks have not connected within 2 seconds");
    open_device("cuda", 0, 16, &shared); /* nobody asked whether that works */
    fails_to_open(&shared, "", LRD_ERR_COMM, "Duplicate GPU detected");
    close_device(&shared);
    close_device(&f);
}

int main(void)
{
    if (lrd_comm_open(_exit, &comm) != LRD_OK)
        return 1;
    rank = lrd_comm_rank(comm);
    size = lrd_comm_size(comm);
    if (rank != 0 && freopen("/dev/null", "w", stdout) == NULL)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice), cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_collectives), cmocka_unit_test(test_two_groups),
        cmocka_unit_test(test_failures)};
    int64_t failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lrd_comm_max_i64(comm, &failed, 1) != LRD_OK)
        failed = 1;
    lrd_comm_close(comm);
    return failed != 0;
}
