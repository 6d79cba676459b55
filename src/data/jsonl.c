#include "data/jsonl.h"

#include "base/json_writer.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const size_t max_line_bytes = (size_t)16 << 20;

void lrd_jsonl_begin(lrd_jsonl_t *reader, const char *name, const void *data, size_t bytes)
{
    *reader = (lrd_jsonl_t){.name = name, .data = data, .bytes = bytes};
    if (bytes >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0)
        reader->at = 3;
}

char lrd_jsonl_first_byte(const void *data, size_t bytes)
{
    lrd_jsonl_t r;
    lrd_jsonl_begin(&r, "", data, bytes);
    while (r.at < bytes && (r.data[r.at] == ' ' || r.data[r.at] == '\t' || r.data[r.at] == '\r' ||
                            r.data[r.at] == '\n'))
        r.at++;
    return r.at < bytes ? r.data[r.at] : '\0';
}

/* The next line that holds more than white space, without its end. False: there is none. */
static bool next_line(lrd_jsonl_t *r, lrd_text_t *line_out)
{
    while (r->at < r->bytes) {
        const char *begin = r->data + r->at;
        const size_t left = r->bytes - r->at;
        const char *end = memchr(begin, '\n', left);
        size_t n = end != NULL ? (size_t)(end - begin) : left;
        r->at += end != NULL ? n + 1 : n;
        r->line++;
        while (n > 0 && (begin[n - 1] == ' ' || begin[n - 1] == '\t' || begin[n - 1] == '\r'))
            n--;
        if (n > 0) {
            *line_out = (lrd_text_t){begin, n};
            return true;
        }
    }
    return false;
}

lrd_status_t lrd_jsonl_next(lrd_jsonl_t *reader, json_t **object_out)
{
    lrd_status_t status = LRD_OK;
    json_t *object = NULL;
    lrd_text_t line = {0};
    char *place = NULL;
    if (next_line(reader, &line)) {
        LRD_ALLOC(place, lrd_asprintf("%s:%" PRId64, reader->name, reader->line));
        LRD_CHECK(line.bytes <= max_line_bytes, LRD_ERR_FORMAT,
                  "%s: the line has %zu bytes, more than the %zu that are read", place, line.bytes,
                  max_line_bytes);
        LRD_TRY(lrd_json_parse(line.data, line.bytes, place, &object));
        LRD_CHECK(json_is_object(object), LRD_ERR_FORMAT, "%s: the line is %s, expected an object",
                  place, lrd_json_type_name(object));
    }
    *object_out = object;
    object = NULL;
out:
    json_decref(object);
    lrd_free(place);
    return status;
}

/* Puts the text of a number or a truth value in its place. */
static lrd_status_t make_text(json_t *object, const char *key, const json_t *value,
                              json_t **text_out)
{
    lrd_status_t status = LRD_OK;
    char text[32];
    if (json_is_integer(value))
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        lrd_format_real(json_real_value(value), text);
    else
        snprintf(text, sizeof text, "%s", json_is_true(value) ? "true" : "false");
    LRD_CHECK(json_object_set_new(object, key, json_string(text)) == 0, LRD_ERR_NO_MEMORY,
              "out of memory: text of a field");
    *text_out = json_object_get(object, key);
out:
    return status;
}

lrd_status_t lrd_jsonl_fields(const lrd_jsonl_t *reader, json_t *object, const lrd_prompt_t *prompt,
                              lrd_text_t *value_out)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < lrd_prompt_n_fields(prompt); i++) {
        const char *key = lrd_prompt_field(prompt, i);
        json_t *value = json_object_get(object, key);
        LRD_CHECK(value != NULL, LRD_ERR_FORMAT,
                  "%s:%" PRId64 ": \"%s\" is missing, which the prompt template names",
                  reader->name, reader->line, key);
        LRD_CHECK(!json_is_null(value) && !json_is_array(value) && !json_is_object(value),
                  LRD_ERR_FORMAT, "%s:%" PRId64 ": \"%s\" is %s, expected text", reader->name,
                  reader->line, key, lrd_json_type_name(value));
        if (!json_is_string(value))
            LRD_TRY(make_text(object, key, value, &value));
        value_out[i] = (lrd_text_t){json_string_value(value), json_string_length(value)};
    }
out:
    return status;
}

static lrd_status_t reserve(lrd_jsonl_tokens_t *tokens, size_t n)
{
    lrd_status_t status = LRD_OK;
    if (n <= tokens->capacity)
        goto out;
    int32_t *grown;
    LRD_ALLOC(grown, lrd_realloc_array(tokens->token, n, sizeof *grown));
    tokens->token = grown;
    LRD_ALLOC(grown, lrd_realloc_array(tokens->label, n, sizeof *grown));
    tokens->label = grown;
    tokens->capacity = n;
out:
    return status;
}

static lrd_status_t get_list(const lrd_jsonl_t *r, const json_t *object, const char *key,
                             const json_t **list_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *list = json_object_get(object, key);
    if (json_is_null(list))
        list = NULL;
    LRD_CHECK(list == NULL || json_is_array(list), LRD_ERR_FORMAT,
              "%s:%" PRId64 ": \"%s\" is %s, expected a list of integers", r->name, r->line, key,
              lrd_json_type_name(list));
    *list_out = list;
out:
    return status;
}

/* Copies integers in [0, limit), or -100 where that is allowed. */
static lrd_status_t copy_ids(const lrd_jsonl_t *r, const json_t *list, const char *key,
                             int64_t limit, bool may_be_ignored, int32_t *out)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *value = json_array_get(list, i);
        LRD_CHECK(json_is_integer(value), LRD_ERR_FORMAT,
                  "%s:%" PRId64 ": %s[%zu] is %s, expected an integer", r->name, r->line, key, i,
                  json_is_real(value) ? "a real number" : lrd_json_type_name(value));
        const json_int_t id = json_integer_value(value);
        LRD_CHECK(
            (id >= 0 && id < limit) || (may_be_ignored && id == LRD_LABEL_IGNORED), LRD_ERR_FORMAT,
            "%s:%" PRId64 ": %s[%zu] is %" JSON_INTEGER_FORMAT
            ", outside the model's vocabulary of %" PRId64 "%s",
            r->name, r->line, key, i, id, limit, may_be_ignored ? " and not -100 (ignored)" : "");
        out[i] = (int32_t)id;
    }
out:
    return status;
}

static lrd_status_t check_mask(const lrd_jsonl_t *r, const json_t *object)
{
    lrd_status_t status = LRD_OK;
    const json_t *mask = json_object_get(object, "attention_mask");
    for (size_t i = 0; i < json_array_size(mask); i++)
        LRD_CHECK(json_integer_value(json_array_get(mask, i)) == 1, LRD_ERR_FORMAT,
                  "%s:%" PRId64
                  ": attention_mask[%zu] is not 1; records are taken without padding: "
                  "remove the padding and the mask",
                  r->name, r->line, i);
out:
    return status;
}

lrd_status_t lrd_jsonl_tokens(const lrd_jsonl_t *reader, const json_t *object, int64_t vocab_size,
                              lrd_jsonl_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const json_t *ids = NULL, *labels = NULL;
    LRD_TRY(get_list(reader, object, "input_ids", &ids));
    LRD_TRY(get_list(reader, object, "labels", &labels));
    const size_t n = json_array_size(ids);
    LRD_CHECK(ids != NULL, LRD_ERR_FORMAT,
              "%s:%" PRId64 ": \"input_ids\" is missing, expected a list of token ids",
              reader->name, reader->line);
    LRD_CHECK(n > 0, LRD_ERR_FORMAT, "%s:%" PRId64 ": \"input_ids\" is empty; remove the record",
              reader->name, reader->line);
    LRD_CHECK(labels == NULL || json_array_size(labels) == n, LRD_ERR_FORMAT,
              "%s:%" PRId64 ": \"labels\" has %zu entries and \"input_ids\" %zu, expected as many",
              reader->name, reader->line, json_array_size(labels), n);
    LRD_TRY(check_mask(reader, object));
    LRD_TRY(reserve(tokens, n));
    LRD_TRY(copy_ids(reader, ids, "input_ids", vocab_size, false, tokens->token));
    if (labels != NULL)
        LRD_TRY(copy_ids(reader, labels, "labels", vocab_size, true, tokens->label));
    else
        memcpy(tokens->label, tokens->token, n * sizeof tokens->label[0]);
    tokens->n = n;
out:
    return status;
}

void lrd_jsonl_tokens_release(lrd_jsonl_tokens_t *tokens)
{
    lrd_free(tokens->token);
    lrd_free(tokens->label);
    *tokens = (lrd_jsonl_tokens_t){0};
}
