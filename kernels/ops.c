#include "kernels/ops.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"
#include "kernels/backend_list.h"
#include "kernels/op_check.h"
#include "kernels/op_profile.h"
#include "kernels/plugin.h"
#include "kernels/tuning.h"

#include <string.h>

#define BACKEND(name, table) extern const lrd_ops_t table;
LRD_BACKEND_LIST(BACKEND)
#undef BACKEND

/* Where a back end's table comes from. */
static const struct {
    const lrd_ops_t *ops;        /* of this program; NULL: in a plugin */
    const char *file, *variable; /* the plugin, for lrd_plugin_open */
} sources[] = {
#define PLUGIN(name, file, variable) {NULL, file, variable},
#define BACKEND(name, table)         {&table, NULL, NULL},
    LRD_PLUGIN_LIST(PLUGIN) LRD_BACKEND_LIST(BACKEND)
#undef BACKEND
#undef PLUGIN
};

static const char *const names[] = {
#define PLUGIN(name, file, variable) name,
#define BACKEND(name, table)         name,
    LRD_PLUGIN_LIST(PLUGIN) LRD_BACKEND_LIST(BACKEND)
#undef BACKEND
#undef PLUGIN
};

enum { N_BACKENDS = sizeof names / sizeof names[0] };

const char *const *lrd_backend_names(int *n_out)
{
    *n_out = N_BACKENDS;
    return names;
}

static lrd_status_t open_from(int i, const lrd_backend_options_t *options,
                              lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_ops_t *ops = sources[i].ops;
    const lrd_plugin_t plugin = {sources[i].file, sources[i].variable, LRD_OPS_ENTRY,
                                 "kernels/ops.h", LRD_OPS_ABI_VERSION};
    const lrd_product_options_t none = {0};
    lrd_product_options_t products = options->products != NULL ? *options->products : none;
    lrd_backend_options_t o = *options;
    lrd_tuning_t tuning = {0};
    const void *table;
    o.products = &products;
    if (ops == NULL) {
        LRD_TRY(lrd_plugin_open(&plugin, &table));
        ops = table;
    }
    if (products.tuning_file != NULL) {
        LRD_TRY(lrd_tuning_read(products.tuning_file, &tuning));
        products.tuning = &tuning;
    }
    LRD_TRY(ops->open(&o, backend_out));
out:
    lrd_tuning_release(&tuning);
    return status;
}

/* The first plugin that opens, else the first back end of the program itself. */
static lrd_status_t open_preferred(const lrd_backend_options_t *options,
                                   lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    int i = 0;
    for (; i < N_BACKENDS - 1 && sources[i].ops == NULL; i++) {
        status = open_from(i, options, backend_out);
        if (status != LRD_ERR_UNAVAILABLE)
            return status;
        lrd_info("Running on the CPU: no backend %s (%s)", names[i], lrd_error_text(status));
        lrd_error_clear();
    }
    return open_from(i, options, backend_out);
}

lrd_status_t lrd_backend_open(const char *name, const lrd_backend_options_t *options,
                              lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    if (strcmp(name, "auto") == 0)
        return open_preferred(options, backend_out);
    for (int i = 0; i < N_BACKENDS; i++) {
        if (strcmp(name, names[i]) == 0)
            return open_from(i, options, backend_out);
    }
    LRD_FAIL(LRD_ERR_UNAVAILABLE, "no backend \"%s\": there are cuda, cpu and cpu_checked", name);
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

lrd_status_t lrd_backend_tuned(lrd_backend_t *be, lrd_tuning_t *tuning_out)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(be->ops->tuned != NULL, LRD_ERR_UNSUPPORTED, "backend %s has no choice of products",
              be->ops->name);
    LRD_TRY(be->ops->tuned(be, tuning_out));
out:
    return status;
}

void lrd_backend_device_id(lrd_backend_t *be, char text[LRD_DEVICE_ID])
{
    text[0] = '\0';
    if (be->ops->device_id != NULL)
        be->ops->device_id(be, text);
}

void lrd_backend_software(lrd_backend_t *be, char text[LRD_SOFTWARE])
{
    text[0] = '\0';
    if (be->ops->software != NULL)
        be->ops->software(be, text);
}

lrd_status_t lrd_mem_info(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out)
{
    return be->ops->mem_info(be, free_bytes_out, total_bytes_out);
}

size_t lrd_mem_free_bytes(lrd_backend_t *be)
{
    size_t free_bytes = 0, total_bytes;
    if (lrd_mem_info(be, &free_bytes, &total_bytes) == LRD_OK)
        return free_bytes;
    lrd_error_clear();
    return 0;
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
    lrd_status_t status = LRD_OK;
    lrd_beat();
    if (st->guard != NULL)
        LRD_TRY(st->guard->wait(st->guard, NULL));
    LRD_TRY(st->backend->ops->stream_sync(st));
out:
    return status;
}

lrd_status_t lrd_stream_wait(lrd_stream_t *st, lrd_event_t *event)
{
    return st->backend->ops->stream_wait(st, event);
}

lrd_status_t lrd_event_create(lrd_backend_t *be, lrd_event_t **event_out)
{
    return be->ops->event_create(be, event_out);
}

void lrd_event_destroy(lrd_event_t *event)
{
    if (event != NULL)
        event->backend->ops->event_destroy(event);
}

lrd_status_t lrd_event_record(lrd_stream_t *st, lrd_event_t *event)
{
    event->stream = st;
    return st->backend->ops->event_record(st, event);
}

lrd_status_t lrd_event_sync(lrd_event_t *event)
{
    lrd_status_t status = LRD_OK;
    lrd_beat();
    if (event->stream != NULL && event->stream->guard != NULL)
        LRD_TRY(event->stream->guard->wait(event->stream->guard, event));
    LRD_TRY(event->backend->ops->event_sync(event));
out:
    return status;
}

lrd_status_t lrd_timer_create(lrd_backend_t *be, lrd_event_t **timer_out)
{
    return be->ops->timer_create(be, timer_out);
}

lrd_status_t lrd_timer_seconds(lrd_event_t *begin, lrd_event_t *end, double *seconds_out)
{
    return begin->backend->ops->timer_seconds(begin, end, seconds_out);
}

bool lrd_has_graphs(const lrd_backend_t *be)
{
    return be->ops->has_graphs && !lrd_profile_is_on();
}

lrd_status_t lrd_graph_begin(lrd_stream_t *st)
{
    return st->backend->ops->graph_begin(st);
}

lrd_status_t lrd_graph_end(lrd_stream_t *st, size_t most_nodes, lrd_graph_t **graph_out)
{
    return st->backend->ops->graph_end(st, most_nodes, graph_out);
}

lrd_status_t lrd_graph_launch(lrd_stream_t *st, lrd_graph_t *graph)
{
    lrd_beat();
    return st->backend->ops->graph_launch(st, graph);
}

void lrd_graph_destroy(lrd_graph_t *graph)
{
    if (graph != NULL)
        graph->backend->ops->graph_destroy(graph);
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

int64_t lrd_lora_columns(const lrd_backend_t *be, int64_t rank)
{
    return be->ops->lora_columns != NULL && rank > 0 ? be->ops->lora_columns(rank) : 0;
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
