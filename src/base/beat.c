#include "base/beat.h"

#include <stdatomic.h>
#include <sys/resource.h>

static atomic_ulong beats;

void lrd_beat(void)
{
    atomic_fetch_add_explicit(&beats, 1, memory_order_relaxed);
}

uint64_t lrd_beats(void)
{
    struct rusage usage = {.ru_majflt = 0};
    getrusage(RUSAGE_SELF, &usage);
    return atomic_load_explicit(&beats, memory_order_relaxed) + (uint64_t)usage.ru_majflt;
}
