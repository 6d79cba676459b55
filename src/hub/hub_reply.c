#include "hub/hub_reply.h"

#include "base/json.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 10000 };

static bool is_hex(const char *text, size_t n)
{
    return strlen(text) == n && strspn(text, "0123456789abcdef") == n;
}

static lrd_status_t read_object(const char *text, size_t bytes, const char *name, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    LRD_TRY(lrd_json_parse(text, bytes, name, &json));
    LRD_CHECK(json_is_object(json), LRD_ERR_FORMAT, "%s: expected an object, found %s", name,
              lrd_json_type_name(json));
    *json_out = json;
    json = NULL;
out:
    json_decref(json);
    return status;
}

static lrd_status_t read_file(const json_t *sibling, const char *name, lrd_hub_file_t *file)
{
    lrd_status_t status = LRD_OK;
    const char *path, *blob;
    LRD_CHECK(json_is_object(sibling), LRD_ERR_FORMAT, "%s: a file is %s, expected an object", name,
              lrd_json_type_name(sibling));
    LRD_TRY(lrd_json_get_text(sibling, name, "rfilename", NULL, &path));
    LRD_TRY(lrd_json_get_text(sibling, name, "blobId", "", &blob));
    LRD_TRY(lrd_json_get_int(sibling, name, "size", -1, 0, INT64_MAX, &file->size));
    LRD_CHECK(path != NULL && lrd_hub_is_safe_path(path), LRD_ERR_FORMAT,
              "%s: a file is called \"%.100s\", which is no name to write to", name,
              path != NULL ? path : "");
    if (is_hex(blob, LRD_GIT_BLOB_HEX - 1))
        memcpy(file->git_blob, blob, LRD_GIT_BLOB_HEX);
    LRD_ALLOC(file->path, lrd_strdup(path));
out:
    return status;
}

lrd_status_t lrd_hub_read_listing(const char *text, size_t bytes, const char *name,
                                  lrd_hub_listing_t *listing_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_listing_t x = {.n = 0};
    json_t *json = NULL;
    const char *commit;
    LRD_TRY(read_object(text, bytes, name, &json));
    LRD_TRY(lrd_json_get_text(json, name, "sha", NULL, &commit));
    LRD_CHECK(commit != NULL && lrd_hub_is_commit(commit), LRD_ERR_FORMAT,
              "%s: \"sha\" is not a commit", name);
    memcpy(x.commit, commit, sizeof x.commit);
    const json_t *files = json_object_get(json, "siblings");
    LRD_CHECK(json_is_array(files), LRD_ERR_FORMAT, "%s: \"siblings\" is not a list of files",
              name);
    LRD_NEW(x.file, json_array_size(files) + 1);
    for (size_t i = 0; i < json_array_size(files); i++)
        LRD_TRY(read_file(json_array_get(files, i), name, &x.file[x.n++]));
    *listing_out = x;
    x = (lrd_hub_listing_t){.n = 0};
out:
    lrd_hub_listing_release(&x);
    json_decref(json);
    return status;
}

void lrd_hub_listing_release(lrd_hub_listing_t *listing)
{
    for (size_t i = 0; i < listing->n; i++)
        lrd_free(listing->file[i].path);
    lrd_free(listing->file);
    *listing = (lrd_hub_listing_t){.n = 0};
}

const lrd_hub_file_t *lrd_hub_listing_find(const lrd_hub_listing_t *listing, const char *path)
{
    for (size_t i = 0; i < listing->n; i++) {
        if (strcmp(listing->file[i].path, path) == 0)
            return &listing->file[i];
    }
    return NULL;
}

static bool has_shard(const lrd_hub_shards_t *shards, const char *name)
{
    for (size_t i = 0; i < shards->n; i++) {
        if (strcmp(shards->name[i], name) == 0)
            return true;
    }
    return false;
}

lrd_status_t lrd_hub_read_shards(const char *text, size_t bytes, const char *name,
                                 lrd_hub_shards_t *shards_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_shards_t x = {.n = 0};
    size_t capacity = 0;
    json_t *json = NULL, *value;
    const char *tensor;
    LRD_TRY(read_object(text, bytes, name, &json));
    json_t *map = json_object_get(json, "weight_map");
    LRD_CHECK(json_is_object(map) && json_object_size(map) > 0, LRD_ERR_FORMAT,
              "%s: \"weight_map\" is not a map of tensor names to files", name);
    json_object_foreach(map, tensor, value)
    {
        const char *shard = json_string_value(value);
        LRD_CHECK(shard != NULL && strlen(shard) == json_string_length(value) &&
                      lrd_hub_is_safe_path(shard) && strchr(shard, '/') == NULL,
                  LRD_ERR_FORMAT,
                  "%s: the file of \"%.80s\" is \"%.80s\", which is not a file's name", name,
                  tensor, shard != NULL ? shard : "");
        if (has_shard(&x, shard))
            continue;
        LRD_GROW(x.name, x.n, capacity);
        LRD_ALLOC(x.name[x.n], lrd_strdup(shard));
        x.n++;
    }
    *shards_out = x;
    x = (lrd_hub_shards_t){.n = 0};
out:
    lrd_hub_shards_release(&x);
    json_decref(json);
    return status;
}

void lrd_hub_shards_release(lrd_hub_shards_t *shards)
{
    for (size_t i = 0; i < shards->n; i++)
        lrd_free(shards->name[i]);
    lrd_free(shards->name);
    *shards = (lrd_hub_shards_t){.n = 0};
}

/* The entry of a list whose member `key` is this text; NULL: there is none. */
static const json_t *find_entry(const json_t *list, const char *key, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *value = json_string_value(json_object_get(json_array_get(list, i), key));
        if (value != NULL && strcmp(value, text) == 0)
            return json_array_get(list, i);
    }
    return NULL;
}

lrd_status_t lrd_hub_read_mode(const char *text, size_t bytes, const char *name, const char *path,
                               lrd_hub_mode_t *mode_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    const char *mode, *oid;
    lrd_hub_mode_t m = {.lfs = false};
    LRD_TRY(read_object(text, bytes, name, &json));
    const json_t *file = find_entry(json_object_get(json, "files"), "path", path);
    LRD_CHECK(file != NULL, LRD_ERR_FORMAT, "%s: nothing is said of %s", name, path);
    LRD_TRY(lrd_json_get_text(file, name, "uploadMode", "", &mode));
    LRD_TRY(lrd_json_get_text(file, name, "oid", "", &oid));
    LRD_TRY(lrd_json_get_bool(file, name, "shouldIgnore", false, &m.ignored));
    m.lfs = strcmp(mode, "lfs") == 0;
    LRD_CHECK(m.lfs || strcmp(mode, "regular") == 0, LRD_ERR_FORMAT,
              "%s: \"uploadMode\" of %s is \"%.40s\", expected \"lfs\" or \"regular\"", name, path,
              mode);
    if (is_hex(oid, LRD_SHA256_HEX - 1) || is_hex(oid, LRD_GIT_BLOB_HEX - 1))
        snprintf(m.oid, sizeof m.oid, "%s", oid);
    *mode_out = m;
out:
    json_decref(json);
    return status;
}

/* An address, which is checked where it is used. */
static lrd_status_t take_href(const json_t *action, const char *name, char **href_out)
{
    lrd_status_t status = LRD_OK;
    const char *href;
    LRD_CHECK(json_is_object(action), LRD_ERR_FORMAT, "%s: an action is %s, expected an object",
              name, lrd_json_type_name(action));
    LRD_TRY(lrd_json_get_text(action, name, "href", NULL, &href));
    LRD_CHECK(href != NULL, LRD_ERR_FORMAT, "%s: an action has no \"href\"", name);
    LRD_ALLOC(*href_out, lrd_strdup(href));
out:
    return status;
}

/* "chunk_size" is a number, or one as a text. */
static lrd_status_t read_part_bytes(const json_t *header, const char *name, int64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(header, "chunk_size");
    const char *text = json_string_value(value);
    int64_t bytes = json_is_integer(value) ? json_integer_value(value) : 0;
    *bytes_out = 0;
    if (value == NULL || json_is_null(value))
        goto out;
    if (text != NULL && text[0] != '\0' && strlen(text) < 19 &&
        strspn(text, "0123456789") == strlen(text))
        bytes = strtoll(text, NULL, 10);
    LRD_CHECK(bytes > 0, LRD_ERR_FORMAT, "%s: \"chunk_size\" is not a number of bytes", name);
    *bytes_out = bytes;
out:
    return status;
}

/* The addresses of the parts: members "1", "2" ... or "00001" ... in the order of their numbers. */
static lrd_status_t read_parts(json_t *header, const char *name, int64_t size, lrd_hub_upload_t *u)
{
    lrd_status_t status = LRD_OK;
    const char *key;
    json_t *value;
    const int64_t n = (size - 1) / u->part_bytes + 1;
    LRD_CHECK(n <= MAX_PARTS, LRD_ERR_FORMAT, "%s: more than %d parts", name, MAX_PARTS);
    LRD_NEW(u->part, n);
    u->n_parts = (size_t)n;
    size_t n_found = 0;
    json_object_foreach(header, key, value)
    {
        if (key[0] == '\0' || strlen(key) > 9 || strspn(key, "0123456789") != strlen(key))
            continue;
        const long number = strtol(key, NULL, 10);
        const char *href = json_string_value(value);
        LRD_CHECK(number >= 1 && number <= n && href != NULL && u->part[number - 1] == NULL,
                  LRD_ERR_FORMAT, "%s: part \"%s\" is not one of the %" PRId64 " that the file has",
                  name, key, n);
        LRD_ALLOC(u->part[number - 1], lrd_strdup(href));
        n_found++;
    }
    LRD_CHECK(n_found == u->n_parts, LRD_ERR_FORMAT,
              "%s: addresses of %zu parts, and the file has %zu", name, n_found, u->n_parts);
out:
    return status;
}

lrd_status_t lrd_hub_read_upload(const char *text, size_t bytes, const char *name, const char *oid,
                                 int64_t size, lrd_hub_upload_t *upload_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_upload_t u = {.href = NULL};
    json_t *json = NULL;
    const char *refusal;
    LRD_TRY(read_object(text, bytes, name, &json));
    const json_t *object = find_entry(json_object_get(json, "objects"), "oid", oid);
    LRD_CHECK(object != NULL, LRD_ERR_FORMAT, "%s: nothing is said of the object %s", name, oid);
    const json_t *error = json_object_get(object, "error");
    if (json_is_object(error)) {
        LRD_TRY(lrd_json_get_text(error, name, "message", "it does not say why", &refusal));
        LRD_ALLOC(u.refusal, lrd_strdup(refusal));
    }
    const json_t *actions = json_object_get(object, "actions");
    const json_t *upload = json_object_get(actions, "upload");
    const json_t *verify = json_object_get(actions, "verify");
    if (upload != NULL) {
        json_t *header = json_object_get(upload, "header");
        LRD_TRY(take_href(upload, name, &u.href));
        LRD_TRY(read_part_bytes(header, name, &u.part_bytes));
        if (u.part_bytes > 0)
            LRD_TRY(read_parts(header, name, size, &u));
        if (verify != NULL)
            LRD_TRY(take_href(verify, name, &u.verify));
    }
    *upload_out = u;
    u = (lrd_hub_upload_t){.href = NULL};
out:
    lrd_hub_upload_release(&u);
    json_decref(json);
    return status;
}

void lrd_hub_upload_release(lrd_hub_upload_t *upload)
{
    for (size_t i = 0; i < upload->n_parts; i++)
        lrd_free(upload->part[i]);
    lrd_free(upload->part);
    lrd_free(upload->refusal);
    lrd_free(upload->verify);
    lrd_free(upload->href);
    *upload = (lrd_hub_upload_t){.href = NULL};
}

lrd_status_t lrd_hub_read_text(const char *text, size_t bytes, const char *name, const char *key,
                               char **value_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    const char *value;
    LRD_TRY(read_object(text, bytes, name, &json));
    LRD_TRY(lrd_json_get_text(json, name, key, NULL, &value));
    LRD_CHECK(value != NULL && value[0] != '\0', LRD_ERR_FORMAT, "%s: \"%s\" is missing", name,
              key);
    for (const char *at = value; *at != '\0'; at++)
        LRD_CHECK(*at > ' ' && *at < 0x7f, LRD_ERR_FORMAT, "%s: \"%s\" is not what it should be",
                  name, key);
    LRD_ALLOC(*value_out, lrd_strdup(value));
out:
    json_decref(json);
    return status;
}
