/* hub/hub_upload.h -- one file into the Hub's large file storage (git LFS). */
#ifndef LRD_HUB_HUB_UPLOAD_H
#define LRD_HUB_HUB_UPLOAD_H

#include "base/file.h"
#include "base/hash.h"
#include "hub/hub_reply.h"

typedef struct lrd_hub lrd_hub_t;

/* A file to publish. */
typedef struct lrd_hub_local {
    const char *name; /* in the repository */
    lrd_map_t map;
    char sha256[LRD_SHA256_HEX], git_blob[LRD_GIT_BLOB_HEX];
    lrd_hub_mode_t mode; /* what the server says of it */
} lrd_hub_local_t;

/* In one piece or in parts, as the server asks; nothing where it has the content already. */
lrd_status_t lrd_hub_upload(lrd_hub_t *hub, const char *repo, const char *revision,
                            const lrd_hub_local_t *file);

#endif /* LRD_HUB_HUB_UPLOAD_H */
