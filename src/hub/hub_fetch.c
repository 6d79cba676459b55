#include "hub/hub_fetch.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MIB = 1 << 20 };

/* A file on its way. */
typedef struct part {
    lrd_hub_fetch_t *fetch;
    const lrd_hub_file_t *file;
    const char *tag;  /* its name in the cache */
    char *url, *path; /* of the server; of what is here of it */
    int fd;
    int64_t have, size; /* bytes that are here; of the whole */
} part_t;

static lrd_status_t cut(part_t *p, int64_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(ftruncate(p->fd, bytes) == 0, LRD_ERR_IO, "cannot shorten %s: %s", p->path,
              strerror(errno));
    p->fetch->done += bytes - p->have;
    p->have = bytes;
out:
    return status;
}

/* lrd_http_sink_t */
static lrd_status_t write_piece(void *context, int64_t offset, const void *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    part_t *p = context;
    if (offset != p->have) /* the server begins again */
        LRD_TRY(cut(p, offset));
    LRD_CHECK((int64_t)bytes <= p->size - p->have, LRD_ERR_FORMAT,
              "%s of %s: the server sends more than the %" PRId64 " bytes that it named",
              p->file->path, p->fetch->repo, p->size);
    for (size_t at = 0; at < bytes;) {
        const ssize_t n = pwrite(p->fd, (const char *)data + at, bytes - at, p->have);
        LRD_CHECK(n > 0 || errno == EINTR, LRD_ERR_IO,
                  "cannot write %s: %s. What is here of it stays, and the same command goes on",
                  p->path, strerror(errno));
        if (n <= 0)
            continue;
        at += (size_t)n;
        p->have += n;
        p->fetch->done += n;
    }
    if (p->fetch->progress.total > 0)
        lrd_progress_update(&p->fetch->progress, p->fetch->done / MIB, NULL);
out:
    return status;
}

static lrd_status_t check_room(const part_t *p)
{
    lrd_status_t status = LRD_OK;
    uint64_t room;
    LRD_TRY(lrd_folder_free_bytes(p->fetch->cache->folder, &room));
    LRD_CHECK(room >= (uint64_t)(p->size - p->have), LRD_ERR_IO,
              "%s of %s needs %.1f MiB more, and %s has %.1f MiB left. HF_HUB_CACHE names another "
              "folder",
              p->file->path, p->fetch->repo, (double)(p->size - p->have) / MIB,
              p->fetch->cache->root, (double)room / MIB);
out:
    return status;
}

static lrd_status_t receive(part_t *p)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    LRD_TRY(check_room(p));
    if (p->have == p->size)
        goto out;
    LRD_TRY(lrd_http_send(p->fetch->hub->http,
                          &(lrd_http_request_t){.method = "GET",
                                                .url = p->url,
                                                .sink = write_piece,
                                                .context = p,
                                                .have = &p->have,
                                                .attempts = LRD_HUB_ATTEMPTS},
                          &reply));
    if (reply.code >= 300)
        LRD_TRY(
            lrd_hub_refuse(p->fetch->hub, &reply, p->fetch->repo, p->fetch->commit, p->file->path));
    LRD_CHECK(p->have == p->size, LRD_ERR_FORMAT,
              "%s of %s has %" PRId64 " bytes, and the server sent %" PRId64, p->file->path,
              p->fetch->repo, p->size, p->have);
out:
    lrd_http_reply_release(&reply);
    return status;
}

/* A tag of 64 digits is the SHA-256 of the content; one that the listing has as git's name is that. */
static lrd_status_t is_right(const part_t *p, bool *right_out)
{
    enum { PIECE = 256 * MIB };
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    lrd_map_t map = {0};
    char hex[LRD_SHA256_HEX];
    *right_out = true;
    const bool is_sha256 = strlen(p->tag) == LRD_SHA256_HEX - 1 &&
                           strspn(p->tag, "0123456789abcdef") == strlen(p->tag);
    if (!is_sha256 && strcmp(p->tag, p->file->git_blob) != 0)
        goto out;
    LRD_TRY(lrd_file_map(p->path, &map));
    if (is_sha256) {
        LRD_TRY(lrd_sha256_begin(&hash));
        for (size_t at = 0; at < map.size; at += PIECE) {
            LRD_CHECK_STOP(p->fetch->hub->stop);
            LRD_TRY(
                lrd_sha256_add(hash, map.data + at, map.size - at < PIECE ? map.size - at : PIECE));
        }
        LRD_TRY(lrd_sha256_end(hash, hex));
    } else {
        LRD_TRY(lrd_git_blob(map.data, map.size, hex));
    }
    *right_out = strcmp(hex, p->tag) == 0;
out:
    lrd_sha256_free(hash);
    lrd_file_unmap(&map);
    return status;
}

/* What was here of the file may be wrong where two processes wrote it: then once more from its beginning. */
static lrd_status_t receive_right(part_t *p)
{
    lrd_status_t status = LRD_OK;
    bool right = false, began_here = p->have == 0;
    LRD_TRY(receive(p));
    LRD_TRY(is_right(p, &right));
    if (!right && !began_here) {
        LRD_TRY(cut(p, 0));
        LRD_TRY(receive(p));
        LRD_TRY(is_right(p, &right));
    }
    if (!right)
        LRD_TRY(cut(p, 0));
    LRD_CHECK(right, LRD_ERR_FORMAT,
              "%s of %s: what came is not what the server announced (its hash differs)",
              p->file->path, p->fetch->repo);
out:
    return status;
}

/* Into blobs/TAG, by way of TAG.incomplete. */
static lrd_status_t download(part_t *p, const char *blob)
{
    lrd_status_t status = LRD_OK;
    struct stat info;
    LRD_ALLOC(p->path, lrd_asprintf("%s.incomplete", blob));
    p->fd = open(p->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    LRD_CHECK(p->fd >= 0 && fstat(p->fd, &info) == 0, LRD_ERR_IO, "cannot open %s: %s", p->path,
              strerror(errno));
    p->have = info.st_size;
    p->fetch->done += p->have;
    if (p->have > p->size)
        LRD_TRY(cut(p, 0));
    if (p->have > 0)
        lrd_info("%s: going on behind %.1f MiB", p->file->path, (double)p->have / MIB);
    LRD_TRY(receive_right(p));
    LRD_TRY(lrd_file_publish(p->path, blob));
out:
    if (p->fd >= 0)
        close(p->fd);
    return status;
}

/* What the server says of the file: its name in the cache and its size. */
static lrd_status_t ask(lrd_hub_fetch_t *f, const lrd_hub_file_t *file, const char *url,
                        lrd_http_reply_t *reply)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_http_send(
        f->hub->http,
        &(lrd_http_request_t){.method = "HEAD", .url = url, .attempts = LRD_HUB_ATTEMPTS}, reply));
    if (reply->code >= 400)
        LRD_TRY(lrd_hub_refuse(f->hub, reply, f->repo, f->commit, file->path));
    LRD_CHECK(
        lrd_hub_is_safe_tag(reply->etag), LRD_ERR_FORMAT,
        "%.300s: the server names no ETag that a file can be called by: is HF_ENDPOINT (%s) a "
        "server of the Hub?",
        url, f->hub->config.endpoint);
    LRD_CHECK(reply->commit[0] == '\0' || strcmp(reply->commit, f->commit) == 0, LRD_ERR_FORMAT,
              "%.300s: the server answers with another commit, %.40s", url, reply->commit);
    if (reply->size < 0)
        reply->size = file->size;
    LRD_CHECK(reply->size >= 0, LRD_ERR_FORMAT, "%.300s: the server does not say how long it is",
              url);
    LRD_CHECK(file->size < 0 || file->size == reply->size, LRD_ERR_FORMAT,
              "%.300s: the server says both %" PRId64 " and %" PRId64 " bytes", url, file->size,
              reply->size);
out:
    return status;
}

static lrd_status_t make_url(const lrd_hub_fetch_t *f, const char *path, char **url_out)
{
    lrd_status_t status = LRD_OK;
    char *before = NULL, *part = NULL;
    lrd_buf_t url = {0};
    LRD_ALLOC(before, lrd_asprintf("%s/%s%s/resolve/%s", f->hub->config.endpoint,
                                   f->is_data ? "datasets/" : "", f->repo, f->commit));
    LRD_TRY(lrd_buf_add_text(&url, before));
    for (size_t n; *path != '\0'; path += n + (path[n] == '/')) { /* "/" is no part of a name */
        n = strcspn(path, "/");
        LRD_ALLOC(part, lrd_strndup(path, n));
        LRD_TRY(lrd_buf_add_text(&url, "/"));
        LRD_TRY(lrd_http_quote(&url, part));
        lrd_free(part);
        part = NULL;
    }
    *url_out = url.data;
    url = (lrd_buf_t){0};
out:
    lrd_buf_release(&url);
    lrd_free(part);
    lrd_free(before);
    return status;
}

lrd_status_t lrd_hub_fetch(lrd_hub_fetch_t *f, const lrd_hub_file_t *file)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    part_t p = {.fetch = f, .file = file, .fd = -1};
    char *pointer = NULL, *blob = NULL;
    int lock = -1;
    LRD_ALLOC(pointer, lrd_path_join(f->snapshot, file->path));
    if (lrd_file_exists(pointer))
        goto out;
    LRD_TRY(make_url(f, file->path, &p.url));
    LRD_TRY(ask(f, file, p.url, &reply));
    p.tag = reply.etag;
    p.size = reply.size;
    LRD_TRY(lrd_hub_cache_blob(f->cache, p.tag, &blob));
    LRD_TRY(lrd_hub_cache_lock(f->cache, p.tag, f->hub->stop, &lock));
    if (lrd_file_exists(blob))
        f->done += p.size;
    else
        LRD_TRY(download(&p, blob));
    if (!lrd_file_exists(pointer))
        LRD_TRY(lrd_hub_cache_link(f->snapshot, file->path, p.tag));
out:
    lrd_hub_cache_unlock(lock);
    lrd_free(p.path);
    lrd_free(p.url);
    lrd_free(blob);
    lrd_free(pointer);
    lrd_http_reply_release(&reply);
    return status;
}
