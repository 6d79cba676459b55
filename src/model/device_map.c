#include "model/device_map.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* ---- accelerate's algorithm -------------------------------------------------------------------- */

/* The model as accelerate walks it: modules with children, down to blocks and single layers. */
typedef struct tree {
    int n_layers;
    int64_t embed, embed_norm, block, final_norm, head; /* bytes; head 0: tied, counted once */
    int n_leaves;                                       /* modules that own parameters */
} tree_t;

/* Modules by number: the parts of a map, then those with children. */
enum { EMBED, EMBED_NORM, FIRST_BLOCK };
static int final_norm(const tree_t *t)
{
    return FIRST_BLOCK + t->n_layers;
}
static int head(const tree_t *t)
{
    return FIRST_BLOCK + t->n_layers + 1;
}
static int blocks(const tree_t *t) /* transformer.h */
{
    return FIRST_BLOCK + t->n_layers + 2;
}
static int trunk(const tree_t *t) /* transformer */
{
    return FIRST_BLOCK + t->n_layers + 3;
}

static int64_t size_of(const tree_t *t, int module)
{
    if (module == EMBED)
        return t->embed;
    if (module == EMBED_NORM)
        return t->embed_norm;
    if (module == final_norm(t))
        return t->final_norm;
    if (module == head(t))
        return t->head;
    if (module == blocks(t))
        return t->block * t->n_layers;
    if (module == trunk(t))
        return t->embed + t->embed_norm + t->block * t->n_layers + t->final_norm;
    return t->block;
}

/* Bytes of some tensors, and the modules that own them: a weight and its bias stand side by side. */
static int64_t add_up(const lrd_model_config_t *c, const lrd_tensor_decl_t *tensor, int n,
                      size_t element_bytes, int *n_modules)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++) {
        const size_t stem = (size_t)(strrchr(tensor[i].name, '.') - tensor[i].name);
        sum += lrd_dim_size(c, tensor[i].shape[0]) * lrd_dim_size(c, tensor[i].shape[1]);
        if (i == 0 || strncmp(tensor[i].name, tensor[i - 1].name, stem + 1) != 0)
            ++*n_modules;
    }
    return sum * (int64_t)element_bytes;
}

static tree_t measure(const lrd_model_config_t *c, size_t element_bytes, bool tied)
{
    const lrd_family_t *f = c->family;
    const int64_t table = c->vocab_size * c->hidden * (int64_t)element_bytes;
    tree_t t = {.n_layers = (int)c->n_layers};
    int in_block = 0;
    t.embed = table;
    t.embed_norm =
        add_up(c, f->embed_tensors, f->n_embed_tensors, element_bytes, &t.n_leaves) - table;
    t.block = add_up(c, f->block_tensors, f->n_block_tensors, element_bytes, &in_block);
    t.final_norm = add_up(c, f->final_tensors, f->n_final_tensors, element_bytes, &t.n_leaves);
    t.head = tied ? 0 : table;
    t.n_leaves += t.n_layers * in_block + !tied;
    return t;
}

/* get_balanced_memory: all devices but the last are limited to a share and something more. */
static void limit(const tree_t *t, int n_devices, int64_t *memory)
{
    const int64_t total = size_of(t, trunk(t)) + t->head;
    const int64_t mean = total / (t->n_leaves > 0 ? t->n_leaves : 1);
    int64_t n = 0, last = -1;
    for (int d = 0; d < n_devices; d++) {
        n += memory[d] > 0;
        last = memory[d] > 0 ? d : last;
    }
    if (n == 0)
        return;
    const int64_t buffer = (int64_t)(1.25 * (double)(t->block > mean ? t->block : mean));
    const int64_t share = total / n + buffer;
    for (int d = 0; d < last; d++)
        memory[d] = memory[d] > share ? share : memory[d];
}

/* Work still to be done, in order: the next module last. */
typedef struct todo {
    int *module, n;
} todo_t;

static bool is_inside(const tree_t *t, int module, int parent)
{
    const bool is_block = module >= FIRST_BLOCK && module < final_norm(t);
    return module == parent || (parent == blocks(t) && is_block) ||
           (parent == trunk(t) && module != head(t));
}

/* The largest module that is not split, in what is to be done. */
static int64_t largest_layer(const tree_t *t, const todo_t *todo)
{
    int64_t most = 0;
    for (int i = 0; i < todo->n; i++) {
        for (int module = 0; module <= head(t); module++) {
            if (is_inside(t, module, todo->module[i]) && size_of(t, module) > most)
                most = size_of(t, module);
        }
    }
    return most;
}

/* How many modules of that size are left to be done, the one in work apart. */
static bool is_left(const tree_t *t, const todo_t *todo, int64_t size)
{
    for (int i = 0; i < todo->n; i++) {
        for (int module = 0; module <= head(t); module++) {
            if (is_inside(t, module, todo->module[i]) && size_of(t, module) == size)
                return true;
        }
    }
    return false;
}

static void assign(const tree_t *t, int module, int to, int *device)
{
    for (int part = 0; part <= head(t); part++) {
        if (is_inside(t, part, module))
            device[part] = to;
    }
}

/* A module is replaced by its children; false: it is not split. */
static bool split(const tree_t *t, int module, todo_t *todo)
{
    if (module == trunk(t)) {
        todo->module[todo->n++] = final_norm(t);
        todo->module[todo->n++] = blocks(t);
        todo->module[todo->n++] = EMBED_NORM;
        todo->module[todo->n++] = EMBED;
        return true;
    }
    for (int i = t->n_layers - 1; module == blocks(t) && i >= 0; i--)
        todo->module[todo->n++] = FIRST_BLOCK + i;
    return module == blocks(t);
}

/* The tied head goes where the embedding goes. */
static void take_head(const tree_t *t, int module, int to, todo_t *todo, int *device)
{
    if (t->head > 0 || !is_inside(t, EMBED, module))
        return;
    assign(t, head(t), to, device);
    for (int i = 0; i < todo->n; i++) {
        if (todo->module[i] == head(t)) {
            memmove(&todo->module[i], &todo->module[i + 1],
                    (size_t)(todo->n - i - 1) * sizeof *todo->module);
            todo->n--;
            return;
        }
    }
}

/* Behind the devices come host memory and, without end, the disk. */
static int place_at(int d, int n_devices)
{
    return d < n_devices ? d : d == n_devices ? LRD_DEVICE_CPU : LRD_DEVICE_DISK;
}

/* infer_auto_device_map. The first device keeps room for the largest layer that is still to come.
 * memory[n_devices]: of the host. */
static void infer(const tree_t *t, const int64_t *memory, int n_devices, todo_t *todo, int *device)
{
    int64_t used = 0, reserve;
    int d = 0;
    todo->module[todo->n++] = head(t);
    todo->module[todo->n++] = trunk(t);
    reserve = largest_layer(t, todo);
    while (todo->n > 0) {
        const int module = todo->module[--todo->n];
        if (!is_left(t, todo, reserve))
            reserve = largest_layer(t, todo);
        const int64_t room = d <= n_devices ? memory[d] - (d == 0 ? reserve : 0) : INT64_MAX;
        if (d > n_devices || used + size_of(t, module) <= room) {
            assign(t, module, place_at(d, n_devices), device);
            take_head(t, module, place_at(d, n_devices), todo, device);
            used += size_of(t, module);
        } else if (split(t, module, todo)) {
            reserve = largest_layer(t, todo);
        } else {
            todo->module[todo->n++] = module;
            used = 0;
            d++;
        }
    }
}

lrd_status_t lrd_device_map_infer(const lrd_model_config_t *c, size_t element_bytes, bool tied,
                                  bool balanced, const int64_t *memory, int n_devices, int64_t host,
                                  int *device)
{
    lrd_status_t status = LRD_OK;
    const tree_t t = measure(c, element_bytes, tied);
    todo_t todo = {NULL, 0};
    int64_t *limits = NULL;
    LRD_NEW(limits, n_devices + 1);
    memcpy(limits, memory, (size_t)n_devices * sizeof *limits);
    limits[n_devices] = host;
    LRD_NEW(todo.module, lrd_device_map_parts(c) + 2);
    if (balanced)
        limit(&t, n_devices, limits);
    infer(&t, limits, n_devices, &todo, device);
out:
    lrd_free(todo.module);
    lrd_free(limits);
    return status;
}

/* ---- a map from the settings ------------------------------------------------------------------- */

/* A part's name as accelerate and PyTorch have it. */
static void name_part(const lrd_model_config_t *c, int part, char name[128])
{
    const lrd_family_t *f = c->family;
    const int n = (int)c->n_layers;
    const char *tensor = part == EMBED        ? f->embed_tensors[f->word_embeddings].name
                         : part == EMBED_NORM ? f->embed_tensors[f->n_embed_tensors - 1].name
                         : part == n + 2      ? f->final_tensors[0].name
                         : part == n + 3      ? f->head_name
                                              : NULL;
    if (tensor == NULL)
        snprintf(name, 128, "%s%s%d", f->prefix, f->block_prefix, part - FIRST_BLOCK);
    else
        snprintf(name, 128, "%s%.*s", part == n + 3 ? "" : f->prefix,
                 (int)(strrchr(tensor, '.') - tensor), tensor);
}

/* Does a module of the map hold a part? "" holds all. */
static bool holds(const char *module, const char *part)
{
    const size_t n = strlen(module);
    return n == 0 || (strncmp(module, part, n) == 0 && (part[n] == '\0' || part[n] == '.'));
}

static lrd_status_t check_module(const lrd_model_config_t *c, const char *module)
{
    lrd_status_t status = LRD_OK;
    char name[128];
    for (int part = 0; part < lrd_device_map_parts(c); part++) {
        name_part(c, part, name);
        if (holds(module, name))
            goto out;
        LRD_CHECK(!holds(name, module), LRD_ERR_CONFIG,
                  "parallel.device_map: %s is a piece of %s, which is not split: give %s a device",
                  module, name, name);
    }
    LRD_FAIL(LRD_ERR_CONFIG,
             "parallel.device_map: the model has no module %s; the first block is called "
             "transformer.h.0",
             module);
out:
    return status;
}

lrd_status_t lrd_device_map_read(const lrd_device_map_t *map, const lrd_model_config_t *c,
                                 int *device)
{
    lrd_status_t status = LRD_OK;
    char name[128];
    for (size_t i = 0; i < map->n; i++)
        LRD_TRY(check_module(c, map->entry[i].module));
    for (int part = 0; part < lrd_device_map_parts(c); part++) {
        const struct lrd_device_map_entry *found = NULL;
        name_part(c, part, name);
        for (size_t i = 0; i < map->n; i++) { /* the longest name is the nearest */
            if (holds(map->entry[i].module, name) &&
                (found == NULL || strlen(map->entry[i].module) > strlen(found->module)))
                found = &map->entry[i];
        }
        LRD_CHECK(found != NULL, LRD_ERR_CONFIG, "parallel.device_map: %s has no device", name);
        LRD_CHECK(found->device < 65536, LRD_ERR_CONFIG,
                  "parallel.device_map: %s is on device %lld", name, (long long)found->device);
        device[part] = (int)found->device;
    }
out:
    return status;
}

/* ---- a placement ------------------------------------------------------------------------------- */

/* Blocks on no device are computed where the block before them is. computed[parts] receives where each
 * part is, p->home what lies elsewhere. */
static lrd_status_t take_homes(const lrd_model_config_t *c, const int *device, int *computed,
                               lrd_placement_t *p)
{
    lrd_status_t status = LRD_OK;
    const int n = (int)c->n_layers;
    const int stays[] = {EMBED, n + 3};
    for (int i = 0; i < 2; i++) {
        const int part = stays[i];
        char name[128];
        name_part(c, part, name);
        LRD_CHECK(device[part] >= 0, LRD_ERR_CONFIG,
                  "parallel.device_map: %s is on no device (cpu or disk): embedding and head are "
                  "not offloaded, give it the number of a device",
                  name);
    }
    computed[EMBED] = device[EMBED];
    for (int part = EMBED_NORM; part < lrd_device_map_parts(c); part++)
        computed[part] = device[part] >= 0 ? device[part] : computed[part - 1];
    for (int i = 0; i < n; i++) {
        if (device[FIRST_BLOCK + i] >= 0)
            continue;
        if (p->home == NULL)
            LRD_NEW(p->home, n);
        p->home[i] = device[FIRST_BLOCK + i] == LRD_DEVICE_CPU ? LRD_HOME_HOST : LRD_HOME_FILE;
    }
out:
    return status;
}

/* The runs of equal devices, in the order of the layers: where each begins. A head of its own at the end
 * is a run without blocks; so is an embedding at the beginning. */
static lrd_status_t cut(const lrd_model_config_t *c, const int *device, lrd_placement_t *p)
{
    lrd_status_t status = LRD_OK;
    const int n = (int)c->n_layers;
    const int *block = &device[FIRST_BLOCK];
    const int of_head = device[n + 3] == device[EMBED] ? block[n - 1] : device[n + 3];
    int before = device[EMBED];
    LRD_NEW(p->begin, n + 3);
    p->n_runs = 1;
    for (int i = 0; i <= n; i++) {
        const int here = i < n ? block[i] : of_head;
        p->n_stages = here >= p->n_stages ? here + 1 : p->n_stages;
        if (here != before)
            p->begin[p->n_runs++] = i;
        before = here;
    }
    p->begin[p->n_runs] = n;
out:
    return status;
}

/* A rank without layers would only wait, and one that has no share of the data either is better not there. */
static lrd_status_t refuse_empty(const lrd_placement_t *p, const int *on)
{
    lrd_status_t status = LRD_OK;
    int first = -1, n_empty = 0;
    for (int d = 0; d < p->n_stages; d++) {
        bool used = false;
        for (int run = 0; run < p->n_runs; run++)
            used = used || on[run] == d;
        if (used)
            continue;
        first = first < 0 ? d : first;
        n_empty++;
    }
    LRD_CHECK(n_empty == 0, LRD_ERR_CONFIG,
              "parallel.device_map: device %d has no layers (%d of the devices 0 to %d have none): "
              "its rank would only wait. Start %d rank%s instead, an explicit map numbering their "
              "devices from 0; or take device_map: auto, which gives every rank a share of the "
              "layers or of the data",
              first, n_empty, p->n_stages - 1, p->n_stages - n_empty,
              p->n_stages - n_empty == 1 ? "" : "s");
out:
    return status;
}

lrd_status_t lrd_device_map_place(const lrd_model_config_t *c, const int *device,
                                  lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const int n = (int)c->n_layers;
    lrd_placement_t p = {.n_stages = 1};
    int *computed = NULL, *on = NULL;
    LRD_NEW(computed, lrd_device_map_parts(c));
    LRD_TRY(take_homes(c, device, computed, &p));
    LRD_TRY(cut(c, computed, &p));
    LRD_NEW(on, p.n_runs);
    for (int run = 0; run < p.n_runs; run++)
        on[run] = run == 0 ? computed[EMBED]
                           : computed[p.begin[run] < n ? FIRST_BLOCK + p.begin[run] : n + 3];
    LRD_TRY(refuse_empty(&p, on));
    for (int run = 0; run < p.n_runs; run++)
        LRD_CHECK(
            on[run] == run % p.n_stages, LRD_ERR_CONFIG,
            "parallel.device_map: layer %d begins on device %d, where device %d is next: layers "
            "must go round the devices in order. device_map: auto does that",
            p.begin[run], on[run], run % p.n_stages);
    LRD_CHECK(
        p.n_runs % p.n_stages == 0, LRD_ERR_CONFIG,
        "parallel.device_map: %d separate runs of layers on %d devices: each device must have "
        "as many as the others",
        p.n_runs, p.n_stages);
    *placement_out = p;
    p = (lrd_placement_t){.begin = NULL};
out:
    lrd_free(on);
    lrd_free(computed);
    lrd_placement_release(&p);
    return status;
}
