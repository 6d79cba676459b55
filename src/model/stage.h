/* model/stage.h -- some runs of a model's layers on one device: memory, forward, backward.
 *
 * Memory has three lifetimes, one block each (base/arena.h):
 *   model    weights, adapter, optimizer: as long as the run
 *   step     activations, gradients, inputs: as long as a micro-batch, laid out once
 *   scratch  inside one op
 * lrd_stage_layout runs on a measuring arena for the size and on the real one for the pointers.
 *
 * Blocks from the lowest adapter up keep their activations for the backward pass; those below, and
 * all in evaluation, share one set that the next block overwrites. In a pipeline several
 * micro-batches are between their two passes at once: each has a place of its own in every run. With
 * recomputation a block keeps less, and does part of its forward pass again on the way back, with the
 * same bits.
 */
#ifndef LRD_MODEL_STAGE_H
#define LRD_MODEL_STAGE_H

#include "base/settings.h"
#include "model/family.h"
#include "model/graphs.h"
#include "model/weights.h"

/* What runs may ask of a stage. */
typedef struct lrd_stage_limits {
    int64_t tokens, sequences, max_seqlen; /* of a micro-batch */
    bool training;
    /* [runs] places for micro-batches between their passes through a run; NULL: one each.
     * Borrowed as long as the stage. */
    const int64_t *places;
    /* What is not kept, and computed again on the way back: nothing, the attention's half of each block
     * up to its output, or all of a block but its input. */
    lrd_checkpointing_t recompute;
    /* Passes are launched as graphs where the backend has them: micro-batches of the same sizes come
     * again (model/feed.h), and adapter, dropout, seed and memory stay what they are. */
    bool graphs;
    /* Generation: sequences that are kept at once, tokens of each, and the largest rank of the
     * adapters that micro-batches may name; slots == 0: there is none. */
    int32_t slots, capacity;
    int64_t rank;
} lrd_stage_limits_t;

struct lrd_stage {
    const lrd_family_t *family;
    const lrd_model_config_t *config;
    lrd_weights_t *weights;
    const lrd_adapter_t *adapter; /* its own: what is trained; NULL: the base alone */
    lrd_stream_t *stream;
    lrd_scratch_t scratch;
    lrd_stage_limits_t limits;

    /* Dropout of the adapters' inputs; p == 0 in evaluation. */
    float dropout;
    uint64_t seed;

    float *params; /* device, [adapter->n_params]; set by the owner of the adapter */
    float
        *grads; /* device: where the backward pass accumulates; begins with parameter first_grad */
    int64_t first_grad;
    float *slope; /* device, [n_heads] */

    int lowest_layer, lowest_place; /* of the adapters; lowest_layer == n_layers: there are none */
    int64_t most_places;
    void **state; /* [most_places][n_layers] saved activations of a block, NULL: it keeps none */
    void *shared_state;   /* of runs none of whose blocks keeps any; NULL: there is no such run */
    void *work_state;     /* where blocks work that keep little; NULL without recomputation */
    lrd_graphs_t *graphs; /* NULL: none are wanted */
    bool saving;          /* a backward pass will follow */
    bool recomputing;     /* a forward pass of a block is run again */
    lrd_pass_t then;      /* blocks of the pass behind the one in work, as far as is known */

    /* Device buffers of a micro-batch, [limits.tokens] rows each. */
    lrd_mat_t norm, norm2, out, mlp; /* forward; norm2: the MLP's input; out: a linear's */
    lrd_mat_t final_res, final_norm; /* head: its input before and after the norm */
    float *final_mean, *final_rstd;  /* [T] */
    /* Gradient of the residual stream: [0] of the pass in work, and, with the head, one for each
     * place of its run, where the forward pass leaves it. */
    lrd_mat_t *d;
    lrd_mat_t d_norm, d_qkv, d_mlp, act_mlp; /* backward */
    float *u_shared;                         /* [T, largest R] */

    /* Generation. */
    lrd_kv_cache_t *cache; /* [n_layers] */
    lrd_mat_t last;        /* [sequences, C]: rows whose logits are wanted */

    /* What lrd_stage_lora fills for the next op. */
    lrd_lora_t *lora; /* [sequences, at least 1] */
    lrd_lora_rows_t lora_rows;
    int32_t all_rows[2];
};

/* What the head makes of a micro-batch. */
typedef struct lrd_stage_loss {
    const lrd_step_state_t *state; /* device, or NULL: no loss scale */
    double *nll;                   /* device [micro-batches]: each at its number */
} lrd_stage_loss_t;

/* Host side only: borrows everything it is given. The caller destroys it. */
lrd_status_t lrd_stage_create(lrd_weights_t *weights, const lrd_adapter_t *adapter,
                              lrd_stream_t *stream, lrd_stage_limits_t limits,
                              lrd_stage_t **stage_out);
void lrd_stage_destroy(lrd_stage_t *stage); /* NULL is fine */

/* Memory: constants that outlive a step from `model` (category "constants"), the rest from `step`
 * (categories "activations", "buffers", "cache"). */
void lrd_stage_layout(lrd_stage_t *stage, lrd_arena_t *model, lrd_arena_t *step);

/* Scratch that every op of this stage is satisfied with. */
size_t lrd_stage_scratch_bytes(const lrd_stage_t *stage);

/* Uploads constants; call once, after the layout on real memory.
 * `pinned` holds at least n_heads floats. Synchronizes. */
lrd_status_t lrd_stage_prepare(lrd_stage_t *stage, float *pinned);

/* Passes of this stage may be graphs (model/graphs.h): nothing but their ops is enqueued in them, no weights that
 * travel. */
bool lrd_stage_has_graphs(const lrd_stage_t *stage);

/* Device memory that its graphs take at most. */
size_t lrd_stage_graph_bytes(const lrd_stage_t *stage);

/* Enqueues a part of what the stage's stream does, as a graph if the stage keeps any. The key
 * (lrd_graphs_run) is told from others by its length or its first word. */
lrd_status_t lrd_stage_run_part(lrd_stage_t *stage, lrd_graphs_pass_t *enqueue, void *context,
                                const uint64_t *key, size_t n_words);

/* Where the input of a run [T, C] is expected; a run with the embedding makes it itself. */
lrd_mat_t lrd_stage_input(const lrd_stage_t *stage, const lrd_micro_batch_t *batch, int run,
                          int64_t place);

/* The pass behind the next one, for weights that must travel. Without it: the run behind, forward. */
void lrd_stage_expect(lrd_stage_t *stage, int run, bool backward);

/* Takes a micro-batch forward through a run. Saving: its blocks keep what the backward pass needs, at
 * `place`. With the head: its loss, and, saving, the gradient of its input; `loss` is of no use
 * without the head. Enqueues. */
lrd_status_t lrd_stage_forward(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int run,
                               int64_t place, bool saving, const lrd_stage_loss_t *loss);

/* What a run without the head has made [T, C], valid until the next pass. */
lrd_mat_t lrd_stage_output(const lrd_stage_t *stage, const lrd_micro_batch_t *batch);

/* Takes it back through the run: gradients of A and B accumulated into stage->grads. Enqueues. */
lrd_status_t lrd_stage_backward(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int run,
                                int64_t place);

/* The gradient of a run's output [T, C] before the backward pass, of its input behind it, valid until
 * the next pass; a run with the head has made it in its forward pass. */
lrd_mat_t lrd_stage_gradient(const lrd_stage_t *stage, const lrd_micro_batch_t *batch, int run,
                             int64_t place);

/* The rest is for the run with the head, which a stage has last: the whole model, or what follows where
 * lrd_stage_input is.
 *
 * Logits [T, V] in float32 (device). Enqueues. */
lrd_status_t lrd_stage_logits(lrd_stage_t *stage, const lrd_micro_batch_t *batch, lrd_mat_t logits);

/* Generation: takes the batch's tokens into the cache. Enqueues. */
lrd_status_t lrd_stage_take_in(lrd_stage_t *stage, const lrd_micro_batch_t *batch);

/* The same, and gives the logits [n, V] in float32 (device) of its rows row[0 .. n - 1] (device), behind
 * which tokens are to be chosen; n <= limits.sequences. Enqueues. */
lrd_status_t lrd_stage_next(lrd_stage_t *stage, const lrd_micro_batch_t *batch, const int32_t *row,
                            int64_t n, lrd_mat_t logits);

/* For families: the first `rows` rows of a buffer. */
static inline lrd_mat_t lrd_rows(lrd_mat_t m, int64_t rows)
{
    m.rows = rows;
    return m;
}

/* For families: the adapters of a linear as ops want them; NULL: none of the batch's adapts it.
 * Valid until the next call. *rank_out is the largest rank among them. */
const lrd_lora_rows_t *lrd_stage_lora(lrd_stage_t *stage, const lrd_micro_batch_t *batch, int layer,
                                      int place, int64_t *rank_out);

/* For families: gradient views of the same linear. */
void lrd_stage_lora_grads(const lrd_stage_t *stage, int layer, int place, lrd_mat_t *da_out,
                          lrd_mat_t *db_out);

/* For families: does the backward pass need the gradient of this linear's input? */
bool lrd_stage_needs_dx(const lrd_stage_t *stage, int layer, int place);

/* For families: takes a [limits.tokens, cols] matrix of the compute dtype. */
lrd_mat_t lrd_stage_take(const lrd_stage_t *stage, lrd_arena_t *arena, const char *category,
                         int64_t cols);
/* The same with `room` columns behind (lrd_weights_t.room), which a linear that takes it may need. */
lrd_mat_t lrd_stage_take_roomy(const lrd_stage_t *stage, lrd_arena_t *arena, const char *category,
                               int64_t cols, int64_t room);

#endif /* LRD_MODEL_STAGE_H */
