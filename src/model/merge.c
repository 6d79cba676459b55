#include "model/merge.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "lora/peft.h"
#include "model/merge_files.h"
#include "model/weights.h"

#include <stdio.h>
#include <string.h>

enum { PIECE = 16 << 20 }; /* bytes of a file that travel at once */

struct lrd_merge {
    lrd_merge_spec_t s;
    lrd_weights_files_t *files;
    lrd_names_t rest; /* files that are copied */
    char *out;        /* resolved */
    char *partial;    /* under construction; NULL: there is none */
    float *params;    /* pinned [n_params] */
    float *factors;   /* the same on the device; params itself where ops read host memory */
    void *pinned;     /* rows of a weight on their way to the file */
    void *device;     /* the same on a device that reads no host memory */
    size_t params_bytes, piece_bytes, total_bytes, done_bytes;
    lrd_progress_t progress;
};

static bool reads_host(const lrd_merge_t *m)
{
    return m->s.stream->backend->ops->reads_host_memory;
}

/* Whether the name, which has the family's prefix or not, is that of the item's weight. */
static bool is_weight_of(const lrd_family_t *f, const lrd_adapter_item_t *item, const char *name)
{
    char want[256];
    const size_t n = strlen(f->prefix);
    snprintf(want, sizeof want, "%s%d.%s", f->block_prefix, item->layer,
             f->block_tensors[f->linears[item->place].weight].name);
    return strcmp(strncmp(name, f->prefix, n) == 0 ? name + n : name, want) == 0;
}

/* The item that adapts this tensor, or NULL. */
static const lrd_adapter_item_t *find_item(const lrd_merge_t *m, const lrd_tensor_entry_t *entry)
{
    for (int i = 0; i < m->s.adapter->n_items; i++) {
        const lrd_adapter_item_t *item = &m->s.adapter->items[i];
        if (is_weight_of(m->s.config->family, item, entry->name))
            return item;
    }
    return NULL;
}

/* Rows of a weight that travel at once. */
static int64_t rows_at_once(int64_t n_rows, size_t row_bytes)
{
    const int64_t fit = (int64_t)(PIECE / row_bytes);
    return fit < 1 ? 1 : fit < n_rows ? fit : n_rows;
}

/* ---- before the work -------------------------------------------------------------------------- */

/* Every tensor of the model is there with the right shape. A second tensor of that name, in another
 * shard, was not looked at. */
static lrd_status_t check_model(lrd_merge_t *m)
{
    lrd_status_t status = LRD_OK;
    lrd_weights_t *weights = NULL;
    LRD_TRY(lrd_weights_open(m->s.model, m->s.config, NULL, -1, &weights));
    LRD_TRY(lrd_weights_files_open(m->s.model, &m->files));
    for (size_t i = 0; i < m->files->n_files; i++) {
        const lrd_safetensors_t *f = m->files->file[i];
        for (size_t k = 0; k < f->n_entries; k++) {
            const lrd_tensor_entry_t *e = &f->entry[k];
            const lrd_adapter_item_t *item = find_item(m, e);
            m->total_bytes += e->bytes;
            if (item == NULL)
                continue;
            const bool compute = e->dtype == LRD_F32 || e->dtype == LRD_F16 || e->dtype == LRD_BF16;
            LRD_CHECK(compute && e->n_dims == 2 && e->shape[0] == item->n_out &&
                          e->shape[1] == item->n_in,
                      LRD_ERR_FORMAT,
                      "%s: tensor \"%s\" is there twice, with another shape or type", f->path,
                      e->name);
            const size_t row = (size_t)item->n_in * lrd_dtype_bytes(e->dtype);
            const size_t piece = (size_t)rows_at_once(item->n_out, row) * row;
            m->piece_bytes = piece > m->piece_bytes ? piece : m->piece_bytes;
        }
    }
out:
    lrd_weights_close(weights);
    return status;
}

static lrd_status_t read_adapter(lrd_merge_t *m)
{
    lrd_status_t status = LRD_OK;
    lrd_backend_t *be = m->s.stream->backend;
    m->params_bytes = (size_t)m->s.adapter->n_params * sizeof *m->params;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, m->params_bytes, (void **)&m->params));
    LRD_TRY(lrd_peft_read_params(m->s.adapter_folder, m->s.adapter, m->params));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, m->piece_bytes, &m->pinned));
    m->factors = m->params;
    if (reads_host(m))
        goto out;
    m->factors = NULL;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, m->params_bytes, (void **)&m->factors));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, m->piece_bytes, &m->device));
    LRD_TRY(lrd_copy(m->s.stream, LRD_COPY_H2D, m->factors, m->params, m->params_bytes));
    LRD_TRY(lrd_stream_sync(m->s.stream));
out:
    return status;
}

static lrd_status_t make_folder(lrd_merge_t *m)
{
    lrd_status_t status = LRD_OK;
    uint64_t free_bytes = 0, need = 1 << 20; /* headers, the card */
    uint64_t rest_bytes = 0;
    LRD_TRY(lrd_merge_list_files(m->files, &m->rest, &rest_bytes));
    LRD_TRY(lrd_folder_begin(m->out, &m->partial));
    LRD_TRY(lrd_folder_free_bytes(m->partial, &free_bytes));
    need += m->total_bytes + rest_bytes;
    LRD_CHECK(
        need <= free_bytes, LRD_ERR_IO,
        "%s: the merged model takes %.1f GiB, and there are %.1f GiB left on that file system",
        m->s.out, (double)need / 0x1p30, (double)free_bytes / 0x1p30);
out:
    return status;
}

lrd_status_t lrd_merge_open(const lrd_merge_spec_t *spec, lrd_merge_t **merge_out)
{
    lrd_status_t status = LRD_OK;
    lrd_merge_t *m = NULL;
    LRD_NEW(m, 1);
    m->s = *spec;
    LRD_TRY(lrd_merge_place(spec->model, spec->adapter_folder, spec->out, &m->out));
    LRD_TRY(check_model(m));
    LRD_TRY(read_adapter(m));
    LRD_TRY(make_folder(m));
    *merge_out = m;
    m = NULL;
out:
    lrd_merge_close(m);
    return status;
}

void lrd_merge_close(lrd_merge_t *m)
{
    if (m == NULL)
        return;
    lrd_backend_t *be = m->s.stream->backend;
    if (m->partial != NULL)
        lrd_folder_remove(m->partial);
    lrd_mem_free(be, LRD_MEM_DEVICE, m->device, m->piece_bytes);
    if (m->factors != m->params)
        lrd_mem_free(be, LRD_MEM_DEVICE, m->factors, m->params_bytes);
    lrd_mem_free(be, LRD_MEM_PINNED, m->pinned, m->piece_bytes);
    lrd_mem_free(be, LRD_MEM_PINNED, m->params, m->params_bytes);
    lrd_names_free(&m->rest);
    lrd_weights_files_close(m->files);
    lrd_free(m->partial);
    lrd_free(m->out);
    lrd_free(m);
}

/* ---- the work --------------------------------------------------------------------------------- */

/* A piece is done: its pages are not needed any more. */
static lrd_status_t finish_piece(lrd_merge_t *m, const lrd_safetensors_t *file, size_t offset,
                                 size_t bytes)
{
    lrd_status_t status = LRD_OK;
    lrd_file_forget(&file->map, offset, bytes);
    m->done_bytes += bytes;
    lrd_progress_update(&m->progress, (int64_t)(m->done_bytes >> 20), NULL);
    LRD_CHECK(m->s.stop == NULL || *m->s.stop == 0, LRD_ERR_INTERRUPTED,
              "interrupted: %s was not written", m->s.out);
out:
    return status;
}

static lrd_status_t copy_tensor(lrd_merge_t *m, const lrd_safetensors_t *file,
                                const lrd_tensor_entry_t *entry, lrd_safetensors_writer_t *writer)
{
    lrd_status_t status = LRD_OK;
    const uint8_t *data = lrd_safetensors_data(file, entry);
    for (size_t at = 0; at < entry->bytes; at += PIECE) {
        const size_t n = entry->bytes - at < PIECE ? entry->bytes - at : PIECE;
        LRD_TRY(lrd_safetensors_add(writer, data + at, n));
        LRD_TRY(finish_piece(m, file, entry->offset + at, n));
    }
out:
    return status;
}

/* n rows from `row` on, read at src, into the pinned memory. */
static lrd_status_t merge_rows(lrd_merge_t *m, const lrd_adapter_item_t *item, lrd_dtype_t dtype,
                               const void *src, int64_t row, int64_t n)
{
    lrd_status_t status = LRD_OK;
    lrd_stream_t *st = m->s.stream;
    const int64_t k = item->n_in, r = item->r;
    const size_t bytes = (size_t)(n * k) * lrd_dtype_bytes(dtype);
    const bool in_place = !reads_host(m) || (uintptr_t)src % lrd_dtype_bytes(dtype) != 0;
    void *out = reads_host(m) ? m->pinned : m->device;
    if (in_place)
        memcpy(m->pinned, src, bytes);
    if (!reads_host(m))
        LRD_TRY(lrd_copy(st, LRD_COPY_H2D, m->device, m->pinned, bytes));
    LRD_TRY(lrd_merge_weight(
        st, (lrd_scratch_t){0},
        &(lrd_merge_weight_t){.w = {in_place ? out : src, n, k, k, dtype},
                              .a = {m->factors + item->a, r, k, k, LRD_F32},
                              .b = {m->factors + item->b + row * r, n, r, r, LRD_F32},
                              .scale = (float)item->scale,
                              .out = {out, n, k, k, dtype}}));
    if (!reads_host(m))
        LRD_TRY(lrd_copy(st, LRD_COPY_D2H, m->pinned, m->device, bytes));
    LRD_TRY(lrd_stream_sync(st));
out:
    return status;
}

static lrd_status_t merge_tensor(lrd_merge_t *m, const lrd_adapter_item_t *item,
                                 const lrd_safetensors_t *file, const lrd_tensor_entry_t *entry,
                                 lrd_safetensors_writer_t *writer)
{
    lrd_status_t status = LRD_OK;
    const uint8_t *data = lrd_safetensors_data(file, entry);
    const size_t row_bytes = (size_t)item->n_in * lrd_dtype_bytes(entry->dtype);
    const int64_t at_once = rows_at_once(item->n_out, row_bytes);
    for (int64_t row = 0; row < item->n_out; row += at_once) {
        const int64_t n = item->n_out - row < at_once ? item->n_out - row : at_once;
        const size_t at = (size_t)row * row_bytes, bytes = (size_t)n * row_bytes;
        LRD_TRY(merge_rows(m, item, entry->dtype, data + at, row, n));
        LRD_TRY(lrd_safetensors_add(writer, m->pinned, bytes));
        LRD_TRY(finish_piece(m, file, entry->offset + at, bytes));
    }
out:
    return status;
}

static lrd_status_t write_shard(lrd_merge_t *m, const lrd_safetensors_t *file)
{
    lrd_status_t status = LRD_OK;
    const size_t n = file->n_entries;
    lrd_safetensors_writer_t *writer = NULL;
    lrd_tensor_spec_t *spec = NULL;
    size_t *order = NULL;
    char *path = NULL;
    LRD_NEW(spec, n);
    LRD_NEW(order, n);
    for (size_t i = 0; i < n; i++) {
        const lrd_tensor_entry_t *e = &file->entry[i];
        spec[i] = (lrd_tensor_spec_t){.name = e->name, .dtype = e->dtype, .n_dims = e->n_dims};
        memcpy(spec[i].shape, e->shape, sizeof spec[i].shape);
    }
    LRD_ALLOC(path, lrd_path_join(m->partial, lrd_path_base(file->path)));
    LRD_TRY(lrd_safetensors_begin(path, spec, n, order, &writer));
    for (size_t i = 0; i < n; i++) {
        const lrd_tensor_entry_t *e = &file->entry[order[i]];
        const lrd_adapter_item_t *item = find_item(m, e);
        if (item != NULL)
            LRD_TRY(merge_tensor(m, item, file, e, writer));
        else
            LRD_TRY(copy_tensor(m, file, e, writer));
    }
    LRD_TRY(lrd_safetensors_commit(&writer));
out:
    lrd_safetensors_abandon(writer);
    lrd_free(path);
    lrd_free(order);
    lrd_free(spec);
    return status;
}

lrd_status_t lrd_merge_write(lrd_merge_t *m)
{
    lrd_status_t status = LRD_OK;
    const int64_t total = (int64_t)(m->total_bytes >> 20);
    lrd_progress_begin(&m->progress, "Merging", "MiB", 0, total);
    for (size_t i = 0; i < m->files->n_files; i++)
        LRD_TRY(write_shard(m, m->files->file[i]));
    LRD_TRY(lrd_merge_copy_files(m->s.model, &m->rest, m->partial));
    LRD_TRY(lrd_merge_write_card(m->partial, m->s.model_name, m->s.adapter_name));
    LRD_TRY(lrd_merge_check_empty(m->out)); /* time has passed, and it would be replaced */
    LRD_TRY(lrd_folder_commit(m->partial, m->out));
    lrd_free(m->partial);
    m->partial = NULL;
    lrd_progress_end(&m->progress, total);
    lrd_info("Wrote %s: %d linears of %s with %s", m->s.out, m->s.adapter->n_items, m->s.model_name,
             m->s.adapter_name);
out:
    return status;
}
