#include "support/test_support.h"

#include "base/arena.h"
#include "base/mem.h"

#include <stdio.h>

enum { ALIGN = LRD_ARENA_ALIGN };

static const size_t requests[] = {1, 256, 257, 0, 1000, 3, 511};
enum {
    N_REQUESTS = sizeof requests / sizeof requests[0],
    TOTAL = (1 + 1 + 2 + 0 + 4 + 1 + 2) * ALIGN
};

/* The place of each request, as a distance from the first. */
static void lay_out(lrd_arena_t *arena, size_t place_out[N_REQUESTS])
{
    uint8_t *first = NULL;
    for (int i = 0; i < N_REQUESTS; i++) {
        uint8_t *ptr = lrd_arena_take(arena, i % 2 == 0 ? "even" : "odd", requests[i]);
        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % ALIGN, 0);
        if (i == 0)
            first = ptr;
        place_out[i] = (size_t)((uintptr_t)ptr - (uintptr_t)first);
    }
}

static void test_both_passes_agree(void **state)
{
    size_t measured[N_REQUESTS], real[N_REQUESTS];
    lrd_arena_t measuring = {0};
    lay_out(&measuring, measured);
    assert_int_equal(measuring.used, TOTAL);

    lrd_arena_t arena = {.base = lrd_pages_alloc(TOTAL), .capacity = TOTAL};
    assert_non_null(arena.base);
    lay_out(&arena, real);
    assert_memory_equal(real, measured, sizeof real);
    assert_int_equal(arena.used, TOTAL);
    assert_false(arena.overflow);
    for (int i = 0; i + 1 < N_REQUESTS; i++)
        assert_true(real[i] + requests[i] <= real[i + 1]); /* none overlaps the next */
    assert_true(real[N_REQUESTS - 1] + requests[N_REQUESTS - 1] <= TOTAL);

    assert_int_equal(arena.n_categories, 2);
    assert_string_equal(arena.category[0].name, "even");
    assert_int_equal(arena.category[0].bytes, (1 + 2 + 4 + 2) * ALIGN);
    assert_string_equal(arena.category[1].name, "odd");
    assert_int_equal(arena.category[1].bytes, 2 * ALIGN);
    lrd_pages_free(arena.base, TOTAL);
}

static void test_overflow_stays(void **state)
{
    static uint8_t memory[4 * ALIGN] __attribute__((aligned(LRD_ARENA_ALIGN)));
    lrd_arena_t arena = {.base = memory, .capacity = sizeof memory};
    assert_ptr_equal(lrd_arena_take(&arena, "a", 3 * ALIGN), memory);
    assert_null(lrd_arena_take(&arena, "a", ALIGN + 1));
    assert_true(arena.overflow);
    assert_null(lrd_arena_take(&arena, "a", 1));
    assert_int_equal(arena.used, 3 * ALIGN);
    assert_int_equal(arena.category[0].bytes, 3 * ALIGN);
}

static void test_exact_fit(void **state)
{
    static uint8_t memory[2 * ALIGN] __attribute__((aligned(LRD_ARENA_ALIGN)));
    lrd_arena_t arena = {.base = memory, .capacity = sizeof memory};
    assert_ptr_equal(lrd_arena_take(&arena, "a", ALIGN + 1), memory);
    assert_non_null(lrd_arena_take(&arena, "a", 0)); /* nothing always fits */
    assert_null(lrd_arena_take(&arena, "a", 1));
}

static void test_sizes_that_wrap(void **state)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - ALIGN + 2};
    for (int i = 0; i < 2; i++) {
        lrd_arena_t arena = {0};
        assert_null(lrd_arena_take(&arena, "a", sizes[i]));
        assert_true(arena.overflow);
        assert_null(lrd_arena_take(&arena, "a", 1));
    }
    lrd_arena_t sum = {0};
    assert_non_null(lrd_arena_take(&sum, "a", SIZE_MAX / 2));
    assert_null(lrd_arena_take(&sum, "a", SIZE_MAX / 2));
    assert_true(sum.overflow);
}

static void test_mark_and_reset(void **state)
{
    lrd_arena_t arena = {0};
    lrd_arena_take(&arena, "kept", 10);
    const lrd_arena_t mark = arena;
    void *first = lrd_arena_take(&arena, "scratch", 1000);
    lrd_arena_reset(&arena, &mark);
    assert_int_equal(arena.used, ALIGN);
    assert_ptr_equal(lrd_arena_take(&arena, "scratch", 20), first);
    assert_int_equal(arena.n_categories, 2);
    assert_int_equal(arena.category[1].bytes, ALIGN); /* what was given back is not counted */
}

static void test_more_categories_than_are_kept(void **state)
{
    static char names[LRD_ARENA_MAX_CATEGORIES + 3][16];
    lrd_arena_t arena = {0};
    for (int i = 0; i < LRD_ARENA_MAX_CATEGORIES + 3; i++) {
        snprintf(names[i], sizeof names[i], "c%d", i);
        assert_non_null(lrd_arena_take(&arena, names[i], 1));
    }
    assert_int_equal(arena.n_categories, LRD_ARENA_MAX_CATEGORIES);
    assert_int_equal(arena.used, (LRD_ARENA_MAX_CATEGORIES + 3) * ALIGN);
    const char same_text[] = "c0"; /* compared by content, not by address */
    lrd_arena_take(&arena, same_text, 1);
    assert_int_equal(arena.category[0].bytes, 2 * ALIGN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_passes_agree),
        cmocka_unit_test(test_overflow_stays),
        cmocka_unit_test(test_exact_fit),
        cmocka_unit_test(test_sizes_that_wrap),
        cmocka_unit_test(test_mark_and_reset),
        cmocka_unit_test(test_more_categories_than_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
