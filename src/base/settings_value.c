/* Values of settings: from JSON types to the settings' own and back. The YAML reader makes JSON
 * types, so that files, --set, defaults and checkpoints all come through here. */
#include "base/settings_private.h"

#include "base/json.h"
#include "base/mem.h"
#include "base/nearest.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const expected_text[] = {
#define X(kind, expected) expected,
    LRD_SETTING_KIND_LIST(X)
#undef X
};

/* Values that PEFT knows and lora-dist does not have. */
static const struct {
    lrd_key_t key;
    const char *value, *reason;
} refused[] = {
    {LRD_KEY_lora_bias, "all", "the biases stay frozen; not supported"},
    {LRD_KEY_lora_bias, "lora_only", "the biases stay frozen; not supported"},
    {LRD_KEY_lora_init_lora_weights, "pissa", "pissa changes the base weights; not supported"},
    {LRD_KEY_lora_init_lora_weights, "olora", "olora changes the base weights; not supported"},
    {LRD_KEY_lora_init_lora_weights, "corda", "corda changes the base weights; not supported"},
    {LRD_KEY_lora_init_lora_weights, "loftq", "loftq changes the base weights; not supported"},
    {LRD_KEY_lora_init_lora_weights, "lora_ga", "lora_ga changes the base weights; not supported"},
    {LRD_KEY_lora_init_lora_weights, "eva", "eva needs the activations' directions; not supported"},
    {LRD_KEY_lora_init_lora_weights, "orthogonal", "not supported"},
    {LRD_KEY_lora_init_lora_weights, "mica", "not supported"},
};

/* "the text "abc"", "the number 3", "a list": what a message says it got. */
static void describe(const json_t *json, char text[96])
{
    char number[32];
    switch (json_typeof(json)) {
    case JSON_STRING: {
        const char *s = json_string_value(json);
        size_t n = json_string_length(json);
        const char *more = n > 48 ? "..." : "";
        if (n > 48) {
            n = 48;
            while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80)
                n--; /* not in the middle of a character */
        }
        snprintf(text, 96, "the text \"%.*s%s\"", (int)n, s, more);
        for (char *at = text; *at != '\0'; at++) {
            if ((unsigned char)*at < 0x20)
                *at = ' ';
        }
        return;
    }
    case JSON_INTEGER:
        snprintf(text, 96, "the number %" JSON_INTEGER_FORMAT, json_integer_value(json));
        return;
    case JSON_REAL:
        lrd_format_real(json_real_value(json), number);
        snprintf(text, 96, "the number %s", number);
        return;
    case JSON_OBJECT:
        snprintf(text, 96, "a map");
        return;
    default:
        snprintf(text, 96, "%s",
                 json_is_array(json)  ? "a list"
                 : json_is_null(json) ? "null"
                 : json_is_true(json) ? "true"
                                      : "false");
    }
}

static bool looks_like_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && *end == '\0';
}

static lrd_status_t fail_type(const char *where, const char *expected, const json_t *json)
{
    char got[96];
    const char *advice = "";
    describe(json, got);
    if (strcmp(expected, "text") == 0 &&
        (json_is_number(json) || json_is_boolean(json) || json_is_object(json)))
        advice = "; put it in quotes";
    else if (json_is_string(json) && strstr(expected, "number") != NULL &&
             looks_like_number(json_string_value(json)))
        advice = "; write it without quotes";
    return lrd_fail(LRD_ERR_CONFIG, __FILE__, __LINE__, "%s: expected %s, got %s%s", where,
                    expected, got, advice);
}

void lrd_setting_limit_text(const lrd_setting_info_t *info, char text[96])
{
    text[0] = '\0';
    if (info->choice != NULL || info->min == -INFINITY)
        return;
    if (info->max == INFINITY)
        snprintf(text, 96, "%s %.15g", info->above_min ? "above" : "at least", info->min);
    else if (info->below_max)
        snprintf(text, 96, "at least %.15g and below %.15g", info->min, info->max);
    else
        snprintf(text, 96, "%.15g to %.15g", info->min, info->max);
}

static lrd_status_t check_range(const lrd_setting_info_t *info, const char *where, double value,
                                const json_t *json)
{
    lrd_status_t status = LRD_OK;
    char limit[96], got[96];
    const bool too_low = info->above_min ? value <= info->min : value < info->min;
    const bool too_high = info->below_max ? value >= info->max : value > info->max;
    if (!too_low && !too_high)
        goto out;
    lrd_setting_limit_text(info, limit);
    describe(json, got);
    LRD_FAIL(LRD_ERR_CONFIG, "%s: %s is out of range: %s", where, got, limit);
out:
    return status;
}

static lrd_status_t read_text(const char *where, const char *expected, bool not_empty,
                              const json_t *json, char **text_out)
{
    lrd_status_t status = LRD_OK;
    if (!json_is_string(json)) {
        status = fail_type(where, expected, json);
        goto out;
    }
    const char *text = json_string_value(json);
    const size_t bytes = json_string_length(json);
    LRD_CHECK(memchr(text, '\0', bytes) == NULL, LRD_ERR_CONFIG,
              "%s: the text holds the character U+0000", where);
    LRD_CHECK(bytes > 0 || !not_empty, LRD_ERR_CONFIG, "%s: the text is empty", where);
    LRD_ALLOC(*text_out, lrd_strndup(text, bytes));
out:
    return status;
}

static lrd_status_t read_integer(const lrd_setting_info_t *info, const char *where,
                                 const char *expected, const json_t *json, int64_t *value_out)
{
    lrd_status_t status = LRD_OK;
    if (!json_is_integer(json)) {
        status = fail_type(where, expected, json);
        goto out;
    }
    LRD_TRY(check_range(info, where, (double)json_integer_value(json), json));
    *value_out = json_integer_value(json);
out:
    return status;
}

static lrd_status_t read_real(const lrd_setting_info_t *info, const char *where,
                              const char *expected, const json_t *json, double *value_out)
{
    lrd_status_t status = LRD_OK;
    if (!json_is_number(json)) {
        status = fail_type(where, expected, json);
        goto out;
    }
    LRD_TRY(check_range(info, where, json_number_value(json), json));
    *value_out = json_number_value(json);
out:
    return status;
}

static lrd_status_t read_choice(const lrd_setting_info_t *info, const char *where,
                                const json_t *json, int *choice_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t names = {0};
    size_t n = 0;
    const char *text = json_is_true(json)    ? "true"
                       : json_is_false(json) ? "false"
                                             : json_string_value(json);
    LRD_TRY(lrd_buf_add_text(&names, "one of "));
    for (; info->choice[n] != NULL; n++) {
        if (text != NULL && strcmp(text, info->choice[n]) == 0) {
            *choice_out = (int)n;
            goto out;
        }
        LRD_TRY(lrd_buf_printf(&names, "%s%s", n > 0 ? ", " : "", info->choice[n]));
    }
    for (size_t i = 0; text != NULL && i < sizeof refused / sizeof refused[0]; i++) {
        const size_t length = strlen(refused[i].value);
        if (info == &lrd_setting_info[refused[i].key] &&
            strncmp(text, refused[i].value, length) == 0 &&
            (text[length] == '\0' || strncmp(text + length, "_niter_", 7) == 0))
            LRD_FAIL(LRD_ERR_CONFIG, "%s: \"%.80s\": %s", where, text, refused[i].reason);
    }
    const char *meant = text != NULL ? lrd_nearest(text, info->choice, n) : NULL;
    if (meant != NULL)
        LRD_TRY(lrd_buf_printf(&names, " (did you mean %s?)", meant));
    status = fail_type(where, names.data, json);
out:
    lrd_buf_release(&names);
    return status;
}

static lrd_status_t check_entries(const char *where, size_t n, bool not_empty)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(n > 0 || !not_empty, LRD_ERR_CONFIG, "%s: the list is empty", where);
    LRD_CHECK(n <= LRD_SETTING_MAX_ENTRIES, LRD_ERR_CONFIG, "%s: %zu entries, more than %d", where,
              n, LRD_SETTING_MAX_ENTRIES);
out:
    return status;
}

/* Where an entry stands: "where[3]", or "where."name"". The caller frees it. */
static lrd_status_t entry_place(const char *where, const char *name, size_t i, char **place_out)
{
    lrd_status_t status = LRD_OK;
    if (name != NULL)
        LRD_ALLOC(*place_out, lrd_asprintf("%s.\"%.80s\"", where, name));
    else
        LRD_ALLOC(*place_out, lrd_asprintf("%s[%zu]", where, i));
out:
    return status;
}

static lrd_status_t read_texts(const lrd_setting_info_t *info, const char *where,
                               const json_t *json, lrd_texts_t *texts_out)
{
    lrd_status_t status = LRD_OK;
    lrd_setting_value_t value = {.TEXTS = {0}};
    lrd_texts_t *texts = &value.TEXTS;
    char *place = NULL;
    if (!json_is_array(json)) {
        LRD_NEW(texts->text, 1);
        texts->is_single = true;
        texts->n = 1;
        LRD_TRY(read_text(where, expected_text[info->kind], true, json, &texts->text[0]));
    } else {
        const size_t n = json_array_size(json);
        LRD_TRY(check_entries(where, n, info->not_empty));
        LRD_NEW(texts->text, n);
        for (; texts->n < n; texts->n++) {
            lrd_free(place);
            place = NULL;
            LRD_TRY(entry_place(where, NULL, texts->n, &place));
            LRD_TRY(read_text(place, "text", true, json_array_get(json, texts->n),
                              &texts->text[texts->n]));
        }
    }
    *texts_out = *texts;
    *texts = (lrd_texts_t){0};
out:
    lrd_free(place);
    lrd_setting_release(info, &value);
    return status;
}

static lrd_status_t read_integers(const lrd_setting_info_t *info, const char *where,
                                  const json_t *json, lrd_integers_t *integers_out)
{
    lrd_status_t status = LRD_OK;
    lrd_integers_t integers = {0};
    char *place = NULL;
    const size_t n = json_is_array(json) ? json_array_size(json) : 1;
    LRD_TRY(check_entries(where, n, info->not_empty));
    LRD_NEW(integers.value, n);
    if (!json_is_array(json)) {
        LRD_TRY(read_integer(info, where, expected_text[info->kind], json, &integers.value[0]));
    }
    for (size_t i = 0; i < json_array_size(json); i++) {
        lrd_free(place);
        place = NULL;
        LRD_TRY(entry_place(where, NULL, i, &place));
        LRD_TRY(read_integer(info, place, "a whole number", json_array_get(json, i),
                             &integers.value[i]));
    }
    integers.n = n;
    *integers_out = integers;
    integers.value = NULL;
out:
    lrd_free(place);
    lrd_free(integers.value);
    return status;
}

static lrd_status_t read_patterns(const lrd_setting_info_t *info, const char *where,
                                  const json_t *json, lrd_patterns_t *patterns_out)
{
    lrd_status_t status = LRD_OK;
    lrd_setting_value_t value = {.REAL_MAP = {0}};
    lrd_patterns_t *patterns = &value.REAL_MAP;
    char *place = NULL;
    const char *name;
    json_t *number;
    if (!json_is_object(json)) {
        status = fail_type(where, expected_text[info->kind], json);
        goto out;
    }
    LRD_TRY(check_entries(where, json_object_size(json), info->not_empty));
    LRD_NEW(patterns->entry, json_object_size(json));
    json_object_foreach((json_t *)json, name, number)
    {
        struct lrd_pattern *entry = &patterns->entry[patterns->n];
        lrd_free(place);
        place = NULL;
        LRD_TRY(entry_place(where, name, 0, &place));
        if (info->kind == LRD_KIND_INTEGER_MAP) {
            int64_t whole = 0;
            LRD_TRY(read_integer(info, place, "a whole number", number, &whole));
            entry->value = (double)whole;
        } else {
            LRD_TRY(read_real(info, place, "a number", number, &entry->value));
        }
        LRD_ALLOC(entry->text, lrd_strdup(name));
        patterns->n++;
    }
    *patterns_out = *patterns;
    *patterns = (lrd_patterns_t){0};
out:
    lrd_free(place);
    lrd_setting_release(info, &value);
    return status;
}

static lrd_status_t read_resume(const char *where, const json_t *json, lrd_resume_t *resume_out)
{
    lrd_status_t status = LRD_OK;
    lrd_resume_t resume = {0};
    if (json_is_boolean(json)) {
        resume.kind = json_is_true(json) ? LRD_RESUME_NEWEST : LRD_RESUME_NEVER;
    } else {
        resume.kind = LRD_RESUME_FOLDER;
        LRD_TRY(read_text(where, expected_text[LRD_KIND_RESUME], true, json, &resume.folder));
    }
    *resume_out = resume;
out:
    return status;
}

/* A number from 0, "cpu" or "disk", as text. False: it is none of these. */
static bool parse_device(const char *text, int64_t *device_out)
{
    int64_t device = 0;
    if (strcmp(text, "cpu") == 0) {
        *device_out = LRD_DEVICE_CPU;
        return true;
    }
    if (strcmp(text, "disk") == 0) {
        *device_out = LRD_DEVICE_DISK;
        return true;
    }
    const size_t n = strlen(text);
    if (n == 0 || n > 6 || (text[0] == '0' && n > 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        device = device * 10 + (text[i] - '0');
    }
    *device_out = device;
    return true;
}

static lrd_status_t read_device_entries(const char *where, const json_t *json,
                                        lrd_device_map_t *map)
{
    lrd_status_t status = LRD_OK;
    const char *module;
    json_t *device;
    char *place = NULL;
    LRD_TRY(check_entries(where, json_object_size(json), true));
    LRD_NEW(map->entry, json_object_size(json));
    map->kind = LRD_DEVICE_MAP_EXPLICIT;
    json_object_foreach((json_t *)json, module, device)
    {
        struct lrd_device_map_entry *entry = &map->entry[map->n];
        char text[24] = "";
        lrd_free(place);
        place = NULL;
        LRD_TRY(entry_place(where, module, 0, &place));
        if (json_is_integer(device))
            snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(device));
        const char *name = json_is_string(device) ? json_string_value(device) : text;
        if (!parse_device(name, &entry->device)) {
            status = fail_type(place, "the number of a device, cpu or disk", device);
            goto out;
        }
        LRD_ALLOC(entry->module, lrd_strdup(module));
        map->n++;
    }
out:
    lrd_free(place);
    return status;
}

static lrd_status_t read_device_map(const lrd_setting_info_t *info, const char *where,
                                    const json_t *json, lrd_device_map_t *map_out)
{
    static const char *const names[] = {"auto", "balanced", "sequential"};
    lrd_status_t status = LRD_OK;
    lrd_setting_value_t value = {.DEVICE_MAP = {0}};
    if (json_is_object(json)) {
        LRD_TRY(read_device_entries(where, json, &value.DEVICE_MAP));
    } else {
        int kind = 0;
        while (kind < 3 && (!json_is_string(json) || strcmp(json_string_value(json), names[kind])))
            kind++;
        if (kind == 3) {
            status = fail_type(where, expected_text[info->kind], json);
            goto out;
        }
        value.DEVICE_MAP.kind = (enum lrd_device_map_kind)kind;
    }
    *map_out = value.DEVICE_MAP;
    value.DEVICE_MAP = (lrd_device_map_t){0};
out:
    lrd_setting_release(info, &value);
    return status;
}

/* "24GiB", "1.5TB", "800 MB": bytes. False: it is no size. */
static bool parse_size(const char *text, int64_t *bytes_out)
{
    static const struct {
        const char *name;
        double bytes;
    } unit[] = {
        {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12},
        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
    };
    const size_t digits = strspn(text, "0123456789.");
    char *end;
    if (digits == 0 || digits > 20)
        return false;
    const double number = strtod(text, &end); /* stops at the unit: none begins like an exponent */
    if (end != text + digits)
        return false;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof unit / sizeof unit[0]; i++) {
        const double bytes = number * unit[i].bytes;
        if (strcmp(end, unit[i].name) == 0 && bytes >= 1 && bytes < 0x1p62) {
            *bytes_out = (int64_t)bytes;
            return true;
        }
    }
    return false;
}

static lrd_status_t read_memory_entry(const char *where, const char *device, size_t i,
                                      const json_t *size, struct lrd_max_memory_entry *entry_out)
{
    lrd_status_t status = LRD_OK;
    struct lrd_max_memory_entry entry = {.device = (int64_t)i};
    char *place = NULL;
    LRD_TRY(entry_place(where, device, i, &place));
    LRD_CHECK(device == NULL || parse_device(device, &entry.device), LRD_ERR_CONFIG,
              "%s: expected the number of a device, cpu or disk, got \"%.80s\"", where, device);
    if (json_is_integer(size) && json_integer_value(size) > 0) {
        entry.bytes = json_integer_value(size);
    } else if (!json_is_string(size) || !parse_size(json_string_value(size), &entry.bytes)) {
        status = fail_type(place, "a size such as 24GiB or 800MB", size);
        goto out;
    }
    *entry_out = entry;
out:
    lrd_free(place);
    return status;
}

static lrd_status_t read_max_memory(const lrd_setting_info_t *info, const char *where,
                                    const json_t *json, lrd_max_memory_t *memory_out)
{
    lrd_status_t status = LRD_OK;
    lrd_max_memory_t memory = {0};
    const char *device;
    json_t *size;
    if (!json_is_array(json) && !json_is_object(json)) {
        status = fail_type(where, expected_text[info->kind], json);
        goto out;
    }
    const size_t n = json_is_array(json) ? json_array_size(json) : json_object_size(json);
    LRD_TRY(check_entries(where, n, true));
    LRD_NEW(memory.entry, n);
    for (; memory.n < json_array_size(json); memory.n++)
        LRD_TRY(read_memory_entry(where, NULL, memory.n, json_array_get(json, memory.n),
                                  &memory.entry[memory.n]));
    json_object_foreach((json_t *)json, device, size)
    {
        LRD_TRY(read_memory_entry(where, device, memory.n, size, &memory.entry[memory.n]));
        memory.n++;
    }
    *memory_out = memory;
    memory.entry = NULL;
out:
    lrd_free(memory.entry);
    return status;
}

static lrd_status_t read_auto_integer(const lrd_setting_info_t *info, const char *where,
                                      const json_t *json, int64_t *value_out)
{
    if (json_is_string(json) && strcmp(json_string_value(json), "auto") == 0) {
        *value_out = LRD_SETTING_AUTO;
        return LRD_OK;
    }
    return read_integer(info, where, expected_text[info->kind], json, value_out);
}

lrd_status_t lrd_setting_from_json(const lrd_setting_info_t *info, const json_t *json,
                                   const char *where, lrd_setting_value_t *value_out)
{
    const char *expected = expected_text[info->kind];
    if (json_is_null(json)) {
        memset(value_out, 0, sizeof *value_out);
        if (info->kind == LRD_KIND_NULL_INTEGER)
            value_out->NULL_INTEGER = LRD_SETTING_NULL;
        return LRD_OK;
    }
    switch (info->kind) {
    case LRD_KIND_TEXT:
        return read_text(where, expected, info->not_empty, json, &value_out->TEXT);
    case LRD_KIND_INTEGER:
    case LRD_KIND_NULL_INTEGER:
        return read_integer(info, where, expected, json, &value_out->INTEGER);
    case LRD_KIND_AUTO_INTEGER:
        return read_auto_integer(info, where, json, &value_out->AUTO_INTEGER);
    case LRD_KIND_REAL:
        return read_real(info, where, expected, json, &value_out->REAL);
    case LRD_KIND_BOOLEAN:
        if (!json_is_boolean(json))
            return fail_type(where, expected, json);
        value_out->BOOLEAN = json_is_true(json);
        return LRD_OK;
    case LRD_KIND_CHOICE:
        return read_choice(info, where, json, &value_out->CHOICE);
    case LRD_KIND_TEXTS:
        return read_texts(info, where, json, &value_out->TEXTS);
    case LRD_KIND_INTEGERS:
        return read_integers(info, where, json, &value_out->INTEGERS);
    case LRD_KIND_INTEGER_MAP:
    case LRD_KIND_REAL_MAP:
        return read_patterns(info, where, json, &value_out->REAL_MAP);
    case LRD_KIND_RESUME:
        return read_resume(where, json, &value_out->RESUME);
    case LRD_KIND_DEVICE_MAP:
        return read_device_map(info, where, json, &value_out->DEVICE_MAP);
    case LRD_KIND_MAX_MEMORY:
        return read_max_memory(info, where, json, &value_out->MAX_MEMORY);
    }
    return LRD_ERR_INTERNAL;
}
