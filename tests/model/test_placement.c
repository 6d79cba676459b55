/* Placements against all placements there are: the slowest run is as fast as can be, within memory. */
#include "base/mem.h"
#include "model/placement.h"
#include "support/test_support.h"

#include <math.h>

enum { MOST_LAYERS = 9, MOST_RUNS = 6 };

static double layer[MOST_LAYERS], pace[MOST_RUNS];

/* Stage s holds (capacity[s]) blocks in a run, the head counting as `head_blocks`. */
typedef struct room {
    int capacity[MOST_RUNS], head_blocks;
} room_t;

static bool fits(const void *context, int stage, lrd_span_t run)
{
    const room_t *room = context;
    return run.last - run.first + (run.head ? room->head_blocks : 0) <= room->capacity[stage];
}

static double cost_of(const lrd_placement_costs_t *c, int stage, lrd_span_t run)
{
    double sum = (run.embed ? c->embed : 0) + (run.head ? c->head : 0);
    for (int i = run.first; i < run.last; i++)
        sum += c->layer[i] * (c->pace != NULL ? c->pace[stage] : 1);
    return sum;
}

/* The slowest run of the best placement from run `run` and block `first` on; infinite: there is none. */
static double best(const lrd_placement_costs_t *c, int n_stages, int n_runs, int run, int first)
{
    double found = INFINITY;
    if (run == n_runs)
        return first == c->n_layers ? 0 : INFINITY;
    for (int last = first; last <= c->n_layers; last++) {
        const lrd_span_t span = {first, last, run == 0, run == n_runs - 1};
        if ((first == last && (!span.head || span.embed)) ||
            (c->fits != NULL && !c->fits(c->context, run % n_stages, span)))
            continue;
        found = fmin(found, fmax(cost_of(c, run % n_stages, span),
                                 best(c, n_stages, n_runs, run + 1, last)));
    }
    return found;
}

static void compare(const lrd_placement_costs_t *c, int n_stages, int n_chunks)
{
    lrd_placement_t p = {0};
    const int n_runs = n_stages * n_chunks;
    const double want = best(c, n_stages, n_runs, 0, 0);
    double slowest = 0;
    int at = 0;
    if (isinf(want)) {
        assert_ok(lrd_placement_balance(c, n_stages, n_chunks, &p));
        assert_null(p.begin);
        return;
    }
    assert_ok(lrd_placement_balance(c, n_stages, n_chunks, &p));
    assert_int_equal(p.n_stages, n_stages);
    assert_int_equal(p.n_runs, n_runs);
    for (int run = 0; run < n_runs; run++) {
        const lrd_span_t span = lrd_placement_run(&p, run);
        assert_int_equal(span.first, at);
        assert_true(span.last > span.first || span.head);
        assert_true(c->fits == NULL || c->fits(c->context, run % n_stages, span));
        for (at = span.first; at < span.last; at++)
            assert_int_equal(lrd_placement_stage_of(&p, at), run % n_stages);
        slowest = fmax(slowest, cost_of(c, run % n_stages, span));
    }
    assert_int_equal(at, c->n_layers);
    assert_true(fabs(slowest - want) <= 1e-12 * want);
    for (int stage = 0; stage < n_stages; stage++) {
        lrd_runs_t runs;
        assert_ok(lrd_placement_stage(&p, stage, &runs));
        assert_int_equal(runs.n, n_chunks);
        for (int chunk = 0; chunk < n_chunks; chunk++)
            assert_int_equal(runs.run[chunk].first, p.begin[chunk * n_stages + stage]);
        lrd_free(runs.run);
    }
    lrd_placement_release(&p);
}

static void test_against_all(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (int round = 0; round < 400; round++) {
        room_t room = {.head_blocks = (int)lrd_test_random_int(&random, 4)};
        lrd_placement_costs_t c = {.n_layers = 1 + (int)lrd_test_random_int(&random, MOST_LAYERS),
                                   .layer = layer,
                                   .embed = (double)lrd_test_random_int(&random, 3),
                                   .head = (double)lrd_test_random_int(&random, 12),
                                   .context = &room};
        for (int i = 0; i < c.n_layers; i++)
            layer[i] = round % 2 == 0 ? 1 : 1.5 + lrd_test_random(&random);
        for (int s = 0; s < MOST_RUNS; s++)
            room.capacity[s] = 1 + (int)lrd_test_random_int(&random, 7);
        for (int s = 0; s < MOST_RUNS; s++) /* devices as fast as one another, or not */
            pace[s] = 1 + (double)lrd_test_random_int(&random, 4);
        c.fits = round % 3 == 0 ? fits : NULL;
        c.pace = round % 5 < 3 ? pace : NULL;
        for (int n_stages = 1; n_stages <= MOST_RUNS; n_stages++) {
            for (int n_chunks = 1; n_stages * n_chunks <= MOST_RUNS; n_chunks++) {
                const int n_runs = n_stages * n_chunks;
                if (n_runs <= c.n_layers + (n_runs > 1))
                    compare(&c, n_stages, n_chunks);
            }
        }
    }
}

/* A head that weighs as much as eight blocks, as bloom-3b's, takes most of the last stage. */
static void test_heavy_head(void **state)
{
    (void)state;
    double block[30];
    lrd_placement_t p;
    for (int i = 0; i < 30; i++)
        block[i] = 2;
    assert_ok(lrd_placement_balance(
        &(lrd_placement_costs_t){.n_layers = 30, .layer = block, .head = 16}, 4, 1, &p));
    assert_int_equal(p.begin[3], 28); /* 10, 9, 9 and 2 + 8 */
    lrd_placement_release(&p);
}

/* Devices of speed 1, 2 and 4 get blocks in these parts; a head on the fastest takes the room of four. */
static void test_unequal_devices(void **state)
{
    (void)state;
    static const double slowness[] = {4, 2, 1};
    double block[14];
    lrd_placement_t p;
    for (int i = 0; i < 14; i++)
        block[i] = 1;
    lrd_placement_costs_t c = {.n_layers = 14, .layer = block, .pace = slowness};
    assert_ok(lrd_placement_balance(&c, 3, 1, &p));
    assert_int_equal(p.begin[1], 2);
    assert_int_equal(p.begin[2], 6);
    lrd_placement_release(&p);
    c.n_layers = 10;
    c.head = 4;
    assert_ok(lrd_placement_balance(&c, 3, 1, &p));
    assert_int_equal(p.begin[1], 2);
    assert_int_equal(p.begin[2], 6);
    lrd_placement_release(&p);
}

static void test_too_many_stages(void **state)
{
    (void)state;
    lrd_placement_t p;
    for (int i = 0; i < 3; i++)
        layer[i] = 1;
    const lrd_placement_costs_t c = {.n_layers = 3, .layer = layer};
    assert_ok(lrd_placement_balance(&c, 4, 1, &p)); /* the last has the head alone */
    assert_int_equal(p.begin[3], 3);
    lrd_placement_release(&p);
    assert_fails(lrd_placement_balance(&c, 5, 1, &p), LRD_ERR_CONFIG, "the model has 3 blocks");
    assert_fails(lrd_placement_balance(&c, 2, 3, &p), LRD_ERR_CONFIG, "parallel.pipeline_chunks");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_all),
        cmocka_unit_test(test_heavy_head),
        cmocka_unit_test(test_unequal_devices),
        cmocka_unit_test(test_too_many_stages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
