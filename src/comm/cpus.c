#include "comm/cpus.h"

#include "base/log.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void lrd_cpus_undo_default_binding(void)
{
    /* Open MPI 4 tells its ranks that it bound them,
     * and hands down the options that asked for it. */
    if (getenv("OMPI_MCA_orte_bound_at_launch") == NULL ||
        getenv("OMPI_MCA_hwloc_base_binding_policy") != NULL ||
        getenv("OMPI_MCA_rmaps_base_mapping_policy") != NULL)
        return;
    cpu_set_t parent; /* mpirun's or orted's mask: all that the job may use on this host */
    if (sched_getaffinity(getppid(), sizeof parent, &parent) == 0)
        sched_setaffinity(0, sizeof parent, &parent);
}

/* What a rank tells the others. */
typedef struct place {
    char host[64];
    cpu_set_t mask;
} place_t;

lrd_status_t lrd_cpus_threads(lrd_comm_t *comm, int wanted, int *threads_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(comm);
    place_t mine = {.host = ""};
    int sharing = 0;
    strncpy(mine.host, lrd_comm_host(comm), sizeof mine.host - 1);
    if (sched_getaffinity(0, sizeof(cpu_set_t), &mine.mask) != 0)
        CPU_SET(0, &mine.mask);
    for (int r = 0; r < size; r++) { /* in turn: needs no memory, which one rank alone may lack */
        place_t theirs = mine;
        LRD_TRY(lrd_comm_broadcast(comm, &theirs, sizeof theirs, r));
        sharing += strcmp(theirs.host, mine.host) == 0 && CPU_EQUAL(&theirs.mask, &mine.mask);
    }
    const char *text = getenv("OMP_NUM_THREADS");
    const long from_text =
        text != NULL ? strtol(text, NULL, 10) : 0; /* "4,2": the outermost level */
    int threads = wanted > 0 ? wanted : from_text > 0 && from_text <= INT_MAX ? (int)from_text : 0;
    if (threads <= 0)
        threads = CPU_COUNT(&mine.mask) / (sharing > 0 ? sharing : 1);
    *threads_out = threads > 0 ? threads : 1;
    lrd_debug("%d threads; %d ranks share this rank's cores", *threads_out, sharing);
out:
    return status;
}
