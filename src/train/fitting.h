/* train/fitting.h -- how the layers fit a number of stages: what each stage would take is measured by the layout of the
 * run itself, and of the placements that fit the one whose slowest stage is fastest is found (model/placement.h). */
#ifndef LRD_TRAIN_FITTING_H
#define LRD_TRAIN_FITTING_H

#include "train/pace.h"

/* What is known of the ranks. */
typedef struct lrd_fitting_ranks {
    const int64_t *room;           /* [ranks] bytes */
    const lrd_pass_times_t *times; /* [ranks] */
} lrd_fitting_ranks_t;

/* One try: so many stages, so much room on each. The caller may change home and room before it goes on. */
typedef struct lrd_fitting {
    const lrd_session_t *s;
    int n_ranks, n_stages, n_chunks;
    bool mapped;            /* weights that are used in files take no room */
    const lrd_home_t *home; /* [n_layers] of blocks; NULL: on the device */
    lrd_stage_limits_t limits;
    int64_t micro_batches;   /* of a replica */
    int64_t *room;           /* [n_stages] bytes */
    lrd_pass_times_t *times; /* [n_stages] */
    int64_t *needs;          /* [n_stages] bytes of the placement measured last */
    int64_t *other;          /* [n_stages] bytes beside what measure_run counts */
    int *last; /* [n_stages][n_layers] longest run that fits from a layer on; -1: unknown */
    lrd_status_t status; /* of a measurement */
} lrd_fitting_t;

/* n_chunks runs of layers on each stage. Close it also after a failure. */
lrd_status_t lrd_fitting_open(const lrd_session_t *session, const lrd_fitting_ranks_t *ranks,
                              int n_stages, int n_chunks, bool mapped, lrd_fitting_t *fitting_out);
void lrd_fitting_close(lrd_fitting_t *fitting);

/* The fastest of the placements that seem to fit, as far as is known of `other`; begin == NULL: there is none. */
lrd_status_t lrd_fitting_balance(lrd_fitting_t *fitting, lrd_placement_t *placement_out);

/* Measures the stages of a placement as the run will lay them out. *worst_out: by how many bytes the worst
 * misses; what lrd_fitting_balance overlooks is remembered. */
lrd_status_t lrd_fitting_measure(lrd_fitting_t *fitting, const lrd_placement_t *placement,
                                 int64_t *worst_out);

/* The fastest placement that fits; begin == NULL: there is none. */
lrd_status_t lrd_fitting_place(lrd_fitting_t *fitting, lrd_placement_t *placement_out);

#endif /* LRD_TRAIN_FITTING_H */
