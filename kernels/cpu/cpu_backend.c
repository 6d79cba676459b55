#include "kernels/cpu/cpu_backend.h"

#include "base/host_memory.h"
#include "base/mem.h"
#include "kernels/cpu/cpu_tuning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void cpu_close(lrd_backend_t *backend)
{
    cpu_backend_t *be = (cpu_backend_t *)backend;
    if (be == NULL)
        return;
    tuning_free(be->tuning);
    lrd_free(be);
}

static lrd_status_t cpu_open(const lrd_backend_options_t *options, lrd_backend_t **backend_out)
{
    lrd_status_t status = LRD_OK;
    cpu_backend_t *be;
    LRD_NEW(be, 1);
    be->base.ops = &lrd_cpu_ops;
    be->n_threads = options->n_threads;
    LRD_TRY(micro_choose(&be->isa));
    const lrd_product_options_t *p = options->products;
    LRD_CHECK(!p->tf32, LRD_ERR_UNSUPPORTED,
              "training.tf32: true needs a GPU: here float32 is multiplied as it is; leave it out");
    be->tunes = p->tunes;
    if (p->tuning != NULL || p->tunes)
        LRD_TRY(tuning_open(p->tuning, p->tuning_file, be->isa, &be->tuning));
    *backend_out = &be->base;
    be = NULL;
out:
    cpu_close((lrd_backend_t *)be);
    return status;
}

static lrd_status_t cpu_describe(lrd_backend_t *backend, char *text, size_t size)
{
    const cpu_backend_t *be = (const cpu_backend_t *)backend;
    char machine[160];
    tuning_machine(be->isa, machine);
    snprintf(text, size, "%d thread%s, %s, bfloat16 products %s", be->n_threads,
             be->n_threads == 1 ? "" : "s", machine,
             be->tunes               ? "being tuned"
             : be->tuning != NULL    ? "as tuned"
             : be->isa->pairs_faster ? "native"
                                     : "widened to float32");
    return LRD_OK;
}

static lrd_status_t cpu_tuned(lrd_backend_t *backend, lrd_tuning_t *tuning_out)
{
    lrd_status_t status = LRD_OK;
    const cpu_backend_t *be = (const cpu_backend_t *)backend;
    *tuning_out = (lrd_tuning_t){.n = 0};
    tuning_machine(be->isa, tuning_out->machine);
    if (be->tuning != NULL)
        LRD_TRY(tuning_list(be->tuning, be->isa, tuning_out));
out:
    return status;
}

/* Processors may differ; what somebody asked of them may not. */
static void cpu_software(lrd_backend_t *backend, char text[LRD_SOFTWARE])
{
    (void)backend;
    const char *isa = getenv("LRD_CPU_ISA");
    snprintf(text, LRD_SOFTWARE, "LRD_CPU_ISA\t%.64s\n", isa != NULL ? isa : "not set");
}

static lrd_status_t cpu_mem_info(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out)
{
    lrd_status_t status = LRD_OK;
    lrd_host_memory_t host;
    (void)be;
    LRD_TRY(lrd_host_memory_read(&host));
    const lrd_memory_bound_t *least = lrd_host_memory_least(&host, NULL, NULL);
    *free_bytes_out = least->free_bytes;
    *total_bytes_out = least->total_bytes;
out:
    return status;
}

static lrd_status_t cpu_mem_alloc(lrd_backend_t *be, lrd_memkind_t kind, size_t bytes,
                                  void **ptr_out)
{
    (void)be;
    (void)kind;
    lrd_status_t status = LRD_OK;
    void *ptr = lrd_pages_alloc(bytes);
    LRD_CHECK(ptr != NULL, LRD_ERR_NO_MEMORY, "out of memory: %zu bytes", bytes);
    *ptr_out = ptr;
out:
    return status;
}

static void cpu_mem_free(lrd_backend_t *be, lrd_memkind_t kind, void *ptr, size_t bytes)
{
    (void)be;
    (void)kind;
    lrd_pages_free(ptr, bytes);
}

static lrd_status_t cpu_stream_create(lrd_backend_t *be, lrd_stream_t **stream_out)
{
    lrd_status_t status = LRD_OK;
    lrd_stream_t *st;
    LRD_NEW(st, 1);
    st->backend = be;
    *stream_out = st;
out:
    return status;
}

static void cpu_stream_destroy(lrd_stream_t *st)
{
    lrd_free(st);
}

static lrd_status_t cpu_stream_sync(lrd_stream_t *st)
{
    (void)st;
    return LRD_OK;
}

/* Whatever was asked for has been done: there is never anything to wait for. */
static lrd_status_t cpu_stream_wait(lrd_stream_t *st, lrd_event_t *event)
{
    (void)st;
    (void)event;
    return LRD_OK;
}

static lrd_status_t cpu_event_create(lrd_backend_t *be, lrd_event_t **event_out)
{
    lrd_status_t status = LRD_OK;
    lrd_event_t *event;
    LRD_NEW(event, 1);
    event->backend = be;
    *event_out = event;
out:
    return status;
}

static void cpu_event_destroy(lrd_event_t *event)
{
    lrd_free(event);
}

static lrd_status_t cpu_event_record(lrd_stream_t *st, lrd_event_t *event)
{
    (void)st;
    (void)event;
    return LRD_OK;
}

static lrd_status_t cpu_event_sync(lrd_event_t *event)
{
    (void)event;
    return LRD_OK;
}

static lrd_status_t cpu_copy(lrd_stream_t *st, lrd_copydir_t dir, void *dst, const void *src,
                             size_t bytes)
{
    (void)st;
    (void)dir;
    memcpy(dst, src, bytes);
    return LRD_OK;
}

static lrd_status_t cpu_zero(lrd_stream_t *st, void *dst, size_t bytes)
{
    (void)st;
    memset(dst, 0, bytes);
    return LRD_OK;
}

static size_t cpu_scratch_bytes(const lrd_backend_t *backend, const lrd_limits_t *l)
{
    const cpu_backend_t *be = (const cpu_backend_t *)backend;
    const size_t need[] = {cpu_linear_scratch(be, l),      cpu_attn_scratch(be, l),
                           cpu_attn_cached_scratch(be, l), cpu_linear_ce_scratch(be, l),
                           cpu_norm_scratch(be, l),        cpu_sample_scratch(be, l)};
    size_t most = 0;
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++)
        most = need[i] > most ? need[i] : most;
    return most;
}

lrd_status_t cpu_scratch_split(const cpu_backend_t *be, lrd_scratch_t scratch, size_t shared_bytes,
                               size_t thread_bytes, cpu_scratch_t *split_out)
{
    lrd_status_t status = LRD_OK;
    const size_t shared = cpu_round(shared_bytes), part = cpu_round(thread_bytes);
    LRD_CHECK(shared + part * (size_t)be->n_threads <= scratch.bytes, LRD_ERR_ARG,
              "an op needs %zu bytes of scratch, %zu were given: its shapes exceed the limits it "
              "was sized for",
              shared + part * (size_t)be->n_threads, scratch.bytes);
    *split_out = (cpu_scratch_t){scratch.data, (uint8_t *)scratch.data + shared, part};
out:
    return status;
}

const lrd_ops_t lrd_cpu_ops = {.name = "cpu",
                               .abi_version = LRD_OPS_ABI_VERSION,
                               .reads_host_memory = true,
                               .open = cpu_open,
                               .close = cpu_close,
                               .describe = cpu_describe,
                               .software = cpu_software,
                               .mem_info = cpu_mem_info,
                               .mem_alloc = cpu_mem_alloc,
                               .mem_free = cpu_mem_free,
                               .stream_create = cpu_stream_create,
                               .stream_destroy = cpu_stream_destroy,
                               .stream_sync = cpu_stream_sync,
                               .stream_wait = cpu_stream_wait,
                               .event_create = cpu_event_create,
                               .event_destroy = cpu_event_destroy,
                               .event_record = cpu_event_record,
                               .event_sync = cpu_event_sync,
                               .copy = cpu_copy,
                               .zero = cpu_zero,
                               .scratch_bytes = cpu_scratch_bytes,
                               .kv_cache_bytes = cpu_kv_cache_bytes,
                               .tuned = cpu_tuned,
#define OP(name, args) .name = cpu_##name,
                               LRD_OP_LIST(OP)
#undef OP
};
