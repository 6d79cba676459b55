/* base/json_writer.h -- writing JSON exactly as Python's json.dumps does, into a buffer.
 *
 * jansson prints reals with a fixed number of digits; files that Hugging Face's tools and people
 * read want the shortest digits that read back as the same double (1e-05, 0.1, 100.0), which is
 * what this adds. Non-finite numbers are written as NaN, Infinity, -Infinity, as Python does.
 *
 *   lrd_json_writer_t w = {.buf = &buf, .indent = 2};
 *   lrd_json_open(&w, '{');
 *   lrd_json_key(&w, "step");
 *   lrd_json_int(&w, 3);
 *   lrd_json_close(&w, '}');
 *   LRD_TRY(lrd_json_writer_status(&w));
 *
 * Errors (no memory only) are kept in the writer and returned once, by lrd_json_writer_status. Keys
 * come out in the order they are written; sorted keys are the caller's business. Texts are UTF-8;
 * what is not is written as U+FFFD. Nothing separates values outside all brackets: for lines of
 * JSON the caller adds the newlines.
 */
#ifndef LRD_BASE_JSON_WRITER_H
#define LRD_BASE_JSON_WRITER_H

#include "base/buf.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_json_writer {
    lrd_buf_t *buf; /* borrowed: output is appended */
    /* Spaces per level, as json.dumps(indent=n); 0: one line with ", " and ": "; -1: compact. */
    int indent;
    bool utf8; /* false: everything beyond ASCII as \uXXXX, as Python's default; true: as UTF-8 */
    /* private */
    int depth;
    bool has_items, after_key;
    lrd_status_t status;
} lrd_json_writer_t;

void lrd_json_open(lrd_json_writer_t *w, char bracket);  /* '{' or '[' */
void lrd_json_close(lrd_json_writer_t *w, char bracket); /* '}' or ']' */
void lrd_json_key(lrd_json_writer_t *w, const char *key);
void lrd_json_key_bytes(lrd_json_writer_t *w, const char *key, size_t bytes);
void lrd_json_text(lrd_json_writer_t *w, const char *text); /* NULL: null */
/* UTF-8, may hold U+0000. */
void lrd_json_bytes(lrd_json_writer_t *w, const char *text, size_t bytes);
void lrd_json_int(lrd_json_writer_t *w, int64_t value);
void lrd_json_real(lrd_json_writer_t *w, double value);
void lrd_json_bool(lrd_json_writer_t *w, bool value);
void lrd_json_null(lrd_json_writer_t *w);
/* Any jansson value, keys in its insertion order. */
void lrd_json_value(lrd_json_writer_t *w, const json_t *value);

lrd_status_t lrd_json_writer_status(const lrd_json_writer_t *w);

/* The shortest text that reads back as `value`, as Python's repr(float);
 * NaN, Infinity or -Infinity where it is not finite. Whatever the locale, the point is a point.
 * `text` holds at least 32 bytes. */
void lrd_format_real(double value, char text[32]);

#endif /* LRD_BASE_JSON_WRITER_H */
