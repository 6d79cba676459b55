/* Limits of memory as cgroups of both versions, containers and ulimit set them. Oracle: trees of files as the kernel shows
 * them, with numbers chosen here. */
#include "support/test_support.h"

#include "base/file.h"
#include "base/host_memory.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

static const char *root; /* of the tree in work */

static void put(const char *path, const char *text)
{
    char folder[1024], file[1024];
    snprintf(file, sizeof file, "%s%s", root, path);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(file, '/') - file), file);
    assert_ok(lrd_folder_make(folder));
    assert_ok(lrd_file_write(file, text, strlen(text)));
}

static void put_number(const char *folder, const char *name, uint64_t value)
{
    char path[512], text[32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    snprintf(text, sizeof text, "%llu\n", (unsigned long long)value);
    put(path, text);
}

/* A fresh tree of a machine with 1,000 MiB, 800 of them free. */
static void begin(const char *name)
{
    root = lrd_test_temporary(name);
    assert_int_equal(setenv("LRD_SYSTEM_ROOT", root, 1), 0);
    put("/proc/meminfo",
        "MemTotal:        1024000 kB\nMemFree:          1 kB\nMemAvailable:     819200 kB\n");
    put("/proc/sys/kernel/random/boot_id", "26b2a5c3-6f3a-4c39-9f9b-6f0a3c7d3a11\n");
}

static void groups(const char *cgroup, const char *mountinfo)
{
    put("/proc/self/cgroup", cgroup);
    put("/proc/self/mountinfo", mountinfo);
}

/* A group of version 2; limit 0: "max"; MiB. */
static void put_2(const char *folder, uint64_t limit, uint64_t used, uint64_t cached)
{
    char path[512], stat[256];
    snprintf(path, sizeof path, "%s/memory.max", folder);
    if (limit > 0)
        put_number(folder, "memory.max", limit * MIB);
    else
        put(path, "max\n");
    snprintf(path, sizeof path, "%s/memory.high", folder);
    put(path, "max\n");
    put_number(folder, "memory.current", used * MIB);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    snprintf(stat, sizeof stat,
             "anon 1\nfile 999999999999\ninactive_file %llu\nactive_file %llu\nslab_reclaimable "
             "%llu\nslab 5\n",
             (unsigned long long)(cached * MIB / 2), (unsigned long long)(cached * MIB / 4),
             (unsigned long long)(cached * MIB / 4));
    put(path, stat);
}

/* A group of version 1; limit 0: none; MiB. outer: what hierarchical_memory_limit says. */
static void put_1(const char *folder, uint64_t limit, uint64_t used, uint64_t cached,
                  uint64_t outer)
{
    char path[512], stat[320];
    const uint64_t none = 9223372036854771712U;
    put_number(folder, "memory.limit_in_bytes", limit > 0 ? limit * MIB : none);
    put_number(folder, "memory.usage_in_bytes", used * MIB);
    put_number(folder, "memory.use_hierarchy", 1);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    snprintf(stat, sizeof stat,
             "cache 1\ninactive_file 7\nhierarchical_memory_limit %llu\ntotal_cache 3\n"
             "total_inactive_file %llu\ntotal_active_file %llu\n",
             (unsigned long long)(outer > 0 ? outer * MIB : none),
             (unsigned long long)(cached * MIB / 2), (unsigned long long)(cached * MIB / 2));
    put(path, stat);
}

/* The least bound has so much left, in MiB, and this in its name; there are n of them. */
static lrd_host_memory_t expect(int n, uint64_t free_mib, const char *name)
{
    lrd_host_memory_t m;
    size_t bytes;
    assert_ok(lrd_host_memory_read(&m));
    assert_int_equal(m.n, n);
    const lrd_memory_bound_t *least = lrd_host_memory_least(&m, NULL, &bytes);
    assert_int_equal(bytes, free_mib * MIB);
    assert_int_equal(least->free_bytes, bytes);
    if (!lrd_test_contains(least->name, name))
        fail_msg("\"%s\" does not name %s", least->name, name);
    return m;
}

static const char mount_2[] =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
static const char mount_1[] =
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

static void test_machine_alone(void **state)
{
    (void)state;
    begin("alone");
    const lrd_host_memory_t m = expect(1, 800, "free memory of this machine");
    assert_int_equal(m.bound[0].total_bytes, 1000 * MIB);
    groups("", "");
    expect(1, 800, "machine");
    groups("0::/\n", mount_2); /* the root of version 2 has no memory.max */
    expect(1, 800, "machine");
    groups("nonsense\n:\n0:\n0::\n", "1 2\n\n1 2 3 4 5 - cgroup2\n");
    expect(1, 800, "machine");
}

/* As Slurm makes them: job, step, task. */
static void test_version_2(void **state)
{
    (void)state;
    static const char *const job = "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7";
    static const char *const task =
        "/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0/user/task_1";
    begin("v2");
    groups("0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_1\n", mount_2);
    put_2(task, 0, 10, 0);
    put_2("/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/step_0", 500, 120, 40);
    put_2(job, 400, 200, 160); /* 160 of 200 can be given back */
    put_2("/sys/fs/cgroup/system.slice", 0, 300, 0);
    lrd_host_memory_t m =
        expect(3, 360, "(/sys/fs/cgroup/system.slice/slurmstepd.scope/job_7/memory.max)");
    assert_int_equal(m.bound[1].free_bytes, 420 * MIB); /* of the step */
    /* What is above memory.high is as good as gone. */
    put_number(job, "memory.high", 300 * MIB);
    expect(3, 260, "job_7/memory.high");
    put_number(job, "memory.current", 900 * MIB);
    expect(3, 0, "job_7/memory.high");
    /* The machine has less than the job may have. */
    put("/proc/meminfo", "MemTotal: 1024000 kB\nMemAvailable: 51200 kB\n");
    put_number(job, "memory.current", 200 * MIB);
    expect(3, 50, "machine");
}

static void test_missing_files(void **state)
{
    (void)state;
    begin("missing");
    groups("0::/a/b\n", mount_2);
    expect(1, 800, "machine"); /* no such group */
    put_number("/sys/fs/cgroup/a", "memory.max", 300 * MIB);
    expect(1, 800, "machine"); /* nobody knows what it uses */
    put_number("/sys/fs/cgroup/a", "memory.current", 100 * MIB);
    expect(2, 200, "/a/memory.max"); /* nothing of which can be given back, for all that is known */
    put("/sys/fs/cgroup/a/memory.max", "");
    expect(1, 800, "machine");
    put_2("/sys/fs/cgroup/a", 5000, 100, 0); /* more than there is */
    expect(1, 800, "machine");
    assert_int_equal(setenv("LRD_SYSTEM_ROOT", "/nowhere/at/all", 1), 0);
    lrd_host_memory_t m;
    assert_fails(lrd_host_memory_read(&m), LRD_ERR_DEVICE, "/proc/meminfo");
}

static void test_version_1(void **state)
{
    (void)state;
    static const char *const job = "/sys/fs/cgroup/memory/slurm/uid_0/job_7";
    begin("v1");
    groups("5:cpuacct,cpu:/other\n4:cpuset,memory:/slurm/uid_0/job_7/step_0\n1:name=systemd:/x\n",
           mount_1);
    put_1("/sys/fs/cgroup/memory", 0, 950, 0, 0);
    put_1("/sys/fs/cgroup/memory/slurm/uid_0/job_7/step_0", 300, 50, 0, 300);
    put_1(job, 300, 150, 20, 300);
    lrd_host_memory_t m =
        expect(3, 170, "(/sys/fs/cgroup/memory/slurm/uid_0/job_7/memory.limit_in_bytes)");
    assert_int_equal(m.bound[1].free_bytes, 250 * MIB);
    put_number(job, "memory.use_hierarchy", 0); /* it does not count its steps */
    expect(2, 250, "step_0");
    /* A limit further out that cannot be seen. */
    put_1("/sys/fs/cgroup/memory/slurm/uid_0/job_7/step_0", 0, 50, 0, 90);
    expect(2, 40, "step_0/memory.stat");
}

/* Version 2 for systemd, with the accounts of memory in version 1. */
static void test_hybrid(void **state)
{
    (void)state;
    char mounts[1024];
    snprintf(mounts, sizeof mounts,
             "%s41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", mount_1);
    begin("hybrid");
    groups("4:memory:/job\n1:name=systemd:/s\n0::/s\n", mounts);
    put_1("/sys/fs/cgroup/memory/job", 600, 100, 0, 0);
    put("/sys/fs/cgroup/unified/s/cgroup.procs", "1\n");
    expect(2, 500, "/sys/fs/cgroup/memory/job/");
    put_2("/sys/fs/cgroup/unified/s", 200, 100, 50); /* both count where both have one */
    expect(3, 150, "unified/s/memory.max");
}

static void test_containers(void **state)
{
    (void)state;
    static const char bound[] =
        "35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    /* A namespace of its own: the group is the root, and has a limit. */
    begin("namespace");
    groups("0::/\n", mount_2);
    put_2("/sys/fs/cgroup", 256, 156, 0);
    expect(2, 100, "(/sys/fs/cgroup/memory.max)");
    /* Without one: the path is the host's, of which the mount shows the end. */
    begin("docker");
    groups("4:memory:/docker/ab/child\n", bound);
    put_1("/sys/fs/cgroup/memory", 400, 100, 0, 0);
    put_1("/sys/fs/cgroup/memory/child", 350, 100, 0, 0);
    expect(3, 250, "/sys/fs/cgroup/memory/child/");
    groups("4:memory:/docker/ab\n", bound);
    expect(2, 300, "/sys/fs/cgroup/memory/memory.limit");
    /* Neither: what is mounted is taken for it. */
    groups("4:memory:/docker/abc\n", bound);
    expect(2, 300, "/sys/fs/cgroup/memory/memory.limit");
    groups("4:memory:/../../elsewhere\n", mount_1);
    expect(2, 300, "/sys/fs/cgroup/memory/memory.limit");
    groups("4:memory:/docker/abc\n", "");
    expect(1, 800, "machine");
}

/* One tree in several places is counted once; an unusual place; a line that is longer than any other. */
static void test_mounts(void **state)
{
    (void)state;
    static char mounts[20000];
    char where[512];
    begin("mounts");
    memset(mounts, 'x', 9000);
    snprintf(mounts + 9000, sizeof mounts - 9000,
             "\n%s30 23 0:26 / /my\\040cgroups rw shared:9 master:2 - cgroup2 none rw\n"
             "50 23 0:26 /a/b /elsewhere rw - cgroup2 cgroup2 rw\n",
             mount_2);
    put_2("/my cgroups/a/b", 100, 50, 0);
    put_2("/my cgroups/a", 90, 70, 0);
    snprintf(where, sizeof where, "%s/elsewhere", root);
    char target[512];
    snprintf(target, sizeof target, "%s/my cgroups/a/b", root);
    assert_int_equal(symlink(target, where), 0); /* as a bind mount: the same folder */
    groups("0::/a/b\n", mounts);
    expect(3, 20, "(/my cgroups/a/memory.max)");
}

static uint64_t group_named(const char *cgroup, const char *name)
{
    lrd_host_memory_t m;
    groups(cgroup, mount_2);
    assert_ok(lrd_host_memory_read(&m));
    for (int i = 0; i < m.n; i++) {
        if (lrd_test_contains(m.bound[i].name, name))
            return m.bound[i].group;
    }
    fail_msg("no bound is called %s", name);
    return 0;
}

/* Tasks of a job share its limit, and each has its own; four processes have a quarter of a limit that one has whole. */
static void test_sharing(void **state)
{
    (void)state;
    begin("sharing");
    put_2("/sys/fs/cgroup/job", 400, 0, 0);
    put_2("/sys/fs/cgroup/job/task_0", 300, 0, 0);
    put_2("/sys/fs/cgroup/job/task_1", 200, 0, 0);
    static const char one[] = "0::/job/task_0\n", other[] = "0::/job/task_1\n";
    assert_true(group_named(one, "job/memory") == group_named(other, "job/memory"));
    assert_true(group_named(one, "machine") == group_named(other, "machine"));
    assert_true(group_named(one, "task_0") != group_named(other, "task_1"));
    assert_true(group_named(one, "task_0") != group_named(one, "job/memory"));
    const uint64_t here = group_named(one, "job/memory");
    put("/proc/sys/kernel/random/boot_id", "another machine\n");
    assert_true(group_named(one, "job/memory") != here);

    lrd_host_memory_t m;
    size_t bytes;
    groups(one, mount_2);
    assert_ok(lrd_host_memory_read(&m)); /* machine, task, job */
    assert_string_equal(lrd_host_memory_least(&m, (const int[]){1, 1, 1}, &bytes)->name,
                        m.bound[1].name);
    assert_int_equal(bytes, 300 * MIB);
    assert_string_equal(lrd_host_memory_least(&m, (const int[]){4, 1, 4}, &bytes)->name,
                        m.bound[2].name);
    assert_int_equal(bytes, 100 * MIB);
    assert_string_equal(lrd_host_memory_least(&m, (const int[]){16, 1, 4}, &bytes)->name,
                        m.bound[0].name);
    assert_int_equal(bytes, 50 * MIB);
}

/* Of a process of its own, whose size is what /proc says of it a moment later, give or take a few pages of the reading. */
static int limited_process(void)
{
    const struct rlimit limit = {600 * MIB, 600 * MIB};
    lrd_host_memory_t m;
    unsigned long long pages = 0;
    if (setrlimit(RLIMIT_AS, &limit) != 0 || lrd_host_memory_read(&m) != LRD_OK || m.n != 2)
        return 1;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%llu", &pages) != 1)
        return 2;
    fclose(file);
    const uint64_t left = 600 * MIB - pages * (uint64_t)sysconf(_SC_PAGESIZE);
    const uint64_t said = m.bound[1].free_bytes;
    if (said + MIB < left || said > left + MIB || m.bound[1].group != 0)
        return 3;
    return strstr(m.bound[1].name, "ulimit -v") != NULL ? 0 : 4;
}

static void test_address_space(void **state)
{
    (void)state;
    int code = -1;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* it has terabytes of address space in use */
#endif
    begin("address");
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(limited_process());
    assert_int_equal(waitpid(pid, &code, 0), pid);
    assert_int_equal(code, 0);
}

/* This machine, whatever it is: what is left is no more than there is, of every bound. */
static void test_here(void **state)
{
    (void)state;
    lrd_host_memory_t m;
    assert_int_equal(unsetenv("LRD_SYSTEM_ROOT"), 0);
    assert_ok(lrd_host_memory_read(&m));
    for (int i = 0; i < m.n; i++) {
        print_message("%zu of %zu MiB: %s\n", m.bound[i].free_bytes >> 20,
                      m.bound[i].total_bytes >> 20, m.bound[i].name);
        assert_true(m.bound[i].free_bytes <= m.bound[i].total_bytes);
        assert_true(m.bound[i].total_bytes <= m.bound[0].total_bytes || m.bound[i].group == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_machine_alone), cmocka_unit_test(test_version_2),
        cmocka_unit_test(test_missing_files), cmocka_unit_test(test_version_1),
        cmocka_unit_test(test_hybrid),        cmocka_unit_test(test_containers),
        cmocka_unit_test(test_mounts),        cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_address_space), cmocka_unit_test(test_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
