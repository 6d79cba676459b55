#include "lora/adapter.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

static void count_places(const lrd_module_t *modules, size_t n, int *n_layers, int *n_places)
{
    *n_layers = *n_places = 0;
    for (size_t i = 0; i < n; i++) {
        if (modules[i].layer >= *n_layers)
            *n_layers = modules[i].layer + 1;
        if (modules[i].place >= *n_places)
            *n_places = modules[i].place + 1;
    }
}

/* An adapter without items yet, with room for n. */
static lrd_status_t create_empty(size_t n, int n_layers, int n_places, lrd_adapter_t **adapter_out)
{
    lrd_status_t status = LRD_OK;
    lrd_adapter_t *adapter = NULL;
    const size_t n_find = (size_t)n_layers * (size_t)n_places;
    LRD_NEW(adapter, 1);
    adapter->n_layers = n_layers;
    adapter->n_places = n_places;
    LRD_NEW(adapter->items, n);
    LRD_NEW(adapter->begin, 2 * n + 1);
    LRD_NEW(adapter->find, n_find);
    for (size_t i = 0; i < n_find; i++)
        adapter->find[i] = -1;
    *adapter_out = adapter;
    adapter = NULL;
out:
    lrd_adapter_free(adapter);
    return status;
}

/* Appends an item; where it lies is decided here. */
static lrd_status_t append(lrd_adapter_t *adapter, lrd_adapter_item_t item, const char *path)
{
    lrd_status_t status = LRD_OK;
    const int i = adapter->n_items;
    item.a = adapter->n_params;
    item.b = item.a + item.r * item.n_in;
    LRD_ALLOC(item.path, lrd_strdup(path));
    adapter->items[i] = item;
    adapter->n_items++;
    adapter->n_params = item.b + item.n_out * item.r;
    adapter->begin[2 * i] = item.a;
    adapter->begin[2 * i + 1] = item.b;
    adapter->begin[2 * i + 2] = adapter->n_params;
    adapter->find[item.layer * adapter->n_places + item.place] = i;
out:
    return status;
}

/* Below it nothing is adapted. */
static void find_lowest(lrd_adapter_t *adapter)
{
    adapter->lowest_layer = adapter->n_layers;
    for (int i = 0; i < adapter->n_items; i++) {
        const lrd_adapter_item_t *item = &adapter->items[i];
        if (item->layer < adapter->lowest_layer ||
            (item->layer == adapter->lowest_layer && item->place < adapter->lowest_place)) {
            adapter->lowest_layer = item->layer;
            adapter->lowest_place = item->place;
        }
    }
}

lrd_status_t lrd_adapter_create(const lrd_lora_settings_t *settings, const lrd_module_t *modules,
                                size_t n, const char *fallback, lrd_adapter_t **adapter_out)
{
    lrd_status_t status = LRD_OK;
    lrd_adapter_t *adapter = NULL;
    lrd_target_t *targets = NULL;
    size_t n_targets = 0;
    int n_layers, n_places;
    LRD_TRY(lrd_targets_find(settings, modules, n, fallback, &targets, &n_targets));
    count_places(modules, n, &n_layers, &n_places);
    LRD_TRY(create_empty(n_targets, n_layers, n_places, &adapter));
    for (size_t i = 0; i < n_targets; i++) {
        const lrd_module_t *module = &modules[targets[i].module];
        const double r = (double)targets[i].r;
        const lrd_adapter_item_t item = {.layer = module->layer,
                                         .place = module->place,
                                         .n_in = module->n_in,
                                         .n_out = module->n_out,
                                         .r = targets[i].r,
                                         .alpha = targets[i].alpha,
                                         .scale = targets[i].alpha /
                                                  (settings->use_rslora ? sqrt(r) : r),
                                         .whole = (int)i};
        LRD_TRY(append(adapter, item, module->path));
    }
    find_lowest(adapter);
    *adapter_out = adapter;
    adapter = NULL;
out:
    lrd_adapter_free(adapter);
    lrd_free(targets);
    return status;
}

lrd_status_t lrd_adapter_part(const lrd_adapter_t *whole, const bool *keep,
                              lrd_adapter_t **part_out)
{
    lrd_status_t status = LRD_OK;
    lrd_adapter_t *part = NULL;
    LRD_TRY(create_empty((size_t)whole->n_items, whole->n_layers, whole->n_places, &part));
    for (int i = 0; i < whole->n_items; i++) {
        if (keep[whole->items[i].layer])
            LRD_TRY(append(part, whole->items[i], whole->items[i].path));
    }
    part->lowest_layer = whole->lowest_layer;
    part->lowest_place = whole->lowest_place;
    *part_out = part;
    part = NULL;
out:
    lrd_adapter_free(part);
    return status;
}

/* A and B of an item lie side by side. */
static size_t item_bytes(const lrd_adapter_item_t *item)
{
    return (size_t)(item->r * (item->n_in + item->n_out)) * sizeof(float);
}

void lrd_adapter_extract(const lrd_adapter_t *part, const lrd_adapter_t *whole, const float *from,
                         float *to_part)
{
    for (int i = 0; i < part->n_items; i++) {
        const lrd_adapter_item_t *item = &part->items[i];
        memcpy(to_part + item->a, from + whole->items[item->whole].a, item_bytes(item));
    }
}

void lrd_adapter_insert(const lrd_adapter_t *part, const lrd_adapter_t *whole,
                        const float *from_part, float *to)
{
    for (int i = 0; i < part->n_items; i++) {
        const lrd_adapter_item_t *item = &part->items[i];
        memcpy(to + whole->items[item->whole].a, from_part + item->a, item_bytes(item));
    }
}

void lrd_adapter_free(lrd_adapter_t *adapter)
{
    if (adapter == NULL)
        return;
    for (int i = 0; i < adapter->n_items; i++)
        lrd_free(adapter->items[i].path);
    lrd_free(adapter->items);
    lrd_free(adapter->begin);
    lrd_free(adapter->find);
    lrd_free(adapter);
}

const lrd_adapter_item_t *lrd_adapter_find(const lrd_adapter_t *adapter, int layer, int place)
{
    if (adapter == NULL || layer < 0 || layer >= adapter->n_layers || place < 0 ||
        place >= adapter->n_places)
        return NULL;
    const int i = adapter->find[layer * adapter->n_places + place];
    return i >= 0 ? &adapter->items[i] : NULL;
}
