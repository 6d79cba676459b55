#include "train/calibrate.h"

#include "base/clock.h"
#include "base/mem.h"
#include "model/ranks.h"

#include <math.h>
#include <string.h>

/* What is tried at most; times are scaled to the rest. A sequence is tried as a whole where it can be: the
 * attention grows with its square. Of the vocabulary enough for its weights not to fit into a cache, all of
 * it where there are few targets. */
enum { MOST_TOKENS = 512, LONGEST = 2048, MOST_HIDDEN = 1024, MOST_LOGITS = 512 << 15 };
static const double most_table_bytes = 0x1p29;
enum { MOST_BLOCKS = 2, REPEATS = 5 };
static const double most_seconds = 3; /* for all passes, but for two */

/* The runs of layers that are timed one by one, in this order: as they follow each other in a model, so
 * that each finds the caches as it would there. */
enum { EMBED, LOWEST, ABOVE, HEAD, N_RUNS };

/* A micro-batch. */
typedef struct load {
    double tokens, sequences, targets;
} load_t;

/* A stage with some layers of a model of this shape, and what it works on. */
typedef struct trial {
    lrd_model_config_t config;
    lrd_stream_t *stream;
    lrd_span_t run[N_RUNS]; /* ABOVE: without a block where the lowest adapter is in the last one */
    load_t load;
    lrd_adapter_t *whole, *part;
    lrd_weights_t *weights;
    lrd_stage_t *stage;
    lrd_feed_t feed;
    lrd_memory_t memory;
    lrd_batch_t batch;
    lrd_micro_batch_t held;
    void *pinned;
    size_t pinned_bytes;
    double *nll;
} trial_t;

/* Seconds of the runs' passes, the least of a few: what else the machine does only adds. */
typedef struct laps {
    double forward[N_RUNS], backward[N_RUNS], copy;
} laps_t;

/* The usual micro-batch of the run. */
static load_t find_usual(const lrd_session_t *s)
{
    const lrd_training_settings_t *x = &s->o.settings->training;
    const lrd_dataset_info_t *d = lrd_dataset_info(s->train);
    const double mean = (double)d->n_tokens / (double)d->n_records;
    double n = (double)x->per_device_train_batch_size;
    if (x->max_tokens_per_micro_batch != LRD_SETTING_NULL)
        n = fmax(1, floor((double)x->max_tokens_per_micro_batch / mean));
    n = fmin(n, (double)d->n_records);
    return (load_t){n * mean, n, n * (double)d->n_targets / (double)d->n_records};
}

/* What is tried of it: fewer sequences of the same length, one that is cut at least, with as many targets
 * as there are, or with nothing else. */
static load_t find_tried(load_t usual)
{
    const double length = usual.tokens / usual.sequences;
    const double n = fmax(1, fmin(usual.sequences, floor(MOST_TOKENS / length)));
    const double tokens = fmax(n, fmin(LONGEST, round(n * length)));
    const double targets = fmin(fmin(tokens, MOST_TOKENS), ceil(usual.targets));
    return (load_t){tokens, n, targets};
}

/* The first tokens are the targets. */
static lrd_status_t make_batch(trial_t *t)
{
    lrd_status_t status = LRD_OK;
    lrd_batch_t *b = &t->batch;
    b->n_tokens = (int64_t)t->load.tokens;
    b->n_sequences = (int64_t)t->load.sequences;
    b->n_targets = (int64_t)t->load.targets;
    LRD_NEW(b->token, b->n_tokens);
    LRD_NEW(b->target, b->n_tokens);
    LRD_NEW(b->row_key, b->n_tokens);
    LRD_NEW(b->cu_seqlens, b->n_sequences + 1);
    for (int64_t s = 0; s <= b->n_sequences; s++)
        b->cu_seqlens[s] = (int32_t)(b->n_tokens * s / b->n_sequences);
    for (int64_t i = 0; i < b->n_tokens; i++) {
        b->row_key[i] = (uint64_t)i;
        b->token[i] = (int32_t)(i * 7919 % t->config.vocab_size);
        b->target[i] = i < b->n_targets ? b->token[i] : LRD_NO_TARGET;
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
    lrd_mem_free(t->stream->backend, LRD_MEM_PINNED, t->pinned, t->pinned_bytes);
    lrd_memory_free(&t->memory);
    lrd_feed_close(&t->feed);
    lrd_stage_destroy(t->stage);
    lrd_weights_close(t->weights);
    lrd_adapter_free(t->part);
    lrd_adapter_free(t->whole);
    lrd_batch_release(&t->batch);
}

static void find_runs(trial_t *t, int lowest)
{
    const int last = (int)t->config.n_layers, first = lowest < last ? lowest : last - 1;
    const int above = first + 1 + MOST_BLOCKS < last ? first + 1 + MOST_BLOCKS : last;
    t->run[EMBED] = (lrd_span_t){0, 0, true, false};
    t->run[LOWEST] = (lrd_span_t){first, first + 1, false, false};
    t->run[ABOVE] = (lrd_span_t){first + 1, above, false, false};
    t->run[HEAD] = (lrd_span_t){last, last, false, true};
}

static lrd_status_t open_stage(const lrd_session_t *s, trial_t *t)
{
    lrd_status_t status = LRD_OK;
    const lrd_runs_t runs = {.run = t->run, .n = N_RUNS};
    bool *keep = NULL;
    LRD_TRY(lrd_model_adapter_create(&t->config, s->lora, &t->whole));
    find_runs(t, s->adapter->lowest_layer);
    LRD_NEW(keep, t->config.n_layers);
    for (int layer = t->run[LOWEST].first; layer < t->run[ABOVE].last; layer++)
        keep[layer] = true;
    LRD_TRY(lrd_adapter_part(t->whole, keep, &t->part));
    LRD_TRY(
        lrd_weights_outline(&t->config, &runs, (int)s->engine.weights->dtype, true, &t->weights));
    lrd_weights_make_room(t->weights, t->stream->backend, t->whole);
    const lrd_stage_limits_t limits = {
        .tokens = t->batch.n_tokens,
        .sequences = t->batch.n_sequences,
        .max_seqlen = (t->batch.n_tokens + t->batch.n_sequences - 1) / t->batch.n_sequences,
        .training = true,
        .recompute = s->recompute};
    LRD_TRY(lrd_stage_create(t->weights, t->part, t->stream, limits, &t->stage));
    t->stage->dropout = (float)s->lora->lora_dropout;
out:
    lrd_free(keep);
    return status;
}

static size_t message_bytes(const trial_t *t)
{
    return (size_t)(t->batch.n_tokens * t->config.hidden) * lrd_dtype_bytes(t->weights->dtype);
}

/* Close also after a failure. */
static lrd_status_t open_trial(const lrd_session_t *s, trial_t *t)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(make_batch(t));
    LRD_TRY(open_stage(s, t));
    LRD_TRY(lrd_feed_open(t->stream, t->batch.n_tokens, t->batch.n_sequences, &t->feed));
    lrd_memory_plan(t->stream->backend, layout, t, lrd_stage_scratch_bytes(t->stage), &t->memory);
    LRD_TRY(lrd_memory_allocate(&t->memory));
    t->stage->scratch = t->memory.scratch;
    if (lrd_ranks_use_files(&s->o.settings->parallel, &s->engine))
        lrd_pages_keep_small(t->memory.model.base, t->memory.model.capacity);
    LRD_TRY(lrd_zero(t->stream, t->memory.model.base, t->memory.model.capacity));
    LRD_TRY(lrd_zero(t->stream, t->memory.step.base, t->memory.step.capacity));
    t->pinned_bytes = message_bytes(t) + (size_t)t->config.n_heads * sizeof(float);
    LRD_TRY(lrd_mem_alloc(t->stream->backend, LRD_MEM_PINNED, t->pinned_bytes, &t->pinned));
    LRD_TRY(lrd_stage_prepare(t->stage, t->pinned));
out:
    return status;
}

/* Seconds of what was enqueued since *at, which becomes now. */
static lrd_status_t lap(const trial_t *t, double *at, double *least)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_stream_sync(t->stream));
    const double now = lrd_clock_seconds();
    *least = fmin(*least, now - *at);
    *at = now;
out:
    return status;
}

static lrd_status_t run_once(trial_t *t, laps_t *laps)
{
    lrd_status_t status = LRD_OK;
    const lrd_stage_loss_t loss = {.nll = t->nll};
    const lrd_ce_call_t call = {.inv_n_target = 1.0 / fmax(1, t->load.targets)};
    const lrd_mat_t out = t->stage->out;
    double at = lrd_clock_seconds();
    LRD_TRY(lrd_feed_upload(&t->feed, &t->batch, call, &t->held));
    for (int r = EMBED; r < N_RUNS; r++) {
        LRD_TRY(lrd_stage_forward(t->stage, &t->held, r, 0, true, &loss));
        LRD_TRY(lap(t, &at, &laps->forward[r]));
    }
    for (int r = ABOVE; r >= LOWEST; r--) {
        LRD_TRY(lrd_stage_backward(t->stage, &t->held, r, 0));
        LRD_TRY(lap(t, &at, &laps->backward[r]));
    }
    LRD_TRY(lrd_copy(t->stream, LRD_COPY_D2H, t->pinned, out.data, message_bytes(t)));
    LRD_TRY(lap(t, &at, &laps->copy));
out:
    return status;
}

/* The first pass warms up. */
static lrd_status_t time_passes(trial_t *t, laps_t *laps_out)
{
    lrd_status_t status = LRD_OK;
    laps_t first, laps = {.copy = INFINITY};
    const double begun = lrd_clock_seconds();
    for (int r = 0; r < N_RUNS; r++)
        laps.forward[r] = laps.backward[r] = INFINITY;
    first = laps;
    LRD_TRY(run_once(t, &first));
    for (int i = 0; i < REPEATS && (i == 0 || lrd_clock_seconds() - begun < most_seconds); i++)
        LRD_TRY(run_once(t, &laps));
    *laps_out = laps;
out:
    return status;
}

/* A model that is narrow enough to try with so many targets. */
static lrd_model_config_t narrow(const lrd_session_t *s, double targets)
{
    const lrd_model_config_t *real = &s->engine.config;
    lrd_model_config_t c = *real;
    if (c.hidden > MOST_HIDDEN) {
        c.n_heads = MOST_HIDDEN / c.head_dim;
        c.hidden = c.n_heads * c.head_dim;
        c.mlp = real->mlp / real->hidden * c.hidden;
    }
    const double row_bytes = (double)c.hidden * (double)lrd_dtype_bytes(s->engine.weights->dtype);
    c.vocab_size = (int64_t)fmin(
        (double)c.vocab_size, fmin(MOST_LOGITS / fmax(1, targets), most_table_bytes / row_bytes));
    return c;
}

/* From what was tried to the real thing. */
static lrd_pass_times_t scale(const lrd_model_config_t *real, const trial_t *t, const laps_t *laps,
                              load_t usual)
{
    const double width = (double)real->hidden / (double)t->config.hidden;
    const double length = usual.tokens / t->load.tokens;
    const double head = usual.targets / fmax(1, t->load.targets) * width *
                        (double)real->vocab_size / (double)t->config.vocab_size;
    const int n = t->run[ABOVE].last - t->run[ABOVE].first, block = n > 0 ? ABOVE : LOWEST;
    const double each = length * width * width / (n > 1 ? n : 1);
    return (lrd_pass_times_t){.embed = length * width * laps->forward[EMBED],
                              .forward = each * laps->forward[block],
                              .backward = each * laps->backward[block],
                              .lowest_backward = length * width * width * laps->backward[LOWEST],
                              .head = head * laps->forward[HEAD],
                              .copy = length * width * laps->copy};
}

double lrd_calibrate_usual_tokens(const lrd_session_t *s)
{
    return find_usual(s).tokens;
}

lrd_status_t lrd_calibrate(const lrd_session_t *s, lrd_pass_times_t *times_out)
{
    lrd_status_t status = LRD_OK;
    const load_t usual = find_usual(s), tried = find_tried(usual);
    trial_t t = {.config = narrow(s, tried.targets), .stream = s->engine.stream, .load = tried};
    laps_t laps;
    LRD_TRY(open_trial(s, &t));
    LRD_TRY(time_passes(&t, &laps));
    *times_out = scale(&s->engine.config, &t, &laps, usual);
out:
    close_trial(&t);
    return status;
}
