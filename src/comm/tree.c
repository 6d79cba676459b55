#include "comm/tree.h"

void lrd_tree_begin(lrd_tree_t *tree, int64_t n_leaves)
{
    tree->n_leaves = n_leaves;
    tree->n = 0;
}

void lrd_tree_push(lrd_tree_t *tree, lrd_tree_node_t node)
{
    tree->node[tree->n++] = node;
}

/* A left half whose right half is absent is the node above: rises until it has a sibling to wait
 * for, or is the root. */
static void rise(const lrd_tree_t *tree, lrd_tree_node_t *node)
{
    while (node->index > 0 || ((int64_t)1 << node->level) < tree->n_leaves) {
        const int64_t right = (node->index + 1) << node->level;
        if (node->index % 2 != 0 || right < tree->n_leaves)
            return;
        node->level++;
        node->index /= 2;
    }
}

bool lrd_tree_merge(lrd_tree_t *tree, int *dst_out, int *src_out)
{
    if (tree->n == 0)
        return false;
    rise(tree, &tree->node[tree->n - 1]);
    if (tree->n == 1)
        return false;
    lrd_tree_node_t *left = &tree->node[tree->n - 2];
    const lrd_tree_node_t *right = &tree->node[tree->n - 1];
    if (left->level != right->level || left->index % 2 != 0 || left->index + 1 != right->index)
        return false;
    *dst_out = left->slot;
    *src_out = right->slot;
    left->level++;
    left->index /= 2;
    tree->n--;
    return true;
}

void lrd_tree_maximal(lrd_tree_t *tree, int64_t n_leaves, int64_t first, int64_t last)
{
    int dst, src;
    lrd_tree_begin(tree, n_leaves);
    for (int64_t leaf = first; leaf < last; leaf++) {
        lrd_tree_push(tree, (lrd_tree_node_t){0, leaf, 0});
        while (lrd_tree_merge(tree, &dst, &src)) {
        }
    }
    for (int i = 0; i < tree->n; i++)
        tree->node[i].slot = i;
}

/* The shortest ranges with 1, 2, ... nodes, by the leaves below each: 1; 1 1; 1 2 1; 1 2 2 1; 1 2 4 2 1; ... */
int lrd_tree_most_nodes(int64_t length)
{
    int n = 0;
    for (int64_t shortest = 1; shortest <= length; shortest += (int64_t)1 << n / 2)
        n++;
    return n;
}

/* The first cut goes through the root and a node of each level below, the others through less: each makes one
 * more node a level. */
int lrd_tree_most_cut(int64_t n_leaves, int n_ranges)
{
    int levels = 0;
    while ((int64_t)1 << levels < n_leaves)
        levels++;
    const int64_t most = 1 + (int64_t)(n_ranges - 1) * levels;
    return (int)(most < n_leaves ? most : n_leaves);
}

int lrd_tree_buffers(int64_t n_leaves, int64_t first, int64_t last)
{
    lrd_tree_t tree;
    int most = 0, dst, src;
    lrd_tree_begin(&tree, n_leaves);
    for (int64_t leaf = first; leaf < last; leaf++) {
        lrd_tree_push(&tree, (lrd_tree_node_t){0, leaf, 0});
        most = tree.n > most ? tree.n : most;
        while (lrd_tree_merge(&tree, &dst, &src)) {
        }
    }
    return most;
}

/* A leaf is added to the nodes of those before it. */
int lrd_tree_most_buffers(int64_t length)
{
    return lrd_tree_most_nodes(length - 1) + 1;
}
