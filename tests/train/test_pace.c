/* What a stage takes is what the slowest rank that holds it takes, pass by pass. */
#include "support/test_support.h"
#include "train/pace.h"

static void test_of_stages(void **state)
{
    (void)state;
    /* Two replicas of three stages; rank 4, stage 1 of the second, is slow forward and fast back. */
    const lrd_pass_times_t by_rank[6] = {
        {1, 1, 1, 1, 1, 1}, {2, 2, 2, 2, 2, 2}, {3, 3, 3, 3, 3, 3},
        {1, 1, 1, 1, 1, 1}, {1, 9, 1, 1, 8, 1}, {4, 1, 5, 1, 6, 1},
    };
    lrd_pass_times_t times[6];
    lrd_pace_of_stages(by_rank, 6, 3, times);
    assert_true(times[0].forward == 1 && times[0].copy == 1);
    assert_true(times[1].embed == 2 && times[1].forward == 9 && times[1].backward == 2);
    assert_true(times[1].lowest_backward == 2 && times[1].head == 8 && times[1].copy == 2);
    assert_true(times[2].embed == 4 && times[2].forward == 3 && times[2].backward == 5);
    assert_true(times[2].lowest_backward == 3 && times[2].head == 6 && times[2].copy == 3);
    lrd_pace_of_stages(by_rank, 6, 6, times); /* each on its own */
    for (int r = 0; r < 6; r++)
        assert_true(times[r].forward == by_rank[r].forward && times[r].head == by_rank[r].head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_of_stages)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
