/* model/weights_parts.h -- what the files behind model/weights.h share. Private to them. */
#ifndef LRD_MODEL_WEIGHTS_PARTS_H
#define LRD_MODEL_WEIGHTS_PARTS_H

#include "model/offload.h"
#include "model/weights.h"

enum { LRD_WEIGHTS_PIECE = 16 << 20 }; /* bytes of a file that travel at once */

/* One tensor on its way: where it comes from, where it goes. */
typedef struct lrd_weights_item {
    lrd_located_t from;
    lrd_cmat_t *to;   /* data: mapped, or device memory once laid out */
    int layer;        /* -1: of no block */
    bool stays;       /* mapped, or read from its file when needed: nothing to load */
} lrd_weights_item_t; /* from.entry NULL: of an outline */

typedef struct lrd_weights_plan {
    lrd_weights_files_t *files; /* NULL: an outline */
    lrd_weights_item_t *item;
    size_t n, capacity;
    bool imagined; /* the files are taken to hold the compute dtype */
} lrd_weights_plan_t;

/* A block's tensor by its number. */
static inline int lrd_weights_item_tensor(const lrd_weights_t *w, const lrd_weights_item_t *item)
{
    return (int)(item->to - &w->block[item->layer * w->config->family->n_block_tensors]);
}

/* With the room behind its columns. */
static inline size_t lrd_weights_item_bytes(const lrd_weights_t *w, const lrd_weights_item_t *item)
{
    return (size_t)(item->to->rows * item->to->ld) * lrd_dtype_bytes(w->dtype);
}

/* A tensor from a file is that many elements in a row, and where it goes they lie `apart`: its rows where it has room behind
 * its columns, else single elements. */
typedef struct lrd_strip {
    int64_t length, apart;
} lrd_strip_t;

lrd_strip_t lrd_strips_of(const lrd_cmat_t *tensor);

/* What lies between them is left as it is. */
void lrd_strips_copy(lrd_strip_t strip, int64_t n, size_t element_bytes, const void *src,
                     void *dst);

#endif /* LRD_MODEL_WEIGHTS_PARTS_H */
