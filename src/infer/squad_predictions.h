/* infer/squad_predictions.h -- files of answers to a SQuAD file, as the official script takes them:
 * predictions {"id": "text", ...} and probabilities {"id": number, ...}, of at most 1 GiB.
 *
 * Strict JSON (base/json.h): an id that stands twice, NaN and lone surrogates are refused, which
 * Python's reader lets pass. Ids that the SQuAD file does not have are passed over, whatever stands
 * there. Errors name the file and the id.
 */
#ifndef LRD_INFER_SQUAD_PREDICTIONS_H
#define LRD_INFER_SQUAD_PREDICTIONS_H

#include "base/status.h"
#include "data/squad.h"
#include "infer/squad_score.h"

#include <jansson.h>
#include <stddef.h>

typedef struct lrd_squad_predictions {
    lrd_text_t *text; /* owned, [questions of the file]: data == NULL where there is none */
    size_t n_missing; /* questions without a prediction */
    json_t *root;     /* private: holds the texts */
} lrd_squad_predictions_t;

/* LRD_ERR_FORMAT: not JSON, not an object, or a prediction that is no string. Questions without a
 * prediction are not an error; a warning tells how many there are, and which is the first. */
lrd_status_t lrd_squad_predictions_read(const char *path, const lrd_squad_t *data,
                                        lrd_squad_predictions_t *predictions_out);

/* The same of bytes in memory; `name` stands in messages. */
lrd_status_t lrd_squad_predictions_parse(const char *text, size_t bytes, const char *name,
                                         const lrd_squad_t *data,
                                         lrd_squad_predictions_t *predictions_out);
void lrd_squad_predictions_release(lrd_squad_predictions_t *predictions); /* {0} is fine */

/* Probabilities in the order of the file, as lrd_squad_answers_t wants them; the caller frees the
 * array with lrd_free. LRD_ERR_FORMAT: as above; a value that is no number, or an integer beyond
 * 2^53; a question that has none. */
lrd_status_t lrd_squad_na_probs_read(const char *path, const lrd_squad_t *data,
                                     lrd_squad_na_prob_t **na_prob_out, size_t *n_out);
lrd_status_t lrd_squad_na_probs_parse(const char *text, size_t bytes, const char *name,
                                      const lrd_squad_t *data, lrd_squad_na_prob_t **na_prob_out,
                                      size_t *n_out);

#endif /* LRD_INFER_SQUAD_PREDICTIONS_H */
