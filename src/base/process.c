#include "base/process.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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
static void find_machine(char machine[LRD_MACHINE_TEXT])
{
    char boot[40] = "";
    struct stat processes;
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    machine[0] = '\0';
    if (file == NULL)
        return;
    if (fgets(boot, sizeof boot, file) != NULL && stat("/proc/self/ns/pid", &processes) == 0) {
        boot[strcspn(boot, "\n")] = '\0';
        snprintf(machine, LRD_MACHINE_TEXT, "%s-%ju", boot, (uintmax_t)processes.st_ino);
    }
    fclose(file);
}

lrd_process_t lrd_process_self(void)
{
    lrd_process_t self = {.number = getpid(), .start = look_at(getpid()).start};
    find_machine(self.machine);
    return self;
}

bool lrd_process_is_near(const lrd_process_t *process)
{
    char here[LRD_MACHINE_TEXT];
    find_machine(here);
    return here[0] != '\0' && strcmp(here, process->machine) == 0;
}

/* Another process may have the number by now; one that cannot be looked at may be it. */
bool lrd_process_is_gone(const lrd_process_t *process)
{
    if (kill((pid_t)process->number, 0) != 0 && errno == ESRCH)
        return true;
    const look_t look = look_at(process->number);
    return look.ended || (process->start != 0 && look.start != 0 && look.start != process->start);
}
