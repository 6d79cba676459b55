/* tests/fuzz/fuzz_folder.h -- for targets whose parsers read folders: files of one that lies in
 * memory, where that can be. */
#ifndef LRD_FUZZ_FOLDER_H
#define LRD_FUZZ_FOLDER_H

#include "fuzz/fuzz_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char fuzz_folder[64];

static inline void fuzz_folder_remove(void)
{
    static const char *const names[] = {"state.h5",
                                        "trainer_state.json",
                                        "adapter_config.json",
                                        "adapter_model.safetensors",
                                        "config.json",
                                        "run.jsonl",
                                        "x.evaluation.json",
                                        "model.safetensors.index.json",
                                        "a.safetensors",
                                        "file",
                                        "set.h5"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_folder, names[i]);
        unlink(path);
    }
    rmdir(fuzz_folder);
}

/* One for the process, removed when it ends. */
static inline const char *fuzz_folder_make(void)
{
    if (fuzz_folder[0] == '\0') {
        snprintf(fuzz_folder, sizeof fuzz_folder, "%s/lrd-fuzz.XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        FUZZ_CHECK(mkdtemp(fuzz_folder) != NULL);
        atexit(fuzz_folder_remove);
    }
    return fuzz_folder;
}

/* Of no bytes, `data` may be NULL. */
static inline void fuzz_folder_put(const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder_make(), name);
    FILE *file = fopen(path, "wb");
    FUZZ_CHECK(file != NULL && (size == 0 || fwrite(data, 1, size, file) == size));
    FUZZ_CHECK(fclose(file) == 0);
}

#endif /* LRD_FUZZ_FOLDER_H */
