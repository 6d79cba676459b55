#include "base/host_memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_BYTES = 4096, N_VERSIONS = 2 };

/* Where a version of the cgroups keeps what it knows of memory. */
typedef struct version {
    const char *file_system;
    const char *limit, *second_limit, *use; /* second_limit: "": there is none */
    const char *cached[3];                  /* in memory.stat: bytes that can be given back */
} version_t;

static const version_t versions[N_VERSIONS] = {
    {"cgroup",
     "memory.limit_in_bytes",
     "",
     "memory.usage_in_bytes",
     {"total_inactive_file", "total_active_file", ""}},
    {"cgroup2",
     "memory.max",
     "memory.high",
     "memory.current",
     {"inactive_file", "active_file", "slab_reclaimable"}},
};

typedef struct search {
    const char *root;                 /* of all paths */
    char group[N_VERSIONS][PATH_MAX]; /* this process's; "": none of this version */
    lrd_host_memory_t *found;
} search_t;

/* ---- reading ----------------------------------------------------------------------------------- */

static FILE *open_below(const char *root, const char *folder, const char *name)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s%s/%s", root, folder, name) >= sizeof path)
        return NULL;
    return fopen(path, "re");
}

/* The next line that fits, without its end; false: there is none. */
static bool next_line(FILE *file, char line[LINE_BYTES])
{
    bool whole = true;
    while (file != NULL && fgets(line, LINE_BYTES, file) != NULL) {
        const size_t n = strlen(line);
        const bool ends = n > 0 && line[n - 1] == '\n';
        const bool fits = whole && (ends || feof(file));
        whole = ends;
        line[ends ? n - 1 : n] = '\0';
        if (fits)
            return true;
    }
    return false;
}

static void close_file(FILE *file)
{
    if (file != NULL)
        fclose(file);
}

/* The number that a file of a cgroup holds; UINT64_MAX: "max", or no number. */
static uint64_t read_number(const search_t *s, const char *folder, const char *name)
{
    char line[LINE_BYTES], *end = line;
    FILE *file = name[0] != '\0' ? open_below(s->root, folder, name) : NULL;
    unsigned long long value = 0;
    if (next_line(file, line))
        value = strtoull(line, &end, 10);
    close_file(file);
    return end != line ? value : UINT64_MAX;
}

/* The number behind a word; 0 where it is not there. `words` are looked for in one go and added up. */
static uint64_t add_up(FILE *file, const char *const words[3])
{
    char line[LINE_BYTES];
    uint64_t sum = 0;
    while (next_line(file, line)) {
        char *value = strchr(line, ' ');
        if (value == NULL)
            continue;
        *value = '\0';
        for (int i = 0; i < 3; i++)
            sum += strcmp(line, words[i]) == 0 ? strtoull(value + 1, NULL, 10) : 0;
    }
    return sum;
}

/* ---- bounds ------------------------------------------------------------------------------------ */

/* FNV-1a, going on from `hash`. */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)data)[i]) * 0x100000001b3;
    return hash;
}

/* A number of this start of this machine, or at least of its name. */
static uint64_t machine_number(const search_t *s)
{
    char line[LINE_BYTES] = "";
    FILE *file = open_below(s->root, "/proc/sys/kernel/random", "boot_id");
    if (!next_line(file, line))
        gethostname(line, sizeof line - 1);
    close_file(file);
    return mix(0xcbf29ce484222325, line, strlen(line));
}

static lrd_status_t add_machine(search_t *s)
{
    lrd_status_t status = LRD_OK;
    unsigned long long total = 0, available = 0;
    char line[LINE_BYTES];
    FILE *file = open_below(s->root, "/proc", "meminfo");
    while (next_line(file, line)) {
        sscanf(line, "MemTotal: %llu", &total);
        sscanf(line, "MemAvailable: %llu", &available);
    }
    close_file(file);
    LRD_CHECK(total > 0 && available > 0, LRD_ERR_DEVICE,
              "/proc/meminfo does not tell how much memory there is");
    s->found->bound[0] = (lrd_memory_bound_t){.free_bytes = available * 1024,
                                              .total_bytes = total * 1024,
                                              .group = machine_number(s),
                                              .name = "free memory of this machine"};
    s->found->n = 1;
out:
    return status;
}

/* The bound of one group; one that has been found through another mount is not counted again. */
static void add_bound(search_t *s, const char *folder, const char *file, uint64_t limit,
                      uint64_t used)
{
    lrd_host_memory_t *m = s->found;
    char path[PATH_MAX];
    struct stat about;
    if (m->n == LRD_MEMORY_BOUNDS ||
        (size_t)snprintf(path, sizeof path, "%s%s", s->root, folder) >= sizeof path ||
        stat(path, &about) != 0)
        return;
    const uint64_t id[2] = {(uint64_t)about.st_dev, (uint64_t)about.st_ino};
    lrd_memory_bound_t b = {.free_bytes = limit > used ? limit - used : 0,
                            .total_bytes = limit,
                            .group = mix(m->bound[0].group, id, sizeof id)};
    snprintf(b.name, sizeof b.name, "memory limit of the job or container (%.240s/%s)", folder,
             file);
    for (int i = 0; i < m->n; i++) {
        if (m->bound[i].group == b.group)
            return;
    }
    m->bound[m->n++] = b;
}

/* What a group may have at most, and which of its files says so; UINT64_MAX: anything. */
static uint64_t read_limit(const search_t *s, const version_t *v, const char *folder,
                           const char **file_out)
{
    const uint64_t first = read_number(s, folder, v->limit);
    const uint64_t second = read_number(s, folder, v->second_limit);
    *file_out = second < first ? v->second_limit : v->limit;
    return second < first ? second : first;
}

/* Version 1: a group knows the tightest limit further out, which may be that of one that cannot be seen from here. */
static uint64_t read_inherited(const search_t *s, const char *folder)
{
    static const char *const words[3] = {"hierarchical_memory_limit", "", ""};
    FILE *file = open_below(s->root, folder, "memory.stat");
    const uint64_t limit = add_up(file, words);
    close_file(file);
    return limit > 0 ? limit : UINT64_MAX;
}

static void look_at(search_t *s, int version, const char *folder, bool is_own)
{
    const version_t *v = &versions[version];
    const char *name;
    uint64_t limit = read_limit(s, v, folder, &name);
    const uint64_t used = read_number(s, folder, v->use);
    if (version == 0 && is_own && read_inherited(s, folder) < limit) {
        limit = read_inherited(s, folder);
        name = "memory.stat";
    }
    /* In version 1 a group may leave those inside it out of its account. */
    if (version == 0 && !is_own && read_number(s, folder, "memory.use_hierarchy") == 0)
        return;
    if (limit >= s->found->bound[0].total_bytes || used == UINT64_MAX)
        return; /* no limit */
    FILE *file = open_below(s->root, folder, "memory.stat");
    const uint64_t cached = add_up(file, v->cached);
    close_file(file);
    add_bound(s, folder, name, limit, used > cached ? used - cached : 0);
}

/* ---- the groups of this process ---------------------------------------------------------------- */

/* Is `word` in a list with commas? */
static bool is_listed(const char *list, const char *word)
{
    const size_t n = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    }
    return false;
}

/* Lines of /proc/self/cgroup are "4:memory:/job_7" in version 1, "0::/job_7" in version 2. */
static void find_groups(search_t *s)
{
    char line[LINE_BYTES];
    FILE *file = open_below(s->root, "/proc/self", "cgroup");
    while (next_line(file, line)) {
        char *kinds = strchr(line, ':'), *path = kinds != NULL ? strchr(kinds + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        const bool is_2 = strcmp(line, "0:") == 0;
        if (is_2 || is_listed(kinds + 1, "memory"))
            snprintf(s->group[is_2], PATH_MAX, "%s", path);
    }
    close_file(file);
}

/* The next word of a line, in place; \040 and the like stand for characters. NULL: there is none. */
static char *next_word(char **at)
{
    char *begin = *at, *to = *at, *from = *at;
    if (*from == '\0')
        return NULL;
    while (*from != '\0' && *from != ' ') {
        if (from[0] == '\\' && from[1] != '\0' && from[2] != '\0' && from[3] != '\0') {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *at = from + (*from == ' ');
    *to = '\0';
    return begin;
}

/* "36 35 0:31 /docker/ab /sys/fs/cgroup/memory rw,relatime ... - cgroup cgroup rw,memory": which version of the
 * cgroups' accounts of memory is mounted, what of it and where; -1: none. */
static int read_mount(char *line, const char **what_out, const char **where_out)
{
    enum { WHAT = 3, WHERE = 4 };
    char *at = line, *word = NULL, *separator;
    for (int i = 0; i <= WHERE; i++) {
        word = next_word(&at);
        if (word == NULL)
            return -1;
        if (i == WHAT)
            *what_out = word;
    }
    *where_out = word;
    do {
        separator = next_word(&at);
    } while (separator != NULL && strcmp(separator, "-") != 0);
    const char *type = separator != NULL ? next_word(&at) : NULL;
    next_word(&at); /* the device */
    if (type == NULL)
        return -1;
    if (strcmp(type, versions[1].file_system) == 0)
        return 1;
    return strcmp(type, versions[0].file_system) == 0 && is_listed(at, "memory") ? 0 : -1;
}

/* What of a group's path lies behind the part of the tree that is mounted; NULL: it is not mounted there. */
static const char *path_below(const char *group, const char *mounted)
{
    const size_t n = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    if (strncmp(group, mounted, n) != 0 || (group[n] != '/' && group[n] != '\0') ||
        strstr(group, "/..") != NULL)
        return NULL;
    return strcmp(group + n, "/") == 0 ? "" : group + n;
}

/* The group at `where` + `below`, and all around it up to where they are mounted. */
static void look_upwards(search_t *s, int version, const char *where, const char *below)
{
    char folder[PATH_MAX];
    const size_t top = strlen(where);
    if ((size_t)snprintf(folder, sizeof folder, "%s%s", where, below) >= sizeof folder)
        return;
    look_at(s, version, folder, true);
    while (strlen(folder) > top) {
        *strrchr(folder, '/') = '\0';
        look_at(s, version, folder, false);
    }
}

/* A container may be told its path as the host sees it and have only its own group mounted: unknown ones are taken
 * for it where the path leads nowhere. */
static void look_at_mounts(search_t *s, bool unknown, bool known_out[N_VERSIONS])
{
    char line[LINE_BYTES];
    const char *what = NULL, *where = NULL;
    FILE *file = open_below(s->root, "/proc/self", "mountinfo");
    while (next_line(file, line)) {
        const int version = read_mount(line, &what, &where);
        if (version < 0 || s->group[version][0] == '\0' || (unknown && known_out[version]))
            continue;
        const char *below = unknown ? "" : path_below(s->group[version], what);
        if (below == NULL)
            continue;
        look_upwards(s, version, where, below);
        known_out[version] = known_out[version] || !unknown;
    }
    close_file(file);
}

/* ---- limits of this process alone -------------------------------------------------------------- */

static void add_address_space(search_t *s)
{
    lrd_host_memory_t *m = s->found;
    struct rlimit limit;
    unsigned long long pages = 0;
    char line[LINE_BYTES];
    if (m->n == LRD_MEMORY_BOUNDS || getrlimit(RLIMIT_AS, &limit) != 0 ||
        limit.rlim_cur == RLIM_INFINITY)
        return;
    FILE *file = open_below("", "/proc/self", "statm");
    if (next_line(file, line))
        sscanf(line, "%llu", &pages);
    close_file(file);
    const uint64_t used = pages * (uint64_t)sysconf(_SC_PAGESIZE);
    m->bound[m->n++] =
        (lrd_memory_bound_t){.free_bytes = limit.rlim_cur > used ? limit.rlim_cur - used : 0,
                             .total_bytes = limit.rlim_cur,
                             .name = "limit of the address space (ulimit -v)"};
}

lrd_status_t lrd_host_memory_read(lrd_host_memory_t *memory_out)
{
    lrd_status_t status = LRD_OK;
    const char *root = getenv("LRD_SYSTEM_ROOT");
    search_t s = {.root = root != NULL ? root : "", .found = memory_out};
    bool known[N_VERSIONS] = {false, false};
    LRD_TRY(add_machine(&s));
    find_groups(&s);
    look_at_mounts(&s, false, known);
    look_at_mounts(&s, true, known);
    add_address_space(&s);
out:
    return status;
}

const lrd_memory_bound_t *lrd_host_memory_least(const lrd_host_memory_t *m, const int *sharing,
                                                size_t *bytes_out)
{
    int least = 0;
    size_t bytes = SIZE_MAX;
    for (int i = 0; i < m->n; i++) {
        const size_t part = m->bound[i].free_bytes / (size_t)(sharing != NULL ? sharing[i] : 1);
        if (part <= bytes) { /* the outermost, which knows the limit as its own */
            bytes = part;
            least = i;
        }
    }
    if (bytes_out != NULL)
        *bytes_out = bytes;
    return &m->bound[least];
}
