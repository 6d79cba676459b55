/* base/json.h -- reading JSON from outside (jansson), with errors that
 * name file, place and what was expected.
 *
 * Strict: UTF-8, no duplicate keys, nesting of at most 64. Strings may
 * hold U+0000 (use the length).
 */
#ifndef LRD_BASE_JSON_H
#define LRD_BASE_JSON_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses `bytes` of text; `name` (a file, or "file:line") stands in error messages.
 * Any JSON value. The caller owns *json_out (json_decref). LRD_ERR_FORMAT: not JSON.
 * LRD_ERR_NO_MEMORY needs lrd_mem_adopt_json. */
lrd_status_t lrd_json_parse(const char *text, size_t bytes, const char *name, json_t **json_out);

/* The same for a whole file of at most max_bytes. */
lrd_status_t lrd_json_read(const char *path, size_t max_bytes, json_t **json_out);

/* What a value is, for messages: "an object", "a list", "a string", "a number",
 * "true or false", "null". */
const char *lrd_json_type_name(const json_t *value);

/* Members of an object. `name` is the file, for messages. A member that is absent or null gives
 * `fallback`; one of another type, or outside min .. max, is LRD_ERR_FORMAT. Strings are borrowed
 * from the object and hold no U+0000. */
lrd_status_t lrd_json_get_int(const json_t *object, const char *name, const char *key,
                              int64_t fallback, int64_t min, int64_t max, int64_t *value_out);
lrd_status_t lrd_json_get_real(const json_t *object, const char *name, const char *key,
                               double fallback, double *value_out); /* integers count as reals */
lrd_status_t lrd_json_get_bool(const json_t *object, const char *name, const char *key,
                               bool fallback, bool *value_out);
lrd_status_t lrd_json_get_text(const json_t *object, const char *name, const char *key,
                               const char *fallback, const char **value_out);

#endif /* LRD_BASE_JSON_H */
