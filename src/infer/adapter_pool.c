#include "infer/adapter_pool.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "lora/peft.h"

#include <string.h>

void lrd_pool_open(const lrd_engine_t *engine, lrd_pool_t *pool_out)
{
    *pool_out = (lrd_pool_t){.engine = engine};
}

size_t lrd_pool_entry_bytes(const lrd_pool_entry_t *entry)
{
    return (size_t)entry->adapter->n_params * sizeof *entry->params;
}

size_t lrd_pool_bytes(const lrd_pool_t *pool)
{
    size_t bytes = 0;
    for (size_t i = 0; i < pool->n; i++)
        bytes += lrd_pool_entry_bytes(pool->entries[i]);
    return bytes;
}

int64_t lrd_pool_rank(const lrd_pool_t *pool)
{
    int64_t rank = 0;
    for (size_t i = 0; i < pool->n; i++)
        rank = pool->entries[i]->rank > rank ? pool->entries[i]->rank : rank;
    return rank;
}

static void free_entry(lrd_backend_t *backend, lrd_pool_entry_t *entry)
{
    if (entry == NULL)
        return;
    if (entry->params != NULL)
        lrd_mem_free(backend, LRD_MEM_DEVICE, entry->params, lrd_pool_entry_bytes(entry));
    lrd_adapter_free(entry->adapter);
    lrd_free(entry->folder);
    lrd_free(entry->name);
    lrd_free(entry);
}

void lrd_pool_close(lrd_pool_t *pool)
{
    for (size_t i = 0; i < pool->n; i++)
        free_entry(pool->engine->backend, pool->entries[i]);
    lrd_free(pool->entries);
    *pool = (lrd_pool_t){0};
}

/* Its numbers from the file to the device. */
static lrd_status_t load_params(const lrd_engine_t *engine, lrd_pool_entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = lrd_pool_entry_bytes(entry);
    float *pinned = NULL;
    LRD_TRY(lrd_mem_alloc(engine->backend, LRD_MEM_PINNED, bytes, (void **)&pinned));
    LRD_TRY(lrd_peft_read_params(entry->folder, entry->adapter, pinned));
    LRD_TRY(lrd_mem_alloc(engine->backend, LRD_MEM_DEVICE, bytes, (void **)&entry->params));
    LRD_TRY(lrd_copy(engine->stream, LRD_COPY_H2D, entry->params, pinned, bytes));
    LRD_TRY(lrd_stream_sync(engine->stream));
out:
    lrd_mem_free(engine->backend, LRD_MEM_PINNED, pinned, bytes);
    return status;
}

static lrd_status_t make_entry(const lrd_engine_t *engine, const char *name, const char *folder,
                               lrd_pool_entry_t **entry_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    lrd_pool_entry_t *entry = NULL;
    LRD_NEW(entry, 1);
    LRD_ALLOC(entry->folder, lrd_strdup(folder));
    LRD_ALLOC(entry->name, lrd_strdup(name));
    LRD_TRY(lrd_peft_read_config(folder, &settings));
    LRD_TRY(lrd_model_adapter_create(&engine->config, &settings->lora, &entry->adapter));
    for (int i = 0; i < entry->adapter->n_items; i++) {
        const int64_t r = entry->adapter->items[i].r;
        entry->rank = r > entry->rank ? r : entry->rank;
    }
    LRD_TRY(load_params(engine, entry));
    *entry_out = entry;
    entry = NULL;
out:
    free_entry(engine->backend, entry);
    lrd_settings_free(settings);
    return status;
}

static size_t index_of(const lrd_pool_t *pool, const char *name)
{
    size_t i = 0;
    while (i < pool->n && strcmp(pool->entries[i]->name, name) != 0)
        i++;
    return i;
}

/* "a/b/squad" and "a/b/squad/" are called squad. */
static char *last_part(const char *folder)
{
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/')
        begin--;
    return lrd_strndup(folder + begin, end - begin);
}

lrd_status_t lrd_pool_load(lrd_pool_t *pool, const char *name, const char *folder,
                           const lrd_pool_entry_t **entry_out)
{
    lrd_status_t status = LRD_OK;
    lrd_pool_entry_t *entry = NULL;
    char *own = NULL;
    LRD_ALLOC(own, name != NULL ? lrd_strdup(name) : last_part(folder));
    LRD_CHECK(own[0] != '\0' && strpbrk(own, " \t\r\n") == NULL, LRD_ERR_ARG,
              "\"%s\" is no name for an adapter: name it without white space, as NAME=%s", own,
              folder);
    LRD_TRY(make_entry(pool->engine, own, folder, &entry));
    const size_t at = index_of(pool, own);
    LRD_GROW(pool->entries, at, pool->capacity);
    if (at < pool->n)
        free_entry(pool->engine->backend, pool->entries[at]);
    else
        pool->n++;
    pool->entries[at] = entry;
    if (entry_out != NULL)
        *entry_out = entry;
    entry = NULL;
out:
    free_entry(pool->engine->backend, entry);
    lrd_free(own);
    return status;
}

static lrd_status_t fail_unknown(const lrd_pool_t *pool, const char *place, const char *name)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t list = {0};
    const char **names = NULL;
    LRD_NEW(names, pool->n + 1);
    for (size_t i = 0; i < pool->n; i++) {
        names[i] = pool->entries[i]->name;
        LRD_TRY(lrd_buf_printf(&list, "%s%s", i > 0 ? ", " : "", names[i]));
    }
    const char *meant = lrd_nearest(name, names, pool->n);
    LRD_CHECK(pool->n > 0, LRD_ERR_ARG, "%sno adapter \"%s\": none is loaded", place, name);
    LRD_CHECK(meant == NULL, LRD_ERR_ARG, "%sno adapter \"%s\"; did you mean %s?", place, name,
              meant);
    LRD_FAIL(LRD_ERR_ARG, "%sno adapter \"%s\"; loaded are %s", place, name, list.data);
out:
    lrd_free(names);
    lrd_buf_release(&list);
    return status;
}

lrd_status_t lrd_pool_find(const lrd_pool_t *pool, const char *place, const char *name,
                           const lrd_pool_entry_t **entry_out)
{
    const size_t at = index_of(pool, name);
    if (at == pool->n)
        return fail_unknown(pool, place, name);
    *entry_out = pool->entries[at];
    return LRD_OK;
}

lrd_status_t lrd_pool_unload(lrd_pool_t *pool, const char *name)
{
    const size_t at = index_of(pool, name);
    if (at == pool->n)
        return fail_unknown(pool, "", name);
    free_entry(pool->engine->backend, pool->entries[at]);
    pool->n--;
    memmove(pool->entries + at, pool->entries + at + 1,
            (pool->n - at) * sizeof(lrd_pool_entry_t *));
    return LRD_OK;
}

lrd_status_t lrd_pool_print(const lrd_pool_t *pool, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < pool->n; i++) {
        const lrd_pool_entry_t *e = pool->entries[i];
        LRD_TRY(lrd_buf_printf(buf, "  %-20s r %-4lld %4d modules %9.2f MiB  %s\n", e->name,
                               (long long)e->rank, e->adapter->n_items,
                               (double)lrd_pool_entry_bytes(e) / 0x1p20, e->folder));
    }
    LRD_TRY(lrd_buf_printf(buf, "  %zu adapter%s, %.2f MiB beside a base of %.2f MiB\n", pool->n,
                           pool->n == 1 ? "" : "s", (double)lrd_pool_bytes(pool) / 0x1p20,
                           (double)lrd_engine_base_bytes(pool->engine) / 0x1p20));
out:
    return status;
}
