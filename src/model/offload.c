#include "model/offload.h"

#include "base/mem.h"
#include "model/weights_parts.h"

#include <string.h>

enum { N_PIECES = 2, PIECE = 16 << 20 };

/* Device memory for one block. */
typedef struct slot {
    uint8_t *data;
    int layer;           /* what is in it, or on its way; -1: nothing */
    lrd_event_t *filled; /* behind its copy */
    lrd_event_t *read;   /* behind the ops that read what was in it before */
} slot_t;

/* Pinned memory through which a file travels. */
typedef struct piece {
    uint8_t *data;
    lrd_event_t *left; /* behind its copy to the device */
} piece_t;

struct lrd_offload {
    lrd_weights_t *weights;
    lrd_home_t *home;    /* [n_layers] */
    lrd_located_t *from; /* [n_layers][n_block_tensors] */
    size_t *at; /* [n_block_tensors + 1] of a tensor in a slot; behind the last: its size */
    int n_on_host, n_in_files, n_slots;
    slot_t slot[LRD_WEIGHTS_SLOTS];
    int last_used; /* block that ops read, by its slot; -1: none */
    /* From lrd_offload_open on; NULL where ops read host memory. */
    lrd_backend_t *backend;
    lrd_stream_t *copies;
    uint8_t **host; /* [n_layers] blocks in pinned memory */
    piece_t piece[N_PIECES];
    int64_t n_pieces; /* used so far */
};

static int count_tensors(const lrd_offload_t *o)
{
    return o->weights->config->family->n_block_tensors;
}

static size_t slot_bytes(const lrd_offload_t *o)
{
    return o->at[count_tensors(o)];
}

static size_t piece_bytes(const lrd_offload_t *o)
{
    return slot_bytes(o) < PIECE ? slot_bytes(o) : PIECE;
}

/* Blocks of these runs that are elsewhere. */
static void count_homes(lrd_offload_t *o)
{
    const lrd_runs_t *runs = &o->weights->runs;
    for (int r = 0; r < runs->n; r++) {
        for (int layer = runs->run[r].first; layer < runs->run[r].last; layer++) {
            o->n_on_host += o->home[layer] == LRD_HOME_HOST;
            o->n_in_files += o->home[layer] == LRD_HOME_FILE;
        }
    }
}

lrd_status_t lrd_offload_create(lrd_weights_t *w, const lrd_home_t *home,
                                lrd_offload_t **offload_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_family_t *f = w->config->family;
    const int64_t n_layers = w->config->n_layers;
    lrd_offload_t *o = NULL;
    LRD_NEW(o, 1);
    o->weights = w;
    o->last_used = -1;
    LRD_NEW(o->home, n_layers);
    LRD_NEW(o->from, n_layers * f->n_block_tensors);
    LRD_NEW(o->at, f->n_block_tensors + 1);
    LRD_NEW(o->host, n_layers);
    memcpy(o->home, home, (size_t)n_layers * sizeof *home);
    count_homes(o);
    *offload_out = o;
    o = NULL;
out:
    lrd_offload_destroy(o);
    return status;
}

static void close_device(lrd_offload_t *o)
{
    if (o->copies != NULL)
        (void)lrd_stream_sync(o->copies);
    for (int i = 0; i < LRD_WEIGHTS_SLOTS; i++) {
        lrd_event_destroy(o->slot[i].filled);
        lrd_event_destroy(o->slot[i].read);
    }
    for (int i = 0; i < N_PIECES; i++) {
        lrd_event_destroy(o->piece[i].left);
        lrd_mem_free(o->backend, LRD_MEM_PINNED, o->piece[i].data, piece_bytes(o));
    }
    for (int64_t layer = 0; layer < o->weights->config->n_layers; layer++)
        lrd_mem_free(o->backend, LRD_MEM_PINNED, o->host[layer], slot_bytes(o));
    lrd_stream_destroy(o->copies);
}

void lrd_offload_destroy(lrd_offload_t *o)
{
    if (o == NULL)
        return;
    if (o->backend != NULL)
        close_device(o);
    lrd_free(o->host);
    lrd_free(o->at);
    lrd_free(o->from);
    lrd_free(o->home);
    lrd_free(o);
}

lrd_home_t lrd_offload_home(const lrd_offload_t *o, int layer)
{
    return o != NULL ? o->home[layer] : LRD_HOME_DEVICE;
}

void lrd_offload_locate(lrd_offload_t *o, int layer, int tensor, lrd_located_t from)
{
    o->from[layer * count_tensors(o) + tensor] = from;
}

void lrd_offload_layout(lrd_offload_t *o, lrd_arena_t *arena)
{
    const int n = o->n_on_host + o->n_in_files;
    for (int i = 0; i < count_tensors(o); i++)
        o->at[i + 1] = o->at[i] + lrd_weights_tensor_bytes(o->weights, i);
    o->n_slots = n < LRD_WEIGHTS_SLOTS ? n : LRD_WEIGHTS_SLOTS;
    for (int i = 0; i < o->n_slots; i++)
        o->slot[i].data = lrd_arena_take(arena, "slots", slot_bytes(o));
    o->weights->host_bytes =
        (size_t)o->n_on_host * slot_bytes(o) + (o->n_in_files > 0 ? N_PIECES * piece_bytes(o) : 0);
    o->weights->file_bytes = (size_t)o->n_in_files * slot_bytes(o);
}

lrd_status_t lrd_offload_open(lrd_offload_t *o, lrd_backend_t *be)
{
    lrd_status_t status = LRD_OK;
    o->backend = be;
    LRD_TRY(lrd_stream_create(be, &o->copies));
    for (int i = 0; i < o->n_slots; i++) {
        o->slot[i].layer = -1;
        LRD_TRY(lrd_event_create(be, &o->slot[i].filled));
        LRD_TRY(lrd_event_create(be, &o->slot[i].read));
    }
    for (int i = 0; i < N_PIECES && o->n_in_files > 0; i++) {
        LRD_TRY(lrd_event_create(be, &o->piece[i].left));
        LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, piece_bytes(o), (void **)&o->piece[i].data));
    }
    for (int r = 0; r < o->weights->runs.n; r++) {
        const lrd_span_t run = o->weights->runs.run[r];
        for (int layer = run.first; layer < run.last; layer++) {
            if (o->home[layer] == LRD_HOME_HOST)
                LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, slot_bytes(o), (void **)&o->host[layer]));
        }
    }
out:
    return status;
}

void *lrd_offload_host(const lrd_offload_t *o, int layer, int tensor)
{
    return o->host[layer] + o->at[tensor];
}

/* ---- what comes next --------------------------------------------------------------------------- */

/* Blocks that are elsewhere, in the order in which they are needed, each once. */
typedef struct coming {
    int layer[LRD_WEIGHTS_SLOTS], n, most;
} coming_t;

static bool is_coming(const coming_t *c, int layer)
{
    for (int i = 0; i < c->n; i++) {
        if (c->layer[i] == layer)
            return true;
    }
    return false;
}

static void add_coming(const lrd_offload_t *o, lrd_pass_t pass, coming_t *c)
{
    for (int i = 0, layer = pass.first; i < pass.n && c->n < c->most; i++, layer += pass.step) {
        if (o->home[layer] != LRD_HOME_DEVICE && !is_coming(c, layer))
            c->layer[c->n++] = layer;
    }
}

/* As many as there are slots; the block in work is the first of them, if it is elsewhere. */
static coming_t find_coming(const lrd_offload_t *o, int layer, lrd_pass_t left, lrd_pass_t then)
{
    coming_t c = {.most = o->backend != NULL ? o->n_slots : LRD_WEIGHTS_SLOTS};
    add_coming(o, (lrd_pass_t){layer, 1, 1}, &c);
    add_coming(o, left, &c);
    add_coming(o, then, &c);
    return c;
}

/* ---- pages of files ---------------------------------------------------------------------------- */

/* A block in a file is needed soon. */
static void read_ahead(const lrd_offload_t *o, int layer)
{
    for (int i = 0; i < count_tensors(o); i++) {
        const lrd_located_t *t = &o->from[layer * count_tensors(o) + i];
        lrd_file_expect(&t->file->map, t->entry->offset, t->entry->bytes);
    }
}

/* Ops read host memory. */
static void use_in_place(const lrd_offload_t *o, int layer, const coming_t *c)
{
    for (int i = 0; i < c->n; i++) {
        if (o->home[c->layer[i]] == LRD_HOME_FILE && c->layer[i] != layer)
            read_ahead(o, c->layer[i]);
    }
}

/* ---- slots ------------------------------------------------------------------------------------- */

static slot_t *find_slot(lrd_offload_t *o, int layer)
{
    for (int i = 0; i < o->n_slots; i++) {
        if (o->slot[i].layer == layer)
            return &o->slot[i];
    }
    return NULL;
}

/* One that holds nothing of what is coming: there are as many slots as blocks in `c`, of which one has
 * no slot yet. */
static slot_t *find_spare(lrd_offload_t *o, const coming_t *c)
{
    slot_t *s = o->slot;
    while (is_coming(c, s->layer))
        s++;
    return s;
}

/* Sends a tensor from its file on, a piece at a time, each when the copy before the last has left. */
static lrd_status_t send_tensor(lrd_offload_t *o, int layer, int tensor, uint8_t *to)
{
    lrd_status_t status = LRD_OK;
    const int at_all = layer * count_tensors(o) + tensor;
    const lrd_strip_t strip = lrd_strips_of(&o->weights->block[at_all]);
    const lrd_located_t from = o->from[at_all];
    const uint8_t *data = lrd_safetensors_data(from.file, from.entry);
    const int64_t element = (int64_t)lrd_dtype_bytes(o->weights->dtype);
    const int64_t n_strips = from.entry->n_elements / strip.length;
    const int64_t most = (int64_t)piece_bytes(o) / (strip.apart * element);
    for (int64_t at = 0; at < n_strips; at += most) {
        const int64_t n = n_strips - at < most ? n_strips - at : most;
        const piece_t *p = &o->piece[o->n_pieces++ % N_PIECES];
        LRD_TRY(lrd_event_sync(p->left));
        lrd_strips_copy(strip, n, (size_t)element, data + at * strip.length * element, p->data);
        LRD_TRY(lrd_copy(o->copies, LRD_COPY_H2D, to + at * strip.apart * element, p->data,
                         (size_t)(n * strip.apart * element)));
        LRD_TRY(lrd_event_record(o->copies, p->left));
    }
out:
    return status;
}

/* Enqueues a block's way into a slot, behind all that is enqueued on `stream`. */
static lrd_status_t fetch(lrd_offload_t *o, lrd_stream_t *stream, int layer, slot_t *s)
{
    lrd_status_t status = LRD_OK;
    s->layer = -1;
    LRD_TRY(lrd_event_record(stream, s->read));
    LRD_TRY(lrd_stream_wait(o->copies, s->read));
    if (o->home[layer] == LRD_HOME_HOST)
        LRD_TRY(lrd_copy(o->copies, LRD_COPY_H2D, s->data, o->host[layer], slot_bytes(o)));
    for (int i = 0; i < count_tensors(o) && o->home[layer] == LRD_HOME_FILE; i++)
        LRD_TRY(send_tensor(o, layer, i, s->data + o->at[i]));
    LRD_TRY(lrd_event_record(o->copies, s->filled));
    s->layer = layer;
out:
    return status;
}

/* The block's tensors are in this slot; NULL: nowhere. */
static void point(const lrd_offload_t *o, int layer, const slot_t *s)
{
    lrd_cmat_t *block = &o->weights->block[layer * count_tensors(o)];
    for (int i = 0; i < count_tensors(o); i++)
        block[i].data = s != NULL ? s->data + o->at[i] : NULL;
}

static lrd_status_t use_slots(lrd_offload_t *o, lrd_stream_t *stream, int layer, const coming_t *c)
{
    lrd_status_t status = LRD_OK;
    for (int i = 0; i < c->n; i++) {
        if (find_slot(o, c->layer[i]) != NULL)
            continue;
        if (o->home[c->layer[i]] == LRD_HOME_FILE && c->layer[i] != layer)
            read_ahead(o, c->layer[i]);
        else
            LRD_TRY(fetch(o, stream, c->layer[i], find_spare(o, c)));
    }
    if (o->last_used >= 0 && o->home[o->last_used] != LRD_HOME_DEVICE)
        point(o, o->last_used, NULL);
    o->last_used = layer;
    if (o->home[layer] == LRD_HOME_DEVICE)
        goto out;
    const slot_t *s = find_slot(o, layer);
    LRD_TRY(lrd_stream_wait(stream, s->filled));
    point(o, layer, s);
out:
    return status;
}

lrd_status_t lrd_offload_use(lrd_offload_t *o, lrd_stream_t *stream, int layer, lrd_pass_t left,
                             lrd_pass_t then)
{
    const coming_t c = find_coming(o, layer, left, then);
    if (o->backend != NULL)
        return use_slots(o, stream, layer, &c);
    use_in_place(o, layer, &c);
    return LRD_OK;
}
