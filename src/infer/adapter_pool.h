/* infer/adapter_pool.h -- adapters that are resident beside one base, by name.
 *
 * Loading puts an adapter's A and B on the device once; using it is naming it, and never touches the
 * base. Adapters of any rank and targets stand side by side.
 */
#ifndef LRD_INFER_ADAPTER_POOL_H
#define LRD_INFER_ADAPTER_POOL_H

#include "base/buf.h"
#include "model/engine.h"

typedef struct lrd_pool_entry {
    char *name, *folder;
    lrd_adapter_t *adapter;
    float *params; /* device [n_params] */
    int64_t rank;  /* the largest of its modules' */
} lrd_pool_entry_t;

typedef struct lrd_pool {
    const lrd_engine_t *engine; /* borrowed */
    lrd_pool_entry_t **entries; /* [n], in the order of loading; an entry stays where it is */
    size_t n, capacity;
} lrd_pool_t;

void lrd_pool_open(const lrd_engine_t *engine, lrd_pool_t *pool_out);
void lrd_pool_close(lrd_pool_t *pool); /* {0} is fine; before the engine */

/* Loads <folder>; name NULL: the folder's last part. An adapter that was there under this name is
 * replaced once the new one is complete. *entry_out may be NULL. Errors are those of lora/peft.h and
 * lrd_model_adapter_create; LRD_ERR_ARG: the name is empty or has white space. The pool stays as it
 * was on failure. */
lrd_status_t lrd_pool_load(lrd_pool_t *pool, const char *name, const char *folder,
                           const lrd_pool_entry_t **entry_out);

/* LRD_ERR_ARG: there is none of that name; the message lists those that there are,
 * behind `place`: where the name stands ("prompts.jsonl:3: "), or "". */
lrd_status_t lrd_pool_unload(lrd_pool_t *pool, const char *name);
lrd_status_t lrd_pool_find(const lrd_pool_t *pool, const char *place, const char *name,
                           const lrd_pool_entry_t **entry_out);

/* Device memory of an adapter, and of all. */
size_t lrd_pool_entry_bytes(const lrd_pool_entry_t *entry);
size_t lrd_pool_bytes(const lrd_pool_t *pool);

/* The largest rank among them; 0: there are none. */
int64_t lrd_pool_rank(const lrd_pool_t *pool);

/* Appends a line for each adapter: name, rank, modules, memory, folder; and their sum. */
lrd_status_t lrd_pool_print(const lrd_pool_t *pool, lrd_buf_t *buf);

#endif /* LRD_INFER_ADAPTER_POOL_H */
