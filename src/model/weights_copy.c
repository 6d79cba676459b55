#include "model/weights_copy.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PIECE = 16 << 20 };

/* ---- its name ---------------------------------------------------------------------------------- */

/* What tells a file from others without reading its data: name, size, time and header. */
static lrd_status_t hash_file(lrd_sha256_t *hash, const lrd_safetensors_t *f)
{
    lrd_status_t status = LRD_OK;
    struct stat s;
    char text[128];
    LRD_CHECK(stat(f->path, &s) == 0, LRD_ERR_IO, "%s: cannot be looked at", f->path);
    const int n = snprintf(text, sizeof text, "\n%zu %lld.%09ld ", f->map.size,
                           (long long)s.st_mtim.tv_sec, (long)s.st_mtim.tv_nsec);
    LRD_TRY(lrd_sha256_add(hash, text, (size_t)n));
    LRD_TRY(lrd_sha256_add(hash, lrd_path_base(f->path), strlen(lrd_path_base(f->path))));
    LRD_TRY(lrd_sha256_add(hash, f->map.data, lrd_safetensors_data_begin(f)));
out:
    return status;
}

static lrd_status_t find_path(const lrd_weights_copy_options_t *o, char **path_out)
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    char key[LRD_SHA256_HEX], name[LRD_SHA256_HEX + 16];
    const char *dtype = lrd_dtype_file_name(o->dtype);
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, dtype, strlen(dtype)));
    for (size_t i = 0; i < o->files->n_files; i++)
        LRD_TRY(hash_file(hash, o->files->file[i]));
    LRD_TRY(lrd_sha256_end(hash, key));
    snprintf(name, sizeof name, "%s.safetensors", key);
    LRD_ALLOC(*path_out, lrd_path_join(o->folder, name));
out:
    lrd_sha256_free(hash);
    return status;
}

/* ---- its content ------------------------------------------------------------------------------- */

/* The tensors of all files that can be converted. */
typedef struct list {
    lrd_located_t *from;
    lrd_tensor_spec_t *spec;
    size_t *order; /* of the file */
    size_t n;
    int64_t bytes;
} list_t;

/* Of several files with a tensor of one name the first counts, as in lrd_weights_files_find. */
static bool is_listed(const list_t *l, const char *name)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->spec[i].name, name) == 0)
            return true;
    }
    return false;
}

static lrd_status_t list_tensors(const lrd_weights_files_t *files, lrd_dtype_t dtype, list_t *l)
{
    lrd_status_t status = LRD_OK;
    size_t most = 0;
    for (size_t i = 0; i < files->n_files; i++)
        most += files->file[i]->n_entries;
    LRD_NEW(l->from, most);
    LRD_NEW(l->spec, most);
    LRD_NEW(l->order, most);
    for (size_t i = 0; i < files->n_files; i++) {
        for (size_t t = 0; t < files->file[i]->n_entries; t++) {
            const lrd_tensor_entry_t *e = &files->file[i]->entry[t];
            const bool known = e->dtype == LRD_F32 || e->dtype == LRD_F16 || e->dtype == LRD_BF16;
            if (!known || is_listed(l, e->name))
                continue;
            l->spec[l->n] =
                (lrd_tensor_spec_t){.name = e->name, .dtype = dtype, .n_dims = e->n_dims};
            memcpy(l->spec[l->n].shape, e->shape, sizeof e->shape);
            l->from[l->n++] = (lrd_located_t){files->file[i], e};
            l->bytes += e->n_elements * (int64_t)lrd_dtype_bytes(dtype);
        }
    }
out:
    return status;
}

static void free_list(list_t *l)
{
    lrd_free(l->from);
    lrd_free(l->spec);
    lrd_free(l->order);
}

/* A piece on its way: from the file to the device, converted there, and back. */
typedef struct way {
    void *from, *to;               /* pinned */
    void *device_from, *device_to; /* [PIECE] each */
} way_t;

static lrd_status_t open_way(lrd_backend_t *be, way_t *y)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, PIECE, &y->from));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, PIECE, &y->to));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, PIECE, &y->device_from));
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_DEVICE, PIECE, &y->device_to));
out:
    return status;
}

static void close_way(lrd_backend_t *be, way_t *y)
{
    lrd_mem_free(be, LRD_MEM_DEVICE, y->device_to, PIECE);
    lrd_mem_free(be, LRD_MEM_DEVICE, y->device_from, PIECE);
    lrd_mem_free(be, LRD_MEM_PINNED, y->to, PIECE);
    lrd_mem_free(be, LRD_MEM_PINNED, y->from, PIECE);
}

static lrd_status_t write_tensor(const lrd_weights_copy_options_t *o, const way_t *y,
                                 lrd_located_t from, lrd_safetensors_writer_t *writer)
{
    lrd_status_t status = LRD_OK;
    const lrd_tensor_entry_t *e = from.entry;
    const int64_t size = (int64_t)lrd_dtype_bytes(e->dtype), most = PIECE / (int64_t)sizeof(float);
    const uint8_t *data = lrd_safetensors_data(from.file, e);
    for (int64_t at = 0; at < e->n_elements; at += most) {
        const int64_t n = e->n_elements - at < most ? e->n_elements - at : most;
        const size_t read = (size_t)(n * size), written = (size_t)n * lrd_dtype_bytes(o->dtype);
        LRD_CHECK_STOP(o->stop);
        memcpy(y->from, data + at * size, read);
        lrd_file_forget(&from.file->map, e->offset + (size_t)(at * size), read);
        LRD_TRY(lrd_copy(o->stream, LRD_COPY_H2D, y->device_from, y->from, read));
        LRD_TRY(lrd_cast(o->stream, (lrd_scratch_t){0},
                         &(lrd_cast_t){y->device_from, e->dtype, y->device_to, o->dtype, n}));
        LRD_TRY(lrd_copy(o->stream, LRD_COPY_D2H, y->to, y->device_to, written));
        LRD_TRY(lrd_stream_sync(o->stream));
        LRD_TRY(lrd_safetensors_add(writer, y->to, written));
    }
out:
    return status;
}

static lrd_status_t check_space(const lrd_weights_copy_options_t *o, int64_t bytes)
{
    lrd_status_t status = LRD_OK;
    uint64_t space;
    LRD_TRY(lrd_folder_free_bytes(o->folder, &space));
    LRD_CHECK((uint64_t)bytes <= space, LRD_ERR_IO,
              "parallel.offload_folder: %s has %.2f GiB left, the weights in %s take %.2f",
              o->folder, (double)space / 0x1p30, lrd_dtype_file_name(o->dtype),
              (double)bytes / 0x1p30);
out:
    return status;
}

static lrd_status_t write_copy(const lrd_weights_copy_options_t *o, const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_safetensors_writer_t *writer = NULL;
    lrd_progress_t progress;
    list_t l = {.n = 0};
    way_t way = {.from = NULL};
    int64_t done = 0;
    LRD_TRY(list_tensors(o->files, o->dtype, &l));
    LRD_TRY(lrd_folder_make(o->folder));
    LRD_TRY(check_space(o, l.bytes));
    LRD_TRY(open_way(o->stream->backend, &way));
    LRD_TRY(lrd_safetensors_begin(path, l.spec, l.n, l.order, &writer));
    lrd_progress_begin(&progress, "Converting weights", "KiB", 0, l.bytes >> 10);
    for (size_t i = 0; i < l.n; i++) {
        const lrd_located_t from = l.from[l.order[i]];
        LRD_TRY(write_tensor(o, &way, from, writer));
        done += from.entry->n_elements * (int64_t)lrd_dtype_bytes(o->dtype);
        lrd_progress_update(&progress, done >> 10, NULL);
    }
    LRD_TRY(lrd_safetensors_commit(&writer));
    lrd_progress_end(&progress, done >> 10);
    lrd_info("Wrote %s", path);
out:
    lrd_safetensors_abandon(writer);
    close_way(o->stream->backend, &way);
    free_list(&l);
    return status;
}

lrd_status_t lrd_weights_copy_make(const lrd_weights_copy_options_t *o, char **path_out)
{
    char *path = NULL;
    const bool first = lrd_comm_rank(o->comm) == 0, of_host = lrd_comm_local_rank(o->comm) == 0;
    lrd_status_t status = lrd_agree(o->comm, find_path(o, &path));
    for (int turn = 0; turn < 2 && status == LRD_OK; turn++) {
        const bool mine = turn == 0 ? first : of_host;
        status = lrd_agree(o->comm, mine && !lrd_file_exists(path) ? write_copy(o, path) : LRD_OK);
    }
    if (status == LRD_OK)
        *path_out = path;
    else
        lrd_free(path);
    return status;
}
