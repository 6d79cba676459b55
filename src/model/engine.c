#include "model/engine.h"

#include "base/mem.h"
#include "model/weights_copy.h"

#include <string.h>

lrd_status_t lrd_engine_open(const lrd_engine_options_t *o, lrd_engine_t *e)
{
    lrd_status_t status = LRD_OK;
    const lrd_product_options_t products = {.tuning_file = o->tuning_file, .tf32 = o->tf32};
    size_t total_bytes;
    *e = (lrd_engine_t){.stop = o->stop};
    LRD_TRY(lrd_model_config_read(o->folder, &e->config));
    LRD_TRY(lrd_backend_open(o->backend,
                             &(lrd_backend_options_t){o->device_index, o->n_threads, &products},
                             &e->backend));
    LRD_TRY(lrd_backend_describe(e->backend, e->machine, sizeof e->machine));
    LRD_TRY(lrd_stream_create(e->backend, &e->stream));
    LRD_TRY(lrd_mem_info(e->backend, &e->free_bytes, &total_bytes));
    if (o->may_lack_weights && !lrd_weights_files_exist(o->folder))
        LRD_TRY(lrd_weights_outline(&e->config, NULL, o->dtype, e->config.tie_word_embeddings,
                                    &e->weights));
    else
        LRD_TRY(lrd_weights_open(o->folder, &e->config, NULL, o->dtype, &e->weights));
out:
    if (status != LRD_OK)
        lrd_engine_close(e);
    return status;
}

static bool any_in_files(const lrd_engine_t *e, const lrd_home_t *home)
{
    for (int64_t layer = 0; home != NULL && layer < e->config.n_layers; layer++) {
        if (home[layer] == LRD_HOME_FILE)
            return true;
    }
    return false;
}

/* Goes on with the copy. */
static lrd_status_t move_weights(lrd_engine_t *e, lrd_comm_t *comm, const char *folder)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    LRD_TRY(
        lrd_weights_copy_make(&(lrd_weights_copy_options_t){.comm = comm,
                                                            .stream = e->stream,
                                                            .files = lrd_weights_files(e->weights),
                                                            .dtype = e->weights->dtype,
                                                            .folder = folder,
                                                            .stop = e->stop},
                              &path));
    LRD_TRY(lrd_weights_move(&e->weights, path));
out:
    lrd_free(path);
    return lrd_agree(comm, status);
}

lrd_status_t lrd_engine_prepare_files(lrd_engine_t *e, lrd_comm_t *comm, const lrd_home_t *home,
                                      const char *folder, bool only_plans)
{
    lrd_status_t status = LRD_OK;
    if (!any_in_files(e, home) || lrd_weights_in_files(e->weights))
        return LRD_OK;
    LRD_CHECK(folder != NULL, LRD_ERR_CONFIG,
              "blocks are to lie on disk in %s, and the model's files have another dtype: name a "
              "parallel.offload_folder for a copy that has it, or choose their dtype (model.dtype)",
              lrd_dtype_file_name(e->weights->dtype));
    if (only_plans)
        lrd_weights_imagine_move(e->weights);
out:
    status = lrd_agree(comm, status);
    return status == LRD_OK && !only_plans ? move_weights(e, comm, folder) : status;
}

lrd_status_t lrd_engine_keep(lrd_engine_t *e, const lrd_runs_t *runs)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_t *kept;
    LRD_TRY(lrd_weights_like(e->weights, runs, &kept));
    lrd_weights_close(e->weights);
    e->weights = kept;
out:
    return status;
}

void lrd_engine_close(lrd_engine_t *e)
{
    lrd_weights_close(e->weights);
    lrd_memory_free(&e->memory);
    lrd_stream_destroy(e->stream);
    lrd_backend_close(e->backend);
    *e = (lrd_engine_t){.layout = NULL};
}

static void layout(void *context, lrd_arena_t *model, lrd_arena_t *step)
{
    lrd_engine_t *e = context;
    lrd_weights_layout(e->weights, e->backend, model);
    e->layout(e->context, model, step);
}

void lrd_engine_plan(lrd_engine_t *e, lrd_layout_t *users, void *context, size_t scratch_bytes)
{
    e->layout = users;
    e->context = context;
    lrd_memory_plan(e->backend, layout, e, scratch_bytes, &e->memory);
    e->memory.nccl = e->nccl;
    e->memory.mapped_bytes = e->weights->mapped_bytes;
    e->memory.host_bytes = e->weights->host_bytes;
    e->memory.file_bytes = e->weights->file_bytes;
}

lrd_status_t lrd_engine_allocate(lrd_engine_t *e)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_memory_allocate(&e->memory));
    /* Nothing is in the step's memory yet. */
    LRD_TRY(lrd_weights_load(e->weights, e->stream,
                             (lrd_scratch_t){e->memory.step.base, e->memory.step.capacity},
                             "Loading weights", e->stop));
out:
    return status;
}

size_t lrd_engine_base_bytes(const lrd_engine_t *e)
{
    const lrd_arena_t *a = &e->memory.model;
    size_t bytes = e->memory.mapped_bytes + e->memory.host_bytes + e->memory.file_bytes;
    for (int i = 0; i < a->n_categories; i++)
        bytes += strcmp(a->category[i].name, "weights") == 0 ? a->category[i].bytes : 0;
    return bytes;
}
