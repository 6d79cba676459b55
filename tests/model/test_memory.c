/* Memory of a run on a device that counts: what is set aside for libraries is left to them, what they have taken
 * already is not asked for twice, and what is missing is named. */
#include "model/memory.h"
#include "support/test_support.h"

#include <stdlib.h>

enum {
    MODEL = 4096,
    STEP = 2048,
    SCRATCH = 1024,
    OWN = MODEL + STEP + SCRATCH,
    NCCL = 512,
    GRAPHS = 256
};

static size_t free_bytes;
static int fails; /* the allocation that fails, counted down; 0: none */

static lrd_status_t fake_info(lrd_backend_t *be, size_t *free_out, size_t *total_out)
{
    (void)be;
    *free_out = free_bytes;
    *total_out = 1 << 20;
    return LRD_OK;
}

static lrd_status_t fake_alloc(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes, void **out)
{
    (void)be;
    (void)kind;
    if (fails > 0 && --fails == 0)
        return lrd_fail(LRD_ERR_NO_MEMORY, __FILE__, __LINE__, "the fake device says so");
    *out = malloc(bytes);
    return LRD_OK;
}

static void fake_free(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes)
{
    (void)be;
    (void)kind;
    (void)bytes;
    free(ptr);
}

static const lrd_ops_t ops = {
    .name = "fake", .mem_info = fake_info, .mem_alloc = fake_alloc, .mem_free = fake_free};
static lrd_backend_t backend = {&ops};

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    (void)context;
    lrd_arena_take(model, "weights", MODEL);
    lrd_arena_take(step, "activations", STEP);
}

static lrd_memory_t plan(lrd_aside_t nccl, lrd_aside_t graphs)
{
    lrd_memory_t m;
    lrd_memory_plan(&backend, layout, NULL, SCRATCH, &m);
    m.nccl = nccl;
    m.graphs = graphs;
    return m;
}

/* With so many bytes free: does it fit? */
static void check(lrd_memory_t m, size_t bytes, bool fits)
{
    free_bytes = bytes;
    if (fits)
        assert_ok(lrd_memory_allocate(&m));
    else
        assert_fails(lrd_memory_allocate(&m), LRD_ERR_NO_MEMORY, "Smaller micro-batches");
    lrd_memory_free(&m);
}

static void test_room(void **state)
{
    (void)state;
    const lrd_aside_t none = {0, 0}, nccl = {NCCL, 0}, graphs = {GRAPHS, 0};
    check(plan(none, none), OWN, true);
    check(plan(none, none), OWN - 1, false);
    check(plan(nccl, graphs), OWN + NCCL + GRAPHS, true);
    check(plan(nccl, graphs), OWN + NCCL + GRAPHS - 1, false);
    /* Part of it is gone from what is free; more than its part is nobody else's. */
    check(plan((lrd_aside_t){NCCL, 100}, graphs), OWN + NCCL - 100 + GRAPHS, true);
    check(plan((lrd_aside_t){NCCL, 100}, graphs), OWN + NCCL - 100 + GRAPHS - 1, false);
    check(plan((lrd_aside_t){NCCL, 2 * NCCL}, graphs), OWN + GRAPHS, true);
    check(plan((lrd_aside_t){NCCL, 2 * NCCL}, graphs), OWN + GRAPHS - 1, false);
    lrd_memory_t m = plan(nccl, graphs);
    assert_int_equal(lrd_memory_total(&m), OWN + NCCL + GRAPHS);
    free_bytes = OWN;
    assert_fails(lrd_memory_allocate(&m), LRD_ERR_NO_MEMORY,
                 "set aside for NCCL 0.00 and graphs 0.00)");
    lrd_memory_free(&m);
}

/* The device has it free and gives it not. */
static void test_refused(void **state)
{
    (void)state;
    static const char *const what[] = {"no memory for the model (", "no memory for activations",
                                       "no memory for scratch"};
    free_bytes = OWN;
    for (int i = 0; i < 3; i++) {
        lrd_memory_t m = plan((lrd_aside_t){0, 0}, (lrd_aside_t){0, 0});
        fails = i + 1;
        assert_int_equal(lrd_memory_allocate(&m), LRD_ERR_NO_MEMORY);
        assert_true(lrd_test_contains(lrd_error_text(LRD_ERR_NO_MEMORY), what[i]));
        assert_true(
            lrd_test_contains(lrd_error_text(LRD_ERR_NO_MEMORY), "the fake device says so"));
        assert_true(lrd_test_contains(lrd_error_text(LRD_ERR_NO_MEMORY), "max_length"));
        lrd_error_clear();
        lrd_memory_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_room), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
