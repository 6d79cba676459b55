/* Names of the Hub, answers of its server and cards of its data sets. The first byte tells which: what is read holds no name that leads out of its
 * folder, and no part of an upload is missing. */
#include "fuzz/fuzz_target.h"

#include "base/log.h"
#include "base/mem.h"
#include "hub/hub_reply.h"
#include "hub/hub_split.h"

#include <string.h>

enum { FILE_BYTES = 25 };

static void check_path(const char *path)
{
    FUZZ_CHECK(path[0] != '\0' && path[0] != '/' && strcmp(path, "..") != 0);
    FUZZ_CHECK(strncmp(path, "../", 3) != 0 && strstr(path, "/../") == NULL);
    const size_t n = strlen(path);
    FUZZ_CHECK(n < 3 || strcmp(path + n - 3, "/..") != 0);
}

static void read_listing(const char *text, size_t n)
{
    lrd_hub_listing_t x = {.n = 0};
    if (lrd_hub_read_listing(text, n, "answer", &x) == LRD_OK) {
        FUZZ_CHECK(lrd_hub_is_commit(x.commit));
        for (size_t i = 0; i < x.n; i++) {
            check_path(x.file[i].path);
            FUZZ_CHECK(x.file[i].size >= -1);
        }
    }
    lrd_hub_listing_release(&x);
}

static void read_shards(const char *text, size_t n)
{
    lrd_hub_shards_t x = {.n = 0};
    if (lrd_hub_read_shards(text, n, "answer", &x) == LRD_OK) {
        for (size_t i = 0; i < x.n; i++) {
            check_path(x.name[i]);
            FUZZ_CHECK(strchr(x.name[i], '/') == NULL);
        }
    }
    lrd_hub_shards_release(&x);
}

static void read_upload(const char *text, size_t n)
{
    lrd_hub_upload_t x = {.href = NULL};
    if (lrd_hub_read_upload(text, n, "answer", "x", FILE_BYTES, &x) == LRD_OK) {
        FUZZ_CHECK((x.part_bytes > 0) == (x.n_parts > 0));
        FUZZ_CHECK(x.n_parts == 0 || (int64_t)x.n_parts == (FILE_BYTES - 1) / x.part_bytes + 1);
        for (size_t i = 0; i < x.n_parts; i++)
            FUZZ_CHECK(x.part[i] != NULL);
    }
    lrd_hub_upload_release(&x);
}

static void read_name(const char *text, size_t n)
{
    lrd_hub_name_t name;
    char *whole = lrd_strndup(text, n);
    FUZZ_CHECK(whole != NULL);
    if (lrd_hub_name_read(whole, &name)) {
        check_path(name.repo);
        FUZZ_CHECK(strchr(name.repo, '/') == strrchr(name.repo, '/'));
        FUZZ_CHECK(strstr(name.repo, "--") == NULL);
        if (name.revision[0] != '\0')
            check_path(name.revision);
    }
    lrd_hub_data_name_t data;
    if (lrd_hub_data_name_read(whole, "train", &data)) {
        check_path(data.repo.repo);
        check_path(data.split);
        if (data.config[0] != '\0')
            check_path(data.config);
    }
    lrd_free(whole);
}

/* Of a repository with these files. */
static void read_card(const char *text, size_t n)
{
    static const char *const file[] = {
        ".x.json",    "README.md",      "a.json",    "data/train-00000-of-00001.parquet",
        "data/b.csv", "en/dev/c.jsonl", "train.json"};
    enum { N = sizeof file / sizeof file[0] };
    char *name[N];
    const lrd_names_t path = {name, N};
    const lrd_hub_data_name_t wanted = {.repo = {.repo = "a/b"}, .split = "train"};
    lrd_hub_card_t card = {.n = 0};
    lrd_names_t files = {0};
    bool complete = false;
    for (int i = 0; i < N; i++)
        name[i] = (char *)(uintptr_t)file[i];
    if (lrd_hub_card_read(text, n, "README.md", &card) != LRD_OK)
        FUZZ_CHECK(card.n == 0);
    lrd_error_clear();
    if (lrd_hub_split_find(&card, &path, &wanted, &files, &complete) == LRD_OK)
        FUZZ_CHECK(files.n > 0 && files.n <= N);
    lrd_names_free(&files);
    lrd_hub_card_release(&card);
}

/* A pattern on the first line, a path behind it; every path matches itself where no character has a meaning. */
static void match(const char *text, size_t n)
{
    const char *end = memchr(text, '\n', n);
    char *pattern = lrd_strndup(text, end != NULL ? (size_t)(end - text) : n);
    char *path = end != NULL ? lrd_strndup(end + 1, n - (size_t)(end + 1 - text)) : lrd_strdup("a");
    FUZZ_CHECK(pattern != NULL && path != NULL);
    (void)lrd_hub_pattern_matches(pattern, path);
    FUZZ_CHECK(lrd_hub_pattern_matches("**", path));
    FUZZ_CHECK(strpbrk(path, "*?[") != NULL || lrd_hub_pattern_matches(path, path));
    lrd_free(pattern);
    lrd_free(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_hub_mode_t mode;
    char *value = NULL;
    if (size < 1)
        return 0;
    lrd_log_set_level(LRD_LOG_ERROR);
    const char *text = (const char *)data + 1;
    const size_t n = size - 1;
    switch (data[0]) {
    case 'l':
        read_listing(text, n);
        break;
    case 's':
        read_shards(text, n);
        break;
    case 'u':
        read_upload(text, n);
        break;
    case 'm':
        (void)!lrd_hub_read_mode(text, n, "answer", "README.md", &mode);
        break;
    case 't':
        (void)!lrd_hub_read_text(text, n, "answer", "name", &value);
        lrd_free(value);
        break;
    case 'c':
        read_card(text, n);
        break;
    case 'g':
        match(text, n);
        break;
    default:
        read_name(text, n);
    }
    lrd_error_clear();
    return 0;
}
