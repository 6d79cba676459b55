/* hub/hub_reply.h -- what the server says, read as what an unknown server may say: every name, number and address
 * is checked before it is used. `name` stands in messages. All fail with LRD_ERR_FORMAT, or LRD_ERR_NO_MEMORY.
 */
#ifndef LRD_HUB_HUB_REPLY_H
#define LRD_HUB_HUB_REPLY_H

#include "base/hash.h"
#include "hub/hub_name.h"

#include <stddef.h>
#include <stdint.h>

/* A file of a repository at one commit. */
typedef struct lrd_hub_file {
    char *path;   /* lrd_hub_is_safe_path */
    int64_t size; /* -1: not said */
    char git_blob
        [LRD_GIT_BLOB_HEX]; /* of what git keeps: the content, or a link to it; "": not said */
} lrd_hub_file_t;

typedef struct lrd_hub_listing {
    char commit[LRD_HUB_COMMIT_HEX];
    lrd_hub_file_t *file; /* [n] */
    size_t n;
} lrd_hub_listing_t;

/* GET /api/models/REPO/revision/REVISION?blobs=true */
lrd_status_t lrd_hub_read_listing(const char *text, size_t bytes, const char *name,
                                  lrd_hub_listing_t *listing_out);
void lrd_hub_listing_release(lrd_hub_listing_t *listing); /* {0} is fine */
const lrd_hub_file_t *lrd_hub_listing_find(const lrd_hub_listing_t *listing, const char *path);

/* The files that an index of shards names, each once. They lie in one folder: a name holds no "/". */
typedef struct lrd_hub_shards {
    char **name; /* [n] */
    size_t n;
} lrd_hub_shards_t;
lrd_status_t lrd_hub_read_shards(const char *text, size_t bytes, const char *name,
                                 lrd_hub_shards_t *shards_out);
void lrd_hub_shards_release(lrd_hub_shards_t *shards); /* {0} is fine */

/* How one file is to be uploaded. */
typedef struct lrd_hub_mode {
    bool lfs, ignored;
    char oid[LRD_SHA256_HEX]; /* what is there now: SHA-256 (lfs) or git's name; "": nothing */
} lrd_hub_mode_t;

/* POST .../preupload/REVISION, of the file `path`. */
lrd_status_t lrd_hub_read_mode(const char *text, size_t bytes, const char *name, const char *path,
                               lrd_hub_mode_t *mode_out);

/* Where to an object of the large file storage goes. */
typedef struct lrd_hub_upload {
    char *href;         /* NULL: it is there already */
    char *verify;       /* NULL: nothing to verify */
    int64_t part_bytes; /* 0: in one piece, to href */
    char *
        *part; /* [n_parts] addresses of the pieces; href is then where to say that all are there */
    size_t n_parts;
    char *refusal; /* why the server does not want it, in its words; NULL: it does */
} lrd_hub_upload_t;

/* POST .../info/lfs/objects/batch, of the object `oid` of `size` bytes. */
lrd_status_t lrd_hub_read_upload(const char *text, size_t bytes, const char *name, const char *oid,
                                 int64_t size, lrd_hub_upload_t *upload_out);
void lrd_hub_upload_release(lrd_hub_upload_t *upload); /* {0} is fine */

/* A member of an object that is a text of printable ASCII, such as "commitUrl"; lrd_free it. */
lrd_status_t lrd_hub_read_text(const char *text, size_t bytes, const char *name, const char *key,
                               char **value_out);

#endif /* LRD_HUB_HUB_REPLY_H */
