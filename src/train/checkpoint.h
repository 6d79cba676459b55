/* train/checkpoint.h -- the state of a run in a file, so that it can go on
 * as if nothing had happened.
 *
 *   <output_dir>/checkpoint-N/   state.h5                     this file's business
 *                                adapter_model.safetensors    lora/peft.h
 *                                adapter_config.json, README.md
 *                                trainer_state.json           train/history.h
 *
 * state.h5 (docs/formats.md): arrays params, exp_avg, exp_avg_sq [n_params] float32 in the order of
 * lora/adapter.h, tensor_names and tensor_begin; attributes for everything else, readable with
 * h5dump -A. Nothing in it depends on the number of ranks.
 */
#ifndef LRD_TRAIN_CHECKPOINT_H
#define LRD_TRAIN_CHECKPOINT_H

#include "base/settings.h"
#include "lora/adapter.h"
#include "model/identity.h"
#include "train/history.h"
#include "train/optimizer.h"

typedef struct lrd_checkpoint {
    lrd_optimizer_state_t optimizer; /* arrays [n_params] */
    int64_t step;                    /* updates done, skipped ones included: place in the data */
    int64_t n_updates;               /* of the whole run */
    int64_t records_per_update;
    double loss_sum; /* of the updates since the last log entry */
    int64_t loss_count;
    bool interrupted;          /* the run was asked to stop; it is not finished */
    lrd_settings_t *settings;  /* of the run; borrowed when writing, owned when read */
    char data_key[80];         /* of the tokenized data set */
    char machine[160];         /* what computed, for messages */
    lrd_model_identity_t base; /* empty in a checkpoint of before it was kept */
} lrd_checkpoint_t;

/* Writes <folder>/state.h5. */
lrd_status_t lrd_checkpoint_write(const char *folder, const lrd_adapter_t *adapter,
                                  const lrd_checkpoint_t *checkpoint);

/* Reads it; the arrays are allocated. LRD_ERR_FORMAT: damaged.
 * LRD_ERR_CONFIG: it is of another adapter. */
lrd_status_t lrd_checkpoint_read(const char *folder, const lrd_adapter_t *adapter,
                                 lrd_checkpoint_t *checkpoint_out);
void lrd_checkpoint_release(lrd_checkpoint_t *checkpoint); /* what reading has allocated */

/* Steps of the checkpoint-N folders in output_dir, ascending; lrd_free(*steps_out). An absent
 * folder has none. Folders under construction do not count. */
lrd_status_t lrd_checkpoint_list(const char *output_dir, int64_t **steps_out, size_t *n_out);

/* Removes what a killed run has left half-written in output_dir, which belongs to one run at a time. */
lrd_status_t lrd_checkpoint_tidy(const char *output_dir);

/* "<output_dir>/checkpoint-N"; lrd_free it; NULL: out of memory. */
char *lrd_checkpoint_path(const char *output_dir, int64_t step);

#endif /* LRD_TRAIN_CHECKPOINT_H */
