#include "comm/reduce.h"

#include "base/mem.h"
#include "base/share.h"

#include <string.h>

struct lrd_reduce {
    lrd_reduce_options_t o;
    int rank, size;
    bool staged;   /* neither the host nor other ranks reach device memory: copies through pinned */
    int64_t slice; /* floats of a gradient that a rank adds up: n / size, rounded up */
    int64_t slot;  /* floats of a buffer: size slices; zero behind the first n */
    int n_slots, most_nodes, most_received; /* buffers; own maximal nodes, those of all ranks */
    float *slots, *received;                /* device */
    float *send, *receive, *result;         /* pinned, or device memory itself when not staged */
    size_t send_bytes, receive_bytes, result_bytes;      /* of what was allocated */
    size_t *send_offset, *receive_offset, *slice_offset; /* [size + 1], bytes */
    lrd_device_message_t *messages; /* between devices: [size * most_nodes], [most_received] */
    int *n_nodes;                   /* [size] maximal nodes of each rank in this update */
    lrd_tree_t tree;
    int64_t n_leaves, next_leaf;
    const int64_t *begin;                  /* [size + 1] of the ranks' shares in this update */
    int free_slot[LRD_TREE_DEPTH], n_free; /* but for the last slot, where leaves are made */
};

static size_t slice_bytes(const lrd_reduce_t *r)
{
    return (size_t)r->slice * sizeof(float);
}

static size_t slot_bytes(const lrd_reduce_t *r)
{
    return (size_t)r->slot * sizeof(float);
}

static int count_nodes(int64_t n_leaves, int64_t first, int64_t last)
{
    lrd_tree_t tree;
    lrd_tree_maximal(&tree, n_leaves, first, last);
    return tree.n;
}

/* The most buffers, own nodes and received nodes that any update of up to max_leaves
 * micro-batches can ask for, where shares are even. */
static void find_even(lrd_reduce_t *r)
{
    r->n_slots = 1;
    r->most_nodes = 1;
    for (int64_t m = 1; m <= r->o.max_leaves; m++) {
        const int buffers = lrd_tree_buffers(m, lrd_share_begin(m, r->rank, r->size),
                                             lrd_share_begin(m, r->rank + 1, r->size));
        int received = 0;
        for (int rank = 0; rank < r->size; rank++) {
            const int nodes = count_nodes(m, lrd_share_begin(m, rank, r->size),
                                          lrd_share_begin(m, rank + 1, r->size));
            received += nodes;
            if (rank == r->rank && nodes > r->most_nodes)
                r->most_nodes = nodes;
        }
        r->n_slots = buffers > r->n_slots ? buffers : r->n_slots;
        r->most_received = received > r->most_received ? received : r->most_received;
    }
}

/* ... whatever the shares of up to max_share. */
static void find_any(lrd_reduce_t *r)
{
    const int all = lrd_tree_most_cut(r->o.max_leaves, r->size);
    r->n_slots = lrd_tree_most_buffers(r->o.max_share);
    r->most_nodes = lrd_tree_most_nodes(r->o.max_share);
    r->most_received = r->size * r->most_nodes < all ? r->size * r->most_nodes : all;
}

static void find_sizes(lrd_reduce_t *r)
{
    enum { ALIGNED = 4 }; /* floats of 16 bytes: what devices like to move at once */
    r->slice = (r->o.n + r->size * ALIGNED - 1) / (r->size * ALIGNED) * ALIGNED;
    r->slot = r->size * r->slice;
    (r->o.max_share > 0 ? find_any : find_even)(r);
    if (r->size == 1 || !r->o.reproducible)
        r->most_received = 0;
}

static lrd_status_t allocate_pinned(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = r->o.stream->backend;
    if (r->size == 1 || r->o.devices != NULL)
        goto out;
    if (r->o.reproducible && (r->staged || r->most_nodes > 1))
        r->send_bytes = (size_t)r->most_nodes * slot_bytes(r);
    r->receive_bytes = r->staged ? (size_t)r->most_received * slice_bytes(r) : 0;
    r->result_bytes = r->staged ? slot_bytes(r) : 0;
    if (r->send_bytes > 0)
        LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, r->send_bytes, (void **)&r->send));
    if (r->receive_bytes > 0)
        LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, r->receive_bytes, (void **)&r->receive));
    if (r->result_bytes > 0)
        LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, r->result_bytes, (void **)&r->result));
out:
    return status;
}

lrd_status_t lrd_reduce_create(const lrd_reduce_options_t *options, lrd_reduce_t **reduce_out)
{
    lrd_status_t status = LRD_OK;
    lrd_reduce_t *r;
    LRD_NEW(r, 1);
    r->o = *options;
    r->rank = lrd_comm_rank(options->comm);
    r->size = lrd_comm_size(options->comm);
    r->staged = options->devices == NULL && !options->stream->backend->ops->reads_host_memory;
    find_sizes(r);
    LRD_NEW(r->send_offset, r->size + 1);
    LRD_NEW(r->receive_offset, r->size + 1);
    LRD_NEW(r->slice_offset, r->size + 1);
    LRD_NEW(r->n_nodes, r->size);
    LRD_NEW(r->messages, r->size * r->most_nodes + r->most_received);
    for (int i = 0; i <= r->size; i++)
        r->slice_offset[i] = (size_t)i * slice_bytes(r);
    LRD_TRY(allocate_pinned(r));
    *reduce_out = r;
    r = NULL;
out:
    lrd_reduce_destroy(r);
    return status;
}

void lrd_reduce_destroy(lrd_reduce_t *r)
{
    if (r == NULL)
        return;
    lrd_backend_t *be = r->o.stream->backend;
    if (r->send_bytes > 0)
        lrd_mem_free(be, LRD_MEM_PINNED, r->send, r->send_bytes);
    if (r->receive_bytes > 0)
        lrd_mem_free(be, LRD_MEM_PINNED, r->receive, r->receive_bytes);
    if (r->result_bytes > 0)
        lrd_mem_free(be, LRD_MEM_PINNED, r->result, r->result_bytes);
    lrd_free(r->n_nodes);
    lrd_free(r->messages);
    lrd_free(r->slice_offset);
    lrd_free(r->receive_offset);
    lrd_free(r->send_offset);
    lrd_free(r);
}

void lrd_reduce_layout(lrd_reduce_t *r, lrd_arena_t *arena)
{
    r->slots = lrd_arena_take(arena, "gradients", (size_t)r->n_slots * slot_bytes(r));
    r->received = lrd_arena_take(arena, "gradients", (size_t)r->most_received * slice_bytes(r));
}

size_t lrd_reduce_pinned_bytes(const lrd_reduce_t *r)
{
    return r->send_bytes + r->receive_bytes + r->result_bytes;
}

static float *slot_at(const lrd_reduce_t *r, int slot)
{
    return r->slots + (int64_t)slot * r->slot;
}

void lrd_reduce_begin(lrd_reduce_t *r, int64_t n_leaves, const int64_t *begin)
{
    lrd_tree_begin(&r->tree, n_leaves);
    r->n_leaves = n_leaves;
    r->begin = begin;
    r->next_leaf = begin[r->rank];
    r->n_free = r->n_slots - 1;
    for (int i = 0; i < r->n_free; i++)
        r->free_slot[i] = r->n_free - 1 - i;
}

static int leaf_slot(const lrd_reduce_t *r)
{
    return r->n_slots - 1;
}

/* The last leaf makes room, if nothing was added to it. */
static lrd_status_t vacate(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    lrd_tree_node_t *last = r->tree.n > 0 ? &r->tree.node[r->tree.n - 1] : NULL;
    if (last == NULL || last->slot != leaf_slot(r))
        goto out;
    LRD_CHECK(r->n_free > 0, LRD_ERR_INTERNAL,
              "no gradient buffer is free at micro-batch %ld of %ld", (long)r->next_leaf,
              (long)r->n_leaves);
    last->slot = r->free_slot[--r->n_free];
    LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_D2D, slot_at(r, last->slot), slot_at(r, leaf_slot(r)),
                     slot_bytes(r)));
out:
    return status;
}

lrd_status_t lrd_reduce_leaf(lrd_reduce_t *r, float **buffer_out)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(vacate(r));
    LRD_TRY(lrd_zero(r->o.stream, slot_at(r, leaf_slot(r)), slot_bytes(r)));
    *buffer_out = slot_at(r, leaf_slot(r));
out:
    return status;
}

static lrd_status_t add(const lrd_reduce_t *r, float *dst, const float *src, int64_t n)
{
    return lrd_add(r->o.stream, (lrd_scratch_t){0}, &(lrd_add_t){dst, src, n});
}

lrd_status_t lrd_reduce_leaf_done(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    int dst, src;
    lrd_tree_push(&r->tree, (lrd_tree_node_t){0, r->next_leaf++, leaf_slot(r)});
    while (lrd_tree_merge(&r->tree, &dst, &src)) {
        LRD_TRY(add(r, slot_at(r, dst), slot_at(r, src), r->slot));
        if (src != leaf_slot(r))
            r->free_slot[r->n_free++] = src;
    }
out:
    return status;
}

/* Offsets of the exchange: rank s gets its slice of each of my nodes, I get mine of everyone's. */
static void plan_exchange(lrd_reduce_t *r)
{
    r->send_offset[0] = r->receive_offset[0] = 0;
    for (int s = 0; s < r->size; s++) {
        r->n_nodes[s] = count_nodes(r->n_leaves, r->begin[s], r->begin[s + 1]);
        r->send_offset[s + 1] = r->send_offset[s] + (size_t)r->tree.n * slice_bytes(r);
        r->receive_offset[s + 1] = r->receive_offset[s] + (size_t)r->n_nodes[s] * slice_bytes(r);
    }
}

/* Rank s's slice of my i-th node. */
static float *slice_of(const lrd_reduce_t *r, int i, int s)
{
    return slot_at(r, r->tree.node[i].slot) + s * r->slice;
}

/* My nodes as the exchange wants them: for each rank, its slice of
 * the first node, of the second, ... */
static lrd_status_t pack_send(lrd_reduce_t *r, const void **send_out)
{
    lrd_status_t status = LRD_OK;
    if (!r->staged && r->tree.n == 1) {
        *send_out = slice_of(r, 0, 0); /* one node lies there in the right order already */
        goto out;
    }
    for (int s = 0; s < r->size; s++) {
        for (int i = 0; i < r->tree.n; i++)
            LRD_TRY(lrd_copy(r->o.stream, r->staged ? LRD_COPY_D2H : LRD_COPY_D2D,
                             (char *)r->send + r->send_offset[s] + (size_t)i * slice_bytes(r),
                             slice_of(r, i, s), slice_bytes(r)));
    }
    *send_out = r->send;
out:
    return status;
}

/* Adds the received nodes of my slice up in the tree's order; the sum lands in *sum_out. */
static lrd_status_t add_received(lrd_reduce_t *r, float **sum_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = r->slice;
    lrd_tree_t all, of_rank;
    int slot = 0, dst, src;
    lrd_tree_begin(&all, r->n_leaves);
    for (int s = 0; s < r->size; s++) {
        lrd_tree_maximal(&of_rank, r->n_leaves, r->begin[s], r->begin[s + 1]);
        for (int i = 0; i < of_rank.n; i++) {
            of_rank.node[i].slot = slot++;
            lrd_tree_push(&all, of_rank.node[i]);
            while (lrd_tree_merge(&all, &dst, &src))
                LRD_TRY(add(r, r->received + dst * n, r->received + src * n, n));
        }
    }
    *sum_out = r->received + all.node[0].slot * n;
out:
    return status;
}

/* The exchange between devices: slices of nodes go from where they are to where they are added up. */
static lrd_status_t exchange_on_devices(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    lrd_device_message_t *send = r->messages, *receive = send + r->size * r->most_nodes;
    float *to = r->received;
    int n_send = 0, n_receive = 0;
    for (int s = 0; s < r->size; s++) {
        for (int i = 0; i < r->n_nodes[s]; i++, to += r->slice) {
            if (s == r->rank)
                LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_D2D, to, slice_of(r, i, s), slice_bytes(r)));
            else
                receive[n_receive++] = (lrd_device_message_t){to, r->slice, LRD_F32, s};
        }
        for (int i = 0; i < r->tree.n && s != r->rank; i++)
            send[n_send++] = (lrd_device_message_t){slice_of(r, i, s), r->slice, LRD_F32, s};
    }
    LRD_TRY(lrd_devcomm_exchange(r->o.devices, send, n_send, receive, n_receive));
out:
    return status;
}

static lrd_status_t exchange_by_mpi(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    const void *send;
    LRD_TRY(pack_send(r, &send));
    LRD_TRY(lrd_stream_sync(r->o.stream));
    LRD_TRY(lrd_comm_exchange(r->o.comm, send, r->send_offset, r->staged ? r->receive : r->received,
                              r->receive_offset));
    if (r->staged)
        LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_H2D, r->received, r->receive,
                         r->receive_offset[r->size]));
out:
    return status;
}

/* From everyone's slice of the sum to all of it, in slot 0. */
static lrd_status_t gather_by_mpi(lrd_reduce_t *r, const float *sum)
{
    lrd_status_t status = LRD_OK;
    char *result = r->staged ? (char *)r->result : (char *)slot_at(r, 0);
    char *mine = result + r->slice_offset[r->rank];
    LRD_TRY(
        lrd_copy(r->o.stream, r->staged ? LRD_COPY_D2H : LRD_COPY_D2D, mine, sum, slice_bytes(r)));
    LRD_TRY(lrd_stream_sync(r->o.stream));
    LRD_TRY(lrd_comm_all_gather(r->o.comm, mine, result, r->slice_offset));
    if (r->staged)
        LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_H2D, slot_at(r, 0), result, slot_bytes(r)));
out:
    return status;
}

static lrd_status_t end_reproducible(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    float *sum;
    plan_exchange(r);
    LRD_TRY(r->o.devices != NULL ? exchange_on_devices(r) : exchange_by_mpi(r));
    LRD_TRY(add_received(r, &sum));
    LRD_TRY(r->o.devices != NULL
                ? lrd_devcomm_all_gather_f32(r->o.devices, sum, slot_at(r, 0), r->slice)
                : gather_by_mpi(r, sum));
out:
    return status;
}

/* From each rank's `total` to the sum of them, in slot 0. */
static lrd_status_t sum_by_mpi(lrd_reduce_t *r, float *total)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = (size_t)r->o.n * sizeof(float);
    if (r->staged)
        LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_D2H, r->result, total, bytes));
    LRD_TRY(lrd_stream_sync(r->o.stream));
    LRD_TRY(lrd_comm_sum_f32(r->o.comm, r->staged ? r->result : total, (size_t)r->o.n));
    if (r->staged)
        LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_H2D, slot_at(r, 0), r->result, bytes));
    else if (total != slot_at(r, 0))
        LRD_TRY(lrd_copy(r->o.stream, LRD_COPY_D2D, slot_at(r, 0), total, bytes));
out:
    return status;
}

static lrd_status_t end_fast(lrd_reduce_t *r)
{
    lrd_status_t status = LRD_OK;
    float *total = slot_at(r, r->tree.n > 0 ? r->tree.node[0].slot : 0);
    if (r->tree.n == 0)
        LRD_TRY(lrd_zero(r->o.stream, total, slot_bytes(r)));
    for (int i = 1; i < r->tree.n; i++)
        LRD_TRY(add(r, total, slot_at(r, r->tree.node[i].slot), r->o.n));
    LRD_TRY(r->o.devices != NULL ? lrd_devcomm_sum_f32(r->o.devices, total, slot_at(r, 0), r->o.n)
                                 : sum_by_mpi(r, total));
out:
    return status;
}

lrd_status_t lrd_reduce_end(lrd_reduce_t *r, float **sum_out)
{
    lrd_status_t status = LRD_OK;
    if (r->size == 1) {
        *sum_out = slot_at(r, r->tree.node[0].slot);
        goto out;
    }
    LRD_TRY(r->o.reproducible ? end_reproducible(r) : end_fast(r));
    *sum_out = slot_at(r, 0);
out:
    return status;
}
