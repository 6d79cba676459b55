/* base/hash.h -- SHA-256, and git's name of a file's content (OpenSSL's libcrypto). */
#ifndef LRD_BASE_HASH_H
#define LRD_BASE_HASH_H

#include "base/status.h"

#include <stddef.h>

enum {
    LRD_SHA256_HEX = 65, /* 64 hexadecimal digits and a NUL */
    LRD_GIT_BLOB_HEX = 41
};

typedef struct lrd_sha256 lrd_sha256_t;
lrd_status_t lrd_sha256_begin(lrd_sha256_t **hash_out);
lrd_status_t lrd_sha256_add(lrd_sha256_t *hash, const void *data, size_t bytes);
/* May be called once. */
lrd_status_t lrd_sha256_end(lrd_sha256_t *hash, char hex_out[LRD_SHA256_HEX]);
void lrd_sha256_free(lrd_sha256_t *hash);

/* Of a file's content. */
lrd_status_t lrd_sha256_file(const char *path, char hex_out[LRD_SHA256_HEX]);

/* What git calls a file of this content: SHA-1 of "blob <bytes>", a NUL and the content. */
lrd_status_t lrd_git_blob(const void *data, size_t bytes, char hex_out[LRD_GIT_BLOB_HEX]);

#endif /* LRD_BASE_HASH_H */
