/* model/placement.h -- which layers go where.
 *
 * A placement cuts the model into runs of neighbouring blocks, run k on stage k % n_stages. Run 0 has
 * the embedding, the last one the final norm and the head; these two may have no block beside them.
 */
#ifndef LRD_MODEL_PLACEMENT_H
#define LRD_MODEL_PLACEMENT_H

#include "base/buf.h"
#include "model/weights.h"

typedef struct lrd_placement {
    int n_stages, n_runs; /* n_runs: a multiple of n_stages */
    int *begin;           /* [n_runs + 1] run k has blocks begin[k] .. begin[k + 1] - 1 */
    lrd_home_t *home;     /* [blocks] where each lies on its stage; NULL: all on the device */
} lrd_placement_t;

/* What layers cost and take. A pure function of these makes the placement, so that all ranks, given
 * the same, place alike. */
typedef struct lrd_placement_costs {
    int n_layers;
    const double *layer; /* [n_layers] time of a micro-batch in both directions, in any unit */
    const double *pace;  /* [n_stages] how much longer a block takes there; NULL: as long on all */
    double embed, head;  /* on the first stage, on the last */
    /* Does a stage hold these blocks (and the embedding, the head)? NULL: it does. */
    bool (*fits)(const void *context, int stage, lrd_span_t run);
    const void *context;
} lrd_placement_costs_t;

/* The placement whose slowest run is fastest, blocks beside the embedding, of those the one with the least sum of squares; begin ==
 * NULL in it: none fits. `fits` is asked for one run of a stage at a time. LRD_ERR_CONFIG: there are
 * more runs than layers. */
lrd_status_t lrd_placement_balance(const lrd_placement_costs_t *costs, int n_stages, int n_chunks,
                                   lrd_placement_t *placement_out);
void lrd_placement_release(lrd_placement_t *placement); /* {0} is fine */

static inline lrd_span_t lrd_placement_run(const lrd_placement_t *p, int run)
{
    return (lrd_span_t){p->begin[run], p->begin[run + 1], run == 0, run == p->n_runs - 1};
}

/* Says of all blocks where they lie. */
lrd_status_t lrd_placement_set_home(lrd_placement_t *placement, lrd_home_t home);

/* How many blocks of a stage lie there. */
int lrd_placement_count_home(const lrd_placement_t *placement, int stage, lrd_home_t home);

/* The runs of a stage, ascending; lrd_free(runs_out->run). home is the placement's. */
lrd_status_t lrd_placement_stage(const lrd_placement_t *placement, int stage, lrd_runs_t *runs_out);

/* The stage that has a block. */
int lrd_placement_stage_of(const lrd_placement_t *placement, int layer);

/* Appends the map as accelerate writes it, {'transformer.word_embeddings': 0, ...}; its devices are the
 * ranks of a replica, `cpu` and `disk` for blocks that are not kept on theirs. */
lrd_status_t lrd_placement_print_map(const lrd_placement_t *placement, lrd_buf_t *text);

#endif /* LRD_MODEL_PLACEMENT_H */
