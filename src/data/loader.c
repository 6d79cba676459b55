#include "data/loader.h"

#include "base/mem.h"
#include "base/torch_rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct lrd_loader {
    const lrd_dataset_t *set;
    lrd_loader_settings_t settings;
    int64_t n; /* records */
    lrd_loader_limits_t limits;
    int64_t epoch;  /* whose order it is; -1: none yet */
    int64_t *order; /* [n] */
    int64_t *first; /* [limits.micro_batches + 1] of the last update */
};

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* By records: the longest ones meet. By tokens: the limit itself, or all of an update;
 * and as many of the shortest as fit. Of two neighbouring micro-batches by tokens the first
 * was closed because the next record did not fit, so together they hold more than the limit:
 * that bounds their number. */
static void find_limits(lrd_loader_t *l, int64_t *length)
{
    const lrd_loader_settings_t *s = &l->settings;
    lrd_loader_limits_t *limits = &l->limits;
    const int64_t per_update = smaller(s->records_per_update, l->n);
    qsort(length, (size_t)l->n, sizeof length[0], ascending);
    limits->longest_tokens = length[l->n - 1];
    if (s->max_tokens == 0) {
        limits->sequences = smaller(s->records_per_micro_batch, per_update);
        limits->micro_batches = ceil_div(per_update, s->records_per_micro_batch);
        for (int64_t i = 0; i < limits->sequences; i++)
            limits->tokens += length[l->n - 1 - i];
        return;
    }
    int64_t most = 0, sum = 0; /* tokens of an update */
    for (int64_t i = 0; i < per_update; i++)
        most += length[l->n - 1 - i];
    limits->tokens = smaller(most, s->max_tokens);
    while (limits->sequences < per_update && sum + length[limits->sequences] <= s->max_tokens)
        sum += length[limits->sequences++];
    limits->micro_batches = smaller(per_update, 2 * ceil_div(most, s->max_tokens) - 1);
}

static lrd_status_t check_settings(const lrd_dataset_t *set, const lrd_loader_settings_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_dataset_info_t *info = lrd_dataset_info(set);
    LRD_CHECK(s->records_per_update >= 1, LRD_ERR_CONFIG,
              "an update of %" PRId64 " records: expected at least 1", s->records_per_update);
    LRD_CHECK(s->max_tokens >= 0, LRD_ERR_CONFIG,
              "training.max_tokens_per_micro_batch is %" PRId64 ", expected at least 1",
              s->max_tokens);
    LRD_CHECK(s->max_tokens > 0 || s->records_per_micro_batch >= 1, LRD_ERR_CONFIG,
              "training.per_device_train_batch_size is %" PRId64 ", expected at least 1",
              s->records_per_micro_batch);
    LRD_CHECK(s->max_tokens == 0 || info->longest_tokens <= s->max_tokens, LRD_ERR_CONFIG,
              "%s: the longest record has %" PRId64
              " tokens, more than training.max_tokens_per_micro_batch %" PRId64
              "; raise it, or lower data.max_length",
              info->name, info->longest_tokens, s->max_tokens);
out:
    return status;
}

lrd_status_t lrd_loader_create(const lrd_dataset_t *set, const lrd_loader_settings_t *settings,
                               lrd_loader_t **loader_out)
{
    lrd_status_t status = LRD_OK;
    lrd_loader_t *l = NULL;
    int64_t *length = NULL;
    LRD_TRY(check_settings(set, settings));
    LRD_NEW(l, 1);
    l->set = set;
    l->settings = *settings;
    l->n = lrd_dataset_info(set)->n_records;
    l->epoch = -1;
    LRD_NEW(l->order, l->n);
    LRD_NEW(length, l->n);
    for (int64_t i = 0; i < l->n; i++)
        length[i] = lrd_dataset_record(set, i).n_tokens;
    find_limits(l, length);
    LRD_CHECK(l->limits.tokens <= INT32_MAX, LRD_ERR_CONFIG,
              "%s: a micro-batch can have %" PRId64
              " tokens; lower training.per_device_train_batch_size",
              lrd_dataset_info(set)->name, l->limits.tokens);
    LRD_NEW(l->first, l->limits.micro_batches + 1);
    *loader_out = l;
    l = NULL;
out:
    lrd_free(length);
    lrd_loader_free(l);
    return status;
}

void lrd_loader_free(lrd_loader_t *loader)
{
    if (loader == NULL)
        return;
    lrd_free(loader->order);
    lrd_free(loader->first);
    lrd_free(loader);
}

int64_t lrd_loader_updates_per_epoch(const lrd_loader_t *loader)
{
    return ceil_div(loader->n, loader->settings.records_per_update);
}

int64_t lrd_loader_total_updates(const lrd_loader_t *loader, int64_t max_steps,
                                 double num_train_epochs)
{
    if (max_steps > 0)
        return max_steps;
    const double updates = ceil(num_train_epochs * (double)lrd_loader_updates_per_epoch(loader));
    return updates < 1 ? 0 : updates < 0x1p62 ? (int64_t)updates : INT64_C(1) << 62;
}

lrd_loader_limits_t lrd_loader_limits(const lrd_loader_t *loader)
{
    return loader->limits;
}

/* Cuts the update's records into micro-batches and counts. */
static void compose(lrd_loader_t *l, lrd_update_t *u)
{
    const lrd_loader_settings_t *s = &l->settings;
    int64_t m = 0, filled = 0; /* micro-batches closed; tokens in the open one */
    l->first[0] = 0;
    for (int64_t i = 0; i < u->n_records; i++) {
        const lrd_record_t r = lrd_dataset_record(l->set, u->record[i]);
        const bool full = s->max_tokens > 0 ? filled + r.n_tokens > s->max_tokens
                                            : i - l->first[m] == s->records_per_micro_batch;
        if (full) {
            l->first[++m] = i;
            filled = 0;
        }
        filled += r.n_tokens;
        u->n_tokens += r.n_tokens;
        u->n_targets += r.n_targets;
    }
    l->first[++m] = u->n_records;
    u->first = l->first;
    u->n_micro_batches = m;
}

/* The part of its epoch that is done after update u of the epoch. */
static double epoch_part(const lrd_loader_t *l, int64_t u)
{
    const lrd_loader_settings_t *s = &l->settings;
    const int64_t per_update = s->records_per_update, b = s->records_per_micro_batch;
    const int64_t records = u + 1 < ceil_div(l->n, per_update) ? (u + 1) * per_update : l->n;
    if (s->max_tokens > 0)
        return (double)records / (double)l->n;
    /* whole updates, and the short one at the end */
    const int64_t whole = ceil_div(per_update, b);
    const int64_t done = records / per_update * whole + ceil_div(records % per_update, b);
    const int64_t all = l->n / per_update * whole + ceil_div(l->n % per_update, b);
    return (double)done / (double)all;
}

lrd_status_t lrd_loader_update(lrd_loader_t *loader, int64_t index, lrd_update_t *update_out)
{
    lrd_status_t status = LRD_OK;
    lrd_loader_t *l = loader;
    const int64_t per_epoch = lrd_loader_updates_per_epoch(l);
    LRD_CHECK(index >= 0, LRD_ERR_ARG, "update %" PRId64 " does not exist", index);
    const int64_t epoch = index / per_epoch, u = index % per_epoch;
    if (epoch != l->epoch) {
        lrd_torch_rng_t rng;
        lrd_torch_rng_seed(&rng, l->settings.seed + (uint64_t)epoch);
        lrd_torch_rng_permutation(&rng, l->n, l->order);
        l->epoch = epoch;
    }
    const int64_t begin = u * l->settings.records_per_update; /* at most n: no overflow */
    lrd_update_t update = {
        .epoch = epoch,
        .record = l->order + begin,
        .n_records = smaller(l->settings.records_per_update, l->n - begin),
        .epoch_after = (double)epoch + epoch_part(l, u),
    };
    compose(l, &update);
    *update_out = update;
out:
    return status;
}

static lrd_status_t reserve(lrd_batch_t *b, int64_t n_tokens, int64_t n_sequences)
{
    lrd_status_t status = LRD_OK;
    void *grown;
#define GROW(array, n)                                                              \
    LRD_ALLOC(grown, lrd_realloc_array(b->array, (size_t)(n), sizeof b->array[0])); \
    b->array = grown
    if (n_tokens > b->token_capacity) {
        GROW(token, n_tokens);
        GROW(target, n_tokens);
        GROW(row_key, n_tokens);
        b->token_capacity = n_tokens;
    }
    if (n_sequences > b->sequence_capacity || b->cu_seqlens == NULL) {
        GROW(cu_seqlens, n_sequences + 1);
        GROW(record, n_sequences);
        b->sequence_capacity = n_sequences;
    }
#undef GROW
out:
    return status;
}

/* Ids are checked when a data set is made; a mapped file may have been damaged since. */
static lrd_status_t check_ids(const lrd_dataset_t *set, int64_t record, const int32_t *id,
                              int32_t lowest, int64_t n)
{
    lrd_status_t status = LRD_OK;
    const int64_t vocab_size = lrd_dataset_info(set)->vocab_size;
    for (int64_t t = 0; t < n; t++)
        LRD_CHECK(id[t] >= lowest && id[t] < vocab_size, LRD_ERR_FORMAT,
                  "%s: record %" PRId64 " of the tokenized data set holds the id %" PRId32
                  ", outside the vocabulary of %" PRId64 ": remove the data cache",
                  lrd_dataset_info(set)->name, record, id[t], vocab_size);
out:
    return status;
}

lrd_status_t lrd_batch_pack(const lrd_dataset_t *set, const int64_t *record, int64_t n_records,
                            int64_t epoch, lrd_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    lrd_batch_t *b = batch;
    int64_t n_tokens = 0, at = 0;
    for (int64_t s = 0; s < n_records; s++)
        n_tokens += lrd_dataset_record(set, record[s]).n_tokens;
    LRD_CHECK(n_tokens <= INT32_MAX, LRD_ERR_ARG,
              "a micro-batch of %" PRId64 " tokens is too large", n_tokens);
    LRD_TRY(reserve(b, n_tokens, n_records));
    b->n_targets = 0;
    for (int64_t s = 0; s < n_records; s++) {
        const lrd_record_t r = lrd_dataset_record(set, record[s]);
        const uint64_t key = (uint64_t)record[s] << 32 | ((uint64_t)epoch & 0xffffu) << 16;
        b->cu_seqlens[s] = (int32_t)at;
        b->record[s] = record[s];
        memcpy(b->token + at, r.token, (size_t)r.n_tokens * sizeof r.token[0]);
        lrd_dataset_targets(set, record[s], b->target + at);
        LRD_TRY(check_ids(set, record[s], b->token + at, 0, r.n_tokens));
        LRD_TRY(check_ids(set, record[s], b->target + at, LRD_NO_TARGET, r.n_tokens));
        for (int64_t t = 0; t < r.n_tokens; t++)
            b->row_key[at + t] = key | (uint64_t)t;
        at += r.n_tokens;
        b->n_targets += r.n_targets;
    }
    b->cu_seqlens[n_records] = (int32_t)at;
    b->n_tokens = at;
    b->n_sequences = n_records;
out:
    return status;
}

void lrd_batch_release(lrd_batch_t *batch)
{
    lrd_free(batch->token);
    lrd_free(batch->target);
    lrd_free(batch->row_key);
    lrd_free(batch->cu_seqlens);
    lrd_free(batch->record);
    *batch = (lrd_batch_t){0};
}

int64_t lrd_eval_n_batches(const lrd_dataset_t *set, int64_t records_per_batch)
{
    return ceil_div(lrd_dataset_info(set)->n_records, records_per_batch);
}

lrd_status_t lrd_eval_batch(const lrd_dataset_t *set, int64_t records_per_batch, int64_t b,
                            lrd_batch_t *batch)
{
    lrd_status_t status = LRD_OK;
    int64_t *record = NULL;
    LRD_CHECK(b >= 0 && b < lrd_eval_n_batches(set, records_per_batch), LRD_ERR_ARG,
              "evaluation batch %" PRId64 " does not exist", b);
    const int64_t begin = b * records_per_batch,
                  n = smaller(records_per_batch, lrd_dataset_info(set)->n_records - begin);
    LRD_NEW(record, n);
    for (int64_t i = 0; i < n; i++)
        record[i] = begin + i;
    LRD_TRY(lrd_batch_pack(set, record, n, 0, batch));
out:
    lrd_free(record);
    return status;
}
