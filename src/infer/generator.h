/* infer/generator.h -- continues token sequences, many at a time, each with its own adapter.
 *
 *   request -> slot of the cache -> prompt, in pieces -> one token a step -> reply
 *
 * A step packs what every sequence in work brings, a piece of its prompt or its last token, without
 * padding, grouped by adapter; new requests take the slots that others leave. What a request is
 * given depends on itself alone: prompt, adapter, settings and number, never on its company (to the
 * bit where the backend promises that of its products, as the CPU does).
 *
 * Where there are to be graphs, a step in which the same number of sequences bring a token each, with the
 * same adapters on the same rows, is one launch from the third time on (model/graphs.h).
 */
#ifndef LRD_INFER_GENERATOR_H
#define LRD_INFER_GENERATOR_H

#include "model/relay.h"

#include <signal.h>

/* How tokens are chosen, in transformers' terms. */
typedef struct lrd_sampling {
    bool do_sample; /* false: the most probable token */
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k;
    uint64_t seed;
} lrd_sampling_t;

/* Greedy; when sampling is switched on: temperature 1, top_k 50, top_p 1, as generate() has them. */
lrd_sampling_t lrd_sampling_default(void);

typedef struct lrd_request {
    const int32_t *prompt; /* [n_prompt] borrowed; at least one token, each in the vocabulary */
    int32_t n_prompt;
    int32_t max_new_tokens; /* at least 1 */
    lrd_adapter_use_t use;  /* {0}: the base */
    uint64_t number;        /* names its random numbers, with the seed */
} lrd_request_t;

typedef enum lrd_finish {
    LRD_FINISH_EOS,    /* the model ended it */
    LRD_FINISH_LENGTH, /* max_new_tokens */
    LRD_FINISH_STOP    /* the listener ended it */
} lrd_finish_t;

const char *lrd_finish_name(lrd_finish_t finish); /* "eos", "length", "stop" */

typedef struct lrd_reply {
    int32_t *token; /* [n] owned by the array of replies; the end-of-sequence token included */
    int32_t n;
    lrd_finish_t finish;
} lrd_reply_t;

/* Told of every token as it comes. Each member may be NULL. */
typedef struct lrd_listener {
    void *context;
    /* Request i was given a token (the last of reply->token). *stop_out = true ends it here. */
    lrd_status_t (*token)(void *context, size_t i, const lrd_reply_t *reply, bool *stop_out);
    lrd_status_t (*done)(void *context, size_t i, const lrd_reply_t *reply);
    const volatile sig_atomic_t *cancel; /* non-zero: leave with LRD_ERR_INTERRUPTED */
} lrd_listener_t;

typedef struct lrd_generator_limits {
    int32_t slots;    /* sequences at once */
    int32_t capacity; /* tokens of one: prompt and continuation */
    int64_t rank;     /* the largest of the adapters that requests may name */
    int32_t adapters; /* so many in a step at most; of more it is no graph, as a rule */
    bool penalty;     /* a repetition penalty may be asked for: ids that were seen are kept */
    bool graphs;      /* steps may be graphs: the backend has them, and there is room for them */
} lrd_generator_limits_t;

typedef struct lrd_generator lrd_generator_t;

/* Host side and pinned memory. config's end-of-sequence ids: eos[n_eos], copied. The caller destroys
 * it, before weights and stream. */
lrd_status_t lrd_generator_create(lrd_weights_t *weights, lrd_stream_t *stream,
                                  lrd_generator_limits_t limits, const int32_t *eos, size_t n_eos,
                                  lrd_generator_t **generator_out);
void lrd_generator_destroy(lrd_generator_t *generator); /* NULL is fine */

/* The weights are a stage's: the layers are spread over the ranks of the grid's row, each of which answers
 * the same requests with its own, and lrd_generate is collective on the row. All leave it at the same step
 * with LRD_ERR_INTERRUPTED when the last stage is asked to stop. The grid must outlive the generator. */
void lrd_generator_spread(lrd_generator_t *generator, const lrd_grid_t *grid);

/* For a failure of lrd_generate: one that is this rank's alone ends the job where other ranks of the row
 * wait for it; else returns the status. */
lrd_status_t lrd_generator_abort(const lrd_generator_t *generator, lrd_status_t status);

/* Memory, as lrd_stage_layout takes it; may be called twice, measuring first. Scratch that its ops
 * need. Pinned memory. What graphs take on the device at most. */
void lrd_generator_layout(lrd_generator_t *generator, lrd_arena_t *model, lrd_arena_t *step);
size_t lrd_generator_scratch_bytes(const lrd_generator_t *generator);
size_t lrd_generator_pinned_bytes(const lrd_generator_t *generator);
size_t lrd_generator_graph_bytes(const lrd_generator_t *generator);
lrd_graphs_taken_t lrd_generator_graphs_taken(const lrd_generator_t *generator);

/* Once the memory is there. Synchronizes. */
lrd_status_t lrd_generator_prepare(lrd_generator_t *generator, lrd_scratch_t scratch);

/* Answers n requests; reply[n] is filled, each token list allocated: lrd_replies_release frees them,
 * also after a failure. LRD_ERR_ARG: a request exceeds the limits. LRD_ERR_NONFINITE: a model's
 * logits are not numbers. Collective on the row where layers are spread. */
lrd_status_t lrd_generate(lrd_generator_t *generator, const lrd_sampling_t *sampling,
                          const lrd_request_t *request, size_t n, const lrd_listener_t *listener,
                          lrd_reply_t *reply);
void lrd_replies_release(lrd_reply_t *reply, size_t n);

#endif /* LRD_INFER_GENERATOR_H */
