#include "model/graphs.h"

#include "base/mem.h"

#include <string.h>

typedef struct entry {
    uint64_t *key; /* [n_words] */
    size_t n_words;
    int64_t used;       /* when it was used last; 0: it is free */
    lrd_graph_t *graph; /* NULL: the pass has run once */
    size_t bytes;       /* that the device had less of */
} entry_t;

struct lrd_graphs {
    lrd_stream_t *stream;
    int64_t now;
    int n;
    uint64_t *keys;     /* [n][words of the longest] */
    entry_t *entry;     /* [n] */
    size_t held, taken; /* bytes of all entries, and the most that they were */
};

/* What a graph takes: CUDA says little, a library of NVIDIA's (cccl) counts 10 KiB for a node. The way back through a
 * block has some 50 nodes (adapters on all linears, dropout, all formed again), and some more where it begins and ends. */
enum { NODE_BYTES = 12 << 10, NODES_OF_BLOCK = 64, NODES_BESIDE = 64 };

size_t lrd_graphs_reserve(const lrd_graphs_t *g, int64_t n_blocks)
{
    const int64_t nodes = n_blocks * NODES_OF_BLOCK + NODES_BESIDE;
    return g != NULL ? (size_t)(g->n * nodes * NODE_BYTES) : 0;
}

size_t lrd_graphs_taken(const lrd_graphs_t *g)
{
    return g != NULL ? g->taken : 0;
}

lrd_status_t lrd_graphs_create(lrd_stream_t *stream, int n, size_t n_words,
                               lrd_graphs_t **graphs_out)
{
    lrd_status_t status = LRD_OK;
    lrd_graphs_t *g = NULL;
    LRD_NEW(g, 1);
    g->stream = stream;
    LRD_NEW(g->keys, (size_t)n * n_words);
    LRD_NEW(g->entry, n);
    g->n = n;
    for (int i = 0; i < n; i++)
        g->entry[i].key = g->keys + (size_t)i * n_words;
    *graphs_out = g;
    g = NULL;
out:
    lrd_graphs_destroy(g);
    return status;
}

void lrd_graphs_destroy(lrd_graphs_t *g)
{
    if (g == NULL)
        return;
    (void)lrd_graphs_forget(g); /* whoever waited for results has heard of it */
    lrd_free(g->entry);
    lrd_free(g->keys);
    lrd_free(g);
}

/* Its place is free. The stream has been waited for. */
static void clear(lrd_graphs_t *g, entry_t *e)
{
    lrd_graph_destroy(e->graph);
    g->held -= e->bytes;
    e->graph = NULL;
    e->bytes = 0;
    e->used = 0;
}

lrd_status_t lrd_graphs_forget(lrd_graphs_t *g)
{
    bool any = false;
    for (int i = 0; i < g->n; i++)
        any = any || g->entry[i].graph != NULL;
    const lrd_status_t status = any ? lrd_stream_sync(g->stream) : LRD_OK;
    for (int i = 0; i < g->n; i++)
        clear(g, &g->entry[i]);
    return status;
}

static entry_t *find(lrd_graphs_t *g, const uint64_t *key, size_t n_words)
{
    for (int i = 0; i < g->n; i++) {
        entry_t *e = &g->entry[i];
        if (e->used > 0 && e->n_words == n_words && memcmp(e->key, key, n_words * sizeof *key) == 0)
            return e;
    }
    return NULL;
}

/* A free place, or that of the pass which was not asked for the longest. */
static lrd_status_t replace(lrd_graphs_t *g, const uint64_t *key, size_t n_words)
{
    lrd_status_t status = LRD_OK;
    entry_t *e = &g->entry[0];
    for (int i = 1; i < g->n; i++)
        e = g->entry[i].used < e->used ? &g->entry[i] : e;
    if (e->graph != NULL)
        LRD_TRY(lrd_stream_sync(g->stream));
    clear(g, e);
    memcpy(e->key, key, n_words * sizeof *key);
    e->n_words = n_words;
    e->used = ++g->now;
out:
    return status;
}

static lrd_status_t take_down(lrd_graphs_t *g, entry_t *e, lrd_graphs_pass_t *pass, void *context)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_graph_begin(g->stream));
    status = pass(context);
    const lrd_status_t ended = lrd_graph_end(g->stream, status == LRD_OK ? &e->graph : NULL);
    status = status == LRD_OK ? ended : status;
out:
    return status;
}

/* Bytes of the device; what it has less of behind a first launch is the graph's. */
static size_t count_free(const lrd_graphs_t *g)
{
    size_t free_bytes = 0, total_bytes;
    if (lrd_mem_info(g->stream->backend, &free_bytes, &total_bytes) != LRD_OK)
        lrd_error_clear(); /* it is only told to people */
    return free_bytes;
}

static lrd_status_t launch_first(lrd_graphs_t *g, entry_t *e, lrd_graphs_pass_t *pass,
                                 void *context)
{
    lrd_status_t status = LRD_OK;
    const size_t free_before = count_free(g);
    LRD_TRY(take_down(g, e, pass, context));
    LRD_TRY(lrd_graph_launch(g->stream, e->graph));
    const size_t free_now = count_free(g);
    e->bytes = free_before > free_now ? free_before - free_now : 0;
    g->held += e->bytes;
    g->taken = g->held > g->taken ? g->held : g->taken;
out:
    return status;
}

lrd_status_t lrd_graphs_run(lrd_graphs_t *g, const uint64_t *key, size_t n_words,
                            lrd_graphs_pass_t *pass, void *context)
{
    lrd_status_t status = LRD_OK;
    entry_t *e = find(g, key, n_words);
    if (e == NULL) {
        LRD_TRY(replace(g, key, n_words));
        return pass(context);
    }
    e->used = ++g->now;
    if (e->graph == NULL)
        return launch_first(g, e, pass, context);
    LRD_TRY(lrd_graph_launch(g->stream, e->graph));
out:
    return status;
}
