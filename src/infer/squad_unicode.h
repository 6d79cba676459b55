/* infer/squad_unicode.h -- the tables behind infer/squad_text.h: Unicode 14.0.0, as Python 3.11's str
 * and re have it. Characters that a later Unicode adds have no case and are no word characters here. */
#ifndef LRD_INFER_SQUAD_UNICODE_H
#define LRD_INFER_SQUAD_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum {
    LRD_CHAR_WORD = 1,      /* str.isalnum(): with '_' the \w of re */
    LRD_CHAR_SPACE = 2,     /* str.isspace() */
    LRD_CHAR_CASED = 4,     /* has case, and is not ignorable: decides about a sigma beside it */
    LRD_CHAR_IGNORABLE = 8, /* is passed over beside a sigma */
};

/* Characters first, first + step, ... last become lower-case by adding delta. U+0130, whose lower
 * case is two characters, is in none. Ascending. */
typedef struct lrd_lower_run {
    int32_t first, last, step, delta;
} lrd_lower_run_t;

/* Characters first to last have these classes; those in no run have none. Ascending. */
typedef struct lrd_class_run {
    int32_t first, last;
    unsigned classes;
} lrd_class_run_t;

extern const lrd_lower_run_t lrd_lower_runs[];
extern const size_t lrd_n_lower_runs;
extern const lrd_class_run_t lrd_class_runs[];
extern const size_t lrd_n_class_runs;

#endif /* LRD_INFER_SQUAD_UNICODE_H */
