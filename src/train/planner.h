/* train/planner.h -- how many replicas a run has, of how many stages, and which layers go where.
 *
 * Replicas are preferred while one fits a rank's memory; then the fewest stages that fit. Of the
 * placements that fit, the one whose slowest stage is fastest: blocks and head are weighed by their
 * products, forward and, from the lowest adapter up, backward; on devices that differ, by what they
 * take (train/pace.h). What fits is measured by the layout of the run itself. Where nothing fits,
 * blocks leave their devices (model/offload.h).
 */
#ifndef LRD_TRAIN_PLANNER_H
#define LRD_TRAIN_PLANNER_H

#include "train/session.h"

/* Can parallel.data, pipeline and pipeline_chunks be had with the ranks there are? */
lrd_status_t lrd_planner_check(const lrd_session_t *session);

/* Fills in session->placement. Where nothing fits: LRD_ERR_CONFIG with what would help. Collective;
 * failures are agreed on. */
lrd_status_t lrd_planner_place(lrd_session_t *session);

/* Where layers are spread over ranks, or not kept on their devices: logs on rank 0 the map as accelerate writes it, and a table of
 * all ranks with their memory. Collective; failures are agreed on. */
lrd_status_t lrd_planner_report(lrd_session_t *session);

/* What a rank holds, in bytes, for people. */
typedef struct lrd_planner_row {
    char host[32];
    int64_t weights, activations, rest; /* on the device; mapped files included */
    int64_t room;                       /* what it may use */
} lrd_planner_row_t;

lrd_planner_row_t lrd_planner_row(const lrd_memory_t *memory, int64_t room);

/* What is computed again: "nothing", "attention" or "block". */
const char *lrd_planner_recompute_name(lrd_checkpointing_t recompute);

/* Appends a table of n ranks, in MiB. */
lrd_status_t lrd_planner_print_table(const lrd_placement_t *placement, const lrd_planner_row_t *row,
                                     int n, lrd_buf_t *text);

/* Appends what the stages do not keep on their devices, a line each; nothing where they keep all. */
lrd_status_t lrd_planner_print_offload(const lrd_placement_t *placement, size_t block_bytes,
                                       lrd_buf_t *text);

/* The part of an adapter that a stage has. */
lrd_status_t lrd_planner_part(const lrd_placement_t *placement, const lrd_adapter_t *whole,
                              int stage, lrd_adapter_t **part_out);

#endif /* LRD_TRAIN_PLANNER_H */
