/* app/answering.h -- fills in train/answering.h with what src/infer does. */
#ifndef LRD_APP_ANSWERING_H
#define LRD_APP_ANSWERING_H

#include "infer/generator.h"
#include "infer/squad_answer.h"
#include "train/answering.h"

typedef struct lrd_app_answering {
    lrd_answering_task_t task;
    lrd_answering_place_t place;
    lrd_squad_prompts_t prompts;
    lrd_generator_t *generator;
} lrd_app_answering_t;

/* The table over *state, which starts as {0} and must outlive the run. */
lrd_answering_t lrd_app_answering(lrd_app_answering_t *state);

/* Do evaluations generate answers? */
bool lrd_app_answers(const lrd_settings_t *settings);

#endif /* LRD_APP_ANSWERING_H */
