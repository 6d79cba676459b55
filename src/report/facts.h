/* report/facts.h -- what a run has left in its folder (docs/formats.md).
 *
 * Everything may be missing, damaged, or of a run that is still under way: what is there is taken, and
 * `remarks` says what is not. Numbers are those of trainer_state.json, or where it has none (yet) of
 * run.jsonl.
 */
#ifndef LRD_REPORT_FACTS_H
#define LRD_REPORT_FACTS_H

#include "report/series.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Numbers over updates. */
#define LRD_CURVE_LIST(X)                                                                    \
    X(LRD_CURVE_LOSS, "loss")                                                                \
    X(LRD_CURVE_GRAD_NORM, "grad_norm")                                                      \
    X(LRD_CURVE_LEARNING_RATE, "learning_rate")                                              \
    X(LRD_CURVE_EVAL_LOSS, "eval_loss")                                                      \
    X(LRD_CURVE_EVAL_EXACT, "eval_exact")                                                    \
    X(LRD_CURVE_EVAL_F1, "eval_f1")                                                          \
    X(LRD_CURVE_LOSS_SCALE, "loss_scale")                                                    \
    X(LRD_CURVE_TOKEN_RATE, NULL)  /* tokens a second, since the entry before */             \
    X(LRD_CURVE_UPDATE_TIME, NULL) /* seconds an update, likewise */                         \
    X(LRD_CURVE_TIME, NULL)        /* seconds of all updates so far, from the first entry */ \
    X(LRD_CURVE_EPOCH, "epoch")

typedef enum lrd_curve {
#define X(name, key) name,
    LRD_CURVE_LIST(X)
#undef X
        LRD_N_CURVES
} lrd_curve_t;

extern const char *const lrd_curve_key[LRD_N_CURVES]; /* in both files; NULL: computed */

typedef enum lrd_outcome {
    LRD_OUTCOME_DONE,
    LRD_OUTCOME_INTERRUPTED, /* asked to stop: the same command goes on */
    LRD_OUTCOME_FAILED,
    LRD_OUTCOME_OPEN,   /* has not said how it ended: still running, or killed */
    LRD_OUTCOME_UNKNOWN /* nobody wrote it down */
} lrd_outcome_t;

typedef struct lrd_kept {
    int64_t step;
    double bytes;
    bool is_whole;
} lrd_kept_t;

typedef struct lrd_facts {
    const char *folder; /* borrowed: as it was given */
    char *name;         /* its last part */
    lrd_series_t curve[LRD_N_CURVES];
    json_t *state;       /* trainer_state.json, of the folder or its newest checkpoint; or NULL */
    json_t *config;      /* adapter_config.json, likewise */
    json_t *start, *end; /* of run.jsonl: the lines of the last process; NULL: none */
    json_t *resumes;     /* list: the lines of the starts that went on from a checkpoint */
    json_t *warnings;    /* list: the lines of warnings */
    json_t *evaluations; /* list: <name>.evaluation.json, with "name" */
    json_t *remarks;     /* list of texts: what is missing or odd */
    lrd_kept_t *checkpoint; /* [n_checkpoints] ascending */
    size_t n_checkpoints, checkpoint_capacity;
    lrd_outcome_t outcome;
    int64_t step, max_steps; /* updates done, of the run; max_steps 0: not known */
    double adapter_bytes;    /* 0: there is none yet */
    int64_t trainable;       /* parameters; 0: not known */
    double seconds;          /* of all its processes, the first update's preparations to the end */
    double rank_seconds;     /* the same, of all ranks */
    double tokens;           /* that were trained on */
    double skipped;          /* updates that came to nothing */
    double pending;          /* private: seconds of a process that has not told its end */
    bool result_is_other;    /* private: the adapter of the folder itself is an earlier run's */
} lrd_facts_t;

/* Reads all of it. LRD_ERR_ARG: no folder, or one that holds other things and nothing of a run; an empty one is
 * a run that has not begun. Otherwise fails with LRD_ERR_NO_MEMORY only. Close it, also after a failure. */
lrd_status_t lrd_facts_read(const char *folder, lrd_facts_t *facts_out);
void lrd_facts_close(lrd_facts_t *facts); /* {0} is fine */

/* Adds a remark. */
lrd_status_t lrd_facts_remark(lrd_facts_t *facts, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What the run log and the history tell (report/curves.c): first all lines of a run.jsonl, then at most
 * one trainer_state.json of the same run: not one that tells other losses of the same updates. */
lrd_status_t lrd_facts_add_log(lrd_facts_t *facts, const char *text, size_t bytes);
lrd_status_t lrd_facts_compare_state(const lrd_facts_t *facts, const json_t *state,
                                     bool *is_other_out);
lrd_status_t lrd_facts_add_state(lrd_facts_t *facts, json_t *state, const char *name,
                                 bool *taken_out);

/* A setting as run.jsonl has it, or NULL. */
const json_t *lrd_facts_setting(const lrd_facts_t *facts, const char *section, const char *key);

#endif /* LRD_REPORT_FACTS_H */
