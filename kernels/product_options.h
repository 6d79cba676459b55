/* kernels/product_options.h -- how a backend is to compute products with weights, and what tuning has found
 * for a machine. A part of the contract: kernels/ops.h. */
#ifndef LRD_KERNELS_PRODUCT_OPTIONS_H
#define LRD_KERNELS_PRODUCT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

/* A product that a backend can compute in several ways, and one of them; in its own words. Where it was
 * timed also the seconds that this way takes, and the one that the backend takes untimed. */
typedef struct lrd_choice {
    char product[128], route[176];
    double seconds, rule_seconds;
} lrd_choice_t;

/* Ways that were found by timing, for that machine alone: they decide the bits. */
typedef struct lrd_tuning {
    char machine[160];
    const lrd_choice_t *choice;
    size_t n;
} lrd_tuning_t;

/* How a backend is to compute products with weights.
 *
 * tuning_file  from lora-dist tune; NULL: the backend's own rules
 * tuning       what that file says: lrd_backend_open fills it in, a backend copies what it needs
 * tf32         operands of float32 products are rounded to TF32; LRD_ERR_UNSUPPORTED where there is none
 * tunes        the ways of each product are timed when it is met first, and the fastest is taken. What
 *              linears write is then anything: for lora-dist tune alone */
typedef struct lrd_product_options {
    const char *tuning_file;
    const lrd_tuning_t *tuning;
    bool tf32, tunes;
} lrd_product_options_t;

#endif /* LRD_KERNELS_PRODUCT_OPTIONS_H */
