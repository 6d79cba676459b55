/* model/identity.h -- which base model a run is of, so that it does not go on with another one.
 *
 * A name of the Hub stands for a commit, which says it all but may be another one tomorrow. A folder of one's own has
 * none: a fingerprint tells it from others, whatever it is called and whenever it was copied.
 */
#ifndef LRD_MODEL_IDENTITY_H
#define LRD_MODEL_IDENTITY_H

#include "base/hash.h"
#include "model/weights.h"

enum { LRD_COMMIT_TEXT = 48 };

typedef struct lrd_model_identity {
    char commit[LRD_COMMIT_TEXT];     /* "": of no repository that is known */
    char fingerprint[LRD_SHA256_HEX]; /* "": not known */
} lrd_model_identity_t;

/* commit: NULL where there is none. The fingerprint is the SHA-256 of config.json and of each of the weights' files: its size, its
 * header, and 16 pieces of 4 KiB of its data at even distances, so that other weights of the same shapes differ in it, but not
 * surely. Reads little, whatever the size of the model. */
lrd_status_t lrd_model_identify(const char *folder, const lrd_weights_t *weights,
                                const char *commit, lrd_model_identity_t *identity_out);

#endif /* LRD_MODEL_IDENTITY_H */
