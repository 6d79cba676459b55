#include "base/file.h"

#include "base/mem.h"
#include "base/partial.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

char *lrd_path_join(const char *folder, const char *name)
{
    const size_t n = strlen(folder);
    if (n == 0 || name[0] == '/')
        return lrd_strdup(name);
    return lrd_asprintf("%s%s%s", folder, folder[n - 1] == '/' ? "" : "/", name);
}

const char *lrd_path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* Shortens path by its last part; an empty path stands for the current folder. */
static void cut_last_part(char *path)
{
    char *slash = strrchr(path, '/');
    while (slash != NULL && slash > path && slash[-1] == '/')
        slash--;
    if (slash == NULL)
        path[0] = '\0';
    else
        slash[slash == path ? 1 : 0] = '\0';
}

static bool has_parent_part(const char *path)
{
    for (const char *at = strstr(path, ".."); at != NULL; at = strstr(at + 2, ".."))
        if ((at == path || at[-1] == '/') && (at[2] == '/' || at[2] == '\0'))
            return true;
    return false;
}

lrd_status_t lrd_path_resolve(const char *path, char **resolved_out)
{
    lrd_status_t status = LRD_OK;
    char *head = NULL, *resolved = NULL, real[PATH_MAX];
    LRD_ALLOC(head, lrd_strdup(path));
    for (size_t n = strlen(head); n > 1 && head[n - 1] == '/'; n--)
        head[n - 1] = '\0';
    while (realpath(head[0] != '\0' ? head : ".", real) == NULL) {
        LRD_CHECK(errno == ENOENT && head[0] != '\0', LRD_ERR_IO, "cannot resolve %s: %s", path,
                  strerror(errno));
        cut_last_part(head);
    }
    const char *rest = path + strlen(head);
    LRD_CHECK(!has_parent_part(rest), LRD_ERR_IO, "%s: \"..\" of a folder that is not there", path);
    rest += strspn(rest, "/");
    LRD_ALLOC(resolved, rest[0] != '\0' ? lrd_path_join(real, rest) : lrd_strdup(real));
    for (size_t n = strlen(resolved); n > 1 && resolved[n - 1] == '/'; n--)
        resolved[n - 1] = '\0';
    *resolved_out = resolved;
out:
    lrd_free(head);
    return status;
}

bool lrd_path_is_inside(const char *path, const char *folder)
{
    const size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 &&
           (path[n] == '\0' || path[n] == '/' || (n > 0 && folder[n - 1] == '/'));
}

static bool has_mode(const char *path, mode_t mode)
{
    struct stat s;
    return stat(path, &s) == 0 && (s.st_mode & S_IFMT) == mode;
}

bool lrd_file_exists(const char *path)
{
    return has_mode(path, S_IFREG);
}

bool lrd_folder_exists(const char *path)
{
    return has_mode(path, S_IFDIR);
}

/* Opens a regular file for reading and tells its size. *fd_out is -1 on failure. */
static lrd_status_t open_regular(const char *path, int *fd_out, size_t *size_out)
{
    lrd_status_t status = LRD_OK;
    *fd_out = open(path, O_RDONLY | O_CLOEXEC |
                             O_NONBLOCK); /* a named pipe must not block the check below */
    LRD_CHECK(*fd_out >= 0, LRD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    struct stat s;
    LRD_CHECK(fstat(*fd_out, &s) == 0, LRD_ERR_IO, "cannot examine %s: %s", path, strerror(errno));
    LRD_CHECK(S_ISREG(s.st_mode), LRD_ERR_IO, "%s is %s, expected a file", path,
              S_ISDIR(s.st_mode) ? "a folder" : "not a regular file");
    *size_out = (size_t)s.st_size;
out:
    if (status != LRD_OK && *fd_out >= 0) {
        close(*fd_out);
        *fd_out = -1;
    }
    return status;
}

lrd_status_t lrd_file_read(const char *path, size_t max_bytes, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    int fd = -1;
    size_t size = 0;
    LRD_TRY(open_regular(path, &fd, &size));
    LRD_CHECK(size <= max_bytes, LRD_ERR_IO, "%s has %zu bytes, more than the %zu that are read",
              path, size, max_bytes);
    LRD_TRY(lrd_buf_reserve(buf, size));
    size_t got = 0;
    while (got < size) {
        const ssize_t n = read(fd, buf->data + buf->size, size - got);
        if (n < 0 && errno == EINTR)
            continue;
        LRD_CHECK(n >= 0, LRD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
        LRD_CHECK(n > 0, LRD_ERR_IO, "%s became shorter while it was read", path);
        got += (size_t)n;
        buf->size += (size_t)n;
    }
    if (buf->data != NULL)
        buf->data[buf->size] = '\0';
out:
    if (fd >= 0)
        close(fd);
    return status;
}

lrd_status_t lrd_file_map(const char *path, lrd_map_t *map_out)
{
    lrd_status_t status = LRD_OK;
    int fd = -1;
    size_t size = 0;
    LRD_TRY(open_regular(path, &fd, &size));
    void *data = NULL;
    if (size > 0) {
        data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
        LRD_CHECK(data != MAP_FAILED, LRD_ERR_IO, "cannot map %s: %s", path, strerror(errno));
    }
    *map_out = (lrd_map_t){data, size};
out:
    if (fd >= 0)
        close(fd);
    return status;
}

void lrd_file_unmap(lrd_map_t *map)
{
    if (map->data != NULL)
        munmap((void *)map->data, map->size);
    *map = (lrd_map_t){0};
}

/* To go by a few pages, evenly spread. */
static bool are_in_memory(const uint8_t *data, size_t n_pages, size_t page)
{
    enum { SAMPLES = 8 };
    unsigned char there = 1;
    for (size_t i = 0; i < SAMPLES; i++) {
        void *at = (void *)(data + i * (n_pages - 1) / (SAMPLES - 1) * page);
        if (mincore(at, page, &there) != 0 || (there & 1) == 0)
            return false;
    }
    return true;
}

void lrd_file_expect(const lrd_map_t *map, size_t begin, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), from = begin / page * page;
    if (map->data == NULL || bytes == 0 || begin + bytes > map->size)
        return;
    const uint8_t *data = map->data + from;
    const size_t n_pages = (begin + bytes - from + page - 1) / page;
    if (!are_in_memory(data, n_pages, page))
        madvise((void *)data, n_pages * page, MADV_WILLNEED);
}

void lrd_file_forget(const lrd_map_t *map, size_t begin, size_t bytes)
{
    /* The system maps some pages around the one that is touched: those before `begin` go too. */
    const size_t unit = (size_t)1 << 20;
    const size_t from = begin / unit * unit;
    if (map->data != NULL && begin + bytes <= map->size)
        madvise((void *)(map->data + from), begin + bytes - from, MADV_DONTNEED);
}

struct lrd_writer {
    int fd;
    char *path;
    char *temporary; /* base/partial.h */
};

lrd_status_t lrd_writer_open(const char *path, lrd_writer_t **writer_out)
{
    lrd_status_t status = LRD_OK;
    lrd_writer_t *w = NULL;
    LRD_NEW(w, 1);
    w->fd = -1;
    LRD_ALLOC(w->path, lrd_strdup(path));
    LRD_TRY(lrd_partial_name(path, &w->temporary));
    lrd_partial_tidy(path);
    w->fd = open(w->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    LRD_CHECK(w->fd >= 0, LRD_ERR_IO, "cannot write %s: %s", w->temporary, strerror(errno));
    *writer_out = w;
    w = NULL;
out:
    lrd_writer_abandon(w);
    return status;
}

lrd_status_t lrd_writer_add(lrd_writer_t *writer, const void *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    const char *at = data;
    while (bytes > 0) {
        const ssize_t n = write(writer->fd, at, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        LRD_CHECK(n > 0, LRD_ERR_IO, "cannot write %s: %s", writer->temporary, strerror(errno));
        at += n;
        bytes -= (size_t)n;
    }
out:
    return status;
}

/* Flushes the folder that holds path, so that a rename in it survives a power cut. Some file
 * systems refuse to flush folders; they have no use for it. */
static void flush_parent(const char *path)
{
    char *parent = lrd_strndup(path, (size_t)(lrd_path_base(path) - path));
    if (parent == NULL)
        return;
    const int fd = open(parent[0] != '\0' ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
    lrd_free(parent);
}

lrd_status_t lrd_writer_commit(lrd_writer_t **writer)
{
    lrd_status_t status = LRD_OK;
    lrd_writer_t *w = *writer;
    LRD_CHECK(fsync(w->fd) == 0, LRD_ERR_IO, "cannot flush %s: %s", w->temporary, strerror(errno));
    const int rc = close(w->fd);
    w->fd = -1;
    LRD_CHECK(rc == 0, LRD_ERR_IO, "cannot close %s: %s", w->temporary, strerror(errno));
    LRD_CHECK(rename(w->temporary, w->path) == 0, LRD_ERR_IO, "cannot rename %s to %s: %s",
              w->temporary, w->path, strerror(errno));
    flush_parent(w->path);
out:
    lrd_writer_abandon(w); /* after the rename there is nothing left to remove */
    *writer = NULL;
    return status;
}

void lrd_writer_abandon(lrd_writer_t *writer)
{
    if (writer == NULL)
        return;
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->temporary != NULL)
        unlink(writer->temporary);
    lrd_free(writer->temporary);
    lrd_free(writer->path);
    lrd_free(writer);
}

lrd_status_t lrd_file_write(const char *path, const void *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    lrd_writer_t *w = NULL;
    LRD_TRY(lrd_writer_open(path, &w));
    LRD_TRY(lrd_writer_add(w, data, bytes));
    LRD_TRY(lrd_writer_commit(&w));
out:
    lrd_writer_abandon(w);
    return status;
}

lrd_status_t lrd_file_flush(const char *path)
{
    lrd_status_t status = LRD_OK;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    LRD_CHECK(fd >= 0, LRD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    LRD_CHECK(fsync(fd) == 0, LRD_ERR_IO, "cannot flush %s: %s", path, strerror(errno));
out:
    if (fd >= 0)
        close(fd);
    return status;
}

lrd_status_t lrd_file_publish(const char *temporary, const char *path)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_file_flush(temporary));
    LRD_CHECK(rename(temporary, path) == 0, LRD_ERR_IO, "cannot rename %s to %s: %s", temporary,
              path, strerror(errno));
    flush_parent(path);
out:
    return status;
}

lrd_status_t lrd_folder_make(const char *path)
{
    lrd_status_t status = LRD_OK;
    char *copy = NULL;
    LRD_ALLOC(copy, lrd_strdup(path));
    for (char *at = copy + 1; copy[0] != '\0'; at++) {
        const char c = *at;
        if (c != '/' && c != '\0')
            continue;
        *at = '\0';
        const int reason = mkdir(copy, 0777) == 0 ? 0 : errno;
        if (reason != 0 && !lrd_folder_exists(copy))
            LRD_FAIL(LRD_ERR_IO, "cannot make the folder %s: %s", copy, strerror(reason));
        *at = c;
        if (c == '\0')
            break;
    }
out:
    lrd_free(copy);
    return status;
}

lrd_status_t lrd_folder_free_bytes(const char *path, uint64_t *bytes_out)
{
    lrd_status_t status = LRD_OK;
    struct statvfs s;
    LRD_CHECK(statvfs(path, &s) == 0, LRD_ERR_IO, "cannot examine the file system of %s: %s", path,
              strerror(errno));
    *bytes_out = s.f_blocks > 0 ? (uint64_t)s.f_bavail * s.f_frsize : UINT64_MAX;
out:
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

lrd_status_t lrd_folder_list(const char *path, lrd_names_t *names_out)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    DIR *folder = opendir(path);
    LRD_CHECK(folder != NULL, LRD_ERR_IO, "cannot list %s: %s", path, strerror(errno));
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        LRD_CHECK(entry != NULL || errno == 0, LRD_ERR_IO, "cannot list %s: %s", path,
                  strerror(errno));
        if (entry == NULL)
            break;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char **grown;
        LRD_ALLOC(grown, lrd_realloc_array(names.name, names.n + 1, sizeof *grown));
        names.name = grown;
        LRD_ALLOC(names.name[names.n], lrd_strdup(entry->d_name));
        names.n++;
    }
    if (names.n > 0)
        qsort(names.name, names.n, sizeof names.name[0], compare_names);
    *names_out = names;
    names = (lrd_names_t){0};
out:
    if (folder != NULL)
        closedir(folder);
    lrd_names_free(&names);
    return status;
}

void lrd_names_free(lrd_names_t *names)
{
    for (size_t i = 0; i < names->n; i++)
        lrd_free(names->name[i]);
    lrd_free(names->name);
    *names = (lrd_names_t){0};
}

static lrd_status_t remove_at(int folder, const char *name, const char *path, bool *removed_out);

/* Empties the folder behind fd, which this closes. Names may be skipped while others vanish: it is
 * read until there is nothing to remove. */
static lrd_status_t empty_folder(int fd, const char *path)
{
    lrd_status_t status = LRD_OK;
    DIR *folder = fdopendir(fd);
    bool any = true;
    if (folder == NULL)
        close(fd);
    LRD_CHECK(folder != NULL, LRD_ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    while (any) {
        const struct dirent *entry;
        any = false;
        rewinddir(folder);
        while ((entry = readdir(folder)) != NULL) {
            bool removed = false;
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                LRD_TRY(remove_at(fd, entry->d_name, path, &removed));
            any = any || removed;
        }
    }
out:
    if (folder != NULL)
        closedir(folder);
    return status;
}

/* Removes `name` in the open folder, if it is there. `path` is what is removed as a whole, for
 * messages. */
static lrd_status_t remove_at(int folder, const char *name, const char *path, bool *removed_out)
{
    lrd_status_t status = LRD_OK;
    struct stat s;
    const bool exists = fstatat(folder, name, &s, AT_SYMLINK_NOFOLLOW) == 0;
    LRD_CHECK(exists || errno == ENOENT, LRD_ERR_IO, "cannot remove %s: %s: %s", path, name,
              strerror(errno));
    if (exists && S_ISDIR(s.st_mode)) {
        const int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        LRD_CHECK(fd >= 0, LRD_ERR_IO, "cannot remove %s: %s: %s", path, name, strerror(errno));
        LRD_TRY(empty_folder(fd, path));
    }
    LRD_CHECK(!exists || unlinkat(folder, name, S_ISDIR(s.st_mode) ? AT_REMOVEDIR : 0) == 0,
              LRD_ERR_IO, "cannot remove %s: %s: %s", path, name, strerror(errno));
    *removed_out = exists;
out:
    return status;
}

lrd_status_t lrd_folder_remove(const char *path)
{
    bool removed;
    return remove_at(AT_FDCWD, path, path, &removed);
}

lrd_status_t lrd_folder_discard(const char *path)
{
    lrd_status_t status = LRD_OK;
    char *partial = NULL;
    LRD_ALLOC(partial, lrd_asprintf("%s.partial", path));
    LRD_TRY(lrd_folder_remove(partial));
    LRD_CHECK(rename(path, partial) == 0, LRD_ERR_IO, "cannot rename %s to %s: %s", path, partial,
              strerror(errno));
    LRD_TRY(lrd_folder_remove(partial));
out:
    lrd_free(partial);
    return status;
}

lrd_status_t lrd_folder_begin(const char *path, char **partial_out)
{
    lrd_status_t status = LRD_OK;
    char *partial = NULL;
    LRD_ALLOC(partial, lrd_asprintf("%s.partial", path));
    LRD_TRY(lrd_folder_remove(partial));
    LRD_TRY(lrd_folder_make(partial));
    *partial_out = partial;
    partial = NULL;
out:
    lrd_free(partial);
    return status;
}

/* Flushes a file, or a folder and all in it. Nothing else has content of its own. */
static lrd_status_t flush_all(const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    struct stat s;
    LRD_CHECK(lstat(path, &s) == 0, LRD_ERR_IO, "cannot examine %s: %s", path, strerror(errno));
    if (S_ISDIR(s.st_mode))
        LRD_TRY(lrd_folder_list(path, &names));
    for (size_t i = 0; i < names.n; i++) {
        char *child;
        LRD_ALLOC(child, lrd_path_join(path, names.name[i]));
        status = flush_all(child);
        lrd_free(child);
        LRD_TRY(status);
    }
    if (S_ISDIR(s.st_mode) || S_ISREG(s.st_mode))
        LRD_TRY(lrd_file_flush(path));
out:
    lrd_names_free(&names);
    return status;
}

/* rename() replaces only empty folders. Where the file system can, both names are exchanged in one
 * step, so that one complete folder or the other has the name at any time. Elsewhere (NFS) the
 * older one steps aside first, and comes back when the new one cannot take its place. */
static lrd_status_t replace_folder(const char *partial, const char *path)
{
    lrd_status_t status = LRD_OK;
    char *old = NULL;
    if (renameat2(AT_FDCWD, partial, AT_FDCWD, path, RENAME_EXCHANGE) == 0) {
        flush_parent(path);
        LRD_TRY(lrd_folder_remove(partial)); /* what had the name before */
        goto out;
    }
    LRD_ALLOC(old, lrd_asprintf("%s.old.partial", path));
    LRD_TRY(lrd_folder_remove(old));
    LRD_CHECK(rename(path, old) == 0, LRD_ERR_IO, "cannot rename %s: %s", path, strerror(errno));
    if (rename(partial, path) != 0) {
        const int reason = errno;
        const bool back = rename(old, path) == 0;
        LRD_FAIL(LRD_ERR_IO, "cannot rename %s to %s: %s (the older folder is %s)", partial, path,
                 strerror(reason), back ? "back in place" : old);
    }
    flush_parent(path);
    LRD_TRY(lrd_folder_remove(old));
out:
    lrd_free(old);
    return status;
}

lrd_status_t lrd_folder_commit(const char *partial, const char *path)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(flush_all(partial));
    if (lrd_folder_exists(path)) {
        LRD_TRY(replace_folder(partial, path));
        goto out;
    }
    LRD_CHECK(rename(partial, path) == 0, LRD_ERR_IO, "cannot rename %s to %s: %s", partial, path,
              strerror(errno));
    flush_parent(path);
out:
    return status;
}

lrd_status_t lrd_folder_merge(const char *partial, const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_names_t names = {0};
    int from = -1, to = -1;
    LRD_TRY(flush_all(partial));
    LRD_TRY(lrd_folder_list(partial, &names));
    from = open(partial, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    LRD_CHECK(from >= 0, LRD_ERR_IO, "cannot open %s: %s", partial, strerror(errno));
    to = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    LRD_CHECK(to >= 0, LRD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    for (size_t i = 0; i < names.n; i++)
        LRD_CHECK(renameat(from, names.name[i], to, names.name[i]) == 0, LRD_ERR_IO,
                  "cannot move %s/%s to %s: %s", partial, names.name[i], path, strerror(errno));
    fsync(to); /* as flush_parent does */
    LRD_CHECK(rmdir(partial) == 0, LRD_ERR_IO, "cannot remove the folder %s: %s", partial,
              strerror(errno));
out:
    if (to >= 0)
        close(to);
    if (from >= 0)
        close(from);
    lrd_names_free(&names);
    return status;
}

void lrd_folder_abandon(const char *partial)
{
    if (partial != NULL)
        lrd_folder_remove(partial);
}
