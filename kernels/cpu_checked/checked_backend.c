#include "kernels/cpu_checked/checked_backend.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern const lrd_ops_t lrd_cpu_ops;

/* One allocation. Device ones are whole pages with an unusable page behind them. */
typedef struct region {
    uint8_t *start;
    size_t bytes, mapped;
    lrd_memkind_t kind;
    struct region *next;
} region_t;

struct checked_backend {
    lrd_backend_t base;
    lrd_backend_t *inner;
    region_t *regions;
};

struct checked_stream {
    lrd_stream_t base;
    lrd_stream_t *inner;
    record_t *first, **last;
};

struct checked_event {
    lrd_event_t base;
    place_t *place; /* held; NULL: never recorded */
};

enum { POISON = 0xff }; /* NaN in every floating-point dtype */

static checked_backend_t *backend_of(lrd_backend_t *be)
{
    return (checked_backend_t *)be;
}

static size_t page_round(size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static void protect_device(checked_backend_t *be, int protection)
{
    for (region_t *r = be->regions; r != NULL; r = r->next) {
        if (r->kind == LRD_MEM_DEVICE)
            mprotect(r->start, r->mapped, protection);
    }
}

/* The region of this kind that holds the bytes, or NULL. */
static const region_t *find_region(const checked_backend_t *be, lrd_memkind_t kind, const void *ptr,
                                   size_t bytes)
{
    const uint8_t *at = ptr;
    for (const region_t *r = be->regions; r != NULL; r = r->next) {
        if (r->kind == kind && at >= r->start && at < r->start + r->bytes &&
            bytes <= (size_t)(r->start + r->bytes - at))
            return r;
    }
    return NULL;
}

bool checked_is_device(lrd_stream_t *st, const void *ptr, size_t bytes)
{
    return find_region(backend_of(st->backend), LRD_MEM_DEVICE, ptr, bytes) != NULL;
}

static void checked_close(lrd_backend_t *backend)
{
    checked_backend_t *be = backend_of(backend);
    if (be == NULL)
        return;
    if (be->inner != NULL)
        lrd_cpu_ops.close(be->inner);
    lrd_free(be);
}

static lrd_status_t checked_open(const lrd_backend_options_t *options, lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    checked_backend_t *be;
    LRD_NEW(be, 1);
    be->base.ops = &lrd_cpu_checked_ops;
    LRD_TRY(lrd_cpu_ops.open(options, &be->inner));
    *backend_out = &be->base;
    be = NULL;
out:
    checked_close((lrd_backend_t *)be);
    return status;
}

static lrd_status_t checked_describe(lrd_backend_t *be, char *text, size_t size)
{
    return lrd_cpu_ops.describe(backend_of(be)->inner, text, size);
}

static lrd_status_t checked_mem_info(lrd_backend_t *be, size_t *free_bytes_out,
                                     size_t *total_bytes_out)
{
    return lrd_cpu_ops.mem_info(backend_of(be)->inner, free_bytes_out, total_bytes_out);
}

static lrd_status_t checked_mem_alloc(lrd_backend_t *backend, lrd_memkind_t kind, size_t bytes,
                                      void **ptr_out)
{
    lrd_status_t status = LRD_OK;
    checked_backend_t *be = backend_of(backend);
    const size_t mapped = page_round(bytes > 0 ? bytes : 1), guard = page_round(1);
    region_t *r;
    LRD_NEW(r, 1);
    r->start = lrd_pages_alloc(mapped + guard);
    LRD_CHECK(r->start != NULL, LRD_ERR_NO_MEMORY, "out of memory: %zu bytes", bytes);
    memset(r->start, POISON, mapped);
    mprotect(r->start + mapped, guard, PROT_NONE);
    if (kind == LRD_MEM_DEVICE)
        mprotect(r->start, mapped, PROT_NONE);
    r->bytes = bytes;
    r->mapped = mapped;
    r->kind = kind;
    r->next = be->regions;
    be->regions = r;
    *ptr_out = r->start;
    r = NULL;
out:
    lrd_free(r);
    return status;
}

static void checked_mem_free(lrd_backend_t *backend, lrd_memkind_t kind, void *ptr, size_t bytes)
{
    (void)kind;
    (void)bytes;
    for (region_t **at = &backend_of(backend)->regions; *at != NULL; at = &(*at)->next) {
        region_t *r = *at;
        if (r->start == ptr) {
            *at = r->next;
            lrd_pages_free(r->start, r->mapped + page_round(1));
            lrd_free(r);
            return;
        }
    }
}

static void let_go(place_t *place)
{
    if (place != NULL && --place->holders == 0)
        lrd_free(place);
}

/* The first record has run, or is dropped. */
static void drop_record(checked_stream_t *st)
{
    record_t *r = st->first;
    st->first = r->next;
    if (st->first == NULL)
        st->last = &st->first;
    if (r->passes != NULL)
        r->passes->stream = NULL;
    let_go(r->passes);
    let_go(r->awaits);
    lrd_free(r->args);
    lrd_free(r);
}

static void drop_records(checked_stream_t *st)
{
    while (st->first != NULL)
        drop_record(st);
}

static void checked_stream_destroy(lrd_stream_t *stream)
{
    checked_stream_t *st = (checked_stream_t *)stream;
    if (st == NULL)
        return;
    drop_records(st);
    if (st->inner != NULL)
        lrd_cpu_ops.stream_destroy(st->inner);
    lrd_free(st);
}

static lrd_status_t checked_stream_create(lrd_backend_t *be, lrd_stream_t **stream_out)
{
    lrd_status_t status = LRD_OK;
    checked_stream_t *st;
    LRD_NEW(st, 1);
    st->base.backend = be;
    st->last = &st->first;
    LRD_TRY(lrd_cpu_ops.stream_create(backend_of(be)->inner, &st->inner));
    *stream_out = &st->base;
    st = NULL;
out:
    checked_stream_destroy((lrd_stream_t *)st);
    return status;
}

static void append(checked_stream_t *st, record_t *r)
{
    *st->last = r;
    st->last = &r->next;
}

lrd_status_t checked_record(lrd_stream_t *stream,
                            lrd_status_t (*run)(lrd_stream_t *, const record_t *),
                            lrd_scratch_t scratch, void *args)
{
    lrd_status_t status = LRD_OK;
    checked_stream_t *st = (checked_stream_t *)stream;
    record_t *r = NULL;
    LRD_CHECK(scratch.bytes == 0 || checked_is_device(stream, scratch.data, scratch.bytes),
              LRD_ERR_ARG, "cpu_checked: scratch is not device memory");
    LRD_NEW(r, 1);
    *r = (record_t){.run = run, .scratch = scratch, .args = args};
    args = NULL;
    append(st, r);
out:
    lrd_free(args);
    return status;
}

/* Runs a stream up to a place of it, or all of it (NULL), and of the others what it waits for. */
static lrd_status_t run_to(checked_stream_t *st, const place_t *place)
{
    lrd_status_t status = LRD_OK;
    while (st->first != NULL && (place == NULL || place->stream != NULL)) {
        const record_t *r = st->first;
        if (r->awaits != NULL && r->awaits->stream != NULL)
            LRD_TRY(run_to(r->awaits->stream, r->awaits));
        if (r->scratch.bytes > 0)
            memset(r->scratch.data, POISON, r->scratch.bytes);
        if (r->run != NULL)
            LRD_TRY(r->run(st->inner, r));
        drop_record(st);
    }
out:
    if (status != LRD_OK)
        drop_records(st);
    return status;
}

static lrd_status_t run_on_device(checked_stream_t *st, const place_t *place)
{
    checked_backend_t *be = backend_of(st->base.backend);
    protect_device(be, PROT_READ | PROT_WRITE);
    const lrd_status_t status = run_to(st, place);
    protect_device(be, PROT_NONE);
    return status;
}

static lrd_status_t checked_stream_sync(lrd_stream_t *stream)
{
    return run_on_device((checked_stream_t *)stream, NULL);
}

static lrd_status_t checked_event_create(lrd_backend_t *be, lrd_event_t **event_out)
{
    lrd_status_t status = LRD_OK;
    checked_event_t *event;
    LRD_NEW(event, 1);
    event->base.backend = be;
    *event_out = &event->base;
out:
    return status;
}

static void checked_event_destroy(lrd_event_t *event)
{
    let_go(((checked_event_t *)event)->place);
    lrd_free(event);
}

static lrd_status_t checked_event_record(lrd_stream_t *stream, lrd_event_t *event)
{
    lrd_status_t status = LRD_OK;
    checked_event_t *e = (checked_event_t *)event;
    record_t *r = NULL;
    place_t *place = NULL;
    LRD_NEW(r, 1);
    LRD_NEW(place, 1);
    *place = (place_t){2, (checked_stream_t *)stream};
    let_go(e->place);
    e->place = r->passes = place;
    append((checked_stream_t *)stream, r);
    r = NULL;
out:
    lrd_free(r);
    return status;
}

static lrd_status_t checked_stream_wait(lrd_stream_t *stream, lrd_event_t *event)
{
    lrd_status_t status = LRD_OK;
    place_t *place = ((checked_event_t *)event)->place;
    record_t *r;
    if (place == NULL)
        goto out;
    LRD_NEW(r, 1);
    place->holders++;
    r->awaits = place;
    append((checked_stream_t *)stream, r);
out:
    return status;
}

static lrd_status_t checked_event_sync(lrd_event_t *event)
{
    const place_t *place = ((checked_event_t *)event)->place;
    return place != NULL && place->stream != NULL ? run_on_device(place->stream, place) : LRD_OK;
}

typedef struct transfer {
    void *dst;
    const void *src;
    size_t bytes;
} transfer_t;

static lrd_status_t run_copy(lrd_stream_t *inner, const record_t *r)
{
    (void)inner;
    const transfer_t *t = r->args;
    memcpy(t->dst, t->src, t->bytes);
    return LRD_OK;
}

static lrd_status_t run_zero(lrd_stream_t *inner, const record_t *r)
{
    (void)inner;
    const transfer_t *t = r->args;
    memset(t->dst, 0, t->bytes);
    return LRD_OK;
}

static lrd_status_t record_transfer(lrd_stream_t *st,
                                    lrd_status_t (*run)(lrd_stream_t *, const record_t *),
                                    void *dst, const void *src, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    transfer_t *t;
    LRD_NEW(t, 1);
    *t = (transfer_t){dst, src, bytes};
    status = checked_record(st, run, (lrd_scratch_t){0}, t);
out:
    return status;
}

static lrd_status_t checked_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                                 size_t bytes)
{
    lrd_status_t status = LRD_OK;
    const checked_backend_t *be = backend_of(st->backend);
    const lrd_memkind_t to = dir == LRD_COPY_D2H ? LRD_MEM_PINNED : LRD_MEM_DEVICE;
    const lrd_memkind_t from = dir == LRD_COPY_H2D ? LRD_MEM_PINNED : LRD_MEM_DEVICE;
    LRD_CHECK(bytes == 0 || (find_region(be, to, dst, bytes) != NULL &&
                             find_region(be, from, src, bytes) != NULL),
              LRD_ERR_ARG,
              "cpu_checked: a copy of %zu bytes reaches outside pinned or device memory", bytes);
    LRD_TRY(record_transfer(st, run_copy, dst, src, bytes));
out:
    return status;
}

static lrd_status_t checked_zero(lrd_stream_t *st, void *dst, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(bytes == 0 || checked_is_device(st, dst, bytes), LRD_ERR_ARG,
              "cpu_checked: %zu bytes to be zeroed are not device memory", bytes);
    LRD_TRY(record_transfer(st, run_zero, dst, NULL, bytes));
out:
    return status;
}

static size_t checked_scratch_bytes(const lrd_backend_t *be, const lrd_limits_t *limits)
{
    return lrd_cpu_ops.scratch_bytes(((const checked_backend_t *)be)->inner, limits);
}

static size_t checked_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *shape)
{
    return lrd_cpu_ops.kv_cache_bytes(((const checked_backend_t *)be)->inner, shape);
}

const lrd_ops_t lrd_cpu_checked_ops = {.name = "cpu_checked",
                                       .abi_version = LRD_OPS_ABI_VERSION,
                                       .reads_host_memory = false,
                                       .open = checked_open,
                                       .close = checked_close,
                                       .describe = checked_describe,
                                       .mem_info = checked_mem_info,
                                       .mem_alloc = checked_mem_alloc,
                                       .mem_free = checked_mem_free,
                                       .stream_create = checked_stream_create,
                                       .stream_destroy = checked_stream_destroy,
                                       .stream_sync = checked_stream_sync,
                                       .stream_wait = checked_stream_wait,
                                       .event_create = checked_event_create,
                                       .event_destroy = checked_event_destroy,
                                       .event_record = checked_event_record,
                                       .event_sync = checked_event_sync,
                                       .copy = checked_copy,
                                       .zero = checked_zero,
                                       .scratch_bytes = checked_scratch_bytes,
                                       .kv_cache_bytes = checked_kv_cache_bytes,
#define OP(name, args) .name = checked_##name,
                                       LRD_OP_LIST(OP)
#undef OP
};
