/* base/process.h -- which process it was that left something behind, and whether it is still there.
 *
 * A number alone does not say: it is given to another process one day. Start of the process, start of the machine
 * and table of processes (a container has its own) tell it from all others.
 */
#ifndef LRD_BASE_PROCESS_H
#define LRD_BASE_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

enum { LRD_MACHINE_TEXT = 64 };

typedef struct lrd_process {
    int64_t number;
    uint64_t start;                 /* in ticks since the machine's start; 0: not known */
    char machine[LRD_MACHINE_TEXT]; /* its start and its table of processes; "": not known */
} lrd_process_t;

lrd_process_t lrd_process_self(void);

/* Whether this process could see that one: they are on the same machine and in the same table. */
bool lrd_process_is_near(const lrd_process_t *process);

/* Of a process that is near: it has ended. One that cannot be looked at counts as there. */
bool lrd_process_is_gone(const lrd_process_t *process);

#endif /* LRD_BASE_PROCESS_H */
