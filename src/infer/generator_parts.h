/* infer/generator_parts.h -- what the two files of the generator share. Private to them. */
#ifndef LRD_INFER_GENERATOR_PARTS_H
#define LRD_INFER_GENERATOR_PARTS_H

#include "infer/generator.h"
#include "model/graphs.h"

/* A sequence in work. */
typedef struct slot {
    bool used;
    size_t request;
    int32_t past;  /* tokens in its cache */
    int32_t n_new; /* tokens that it brings in this step */
    bool wants;    /* its last row's logits are wanted */
} slot_t;

/* The arrays of a step, one behind the other in pinned and in device memory. */
typedef struct arrays {
    lrd_sample_row_t *row;                                 /* [slots] of the logits */
    int32_t *token, *cu_seqlens, *cache_len, *slot, *last; /* [tokens], [slots + 1], [slots] x 3 */
    size_t bytes;
} arrays_t;

struct lrd_generator {
    lrd_stage_t *stage;
    lrd_stream_t *stream;
    lrd_generator_limits_t limits;
    int64_t vocab;
    int32_t eos[8];
    size_t n_eos;
    slot_t *slots;  /* [slots] */
    int32_t *order; /* [slots] those in work, grouped by adapter */
    arrays_t host;  /* pinned; behind it next [slots] and, with penalty, seen [words] */
    arrays_t device;
    uint8_t *pinned;
    size_t pinned_bytes;
    int32_t *next_host, *next_device; /* [slots + 1] tokens that were chosen, and a word behind */
    uint32_t *seen_host, *seen_device;
    float *logits;          /* device [slots][vocab] */
    lrd_adapter_use_t *use; /* [slots] */
    int32_t *use_begin;     /* [slots + 1] */
    lrd_relay_t relay;
    lrd_graphs_t *graphs; /* of steps that come again; NULL: none are wanted */
    uint64_t *key;        /* [lrd_generator_key_words(slots)] */
};

/* Words of the longest key of a step. */
static inline size_t lrd_generator_key_words(int32_t slots)
{
    return 6 + 3 * (size_t)slots;
}

/* The model's part of a step: from the pinned arrays of a batch to next_host[i], the token of its row i of
 * n_rows, where the head is. The batch may have become larger. Synchronizes; collective on the row where
 * layers are spread. */
lrd_status_t lrd_generator_compute(lrd_generator_t *g, lrd_micro_batch_t *batch, int64_t n_rows);

#endif /* LRD_INFER_GENERATOR_PARTS_H */
