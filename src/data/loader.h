/* data/loader.h -- which records meet when: the order, the updates and their micro-batches.
 *
 *   epoch e      the order: torch.randperm(n) of a generator seeded with seed + e
 *   update       the next records_per_update records of the order; the last one of an epoch is
 *                short, and nothing is repeated
 *   micro-batch  records_per_micro_batch consecutive records of the update, packed; or, with
 *                max_tokens, as many as fit, greedily
 *
 * All of it is a pure function of the data set and the settings: it does not depend on ranks, and
 * any update can be asked for at any time, which is how a run resumes. Source of the order: what
 * accelerate's seedable sampler (0.24 and later) does in transformers' Trainer.
 */
#ifndef LRD_DATA_LOADER_H
#define LRD_DATA_LOADER_H

#include "base/status.h"
#include "data/dataset.h"

#include <stdint.h>

typedef struct lrd_loader_settings {
    /* per_device_train_batch_size; not looked at with max_tokens */
    int64_t records_per_micro_batch;
    int64_t max_tokens;         /* max_tokens_per_micro_batch; 0: count records instead */
    int64_t records_per_update; /* global_batch_size, or batch x accumulation x data ranks */
    uint64_t seed;              /* data_seed, or seed */
} lrd_loader_settings_t;

/* One per thread: it remembers the order of the last epoch that was asked for. */
typedef struct lrd_loader lrd_loader_t;

/* The data set must outlive the loader. LRD_ERR_CONFIG: a count below 1,
 * or a record longer than max_tokens. */
lrd_status_t lrd_loader_create(const lrd_dataset_t *set, const lrd_loader_settings_t *settings,
                               lrd_loader_t **loader_out);
void lrd_loader_free(lrd_loader_t *loader); /* NULL is fine */

/* U = ceil(n / records_per_update). */
int64_t lrd_loader_updates_per_epoch(const lrd_loader_t *loader);

/* Updates of a whole run: max_steps where it is positive, else ceil(num_train_epochs * U). */
int64_t lrd_loader_total_updates(const lrd_loader_t *loader, int64_t max_steps,
                                 double num_train_epochs);

/* What memory must be prepared for: no micro-batch and no update of any epoch has more. */
typedef struct lrd_loader_limits {
    int64_t tokens;         /* in a micro-batch */
    int64_t sequences;      /* in a micro-batch */
    int64_t longest_tokens; /* of a sequence */
    int64_t micro_batches;  /* in an update */
} lrd_loader_limits_t;
lrd_loader_limits_t lrd_loader_limits(const lrd_loader_t *loader);

/* One update. */
typedef struct lrd_update {
    int64_t epoch; /* from 0 */
    int64_t n_records;
    /* [n_records] in order; valid until the loader is asked for another epoch */
    const int64_t *record;
    int64_t n_micro_batches;
    /* [n_micro_batches + 1] micro-batch m is record[first[m] .. first[m + 1]);
     * valid until the next call */
    const int64_t *first;
    int64_t n_tokens;
    /* N: the loss of the update is a sum over its targets divided by N; may be 0 */
    int64_t n_targets;
    /* state.epoch as the Trainer logs it after this update: epoch + the part of the epoch that is
     * done, counted in micro-batches of one process (with max_tokens: in records). */
    double epoch_after;
} lrd_update_t;

/* Update `index` of the run, from 0. */
lrd_status_t lrd_loader_update(lrd_loader_t *loader, int64_t index, lrd_update_t *update_out);

/* A packed micro-batch: sequences one after the other, without padding. Start from {0}; filling it
 * again reuses the memory. */
typedef struct lrd_batch {
    int32_t *token;  /* [n_tokens] */
    int32_t *target; /* [n_tokens] token id, or LRD_NO_TARGET */
    /* [n_tokens] record << 32 | (epoch mod 2^16) << 16 | position in the record */
    uint64_t *row_key;
    /* [n_sequences + 1] sequence s is the rows cu_seqlens[s] .. cu_seqlens[s + 1] - 1 */
    int32_t *cu_seqlens;
    int64_t *record; /* [n_sequences] number in the data set */
    int64_t n_tokens, n_sequences, n_targets;
    int64_t token_capacity, sequence_capacity; /* private */
} lrd_batch_t;

/* Packs records of a data set. LRD_ERR_FORMAT: an id outside the vocabulary, that is, the mapped
 * file was damaged. LRD_ERR_ARG: more than 2^31 - 1 tokens. */
lrd_status_t lrd_batch_pack(const lrd_dataset_t *set, const int64_t *record, int64_t n_records,
                            int64_t epoch, lrd_batch_t *batch);
void lrd_batch_release(lrd_batch_t *batch); /* frees; the batch is {0} again */

/* Evaluation: batch b of ceil(n / records_per_batch) holds the records from b * records_per_batch
 * on, in the data set's order. eval_loss is the mean over records of their batch's loss, that is,
 * sum over b of n_sequences(b) * loss(b) / n, loss(b) being the mean over the batch's targets. */
int64_t lrd_eval_n_batches(const lrd_dataset_t *set, int64_t records_per_batch);
lrd_status_t lrd_eval_batch(const lrd_dataset_t *set, int64_t records_per_batch, int64_t b,
                            lrd_batch_t *batch);

#endif /* LRD_DATA_LOADER_H */
