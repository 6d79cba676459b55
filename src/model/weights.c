#include "model/weights.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "model/offload.h"

#include <stdio.h>
#include <string.h>

/* One tensor on its way: where it comes from, where it goes. */
typedef struct item {
    lrd_located_t from;
    lrd_cmat_t *to; /* data: mapped, or device memory once laid out */
    int layer;      /* -1: of no block */
    bool stays;     /* mapped, or read from its file when needed: nothing to load */
} item_t;           /* from.entry NULL: of an outline */

struct lrd_weights_plan {
    lrd_weights_files_t *files; /* NULL: an outline */
    item_t *item;
    size_t n, capacity;
    bool imagined; /* the files are taken to hold the compute dtype */
};
typedef struct lrd_weights_plan plan_t;

static lrd_status_t add_item(plan_t *plan, lrd_located_t from, lrd_cmat_t *to, int layer)
{
    lrd_status_t status = LRD_OK;
    LRD_GROW(plan->item, plan->n, plan->capacity);
    plan->item[plan->n++] = (item_t){.from = from, .to = to, .layer = layer};
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
    plan_t *plan = w->plan;
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

enum { PIECE = 16 << 20 }; /* bytes of a file that travel at once */

/* Compares a piece at a time: neither tensor stays in memory. */
static bool are_equal(const lrd_located_t *x, const lrd_located_t *y)
{
    const uint8_t *a = lrd_safetensors_data(x->file, x->entry);
    const uint8_t *b = lrd_safetensors_data(y->file, y->entry);
    const size_t bytes = x->entry->bytes;
    bool equal = bytes == y->entry->bytes && x->entry->dtype == y->entry->dtype;
    for (size_t at = 0; at < bytes && equal; at += PIECE) {
        const size_t n = bytes - at < PIECE ? bytes - at : PIECE;
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
    plan_t *plan = w->plan;
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

/* A block's tensor by its number. */
static int tensor_of(const lrd_weights_t *w, const item_t *item)
{
    return (int)(item->to - &w->block[item->layer * w->config->family->n_block_tensors]);
}

/* Blocks that are not on the device: where their tensors are. */
static lrd_status_t add_offload(lrd_weights_t *w, const lrd_home_t *home)
{
    lrd_status_t status = LRD_OK;
    if (home == NULL)
        goto out;
    LRD_TRY(lrd_offload_create(w, home, &w->offload));
    for (size_t i = 0; i < w->plan->n; i++) {
        const item_t *item = &w->plan->item[i];
        if (item->layer >= 0)
            lrd_offload_locate(w->offload, item->layer, tensor_of(w, item), item->from);
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
    plan_t *plan = w->plan;
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

static size_t bytes_of(const lrd_weights_t *w, const item_t *item)
{
    return (size_t)(item->to->rows * item->to->ld) * lrd_dtype_bytes(w->dtype);
}

bool lrd_weights_in_files(const lrd_weights_t *w)
{
    for (size_t i = 0; i < w->plan->n; i++) {
        const item_t *item = &w->plan->item[i];
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
static void place_in_host(lrd_weights_t *w, item_t *item, lrd_arena_t *arena)
{
    const void *data =
        w->plan->files != NULL ? lrd_safetensors_data(item->from.file, item->from.entry) : NULL;
    item->stays = w->plan->imagined || (data != NULL && item->from.entry->dtype == w->dtype &&
                                        (uintptr_t)data % lrd_dtype_bytes(w->dtype) == 0);
    item->to->data = item->stays ? data : lrd_arena_take(arena, "weights", bytes_of(w, item));
    w->mapped_bytes += item->stays ? bytes_of(w, item) : 0;
}

static void place_on_device(const lrd_weights_t *w, item_t *item, lrd_arena_t *arena)
{
    const lrd_home_t home =
        item->layer >= 0 ? lrd_offload_home(w->offload, item->layer) : LRD_HOME_DEVICE;
    item->stays = home == LRD_HOME_FILE;
    item->to->data =
        home == LRD_HOME_DEVICE ? lrd_arena_take(arena, "weights", bytes_of(w, item)) : NULL;
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

/* The way of a piece of a file to the device: pinned memory, and device memory for it as it is in the
 * file and once it is converted. pinned == NULL: ops read host memory. */
typedef struct stop_over {
    void *pinned;
    uint8_t *device; /* [2][bytes] */
    size_t bytes;
} stop_over_t;

/* Converts n strips from host memory at `src` to device memory at `dst`, or to pinned memory. */
static lrd_status_t carry(const lrd_weights_t *w, lrd_stream_t *st, const stop_over_t *over,
                          const void *src, lrd_dtype_t src_dtype, void *dst, bool to_host,
                          lrd_strip_t strip, int64_t n_strips)
{
    lrd_status_t status = LRD_OK;
    const int64_t n = n_strips * strip.apart;
    const size_t bytes = (size_t)n * lrd_dtype_bytes(src_dtype);
    const bool convert = src_dtype != w->dtype;
    void *converted = to_host ? over->device + over->bytes : dst;
    if (over->pinned == NULL) { /* ops read host memory: no room, whole tensors */
        LRD_TRY(lrd_cast(st, (lrd_scratch_t){0}, &(lrd_cast_t){src, src_dtype, dst, w->dtype, n}));
        goto out;
    }
    if (to_host && !convert) {
        lrd_strips_copy(strip, n_strips, lrd_dtype_bytes(src_dtype), src, dst);
        goto out;
    }
    lrd_strips_copy(strip, n_strips, lrd_dtype_bytes(src_dtype), src, over->pinned);
    LRD_TRY(lrd_copy(st, LRD_COPY_H2D, convert ? over->device : dst, over->pinned, bytes));
    if (convert)
        LRD_TRY(lrd_cast(st, (lrd_scratch_t){0},
                         &(lrd_cast_t){over->device, src_dtype, converted, w->dtype, n}));
    if (to_host)
        LRD_TRY(lrd_copy(st, LRD_COPY_D2H, dst, converted, (size_t)n * lrd_dtype_bytes(w->dtype)));
    LRD_TRY(lrd_stream_sync(st)); /* the pinned piece is used again */
out:
    return status;
}

static lrd_status_t load_item(const lrd_weights_t *w, lrd_stream_t *st, const stop_over_t *over,
                              const item_t *item)
{
    lrd_status_t status = LRD_OK;
    const lrd_tensor_entry_t *e = item->from.entry;
    const uint8_t *src = lrd_safetensors_data(item->from.file, e);
    const int64_t from = (int64_t)lrd_dtype_bytes(e->dtype),
                  to = (int64_t)lrd_dtype_bytes(w->dtype);
    const lrd_strip_t strip = lrd_strips_of(item->to);
    const int64_t n_strips = e->n_elements / strip.length;
    const int64_t most = (int64_t)(over->bytes / sizeof(float)) / strip.apart;
    const bool to_host = item->to->data == NULL;
    uint8_t *dst = (uint8_t *)item->to->data;
    if (to_host)
        dst = lrd_offload_host(w->offload, item->layer, tensor_of(w, item));
    LRD_CHECK(most > 0, LRD_ERR_INTERNAL, "no scratch to load a row of weights");
    for (int64_t at = 0; at < n_strips; at += most) {
        const int64_t n = n_strips - at < most ? n_strips - at : most;
        LRD_TRY(carry(w, st, over, src + at * strip.length * from, e->dtype,
                      dst + at * strip.apart * to, to_host, strip, n));
    }
out:
    return status;
}

static int64_t count_kib(const lrd_weights_t *w)
{
    int64_t kib = 0;
    for (size_t i = 0; i < w->plan->n; i++)
        kib += w->plan->item[i].stays ? 0 : (int64_t)(bytes_of(w, &w->plan->item[i]) >> 10);
    return kib;
}

static lrd_status_t load_items(lrd_weights_t *w, lrd_stream_t *st, const stop_over_t *over,
                               const char *name, const lrd_stop_t *stop)
{
    lrd_status_t status = LRD_OK;
    lrd_progress_t progress;
    int64_t done = 0;
    lrd_progress_begin(&progress, name, "KiB", 0, count_kib(w));
    for (size_t i = 0; i < w->plan->n; i++) {
        const item_t *item = &w->plan->item[i];
        if (item->stays)
            continue;
        LRD_CHECK_STOP(stop);
        LRD_TRY(load_item(w, st, over, item));
        done += (int64_t)(bytes_of(w, item) >> 10);
        lrd_progress_update(&progress, done, NULL);
    }
    LRD_TRY(lrd_stream_sync(st));
    lrd_progress_end(&progress, done);
out:
    return status;
}

lrd_status_t lrd_weights_load(lrd_weights_t *w, lrd_stream_t *st, lrd_scratch_t scratch,
                              const char *name, const lrd_stop_t *stop)
{
    lrd_status_t status = LRD_OK;
    const bool in_place = st->backend->ops->reads_host_memory;
    stop_over_t over = {.bytes = PIECE};
    LRD_CHECK(w->plan->files != NULL, LRD_ERR_INTERNAL, "an outline of weights is not loaded");
    if (w->offload != NULL && !in_place)
        LRD_TRY(lrd_offload_open(w->offload, st->backend));
    if (count_kib(w) == 0)
        goto out;
    if (!in_place) {
        over.bytes = scratch.bytes / 2 < PIECE ? scratch.bytes / 2 : PIECE;
        over.device = scratch.data;
        LRD_TRY(lrd_mem_alloc(st->backend, LRD_MEM_PINNED, PIECE, &over.pinned));
    }
    LRD_TRY(load_items(w, st, &over, name, stop));
out:
    lrd_mem_free(st->backend, LRD_MEM_PINNED, over.pinned, PIECE);
    return status;
}
