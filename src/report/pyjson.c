#include "report/pyjson.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <string.h>

static const struct nonfinite {
    const char *name;
    double value;
} nonfinite[] = {{"-Infinity", -INFINITY}, {"Infinity", INFINITY}, {"NaN", NAN}};
enum { N_NONFINITE = sizeof nonfinite / sizeof nonfinite[0] };

/* The name that stands at text[0 .. bytes), or NULL. */
static const char *name_at(const char *text, size_t bytes)
{
    for (int i = 0; i < N_NONFINITE; i++) {
        const size_t n = strlen(nonfinite[i].name);
        if (n <= bytes && memcmp(text, nonfinite[i].name, n) == 0)
            return nonfinite[i].name;
    }
    return NULL;
}

/* Copies the text, with quotes around these names where they are no part of a string. */
static lrd_status_t quote(const char *text, size_t bytes, lrd_buf_t *quoted)
{
    lrd_status_t status = LRD_OK;
    bool in_string = false;
    size_t copied = 0;
    for (size_t i = 0; i < bytes; i++) {
        const char c = text[i];
        if (c == '"')
            in_string = !in_string;
        else if (in_string && c == '\\')
            i++;
        const bool may_be = !in_string && (c == 'N' || c == 'I' || c == '-');
        const char *name = may_be ? name_at(text + i, bytes - i) : NULL;
        if (name == NULL)
            continue;
        LRD_TRY(lrd_buf_add(quoted, text + copied, i - copied));
        LRD_TRY(lrd_buf_printf(quoted, "\"%s\"", name));
        copied = i + strlen(name);
        i = copied - 1;
    }
    LRD_TRY(lrd_buf_add(quoted, text + copied, bytes - copied));
out:
    return status;
}

lrd_status_t lrd_pyjson_parse(const char *text, size_t bytes, const char *name, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t quoted = {0};
    LRD_TRY(lrd_buf_reserve(&quoted, bytes + 1));
    LRD_TRY(quote(text, bytes, &quoted));
    LRD_TRY(lrd_json_parse(quoted.data, quoted.size, name, json_out));
out:
    lrd_buf_release(&quoted);
    return status;
}

lrd_status_t lrd_pyjson_read(const char *path, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_file_read(path, (size_t)1 << 30, &text));
    LRD_TRY(lrd_pyjson_parse(text.data != NULL ? text.data : "", text.size, path, json_out));
out:
    lrd_buf_release(&text);
    return status;
}

bool lrd_pyjson_number(const json_t *value, double *value_out)
{
    if (json_is_number(value)) {
        *value_out = json_number_value(value);
        return true;
    }
    for (int i = 0; i < N_NONFINITE && json_is_string(value); i++) {
        if (strcmp(json_string_value(value), nonfinite[i].name) == 0) {
            *value_out = nonfinite[i].value;
            return true;
        }
    }
    return false;
}

bool lrd_pyjson_real(const json_t *object, const char *key, double *value_out)
{
    return lrd_pyjson_number(json_object_get(object, key), value_out);
}

const char *lrd_pyjson_text(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}
