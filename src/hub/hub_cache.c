#include "hub/hub_cache.h"

#include "base/beat.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "hub/hub_reply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

lrd_status_t lrd_hub_cache_open(const char *root, const lrd_hub_name_t *name,
                                lrd_hub_cache_t *cache_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_cache_t c = {.root = NULL};
    lrd_buf_t folder = {0};
    const char *repo = name->repo, *slash = strchr(repo, '/');
    LRD_TRY(lrd_buf_add_text(&folder, name->is_data ? "datasets--" : "models--"));
    if (slash != NULL)
        LRD_TRY(lrd_buf_printf(&folder, "%.*s--%s", (int)(slash - repo), repo, slash + 1));
    else
        LRD_TRY(lrd_buf_add_text(&folder, repo));
    LRD_ALLOC(c.root, lrd_strdup(root));
    LRD_ALLOC(c.folder, lrd_path_join(root, folder.data));
    LRD_ALLOC(c.locks, lrd_asprintf("%s/.locks/%s", root, folder.data));
    *cache_out = c;
    c = (lrd_hub_cache_t){.root = NULL};
out:
    lrd_buf_release(&folder);
    lrd_hub_cache_release(&c);
    return status;
}

void lrd_hub_cache_release(lrd_hub_cache_t *cache)
{
    lrd_free(cache->root);
    lrd_free(cache->folder);
    lrd_free(cache->locks);
    *cache = (lrd_hub_cache_t){.root = NULL};
}

lrd_status_t lrd_hub_cache_snapshot(const lrd_hub_cache_t *cache, const char *commit,
                                    char **folder_out)
{
    lrd_status_t status = LRD_OK;
    LRD_ALLOC(*folder_out, lrd_asprintf("%s/snapshots/%s", cache->folder, commit));
out:
    return status;
}

lrd_status_t lrd_hub_cache_read_ref(const lrd_hub_cache_t *cache, const char *revision,
                                    char commit_out[LRD_HUB_COMMIT_HEX])
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    lrd_buf_t text = {0};
    commit_out[0] = '\0';
    LRD_ALLOC(path, lrd_asprintf("%s/refs/%s", cache->folder, revision));
    if (!lrd_file_exists(path))
        goto out;
    LRD_TRY(lrd_file_read(path, 4096, &text));
    if (text.data != NULL && lrd_hub_is_commit(text.data))
        memcpy(commit_out, text.data, LRD_HUB_COMMIT_HEX);
out:
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}

/* The folder in which a file lies, made. */
static lrd_status_t make_parent(const char *path)
{
    lrd_status_t status = LRD_OK;
    char *folder = NULL;
    LRD_ALLOC(folder, lrd_strndup(path, (size_t)(lrd_path_base(path) - path)));
    LRD_TRY(lrd_folder_make(folder));
out:
    lrd_free(folder);
    return status;
}

lrd_status_t lrd_hub_cache_write_ref(const lrd_hub_cache_t *cache, const char *revision,
                                     const char *commit)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL, known[LRD_HUB_COMMIT_HEX];
    if (strcmp(revision, commit) == 0)
        goto out;
    LRD_TRY(lrd_hub_cache_read_ref(cache, revision, known));
    if (strcmp(known, commit) == 0)
        goto out;
    LRD_ALLOC(path, lrd_asprintf("%s/refs/%s", cache->folder, revision));
    LRD_TRY(make_parent(path));
    LRD_TRY(lrd_file_write(path, commit, strlen(commit)));
out:
    lrd_free(path);
    return status;
}

/* Adds what is in a folder of a snapshot; `inside`: its path there, "" or "data/". */
static lrd_status_t add_paths(const char *snapshot, const char *inside, int depth,
                              lrd_names_t *paths, size_t *capacity)
{
    enum { MAX_DEPTH = 32 };
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    char *folder = NULL, *path = NULL, *relative = NULL;
    LRD_ALLOC(folder, lrd_path_join(snapshot, inside));
    if (depth == MAX_DEPTH || !lrd_folder_exists(folder))
        goto out;
    LRD_TRY(lrd_folder_list(folder, &names));
    for (size_t i = 0; i < names.n; i++) {
        LRD_ALLOC(path, lrd_path_join(folder, names.name[i]));
        if (lrd_folder_exists(path)) {
            LRD_ALLOC(relative, lrd_asprintf("%s%s/", inside, names.name[i]));
            LRD_TRY(add_paths(snapshot, relative, depth + 1, paths, capacity));
        } else if (lrd_file_exists(path)) {
            LRD_ALLOC(relative, lrd_asprintf("%s%s", inside, names.name[i]));
            LRD_GROW(paths->name, paths->n, *capacity);
            paths->name[paths->n++] = relative;
            relative = NULL;
        }
        lrd_free(relative);
        lrd_free(path);
        path = relative = NULL;
    }
out:
    lrd_free(relative);
    lrd_free(path);
    lrd_free(folder);
    lrd_names_free(&names);
    return status;
}

lrd_status_t lrd_hub_cache_list(const char *snapshot, lrd_names_t *paths_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t paths = {0};
    size_t capacity = 0;
    LRD_TRY(add_paths(snapshot, "", 0, &paths, &capacity));
    *paths_out = paths;
    paths = (lrd_names_t){0};
out:
    lrd_names_free(&paths);
    return status;
}

static lrd_status_t has_file(const char *folder, const char *name, bool *has_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    LRD_ALLOC(path, lrd_path_join(folder, name));
    *has_out = lrd_file_exists(path);
out:
    lrd_free(path);
    return status;
}

/* Every shard that the index in the folder names. */
static lrd_status_t has_shards(const char *folder, bool *has_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    lrd_buf_t text = {0};
    lrd_hub_shards_t shards = {.n = 0};
    LRD_ALLOC(path, lrd_path_join(folder, "model.safetensors.index.json"));
    *has_out = lrd_file_exists(path);
    if (!*has_out)
        goto out;
    LRD_TRY(lrd_file_read(path, 64 << 20, &text));
    LRD_TRY(lrd_hub_read_shards(text.data, text.size, path, &shards));
    for (size_t i = 0; i < shards.n && *has_out; i++)
        LRD_TRY(has_file(folder, shards.name[i], has_out));
out:
    lrd_hub_shards_release(&shards);
    lrd_buf_release(&text);
    lrd_free(path);
    return status;
}

lrd_status_t lrd_hub_cache_holds(const char *snapshot, lrd_hub_kind_t kind, bool *holds_out)
{
    lrd_status_t status = LRD_OK;
    bool config = false, weights = false, adapter_config = false, adapter_weights = false;
    LRD_TRY(has_file(snapshot, "config.json", &config));
    LRD_TRY(has_file(snapshot, "model.safetensors", &weights));
    LRD_TRY(has_file(snapshot, "adapter_config.json", &adapter_config));
    LRD_TRY(has_file(snapshot, "adapter_model.safetensors", &adapter_weights));
    if (!weights && (kind == LRD_HUB_MODEL || kind == LRD_HUB_EITHER))
        LRD_TRY(has_shards(snapshot, &weights));
    const bool model = config && (weights || kind == LRD_HUB_MODEL_OUTLINE);
    const bool adapter = adapter_config && adapter_weights;
    *holds_out = kind == LRD_HUB_ADAPTER ? adapter : model || (kind == LRD_HUB_EITHER && adapter);
out:
    return status;
}

/* An open lock file that still stands under its name: who had it before may have removed it. */
static lrd_status_t try_lock(const char *path, int *fd_out, bool *held_out)
{
    lrd_status_t status = LRD_OK;
    struct stat ours, named;
    *held_out = false;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    LRD_CHECK(fd >= 0, LRD_ERR_IO, "cannot open the lock %s: %s", path, strerror(errno));
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        *held_out = fstat(fd, &ours) == 0 && stat(path, &named) == 0 &&
                    ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
    } else if (errno != EWOULDBLOCK && errno != EINTR) {
        lrd_debug("%s: no locks here: %s", path, strerror(errno));
        close(fd);
        *fd_out = -1;
        *held_out = true;
        goto out;
    }
    if (*held_out)
        *fd_out = fd;
    else
        close(fd);
out:
    return status;
}

lrd_status_t lrd_hub_cache_lock(const lrd_hub_cache_t *cache, const char *tag,
                                const lrd_stop_t *stop, int *fd_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    bool held = false;
    LRD_TRY(lrd_folder_make(cache->locks));
    LRD_ALLOC(path, lrd_asprintf("%s/%s.lock", cache->locks, tag));
    for (int turn = 0;; turn++) {
        LRD_TRY(try_lock(path, fd_out, &held));
        if (held)
            break;
        if (turn == 10)
            lrd_info("Waiting for another process that downloads the same (%s)", path);
        LRD_CHECK_STOP(stop);
        lrd_beat();
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    }
out:
    lrd_free(path);
    return status;
}

void lrd_hub_cache_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* So that backups leave the cache out, as huggingface_hub marks it. */
static void mark(const char *root)
{
    static const char text[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                               "# This file is a cache directory tag created by huggingface_hub.\n"
                               "# For information about cache directory tags, see:\n"
                               "#\thttps://bford.info/cachedir/\n";
    char *path = lrd_path_join(root, "CACHEDIR.TAG");
    if (path != NULL && !lrd_file_exists(path) &&
        lrd_file_write(path, text, sizeof text - 1) != LRD_OK)
        lrd_error_clear();
    lrd_free(path);
}

lrd_status_t lrd_hub_cache_blob(const lrd_hub_cache_t *cache, const char *tag, char **path_out)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    LRD_ALLOC(path, lrd_asprintf("%s/blobs/%s", cache->folder, tag));
    LRD_TRY(make_parent(path));
    mark(cache->root);
    *path_out = path;
    path = NULL;
out:
    lrd_free(path);
    return status;
}

lrd_status_t lrd_hub_cache_link(const char *snapshot, const char *name, const char *tag)
{
    lrd_status_t status = LRD_OK;
    char *link = NULL;
    lrd_buf_t target = {0};
    LRD_ALLOC(link, lrd_path_join(snapshot, name));
    LRD_TRY(make_parent(link));
    for (const char *at = name; (at = strchr(at, '/')) != NULL; at++)
        LRD_TRY(lrd_buf_add_text(&target, "../")); /* a file of a folder in the repository */
    LRD_TRY(lrd_buf_printf(&target, "../../blobs/%s", tag));
    LRD_CHECK(unlink(link) == 0 || errno == ENOENT, LRD_ERR_IO, "cannot replace %s: %s", link,
              strerror(errno));
    LRD_CHECK(symlink(target.data, link) == 0 || errno == EEXIST, LRD_ERR_IO,
              "cannot make the link %s: %s. HF_HUB_CACHE names another folder for the cache", link,
              strerror(errno));
out:
    lrd_buf_release(&target);
    lrd_free(link);
    return status;
}
