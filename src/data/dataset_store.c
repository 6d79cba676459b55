#include "data/dataset_store.h"

#include "base/hash.h"
#include "base/mem.h"
#include "data/jsonl.h"

#include <inttypes.h>
#include <string.h>

lrd_status_t lrd_store_create(const char *name, lrd_store_t **store_out)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *s = NULL;
    LRD_NEW(s, 1);
    s->n_references = 1;
    LRD_ALLOC(s->name, lrd_strdup(name));
    *store_out = s;
    s = NULL;
out:
    lrd_store_release(s);
    return status;
}

void lrd_store_release(lrd_store_t *store)
{
    if (store == NULL || --store->n_references > 0)
        return;
    if (store->map.data != NULL) {
        lrd_file_unmap(&store->map);
    } else {
#define X(array, type, n) lrd_free(store->array);
        LRD_STORE_ARRAYS(X)
#undef X
    }
    lrd_free(store->label_at);
    lrd_free(store->name);
    lrd_free(store);
}

/* Room for `need` elements in all. */
static lrd_status_t grow_tokens(int32_t **array, size_t *capacity, size_t need)
{
    lrd_status_t status = LRD_OK;
    if (need <= *capacity)
        goto out;
    const size_t more = need + (need >> 1) + 1024;
    int32_t *grown;
    LRD_ALLOC(grown, lrd_realloc_array(*array, more, sizeof *grown));
    *array = grown;
    *capacity = more;
out:
    return status;
}

static lrd_status_t grow_records(lrd_store_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t n = (size_t)s->n_records, more = n + (n >> 1) + 64;
    if (n + 1 < s->record_capacity)
        goto out;
    void *grown;
#define GROW(array)                                                          \
    LRD_ALLOC(grown, lrd_realloc_array(s->array, more, sizeof s->array[0])); \
    s->array = grown
    GROW(offsets);
    GROW(label_start);
    GROW(n_record_targets);
    GROW(source);
    GROW(group);
#undef GROW
    s->record_capacity = more;
out:
    return status;
}

int64_t lrd_label_start(const int32_t *token, const int32_t *label, size_t n)
{
    size_t k = 0;
    while (k < n && label[k] == LRD_LABEL_IGNORED)
        k++;
    return memcmp(token + k, label + k, (n - k) * sizeof token[0]) == 0 ? (int64_t)k : -1;
}

static int64_t count_targets(size_t n, int64_t label_start, const int32_t *label)
{
    int64_t count = 0;
    if (label_start >= 0) {
        const int64_t first = label_start > 1 ? label_start : 1; /* no token predicts the first */
        return (int64_t)n > first ? (int64_t)n - first : 0;
    }
    for (size_t t = 1; t < n; t++)
        count += label[t] >= 0;
    return count;
}

lrd_status_t lrd_store_add(lrd_store_t *store, const int32_t *token, size_t n, int64_t label_start,
                           const int32_t *label, int64_t source, int64_t group)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *s = store;
    const int64_t i = s->n_records, targets = count_targets(n, label_start, label);
    const size_t at = (size_t)s->n_tokens, label_at = (size_t)s->n_labels;
    LRD_TRY(grow_records(s));
    LRD_TRY(grow_tokens(&s->tokens, &s->token_capacity, at + n));
    if (label_start < 0) {
        LRD_TRY(grow_tokens(&s->labels, &s->label_capacity, label_at + n));
        memcpy(s->labels + label_at, label, n * sizeof label[0]);
        s->n_labels += (int64_t)n;
    }
    memcpy(s->tokens + at, token, n * sizeof token[0]);
    s->offsets[i] = s->n_tokens;
    s->label_start[i] = (int32_t)label_start;
    s->n_record_targets[i] = (int32_t)targets;
    s->source[i] = source;
    s->group[i] = group;
    s->n_targets += targets;
    s->n_tokens += (int64_t)n;
    s->n_records++;
    s->offsets[s->n_records] = s->n_tokens;
out:
    return status;
}

/* One record's numbers; offsets[i] is known to be in range. */
static bool record_is_sound(const lrd_store_t *s, int64_t i)
{
    const int64_t left = s->n_tokens - s->offsets[i];
    if (s->offsets[i + 1] <= s->offsets[i] || s->offsets[i + 1] - s->offsets[i] > left)
        return false;
    const int64_t n = s->offsets[i + 1] - s->offsets[i], k = s->label_start[i],
                  targets = s->n_record_targets[i];
    if (n > LRD_RECORD_MAX_TOKENS || k < -1 || k > n || s->group[i] < 0 ||
        s->group[i] >= s->n_groups)
        return false;
    return k >= 0 ? targets == count_targets((size_t)n, k, NULL) : targets >= 0 && targets < n;
}

lrd_status_t lrd_store_finish(lrd_store_t *store)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *s = store;
    int64_t n_labels = 0, n_targets = 0;
    LRD_CHECK(s->n_records > 0 && s->n_records <= INT32_MAX, LRD_ERR_FORMAT,
              "%s: %" PRId64 " records, expected 1 to %" PRId32, s->name, s->n_records, INT32_MAX);
    LRD_CHECK(s->offsets[0] == 0, LRD_ERR_FORMAT, "%s: the first record begins at token %" PRId64,
              s->name, s->offsets[0]);
    for (int64_t i = 0; i < s->n_records; i++) {
        LRD_CHECK(record_is_sound(s, i), LRD_ERR_FORMAT,
                  "%s: the numbers of record %" PRId64 " do not fit together", s->name, i);
        n_targets += s->n_record_targets[i];
        if (s->label_start[i] < 0)
            n_labels += s->offsets[i + 1] - s->offsets[i];
    }
    LRD_CHECK(s->offsets[s->n_records] == s->n_tokens && n_labels == s->n_labels &&
                  n_targets == s->n_targets,
              LRD_ERR_FORMAT,
              "%s: %" PRId64 " tokens, %" PRId64 " labels and %" PRId64
              " targets, but the records say %" PRId64 ", %" PRId64 " and %" PRId64,
              s->name, s->n_tokens, s->n_labels, s->n_targets, s->offsets[s->n_records], n_labels,
              n_targets);
    if (n_labels > 0) {
        LRD_NEW(s->label_at, s->n_records);
        int64_t at = 0;
        for (int64_t i = 0; i < s->n_records; i++) {
            s->label_at[i] = at;
            at += s->label_start[i] < 0 ? s->offsets[i + 1] - s->offsets[i] : 0;
        }
    }
out:
    return status;
}

lrd_status_t lrd_store_hash(const lrd_store_t *store, char hex_out[65])
{
    lrd_status_t status = LRD_OK;
    const lrd_store_t *s = store;
    lrd_sha256_t *hash = NULL;
    LRD_TRY(lrd_sha256_begin(&hash));
#define X(array, type, n) LRD_TRY(lrd_sha256_add(hash, s->array, (size_t)(n) * sizeof s->array[0]));
    LRD_STORE_ARRAYS(X)
#undef X
    LRD_TRY(lrd_sha256_end(hash, hex_out));
out:
    lrd_sha256_free(hash);
    return status;
}
