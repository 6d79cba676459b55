#include "model/memory.h"

#include "base/host_memory.h"

#include <stdio.h>
#include <string.h>

void lrd_memory_plan(lrd_backend_t *backend, lrd_layout_t *layout, void *context,
                     size_t scratch_bytes, lrd_memory_t *memory_out)
{
    lrd_memory_t m = {
        .backend = backend, .layout = layout, .context = context, .scratch = {NULL, scratch_bytes}};
    layout(context, &m.model, &m.step);
    *memory_out = m;
}

size_t lrd_memory_total(const lrd_memory_t *m)
{
    return m->model.used + m->step.used + m->scratch.bytes + m->nccl.bound + m->graphs.bound;
}

static const char advice[] =
    "Smaller micro-batches (per_device_train_batch_size, or max_tokens_per_micro_batch) or a "
    "shorter max_length need less; so does model.dtype bfloat16 or float16";

/* The device gave less than it had free: pieces that are too small, or another program. */
static lrd_status_t allocate(lrd_backend_t *be, const char *what, size_t bytes, void **base_out)
{
    char why[512];
    const lrd_status_t status = lrd_mem_alloc(be, LRD_MEM_DEVICE, bytes, base_out);
    if (status != LRD_ERR_NO_MEMORY)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    return lrd_fail(status, __FILE__, __LINE__, "no memory for %s, %.2f GiB: %s. %s", what,
                    (double)bytes / 0x1p30, why, advice);
}

/* Allocates one arena of the measured size; an empty one stays without memory. */
static lrd_status_t allocate_arena(lrd_backend_t *be, const char *what, lrd_arena_t *arena)
{
    lrd_status_t status = LRD_OK;
    void *base;
    const size_t bytes = arena->used > 0 ? arena->used : LRD_ARENA_ALIGN;
    LRD_TRY(allocate(be, what, bytes, &base));
    *arena = (lrd_arena_t){.base = base, .capacity = bytes};
out:
    return status;
}

static const char of_model[] = "the model (weights, adapter, optimizer, gradients)",
                  of_step[] = "activations and buffers", of_scratch[] = "scratch";

/* What of that is not taken yet. */
static size_t still_aside(const lrd_aside_t *a)
{
    return a->bound > a->taken ? a->bound - a->taken : 0;
}

/* What the device has, and what keeps it from having more: "" where that is the device itself. */
static lrd_status_t find_room(lrd_backend_t *be, size_t *free_bytes_out, size_t *total_bytes_out,
                              char why[LRD_MEMORY_BOUND_NAME])
{
    lrd_status_t status = LRD_OK;
    lrd_host_memory_t host;
    why[0] = '\0';
    if (!be->ops->reads_host_memory)
        return lrd_mem_info(be, free_bytes_out, total_bytes_out);
    LRD_TRY(lrd_host_memory_read(&host));
    const lrd_memory_bound_t *least = lrd_host_memory_least(&host, NULL, NULL);
    *free_bytes_out = least->free_bytes;
    *total_bytes_out = least->total_bytes;
    if (least != &host.bound[0])
        snprintf(why, LRD_MEMORY_BOUND_NAME, "%s", least->name);
out:
    return status;
}

/* Is there room for what was measured, less what is allocated already? */
static lrd_status_t check_room(const lrd_memory_t *m, size_t allocated)
{
    lrd_status_t status = LRD_OK;
    const size_t aside = still_aside(&m->nccl) + still_aside(&m->graphs);
    const size_t needed = m->model.used + m->step.used + m->scratch.bytes - allocated + aside;
    size_t free_bytes, total_bytes;
    char beside[96] = "";
    char why[LRD_MEMORY_BOUND_NAME];
    LRD_TRY(find_room(m->backend, &free_bytes, &total_bytes, why));
    if (aside > 0)
        snprintf(beside, sizeof beside, ", set aside for NCCL %.2f and graphs %.2f",
                 (double)still_aside(&m->nccl) / 0x1p30, (double)still_aside(&m->graphs) / 0x1p30);
    LRD_CHECK(needed <= free_bytes, LRD_ERR_NO_MEMORY,
              "the run needs %.2f GiB (model %.2f, activations and buffers %.2f, scratch %.2f%s) "
              "and %.2f GiB of %.2f are free%s%s. %s",
              (double)needed / 0x1p30, (double)m->model.used / 0x1p30,
              (double)m->step.used / 0x1p30, (double)m->scratch.bytes / 0x1p30, beside,
              (double)free_bytes / 0x1p30, (double)total_bytes / 0x1p30, why[0] != '\0' ? ": " : "",
              why, advice);
out:
    return status;
}

/* The same path on real memory as on the measuring arenas. */
static lrd_status_t lay_out(lrd_memory_t *m, size_t measured)
{
    lrd_status_t status = LRD_OK;
    m->layout(m->context, &m->model, &m->step);
    LRD_CHECK(!m->model.overflow && !m->step.overflow && lrd_memory_total(m) == measured,
              LRD_ERR_INTERNAL, "the memory layout takes %zu bytes, it measured %zu",
              lrd_memory_total(m), measured);
out:
    return status;
}

lrd_status_t lrd_memory_allocate(lrd_memory_t *m)
{
    lrd_status_t status = LRD_OK;
    const size_t measured = lrd_memory_total(m);
    LRD_TRY(check_room(m, 0));
    LRD_TRY(allocate_arena(m->backend, of_model, &m->model));
    LRD_TRY(allocate_arena(m->backend, of_step, &m->step));
    LRD_TRY(allocate(m->backend, of_scratch, m->scratch.bytes, &m->scratch.data));
    LRD_TRY(lay_out(m, measured));
out:
    return status;
}

static void free_step(lrd_memory_t *m)
{
    lrd_mem_free(m->backend, LRD_MEM_DEVICE, m->step.base, m->step.capacity);
    lrd_mem_free(m->backend, LRD_MEM_DEVICE, m->scratch.data, m->scratch.bytes);
    m->step = (lrd_arena_t){0};
    m->scratch = (lrd_scratch_t){0};
}

lrd_status_t lrd_memory_resize(lrd_memory_t *m, size_t scratch_bytes)
{
    lrd_status_t status = LRD_OK;
    lrd_arena_t model = {0};
    free_step(m);
    m->layout(m->context, &model, &m->step);
    m->scratch.bytes = scratch_bytes;
    const size_t measured = lrd_memory_total(m);
    LRD_TRY(check_room(m, m->model.used));
    m->model = (lrd_arena_t){.base = m->model.base, .capacity = m->model.capacity};
    LRD_TRY(allocate_arena(m->backend, of_step, &m->step));
    LRD_TRY(allocate(m->backend, of_scratch, m->scratch.bytes, &m->scratch.data));
    LRD_TRY(lay_out(m, measured));
out:
    return status;
}

void lrd_memory_free(lrd_memory_t *m)
{
    if (m->backend == NULL)
        return;
    lrd_mem_free(m->backend, LRD_MEM_DEVICE, m->model.base, m->model.capacity);
    free_step(m);
    *m = (lrd_memory_t){0};
}

static bool is_host(const lrd_memory_t *m)
{
    return m->backend->ops->reads_host_memory;
}

size_t lrd_memory_needed(const lrd_memory_t *m)
{
    return lrd_memory_total(m) + (is_host(m) ? m->pinned_bytes : 0);
}

static lrd_status_t print_row(lrd_buf_t *buf, const char *name, size_t bytes)
{
    return bytes > 0 ? lrd_buf_printf(buf, "  %-32s %10.1f MiB\n", name, (double)bytes / 0x1p20)
                     : LRD_OK;
}

lrd_status_t lrd_memory_print(const lrd_memory_t *m, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    const lrd_arena_t *arenas[] = {&m->model, &m->step};
    for (int a = 0; a < 2; a++) {
        for (int i = 0; i < arenas[a]->n_categories; i++)
            LRD_TRY(print_row(buf, arenas[a]->category[i].name, arenas[a]->category[i].bytes));
    }
    LRD_TRY(print_row(buf, "scratch", m->scratch.bytes));
    LRD_TRY(print_row(buf, "NCCL, at most", m->nccl.bound));
    LRD_TRY(print_row(buf, "graphs, at most", m->graphs.bound));
    if (is_host(m))
        LRD_TRY(print_row(buf, "pinned host memory", m->pinned_bytes));
    LRD_TRY(print_row(buf, "weights mapped from their files", m->mapped_bytes));
    LRD_TRY(print_row(buf, "in all", lrd_memory_needed(m) + m->mapped_bytes));
    if (!is_host(m))
        LRD_TRY(print_row(buf, "beside it, pinned host memory", m->pinned_bytes));
    LRD_TRY(print_row(buf, "beside it, weights on the host", m->host_bytes));
    LRD_TRY(print_row(buf, "beside it, weights in files", m->file_bytes));
out:
    return status;
}
