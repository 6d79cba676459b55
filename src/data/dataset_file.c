#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/partial.h"
#include "base/version.h"
#include "data/dataset_store.h"
#include "data/h5_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "data sets are mapped as they are, in little-endian order"
#endif

/* Raise it when the file's layout changes, or when the same settings would give other tokens. */
enum { FORMAT_VERSION = 1 };
static const char format_name[] = "lora-dist tokenized data set";

/* Names of choices, as in the settings file. */
#define X(name, text) text,
static const char *const format_text[] = {LRD_FORMAT_LIST(X)};
static const char *const loss_on_text[] = {LRD_LOSS_ON_LIST(X)};
static const char *const too_long_text[] = {LRD_TOO_LONG_LIST(X)};
#undef X

/* What decides the content, as name and text; what the format does not look at is left empty. */
enum { N_FACTS = 10 };
typedef struct fact {
    const char *name;
    char text[LRD_SHA256_HEX]; /* used when value is NULL */
    const char *value;
} fact_t;

/* Of the source file; of several: of their hashes in a row. */
static lrd_status_t hash_source(const lrd_dataset_spec_t *spec, char hex_out[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    const lrd_names_t *files = spec->files;
    lrd_sha256_t *hash = NULL;
    char hex[LRD_SHA256_HEX];
    if (files == NULL || files->n == 1) {
        LRD_TRY(lrd_sha256_file(files != NULL ? files->name[0] : spec->path, hex_out));
        goto out;
    }
    LRD_TRY(lrd_sha256_begin(&hash));
    for (size_t i = 0; i < files->n; i++) {
        LRD_TRY(lrd_sha256_file(files->name[i], hex));
        LRD_TRY(lrd_sha256_add(hash, hex, strlen(hex)));
    }
    LRD_TRY(lrd_sha256_end(hash, hex_out));
out:
    lrd_sha256_free(hash);
    return status;
}

static lrd_status_t list_facts(const lrd_dataset_spec_t *spec, fact_t fact[N_FACTS])
{
    lrd_status_t status = LRD_OK;
    const lrd_data_settings_t *d = spec->settings;
    const bool squad = d->format == LRD_FORMAT_SQUAD, text = d->format != LRD_FORMAT_TOKENIZED;
    int i = 0;
#define FACT(n, v) fact[i++] = (fact_t){.name = (n), .value = (v)}
    FACT("format_version", NULL);
    snprintf(fact[0].text, sizeof fact[0].text, "%d", FORMAT_VERSION);
    FACT("source_sha256", NULL);
    LRD_TRY(hash_source(spec, fact[1].text));
    FACT("max_length", NULL);
    snprintf(fact[2].text, sizeof fact[2].text, "%" PRId64, (int64_t)d->max_length);
    FACT("vocab_size", NULL);
    snprintf(fact[3].text, sizeof fact[3].text, "%" PRId64, spec->vocab_size);
    FACT("tokenizer_sha256",
         text && spec->tokenizer != NULL ? lrd_tokenizer_sha256(spec->tokenizer) : "");
    FACT("data_format", format_text[d->format]);
    FACT("prompt_template", text && d->prompt_template != NULL ? d->prompt_template : "");
    FACT("no_answer_text", squad ? d->no_answer_text : "");
    FACT("loss_on", text ? loss_on_text[d->loss_on] : "");
    FACT("on_too_long", too_long_text[d->on_too_long]);
#undef FACT
    for (i = 0; i < N_FACTS; i++)
        if (fact[i].value == NULL)
            fact[i].value = fact[i].text;
out:
    return status;
}

static lrd_status_t make_key(const fact_t fact[N_FACTS], char key_out[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    lrd_buf_t buf = {0};
    for (int i = 0; i < N_FACTS; i++) /* with lengths, so that no two lists read the same */
        LRD_TRY(lrd_buf_printf(&buf, "%s %zu %s\n", fact[i].name, strlen(fact[i].value),
                               fact[i].value));
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, buf.data, buf.size));
    LRD_TRY(lrd_sha256_end(hash, key_out));
out:
    lrd_sha256_free(hash);
    lrd_buf_release(&buf);
    return status;
}

static lrd_status_t put_attributes(hid_t file, const char *path, const lrd_store_t *s,
                                   const fact_t fact[N_FACTS], const char *key)
{
    lrd_status_t status = LRD_OK;
    char text[LRD_SHA256_HEX];
    LRD_TRY(lrd_h5_put_text(file, path, "format", format_name));
    LRD_TRY(lrd_h5_put_text(file, path, "key", key));
    LRD_TRY(lrd_h5_put_text(file, path, "source_file", s->name));
    for (int i = 0; i < N_FACTS; i++)
        if (strcmp(fact[i].name, "vocab_size") != 0) /* among the counts */
            LRD_TRY(lrd_h5_put_text(file, path, fact[i].name, fact[i].value));
#define X(count) LRD_TRY(lrd_h5_put_int(file, path, #count, s->count));
    LRD_STORE_COUNTS(X)
#undef X
    LRD_TRY(lrd_store_hash(s, text));
    LRD_TRY(lrd_h5_put_text(file, path, "content_sha256", text));
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        text[0] = '\0';
    LRD_TRY(lrd_h5_put_text(file, path, "created", text));
    LRD_TRY(lrd_h5_put_text(file, path, "created_by", "lora-dist " LRD_VERSION));
out:
    return status;
}

/* The name of an array's element type in the file. */
#define FILE_TYPE(pointer) (sizeof *(pointer) == 4 ? H5T_STD_I32LE : H5T_STD_I64LE)

static lrd_status_t write_file(const lrd_store_t *s, const fact_t fact[N_FACTS], const char *key,
                               const char *temporary, const char *path)
{
    lrd_status_t status = LRD_OK;
    hid_t file = -1;
    LRD_TRY(lrd_h5_create(temporary, &file));
    LRD_TRY(put_attributes(file, temporary, s, fact, key));
#define X(array, type, n) \
    LRD_TRY(lrd_h5_put_array(file, temporary, #array, FILE_TYPE(s->array), (size_t)(n), s->array));
    LRD_STORE_ARRAYS(X)
#undef X
    LRD_TRY(lrd_h5_close(&file, temporary));
    LRD_TRY(lrd_file_publish(temporary, path));
out:
    if (file >= 0)
        H5Fclose(file);
    if (status != LRD_OK)
        unlink(temporary);
    return status;
}

/* Points one array of the store into the mapped file. */
static lrd_status_t map_array(lrd_store_t *s, hid_t file, const char *path, const char *name,
                              size_t element, int64_t n, const void **array_out)
{
    lrd_status_t status = LRD_OK;
    uint64_t offset = 0, bytes = 0;
    LRD_CHECK(n >= 0 && !__builtin_mul_overflow((uint64_t)n, element, &bytes) &&
                  bytes <= s->map.size,
              LRD_ERR_FORMAT, "%s: %" PRId64 " elements of %s do not fit into a file of %zu bytes",
              path, n, name, s->map.size);
    LRD_TRY(lrd_h5_find_array(file, path, name, element == 4 ? H5T_STD_I32LE : H5T_STD_I64LE,
                              (size_t)n, &offset));
    LRD_CHECK(offset <= s->map.size - bytes && offset % element == 0, LRD_ERR_FORMAT,
              "%s: the array %s lies outside the file", path, name);
    *array_out = s->map.data + offset;
out:
    return status;
}

static lrd_status_t map_arrays(lrd_store_t *s, hid_t file, const char *path)
{
    lrd_status_t status = LRD_OK;
    const void *at = NULL;
    LRD_CHECK(s->n_records >= 0 && s->n_records < INT32_MAX, LRD_ERR_FORMAT,
              "%s: %" PRId64 " records", path, s->n_records);
#define X(array, type, n)                                              \
    LRD_TRY(map_array(s, file, path, #array, sizeof(type), (n), &at)); \
    s->array = (type *)at;
    LRD_STORE_ARRAYS(X)
#undef X
out:
    return status;
}

static lrd_status_t expect_text(hid_t file, const char *path, const char *name,
                                const char *expected)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_h5_get_text(file, path, name, &text));
    LRD_CHECK(strcmp(text.data, expected) == 0, LRD_ERR_FORMAT,
              "%s: the attribute %s is \"%.80s\", expected \"%.80s\"", path, name, text.data,
              expected);
out:
    lrd_buf_release(&text);
    return status;
}

static lrd_status_t read_counts(lrd_store_t *s, hid_t file, const char *path)
{
    lrd_status_t status = LRD_OK;
#define X(count) LRD_TRY(lrd_h5_get_int(file, path, #count, &s->count));
    LRD_STORE_COUNTS(X)
#undef X
    LRD_CHECK(s->n_groups >= 1 && s->n_groups <= INT32_MAX && s->vocab_size >= 1 &&
                  s->n_dropped >= 0 && s->n_source_records - s->n_dropped == s->n_records,
              LRD_ERR_FORMAT, "%s: its counts do not fit together", path);
out:
    return status;
}

/* Opens a file as a store. With a key, the file must be the one of this key and its content is
 * checked to the last bit; without, what the tokens are is not looked at. */
static lrd_status_t open_store(const char *path, const char *key, lrd_store_t **store_out)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *s = NULL;
    lrd_buf_t source = {0};
    hid_t file = -1;
    char version[16], hash[LRD_SHA256_HEX];
    LRD_TRY(lrd_store_create(path, &s));
    LRD_TRY(lrd_file_map(path, &s->map));
    LRD_CHECK(s->map.data != NULL, LRD_ERR_FORMAT, "%s is empty", path);
    LRD_TRY(lrd_h5_open(path, &file));
    LRD_TRY(expect_text(file, path, "format", format_name));
    snprintf(version, sizeof version, "%d", FORMAT_VERSION);
    LRD_TRY(expect_text(file, path, "format_version", version));
    LRD_TRY(read_counts(s, file, path));
    LRD_TRY(map_arrays(s, file, path));
    LRD_TRY(lrd_store_finish(s));
    if (key != NULL) {
        LRD_TRY(expect_text(file, path, "key", key));
        LRD_TRY(lrd_store_hash(s, hash));
        LRD_TRY(expect_text(file, path, "content_sha256", hash));
    }
    LRD_TRY(lrd_h5_get_text(file, path, "source_file", &source));
    lrd_free(s->name);
    s->name = source.data;
    source = (lrd_buf_t){0};
    *store_out = s;
    s = NULL;
out:
    if (file >= 0)
        H5Fclose(file);
    lrd_buf_release(&source);
    lrd_store_release(s);
    return status;
}

lrd_status_t lrd_dataset_open(const char *path, lrd_dataset_t **set_out)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *store = NULL;
    LRD_TRY(open_store(path, NULL, &store));
    LRD_TRY(lrd_dataset_of_store(store, set_out));
out:
    return status;
}

/* The file of this key if there is a good one, else *store_out = NULL; a damaged one is removed. */
static lrd_status_t reuse(const char *path, const char *key, lrd_store_t **store_out)
{
    lrd_status_t status = LRD_OK;
    *store_out = NULL;
    if (!lrd_file_exists(path))
        goto out;
    status = open_store(path, key, store_out);
    if (status != LRD_ERR_FORMAT)
        goto out;
    lrd_warn("the tokenized data set %s is damaged (%s); it is removed and built anew", path,
             lrd_error_text(status));
    lrd_error_clear();
    status = LRD_OK;
    LRD_CHECK(unlink(path) == 0 || errno == ENOENT, LRD_ERR_IO, "cannot remove %s: %s", path,
              strerror(errno));
out:
    return status;
}

static void report(const lrd_store_t *s, const char *path, bool reused)
{
    lrd_info("%s: %" PRId64 " records, %" PRId64 " tokens, %" PRId64 " targets (%s %s)", s->name,
             s->n_records, s->n_tokens, s->n_targets,
             reused ? "tokenized before, in" : "tokenized to", path);
    if (s->n_dropped > 0)
        lrd_warn("%s: %" PRId64 " of %" PRId64
                 " records are longer than data.max_length and were left out",
                 s->name, s->n_dropped, s->n_source_records);
    if (s->n_truncated > 0)
        lrd_warn("%s: %" PRId64 " of %" PRId64
                 " records were longer than data.max_length; their contexts were cut",
                 s->name, s->n_truncated, s->n_source_records);
    if (s->n_straddled > 0)
        lrd_warn(
            "%s: in %" PRId64 " of %" PRId64
            " records the answer's first token begins before the answer, with the end of the "
            "prompt, and does not count in the loss; end the template's prompt with a line break",
            s->name, s->n_straddled, s->n_records);
}

lrd_status_t lrd_dataset_build(const lrd_dataset_spec_t *spec, const char *cache_dir,
                               char **path_out)
{
    lrd_status_t status = LRD_OK;
    fact_t fact[N_FACTS];
    char key[LRD_SHA256_HEX], name[LRD_SHA256_HEX + 8];
    char *path = NULL, *temporary = NULL;
    lrd_store_t *store = NULL;
    LRD_TRY(list_facts(spec, fact));
    LRD_TRY(make_key(fact, key));
    snprintf(name, sizeof name, "%s.h5", key);
    LRD_ALLOC(path, lrd_path_join(cache_dir, name));
    LRD_TRY(lrd_folder_make(cache_dir));
    lrd_partial_tidy_folder(cache_dir);
    LRD_TRY(reuse(path, key, &store));
    const bool reused = store != NULL;
    if (!reused) {
        LRD_TRY(lrd_partial_name(path, &temporary));
        LRD_TRY(lrd_store_build(spec, &store));
        LRD_TRY(write_file(store, fact, key, temporary, path));
    }
    report(store, path, reused);
    *path_out = path;
    path = NULL;
out:
    lrd_store_release(store);
    lrd_free(temporary);
    lrd_free(path);
    return status;
}
