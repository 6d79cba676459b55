/* infer/squad_examples.h -- a few answered questions to look at, right ones and wrong ones. */
#ifndef LRD_INFER_SQUAD_EXAMPLES_H
#define LRD_INFER_SQUAD_EXAMPLES_H

#include "infer/squad_score.h"

enum { LRD_SQUAD_EXAMPLES = 6 };

/* Writes a list of objects {id, question, prediction, answers, exact, f1} in file order: up to
 * LRD_SQUAD_EXAMPLES exact ones and as many others, taken evenly from all of them. No answers: the
 * passage has none. */
lrd_status_t lrd_squad_examples_write(const lrd_squad_t *data, const lrd_squad_answers_t *answers,
                                      lrd_json_writer_t *w);

#endif /* LRD_INFER_SQUAD_EXAMPLES_H */
