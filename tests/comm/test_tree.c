/* The tree over micro-batches against its definition: for every number of leaves and every split
 * over ranks, the additions in the order written down as text. */
#include "base/mem.h"
#include "base/share.h"
#include "comm/tree.h"
#include "support/test_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LEAVES = 70, MAX_RANKS = 5, TEXT = 512, SLOTS = 64 };

/* A sum as text: leaf 3 is "3", an addition "(left+right)". */
typedef char text_t[TEXT];

static void add(char *dst, const char *src)
{
    text_t sum;
    assert_true((size_t)snprintf(sum, TEXT, "(%s+%s)", dst, src) < TEXT);
    memcpy(dst, sum, TEXT);
}

/* The definition: a node is its two halves, or the left one where the right one is absent. */
static void define(int64_t n_leaves, int64_t first, int64_t width, char *sum)
{
    text_t right;
    if (width == 1) {
        snprintf(sum, TEXT, "%ld", (long)first);
        return;
    }
    define(n_leaves, first, width / 2, sum);
    if (first + width / 2 >= n_leaves)
        return;
    define(n_leaves, first + width / 2, width / 2, right);
    add(sum, right);
}

static void definition(int64_t n_leaves, char *sum)
{
    int64_t width = 1;
    while (width < n_leaves)
        width *= 2;
    define(n_leaves, 0, width, sum);
}

/* One rank's leaves pushed one by one, in as few buffers as lrd_tree_buffers says. */
static void run_rank(int64_t n_leaves, int64_t first, int64_t last, lrd_tree_t *tree,
                     text_t *buffer)
{
    int free_slot[SLOTS], n_free = 0, dst, src;
    const int n_buffers = lrd_tree_buffers(n_leaves, first, last);
    assert_in_range(n_buffers, first < last, SLOTS);
    for (int i = n_buffers - 1; i >= 0; i--)
        free_slot[n_free++] = i;
    lrd_tree_begin(tree, n_leaves);
    for (int64_t leaf = first; leaf < last; leaf++) {
        assert_true(n_free > 0);
        const int slot = free_slot[--n_free];
        snprintf(buffer[slot], TEXT, "%ld", (long)leaf);
        lrd_tree_push(tree, (lrd_tree_node_t){0, leaf, slot});
        while (lrd_tree_merge(tree, &dst, &src)) {
            add(buffer[dst], buffer[src]);
            free_slot[n_free++] = src;
        }
    }
}

/* The nodes a rank holds are those that lrd_tree_maximal tells the others of. */
static void check_maximal(const lrd_tree_t *tree, int64_t n_leaves, int64_t first, int64_t last)
{
    lrd_tree_t maximal;
    lrd_tree_maximal(&maximal, n_leaves, first, last);
    assert_int_equal(maximal.n, tree->n);
    for (int i = 0; i < tree->n; i++) {
        assert_int_equal(maximal.node[i].level, tree->node[i].level);
        assert_int_equal(maximal.node[i].index, tree->node[i].index);
        assert_int_equal(maximal.node[i].slot, i);
    }
}

/* All ranks' nodes, in order, form the root. begin[n_ranks + 1] is the split. */
static void check_split(int64_t n_leaves, int n_ranks, const int64_t *begin, const char *want)
{
    static text_t buffer[SLOTS], received[SLOTS];
    lrd_tree_t tree, all;
    int n_received = 0, dst, src;
    lrd_tree_begin(&all, n_leaves);
    for (int rank = 0; rank < n_ranks; rank++) {
        run_rank(n_leaves, begin[rank], begin[rank + 1], &tree, buffer);
        check_maximal(&tree, n_leaves, begin[rank], begin[rank + 1]);
        assert_true(tree.n <= lrd_tree_most_nodes(begin[rank + 1] - begin[rank]));
        for (int i = 0; i < tree.n; i++) {
            assert_true(n_received < SLOTS);
            memcpy(received[n_received], buffer[tree.node[i].slot], TEXT);
            lrd_tree_push(&all,
                          (lrd_tree_node_t){tree.node[i].level, tree.node[i].index, n_received++});
            while (lrd_tree_merge(&all, &dst, &src))
                add(received[dst], received[src]);
        }
    }
    assert_int_equal(all.n, 1);
    assert_true(n_received <= lrd_tree_most_cut(n_leaves, n_ranks));
    if (strcmp(received[all.node[0].slot], want) != 0)
        fail_msg("%ld leaves on %d ranks: %s, expected %s", (long)n_leaves, n_ranks,
                 received[all.node[0].slot], want);
}

static void test_shares(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= MAX_LEAVES; n++) {
        text_t want;
        definition(n, want);
        for (int ranks = 1; ranks <= MAX_RANKS; ranks++) {
            int64_t begin[MAX_RANKS + 1];
            for (int r = 0; r <= ranks; r++)
                begin[r] = lrd_share_begin(n, r, ranks);
            check_split(n, ranks, begin, want);
        }
    }
}

/* Every way to cut the leaves in two or three, empty parts among them. */
static void test_every_split(void **state)
{
    (void)state;
    for (int64_t n = 1; n <= MAX_LEAVES; n++) {
        text_t want;
        definition(n, want);
        for (int64_t a = 0; a <= n; a++) {
            check_split(n, 2, (int64_t[]){0, a, n}, want);
            for (int64_t b = a; b <= n && n <= 20; b++)
                check_split(n, 3, (int64_t[]){0, a, b, n}, want);
        }
    }
}

/* Random cuts over 4 and 5 ranks. */
static void test_random_splits(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int64_t n = 1; n <= MAX_LEAVES; n++) {
        text_t want;
        definition(n, want);
        for (int i = 0; i < 40; i++) {
            const int ranks = 4 + i % 2;
            int64_t begin[MAX_RANKS + 1] = {0};
            for (int r = 1; r <= ranks; r++)
                begin[r] = r == ranks
                               ? n
                               : begin[r - 1] + lrd_test_random_int(&seed, n - begin[r - 1] + 1);
            check_split(n, ranks, begin, want);
        }
    }
}

/* The definition itself, where it can be written by hand. */
static void test_definition(void **state)
{
    (void)state;
    static const char *const want[] = {"0",
                                       "(0+1)",
                                       "((0+1)+2)",
                                       "((0+1)+(2+3))",
                                       "(((0+1)+(2+3))+4)",
                                       "(((0+1)+(2+3))+(4+5))",
                                       "(((0+1)+(2+3))+((4+5)+6))"};
    for (int64_t n = 1; n <= 7; n++) {
        text_t sum;
        definition(n, sum);
        assert_string_equal(sum, want[n - 1]);
    }
}

/* A rank needs few buffers: about one a level, two where its share begins in the middle. */
static void test_buffers(void **state)
{
    (void)state;
    assert_int_equal(lrd_tree_buffers(1, 0, 1), 1);
    assert_int_equal(lrd_tree_buffers(64, 0, 64), 7);
    assert_int_equal(lrd_tree_buffers(64, 5, 5), 0);
    assert_true(lrd_tree_buffers(1 << 20, 0, 1 << 20) == 21);
    assert_true(lrd_tree_buffers(1 << 20, 1, (1 << 20) - 1) <= 2 * 20);
}

/* The bounds for ranges of a length are reached, and not passed, by some range of that length or less. */
static void test_bounds(void **state)
{
    (void)state;
    enum { LONGEST = 24, LEAVES = 66 };
    int nodes = 0, buffers = 0;
    for (int64_t length = 1; length <= LONGEST; length++) {
        for (int64_t n = length; n <= LEAVES; n++) {
            for (int64_t first = 0; first + length <= n; first++) {
                lrd_tree_t tree;
                const int b = lrd_tree_buffers(n, first, first + length);
                lrd_tree_maximal(&tree, n, first, first + length);
                nodes = tree.n > nodes ? tree.n : nodes;
                buffers = b > buffers ? b : buffers;
            }
        }
        assert_int_equal(lrd_tree_most_nodes(length), nodes);
        assert_int_equal(lrd_tree_most_buffers(length), buffers);
    }
    /* Two ranges of 16 leaves: 1 and 15 make 1 + 4 nodes. Nobody has more than all leaves. */
    assert_int_equal(lrd_tree_most_cut(16, 2), 5);
    assert_int_equal(lrd_tree_most_cut(4, 4), 4);
    assert_int_equal(lrd_tree_most_cut(1, 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition),  cmocka_unit_test(test_shares),
        cmocka_unit_test(test_every_split), cmocka_unit_test(test_random_splits),
        cmocka_unit_test(test_buffers),     cmocka_unit_test(test_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
