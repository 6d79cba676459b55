#include "comm/cpus.h"

#include "base/log.h"
#include "base/mem.h"

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
    const int size = lrd_comm_size(comm), rank = lrd_comm_rank(comm);
    place_t *places = NULL;
    size_t *offset = NULL;
    LRD_NEW(places, size);
    LRD_NEW(offset, size + 1);
    strncpy(places[rank].host, lrd_comm_host(comm), sizeof places[rank].host - 1);
    if (sched_getaffinity(0, sizeof(cpu_set_t), &places[rank].mask) != 0)
        CPU_SET(0, &places[rank].mask);
    for (int r = 0; r <= size; r++)
        offset[r] = (size_t)r * sizeof *places;
    LRD_TRY(lrd_comm_all_gather(comm, &places[rank], places, offset));
    int sharing = 0;
    for (int r = 0; r < size; r++)
        sharing += strcmp(places[r].host, places[rank].host) == 0 &&
                   CPU_EQUAL(&places[r].mask, &places[rank].mask);
    const char *text = getenv("OMP_NUM_THREADS");
    const long from_text =
        text != NULL ? strtol(text, NULL, 10) : 0; /* "4,2": the outermost level */
    int threads = wanted > 0 ? wanted : from_text > 0 && from_text <= INT_MAX ? (int)from_text : 0;
    if (threads <= 0)
        threads = CPU_COUNT(&places[rank].mask) / (sharing > 0 ? sharing : 1);
    *threads_out = threads > 0 ? threads : 1;
    lrd_debug("%d threads; %d ranks share this rank's cores", *threads_out, sharing);
out:
    lrd_free(offset);
    lrd_free(places);
    return status;
}
