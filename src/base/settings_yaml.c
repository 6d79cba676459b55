/* Reading YAML through libyaml's events. Nothing is built but the values of known keys, and those
 * are shallow and short, so that what a file may cost is bounded by its size. */
#include "base/settings_private.h"

#include "base/mem.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_DEPTH = 3 /* of a value: no setting is deeper than a map of scalars */ };

typedef struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the last one read; NO_EVENT before the first */
    const char *name;   /* the file, or "--set section.key" */
    bool has_lines;     /* of a file; a value of --set stands alone */
    char where[512];    /* "squad.yaml:12", or name */
} reader_t;

/* reader->where for a line counted from 0. */
static const char *place(reader_t *r, size_t line)
{
    if (r->has_lines)
        snprintf(r->where, sizeof r->where, "%.400s:%zu", r->name, line + 1);
    else
        snprintf(r->where, sizeof r->where, "%.500s", r->name);
    return r->where;
}

static const char *event_place(reader_t *r)
{
    return place(r, r->event.start_mark.line);
}

static lrd_status_t fail_parser(reader_t *r)
{
    lrd_status_t status = LRD_OK;
    const yaml_parser_t *p = &r->parser;
    LRD_CHECK(p->error != YAML_MEMORY_ERROR, LRD_ERR_NO_MEMORY, "%s: out of memory for YAML",
              r->name);
    const char *problem = p->problem != NULL ? p->problem : "cannot be read";
    LRD_CHECK(p->error != YAML_READER_ERROR, LRD_ERR_CONFIG, "%s: not valid YAML: %s (byte %zu)",
              r->name, problem, p->problem_offset);
    const char *advice = "";
    if (strstr(problem, "cannot start any token") != NULL)
        advice = " (a tab? YAML indents with spaces; put text with special characters in quotes)";
    else if (strstr(problem, "mapping values are not allowed") != NULL)
        advice = " (is the line above indented right? put text with \": \" in quotes)";
    LRD_FAIL(LRD_ERR_CONFIG, "%s: not valid YAML in column %zu: %s%s",
             place(r, p->problem_mark.line), p->problem_mark.column + 1, problem, advice);
out:
    return status;
}

/* Events of libyaml that carry an anchor or a tag name it at different places. */
static lrd_status_t refuse_extras(reader_t *r)
{
    lrd_status_t status = LRD_OK;
    const yaml_event_t *e = &r->event;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        anchor = e->data.scalar.anchor;
        tag = e->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = e->data.sequence_start.anchor;
        tag = e->data.sequence_start.tag;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = e->data.mapping_start.anchor;
        tag = e->data.mapping_start.tag;
        break;
    case YAML_ALIAS_EVENT:
        LRD_FAIL(
            LRD_ERR_CONFIG,
            "%s: the alias *%.80s: aliases are not supported; write the value out (a text that "
            "begins with * needs quotes)",
            event_place(r), (const char *)e->data.alias.anchor);
    default:
        break;
    }
    LRD_CHECK(anchor == NULL, LRD_ERR_CONFIG,
              "%s: the anchor &%.80s: anchors are not supported (a text that begins with & needs "
              "quotes)",
              event_place(r), (const char *)anchor);
    LRD_CHECK(tag == NULL, LRD_ERR_CONFIG,
              "%s: the tag %.80s: tags are not supported (a text that begins with ! needs quotes)",
              event_place(r), (const char *)tag);
out:
    return status;
}

static lrd_status_t next(reader_t *r)
{
    lrd_status_t status = LRD_OK;
    yaml_event_delete(&r->event);
    if (!yaml_parser_parse(&r->parser, &r->event)) {
        status = fail_parser(r);
        goto out;
    }
    LRD_TRY(refuse_extras(r));
out:
    return status;
}

static lrd_status_t check_utf8(reader_t *r, const char *text, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    size_t line = 0;
    for (size_t at = 0; at < bytes;) {
        int32_t code;
        const size_t length = lrd_utf8_next(text + at, bytes - at, &code);
        LRD_CHECK(code >= 0, LRD_ERR_CONFIG, "%s: not valid UTF-8 (byte %zu)", place(r, line), at);
        if (code == '\n')
            line++;
        at += length;
    }
out:
    return status;
}

/* begin may be undone by end whether or not it succeeds. After it the event is the document's
 * start, or the stream's end where there is no document. */
static lrd_status_t begin(reader_t *r, const char *text, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    if (text == NULL) { /* nothing at all; libyaml wants a pointer */
        text = "";
        bytes = 0;
    }
    LRD_CHECK(yaml_parser_initialize(&r->parser), LRD_ERR_NO_MEMORY, "%s: out of memory for YAML",
              r->name);
    yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, bytes);
    LRD_TRY(check_utf8(r, text, bytes));
    LRD_TRY(next(r)); /* the stream's start */
    LRD_TRY(next(r));
out:
    return status;
}

/* After the document's last node. */
static lrd_status_t expect_end(reader_t *r)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(next(r)); /* the document's end */
    LRD_TRY(next(r));
    LRD_CHECK(r->event.type == YAML_STREAM_END_EVENT, LRD_ERR_CONFIG,
              "%s: a second document begins here; one is expected", event_place(r));
out:
    return status;
}

static void end(reader_t *r)
{
    yaml_event_delete(&r->event);
    yaml_parser_delete(&r->parser);
}

static bool is_one_of(const char *text, const char *const *word)
{
    while (*word != NULL && strcmp(*word, text) != 0)
        word++;
    return *word != NULL;
}

/* [-+]? digits, single underscores between them, without a leading zero: YAML 1.1 calls 010 octal,
 * 1.2 decimal, so that it is left a text. */
static bool is_whole(const char *s)
{
    s += *s == '-' || *s == '+';
    if (s[0] == '0')
        return s[1] == '\0';
    for (bool after_digit = false;; s++) {
        if (*s == '_' ? !after_digit : *s < '0' || *s > '9')
            return *s == '\0' && after_digit;
        after_digit = *s != '_';
    }
}

/* [-+]? (digits [. digits*] | . digits) ([eE] [-+]? digits)?, also without the point and the sign
 * that YAML 1.1 wants: 1e-3 is a number to everybody. */
static bool is_real(const char *s)
{
    s += *s == '-' || *s == '+';
    size_t n = strspn(s, "0123456789");
    s += n;
    if (*s != '.' && *s != 'e' && *s != 'E')
        return false; /* a whole number, or 010 */
    if (*s == '.') {
        const size_t n_after = strspn(s + 1, "0123456789");
        s += 1 + n_after;
        n += n_after;
    }
    if (n == 0)
        return false;
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        n = strspn(s, "0123456789");
        if (n == 0)
            return false;
        s += n;
    }
    return *s == '\0';
}

static lrd_status_t whole_number(const char *text, const char *where, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const bool negative = text[0] == '-';
    int64_t value = 0;
    for (const char *s = text; *s != '\0'; s++) {
        if (*s < '0' || *s > '9')
            continue;
        const int digit = negative ? -(*s - '0') : *s - '0';
        LRD_CHECK(!__builtin_mul_overflow(value, 10, &value) &&
                      !__builtin_add_overflow(value, digit, &value),
                  LRD_ERR_CONFIG, "%s: the number %.40s does not fit in 64 bits", where, text);
    }
    LRD_ALLOC(*json_out, json_integer(value));
out:
    return status;
}

lrd_status_t lrd_yaml_scalar(const char *text, size_t bytes, const char *where, json_t **json_out)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", "yes", "Yes",
                                        "YES",  "on",   "On",   "ON",  NULL};
    static const char *const falses[] = {"false", "False", "FALSE", "no",  "No",
                                         "NO",    "off",   "Off",   "OFF", NULL};
    static const char *const not_finite[] = {".inf",  ".Inf",  ".INF",  "+.inf", "+.Inf",
                                             "+.INF", "-.inf", "-.Inf", "-.INF", ".nan",
                                             ".NaN",  ".NAN",  NULL};
    lrd_status_t status = LRD_OK;
    if (memchr(text, '\0', bytes) != NULL) {
        LRD_ALLOC(*json_out, json_stringn(text, bytes));
    } else if (is_one_of(text, nulls)) {
        LRD_ALLOC(*json_out, json_null());
    } else if (is_one_of(text, trues)) {
        LRD_ALLOC(*json_out, json_true());
    } else if (is_one_of(text, falses)) {
        LRD_ALLOC(*json_out, json_false());
    } else if (is_whole(text)) {
        LRD_TRY(whole_number(text, where, json_out));
    } else if (is_real(text) || is_one_of(text, not_finite)) {
        const double value = is_real(text) ? strtod(text, NULL) : INFINITY;
        LRD_CHECK(isfinite(value), LRD_ERR_CONFIG, "%s: %.40s is not a finite number", where, text);
        LRD_ALLOC(*json_out, json_real(value));
    } else {
        LRD_ALLOC(*json_out, json_stringn(text, bytes));
    }
out:
    return status;
}

/* The scalar that the event is; `where` stands in messages. */
static lrd_status_t read_scalar(const reader_t *r, const char *where, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    const char *text = (const char *)r->event.data.scalar.value;
    const size_t bytes = r->event.data.scalar.length;
    if (r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        LRD_TRY(lrd_yaml_scalar(text, bytes, where, json_out));
    else
        LRD_ALLOC(*json_out, json_stringn(text, bytes));
out:
    return status;
}

/* The key that the event is: text, never null. It lives until the next event. */
static lrd_status_t read_key(reader_t *r, const char *where, const char **key_out)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(r->event.type == YAML_SCALAR_EVENT, LRD_ERR_CONFIG,
              "%s: a list or map stands where a key is expected", where);
    const char *key = (const char *)r->event.data.scalar.value;
    LRD_CHECK(strlen(key) == r->event.data.scalar.length, LRD_ERR_CONFIG,
              "%s: a key holds the character U+0000", where);
    *key_out = key;
out:
    return status;
}

static lrd_status_t read_node(reader_t *r, const char *key, int depth, json_t **json_out);

/* "squad.yaml:12: lora.r" of the event, or "--set lora.r"; the caller frees it. */
static lrd_status_t key_place(reader_t *r, const char *key, char **where_out)
{
    lrd_status_t status = LRD_OK;
    if (r->has_lines)
        LRD_ALLOC(*where_out, lrd_asprintf("%s: %s", event_place(r), key));
    else
        LRD_ALLOC(*where_out, lrd_strdup(r->name));
out:
    return status;
}

static lrd_status_t read_list(reader_t *r, const char *key, int depth, json_t *list)
{
    lrd_status_t status = LRD_OK;
    json_t *item = NULL;
    char *where = NULL;
    LRD_TRY(key_place(r, key, &where));
    for (;;) {
        LRD_TRY(next(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            break;
        LRD_CHECK(json_array_size(list) < LRD_SETTING_MAX_ENTRIES, LRD_ERR_CONFIG,
                  "%s: more than %d entries", where, LRD_SETTING_MAX_ENTRIES);
        LRD_TRY(read_node(r, key, depth, &item));
        LRD_CHECK(json_array_append(list, item) == 0, LRD_ERR_NO_MEMORY,
                  "%s: out of memory for the list", where);
        json_decref(item);
        item = NULL;
    }
out:
    json_decref(item);
    lrd_free(where);
    return status;
}

static lrd_status_t read_map(reader_t *r, const char *key, int depth, json_t *map)
{
    lrd_status_t status = LRD_OK;
    json_t *item = NULL;
    char *where = NULL, *name = NULL;
    for (;;) {
        LRD_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        const char *text;
        lrd_free(where);
        where = NULL;
        LRD_TRY(key_place(r, key, &where));
        LRD_TRY(read_key(r, where, &text));
        LRD_CHECK(json_object_get(map, text) == NULL, LRD_ERR_CONFIG, "%s: \"%.80s\" is repeated",
                  where, text);
        LRD_CHECK(json_object_size(map) < LRD_SETTING_MAX_ENTRIES, LRD_ERR_CONFIG,
                  "%s: more than %d entries", where, LRD_SETTING_MAX_ENTRIES);
        lrd_free(name);
        LRD_ALLOC(name, lrd_strdup(text));
        LRD_TRY(next(r));
        LRD_TRY(read_node(r, key, depth, &item));
        LRD_CHECK(json_object_set(map, name, item) == 0, LRD_ERR_NO_MEMORY,
                  "%s: out of memory for the map", where);
        json_decref(item);
        item = NULL;
    }
out:
    json_decref(item);
    lrd_free(where);
    lrd_free(name);
    return status;
}

/* The value that begins with the event; afterwards the event is its last one. */
static lrd_status_t read_node(reader_t *r, const char *key, int depth, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    char *where = NULL;
    LRD_TRY(key_place(r, key, &where));
    if (r->event.type == YAML_SCALAR_EVENT) {
        LRD_TRY(read_scalar(r, where, &json));
    } else {
        LRD_CHECK(depth < MAX_DEPTH, LRD_ERR_CONFIG, "%s: nested deeper than any setting is",
                  where);
        if (r->event.type == YAML_SEQUENCE_START_EVENT) {
            LRD_ALLOC(json, json_array());
            LRD_TRY(read_list(r, key, depth + 1, json));
        } else {
            LRD_ALLOC(json, json_object());
            LRD_TRY(read_map(r, key, depth + 1, json));
        }
    }
    *json_out = json;
    json = NULL;
out:
    json_decref(json);
    lrd_free(where);
    return status;
}

lrd_status_t lrd_yaml_value(const char *text, size_t bytes, const char *where, json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    reader_t r = {.name = where};
    json_t *json = NULL;
    LRD_TRY(begin(&r, text, bytes));
    if (r.event.type == YAML_STREAM_END_EVENT) {
        LRD_ALLOC(json, json_null());
    } else {
        LRD_TRY(next(&r));
        LRD_TRY(read_node(&r, where, 0, &json));
        LRD_TRY(expect_end(&r));
    }
    *json_out = json;
    json = NULL;
out:
    json_decref(json);
    end(&r);
    return status;
}

/* One "key: value" of a section; the event is the key. */
static lrd_status_t read_setting(reader_t *r, const char *section, bool *seen,
                                 lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    char *where = NULL;
    json_t *json = NULL;
    const char *name;
    LRD_TRY(key_place(r, section, &where));
    LRD_TRY(read_key(r, where, &name));
    const int key = lrd_key_find(section, name);
    if (key < 0)
        LRD_TRY(lrd_key_unknown(event_place(r), section, name));
    const size_t line = r->event.start_mark.line;
    lrd_free(where);
    where = NULL;
    LRD_TRY(key_place(r, lrd_key_name(key), &where));
    LRD_CHECK(!seen[key], LRD_ERR_CONFIG, "%s: the key is repeated", where);
    seen[key] = true;
    LRD_TRY(next(r));
    LRD_TRY(read_node(r, lrd_key_name(key), 0, &json));
    LRD_TRY(lrd_setting_assign(settings, key, json, where, (int)line + 1));
out:
    json_decref(json);
    lrd_free(where);
    return status;
}

/* A section's value; the event is its first. Nothing or null: a section of no keys. */
static lrd_status_t read_section(reader_t *r, const char *section, bool *seen,
                                 lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    if (r->event.type == YAML_SCALAR_EVENT) {
        LRD_TRY(read_scalar(r, event_place(r), &json));
        if (json_is_null(json))
            goto out;
    }
    LRD_CHECK(r->event.type == YAML_MAPPING_START_EVENT, LRD_ERR_CONFIG,
              "%s: %s: expected keys and values, indented below the section's name", event_place(r),
              section);
    for (;;) {
        LRD_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        LRD_TRY(read_setting(r, section, seen, settings));
    }
out:
    json_decref(json);
    return status;
}

/* The document's map of sections. */
static lrd_status_t read_sections(reader_t *r, lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    bool seen[LRD_N_KEYS] = {false}, seen_section[LRD_N_SECTIONS] = {false};
    for (;;) {
        LRD_TRY(next(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        const char *name;
        LRD_TRY(read_key(r, event_place(r), &name));
        const int section = lrd_section_find(name);
        if (section < 0)
            LRD_TRY(lrd_section_unknown(event_place(r), name));
        name = lrd_section_info[section].name; /* the event's own text ends with it */
        LRD_CHECK(!seen_section[section], LRD_ERR_CONFIG, "%s: %s: the section is repeated",
                  event_place(r), name);
        seen_section[section] = true;
        LRD_TRY(next(r));
        LRD_TRY(read_section(r, name, seen, settings));
    }
out:
    return status;
}

lrd_status_t lrd_yaml_settings(const char *text, size_t bytes, const char *name,
                               lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    reader_t r = {.name = name, .has_lines = true};
    json_t *json = NULL;
    LRD_TRY(begin(&r, text, bytes));
    if (r.event.type == YAML_DOCUMENT_START_EVENT) {
        LRD_TRY(next(&r));
        if (r.event.type == YAML_SCALAR_EVENT)
            LRD_TRY(read_scalar(&r, event_place(&r), &json));
    }
    LRD_CHECK(r.event.type != YAML_STREAM_END_EVENT && !json_is_null(json), LRD_ERR_CONFIG,
              "%s: there are no settings in it; expected the sections model, lora, data, training, "
              "parallel",
              name);
    LRD_CHECK(r.event.type == YAML_MAPPING_START_EVENT, LRD_ERR_CONFIG,
              "%s: expected the sections model, lora, data, training, parallel, each a name with "
              "a colon",
              event_place(&r));
    LRD_TRY(read_sections(&r, settings));
    LRD_TRY(expect_end(&r));
out:
    json_decref(json);
    end(&r);
    return status;
}
