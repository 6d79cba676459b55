/* The order of a pipeline, without ranks: for every p, m and v up to 8 (and some beyond) each stage
 * does each pass once, no message is waited for in vain however little memory the messages have, or
 * with v = 1 however they are paired, no
 * stage keeps more than it has room for, and the time is that of the formulas. */
#include "comm/pipe_schedule.h"
#include "support/test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8, MOST_RUNS = MOST * MOST, MOST_ACTIONS = 2 * MOST * 64 };

typedef struct list {
    lrd_pipe_action_t action[MOST_ACTIONS];
    int n;
} list_t;

static list_t list[MOST];

static void make_lists(lrd_pipe_shape_t shape)
{
    for (int s = 0; s < shape.n_stages; s++) {
        lrd_pipe_cursor_t cursor;
        lrd_pipe_begin(&cursor, shape, s);
        list[s].n = 0;
        while (lrd_pipe_next(&cursor, &list[s].action[list[s].n])) {
            list[s].n++;
            assert_true(list[s].n < MOST_ACTIONS);
        }
    }
}

/* Calls `check` for all shapes, with backward passes from each run on for the smaller ones. */
static void for_all_shapes(int64_t most_micro_batches, void (*check)(lrd_pipe_shape_t shape))
{
    for (int p = 1; p <= MOST; p++) {
        for (int v = 1; v <= (p == 1 ? 1 : MOST); v++) {
            for (int64_t m = 0; m <= most_micro_batches; m++) {
                for (int lowest = 0; lowest <= p * v; lowest += p * v > 12 ? p * v / 3 : 1)
                    check((lrd_pipe_shape_t){p, v, m, lowest});
            }
        }
    }
}

/* Every pass once; of a run in ascending order; a micro-batch forward before backward. */
static void check_order(lrd_pipe_shape_t shape)
{
    make_lists(shape);
    for (int s = 0; s < shape.n_stages; s++) {
        int64_t next[2][MOST] = {{0}};
        for (int i = 0; i < list[s].n; i++) {
            const lrd_pipe_action_t a = list[s].action[i];
            assert_in_range(a.chunk, 0, shape.n_chunks - 1);
            assert_int_equal(a.micro_batch, next[a.backward][a.chunk]++);
            if (a.backward)
                assert_true(a.micro_batch < next[0][a.chunk]);
        }
        for (int c = 0; c < shape.n_chunks; c++) {
            const bool has_backward = c * shape.n_stages + s >= shape.lowest;
            assert_int_equal(next[0][c], shape.n_micro_batches);
            assert_int_equal(next[1][c], has_backward ? shape.n_micro_batches : 0);
        }
    }
}

static void test_order(void **state)
{
    (void)state;
    for_all_shapes(MOST, check_order);
}

/* Messages as the engine sends them: a stage receives when it comes to the action that needs it; the
 * messages from one run to another leave through `buffers` buffers that are used in turn, and a
 * buffer is free again when the other side has received. That is less than MPI gives. */
typedef struct stage {
    int at;        /* action in work */
    bool computed; /* and now sends */
} stage_t;

static stage_t stage[MOST];
static int64_t sent[2][MOST_RUNS], taken[2][MOST_RUNS]; /* messages to a run, in its direction */

/* Advances a stage by one thing; false: it waits. */
static bool advance(lrd_pipe_shape_t shape, int s, int64_t buffers)
{
    stage_t *me = &stage[s];
    const lrd_pipe_action_t a = list[s].action[me->at];
    const int run = a.chunk * shape.n_stages + s, last = shape.n_stages * shape.n_chunks - 1;
    const int to = a.backward ? run - 1 : run + 1;
    const bool receives = a.backward ? run < last : run > 0;
    const bool sends = a.backward ? run > shape.lowest : run < last;
    if (!me->computed && receives) {
        if (taken[a.backward][run] == sent[a.backward][run])
            return false;
        assert_int_equal(taken[a.backward][run], a.micro_batch);
        taken[a.backward][run]++;
    }
    me->computed = true;
    if (sends) {
        if (sent[a.backward][to] - taken[a.backward][to] == buffers)
            return false;
        sent[a.backward][to]++;
    }
    me->computed = false;
    me->at++;
    return true;
}

static void check_deadlock(lrd_pipe_shape_t shape, int64_t buffers)
{
    make_lists(shape);
    memset(stage, 0, sizeof stage);
    memset(sent, 0, sizeof sent);
    memset(taken, 0, sizeof taken);
    int unfinished = shape.n_stages;
    bool moved = true;
    while (unfinished > 0 && moved) {
        moved = false;
        unfinished = 0;
        for (int s = 0; s < shape.n_stages; s++) {
            while (stage[s].at < list[s].n && advance(shape, s, buffers))
                moved = true;
            unfinished += stage[s].at < list[s].n;
        }
    }
    if (unfinished > 0)
        fail_msg("p %d v %d m %d lowest %d: %d stages wait for ever with %d buffers",
                 shape.n_stages, shape.n_chunks, (int)shape.n_micro_batches, shape.lowest,
                 unfinished, (int)buffers);
}

static void check_buffers(lrd_pipe_shape_t shape)
{
    check_deadlock(shape, lrd_pipe_buffers(shape));
}

static void test_deadlock(void **state)
{
    (void)state;
    for_all_shapes(MOST, check_buffers);
    for (int p = 2; p <= MOST; p++) {
        for (int v = 1; v <= MOST; v++) {
            for (int64_t m = MOST + 1; m <= 5 * p && 2 * m * v < MOST_ACTIONS; m++)
                check_buffers((lrd_pipe_shape_t){p, v, m, 0});
        }
    }
}

/* Messages between devices (model/pipeline.c), with one run a stage: one call between two passes sends what the
 * first has made and receives what the second needs. A message passes when both sides are at their calls, a call
 * is over when its messages have passed. That is less than NCCL gives, which has buffers. */
typedef struct call {
    int at;           /* between passes at - 1 and at */
    bool sent, taken; /* what it has to */
} call_t;

static call_t call[MOST];

/* The stage that pass i of a stage sends to, or receives from; -1: none. */
static int other_end(lrd_pipe_shape_t shape, int s, int i, bool sending)
{
    if (i < 0 || i >= list[s].n)
        return -1;
    const bool backward = list[s].action[i].backward;
    const int other = s + (sending == backward ? -1 : 1);
    const int least = sending && backward ? shape.lowest : 0;
    return other >= least && other < shape.n_stages ? other : -1;
}

static void check_calls(lrd_pipe_shape_t shape)
{
    bool moved = true;
    make_lists(shape);
    memset(call, 0, sizeof call);
    while (moved) {
        moved = false;
        for (int s = 0; s < shape.n_stages; s++) {
            call_t *me = &call[s];
            const int to = other_end(shape, s, me->at - 1, true);
            const int from = other_end(shape, s, me->at, false);
            if (to >= 0 && !me->sent && !call[to].taken &&
                other_end(shape, to, call[to].at, false) == s) {
                const lrd_pipe_action_t made = list[s].action[me->at - 1],
                                        wanted = list[to].action[call[to].at];
                assert_int_equal(made.micro_batch, wanted.micro_batch);
                assert_int_equal(made.backward, wanted.backward);
                me->sent = call[to].taken = moved = true;
            }
            if (me->at <= list[s].n && (to < 0 || me->sent) && (from < 0 || me->taken)) {
                *me = (call_t){.at = me->at + 1};
                moved = true;
            }
        }
    }
    for (int s = 0; s < shape.n_stages; s++) {
        if (call[s].at <= list[s].n)
            fail_msg("p %d m %d lowest %d: stage %d waits for ever", shape.n_stages,
                     (int)shape.n_micro_batches, shape.lowest, s);
    }
}

static void test_calls(void **state)
{
    (void)state;
    for (int p = 1; p <= MOST; p++) {
        for (int64_t m = 0; m <= 5 * p; m++) {
            for (int lowest = 0; lowest <= p; lowest++)
                check_calls((lrd_pipe_shape_t){p, 1, m, lowest});
        }
    }
}

/* What is kept stays within what was announced, also for every smaller update; 1F1B keeps p - s. */
static void check_in_flight(lrd_pipe_shape_t shape)
{
    int64_t room[MOST][MOST];
    for (int s = 0; s < shape.n_stages; s++) {
        for (int c = 0; c < shape.n_chunks; c++) {
            const int run = c * shape.n_stages + s;
            room[s][c] = lrd_pipe_in_flight(shape, s, c);
            if (run < shape.lowest)
                assert_int_equal(room[s][c], 1);
            else if (shape.n_chunks == 1 && shape.n_micro_batches > 0)
                assert_int_equal(room[s][c], fmin(shape.n_stages - s, shape.n_micro_batches));
        }
    }
    for (int64_t m = 1; m <= shape.n_micro_batches; m++) {
        make_lists((lrd_pipe_shape_t){shape.n_stages, shape.n_chunks, m, shape.lowest});
        for (int s = 0; s < shape.n_stages; s++) {
            int64_t kept[MOST] = {0};
            for (int i = 0; i < list[s].n; i++) {
                const lrd_pipe_action_t a = list[s].action[i];
                kept[a.chunk] += a.backward ? -1 : 1;
                if (a.chunk * shape.n_stages + s >= shape.lowest)
                    assert_true(kept[a.chunk] <= room[s][a.chunk]);
            }
        }
    }
}

static void test_in_flight(void **state)
{
    (void)state;
    for_all_shapes(MOST, check_in_flight);
    for (int p = 2; p <= MOST; p++) {
        for (int v = 2; v <= 4; v++)
            check_in_flight((lrd_pipe_shape_t){p, v, 8 * p, 0});
    }
}

/* Time against the formulas of docs/pipeline.md: equal runs, at least p micro-batches. */
static void test_time(void **state)
{
    (void)state;
    static double forward[64 * 4], backward[64 * 4];
    double worst = 0;
    for (int p = 1; p <= 64; p *= 2) {
        for (int v = 1; v <= (p == 1 ? 1 : 4); v++) {
            for (int64_t m = p; m <= 4 * p; m += p > 8 ? p / 2 - 1 : 1) {
                const lrd_pipe_shape_t shape = {p, v, m, 0};
                double seconds, used;
                for (int k = 0; k < p * v; k++) {
                    forward[k] = 1.0 / v;
                    backward[k] = 1.25 / v;
                }
                assert_ok(lrd_pipe_predict(shape, &(lrd_pipe_cost_t){forward, backward, 0, NULL},
                                           &seconds, &used));
                const double ideal = (double)m / ((double)m + (p - 1.0) / v);
                worst = fmax(worst, fabs(used / ideal - 1));
                assert_true(fabs(seconds * used / (2.25 * (double)m) - 1) < 1e-12);
            }
        }
    }
    printf("utilisation within %.2g of m / (m + (p - 1) / v)\n", worst);
    assert_true(worst < 1e-12);
}

/* One slow stage sets the pace; a hop is paid on the way, and runs without backward cost half. */
static void test_time_uneven(void **state)
{
    (void)state;
    const double forward[3] = {1, 3, 1}, backward[3] = {1, 3, 1};
    const lrd_pipe_cost_t cost = {forward, backward, 0, NULL},
                          slow = {forward, backward, 0.5, NULL};
    double seconds, used;
    assert_ok(lrd_pipe_predict((lrd_pipe_shape_t){3, 1, 10, 0}, &cost, &seconds, &used));
    assert_true(seconds >= 60 &&
                seconds <= 64 + 2); /* ten times 3 + 3, and the way to it and back */
    assert_ok(lrd_pipe_predict((lrd_pipe_shape_t){3, 1, 1, 0}, &slow, &seconds, &used));
    assert_true(fabs(seconds - (10 + 4 * 0.5)) < 1e-12);
    assert_ok(lrd_pipe_predict((lrd_pipe_shape_t){3, 1, 1, 2}, &cost, &seconds, &used));
    assert_true(fabs(seconds - 6) < 1e-12);
    assert_ok(lrd_pipe_predict((lrd_pipe_shape_t){3, 1, 0, 0}, &cost, &seconds, &used));
    assert_true(seconds == 0 && used == 1);
}

/* Micro-batches of size 1, 3 and 2 on two stages, by hand; a pass takes the size:
 *
 *   stage 0   F0 0-1   F1 1-4   B0 4-5   F2 5-7   B1 10-13           B2 14-16
 *   stage 1      F0 1-2  B0 2-3   F1 4-7   B1 7-10   F2 10-12   B2 12-14 */
static void test_time_sizes(void **state)
{
    (void)state;
    const double pass[2] = {1, 1}, size[3] = {1, 3, 2};
    double seconds, used;
    assert_ok(lrd_pipe_predict((lrd_pipe_shape_t){2, 1, 3, 0},
                               &(lrd_pipe_cost_t){pass, pass, 0, size}, &seconds, &used));
    assert_true(fabs(seconds - 16) < 1e-12);
    assert_true(fabs(used - 24 / 32.0) < 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),      cmocka_unit_test(test_deadlock),
        cmocka_unit_test(test_calls),      cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_time),       cmocka_unit_test(test_time_uneven),
        cmocka_unit_test(test_time_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
