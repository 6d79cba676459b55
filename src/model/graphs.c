#include "model/graphs.h"

#include "base/mem.h"

#include <string.h>

/* Of a pass that is remembered. */
typedef struct entry {
    uint64_t *key; /* [n_words] */
    size_t n_words;
    int64_t used;       /* when it was asked for last; 0: it is free */
    lrd_graph_t *graph; /* NULL: it has run as it stands */
    bool too_large;     /* to be one */
} entry_t;

/* An event is recorded at every so many launches. */
enum { MARK = 16 };

struct lrd_graphs {
    lrd_stream_t *stream;
    int64_t now;
    int n, n_graphs;            /* that may be kept, that there are */
    size_t most_nodes, n_nodes; /* when another graph may be made, that there are */
    size_t largest;             /* nodes of a graph, at most */
    uint64_t *keys;             /* [2 n][words of the longest] */
    entry_t *entry;             /* [2 n] */
    lrd_event_t *mark;
    int64_t marked; /* `now` when it was recorded last */
    lrd_graphs_taken_t taken;
};

/* What a node takes: CUDA says little, a library of NVIDIA's (cccl) counts 10 KiB. A block has 9 nodes on the way
 * forward and 16 back with adapters on its query_key_value, 15 and 36 with them on all linears (15 more where it is
 * formed again): at most, and so many on average of all graphs, of which heads and ends of updates have few. Each
 * adapter beside the first has two of its own on each of four linears. */
enum {
    NODE_BYTES = 12 << 10,
    MOST_OF_BLOCK = 64,
    MOST_OF_USE = 8,
    MOST_BESIDE = 64,
    MEAN_OF_BLOCK = 12,
    MEAN_BESIDE = 16
};

/* What the emulated device counts, or one more. */
int64_t lrd_graphs_nodes_up(int64_t n_adapted)
{
    return 7 + 2 * n_adapted;
}

int64_t lrd_graphs_nodes_down(int64_t n_adapted)
{
    return 9 + 7 * n_adapted;
}

/* Of all graphs that are kept. */
static int64_t most_nodes(const lrd_graphs_limits_t *l)
{
    const int64_t usual = l->n * l->n_blocks * MEAN_OF_BLOCK;
    const bool fewer = l->n_nodes > 0 && l->n_nodes < usual;
    return (fewer ? l->n_nodes : usual) + l->n * MEAN_BESIDE;
}

lrd_status_t lrd_graphs_create(lrd_stream_t *stream, const lrd_graphs_limits_t *limits,
                               lrd_graphs_t **graphs_out)
{
    lrd_status_t status = LRD_OK;
    lrd_graphs_t *g = NULL;
    const int n = limits->n;
    LRD_NEW(g, 1);
    g->stream = stream;
    LRD_NEW(g->keys, 2 * (size_t)n * limits->n_words);
    LRD_NEW(g->entry, 2 * n);
    g->n = n;
    g->most_nodes = (size_t)most_nodes(limits);
    const int64_t more = limits->n_uses > 1 ? (limits->n_uses - 1) * MOST_OF_USE : 0;
    g->largest = (size_t)(limits->n_blocks * (MOST_OF_BLOCK + more) + MOST_BESIDE);
    for (int i = 0; i < 2 * n; i++)
        g->entry[i].key = g->keys + (size_t)i * limits->n_words;
    LRD_TRY(lrd_event_create(stream->backend, &g->mark));
    *graphs_out = g;
    g = NULL;
out:
    lrd_graphs_destroy(g);
    return status;
}

size_t lrd_graphs_reserve(const lrd_graphs_t *g)
{
    return g != NULL ? (g->most_nodes + g->largest) * NODE_BYTES : 0;
}

lrd_graphs_taken_t lrd_graphs_taken(const lrd_graphs_t *g)
{
    return g != NULL ? g->taken : (lrd_graphs_taken_t){0, 0};
}

void lrd_graphs_destroy(lrd_graphs_t *g)
{
    if (g == NULL)
        return;
    if (g->entry != NULL)
        (void)lrd_graphs_forget(g); /* whoever waited for results has heard of it */
    lrd_event_destroy(g->mark);
    lrd_free(g->entry);
    lrd_free(g->keys);
    lrd_free(g);
}

/* Its place is free. No launch of its graph is under way. */
static void clear(lrd_graphs_t *g, entry_t *e)
{
    g->n_graphs -= e->graph != NULL;
    g->n_nodes -= e->graph != NULL ? e->graph->n_nodes : 0;
    lrd_graph_destroy(e->graph);
    e->graph = NULL;
    e->used = 0;
}

/* Graphs are gone, before which the device had so much: not all that they took has to be back. */
static void note_return(lrd_graphs_t *g, size_t free_before)
{
    const size_t free_now = lrd_mem_free_bytes(g->stream->backend),
                 back = free_now > free_before ? free_now - free_before : 0;
    g->taken.now -= back < g->taken.now ? back : g->taken.now;
}

lrd_status_t lrd_graphs_forget(lrd_graphs_t *g)
{
    const bool any = g->n_graphs > 0;
    const lrd_status_t status = any ? lrd_stream_sync(g->stream) : LRD_OK;
    const size_t free_before = any ? lrd_mem_free_bytes(g->stream->backend) : 0;
    for (int i = 0; i < 2 * g->n; i++)
        clear(g, &g->entry[i]);
    if (any)
        note_return(g, free_before);
    return status;
}

static entry_t *find(lrd_graphs_t *g, const uint64_t *key, size_t n_words)
{
    for (int i = 0; i < 2 * g->n; i++) {
        entry_t *e = &g->entry[i];
        if (e->used > 0 && e->n_words == n_words && memcmp(e->key, key, n_words * sizeof *key) == 0)
            return e;
    }
    return NULL;
}

/* Of those with a graph, or of those without, which are free at first, the one that was not asked for the
 * longest. */
static entry_t *find_oldest(lrd_graphs_t *g, bool with_graph)
{
    entry_t *oldest = NULL;
    for (int i = 0; i < 2 * g->n; i++) {
        entry_t *e = &g->entry[i];
        if ((e->graph != NULL) == with_graph && (oldest == NULL || e->used < oldest->used))
            oldest = e;
    }
    return oldest;
}

static void remember(lrd_graphs_t *g, const uint64_t *key, size_t n_words)
{
    entry_t *e = find_oldest(g, false);
    memcpy(e->key, key, n_words * sizeof *key);
    e->n_words = n_words;
    e->too_large = false;
    e->used = ++g->now;
}

/* Its last launch is long past as a rule, and the stream is not waited for. */
static lrd_status_t drop(lrd_graphs_t *g, entry_t *e)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(e->used <= g->marked ? lrd_event_sync(g->mark) : lrd_stream_sync(g->stream));
    const size_t free_before = lrd_mem_free_bytes(g->stream->backend);
    clear(g, e);
    note_return(g, free_before);
out:
    return status;
}

static lrd_status_t take_down(lrd_graphs_t *g, entry_t *e, lrd_graphs_pass_t *pass, void *context)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_graph_begin(g->stream));
    status = pass(context);
    const lrd_status_t ended =
        lrd_graph_end(g->stream, g->largest, status == LRD_OK ? &e->graph : NULL);
    status = status == LRD_OK ? ended : status;
    g->n_graphs += e->graph != NULL;
    g->n_nodes += e->graph != NULL ? e->graph->n_nodes : 0;
out:
    return status;
}

static lrd_status_t launch(lrd_graphs_t *g, const entry_t *e)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_graph_launch(g->stream, e->graph));
    if (g->now - g->marked >= MARK) {
        LRD_TRY(lrd_event_record(g->stream, g->mark));
        g->marked = g->now;
    }
out:
    return status;
}

static lrd_status_t launch_first(lrd_graphs_t *g, entry_t *e, lrd_graphs_pass_t *pass,
                                 void *context)
{
    lrd_status_t status = LRD_OK;
    const size_t free_before = lrd_mem_free_bytes(g->stream->backend);
    LRD_TRY(take_down(g, e, pass, context));
    e->too_large = e->graph == NULL;
    if (e->too_large)
        return pass(context);
    LRD_TRY(launch(g, e));
    const size_t free_now = lrd_mem_free_bytes(g->stream->backend);
    g->taken.now += free_before > free_now ? free_before - free_now : 0;
    g->taken.most = g->taken.now > g->taken.most ? g->taken.now : g->taken.most;
out:
    return status;
}

/* Room for another graph, of those that were not asked for since `time`. */
static lrd_status_t make_room(lrd_graphs_t *g, int64_t time, bool *made_out)
{
    lrd_status_t status = LRD_OK;
    while (g->n_graphs == g->n || g->n_nodes >= g->most_nodes) {
        entry_t *oldest = find_oldest(g, true);
        *made_out = oldest->used <= time;
        if (!*made_out)
            goto out;
        LRD_TRY(drop(g, oldest));
    }
    *made_out = true;
out:
    return status;
}

lrd_status_t lrd_graphs_run(lrd_graphs_t *g, const uint64_t *key, size_t n_words,
                            lrd_graphs_pass_t *pass, void *context)
{
    lrd_status_t status = LRD_OK;
    bool room;
    entry_t *e = find(g, key, n_words);
    if (e == NULL) {
        remember(g, key, n_words);
        return pass(context);
    }
    const int64_t before = e->used;
    e->used = ++g->now;
    if (e->graph != NULL)
        return launch(g, e);
    if (e->too_large)
        return pass(context);
    LRD_TRY(make_room(g, before, &room));
    status = room ? launch_first(g, e, pass, context) : pass(context);
out:
    return status;
}
