#include "base/partial.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char mark[] = ".partial.";
static const time_t long_ago = 24 * 60 * 60; /* seconds without a word written */

enum { MACHINE_TEXT = 64 };

/* Who writes a file. Processes with the same machine see each other. */
typedef struct writer_id {
    int64_t process;
    uint64_t start;             /* in ticks since the machine's start; 0: not known */
    char machine[MACHINE_TEXT]; /* its start and its table of processes; "": not known */
} writer_id_t;

/* A process as /proc shows it. */
typedef struct look {
    uint64_t start; /* 0: it is not seen */
    bool ended;     /* its parent has not asked yet what became of it, and may never do so */
} look_t;

static look_t look_at(int64_t process)
{
    enum { FIELDS_BEFORE = 20 }; /* the start; behind the name, which may hold anything */
    char path[32], text[1024];
    look_t look = {.start = 0};
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", process);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return look;
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    const char *at = strrchr(text, ')');
    look.ended = at != NULL && strncmp(at, ") Z", 3) == 0;
    for (int i = 0; at != NULL && i < FIELDS_BEFORE; i++)
        at = strchr(at + 1, ' ');
    look.start = at != NULL ? strtoull(at, NULL, 10) : 0;
    return look;
}

/* A container's processes are not those of its host, whatever the host is called. */
static void find_machine(char machine[MACHINE_TEXT])
{
    char boot[40] = "";
    struct stat processes;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    machine[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(boot, sizeof boot, file) != NULL && stat("/proc/self/ns/pid", &processes) == 0) {
        boot[strcspn(boot, "\n")] = '\0';
        snprintf(machine, MACHINE_TEXT, "%s-%ju", boot, (uintmax_t)processes.st_ino);
    }
    fclose(file);
}

static writer_id_t find_self(void)
{
    writer_id_t self = {.process = getpid(), .start = look_at(getpid()).start};
    find_machine(self.machine);
    return self;
}

lrd_status_t lrd_partial_name(const char *path, char **name_out)
{
    lrd_status_t status = LRD_OK;
    const writer_id_t self = find_self();
    LRD_ALLOC(*name_out, lrd_asprintf("%s%s%" PRId64 ".%" PRIu64 ".%s", path, mark, self.process,
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
static bool read_name(const char *name, const char *file, writer_id_t *id_out)
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
        !read_number(&at, &id_out->start) || strlen(at) >= MACHINE_TEXT)
        return false;
    id_out->process = (int64_t)process;
    snprintf(id_out->machine, sizeof id_out->machine, "%s", at);
    return true;
}

/* Another process may have the number by now; one that cannot be looked at may be it. */
static bool is_gone(const writer_id_t *id)
{
    if (kill((pid_t)id->process, 0) != 0 && errno == ESRCH)
        return true;
    const look_t look = look_at(id->process);
    return look.ended || (id->start != 0 && look.start != 0 && look.start != id->start);
}

/* What the clock of the folder's file system says, which a new file shows; 0: it does not say. */
static time_t folder_time(int folder)
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
    const time_t now = folder_time(folder);
    return now != 0 && now - s.st_mtime > long_ago;
}

static void tidy(const char *path, const char *file)
{
    const writer_id_t self = find_self();
    DIR *folder = opendir(path);
    const struct dirent *entry;
    writer_id_t id;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (!read_name(entry->d_name, file, &id))
            continue;
        const bool near = self.machine[0] != '\0' && strcmp(self.machine, id.machine) == 0;
        if ((near ? is_gone(&id) : is_old(dirfd(folder), entry->d_name)) &&
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
