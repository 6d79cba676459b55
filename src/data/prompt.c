#include "data/prompt.h"

#include "base/mem.h"

#include <string.h>

enum { MAX_FIELDS = 256 };

/* A template is a list of parts: a literal, then a field (the tail has no field). Literals and
 * names are slices of `text`, in which {{ and }} are already single braces. */
typedef struct part {
    size_t at, bytes; /* of the literal */
    int field;        /* index, or -1: none follows */
} part_t;

struct lrd_prompt {
    char *place;
    char *text;
    part_t *part;
    size_t n_parts; /* at least 2; the last one has no field */
    char **field;
    size_t *n_uses;
    size_t n_fields;
};

/* Position for people: characters, not bytes, from 1. */
static size_t character(const char *text, size_t at)
{
    size_t n = 1;
    for (size_t i = 0; i < at; i++)
        n += ((unsigned char)text[i] & 0xc0u) != 0x80u;
    return n;
}

static lrd_status_t add_part(lrd_prompt_t *p, size_t at, size_t end, int field)
{
    lrd_status_t status = LRD_OK;
    part_t *grown;
    LRD_ALLOC(grown, lrd_realloc_array(p->part, p->n_parts + 1, sizeof *grown));
    p->part = grown;
    p->part[p->n_parts++] = (part_t){at, end - at, field};
    if (field >= 0)
        p->n_uses[field]++;
out:
    return status;
}

/* The index of the field of this name, which is added when it is new. */
static lrd_status_t take_field(lrd_prompt_t *p, const char *name, size_t bytes, int *field_out)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < p->n_fields; i++) {
        if (strlen(p->field[i]) == bytes && memcmp(p->field[i], name, bytes) == 0) {
            *field_out = (int)i;
            goto out;
        }
    }
    LRD_CHECK(p->n_fields < MAX_FIELDS, LRD_ERR_CONFIG, "%s names more than %d fields", p->place,
              MAX_FIELDS);
    char **grown;
    LRD_ALLOC(grown, lrd_realloc_array(p->field, p->n_fields + 1, sizeof *grown));
    p->field = grown;
    size_t *uses;
    LRD_ALLOC(uses, lrd_realloc_array(p->n_uses, p->n_fields + 1, sizeof *uses));
    p->n_uses = uses;
    LRD_ALLOC(p->field[p->n_fields], lrd_strndup(name, bytes));
    p->n_uses[p->n_fields] = 0;
    *field_out = (int)p->n_fields++;
out:
    return status;
}

/* Reads the field that begins with the brace text[at]; *end_out is the offset
 * behind its closing brace. */
static lrd_status_t read_field(lrd_prompt_t *p, const char *text, size_t at, int *field_out,
                               size_t *end_out)
{
    lrd_status_t status = LRD_OK;
    const size_t bytes = strcspn(text + at + 1, "{}");
    LRD_CHECK(text[at + 1 + bytes] == '}', LRD_ERR_CONFIG,
              "%s: the brace at character %zu opens a field that is not closed; write {{ for a "
              "brace in the text",
              p->place, character(text, at));
    LRD_CHECK(bytes > 0, LRD_ERR_CONFIG,
              "%s: the field at character %zu has no name; write {{}} for two braces in the text",
              p->place, character(text, at));
    LRD_TRY(take_field(p, text + at + 1, bytes, field_out));
    *end_out = at + bytes + 2;
out:
    return status;
}

static lrd_status_t compile(lrd_prompt_t *p, const char *text)
{
    lrd_status_t status = LRD_OK;
    size_t at = 0, used = 0, begin = 0; /* read from text; written to p->text; start of a literal */
    while (text[at] != '\0') {
        const char c = text[at];
        if ((c == '{' || c == '}') && text[at + 1] != c) {
            LRD_CHECK(c == '{', LRD_ERR_CONFIG,
                      "%s: the brace at character %zu closes nothing; write }} for a brace in the "
                      "text",
                      p->place, character(text, at));
            int field = -1;
            LRD_TRY(read_field(p, text, at, &field, &at));
            LRD_TRY(add_part(p, begin, used, field));
            begin = used;
            continue;
        }
        p->text[used++] = c;
        at += c == '{' || c == '}' ? 2 : 1;
    }
    LRD_CHECK(p->n_fields > 0, LRD_ERR_CONFIG,
              "%s names no field; write {name} where a field of the records should stand",
              p->place);
    LRD_TRY(add_part(p, begin, used, -1));
out:
    return status;
}

lrd_status_t lrd_prompt_create(const char *text, const char *place, lrd_prompt_t **prompt_out)
{
    lrd_status_t status = LRD_OK;
    lrd_prompt_t *p = NULL;
    LRD_NEW(p, 1);
    LRD_ALLOC(p->place, lrd_strdup(place));
    LRD_ALLOC(p->text, lrd_malloc(strlen(text) + 1));
    LRD_TRY(compile(p, text));
    *prompt_out = p;
    p = NULL;
out:
    lrd_prompt_free(p);
    return status;
}

void lrd_prompt_free(lrd_prompt_t *prompt)
{
    if (prompt == NULL)
        return;
    for (size_t i = 0; i < prompt->n_fields; i++)
        lrd_free(prompt->field[i]);
    lrd_free(prompt->field);
    lrd_free(prompt->n_uses);
    lrd_free(prompt->part);
    lrd_free(prompt->text);
    lrd_free(prompt->place);
    lrd_free(prompt);
}

size_t lrd_prompt_n_fields(const lrd_prompt_t *prompt)
{
    return prompt->n_fields;
}

const char *lrd_prompt_field(const lrd_prompt_t *prompt, size_t i)
{
    return prompt->field[i];
}

int lrd_prompt_find(const lrd_prompt_t *prompt, const char *name)
{
    for (size_t i = 0; i < prompt->n_fields; i++)
        if (strcmp(prompt->field[i], name) == 0)
            return (int)i;
    return -1;
}

size_t lrd_prompt_last(const lrd_prompt_t *prompt)
{
    return (size_t)prompt->part[prompt->n_parts - 2].field;
}

size_t lrd_prompt_n_uses(const lrd_prompt_t *prompt, size_t field)
{
    return prompt->n_uses[field];
}

static lrd_status_t add_value(const lrd_prompt_t *p, const lrd_text_t *value, int field,
                              lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(value[field].data != NULL, LRD_ERR_ARG, "%s: the field {%s} has no value here",
              p->place, p->field[field]);
    LRD_TRY(lrd_buf_add(buf, value[field].data, value[field].bytes));
out:
    return status;
}

lrd_status_t lrd_prompt_render_head(const lrd_prompt_t *prompt, const lrd_text_t *value,
                                    lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    const size_t n = prompt->n_parts - 1; /* without the tail */
    for (size_t i = 0; i < n; i++) {
        const part_t *part = &prompt->part[i];
        LRD_TRY(lrd_buf_add(buf, prompt->text + part->at, part->bytes));
        if (i + 1 < n)
            LRD_TRY(add_value(prompt, value, part->field, buf));
    }
out:
    return status;
}

lrd_status_t lrd_prompt_render(const lrd_prompt_t *prompt, const lrd_text_t *value, lrd_buf_t *buf,
                               size_t *last_at_out)
{
    lrd_status_t status = LRD_OK;
    const size_t before = buf->size;
    const part_t *tail = &prompt->part[prompt->n_parts - 1];
    LRD_TRY(lrd_prompt_render_head(prompt, value, buf));
    const size_t last_at = buf->size - before;
    LRD_TRY(add_value(prompt, value, prompt->part[prompt->n_parts - 2].field, buf));
    LRD_TRY(lrd_buf_add(buf, prompt->text + tail->at, tail->bytes));
    if (last_at_out != NULL)
        *last_at_out = last_at;
out:
    return status;
}
