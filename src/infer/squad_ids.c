#include "infer/squad_ids.h"

#include "base/mem.h"

#include <stdlib.h>

typedef struct entry {
    lrd_text_t id;
    size_t question;
} entry_t;

static int compare_entries(const void *a, const void *b)
{
    const entry_t *x = a, *y = b;
    const int order = lrd_text_compare(x->id, y->id);
    return order != 0 ? order : (x->question > y->question) - (x->question < y->question);
}

lrd_status_t lrd_squad_ids_create(const lrd_squad_t *data, size_t n, lrd_squad_ids_t *ids_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_ids_t ids = {.data = data, .n = n};
    entry_t *entry = NULL;
    LRD_NEW(entry, n);
    LRD_NEW(ids.order, n);
    for (size_t i = 0; i < n; i++)
        entry[i] = (entry_t){lrd_squad_question(data, i)->id, i};
    if (n > 1)
        qsort(entry, n, sizeof *entry, compare_entries);
    for (size_t i = 0; i < n; i++)
        ids.order[i] = entry[i].question;
    *ids_out = ids;
    ids.order = NULL;
out:
    lrd_free(entry);
    lrd_free(ids.order);
    return status;
}

void lrd_squad_ids_release(lrd_squad_ids_t *ids)
{
    lrd_free(ids->order);
    *ids = (lrd_squad_ids_t){0};
}

size_t lrd_squad_ids_find(const lrd_squad_ids_t *ids, lrd_text_t id)
{
    size_t low = 0, high = ids->n; /* ids before low are not greater, those from high on are */
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (lrd_text_compare(lrd_squad_question(ids->data, ids->order[middle])->id, id) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0 ||
        lrd_text_compare(lrd_squad_question(ids->data, ids->order[low - 1])->id, id) != 0)
        return LRD_SQUAD_NO_QUESTION;
    return ids->order[low - 1];
}
