/* train/answering.h -- exact match and F1 of answers that the model generates while it is trained.
 *
 * Training and generation are siblings that know nothing of each other: the program above them fills
 * this table in. What it needs lies in the step memory of the run, where activations are at other
 * times, and in its scratch.
 */
#ifndef LRD_TRAIN_ANSWERING_H
#define LRD_TRAIN_ANSWERING_H

#include "base/file.h"
#include "comm/grid.h"
#include "model/engine.h"
#include "model/graphs.h"

/* Answers to what; borrowed for as long as the run. */
typedef struct lrd_answering_task {
    const lrd_settings_t *settings;
    const char *model_folder;
    const char *file;         /* SQuAD v2.0 */
    const lrd_names_t *files; /* that `file` stands for; NULL: itself */
    const int64_t *question;  /* [n_questions] of the file, ascending; NULL: all */
    size_t n_questions;
    const lrd_model_config_t *config;
    int n_threads;
    const lrd_stop_t *stop; /* non-zero: open and run leave with LRD_ERR_INTERRUPTED */
} lrd_answering_task_t;

/* Whose answers: a rank of the run, or of one that is only measured; borrowed until it is left. */
typedef struct lrd_answering_place {
    const lrd_grid_t *grid;
    lrd_engine_t *engine;         /* with this rank's layers */
    const lrd_adapter_t *adapter; /* what lies in them */
    bool graphs;                  /* there is room for them */
} lrd_answering_place_t;

typedef struct lrd_answering {
    void *context;
    /* Not collective: reads the questions; takes a place, one at a time, and leaves it. What follows is
     * between the two. */
    lrd_status_t (*open)(void *context, const lrd_answering_task_t *task);
    lrd_status_t (*take)(void *context, const lrd_answering_place_t *place);
    void (*leave)(void *context);
    size_t (*scratch_bytes)(void *context);
    size_t (*pinned_bytes)(void *context);
    /* What graphs take of the device at most, and have taken (model/graphs.h). */
    size_t (*graph_bytes)(void *context);
    lrd_graphs_taken_t (*graphs_taken)(void *context);
    void (*layout)(void *context, lrd_arena_t *model, lrd_arena_t *step);
    lrd_status_t (*prepare)(void *context, lrd_scratch_t scratch);
    /* Percentages, as the official script counts them. Collective; failures are agreed on. */
    lrd_status_t (*run)(void *context, float *params, double *exact_out, double *f1_out);
    void (*close)(void *context); /* leaves first */
} lrd_answering_t;

#endif /* LRD_TRAIN_ANSWERING_H */
