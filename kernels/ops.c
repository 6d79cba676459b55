#include "kernels/ops.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/backend_list.h"
#include "kernels/op_check.h"
#include "kernels/op_profile.h"

#include <string.h>

#define BACKEND(name, table) extern const lrd_ops_t table;
LRD_BACKEND_LIST(BACKEND)
#undef BACKEND

static const lrd_ops_t *const backends[] = {
#define BACKEND(name, table) &table,
    LRD_BACKEND_LIST(BACKEND)
#undef BACKEND
};

static const char *const names[] = {
#define BACKEND(name, table) name,
    LRD_BACKEND_LIST(BACKEND)
#undef BACKEND
};

const char *const *lrd_backend_names(int *n_out)
{
    *n_out = (int)(sizeof names / sizeof names[0]);
    return names;
}

lrd_status_t lrd_backend_open(const char *name, const lrd_backend_options_t *options,
                              lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    if (strcmp(name, "auto") == 0) {
        lrd_info("No GPU backend in this program: running on the CPU");
        name = names[0];
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            LRD_TRY(backends[i]->open(options, backend_out));
            goto out;
        }
    }
    LRD_FAIL(LRD_ERR_UNAVAILABLE,
             "backend \"%s\" is not in this program; it has cpu and cpu_checked", name);
out:
    return status;
}

void lrd_backend_close(lrd_backend_t *be)
{
    if (be != NULL)
        be->ops->close(be);
}

lrd_status_t lrd_backend_describe(lrd_backend_t *be, char *text, size_t size)
{
    return be->ops->describe(be, text, size);
}

lrd_status_t lrd_mem_info(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out)
{
    return be->ops->mem_info(be, free_bytes_out, total_bytes_out);
}

lrd_status_t lrd_mem_alloc(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes, void **ptr_out)
{
    return be->ops->mem_alloc(be, kind, bytes, ptr_out);
}

void lrd_mem_free(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes)
{
    if (ptr != NULL)
        be->ops->mem_free(be, kind, ptr, bytes);
}

lrd_status_t lrd_stream_create(lrd_backend_t *be, lrd_stream_t **stream_out)
{
    return be->ops->stream_create(be, stream_out);
}

void lrd_stream_destroy(lrd_stream_t *st)
{
    if (st != NULL)
        st->backend->ops->stream_destroy(st);
}

lrd_status_t lrd_stream_sync(lrd_stream_t *st)
{
    lrd_beat();
    return st->backend->ops->stream_sync(st);
}

lrd_status_t lrd_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src, size_t bytes)
{
    lrd_beat();
    return st->backend->ops->copy(st, dir, dst, src, bytes);
}

lrd_status_t lrd_zero(lrd_stream_t *st, void *dst, size_t bytes)
{
    return st->backend->ops->zero(st, dst, bytes);
}

size_t lrd_scratch_bytes(const lrd_backend_t *be, const lrd_limits_t *limits)
{
    return be->ops->scratch_bytes(be, limits);
}

size_t lrd_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *shape)
{
    return be->ops->kv_cache_bytes(be, shape);
}

#define OP(name, args)                                                              \
    lrd_status_t lrd_##name(lrd_stream_t *st, lrd_scratch_t scratch, const args *a) \
    {                                                                               \
        lrd_status_t status = LRD_OK;                                               \
        LRD_TRY(lrd_check_##name(a));                                               \
        lrd_beat();                                                                 \
        if (!lrd_profile_is_on())                                                   \
            return st->backend->ops->name(st, scratch, a);                          \
        const double begun = lrd_clock_seconds();                                   \
        double flops, bytes;                                                        \
        LRD_TRY(st->backend->ops->name(st, scratch, a));                            \
        LRD_TRY(lrd_stream_sync(st));                                               \
        lrd_count_##name(a, &flops, &bytes);                                        \
        lrd_profile_add(LRD_OP_##name, lrd_clock_seconds() - begun, flops, bytes);  \
    out:                                                                            \
        return status;                                                              \
    }
LRD_OP_LIST(OP)
#undef OP
