/* A library to preload: calls that write to files fail, and reads come in pieces.
 *
 *   LRD_FAIL_WRITE=N    from the N-th call on that writes to a regular file, flushes one, or makes, links
 *                       or renames something, there is no space left (HDF5's calls count too)
 *   LRD_FAIL_ONCE=1     ... the N-th call alone
 *   LRD_KILL_WRITE=N    at the N-th such call the process is killed
 *   LRD_SHORT_READ=1    every read of a regular file gives at most half of what was asked for
 *   LRD_NETWORK_DISK=1  as file systems of clusters may be: none is locked, names are not exchanged
 *   LRD_NO_LINKS=1      a file has one name, as on vfat
 *
 * At the end the number of calls is printed on standard error: "N writing calls". */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_long calls;

static bool is_regular(int fd)
{
    struct stat s;
    return fstat(fd, &s) == 0 && S_ISREG(s.st_mode);
}

static long number(const char *name)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : 0;
}

/* One more call that writes; true: it must fail. */
static bool must_fail(void)
{
    const long n = number("LRD_FAIL_WRITE"), call = atomic_fetch_add(&calls, 1) + 1;
    if (call == number("LRD_KILL_WRITE"))
        raise(SIGKILL);
    if (n == 0 || call < n || (call > n && getenv("LRD_FAIL_ONCE") != NULL))
        return false;
    errno = ENOSPC;
    return true;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t bytes)
{
    return is_regular(fd) && must_fail() ? -1 : NEXT(write)(fd, data, bytes);
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at)
{
    return is_regular(fd) && must_fail() ? -1 : NEXT(pwrite)(fd, data, bytes, at);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
    return is_regular(fd) && must_fail() ? -1 : NEXT(pwrite64)(fd, data, bytes, at);
}

int ftruncate(int fd, off_t bytes)
{
    return must_fail() ? -1 : NEXT(ftruncate)(fd, bytes);
}

int ftruncate64(int fd, off64_t bytes)
{
    return must_fail() ? -1 : NEXT(ftruncate64)(fd, bytes);
}

int fsync(int fd)
{
    return is_regular(fd) && must_fail() ? -1 : NEXT(fsync)(fd);
}

int mkdir(const char *path, mode_t mode)
{
    return must_fail() ? -1 : NEXT(mkdir)(path, mode);
}

int rename(const char *from, const char *to)
{
    return must_fail() ? -1 : NEXT(rename)(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    return must_fail() ? -1 : NEXT(renameat)(from_folder, from, to_folder, to);
}

int link(const char *from, const char *to)
{
    if (getenv("LRD_NO_LINKS") != NULL) {
        errno = EPERM;
        return -1;
    }
    return must_fail() ? -1 : NEXT(link)(from, to);
}

static bool is_far(int reason)
{
    if (getenv("LRD_NETWORK_DISK") == NULL)
        return false;
    errno = reason;
    return true;
}

int flock(int fd, int operation)
{
    return is_far(ENOLCK) ? -1 : NEXT(flock)(fd, operation);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    return flags != 0 && is_far(EINVAL) ? -1
                                        : NEXT(renameat2)(from_folder, from, to_folder, to, flags);
}

static size_t cut(int fd, size_t bytes)
{
    return bytes > 1 && getenv("LRD_SHORT_READ") != NULL && is_regular(fd) ? bytes / 2 : bytes;
}

ssize_t read(int fd, void *data, size_t bytes)
{
    return NEXT(read)(fd, data, cut(fd, bytes));
}

ssize_t pread(int fd, void *data, size_t bytes, off_t at)
{
    return NEXT(pread)(fd, data, cut(fd, bytes), at);
}

ssize_t pread64(int fd, void *data, size_t bytes, off64_t at)
{
    return NEXT(pread64)(fd, data, cut(fd, bytes), at);
}

__attribute__((destructor)) static void print_calls(void)
{
    fprintf(stderr, "%ld writing calls\n", atomic_load(&calls));
}
