/* train/session.h -- everything that one rank of a run holds: model, data, memory,
 * in the order in which it is made.
 *
 *   model and device -> adapter's shape -> output_dir claimed -> checkpoint to go on from -> data set -> who has which
 *   layers -> loader -> stage, optimizer -> one memory plan -> memory -> weights and parameters loaded
 *
 * Each phase ends in lrd_agree: all ranks fail together, with one cause.
 */
#ifndef LRD_TRAIN_SESSION_H
#define LRD_TRAIN_SESSION_H

#include "base/claim.h"
#include "base/file.h"
#include "base/settings.h"
#include "comm/comm.h"
#include "comm/reduce.h"
#include "data/loader.h"
#include "model/engine.h"
#include "model/pipeline.h"
#include "model/ranks.h"
#include "train/answering.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/optimizer.h"
#include "train/saver.h"
#include "train/shares.h"
#include "train/step.h"

typedef struct lrd_session_options {
    lrd_comm_t *comm;
    const lrd_settings_t *settings; /* checked */
    const char *model_folder;       /* that model.name_or_path names */
    const char *model_commit; /* of the Hub, that is in that folder; NULL: it is of no repository */
    const char *adapter_folder; /* that lora.adapter_name_or_path names, or NULL */
    const lrd_names_t
        *train_files; /* of the data set that data.train_file names; NULL: it is a file */
    const lrd_names_t *eval_files; /* likewise */
    const char *backend;           /* as lrd_backend_open takes it */
    int n_threads;
    const lrd_answering_t *answering; /* NULL: evaluations generate no answers */
    /* To plan: memory of each rank, the last entry for all that follow; NULL: what is free. */
    const int64_t *memory;
    int n_memory;
    const lrd_stop_t *stop; /* becomes non-zero when this rank is asked to stop */
} lrd_session_options_t;

typedef struct lrd_session {
    lrd_session_options_t o;
    bool plans;                       /* nothing will run */
    lrd_settings_t *adapter_settings; /* of lora.adapter_name_or_path, or NULL */
    const lrd_lora_settings_t *lora;  /* what the adapter is made by: theirs, or the run's own */
    lrd_adapter_t *adapter;           /* the whole of it */
    lrd_placement_t placement;
    /* Passes that come again are graphs: the backend has them, and the planner room for them. */
    bool graphs;
    bool
        moves; /* replicas' shares may (train/shares.h): the settings want it, and the planner has room for it */
    lrd_checkpointing_t recompute; /* what the planner made of training.gradient_checkpointing */
    int64_t *rooms;                /* [ranks] bytes that each may use */
    lrd_room_reason_t *room_why;   /* [ranks] and why no more */
    lrd_grid_t grid;
    lrd_runs_t runs;     /* of layers on this rank */
    lrd_adapter_t *part; /* what of the adapter lies in them */
    lrd_engine_t engine;
    bool resumes; /* the run goes on from `checkpoint`, whose arrays are freed after the upload */
    lrd_checkpoint_t checkpoint;
    lrd_history_t history;
    lrd_claim_t *claim;        /* rank 0's, of output_dir */
    lrd_model_identity_t base; /* rank 0's */
    bool starts_over; /* output_dir holds checkpoints of another run, until the first of this one */
    lrd_saver_t saver;           /* of rank 0 */
    lrd_dataset_t *train, *eval; /* eval: NULL without one */
    char data_key[80];           /* of the tokenized training set */
    lrd_loader_t *loader;
    int64_t records_per_update, n_updates;
    int64_t *places; /* [runs] micro-batches at once */
    lrd_stage_t *stage;
    lrd_feed_t feed;
    lrd_pipeline_t *pipeline;
    lrd_reduce_t **reduce; /* [runs]; NULL where the run has no adapters */
    lrd_optimizer_t optimizer;
    lrd_shares_t shares;
    lrd_stepper_t stepper;
    lrd_evaluator_t evaluator;
    int64_t *eval_question; /* of validation_split: the questions that were split off */
    bool answering;         /* o.answering is open */
} lrd_session_t;

/* Only what a plan needs, up to the placement: model (without weights' files, if there are none), adapter,
 * data. options->comm may be imagined. Close it. */
lrd_status_t lrd_session_plan(const lrd_session_options_t *options, lrd_session_t *session_out);

/* The largest micro-batch, and how many an update has over all replicas; the loader that knows, unless NULL: free it. */
lrd_status_t lrd_session_limits(const lrd_session_t *session, int n_replicas,
                                lrd_stage_limits_t *limits_out, int64_t *micro_batches_out,
                                lrd_loader_t **loader_out);

/* What a rank would take in a world of n_ranks, placed like this: measured by the layout of a run, device
 * memory not allocated. */
lrd_status_t lrd_session_measure(const lrd_session_t *session, const lrd_placement_t *placement,
                                 int n_ranks, int rank, lrd_memory_t *memory_out);

/* Makes all of it. On failure it is closed again. LRD_ERR_INTERRUPTED: some rank was asked to stop.
 * Collective. */
lrd_status_t lrd_session_open(const lrd_session_options_t *options, lrd_session_t *session_out);
void lrd_session_close(lrd_session_t *session); /* {0} is fine; not collective */

#endif /* LRD_TRAIN_SESSION_H */
