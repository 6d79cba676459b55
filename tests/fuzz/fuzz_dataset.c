/* A tokenized data set's file. First byte 0: the rest is the file itself. First byte 1: changes to a
 * sound one (fuzz_h5.h). What is opened can be read from its first record to its last. */
#include "fuzz/fuzz_folder.h"
#include "fuzz/fuzz_h5.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/dataset.h"

/* As LRD_STORE_COUNTS and LRD_STORE_ARRAYS have them. */
static const char *const names[] = {
    "format",    "format_version", "source_file", "content_sha256",   "n_records",
    "n_tokens",  "n_labels",       "n_targets",   "n_source_records", "n_groups",
    "n_dropped", "n_truncated",    "n_straddled", "vocab_size",       "tokens",
    "labels",    "offsets",        "label_start", "n_record_targets", "source",
    "group"};
static const fuzz_h5_t holds = {names, 14, sizeof names / sizeof names[0], 3};

/* Built once, of three records. */
static const lrd_buf_t *sound_file(void)
{
    static lrd_buf_t file;
    static const char text[] = "{\"input_ids\": [1, 2, 3]}\n{\"input_ids\": [4, 5]}\n"
                               "{\"input_ids\": [6, 7], \"labels\": [-100, 8]}\n";
    lrd_settings_t *settings = NULL;
    char source[128], *path = NULL;
    if (file.size > 0)
        return &file;
    fuzz_folder_put("file", text, sizeof text - 1);
    snprintf(source, sizeof source, "%s/file", fuzz_folder);
    FUZZ_CHECK(lrd_settings_create(&settings) == LRD_OK);
    settings->data.format = LRD_FORMAT_TOKENIZED;
    FUZZ_CHECK(lrd_dataset_build(&(lrd_dataset_spec_t){.path = source,
                                                       .settings = &settings->data,
                                                       .vocab_size = 9,
                                                       .n_threads = 1},
                                 fuzz_folder, &path) == LRD_OK);
    FUZZ_CHECK(lrd_file_read(path, 1 << 20, &file) == LRD_OK);
    unlink(path);
    lrd_free(path);
    lrd_settings_free(settings);
    return &file;
}

static void read_all(const lrd_dataset_t *set)
{
    const lrd_dataset_info_t *info = lrd_dataset_info(set);
    int64_t tokens = 0, sum = 0, targets = 0;
    FUZZ_CHECK(info->n_records >= 0);
    for (int64_t i = 0; i < info->n_records; i++) {
        const lrd_record_t r = lrd_dataset_record(set, i);
        FUZZ_CHECK(r.n_tokens >= 1 && r.n_tokens <= LRD_RECORD_MAX_TOKENS);
        int32_t *target = lrd_malloc((size_t)r.n_tokens * sizeof *target);
        FUZZ_CHECK(target != NULL);
        lrd_dataset_targets(set, i, target);
        for (int64_t k = 0; k < r.n_tokens; k++)
            sum += r.token[k] + target[k];
        tokens += r.n_tokens;
        targets += r.n_targets;
        lrd_free(target);
    }
    FUZZ_CHECK(tokens == info->n_tokens && targets == info->n_targets && sum != INT64_MIN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_dataset_t *set = NULL;
    char path[128];
    lrd_log_set_level(LRD_LOG_ERROR);
    fuzz_folder_make();
    if (size == 0)
        return 0;
    snprintf(path, sizeof path, "%s/set.h5", fuzz_folder);
    if (data[0] % 2 == 0) {
        fuzz_folder_put("set.h5", data + 1, size - 1);
    } else {
        const lrd_buf_t *sound = sound_file();
        fuzz_folder_put("set.h5", sound->data, sound->size);
        fuzz_h5_change_all(&holds, path, data + 1, size - 1);
    }
    if (lrd_dataset_open(path, &set) == LRD_OK)
        read_all(set);
    else
        FUZZ_CHECK(set == NULL);
    lrd_dataset_close(set);
    lrd_error_clear();
    return 0;
}
