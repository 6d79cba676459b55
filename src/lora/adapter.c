#include "lora/adapter.h"

#include "base/mem.h"

#include <math.h>

static void count_places(lrd_adapter_t *adapter, const lrd_module_t *modules, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (modules[i].layer >= adapter->n_layers)
            adapter->n_layers = modules[i].layer + 1;
        if (modules[i].place >= adapter->n_places)
            adapter->n_places = modules[i].place + 1;
    }
}

lrd_status_t lrd_adapter_create(const lrd_lora_settings_t *settings, const lrd_module_t *modules,
                                size_t n, const char *fallback, lrd_adapter_t **adapter_out)
{
    lrd_status_t status = LRD_OK;
    lrd_adapter_t *adapter = NULL;
    lrd_target_t *targets = NULL;
    size_t n_targets = 0;
    LRD_TRY(lrd_targets_find(settings, modules, n, fallback, &targets, &n_targets));
    LRD_NEW(adapter, 1);
    count_places(adapter, modules, n);
    const size_t n_find = (size_t)adapter->n_layers * (size_t)adapter->n_places;
    LRD_NEW(adapter->items, n_targets);
    LRD_NEW(adapter->begin, 2 * n_targets + 1);
    LRD_NEW(adapter->find, n_find);
    for (size_t i = 0; i < n_find; i++)
        adapter->find[i] = -1;
    for (size_t i = 0; i < n_targets; i++) {
        const lrd_module_t *module = &modules[targets[i].module];
        lrd_adapter_item_t *item = &adapter->items[i];
        const int64_t r = targets[i].r;
        *item = (lrd_adapter_item_t){.layer = module->layer,
                                     .place = module->place,
                                     .n_in = module->n_in,
                                     .n_out = module->n_out,
                                     .r = r,
                                     .alpha = targets[i].alpha};
        item->scale = item->alpha / (settings->use_rslora ? sqrt((double)r) : (double)r);
        item->a = adapter->n_params;
        item->b = item->a + r * item->n_in;
        adapter->n_params = item->b + item->n_out * r;
        adapter->begin[2 * i] = item->a;
        adapter->begin[2 * i + 1] = item->b;
        adapter->find[module->layer * adapter->n_places + module->place] = (int)i;
        adapter->n_items++;
        LRD_ALLOC(item->path, lrd_strdup(module->path));
    }
    adapter->begin[2 * n_targets] = adapter->n_params;
    *adapter_out = adapter;
    adapter = NULL;
out:
    lrd_adapter_free(adapter);
    lrd_free(targets);
    return status;
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
