/* The way of weights from their files to the device. */
#include "base/progress.h"
#include "model/weights_parts.h"

#include <string.h>

lrd_strip_t lrd_strips_of(const lrd_cmat_t *tensor)
{
    const bool has_room = tensor->ld > tensor->cols;
    return (lrd_strip_t){has_room ? tensor->cols : 1, has_room ? tensor->ld : 1};
}

void lrd_strips_copy(lrd_strip_t strip, int64_t n, size_t element_bytes, const void *src, void *dst)
{
    const size_t length = (size_t)strip.length * element_bytes,
                 apart = (size_t)strip.apart * element_bytes;
    if (length == apart) {
        memcpy(dst, src, (size_t)n * length);
        return;
    }
    for (size_t i = 0; i < (size_t)n; i++)
        memcpy((uint8_t *)dst + i * apart, (const uint8_t *)src + i * length, length);
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
                              const lrd_weights_item_t *item)
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
        dst = lrd_offload_host(w->offload, item->layer, lrd_weights_item_tensor(w, item));
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
        kib += w->plan->item[i].stays
                   ? 0
                   : (int64_t)(lrd_weights_item_bytes(w, &w->plan->item[i]) >> 10);
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
        const lrd_weights_item_t *item = &w->plan->item[i];
        if (item->stays)
            continue;
        LRD_CHECK_STOP(stop);
        LRD_TRY(load_item(w, st, over, item));
        done += (int64_t)(lrd_weights_item_bytes(w, item) >> 10);
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
    stop_over_t over = {.bytes = LRD_WEIGHTS_PIECE};
    LRD_CHECK(w->plan->files != NULL, LRD_ERR_INTERNAL, "an outline of weights is not loaded");
    if (w->offload != NULL && !in_place)
        LRD_TRY(lrd_offload_open(w->offload, st->backend));
    if (count_kib(w) == 0)
        goto out;
    if (!in_place) {
        over.bytes = scratch.bytes / 2 < LRD_WEIGHTS_PIECE ? scratch.bytes / 2 : LRD_WEIGHTS_PIECE;
        over.device = scratch.data;
        LRD_TRY(lrd_mem_alloc(st->backend, LRD_MEM_PINNED, LRD_WEIGHTS_PIECE, &over.pinned));
    }
    LRD_TRY(load_items(w, st, &over, name, stop));
out:
    lrd_mem_free(st->backend, LRD_MEM_PINNED, over.pinned, LRD_WEIGHTS_PIECE);
    return status;
}
