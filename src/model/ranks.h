/* model/ranks.h -- what the settings ask of the ranks and what the ranks have: how many stages a replica may
 * consist of, a map of layers that the settings give, and memory. Training and inference place layers by
 * these.
 */
#ifndef LRD_MODEL_RANKS_H
#define LRD_MODEL_RANKS_H

#include "base/host_memory.h"
#include "comm/comm.h"
#include "model/engine.h"
#include "model/placement.h"

/* LRD_ERR_CONFIG, on all ranks: program, back end, its libraries or its environment differ between them
 * (comm/alike.h). Devices may. Collective. */
lrd_status_t lrd_ranks_alike(lrd_comm_t *comm, lrd_backend_t *backend);

/* The least and the most stages of a replica that parallel.data and parallel.pipeline allow on so many ranks.
 * LRD_ERR_CONFIG: they contradict the number of ranks. */
lrd_status_t lrd_ranks_stages(const lrd_parallel_settings_t *settings, int n_ranks, int *least_out,
                              int *most_out);

/* Runs of layers on a stage. */
int lrd_ranks_chunks(const lrd_parallel_settings_t *settings);

/* May a choice among numbers of stages fall on this one? */
bool lrd_ranks_may_be(const lrd_parallel_settings_t *settings, const lrd_model_config_t *config,
                      int n_ranks, int n_stages);

/* "memory limit of the job or container (/sys/fs/cgroup/job_7/memory.max), shared by 4 ranks". */
typedef struct lrd_room_reason {
    char text[LRD_MEMORY_BOUND_NAME + 32];
} lrd_room_reason_t;

/* Bytes of each rank, [ranks]; owned by the caller. What several ranks share (a host's memory, a job's limit) is divided
 * evenly among them. */
typedef struct lrd_rooms {
    int64_t *free;    /* what there is */
    int64_t *limited; /* and no more than parallel.max_memory */
    int64_t *host;    /* host memory for weights that do not fit a device, by the same limits */
    lrd_room_reason_t *why; /* what keeps `limited` from being more; NULL: nobody asks */
} lrd_rooms_t;

typedef struct lrd_rooms_options {
    lrd_comm_t *comm;
    const lrd_parallel_settings_t *settings;
    lrd_backend_t *backend;
    const int64_t *
        memory; /* [n_memory] of each rank, the last entry for all that follow; NULL: what is free */
    int n_memory;
    bool imagined; /* the other ranks are not there: they have what this one has */
} lrd_rooms_options_t;

/* Collective; failures are agreed on. */
lrd_status_t lrd_ranks_rooms(const lrd_rooms_options_t *options, lrd_rooms_t rooms);

/* The rank that has the least of all. */
int lrd_ranks_least(const int64_t *room, int n_ranks);

/* The least of the ranks that would hold this stage. */
int64_t lrd_ranks_room(const int64_t *room, int n_ranks, int n_stages, int stage);

/* The placement that parallel.device_map gives where it is not auto. LRD_ERR_CONFIG: the ranks cannot be
 * divided into as many stages, or pipeline_chunks says otherwise. */
lrd_status_t lrd_ranks_map(const lrd_parallel_settings_t *settings, const lrd_engine_t *engine,
                           lrd_rooms_t rooms, int n_ranks, lrd_placement_t *placement_out);

/* Can the backend use files in place of memory: the model's as they are, or a copy in
 * parallel.offload_folder? */
bool lrd_ranks_use_files(const lrd_parallel_settings_t *settings, const lrd_engine_t *engine);

/* All blocks are read from files in the middle of the work; warns of that. */
lrd_status_t lrd_ranks_leave_in_files(lrd_placement_t *placement);

/* Says so where the backend has graphs and the run does without. */
void lrd_ranks_report_graphs(const lrd_backend_t *backend, bool graphs);

/* May weights that do not fit be kept elsewhere: off a device, or converted in parallel.offload_folder? */
bool lrd_ranks_may_offload(const lrd_parallel_settings_t *settings, const lrd_engine_t *engine);

/* What the stages of a placement have for blocks. */
typedef struct lrd_spill_room {
    int64_t device; /* bytes left on the device while all of the stage's blocks travel */
    int64_t host;   /* bytes of host memory */
} lrd_spill_room_t;

/* Says which blocks stay on their device: as many as fit. Of the others as many as fit go to host memory,
 * the rest stays in files: LRD_ERR_CONFIG where there are none that can be used. Blocks on the device and
 * others take turns, so that the next one travels while some are computed. */
lrd_status_t lrd_ranks_spill(const lrd_parallel_settings_t *settings, const lrd_weights_t *weights,
                             const lrd_spill_room_t *room, lrd_placement_t *placement);

#endif /* LRD_MODEL_RANKS_H */
