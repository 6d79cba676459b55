#include "train/calibrate.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* What is tried at most; times are scaled to the rest. */
enum { MOST_TOKENS = 512, MOST_HIDDEN = 1024, MOST_VOCABULARY = 16384, REPEATS = 5 };
static const double most_seconds = 2; /* for the passes of a run */

/* A stage with one run of a model of this shape, and what it works on. */
typedef struct trial {
    lrd_model_config_t config;
    lrd_stream_t *stream;
    lrd_adapter_t *whole, *part;
    lrd_weights_t *weights;
    lrd_stage_t *stage;
    lrd_feed_t feed;
    lrd_memory_t memory;
    lrd_batch_t batch;
    lrd_micro_batch_t held;
    float *pinned;
    double *nll;
} trial_t;

/* The usual micro-batch of the run: so many tokens in so many sequences. */
static void find_usual(const lrd_session_t *s, double *tokens_out, double *sequences_out)
{
    const lrd_training_settings_t *x = &s->o.settings->training;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    const double mean = (double)d->n_tokens / (double)d->n_records;
    double n = (double)x->per_device_train_batch_size;
    if (x->max_tokens_per_micro_batch != LRD_SETTING_NULL)
        n = fmax(1, floor((double)x->max_tokens_per_micro_batch / mean));
    n = fmin(n, (double)d->n_records);
    *sequences_out = n;
    *tokens_out = fmax(n, n * mean);
}

/* What is tried of it: fewer sequences of the same length, one that is cut at least. */
static void find_tried(const lrd_session_t *s, int64_t *tokens_out, int64_t *sequences_out)
{
    double tokens, sequences;
    find_usual(s, &tokens, &sequences);
    const double n = fmax(1, fmin(sequences, floor(MOST_TOKENS * sequences / tokens)));
    *sequences_out = (int64_t)n;
    *tokens_out = (int64_t)fmax(n, fmin(MOST_TOKENS, round(n * tokens / sequences)));
}

/* Every second token is of the first half of the vocabulary; all that can be are targets. */
static lrd_status_t make_batch(trial_t *t, int64_t tokens, int64_t sequences)
{
    lrd_status_t status = LRD_OK;
    lrd_batch_t *b = &t->batch;
    LRD_NEW(b->token, tokens);
    LRD_NEW(b->target, tokens);
    LRD_NEW(b->row_key, tokens);
    LRD_NEW(b->cu_seqlens, sequences + 1);
    b->n_tokens = tokens;
    b->n_sequences = sequences;
    for (int64_t s = 0; s <= sequences; s++)
        b->cu_seqlens[s] = (int32_t)(tokens * s / sequences);
    for (int64_t i = 0; i < tokens; i++) {
        b->row_key[i] = (uint64_t)i;
        b->target[i] = (int32_t)(i % t->config.vocab_size);
    }
out:
    return status;
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    trial_t *t = context;
    const size_t params = (size_t)t->part->n_params * sizeof(float);
    lrd_weights_layout(t->weights, t->stream->backend, model);
    lrd_feed_layout(&t->feed, step);
    lrd_stage_layout(t->stage, model, step);
    t->stage->params = lrd_arena_take(model, "adapter", params);
    t->stage->grads = lrd_arena_take(model, "adapter", params);
    t->nll = lrd_arena_take(step, "buffers", sizeof *t->nll);
}

static void close_trial(trial_t *t)
{
    lrd_mem_free(t->stream->backend, LRD_MEM_PINNED, t->pinned,
                 (size_t)t->config.n_heads * sizeof(float));
    lrd_memory_free(&t->memory);
    lrd_feed_close(&t->feed);
    lrd_stage_destroy(t->stage);
    lrd_weights_close(t->weights);
    lrd_adapter_free(t->part);
    lrd_adapter_free(t->whole);
    lrd_batch_release(&t->batch);
}

/* Close also after a failure. */
static lrd_status_t open_trial(const lrd_session_t *s, lrd_span_t run, trial_t *t)
{
    lrd_status_t status = LRD_OK;
    const lrd_runs_t runs = {.run = &run, .n = 1};
    const size_t pinned_bytes = (size_t)t->config.n_heads * sizeof(float);
    int64_t tokens, sequences;
    bool *keep = NULL;
    find_tried(s, &tokens, &sequences);
    LRD_TRY(lrd_model_adapter_create(&t->config, s->lora, &t->whole));
    LRD_NEW(keep, t->config.n_layers);
    for (int layer = run.first; layer < run.last; layer++)
        keep[layer] = true;
    LRD_TRY(lrd_adapter_part(t->whole, keep, &t->part));
    LRD_TRY(
        lrd_weights_outline(&t->config, &runs, (int)s->engine.weights->dtype, true, &t->weights));
    const lrd_stage_limits_t limits = {.tokens = tokens,
                                       .sequences = sequences,
                                       .max_seqlen = (tokens + sequences - 1) / sequences,
                                       .training = true,
                                       .recompute = s->recompute};
    LRD_TRY(lrd_stage_create(t->weights, t->part, t->stream, limits, &t->stage));
    t->stage->dropout = (float)s->lora->lora_dropout;
    LRD_TRY(lrd_feed_open(t->stream, tokens, sequences, &t->feed));
    LRD_TRY(make_batch(t, tokens, sequences));
    lrd_memory_plan(t->stream->backend, layout, t, lrd_stage_scratch_bytes(t->stage), &t->memory);
    LRD_TRY(lrd_memory_allocate(&t->memory));
    t->stage->scratch = t->memory.scratch;
    LRD_TRY(lrd_zero(t->stream, t->memory.model.base, t->memory.model.capacity));
    LRD_TRY(lrd_zero(t->stream, t->memory.step.base, t->memory.step.capacity));
    LRD_TRY(lrd_mem_alloc(t->stream->backend, LRD_MEM_PINNED, pinned_bytes, (void **)&t->pinned));
    LRD_TRY(lrd_stage_prepare(t->stage, t->pinned));
    LRD_TRY(lrd_feed_upload(&t->feed, &t->batch, &t->held));
    LRD_TRY(lrd_stream_sync(t->stream));
out:
    lrd_free(keep);
    return status;
}

/* The least of a few: what else the machine does only adds. The first warms up. */
static lrd_status_t time_passes(trial_t *t, double *forward_out, double *backward_out)
{
    lrd_status_t status = LRD_OK;
    const double start = lrd_clock_seconds();
    *forward_out = *backward_out = INFINITY;
    for (int i = 0; i <= REPEATS && (i < 2 || lrd_clock_seconds() - start < most_seconds); i++) {
        const double begun = lrd_clock_seconds();
        LRD_TRY(lrd_stage_forward(
            t->stage, &t->held, 0, 0, true,
            &(lrd_stage_loss_t){.inv_n_target = 1.0 / (double)t->batch.n_tokens, .nll = t->nll}));
        LRD_TRY(lrd_stream_sync(t->stream));
        const double middle = lrd_clock_seconds();
        LRD_TRY(lrd_stage_backward(t->stage, &t->held, 0, 0));
        LRD_TRY(lrd_stream_sync(t->stream));
        if (i == 0)
            continue;
        *forward_out = fmin(*forward_out, middle - begun);
        *backward_out = fmin(*backward_out, lrd_clock_seconds() - middle);
    }
out:
    return status;
}

static lrd_status_t time_run(const lrd_session_t *s, const lrd_model_config_t *config,
                             lrd_span_t run, double *forward_out, double *backward_out)
{
    lrd_status_t status = LRD_OK;
    trial_t t = {.config = *config, .stream = s->engine.stream};
    LRD_TRY(open_trial(s, run, &t));
    LRD_TRY(time_passes(&t, forward_out, backward_out));
out:
    close_trial(&t);
    return status;
}

lrd_status_t lrd_calibrate(const lrd_session_t *s, lrd_pass_times_t *times_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_config_t *real = &s->engine.config;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    lrd_model_config_t c = *real;
    lrd_pass_times_t times;
    double nothing;
    if (c.hidden > MOST_HIDDEN) {
        c.n_heads = MOST_HIDDEN / c.head_dim;
        c.hidden = c.n_heads * c.head_dim;
        c.mlp = real->mlp / real->hidden * c.hidden;
    }
    c.vocab_size = c.vocab_size < MOST_VOCABULARY ? c.vocab_size : MOST_VOCABULARY;
    const int last = (int)c.n_layers;
    LRD_TRY(time_run(s, &c, (lrd_span_t){last - 1, last, false, false}, &times.forward,
                     &times.backward));
    LRD_TRY(time_run(s, &c, (lrd_span_t){last, last, false, true}, &times.head, &nothing));
    int64_t tried, sequences;
    double tokens, usual_sequences;
    find_tried(s, &tried, &sequences);
    find_usual(s, &tokens, &usual_sequences);
    const double width = (double)real->hidden / (double)c.hidden, length = tokens / (double)tried;
    times.forward *= length * width * width;
    times.backward *= length * width * width;
    times.head *= length * width * (double)real->vocab_size / (double)c.vocab_size *
                  (double)d->n_targets / (double)d->n_tokens;
    *times_out = times;
out:
    return status;
}

lrd_status_t lrd_calibrate_predict(const lrd_session_t *s, const lrd_pass_times_t *times,
                                   int n_ranks, double *seconds_out, double *utilisation_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_placement_t *p = &s->placement;
    const int n_replicas = n_ranks / p->n_stages;
    lrd_stage_limits_t limits;
    int64_t micro_batches;
    double *forward = NULL, *backward;
    LRD_NEW(forward, 2 * p->n_runs);
    backward = forward + p->n_runs;
    LRD_TRY(lrd_session_limits(s, n_replicas, &limits, &micro_batches));
    for (int run = 0; run < p->n_runs; run++) {
        const lrd_span_t span = lrd_placement_run(p, run);
        const int lowest = s->adapter->lowest_layer;
        const int adapted = span.last - (span.first > lowest ? span.first : lowest);
        forward[run] = times->forward * (span.last - span.first) + (span.head ? times->head : 0);
        backward[run] = adapted > 0 ? times->backward * adapted : 0;
    }
    const lrd_pipe_shape_t shape = {p->n_stages, p->n_runs / p->n_stages,
                                    (micro_batches + n_replicas - 1) / n_replicas,
                                    lrd_pipeline_lowest(p, s->adapter)};
    LRD_TRY(lrd_pipe_predict(shape, &(lrd_pipe_cost_t){forward, backward, 0}, seconds_out,
                             utilisation_out));
out:
    lrd_free(forward);
    return status;
}
