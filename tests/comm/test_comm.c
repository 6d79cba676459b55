/* Agreeing and exchanging bytes on any number of ranks. Run under mpirun;
 * every rank checks, rank 0 speaks. */
#include "base/mem.h"
#include "comm/alike.h"
#include "comm/comm.h"
#include "comm/grid.h"
#include "support/test_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_RANKS = 8, BYTES = 1 << 16 };
static lrd_comm_t *comm;
static int rank, size;

static lrd_status_t fail_with(lrd_status_t status)
{
    return lrd_fail(status, __FILE__, __LINE__, "planted on %d", rank);
}

static void test_world(void **state)
{
    (void)state;
    char library[96];
    assert_in_range(rank, 0, size - 1);
    assert_int_equal(lrd_comm_local_size(comm), size); /* the tests run on one host */
    assert_in_range(lrd_comm_local_rank(comm), 0, size - 1);
    assert_true(strlen(lrd_comm_host(comm)) > 0);
    lrd_comm_library(library);
    assert_true(strlen(library) > 0);
}

static void test_agree_well(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        assert_ok(lrd_agree(comm, LRD_OK));
}

/* One rank has another value, then a line more, then a line less. */
static void test_alike(void **state)
{
    (void)state;
    static const char *const facts[] = {"a\t1\nb\ttwo words\n", "a\t1\nb\t\n",
                                        "a\t1\nb\ttwo words\nc\t3\n", "a\t1\n"};
    static const char *const differs[] = {
        "", "b: rank 0: two words; rank 1: ", "c: rank 0: nothing; rank 1: 3",
        "b: rank 0: two words; rank 1: nothing"};
    for (int i = 0; i < 4; i++) {
        const char *mine = facts[rank == 1 ? i : 0];
        char text[128];
        snprintf(text, sizeof text, "the ranks differ in %s%s. It decides", differs[i],
                 size == 2   ? ""
                 : size == 3 ? (i == 2 ? "; rank 2: nothing" : "; rank 2: two words")
                             : (i == 2 ? "; ranks 2-3: nothing" : "; ranks 2-3: two words"));
        if (i == 0 || size == 1)
            assert_ok(lrd_alike_check(comm, mine));
        else
            assert_fails(lrd_alike_check(comm, mine), LRD_ERR_CONFIG, text);
    }
}

/* Each rank in turn fails, with a status of its own. */
static void test_agree_one(void **state)
{
    (void)state;
    static const lrd_status_t code[MAX_RANKS] = {
        LRD_ERR_FORMAT, LRD_ERR_IO,     LRD_ERR_NO_MEMORY, LRD_ERR_UNSUPPORTED,
        LRD_ERR_ARG,    LRD_ERR_CONFIG, LRD_ERR_SHAPE,     LRD_ERR_IO};
    for (int bad = 0; bad < size; bad++) {
        char text[64];
        snprintf(text, sizeof text, size > 1 ? "rank %d (" : "planted on %d", bad);
        assert_fails(lrd_agree(comm, rank == bad ? fail_with(code[bad]) : LRD_OK), code[bad], text);
        assert_ok(lrd_agree(comm, LRD_OK)); /* and is forgotten */
        if (size > 1) {                     /* the cause itself, on all */
            snprintf(text, sizeof text, "): planted on %d", bad);
            assert_fails(lrd_agree(comm, rank == bad ? fail_with(code[bad]) : LRD_OK), code[bad],
                         text);
        }
    }
}

/* Of several the lowest wins: its status and its cause. */
static void test_agree_many(void **state)
{
    (void)state;
    for (int from = 0; from < size; from++) {
        char text[64];
        snprintf(text, sizeof text, "planted on %d", from);
        assert_fails(lrd_agree(comm, rank >= from
                                         ? fail_with(rank == from ? LRD_ERR_IO : LRD_ERR_FORMAT)
                                         : LRD_OK),
                     LRD_ERR_IO, text);
    }
}

/* What was agreed on may be agreed on again: it keeps the name of the rank that failed first. */
static void test_agree_again(void **state)
{
    (void)state;
    const int bad = size - 1;
    char text[128];
    lrd_status_t status = lrd_agree(comm, rank == bad ? fail_with(LRD_ERR_IO) : LRD_OK);
    status = lrd_agree(comm, status);
    if (size > 1)
        snprintf(text, sizeof text, "rank %d (%s): planted on %d", bad, lrd_comm_host(comm), bad);
    else
        snprintf(text, sizeof text, "planted on 0");
    assert_string_equal(lrd_error_text(status), text);
    assert_fails(lrd_agree(comm, status), LRD_ERR_IO, text);
}

/* A rank that only heard of a failure gives way to the one that has the cause; alone it counts. */
static void test_agree_peer(void **state)
{
    (void)state;
    if (size > 1) {
        const int last = size - 1;
        char text[64];
        snprintf(text, sizeof text, "planted on %d", last);
        assert_fails(lrd_agree(comm, rank == last ? fail_with(LRD_ERR_IO) : LRD_ERR_PEER),
                     LRD_ERR_IO, text);
    }
    assert_fails(lrd_agree(comm, rank == 0 ? LRD_ERR_PEER : LRD_OK), LRD_ERR_PEER,
                 "another rank failed");
}

static unsigned char pattern(int from, int to, size_t i)
{
    return (unsigned char)(from * 31 + to * 7 + (int)(i % 251) + 1);
}

static void test_broadcast(void **state)
{
    (void)state;
    static unsigned char data[BYTES];
    for (int root = 0; root < size; root++) {
        for (size_t i = 0; i < BYTES; i++)
            data[i] = rank == root ? pattern(root, 0, i) : 0;
        assert_ok(lrd_comm_broadcast(comm, data, BYTES, root));
        for (size_t i = 0; i < BYTES; i++)
            assert_int_equal(data[i], pattern(root, 0, i));
        assert_ok(lrd_comm_broadcast(comm, data, 0, root));
    }
}

/* Shares of r * 1,000 bytes, of which `hole`'s is empty; from a place of its own and in place. */
static void test_all_gather(void **state)
{
    (void)state;
    static unsigned char mine[BYTES], all[BYTES];
    for (int hole = -1; hole < size; hole++) {
        size_t offset[MAX_RANKS + 1] = {0};
        for (int r = 0; r < size; r++)
            offset[r + 1] = offset[r] + (r == hole ? 0 : 1000 * (size_t)(r + 1));
        for (int in_place = 0; in_place < 2; in_place++) {
            memset(all, 0, sizeof all);
            unsigned char *from = in_place ? all + offset[rank] : mine;
            for (size_t i = 0; i < offset[rank + 1] - offset[rank]; i++)
                from[i] = pattern(rank, 0, i);
            assert_ok(lrd_comm_all_gather(comm, from, all, offset));
            for (int r = 0; r < size; r++) {
                for (size_t i = offset[r]; i < offset[r + 1]; i++)
                    assert_int_equal(all[i], pattern(r, 0, i - offset[r]));
            }
            assert_int_equal(all[offset[size]], 0); /* nothing behind the end */
        }
    }
}

/* Lengths that the others do not know, nothing among them; and nothing from anyone. */
static void test_collect(void **state)
{
    (void)state;
    static unsigned char mine[BYTES];
    size_t offset[MAX_RANKS + 1];
    char *all;
    for (int hole = -1; hole < size; hole++) {
        const size_t bytes = rank == hole ? 0 : 100 * (size_t)rank + 7;
        for (size_t i = 0; i < bytes; i++)
            mine[i] = pattern(rank, 1, i);
        assert_ok(lrd_comm_collect(comm, mine, bytes, offset, &all));
        for (int r = 0; r < size; r++) {
            assert_int_equal(offset[r + 1] - offset[r], r == hole ? 0 : 100 * (size_t)r + 7);
            for (size_t i = offset[r]; i < offset[r + 1]; i++)
                assert_int_equal((unsigned char)all[i], pattern(r, 1, i - offset[r]));
        }
        lrd_free(all);
    }
    assert_ok(lrd_comm_collect(comm, NULL, 0, offset, &all));
    assert_int_equal(offset[size], 0);
    lrd_free(all);
}

/* How much rank r sends to rank s: differing, and sometimes nothing. */
static size_t amount(int r, int s)
{
    return (r + 2 * s) % 3 == 1 ? 0 : (size_t)(100 * r + 10 * s + 3);
}

static void test_exchange(void **state)
{
    (void)state;
    static unsigned char send[BYTES], receive[BYTES];
    size_t to[MAX_RANKS + 1] = {0}, from[MAX_RANKS + 1] = {0};
    for (int r = 0; r < size; r++) {
        to[r + 1] = to[r] + amount(rank, r);
        from[r + 1] = from[r] + amount(r, rank);
        for (size_t i = to[r]; i < to[r + 1]; i++)
            send[i] = pattern(rank, r, i - to[r]);
    }
    memset(receive, 0, sizeof receive);
    assert_ok(lrd_comm_exchange(comm, send, to, receive, from));
    for (int r = 0; r < size; r++) {
        for (size_t i = from[r]; i < from[r + 1]; i++)
            assert_int_equal(receive[i], pattern(r, rank, i - from[r]));
    }
    assert_int_equal(receive[from[size]], 0);
}

static void test_numbers(void **state)
{
    (void)state;
    float sum[1000];
    for (int i = 0; i < 1000; i++)
        sum[i] = (float)(i * (rank + 1));
    assert_ok(lrd_comm_sum_f32(comm, sum, 1000));
    for (int i = 0; i < 1000; i++) /* small integers: exact in any order */
        assert_true(sum[i] == (float)(i * size * (size + 1) / 2));
    int64_t most[3] = {rank, -rank, rank == size - 1 ? INT64_MAX : INT64_MIN};
    assert_ok(lrd_comm_max_i64(comm, most, 3));
    assert_int_equal(most[0], size - 1);
    assert_int_equal(most[1], 0);
    assert_true(most[2] == INT64_MAX);
}

static void test_same(void **state)
{
    (void)state;
    unsigned char data[300];
    bool same = false;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = pattern(0, 0, i);
    assert_ok(lrd_comm_same(comm, data, sizeof data, &same));
    assert_true(same);
    assert_ok(lrd_comm_same(comm, data, 0, &same));
    assert_true(same);
    for (int odd = 0; odd < size; odd++) { /* one byte on one rank, first or last */
        for (int last = 0; last < 2; last++) {
            unsigned char *at = &data[last ? sizeof data - 1 : 0];
            *at ^= rank == odd;
            assert_ok(lrd_comm_same(comm, data, sizeof data, &same));
            assert_true(same == (size == 1));
            *at ^= rank == odd;
        }
    }
}

/* Every shape of grid: who is where, and what travels in a row or a column stays there. */
static void test_grid(void **state)
{
    (void)state;
    for (int stages = 1; stages <= size; stages++) {
        lrd_grid_t g;
        if (size % stages != 0)
            continue;
        assert_ok(lrd_grid_open(comm, stages, &g));
        assert_int_equal(lrd_grid_rank(&g, g.replica, g.stage), rank);
        assert_int_equal(lrd_comm_rank(g.row), g.stage);
        assert_int_equal(lrd_comm_size(g.row), stages);
        assert_int_equal(lrd_comm_rank(g.column), g.replica);
        assert_int_equal(lrd_comm_size(g.column), size / stages);
        float one = 1, number = (float)rank;
        assert_ok(lrd_comm_sum_f32(g.row, &one, 1));
        assert_true(one == (float)stages);
        assert_ok(lrd_comm_broadcast(g.column, &number, sizeof number, 0));
        assert_true(number == (float)g.stage);
        if (g.n_replicas == 1)
            continue;
        /* The last of each column fails: the column names it by its number in the world, once. */
        char name[64];
        snprintf(name, sizeof name, "rank %d (%s): last",
                 lrd_grid_rank(&g, g.n_replicas - 1, g.stage), lrd_comm_host(comm));
        lrd_status_t failed = g.replica == g.n_replicas - 1
                                  ? lrd_fail(LRD_ERR_IO, __FILE__, __LINE__, "last")
                                  : LRD_OK;
        failed = lrd_agree(g.column, failed);
        assert_string_equal(lrd_error_text(failed), name);
        snprintf(name, sizeof name, "rank %d (%s): last", lrd_grid_rank(&g, g.n_replicas - 1, 0),
                 lrd_comm_host(comm));
        assert_int_equal(lrd_agree(comm, failed), LRD_ERR_IO);
        assert_string_equal(lrd_error_text(LRD_ERR_IO), name);
        lrd_error_clear();
    }
}

enum { N_MESSAGES = 7, LONG_MESSAGE = 3 << 20 };

/* Every rank sends to every other, short and long messages, under two tags; those of a tag arrive in
 * order, whatever order they are waited for in, and a rank may send before the other receives. */
static void test_messages(void **state)
{
    (void)state;
    static uint8_t out[2][N_MESSAGES], in[2][N_MESSAGES];
    static lrd_message_t sent[2][N_MESSAGES], received[2][N_MESSAGES];
    static uint8_t big_out[LONG_MESSAGE], big_in[LONG_MESSAGE];
    for (int step = 1; step < size; step++) {
        const int to = (rank + step) % size, from = (rank + size - step) % size;
        lrd_message_t big[2] = {{0}};
        memset(big_out, 17 * rank + step, sizeof big_out);
        assert_ok(lrd_comm_send(comm, big_out, sizeof big_out, to, 2, &big[0]));
        for (int i = 0; i < N_MESSAGES; i++) {
            for (int tag = 0; tag < 2; tag++) {
                out[tag][i] = (uint8_t)(100 * tag + 10 * rank + i);
                assert_ok(lrd_comm_send(comm, &out[tag][i], 1, to, tag, &sent[tag][i]));
            }
        }
        for (int tag = 1; tag >= 0; tag--) {
            for (int i = 0; i < N_MESSAGES; i++)
                assert_ok(lrd_comm_receive(comm, &in[tag][i], 1, from, tag, &received[tag][i]));
        }
        assert_ok(lrd_comm_receive(comm, big_in, sizeof big_in, from, 2, &big[1]));
        for (int i = N_MESSAGES - 1; i >= 0; i--) {
            for (int tag = 0; tag < 2; tag++) {
                assert_ok(lrd_comm_wait(comm, &received[tag][i]));
                assert_false(received[tag][i].pending);
                assert_int_equal(in[tag][i], 100 * tag + 10 * from + i);
                assert_ok(lrd_comm_wait(comm, &sent[tag][i]));
            }
        }
        assert_ok(lrd_comm_wait(comm, &big[0]));
        assert_ok(lrd_comm_wait(comm, &big[1]));
        assert_ok(lrd_comm_wait(comm, &big[1])); /* none pending: at once */
        for (size_t i = 0; i < sizeof big_in; i += 4095)
            assert_int_equal(big_in[i], (uint8_t)(17 * from + step));
    }
}

int main(void)
{
    if (lrd_comm_open(_exit, &comm) != LRD_OK)
        return 1;
    rank = lrd_comm_rank(comm);
    size = lrd_comm_size(comm);
    if (size > MAX_RANKS || (rank != 0 && freopen("/dev/null", "w", stdout) == NULL))
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_world),      cmocka_unit_test(test_agree_well),
        cmocka_unit_test(test_alike),      cmocka_unit_test(test_agree_one),
        cmocka_unit_test(test_agree_many), cmocka_unit_test(test_agree_again),
        cmocka_unit_test(test_agree_peer), cmocka_unit_test(test_broadcast),
        cmocka_unit_test(test_all_gather), cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_numbers),    cmocka_unit_test(test_same),
        cmocka_unit_test(test_grid),       cmocka_unit_test(test_messages),
        cmocka_unit_test(test_collect)};
    int64_t failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (lrd_comm_max_i64(comm, &failed, 1) != LRD_OK)
        failed = 1;
    lrd_comm_close(comm);
    return failed != 0;
}
