#include "model/identity.h"

#include "base/mem.h"

#include <stdio.h>

enum { MAX_CONFIG_BYTES = 4 << 20, PIECES = 16, PIECE = 4096 };

static lrd_status_t hash_config(lrd_sha256_t *hash, const char *folder)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    char *path = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, "config.json"));
    LRD_TRY(lrd_file_read(path, MAX_CONFIG_BYTES, &text));
    LRD_TRY(lrd_sha256_add(hash, text.data, text.size));
out:
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}

/* Size, header, and samples; the last piece ends where the file does. */
static lrd_status_t hash_file(lrd_sha256_t *hash, const lrd_safetensors_t *f)
{
    lrd_status_t status = LRD_OK;
    const size_t begin = lrd_safetensors_data_begin(f), bytes = f->map.size - begin;
    const size_t piece = bytes < PIECE ? bytes : PIECE;
    char size[32];
    const int n = snprintf(size, sizeof size, "\n%zu ", f->map.size);
    LRD_TRY(lrd_sha256_add(hash, size, (size_t)n));
    LRD_TRY(lrd_sha256_add(hash, f->map.data, begin));
    for (size_t i = 0; i < PIECES; i++) {
        const size_t at = (size_t)((double)(bytes - piece) * (double)i / (PIECES - 1));
        LRD_TRY(lrd_sha256_add(hash, f->map.data + begin + at, piece));
    }
out:
    return status;
}

lrd_status_t lrd_model_identify(const char *folder, const lrd_weights_t *weights,
                                const char *commit, lrd_model_identity_t *identity_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_weights_files_t *files = lrd_weights_files(weights);
    lrd_model_identity_t identity = {.commit = ""};
    lrd_sha256_t *hash = NULL;
    snprintf(identity.commit, sizeof identity.commit, "%s", commit != NULL ? commit : "");
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(hash_config(hash, folder));
    for (size_t i = 0; i < files->n_files; i++)
        LRD_TRY(hash_file(hash, files->file[i]));
    LRD_TRY(lrd_sha256_end(hash, identity.fingerprint));
    *identity_out = identity;
out:
    lrd_sha256_free(hash);
    return status;
}
