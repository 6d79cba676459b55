/* train/run_log.h -- what a run did and what it took: <output_dir>/run.jsonl, one JSON object a line.
 *
 * trainer_state.json holds what Hugging Face's keys have a place for, and is the same on every layout;
 * times, machines, memory and warnings are not, and stand here (docs/formats.md). Lines are appended
 * while the run is under way, so that one that is lost or still running can be looked at
 * (`lora-dist report`). A run that goes on appends to what is there, one that starts begins the file anew
 * with its first update.
 *
 * It is a record for people, no result: where it cannot be written, a warning says so and the training
 * goes on without. Other failures are those of any other function.
 */
#ifndef LRD_TRAIN_RUN_LOG_H
#define LRD_TRAIN_RUN_LOG_H

#include "train/session.h"

typedef struct lrd_run_log {
    int fd;         /* of rank 0 from the first update on; else negative */
    bool off;       /* another rank, or it could not be written */
    lrd_buf_t head; /* the line of the start, until it is written */
    int n_warnings; /* of those that base/log.h keeps: written */
    double begun;
} lrd_run_log_t;

/* What trainer_state.json does not tell of the updates since the last entry. */
typedef struct lrd_run_log_update {
    double loss, grad_norm, learning_rate;
    double loss_scale; /* of float16; else 0 */
    double seconds;    /* evaluations and checkpoints apart */
    double waited;     /* seconds of rank 0, as in lrd_step_result_t */
    int64_t updates, tokens, skipped;
} lrd_run_log_update_t;

/* Puts together the line of the start: who computes what. history.global_step: updates that stand.
 * Collective. */
lrd_status_t lrd_run_log_begin(lrd_run_log_t *log, const lrd_session_t *session);
void lrd_run_log_close(lrd_run_log_t *log); /* after a begin, whatever became of it */

/* Lines of rank 0; no-ops elsewhere. */
lrd_status_t lrd_run_log_update(lrd_run_log_t *log, const lrd_session_t *session,
                                const lrd_run_log_update_t *update);
lrd_status_t lrd_run_log_eval(lrd_run_log_t *log, const lrd_session_t *session,
                              const lrd_eval_result_t *result, double seconds);
lrd_status_t lrd_run_log_checkpoint(lrd_run_log_t *log, const lrd_session_t *session,
                                    double seconds);

/* The shares of an update's micro-batches from here on, and the figures that they follow. */
lrd_status_t lrd_run_log_shares(lrd_run_log_t *log, const lrd_session_t *session);

/* How it ended: "done" or "interrupted", with what no entry tells of the last updates, and what each rank took:
 * seconds of its updates, of these those spent on other ranks, and its peak memory. Collective. */
lrd_status_t lrd_run_log_end(lrd_run_log_t *log, const lrd_session_t *session, const char *state,
                             const lrd_run_log_update_t *rest, double updating, double waited);

/* Why it failed, where this rank still can say so; not where output_dir is another run's now. */
void lrd_run_log_fail(lrd_run_log_t *log, const lrd_session_t *session, const char *why);

#endif /* LRD_TRAIN_RUN_LOG_H */
