/* report/pyjson.h -- JSON of a run, as Python writes it: numbers may be NaN, Infinity or -Infinity.
 *
 * These three are kept as the strings "NaN", "Infinity", "-Infinity", which lrd_pyjson_real turns back into
 * numbers.
 */
#ifndef LRD_REPORT_PYJSON_H
#define LRD_REPORT_PYJSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* As lrd_json_parse and lrd_json_read (of at most 1 GiB). */
lrd_status_t lrd_pyjson_parse(const char *text, size_t bytes, const char *name, json_t **json_out);
lrd_status_t lrd_pyjson_read(const char *path, json_t **json_out);

/* A member of an object that is a number (no text that does not stand for one); false: there is none, and
 * *value_out is as it was. `object` may be anything, NULL too. */
bool lrd_pyjson_real(const json_t *object, const char *key, double *value_out);

/* A member that is a text, NULL where there is none; valid as long as the object. */
const char *lrd_pyjson_text(const json_t *object, const char *key);

/* The value itself, as above. */
bool lrd_pyjson_number(const json_t *value, double *value_out);

#endif /* LRD_REPORT_PYJSON_H */
