#include "base/partial.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char mark[] = ".partial.";
static const time_t long_ago = 24 * 60 * 60; /* seconds without a word written */

lrd_status_t lrd_partial_name(const char *path, char **name_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_process_t self = lrd_process_self();
    LRD_ALLOC(*name_out, lrd_asprintf("%s%s%" PRId64 ".%" PRIu64 ".%s", path, mark, self.number,
                                      self.start, self.machine));
out:
    return status;
}

/* Reads a number and the character behind it. */
static bool read_number(const char **at, uint64_t *value_out)
{
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    *value_out = strtoull(*at, &end, 10);
    *at = end + 1;
    return *end == '.';
}

/* The writer that a name tells; false: it is another kind of name. `file` is the name of the complete
 * file, NULL stands for any. */
static bool read_name(const char *name, const char *file, lrd_process_t *id_out)
{
    const char *at = name;
    uint64_t process;
    for (const char *next = strstr(name, mark); next != NULL; next = strstr(next + 1, mark))
        at = next;
    if (at == name ||
        (file != NULL && (strncmp(name, file, strlen(file)) != 0 || at != name + strlen(file))))
        return false;
    at += sizeof mark - 1;
    if (!read_number(&at, &process) || process == 0 || process > INT32_MAX ||
        !read_number(&at, &id_out->start) || strlen(at) >= LRD_MACHINE_TEXT)
        return false;
    id_out->number = (int64_t)process;
    snprintf(id_out->machine, sizeof id_out->machine, "%s", at);
    return true;
}

time_t lrd_partial_clock(int folder)
{
    char *name = NULL;
    struct stat s;
    time_t now = 0;
    if (lrd_partial_name("clock", &name) != LRD_OK) {
        lrd_error_clear();
        return 0;
    }
    const int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) {
        now = fstat(fd, &s) == 0 ? s.st_mtime : 0;
        close(fd);
        unlinkat(folder, name, 0);
    }
    lrd_free(name);
    return now;
}

static bool is_old(int folder, const char *name)
{
    struct stat s;
    if (fstatat(folder, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    const time_t now = lrd_partial_clock(folder);
    return now != 0 && now - s.st_mtime > long_ago;
}

static void tidy(const char *path, const char *file)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    lrd_process_t id;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (!read_name(entry->d_name, file, &id))
            continue;
        if ((lrd_process_is_near(&id) ? lrd_process_is_gone(&id)
                                      : is_old(dirfd(folder), entry->d_name)) &&
            unlinkat(dirfd(folder), entry->d_name, 0) == 0)
            lrd_debug("removed %s/%s, left by a process that was killed", path, entry->d_name);
    }
    if (folder != NULL)
        closedir(folder);
}

void lrd_partial_tidy(const char *path)
{
    char folder[PATH_MAX] = ".";
    const char *file = lrd_path_base(path);
    if (file > path &&
        (size_t)snprintf(folder, sizeof folder, "%.*s", (int)(file - path), path) >= sizeof folder)
        return;
    tidy(folder, file);
}

void lrd_partial_tidy_folder(const char *folder)
{
    tidy(folder, NULL);
}
