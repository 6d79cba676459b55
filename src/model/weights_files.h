/* model/weights_files.h -- the safetensors files of a model folder as one list of tensors. */
#ifndef LRD_MODEL_WEIGHTS_FILES_H
#define LRD_MODEL_WEIGHTS_FILES_H

#include "base/safetensors.h"

#include <stdbool.h>

typedef struct lrd_weights_files {
    char *folder;
    lrd_safetensors_t **file;
    size_t n_files;
    bool is_sharded; /* by model.safetensors.index.json */
    int more_users;  /* how often it must be closed before it is */
} lrd_weights_files_t;

/* A tensor and the file it is in. */
typedef struct lrd_located {
    const lrd_safetensors_t *file;
    const lrd_tensor_entry_t *entry;
} lrd_located_t;

/* Is there anything to open? Out of memory counts as yes. */
bool lrd_weights_files_exist(const char *folder);

/* Opens model.safetensors, or every shard that model.safetensors.index.json names. */
lrd_status_t lrd_weights_files_open(const char *folder, lrd_weights_files_t **files_out);
/* One file, whatever it is called. */
lrd_status_t lrd_weights_files_open_one(const char *path, lrd_weights_files_t **files_out);
void lrd_weights_files_close(lrd_weights_files_t *files); /* NULL is fine */

/* The same files for one user more, who closes them too. */
lrd_weights_files_t *lrd_weights_files_share(lrd_weights_files_t *files);

/* Finds prefix + name, or name. False: neither is there. */
bool lrd_weights_files_find(const lrd_weights_files_t *files, const char *prefix, const char *name,
                            lrd_located_t *located_out);

#endif /* LRD_MODEL_WEIGHTS_FILES_H */
