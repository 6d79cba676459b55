/* data/prompt.h -- prompt templates: how the fields of a record become one text.
 *
 *   "### QUESTION\n{question}\n\n### ANSWER\n{answer}</s>"
 *
 * {name} stands for a field, {{ and }} for braces; any other brace is an error. A name is one or
 * more bytes other than braces, taken literally. A field may stand any number of times. The last
 * {name} of a template is its last field: the text before it is the prompt that a model is asked to
 * continue, and what it holds is the answer.
 */
#ifndef LRD_DATA_PROMPT_H
#define LRD_DATA_PROMPT_H

#include "base/buf.h"
#include "base/status.h"
#include "data/text.h"

#include <stddef.h>

typedef struct lrd_prompt lrd_prompt_t; /* immutable: threads may share it */

/* Compiles a template; `place` (such as "data.prompt_template") stands in error messages.
 * LRD_ERR_CONFIG: a brace that stands alone, an empty name, no field at all, or more than 256; the
 * message counts characters (code points) from 1. */
lrd_status_t lrd_prompt_create(const char *text, const char *place, lrd_prompt_t **prompt_out);
void lrd_prompt_free(lrd_prompt_t *prompt); /* NULL is fine */

/* The distinct field names, in the order of their first appearance. */
size_t lrd_prompt_n_fields(const lrd_prompt_t *prompt);
const char *lrd_prompt_field(const lrd_prompt_t *prompt, size_t i);

/* Index of a field by name. Negative: the template does not name it. */
int lrd_prompt_find(const lrd_prompt_t *prompt, const char *name);

/* Index of the last field. */
size_t lrd_prompt_last(const lrd_prompt_t *prompt);

/* How often a field stands in the template. */
size_t lrd_prompt_n_uses(const lrd_prompt_t *prompt, size_t field);

/* Appends the text with value[i] in the places of field i. *last_at_out (may be NULL): offset in
 * what was appended of the first byte of the last field. LRD_ERR_ARG: a value is absent. */
lrd_status_t lrd_prompt_render(const lrd_prompt_t *prompt, const lrd_text_t *value, lrd_buf_t *buf,
                               size_t *last_at_out);

/* The same up to the last field, whose value is not looked at unless it also stands earlier. */
lrd_status_t lrd_prompt_render_head(const lrd_prompt_t *prompt, const lrd_text_t *value,
                                    lrd_buf_t *buf);

#endif /* LRD_DATA_PROMPT_H */
