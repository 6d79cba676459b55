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
