/* infer/squad_ids.h -- questions by their ids. */
#ifndef LRD_INFER_SQUAD_IDS_H
#define LRD_INFER_SQUAD_IDS_H

#include "base/status.h"
#include "data/squad.h"

#include <stddef.h>
#include <stdint.h>

#define LRD_SQUAD_NO_QUESTION SIZE_MAX

typedef struct lrd_squad_ids {
    const lrd_squad_t *data; /* borrowed */
    size_t *order, n;        /* owned: questions by id, those of the same id in file order */
} lrd_squad_ids_t;

/* Of the first n questions of a file. */
lrd_status_t lrd_squad_ids_create(const lrd_squad_t *data, size_t n, lrd_squad_ids_t *ids_out);
void lrd_squad_ids_release(lrd_squad_ids_t *ids); /* {0} is fine */

/* The question of this id, the last one where several have it; LRD_SQUAD_NO_QUESTION if none has. */
size_t lrd_squad_ids_find(const lrd_squad_ids_t *ids, lrd_text_t id);

#endif /* LRD_INFER_SQUAD_IDS_H */
