/* train/saver.h -- checkpoints are written beside the training.
 *
 * Between two updates the state is copied to host memory (a snapshot); a thread writes it while the
 * training goes on. One snapshot is under way at a time: the next one waits for it. Rank 0's alone.
 */
#ifndef LRD_TRAIN_SAVER_H
#define LRD_TRAIN_SAVER_H

#include "base/buf.h"
#include "train/checkpoint.h"

#include <pthread.h>
#include <stdatomic.h>

/* All that a checkpoint folder will hold, and what is to become of others. */
typedef struct lrd_snapshot {
    const lrd_settings_t *settings;  /* borrowed */
    const lrd_lora_settings_t *lora; /* borrowed */
    const lrd_adapter_t *adapter;    /* borrowed */
    const char *revision;            /* of the base, for PEFT; borrowed; NULL: none */
    lrd_checkpoint_t checkpoint;     /* its arrays are the saver's */
    lrd_buf_t about, history;        /* of the model card; trainer_state.json */
    int64_t best_step;               /* a checkpoint to keep; negative: none */
    bool alone; /* the first of a run that starts over: older checkpoints are of another run */
} lrd_snapshot_t;

/* Adapter, card and trainer_state.json, into a folder that is there. */
lrd_status_t lrd_snapshot_write_adapter(const lrd_snapshot_t *snapshot, const char *folder);

typedef struct lrd_saver {
    lrd_snapshot_t snapshot;
    float *memory; /* [3 n_params] */
    pthread_t thread;
    bool running;        /* the thread is to be joined */
    atomic_bool failed;  /* as seen by the thread that trains */
    lrd_status_t status; /* of the thread, once joined; and why */
    char cause[LRD_ERROR_BYTES];
} lrd_saver_t;

/* Room for snapshots of n_params. */
lrd_status_t lrd_saver_open(lrd_saver_t *saver, int64_t n_params);
/* Waits for what is being written, whatever becomes of it. {0} is fine. */
void lrd_saver_close(lrd_saver_t *saver);

/* Writes <output_dir>/checkpoint-N, N = snapshot.checkpoint.step, and removes old ones beyond
 * save_total_limit, never this one or the best. The snapshot was filled in after a wait, and is left
 * alone until the next. */
lrd_status_t lrd_saver_start(lrd_saver_t *saver);

/* What became of the last start: at once, LRD_OK while it is being written; or waiting for it. */
lrd_status_t lrd_saver_poll(lrd_saver_t *saver);
lrd_status_t lrd_saver_wait(lrd_saver_t *saver);

#endif /* LRD_TRAIN_SAVER_H */
