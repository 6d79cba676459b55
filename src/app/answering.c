#include "app/answering.h"

#include "infer/inference.h"

static lrd_status_t open_answering(void *context, const lrd_answering_task_t *task)
{
    lrd_app_answering_t *a = context;
    const lrd_settings_t *x = task->settings;
    a->task = *task;
    return lrd_squad_prompts_open(
        &(lrd_squad_prompts_spec_t){.path = task->file,
                                    .files = task->files,
                                    .model_folder = task->model_folder,
                                    .settings = &x->data,
                                    .vocab_size = task->config->vocab_size,
                                    .max_new_tokens =
                                        (int32_t)x->training.generation_max_new_tokens,
                                    .question = task->question,
                                    .n_questions = task->n_questions,
                                    .n_threads = task->n_threads,
                                    .stop = task->stop},
        &a->prompts);
}

static lrd_status_t take_place(void *context, const lrd_answering_place_t *place)
{
    lrd_status_t status = LRD_OK;
    lrd_app_answering_t *a = context;
    const lrd_settings_t *x = a->task.settings;
    int32_t eos[LRD_MAX_EOS];
    size_t n_eos;
    int64_t rank = 0;
    a->place = *place;
    LRD_TRY(lrd_inference_find_eos(a->task.model_folder, a->task.config, eos, &n_eos));
    for (int i = 0; i < place->adapter->n_items; i++)
        rank = place->adapter->items[i].r > rank ? place->adapter->items[i].r : rank;
    const int64_t n = (int64_t)a->prompts.n, batch = x->training.per_device_eval_batch_size;
    LRD_TRY(lrd_generator_create(
        place->engine->weights, place->engine->stream,
        (lrd_generator_limits_t){.slots = (int32_t)(n < batch ? n : batch),
                                 .capacity = lrd_squad_prompts_capacity(&a->prompts),
                                 .rank = rank,
                                 .graphs = place->graphs},
        eos, n_eos, &a->generator));
    lrd_generator_spread(a->generator, place->grid);
out:
    return status;
}

static void leave_place(void *context)
{
    lrd_app_answering_t *a = context;
    lrd_generator_destroy(a->generator);
    a->generator = NULL;
}

static size_t scratch_bytes(void *context)
{
    return lrd_generator_scratch_bytes(((lrd_app_answering_t *)context)->generator);
}

static size_t pinned_bytes(void *context)
{
    return lrd_generator_pinned_bytes(((lrd_app_answering_t *)context)->generator);
}

static size_t graph_bytes(void *context)
{
    return lrd_generator_graph_bytes(((lrd_app_answering_t *)context)->generator);
}

static lrd_graphs_taken_t graphs_taken(void *context)
{
    return lrd_generator_graphs_taken(((lrd_app_answering_t *)context)->generator);
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    lrd_generator_layout(((lrd_app_answering_t *)context)->generator, model, step);
}

static lrd_status_t prepare(void *context, lrd_scratch_t scratch)
{
    return lrd_generator_prepare(((lrd_app_answering_t *)context)->generator, scratch);
}

static lrd_status_t run(void *context, float *params, double *exact_out, double *f1_out)
{
    lrd_status_t status = LRD_OK;
    lrd_app_answering_t *a = context;
    lrd_squad_replies_t replies = {0};
    const lrd_sampling_t greedy = lrd_sampling_default();
    const lrd_adapter_use_t use = {a->place.adapter, params};
    /* The ranks of a row have the same answers: each of them gathers those of its column. */
    LRD_TRY(lrd_squad_answer_all(a->place.grid->column, &a->prompts, a->generator, &greedy, use,
                                 a->task.stop, &replies));
    status = lrd_squad_replies_score(&a->prompts, &replies, exact_out, f1_out);
    LRD_TRY(lrd_agree(a->place.grid->world, status));
out:
    lrd_squad_replies_release(&replies);
    return status;
}

static void close_answering(void *context)
{
    lrd_app_answering_t *a = context;
    leave_place(a);
    lrd_squad_prompts_close(&a->prompts);
    *a = (lrd_app_answering_t){.generator = NULL};
}

lrd_answering_t lrd_app_answering(lrd_app_answering_t *state)
{
    return (lrd_answering_t){.context = state,
                             .open = open_answering,
                             .take = take_place,
                             .leave = leave_place,
                             .scratch_bytes = scratch_bytes,
                             .pinned_bytes = pinned_bytes,
                             .graph_bytes = graph_bytes,
                             .graphs_taken = graphs_taken,
                             .layout = layout,
                             .prepare = prepare,
                             .run = run,
                             .close = close_answering};
}

bool lrd_app_answers(const lrd_settings_t *settings)
{
    return settings->training.predict_with_generate ||
           settings->training.metric_for_best_model != LRD_METRIC_LOSS;
}
