/* comm/tree.h -- one binary tree over the micro-batches of an update, whoever computes them.
 *
 * Node (level, index) stands for the leaves index * 2^level .. (index + 1) * 2^level - 1; leaves
 * from n_leaves on are absent, and a node whose right half is absent is its left half. The sum of
 * an update is the root: the same additions in the same places on any number of ranks. A rank that
 * has leaves first .. last - 1 forms every node that lies inside; the highest of them (its maximal
 * nodes) are what it has to share. All ranks' maximal nodes, in order, form the root.
 *
 *              (3,0)
 *             /     \
 *         (2,0)      (2,1)    n_leaves = 5, ranks have {0 1 2} and {3 4}:
 *        /     \       |      rank 0 shares (1,0) and (0,2),
 *     (1,0)   (1,1)    |      rank 1 shares (0,3) and (2,1), which is leaf 4
 *     /  \    /  \     |
 *    0    1  2    3    4
 *
 * The functions only say which buffers to add; they know nothing of what is in them.
 */
#ifndef LRD_COMM_TREE_H
#define LRD_COMM_TREE_H

#include <stdbool.h>
#include <stdint.h>

enum { LRD_TREE_DEPTH = 128 }; /* nodes held at once: at most two a level */

typedef struct lrd_tree_node {
    int level;
    int64_t index;
    int slot; /* which buffer holds it: the caller's business */
} lrd_tree_node_t;

typedef struct lrd_tree {
    int64_t n_leaves;
    int n; /* nodes held, in the order of their leaves */
    lrd_tree_node_t node[LRD_TREE_DEPTH];
} lrd_tree_t;

void lrd_tree_begin(lrd_tree_t *tree, int64_t n_leaves);

/* Adds the next node: its leaves follow those of the last one. */
void lrd_tree_push(lrd_tree_t *tree, lrd_tree_node_t node);

/* True: buffer *dst_out += buffer *src_out is due, and src's slot is free afterwards.
 * Call until false after a push. */
bool lrd_tree_merge(lrd_tree_t *tree, int *dst_out, int *src_out);

/* The maximal nodes of leaves first .. last - 1, slots numbered from 0, into tree->node. */
void lrd_tree_maximal(lrd_tree_t *tree, int64_t n_leaves, int64_t first, int64_t last);

/* The most maximal nodes that any range of up to `length` leaves has, in a tree of any size. */
int lrd_tree_most_nodes(int64_t length);

/* The most that n_leaves have in all, cut into so many ranges, empty ones among them, in any way. */
int lrd_tree_most_cut(int64_t n_leaves, int n_ranges);

/* Buffers that are in use at once while leaves first .. last - 1 are pushed one by one
 * and merged. */
int lrd_tree_buffers(int64_t n_leaves, int64_t first, int64_t last);

/* The most of any range of up to `length` leaves, in a tree of any size. */
int lrd_tree_most_buffers(int64_t length);

#endif /* LRD_COMM_TREE_H */
