#include "model/weights.h"

#include "base/log.h"
#include "base/mem.h"
#include "model/weights_parts.h"

#include <stdio.h>
#include <string.h>

static lrd_status_t add_item(lrd_weights_plan_t *plan, lrd_located_t from, lrd_cmat_t *to,
                             int layer)
{
    lrd_status_t status = LRD_OK;
    LRD_GROW(plan->item, plan->n, plan->capacity);
    plan->item[plan->n++] = (lrd_weights_item_t){.from = from, .to = to, .layer = layer};
out:
    return status;
}

/* Checks one tensor of the file against its declaration. */
static lrd_status_t check_tensor(const lrd_located_t *t, int64_t rows, int64_t cols, int n_dims)
{
    lrd_status_t status = LRD_OK;
    const lrd_tensor_entry_t *e = t->entry;
    const bool fits =
        e->n_dims == n_dims &&
        (n_dims == 1 ? e->shape[0] == cols : e->shape[0] == rows && e->shape[1] == cols);
    char want[64], have[96] = "";
    if (!fits) {
        size_t at = 0;
        for (int i = 0; i < e->n_dims && at < sizeof have - 24; i++)
            at += (size_t)snprintf(have + at, sizeof have - at, "%s%lld", i > 0 ? ", " : "",
                                   (long long)e->shape[i]);
        if (n_dims == 1)
            snprintf(want, sizeof want, "%lld", (long long)cols);
        else
            snprintf(want, sizeof want, "%lld, %lld", (long long)rows, (long long)cols);
        LRD_FAIL(LRD_ERR_FORMAT, "%s: tensor \"%s\" has shape [%s], config.json asks for [%s]",
                 t->file->path, e->name, have, want);
    }
    LRD_CHECK(e->dtype == LRD_F32 || e->dtype == LRD_F16 || e->dtype == LRD_BF16,
              LRD_ERR_UNSUPPORTED, "%s: tensor \"%s\" is %s; F32, F16 and BF16 are supported",
              t->file->path, e->name, lrd_dtype_file_name(e->dtype));
out:
    return status;
}

/* layer: -1 outside of the blocks. */
static lrd_status_t add_tensor(lrd_weights_t *w, const char *name, const lrd_tensor_decl_t *decl,
                               int layer, lrd_cmat_t *to)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_plan_t *plan = w->plan;
    lrd_located_t from = {NULL, NULL};
    const bool vector = decl->shape[1] == LRD_DIM_NONE;
    const int64_t rows = vector ? 1 : lrd_dim_size(w->config, decl->shape[0]);
    const int64_t cols = lrd_dim_size(w->config, decl->shape[vector ? 0 : 1]);
    if (plan->files != NULL) {
        LRD_CHECK(lrd_weights_files_find(plan->files, w->config->family->prefix, name, &from),
                  LRD_ERR_FORMAT, "%s: tensor \"%s%s\" is missing", plan->files->folder,
                  w->config->family->prefix, name);
        LRD_TRY(check_tensor(&from, rows, cols, vector ? 1 : 2));
    }
    *to = (lrd_cmat_t){NULL, rows, cols, cols, w->dtype};
    LRD_TRY(add_item(plan, from, to, layer));
out:
    return status;
}

static lrd_status_t add_list(lrd_weights_t *w, const char *before, const lrd_tensor_decl_t *decl,
                             int n, int layer, lrd_cmat_t *to)
{
    lrd_status_t status = LRD_OK;
    for (int i = 0; i < n; i++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", before, decl[i].name);
        LRD_TRY(add_tensor(w, name, &decl[i], layer, &to[i]));
    }
out:
    return status;
}

/* Compares a piece at a time: neither tensor stays in memory. */
static bool are_equal(const lrd_located_t *x, const lrd_located_t *y)
{
    const uint8_t *a = lrd_safetensors_data(x->file, x->entry);
    const uint8_t *b = lrd_safetensors_data(y->file, y->entry);
    const size_t bytes = x->entry->bytes;
    bool equal = bytes == y->entry->bytes && x->entry->dtype == y->entry->dtype;
    for (size_t at = 0; at < bytes && equal; at += LRD_WEIGHTS_PIECE) {
        const size_t n = bytes - at < LRD_WEIGHTS_PIECE ? bytes - at : LRD_WEIGHTS_PIECE;
        equal = memcmp(a + at, b + at, n) == 0;
        lrd_file_forget(&x->file->map, x->entry->offset + at, n);
        lrd_file_forget(&y->file->map, y->entry->offset + at, n);
    }
    return equal;
}

/* transformers 5: a head that is in the file and differs from the embedding is not tied,
 * whatever the config says. */
static lrd_status_t add_head(lrd_weights_t *w)
{
    lrd_status_t status = LRD_OK;
    const lrd_family_t *f = w->config->family;
    lrd_weights_plan_t *plan = w->plan;
    const lrd_tensor_decl_t table = {f->embed_tensors[f->word_embeddings].name,
                                     {LRD_DIM_VOCAB, LRD_DIM_HIDDEN}};
    lrd_located_t head, embed;
    const bool has_head = lrd_weights_files_find(plan->files, "", f->head_name, &head);
    const bool has_embed = lrd_weights_files_find(plan->files, f->prefix, table.name, &embed);
    LRD_CHECK(has_head || w->config->tie_word_embeddings, LRD_ERR_FORMAT,
              "%s: config.json says that the head is not tied to the embedding, and tensor \"%s\" "
              "is missing",
              plan->files->folder, f->head_name);
    if (has_head)
        LRD_TRY(check_tensor(&head, w->config->vocab_size, w->config->hidden, 2));
    w->tied = w->config->tie_word_embeddings;
    if (w->tied && has_head && has_embed && (w->has_head || w->has_embed)) {
        w->tied = are_equal(&head, &embed);
        if (!w->tied)
            lrd_warn("%s: the head differs from the embedding although config.json ties them: both "
                     "are used, as "
                     "transformers 5 does",
                     plan->files->folder);
    }
    if (w->has_head && !(w->tied && w->has_embed)) {
        const lrd_tensor_decl_t decl = {has_head ? f->head_name : table.name,
                                        {LRD_DIM_VOCAB, LRD_DIM_HIDDEN}};
        LRD_TRY(add_tensor(w, decl.name, &decl, -1, &w->head));
    }
out:
    return status;
}

static lrd_status_t outline_head(lrd_weights_t *w)
{
    const lrd_tensor_decl_t table = {w->config->family->head_name, {LRD_DIM_VOCAB, LRD_DIM_HIDDEN}};
    return w->has_head && !(w->tied && w->has_embed)
               ? add_tensor(w, table.name, &table, -1, &w->head)
               : LRD_OK;
}

/* A tied file may hold the table under the head's name alone. */
static lrd_status_t add_embedding(lrd_weights_t *w)
{
    lrd_status_t status = LRD_OK;
    const lrd_family_t *f = w->config->family;
    for (int i = 0; i < f->n_embed_tensors; i++) {
        lrd_tensor_decl_t decl = f->embed_tensors[i];
        lrd_located_t found;
        if (i == f->word_embeddings && w->config->tie_word_embeddings && w->plan->files != NULL &&
            !lrd_weights_files_find(w->plan->files, f->prefix, decl.name, &found))
            decl.name = f->head_name;
        LRD_TRY(add_tensor(w, decl.name, &decl, -1, &w->embed[i]));
    }
out:
    return status;
}

static lrd_status_t add_all(lrd_weights_t *w)
{
    lrd_status_t status = LRD_OK;
    const lrd_family_t *f = w->config->family;
    if (w->has_embed)
        LRD_TRY(add_embedding(w));
    for (int r = 0; r < w->runs.n; r++) {
        for (int layer = w->runs.run[r].first; layer < w->runs.run[r].last; layer++) {
            char before[64];
            snprintf(before, sizeof before, "%s%d.", f->block_prefix, layer);
            LRD_TRY(add_list(w, before, f->block_tensors, f->n_block_tensors, layer,
                             &w->block[layer * f->n_block_tensors]));
        }
    }
    if (w->has_head)
        LRD_TRY(add_list(w, "", f->final_tensors, f->n_final_tensors, -1, w->final));
    LRD_TRY(w->plan->files != NULL ? add_head(w) : outline_head(w));
out:
    return status;
}

/* transformers' "auto": what config.json names, else the dtype of the files' tensors. */
static lrd_dtype_t choose_dtype(const lrd_weights_t *w, int dtype)
{
    const lrd_family_t *f = w->config->family;
    lrd_located_t any;
    if (dtype < 0)
        dtype = w->config->dtype;
    if (dtype < 0 && w->plan->files != NULL &&
        lrd_weights_files_find(w->plan->files, f->prefix, f->embed_tensors[f->word_embeddings].name,
                               &any))
        dtype = (int)any.entry->dtype;
    return dtype == LRD_BF16 || dtype == LRD_F16 ? (lrd_dtype_t)dtype : LRD_F32;
}

int lrd_weights_dtype(const lrd_model_settings_t *settings)
{
    static const int dtype[] = {[LRD_MODEL_DTYPE_AUTO] = -1,
                                [LRD_MODEL_DTYPE_FLOAT32] = LRD_F32,
                                [LRD_MODEL_DTYPE_FLOAT16] = LRD_F16,
                                [LRD_MODEL_DTYPE_BFLOAT16] = LRD_BF16};
    return dtype[settings->dtype];
}

static lrd_status_t copy_runs(lrd_weights_t *w, const lrd_runs_t *runs)
{
    lrd_status_t status = LRD_OK;
    lrd_span_t all = {0, (int)w->config->n_layers, true, true};
    const lrd_runs_t whole = {.run = &all, .n = 1}, *from = runs != NULL ? runs : &whole;
    LRD_NEW(w->runs.run, from->n);
    w->runs.n = from->n;
    for (int r = 0; r < from->n; r++) {
        w->runs.run[r] = from->run[r];
        w->has_embed = w->has_embed || from->run[r].embed;
        w->has_head = w->has_head || from->run[r].head;
    }
out:
    return status;
}

/* Weights without any tensor yet. */
static lrd_status_t create_empty(const lrd_model_config_t *config, const lrd_runs_t *runs,
                                 lrd_weights_t **weights_out)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_t *w = NULL;
    const lrd_family_t *f = config->family;
    LRD_NEW(w, 1);
    w->config = config;
    LRD_NEW(w->plan, 1);
    LRD_TRY(copy_runs(w, runs));
    LRD_NEW(w->embed, f->n_embed_tensors);
    LRD_NEW(w->final, f->n_final_tensors);
    LRD_NEW(w->block, config->n_layers * f->n_block_tensors);
    *weights_out = w;
    w = NULL;
out:
    lrd_weights_close(w);
    return status;
}

/* Blocks that are not on the device: where their tensors are. */
static lrd_status_t add_offload(lrd_weights_t *w, const lrd_home_t *home)
{
    lrd_status_t status = LRD_OK;
    if (home == NULL)
        goto out;
    LRD_TRY(lrd_offload_create(w, home, &w->offload));
    for (size_t i = 0; i < w->plan->n; i++) {
        const lrd_weights_item_t *item = &w->plan->item[i];
        if (item->layer >= 0)
            lrd_offload_locate(w->offload, item->layer, lrd_weights_item_tensor(w, item),
                               item->from);
    }
out:
    return status;
}

/* The runs of what these files hold, which are closed with the weights; NULL: an outline. tied counts
 * there alone. */
static lrd_status_t open_from(lrd_weights_files_t *files, const lrd_model_config_t *config,
                              const lrd_runs_t *runs, int dtype, bool tied,
                              lrd_weights_t **weights_out)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_t *w = NULL;
    LRD_TRY(create_empty(config, runs, &w));
    w->plan->files = files;
    files = NULL;
    w->tied = tied;
    w->dtype = choose_dtype(w, dtype);
    LRD_TRY(add_all(w));
    LRD_TRY(add_offload(w, runs != NULL ? runs->home : NULL));
    *weights_out = w;
    w = NULL;
out:
    lrd_weights_files_close(files);
    lrd_weights_close(w);
    return status;
}

lrd_status_t lrd_weights_open(const char *folder, const lrd_model_config_t *config,
                              const lrd_runs_t *runs, int dtype, lrd_weights_t **weights_out)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_files_t *files;
    LRD_TRY(lrd_weights_files_open(folder, &files));
    LRD_TRY(open_from(files, config, runs, dtype, false, weights_out));
out:
    return status;
}

lrd_status_t lrd_weights_outline(const lrd_model_config_t *config, const lrd_runs_t *runs,
                                 int dtype, bool tied, lrd_weights_t **weights_out)
{
    return open_from(NULL, config, runs, dtype, tied, weights_out);
}

/* The tensors of blocks that have room behind their columns. */
static void set_room(lrd_weights_t *w, const int64_t room[LRD_MAX_LINEARS])
{
    const lrd_family_t *f = w->config->family;
    memcpy(w->room, room, sizeof w->room);
    for (int64_t layer = 0; layer < w->config->n_layers; layer++) {
        for (int place = 0; place < f->n_linears; place++) {
            lrd_cmat_t *m = &w->block[layer * f->n_block_tensors + f->linears[place].weight];
            m->ld = m->cols + (m->rows > 0 ? room[place] : 0);
        }
    }
}

void lrd_weights_make_room(lrd_weights_t *w, const lrd_backend_t *backend,
                           const lrd_adapter_t *adapter)
{
    int64_t room[LRD_MAX_LINEARS] = {0};
    for (int64_t layer = 0; layer < w->config->n_layers; layer++) {
        for (int place = 0; place < w->config->family->n_linears; place++) {
            const lrd_adapter_item_t *item = lrd_adapter_find(adapter, (int)layer, place);
            const int64_t columns = lrd_lora_columns(backend, item != NULL ? item->r : 0);
            room[place] = columns > room[place] ? columns : room[place];
        }
    }
    set_room(w, room);
}

lrd_mat_t lrd_weights_room(const lrd_weights_t *w, int layer, int place)
{
    const lrd_cmat_t m = lrd_weights_block(w, layer, w->config->family->linears[place].weight);
    return lrd_room((lrd_mat_t){(void *)m.data, m.rows, m.cols, m.ld, m.dtype}, w->room[place]);
}

lrd_status_t lrd_weights_like(const lrd_weights_t *w, const lrd_runs_t *runs,
                              lrd_weights_t **weights_out)
{
    lrd_weights_files_t *files = w->plan->files;
    const lrd_status_t status = open_from(files != NULL ? lrd_weights_files_share(files) : NULL,
                                          w->config, runs, (int)w->dtype, w->tied, weights_out);
    if (status == LRD_OK) {
        (*weights_out)->plan->imagined = w->plan->imagined;
        set_room(*weights_out, w->room);
    }
    return status;
}

lrd_status_t lrd_weights_move(lrd_weights_t **weights, const char *path)
{
    lrd_status_t status = LRD_OK;
    const lrd_model_config_t *config = (*weights)->config;
    const int dtype = (int)(*weights)->dtype;
    const bool tied = (*weights)->tied;
    int64_t room[LRD_MAX_LINEARS];
    lrd_weights_files_t *files;
    memcpy(room, (*weights)->room, sizeof room);
    lrd_weights_close(*weights);
    *weights = NULL;
    LRD_TRY(lrd_weights_files_open_one(path, &files));
    LRD_TRY(open_from(files, config, NULL, dtype, tied, weights));
    set_room(*weights, room);
out:
    return status;
}

void lrd_weights_imagine_move(lrd_weights_t *w)
{
    w->plan->imagined = true;
}

const lrd_weights_files_t *lrd_weights_files(const lrd_weights_t *w)
{
    return w->plan->files;
}

void lrd_weights_close(lrd_weights_t *w)
{
    if (w == NULL)
        return;
    lrd_weights_plan_t *plan = w->plan;
    lrd_offload_destroy(w->offload);
    if (plan != NULL) {
        lrd_weights_files_close(plan->files);
        lrd_free(plan->item);
        lrd_free(plan);
    }
    lrd_free(w->block);
    lrd_free(w->final);
    lrd_free(w->embed);
    lrd_free(w->runs.run);
    lrd_free(w);
}

bool lrd_weights_in_files(const lrd_weights_t *w)
{
    for (size_t i = 0; i < w->plan->n; i++) {
        const lrd_weights_item_t *item = &w->plan->item[i];
        if (item->layer >= 0 && item->from.entry != NULL && item->from.entry->dtype != w->dtype)
            return false;
    }
    return true;
}

size_t lrd_weights_tensor_bytes(const lrd_weights_t *w, int tensor)
{
    const lrd_family_t *f = w->config->family;
    const lrd_dim_t *shape = f->block_tensors[tensor].shape;
    const int64_t rows = lrd_dim_size(w->config, shape[0]);
    int64_t cols = shape[1] == LRD_DIM_NONE ? 1 : lrd_dim_size(w->config, shape[1]);
    for (int place = 0; place < f->n_linears; place++)
        cols += f->linears[place].weight == tensor ? w->room[place] : 0;
    const size_t bytes = (size_t)(rows * cols) * lrd_dtype_bytes(w->dtype);
    return (bytes + LRD_ARENA_ALIGN - 1) / LRD_ARENA_ALIGN * LRD_ARENA_ALIGN;
}

size_t lrd_weights_block_bytes(const lrd_weights_t *w)
{
    size_t bytes = 0;
    for (int i = 0; i < w->config->family->n_block_tensors; i++)
        bytes += lrd_weights_tensor_bytes(w, i);
    return bytes;
}

/* Memory for a tensor that a back end which reads host memory has: the file itself where it can be. */
static void place_in_host(lrd_weights_t *w, lrd_weights_item_t *item, lrd_arena_t *arena)
{
    const void *data =
        w->plan->files != NULL ? lrd_safetensors_data(item->from.file, item->from.entry) : NULL;
    item->stays = w->plan->imagined || (data != NULL && item->from.entry->dtype == w->dtype &&
                                        (uintptr_t)data % lrd_dtype_bytes(w->dtype) == 0);
    item->to->data =
        item->stays ? data : lrd_arena_take(arena, "weights", lrd_weights_item_bytes(w, item));
    w->mapped_bytes += item->stays ? lrd_weights_item_bytes(w, item) : 0;
}

static void place_on_device(const lrd_weights_t *w, lrd_weights_item_t *item, lrd_arena_t *arena)
{
    const lrd_home_t home =
        item->layer >= 0 ? lrd_offload_home(w->offload, item->layer) : LRD_HOME_DEVICE;
    item->stays = home == LRD_HOME_FILE;
    item->to->data = home == LRD_HOME_DEVICE
                         ? lrd_arena_take(arena, "weights", lrd_weights_item_bytes(w, item))
                         : NULL;
}

void lrd_weights_layout(lrd_weights_t *w, const lrd_backend_t *backend, lrd_arena_t *arena)
{
    w->mapped_bytes = 0;
    for (size_t i = 0; i < w->plan->n; i++) {
        if (backend->ops->reads_host_memory)
            place_in_host(w, &w->plan->item[i], arena);
        else
            place_on_device(w, &w->plan->item[i], arena);
    }
    if (w->offload != NULL && !backend->ops->reads_host_memory)
        lrd_offload_layout(w->offload, arena);
    if (w->tied && w->has_embed)
        w->head = w->embed[w->config->family->word_embeddings];
}

lrd_status_t lrd_weights_use(lrd_weights_t *w, lrd_stream_t *stream, int layer, lrd_pass_t left,
                             lrd_pass_t then)
{
    return w->offload != NULL ? lrd_offload_use(w->offload, stream, layer, left, then) : LRD_OK;
}
