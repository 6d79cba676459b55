/* hub/hub_fetch.h -- one file of a repository into the cache. */
#ifndef LRD_HUB_HUB_FETCH_H
#define LRD_HUB_HUB_FETCH_H

#include "base/progress.h"
#include "hub/hub_cache.h"
#include "hub/hub_call.h"
#include "hub/hub_reply.h"

typedef struct lrd_hub_fetch {
    lrd_hub_t *hub;
    const lrd_hub_cache_t *cache;
    const char *repo, *commit;
    bool is_data;         /* the repository is a data set's */
    const char *snapshot; /* of that commit */
    lrd_progress_t
        progress; /* in MiB, of all files that are fetched; shows where `total` is not 0 */
    int64_t done; /* bytes of them */
} lrd_hub_fetch_t;

/* Afterwards the snapshot has the file. One that it has already is left as it is. */
lrd_status_t lrd_hub_fetch(lrd_hub_fetch_t *fetch, const lrd_hub_file_t *file);

#endif /* LRD_HUB_HUB_FETCH_H */
