#include "base/hash.h"

#include "base/beat.h"
#include "base/file.h"
#include "base/mem.h"

#include <openssl/evp.h>
#include <stdio.h>

struct lrd_sha256 {
    EVP_MD_CTX *context;
};

lrd_status_t lrd_sha256_begin(lrd_sha256_t **hash_out)
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    LRD_NEW(hash, 1);
    LRD_ALLOC(hash->context, EVP_MD_CTX_new());
    LRD_CHECK(EVP_DigestInit_ex(hash->context, EVP_sha256(), NULL) == 1, LRD_ERR_UNAVAILABLE,
              "libcrypto offers no SHA-256");
    *hash_out = hash;
    hash = NULL;
out:
    lrd_sha256_free(hash);
    return status;
}

lrd_status_t lrd_sha256_add(lrd_sha256_t *hash, const void *data, size_t bytes)
{
    enum { PIECE = 1 << 26 }; /* a large data set takes minutes: signs of progress between */
    lrd_status_t status = LRD_OK;
    for (size_t at = 0; at < bytes; at += PIECE) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        lrd_beat();
        LRD_CHECK(EVP_DigestUpdate(hash->context, (const char *)data + at, n) == 1,
                  LRD_ERR_INTERNAL, "SHA-256 failed");
    }
out:
    return status;
}

static void write_hex(const unsigned char *digest, unsigned n, char *hex_out)
{
    for (unsigned i = 0; i < n; i++)
        snprintf(hex_out + (size_t)2 * i, 3, "%02x", digest[i]);
}

lrd_status_t lrd_sha256_end(lrd_sha256_t *hash, char hex_out[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    unsigned char digest[32];
    unsigned n = 0;
    LRD_CHECK(EVP_DigestFinal_ex(hash->context, digest, &n) == 1 && n == sizeof digest,
              LRD_ERR_INTERNAL, "SHA-256 failed");
    write_hex(digest, n, hex_out);
out:
    return status;
}

void lrd_sha256_free(lrd_sha256_t *hash)
{
    if (hash == NULL)
        return;
    EVP_MD_CTX_free(hash->context);
    lrd_free(hash);
}

lrd_status_t lrd_sha256_file(const char *path, char hex_out[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    lrd_map_t map = {0};
    LRD_TRY(lrd_file_map(path, &map));
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, map.data, map.size));
    LRD_TRY(lrd_sha256_end(hash, hex_out));
out:
    lrd_sha256_free(hash);
    lrd_file_unmap(&map);
    return status;
}

lrd_status_t lrd_git_blob(const void *data, size_t bytes, char hex_out[LRD_GIT_BLOB_HEX])
{
    lrd_status_t status = LRD_OK;
    EVP_MD_CTX *context = NULL;
    unsigned char digest[20];
    unsigned n = 0;
    char head[32];
    const int head_bytes = snprintf(head, sizeof head, "blob %zu", bytes) + 1; /* with its NUL */
    LRD_ALLOC(context, EVP_MD_CTX_new());
    LRD_CHECK(EVP_DigestInit_ex(context, EVP_sha1(), NULL) == 1 &&
                  EVP_DigestUpdate(context, head, (size_t)head_bytes) == 1 &&
                  EVP_DigestUpdate(context, data, bytes) == 1 &&
                  EVP_DigestFinal_ex(context, digest, &n) == 1 && n == sizeof digest,
              LRD_ERR_UNAVAILABLE, "libcrypto offers no SHA-1");
    write_hex(digest, n, hex_out);
out:
    EVP_MD_CTX_free(context);
    return status;
}
