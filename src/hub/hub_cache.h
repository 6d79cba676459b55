/* hub/hub_cache.h -- huggingface_hub's cache on disk:
 *
 *   models--ORG--NAME/refs/main                      the commit that a branch or tag was last seen at
 *   models--ORG--NAME/blobs/ETAG                     a file's content; ETAG.incomplete: what is here of it
 *   models--ORG--NAME/snapshots/COMMIT/config.json   -> ../../blobs/ETAG
 *   .locks/models--ORG--NAME/ETAG.lock               held (flock) by who downloads that file
 *
 * and datasets--ORG--NAME likewise.
 */
#ifndef LRD_HUB_HUB_CACHE_H
#define LRD_HUB_HUB_CACHE_H

#include "hub/hub.h"

/* Of one repository. */
typedef struct lrd_hub_cache {
    char *root, *folder, *locks; /* the cache; models--ORG--NAME in it; that in .locks */
} lrd_hub_cache_t;
lrd_status_t lrd_hub_cache_open(const char *root, const lrd_hub_name_t *name,
                                lrd_hub_cache_t *cache_out);
void lrd_hub_cache_release(lrd_hub_cache_t *cache); /* {0} is fine */

/* snapshots/COMMIT, there or not; lrd_free it. */
lrd_status_t lrd_hub_cache_snapshot(const lrd_hub_cache_t *cache, const char *commit,
                                    char **folder_out);

/* The commit that a branch or tag was last seen at; "": never. */
lrd_status_t lrd_hub_cache_read_ref(const lrd_hub_cache_t *cache, const char *revision,
                                    char commit_out[LRD_HUB_COMMIT_HEX]);
lrd_status_t lrd_hub_cache_write_ref(const lrd_hub_cache_t *cache, const char *revision,
                                     const char *commit);

/* The files of a snapshot, by their paths in it; none: it is not there. lrd_names_free. */
lrd_status_t lrd_hub_cache_list(const char *snapshot, lrd_names_t *paths_out);

/* Whether a snapshot has what `kind` cannot do without: all shards of its weights, say. */
lrd_status_t lrd_hub_cache_holds(const char *snapshot, lrd_hub_kind_t kind, bool *holds_out);

/* Waits for who has the lock of this blob, and takes it. Where the file system has no locks, there is none
 * (*fd_out is -1): what is then written twice at once does not pass the check of its hash. */
lrd_status_t lrd_hub_cache_lock(const lrd_hub_cache_t *cache, const char *tag,
                                const lrd_stop_t *stop, int *fd_out);
void lrd_hub_cache_unlock(int fd); /* -1 is fine */

/* blobs/TAG; its folder is made. lrd_free it. */
lrd_status_t lrd_hub_cache_blob(const lrd_hub_cache_t *cache, const char *tag, char **path_out);

/* Makes a name in a snapshot stand for blobs/TAG. */
lrd_status_t lrd_hub_cache_link(const char *snapshot, const char *name, const char *tag);

#endif /* LRD_HUB_HUB_CACHE_H */
