#include "base/json.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

/* The deepest nesting in the text, without parsing it: jansson recurses,
 * and its own limit is 2,048. */
static int nesting(const char *text, size_t bytes)
{
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < bytes; i++) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest)
                deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

lrd_status_t lrd_json_parse(const char *text, size_t bytes, const char *name, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    json_error_t error;
    json_t *json = NULL;
    LRD_CHECK(nesting(text, bytes) <= MAX_DEPTH, LRD_ERR_FORMAT, "%s: nested deeper than %d levels",
              name, MAX_DEPTH);
    LRD_CHECK(bytes == 0 || memchr(text, '\0', bytes) == NULL, LRD_ERR_FORMAT,
              "%s: not valid JSON: it holds a zero byte", name); /* jansson skips some */
    lrd_mem_json_failed();                                       /* forgets an older failure */
    json =
        json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    LRD_CHECK(!lrd_mem_json_failed(), LRD_ERR_NO_MEMORY, "%s: out of memory for %zu bytes of JSON",
              name, bytes);
    LRD_CHECK(json != NULL, LRD_ERR_FORMAT, "%s: not valid JSON: %s (line %d, column %d)", name,
              error.text, error.line, error.column);
    *json_out = json;
    json = NULL;
out:
    json_decref(json);
    return status;
}

lrd_status_t lrd_json_read(const char *path, size_t max_bytes, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    LRD_TRY(lrd_file_read(path, max_bytes, &buf));
    LRD_CHECK(buf.size > 0, LRD_ERR_FORMAT, "%s is empty, expected JSON", path);
    LRD_TRY(lrd_json_parse(buf.data, buf.size, path, json_out));
out:
    lrd_buf_release(&buf);
    return status;
}

const char *lrd_json_type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* The member, or NULL when it is absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

lrd_status_t lrd_json_get_int(const json_t *object, const char *name, const char *key,
                              int64_t fallback, int64_t min, int64_t max, int64_t *value_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = member(object, key);
    int64_t n = fallback;
    if (value != NULL) {
        LRD_CHECK(json_is_integer(value), LRD_ERR_FORMAT, "%s: \"%s\" is not an integer", name,
                  key);
        n = json_integer_value(value);
        LRD_CHECK(n >= min && n <= max, LRD_ERR_FORMAT,
                  "%s: \"%s\" is %" PRId64 ", expected %" PRId64 " to %" PRId64, name, key, n, min,
                  max);
    }
    *value_out = n;
out:
    return status;
}

lrd_status_t lrd_json_get_real(const json_t *object, const char *name, const char *key,
                               double fallback, double *value_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = member(object, key);
    LRD_CHECK(value == NULL || json_is_number(value), LRD_ERR_FORMAT, "%s: \"%s\" is not a number",
              name, key);
    *value_out = value != NULL ? json_number_value(value) : fallback;
out:
    return status;
}

lrd_status_t lrd_json_get_bool(const json_t *object, const char *name, const char *key,
                               bool fallback, bool *value_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = member(object, key);
    LRD_CHECK(value == NULL || json_is_boolean(value), LRD_ERR_FORMAT,
              "%s: \"%s\" is not true or false", name, key);
    *value_out = value != NULL ? json_is_true(value) : fallback;
out:
    return status;
}

lrd_status_t lrd_json_get_text(const json_t *object, const char *name, const char *key,
                               const char *fallback, const char **value_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = member(object, key);
    const char *text = fallback;
    if (value != NULL) {
        LRD_CHECK(json_is_string(value), LRD_ERR_FORMAT, "%s: \"%s\" is not a string", name, key);
        text = json_string_value(value);
        LRD_CHECK(strlen(text) == json_string_length(value), LRD_ERR_FORMAT,
                  "%s: \"%s\" holds a NUL character", name, key);
    }
    *value_out = text;
out:
    return status;
}
