#include "data/dataset.h"

#include "base/mem.h"
#include "base/torch_rng.h"
#include "data/dataset_store.h"

#include <inttypes.h>
#include <math.h>

struct lrd_dataset {
    lrd_store_t *store; /* one reference */
    int64_t *selected;  /* [n_records] numbers of records in the store; NULL: all */
    lrd_dataset_info_t info;
};

static int64_t stored(const lrd_dataset_t *set, int64_t i)
{
    return set->selected != NULL ? set->selected[i] : i;
}

static void fill_info(lrd_dataset_t *set, int64_t n_records)
{
    const lrd_store_t *s = set->store;
    lrd_dataset_info_t *info = &set->info;
    *info = (lrd_dataset_info_t){
        .name = s->name,
        .n_records = n_records,
        .shortest_tokens = INT64_MAX,
        .vocab_size = s->vocab_size,
        .n_source_records = s->n_source_records,
        .n_groups = s->n_groups,
        .n_dropped = s->n_dropped,
        .n_truncated = s->n_truncated,
        .n_straddled = s->n_straddled,
    };
    for (int64_t i = 0; i < n_records; i++) {
        const int64_t r = stored(set, i), n = s->offsets[r + 1] - s->offsets[r];
        info->n_tokens += n;
        info->n_targets += s->n_record_targets[r];
        info->longest_tokens = n > info->longest_tokens ? n : info->longest_tokens;
        info->shortest_tokens = n < info->shortest_tokens ? n : info->shortest_tokens;
    }
}

lrd_status_t lrd_dataset_of_store(lrd_store_t *store, lrd_dataset_t **set_out)
{
    lrd_status_t status = LRD_OK;
    lrd_dataset_t *set = NULL;
    LRD_NEW(set, 1);
    set->store = store;
    store = NULL;
    fill_info(set, set->store->n_records);
    *set_out = set;
    set = NULL;
out:
    lrd_store_release(store);
    lrd_dataset_close(set);
    return status;
}

lrd_status_t lrd_dataset_tokenize(const lrd_dataset_spec_t *spec, lrd_dataset_t **set_out)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *store = NULL;
    LRD_TRY(lrd_store_build(spec, &store));
    LRD_TRY(lrd_dataset_of_store(store, set_out));
out:
    return status;
}

void lrd_dataset_close(lrd_dataset_t *set)
{
    if (set == NULL)
        return;
    lrd_store_release(set->store);
    lrd_free(set->selected);
    lrd_free(set);
}

const lrd_dataset_info_t *lrd_dataset_info(const lrd_dataset_t *set)
{
    return &set->info;
}

/* The records of `set` whose group is marked (or is not), as a data set of its own. */
static lrd_status_t select_records(const lrd_dataset_t *set, const bool *marked, bool wanted,
                                   lrd_dataset_t **part_out)
{
    lrd_status_t status = LRD_OK;
    lrd_dataset_t *part = NULL;
    int64_t n = 0;
    LRD_NEW(part, 1);
    LRD_NEW(part->selected, set->info.n_records);
    part->store = set->store;
    part->store->n_references++;
    for (int64_t i = 0; i < set->info.n_records; i++)
        if (marked[set->store->group[stored(set, i)]] == wanted)
            part->selected[n++] = stored(set, i);
    LRD_CHECK(n > 0, LRD_ERR_CONFIG,
              "%s: data.validation_split leaves no record for %s (those drawn may all have been "
              "dropped as too long); choose another fraction or another data_seed",
              set->info.name, wanted ? "validation" : "training");
    fill_info(part, n);
    *part_out = part;
    part = NULL;
out:
    lrd_dataset_close(part);
    return status;
}

lrd_status_t lrd_dataset_split(const lrd_dataset_t *set, double fraction, uint64_t seed,
                               lrd_dataset_t **train_out, lrd_dataset_t **eval_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = set->info.n_groups;
    int64_t *order = NULL;
    bool *marked = NULL;
    lrd_dataset_t *train = NULL;
    LRD_CHECK(fraction > 0 && fraction < 1, LRD_ERR_CONFIG,
              "data.validation_split is %g, expected a number between 0 and 1", fraction);
    LRD_CHECK(
        n >= 2, LRD_ERR_CONFIG,
        "%s: data.validation_split needs two records (articles, for squad) or more, the file has "
        "%" PRId64,
        set->info.name, n);
    LRD_NEW(order, n);
    LRD_NEW(marked, n);
    lrd_torch_rng_t rng;
    lrd_torch_rng_seed(&rng, seed);
    lrd_torch_rng_permutation(&rng, n, order);
    int64_t n_eval = (int64_t)floor(fraction * (double)n + 0.5);
    n_eval = n_eval < 1 ? 1 : n_eval > n - 1 ? n - 1 : n_eval;
    for (int64_t i = 0; i < n_eval; i++)
        marked[order[i]] = true;
    LRD_TRY(select_records(set, marked, false, &train));
    LRD_TRY(select_records(set, marked, true, eval_out));
    *train_out = train;
    train = NULL;
out:
    lrd_dataset_close(train);
    lrd_free(marked);
    lrd_free(order);
    return status;
}

lrd_record_t lrd_dataset_record(const lrd_dataset_t *set, int64_t i)
{
    const lrd_store_t *s = set->store;
    const int64_t r = stored(set, i);
    return (lrd_record_t){
        .token = s->tokens + s->offsets[r],
        .n_tokens = s->offsets[r + 1] - s->offsets[r],
        .n_targets = s->n_record_targets[r],
        .source = s->source[r],
    };
}

void lrd_dataset_targets(const lrd_dataset_t *set, int64_t i, int32_t *target)
{
    const lrd_store_t *s = set->store;
    const int64_t r = stored(set, i), n = s->offsets[r + 1] - s->offsets[r],
                  start = s->label_start[r];
    const int32_t *label = start >= 0 ? s->tokens + s->offsets[r] : s->labels + s->label_at[r];
    for (int64_t t = 0; t + 1 < n; t++)
        target[t] = t + 1 < start || label[t + 1] < 0 ? LRD_NO_TARGET : label[t + 1];
    target[n - 1] = LRD_NO_TARGET;
}
