#include "hub/hub_card.h"
#include "hub/hub_fetch.h"
#include "hub/hub_split.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_INDEX_BYTES = 64 << 20, MIB = 1 << 20 };

static const char index_name[] = "model.safetensors.index.json";

/* Beside the weights: what is read here, and what transformers reads of the same repository. */
static const char *const model_files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                          "tokenizer_config.json", "special_tokens_map.json"};

typedef struct search {
    lrd_hub_t *hub;
    const char *repo, *revision;
    const lrd_hub_data_name_t *data; /* of LRD_HUB_SPLIT; else NULL */
    lrd_hub_kind_t kind;
    lrd_hub_cache_t cache;
    lrd_hub_listing_t listing;
    char *snapshot; /* of listing.commit */
    bool wants_model, wants_weights, wants_adapter;
    lrd_names_t files; /* of the split */
} search_t;

static lrd_status_t list_files(search_t *s, int attempts)
{
    lrd_status_t status = LRD_OK;
    char *before = NULL, *url = NULL;
    lrd_http_reply_t reply = {.code = 0};
    LRD_ALLOC(before, lrd_asprintf("/api/%s/%s/revision/", s->data != NULL ? "datasets" : "models",
                                   s->repo));
    LRD_TRY(lrd_hub_url(s->hub, before, s->revision, "?blobs=true", &url));
    LRD_TRY(lrd_http_send(s->hub->http,
                          &(lrd_http_request_t){.method = "GET", .url = url, .attempts = attempts},
                          &reply));
    if (reply.code != 200)
        LRD_TRY(lrd_hub_refuse(s->hub, &reply, s->repo, s->revision, NULL));
    LRD_TRY(lrd_hub_read_listing(reply.body.data != NULL ? reply.body.data : "", reply.body.size,
                                 url, &s->listing));
    LRD_CHECK(!lrd_hub_is_commit(s->revision) || strcmp(s->revision, s->listing.commit) == 0,
              LRD_ERR_FORMAT, "%s: the server answers with another commit, %s", url,
              s->listing.commit);
out:
    lrd_http_reply_release(&reply);
    lrd_free(url);
    lrd_free(before);
    return status;
}

static bool lists(const search_t *s, const char *path)
{
    return lrd_hub_listing_find(&s->listing, path) != NULL;
}

/* A repository whose weights are pickled, or that has none. */
static lrd_status_t refuse_weights(const search_t *s, const char *pickled, const char *safe)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < s->listing.n; i++) {
        const char *path = s->listing.file[i].path;
        const size_t n = strlen(path);
        LRD_CHECK(n < 4 || strncmp(path, pickled, strlen(pickled)) != 0 ||
                      strcmp(path + n - 4, ".bin") != 0,
                  LRD_ERR_UNSUPPORTED,
                  "%s has pickled weights only (%.80s), which can run any program when they are "
                  "read; %s is what is used. Another revision may have it, or convert it once in "
                  "Python: from_pretrained(\"%s\").save_pretrained(NEW_FOLDER)",
                  s->repo, path, safe, s->repo);
    }
    LRD_FAIL(LRD_ERR_IO, "%s has no weights: %s is not there", s->repo, safe);
out:
    return status;
}

/* What of the repository is wanted, if it is there. */
static lrd_status_t choose(search_t *s)
{
    lrd_status_t status = LRD_OK;
    const bool is_model = lists(s, "config.json"), is_adapter = lists(s, "adapter_config.json");
    const bool has_adapter = is_adapter && lists(s, "adapter_model.safetensors");
    const bool has_weights = lists(s, "model.safetensors") || lists(s, index_name);
    s->wants_adapter = s->kind == LRD_HUB_ADAPTER || (s->kind == LRD_HUB_EITHER && is_adapter);
    s->wants_model = s->kind != LRD_HUB_ADAPTER && (is_model || !s->wants_adapter);
    s->wants_weights =
        s->wants_model && s->kind != LRD_HUB_MODEL_OUTLINE && (has_weights || !s->wants_adapter);
    LRD_CHECK(!s->wants_adapter || is_adapter, LRD_ERR_IO,
              "%s has no adapter_config.json: it is no adapter of PEFT%s", s->repo,
              is_model ? ", but a model" : "");
    LRD_CHECK(!s->wants_model || is_model, LRD_ERR_IO, "%s has no config.json: it is no model%s",
              s->repo, is_adapter ? ", but an adapter of one" : "");
    if (s->wants_adapter && !has_adapter)
        LRD_TRY(refuse_weights(s, "adapter_model", "adapter_model.safetensors"));
    if (s->wants_weights && !has_weights)
        LRD_TRY(refuse_weights(s, "pytorch_model", "model.safetensors"));
out:
    return status;
}

static lrd_status_t fetch_named(lrd_hub_fetch_t *f, const search_t *s, const char *path)
{
    const lrd_hub_file_t *file = lrd_hub_listing_find(&s->listing, path);
    return file != NULL ? lrd_hub_fetch(f, file) : LRD_OK;
}

/* The files that hold the weights: one, or those of the index, which is here. */
static lrd_status_t find_weights(const search_t *s, lrd_hub_shards_t *shards_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_shards_t x = {.n = 0};
    lrd_buf_t text = {0};
    char *path = NULL;
    if (lists(s, "model.safetensors")) {
        LRD_NEW(x.name, 1);
        LRD_ALLOC(x.name[0], lrd_strdup("model.safetensors"));
        x.n = 1;
    } else {
        LRD_ALLOC(path, lrd_path_join(s->snapshot, index_name));
        LRD_TRY(lrd_file_read(path, MAX_INDEX_BYTES, &text));
        LRD_TRY(lrd_hub_read_shards(text.data != NULL ? text.data : "", text.size, path, &x));
    }
    for (size_t i = 0; i < x.n; i++)
        LRD_CHECK(lists(s, x.name[i]), LRD_ERR_FORMAT,
                  "%s: %s names %.100s, which is not in the repository", s->repo, index_name,
                  x.name[i]);
    *shards_out = x;
    x = (lrd_hub_shards_t){.n = 0};
out:
    lrd_hub_shards_release(&x);
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}

/* Bytes of those that are not here yet. */
static lrd_status_t count_missing(const search_t *s, const lrd_names_t *files, int64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    int64_t bytes = 0;
    for (size_t i = 0; i < files->n; i++) {
        const int64_t size = lrd_hub_listing_find(&s->listing, files->name[i])->size;
        LRD_ALLOC(path, lrd_path_join(s->snapshot, files->name[i]));
        if (!lrd_file_exists(path) && size > 0 && bytes <= INT64_MAX - size)
            bytes += size;
        lrd_free(path);
        path = NULL;
    }
    *bytes_out = bytes;
out:
    lrd_free(path);
    return status;
}

/* Large files, with a progress bar. */
static lrd_status_t fetch_many(lrd_hub_fetch_t *f, const search_t *s, const lrd_names_t *files)
{
    lrd_status_t status = LRD_OK;
    int64_t bytes = 0;
    LRD_TRY(count_missing(s, files, &bytes));
    f->done = 0;
    if (bytes >= MIB)
        lrd_progress_begin(&f->progress, "Downloading", "MiB", 0, bytes / MIB);
    for (size_t i = 0; i < files->n; i++)
        LRD_TRY(fetch_named(f, s, files->name[i]));
    if (f->progress.total > 0)
        lrd_progress_end(&f->progress, f->done / MIB);
out:
    if (status != LRD_OK)
        lrd_log_status_line(NULL);
    return status;
}

static lrd_status_t fetch_weights(lrd_hub_fetch_t *f, const search_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_shards_t shards = {.n = 0};
    if (!lists(s, "model.safetensors"))
        LRD_TRY(fetch_named(f, s, index_name));
    LRD_TRY(find_weights(s, &shards));
    LRD_TRY(fetch_many(f, s, &(lrd_names_t){shards.name, shards.n}));
out:
    lrd_hub_shards_release(&shards);
    return status;
}

/* The split's files, of all `path` of the snapshot or the listing. What stands in the snapshot without a README.md may be
 * incomplete: it would say which files they are. */
static lrd_status_t find_split(const search_t *s, const char *snapshot, const lrd_names_t *path,
                               lrd_names_t *files_out, bool *complete_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_card_t card = {.n = 0};
    lrd_buf_t text = {0};
    char *readme = NULL;
    LRD_ALLOC(readme, lrd_path_join(snapshot, "README.md"));
    if (lrd_file_exists(readme)) {
        LRD_TRY(lrd_file_read(readme, MAX_INDEX_BYTES, &text));
        LRD_TRY(lrd_hub_card_read(text.data != NULL ? text.data : "", text.size, readme, &card));
    }
    LRD_TRY(lrd_hub_split_find(&card, path, s->data, files_out, complete_out));
    *complete_out &= lrd_file_exists(readme);
out:
    lrd_hub_card_release(&card);
    lrd_buf_release(&text);
    lrd_free(readme);
    return status;
}

/* The names of the listing; borrowed from it, the array is the caller's. */
static lrd_status_t list_paths(const search_t *s, lrd_names_t *paths_out)
{
    lrd_status_t status = LRD_OK;
    LRD_NEW(paths_out->name, s->listing.n + 1);
    paths_out->n = s->listing.n;
    for (size_t i = 0; i < s->listing.n; i++)
        paths_out->name[i] = s->listing.file[i].path;
out:
    return status;
}

static lrd_status_t fetch_split(lrd_hub_fetch_t *f, search_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t paths = {0};
    bool complete = false;
    LRD_TRY(fetch_named(f, s, "README.md"));
    LRD_TRY(list_paths(s, &paths));
    LRD_TRY(find_split(s, s->snapshot, &paths, &s->files, &complete));
    LRD_TRY(fetch_many(f, s, &s->files));
out:
    lrd_free(paths.name);
    return status;
}

static lrd_status_t fetch_all(search_t *s)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_fetch_t f = {.hub = s->hub,
                         .cache = &s->cache,
                         .repo = s->repo,
                         .commit = s->listing.commit,
                         .is_data = s->data != NULL,
                         .snapshot = s->snapshot};
    for (size_t i = 0; s->wants_model && i < sizeof model_files / sizeof model_files[0]; i++)
        LRD_TRY(fetch_named(&f, s, model_files[i]));
    if (s->wants_adapter) {
        LRD_TRY(fetch_named(&f, s, "adapter_config.json"));
        LRD_TRY(fetch_named(&f, s, "adapter_model.safetensors"));
    }
    if (s->wants_weights)
        LRD_TRY(fetch_weights(&f, s));
    if (s->data != NULL)
        LRD_TRY(fetch_split(&f, s));
out:
    return status;
}

/* Whether a snapshot has the split. Where its files are not numbered, others may not have been fetched: `sure` does not
 * take that. */
static lrd_status_t holds_split(const search_t *s, const char *folder, bool sure, bool *holds_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t paths = {0}, files = {0};
    bool complete = false;
    LRD_TRY(lrd_hub_cache_list(folder, &paths));
    status = find_split(s, folder, &paths, &files, &complete);
    *holds_out = status == LRD_OK && (complete || !sure);
    if (status == LRD_ERR_NO_MEMORY)
        goto out;
    if (status != LRD_OK)
        lrd_error_clear(); /* what is here is not all that the server has */
    status = LRD_OK;
out:
    lrd_names_free(&paths);
    lrd_names_free(&files);
    return status;
}

/* A snapshot that is here and has what is wanted; *folder_out stays NULL: there is none. `sure`: only one that needs
 * no look at the server, because its revision never changes and nothing of it is missing. */
static lrd_status_t find_here(const search_t *s, bool sure, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    char commit[LRD_HUB_COMMIT_HEX] = "", *folder = NULL, *tokenizer = NULL;
    bool holds = false;
    if (lrd_hub_is_commit(s->revision))
        memcpy(commit, s->revision, sizeof commit);
    else if (!sure)
        LRD_TRY(lrd_hub_cache_read_ref(&s->cache, s->revision, commit));
    if (commit[0] == '\0')
        goto out;
    LRD_TRY(lrd_hub_cache_snapshot(&s->cache, commit, &folder));
    if (s->data != NULL)
        LRD_TRY(holds_split(s, folder, sure, &holds));
    else
        LRD_TRY(lrd_hub_cache_holds(folder, s->kind, &holds));
    LRD_ALLOC(tokenizer, lrd_path_join(folder, "tokenizer.json"));
    if (holds &&
        (!sure || s->kind == LRD_HUB_ADAPTER || s->data != NULL || lrd_file_exists(tokenizer))) {
        *folder_out = folder;
        folder = NULL;
    }
out:
    lrd_free(tokenizer);
    lrd_free(folder);
    return status;
}

static lrd_status_t download(search_t *s, int attempts, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(list_files(s, attempts));
    if (s->data == NULL)
        LRD_TRY(choose(s));
    LRD_TRY(lrd_hub_cache_snapshot(&s->cache, s->listing.commit, &s->snapshot));
    LRD_TRY(fetch_all(s));
    if (lrd_hub_cache_write_ref(&s->cache, s->revision, s->listing.commit) != LRD_OK)
        lrd_error_clear(); /* a cache that others keep, and all of it is here */
    *folder_out = s->snapshot;
    s->snapshot = NULL;
out:
    return status;
}

/* Adds to the recorded cause what can be done without a network. */
static lrd_status_t advise(const search_t *s)
{
    char why[800];
    snprintf(why, sizeof why, "%s", lrd_error_text(LRD_ERR_NETWORK));
    lrd_error_clear();
    return lrd_fail(LRD_ERR_NETWORK, __FILE__, __LINE__,
                    "%s. Where there is no network, copy %s's folder in the cache (%s) from a "
                    "machine that has one: lora-dist download %s",
                    why, s->repo, s->hub->config.cache, s->repo);
}

/* What is here does, where the server cannot be asked or does not answer. */
static lrd_status_t find(search_t *s, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    char *here = NULL;
    LRD_TRY(find_here(s, true, folder_out));
    if (*folder_out != NULL)
        goto out;
    LRD_TRY(find_here(s, false, &here));
    LRD_CHECK(here != NULL || !s->hub->config.offline, LRD_ERR_IO,
              "%s@%s is not in %s, or not all of it, and HF_HUB_OFFLINE forbids to ask for it",
              s->repo, s->revision, s->hub->config.cache);
    if (!s->hub->config.offline)
        status = download(s, here != NULL ? 1 : LRD_HUB_FIRST_ATTEMPTS, folder_out);
    const bool unanswered = s->listing.commit[0] == '\0';
    if (here != NULL && unanswered && (status == LRD_ERR_NETWORK || status == LRD_ERR_IO)) {
        lrd_warn("%s. Using what is here of %s: commit %s", lrd_error_text(status), s->repo,
                 lrd_hub_commit_of(here));
        lrd_error_clear();
        status = LRD_OK;
    }
    LRD_TRY(status == LRD_ERR_NETWORK ? advise(s) : status);
    if (*folder_out == NULL) {
        *folder_out = here;
        here = NULL;
    }
out:
    lrd_free(here);
    return status;
}

static void release(search_t *s)
{
    lrd_free(s->snapshot);
    lrd_names_free(&s->files);
    lrd_hub_listing_release(&s->listing);
    lrd_hub_cache_release(&s->cache);
}

static search_t search_for(lrd_hub_t *hub, const lrd_hub_name_t *name, lrd_hub_kind_t kind)
{
    return (search_t){.hub = hub,
                      .repo = name->repo,
                      .revision = name->revision[0] != '\0' ? name->revision : "main",
                      .kind = kind};
}

lrd_status_t lrd_hub_find(lrd_hub_t *hub, const lrd_hub_name_t *name, lrd_hub_kind_t kind,
                          char **folder_out)
{
    lrd_status_t status = LRD_OK;
    search_t s = search_for(hub, name, kind);
    char *folder = NULL;
    LRD_TRY(lrd_hub_cache_open(hub->config.cache, name, &s.cache));
    LRD_TRY(find(&s, &folder));
    lrd_info("%s@%s: commit %s, in %s", s.repo, s.revision, lrd_hub_commit_of(folder), folder);
    *folder_out = folder;
out:
    release(&s);
    return status;
}

lrd_status_t lrd_hub_find_here(lrd_hub_t *hub, const lrd_hub_name_t *name, lrd_hub_kind_t kind,
                               char **folder_out)
{
    lrd_status_t status = LRD_OK;
    search_t s = search_for(hub, name, kind);
    LRD_TRY(lrd_hub_cache_open(hub->config.cache, name, &s.cache));
    LRD_TRY(find_here(&s, false, folder_out));
out:
    release(&s);
    return status;
}

/* Of the search's result: where it was not downloaded now, of what is here. Absolute from now on. */
static lrd_status_t take_files(search_t *s, const char *folder, bool here, lrd_names_t *files_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t paths = {0};
    bool complete = true;
    if (s->files.n == 0) {
        LRD_TRY(lrd_hub_cache_list(folder, &paths));
        LRD_TRY(find_split(s, folder, &paths, &s->files, &complete));
    }
    if (!complete && !here)
        lrd_warn(
            "%s: whether the split %s has more files than the %zu that are here only the server "
            "knows",
            s->repo, s->data->split, s->files.n);
    for (size_t i = 0; i < s->files.n; i++) {
        char *path;
        LRD_ALLOC(path, lrd_path_join(folder, s->files.name[i]));
        lrd_free(s->files.name[i]);
        s->files.name[i] = path;
    }
    *files_out = s->files;
    s->files = (lrd_names_t){0};
out:
    lrd_names_free(&paths);
    return status;
}

lrd_status_t lrd_hub_find_data(lrd_hub_t *hub, const lrd_hub_data_name_t *name, bool here,
                               char **folder_out, lrd_names_t *files_out)
{
    lrd_status_t status = LRD_OK;
    search_t s = search_for(hub, &name->repo, LRD_HUB_SPLIT);
    char *folder = NULL;
    s.data = name;
    LRD_TRY(lrd_hub_cache_open(hub->config.cache, &name->repo, &s.cache));
    if (here)
        LRD_TRY(find_here(&s, false, &folder));
    else
        LRD_TRY(find(&s, &folder));
    if (folder == NULL)
        goto out;
    LRD_TRY(take_files(&s, folder, here, files_out));
    if (!here)
        lrd_info("%s@%s, split %s: commit %s, in %s", s.repo, s.revision, name->split,
                 lrd_hub_commit_of(folder), folder);
    *folder_out = folder;
    folder = NULL;
out:
    lrd_free(folder);
    release(&s);
    return status;
}

const char *lrd_hub_commit_of(const char *folder)
{
    return lrd_path_base(folder);
}

const char *lrd_hub_commit_if_any(const char *folder)
{
    static const char parent[] = "/snapshots/";
    const char *commit = lrd_path_base(folder);
    const size_t n = sizeof parent - 1;
    const bool lies_there = (size_t)(commit - folder) > n && strncmp(commit - n, parent, n) == 0;
    return lies_there && lrd_hub_is_commit(commit) ? commit : NULL;
}
