/* The way back: from settings to JSON, for checkpoints and for comparing two runs. */
#include "base/settings_private.h"

#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void lrd_setting_release(const lrd_setting_info_t *info, lrd_setting_value_t *value)
{
    switch (info->kind) {
    case LRD_KIND_TEXT:
        lrd_free(value->TEXT);
        break;
    case LRD_KIND_TEXTS:
        for (size_t i = 0; i < value->TEXTS.n; i++)
            lrd_free(value->TEXTS.text[i]);
        lrd_free(value->TEXTS.text);
        break;
    case LRD_KIND_INTEGERS:
        lrd_free(value->INTEGERS.value);
        break;
    case LRD_KIND_INTEGER_MAP:
    case LRD_KIND_REAL_MAP:
        for (size_t i = 0; i < value->REAL_MAP.n; i++)
            lrd_free(value->REAL_MAP.entry[i].text);
        lrd_free(value->REAL_MAP.entry);
        break;
    case LRD_KIND_RESUME:
        lrd_free(value->RESUME.folder);
        break;
    case LRD_KIND_DEVICE_MAP:
        for (size_t i = 0; i < value->DEVICE_MAP.n; i++)
            lrd_free(value->DEVICE_MAP.entry[i].module);
        lrd_free(value->DEVICE_MAP.entry);
        break;
    case LRD_KIND_MAX_MEMORY:
        lrd_free(value->MAX_MEMORY.entry);
        break;
    default:
        break;
    }
    memset(value, 0, sizeof *value);
}

static json_t *device_to_json(int64_t device)
{
    if (device >= 0)
        return json_integer(device);
    return json_string(device == LRD_DEVICE_CPU ? "cpu" : "disk");
}

static json_t *texts_to_json(const lrd_texts_t *texts)
{
    if (texts->is_single)
        return json_string(texts->text[0]);
    if (texts->text == NULL)
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < texts->n; i++) {
        if (json_array_append_new(list, json_string(texts->text[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *integers_to_json(const lrd_integers_t *integers)
{
    if (integers->value == NULL)
        return json_null();
    json_t *list = json_array();
    for (size_t i = 0; i < integers->n; i++) {
        if (json_array_append_new(list, json_integer(integers->value[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *patterns_to_json(const lrd_patterns_t *patterns, bool whole)
{
    json_t *map = json_object();
    for (size_t i = 0; i < patterns->n; i++) {
        const double value = patterns->entry[i].value;
        if (json_object_set_new(map, patterns->entry[i].text,
                                whole ? json_integer((json_int_t)value) : json_real(value)) != 0) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

static json_t *device_map_to_json(const lrd_device_map_t *devices)
{
    static const char *const names[] = {"auto", "balanced", "sequential"};
    if (devices->kind != LRD_DEVICE_MAP_EXPLICIT)
        return json_string(names[devices->kind]);
    json_t *map = json_object();
    for (size_t i = 0; i < devices->n; i++) {
        if (json_object_set_new(map, devices->entry[i].module,
                                device_to_json(devices->entry[i].device)) != 0) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

static json_t *max_memory_to_json(const lrd_max_memory_t *memory)
{
    if (memory->n == 0)
        return json_null();
    json_t *map = json_object();
    for (size_t i = 0; i < memory->n; i++) {
        char device[24];
        if (memory->entry[i].device >= 0)
            snprintf(device, sizeof device, "%" PRId64, memory->entry[i].device);
        else
            snprintf(device, sizeof device, "%s",
                     memory->entry[i].device == LRD_DEVICE_CPU ? "cpu" : "disk");
        if (json_object_set_new(map, device, json_integer(memory->entry[i].bytes)) != 0) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

static json_t *resume_to_json(const lrd_resume_t *resume)
{
    switch (resume->kind) {
    case LRD_RESUME_NEWEST:
        return json_true();
    case LRD_RESUME_NEVER:
        return json_false();
    case LRD_RESUME_FOLDER:
        return json_string(resume->folder);
    default:
        return json_null();
    }
}

/* NULL: out of memory. */
static json_t *to_json(const lrd_setting_info_t *info, const lrd_setting_value_t *value)
{
    switch (info->kind) {
    case LRD_KIND_TEXT:
        return value->TEXT != NULL ? json_string(value->TEXT) : json_null();
    case LRD_KIND_INTEGER:
        return json_integer(value->INTEGER);
    case LRD_KIND_NULL_INTEGER:
        return value->NULL_INTEGER != LRD_SETTING_NULL ? json_integer(value->NULL_INTEGER)
                                                       : json_null();
    case LRD_KIND_AUTO_INTEGER:
        return value->AUTO_INTEGER != LRD_SETTING_AUTO ? json_integer(value->AUTO_INTEGER)
                                                       : json_string("auto");
    case LRD_KIND_REAL:
        return json_real(value->REAL);
    case LRD_KIND_BOOLEAN:
        return json_boolean(value->BOOLEAN);
    case LRD_KIND_CHOICE:
        return json_string(info->choice[value->CHOICE]);
    case LRD_KIND_TEXTS:
        return texts_to_json(&value->TEXTS);
    case LRD_KIND_INTEGERS:
        return integers_to_json(&value->INTEGERS);
    case LRD_KIND_INTEGER_MAP:
    case LRD_KIND_REAL_MAP:
        return patterns_to_json(&value->REAL_MAP, info->kind == LRD_KIND_INTEGER_MAP);
    case LRD_KIND_RESUME:
        return resume_to_json(&value->RESUME);
    case LRD_KIND_DEVICE_MAP:
        return device_map_to_json(&value->DEVICE_MAP);
    case LRD_KIND_MAX_MEMORY:
        return max_memory_to_json(&value->MAX_MEMORY);
    }
    return NULL;
}

lrd_status_t lrd_setting_to_json(const lrd_setting_info_t *info, const lrd_setting_value_t *value,
                                 json_t **json_out)
{
    lrd_status_t status = LRD_OK;
    LRD_ALLOC(*json_out, to_json(info, value));
out:
    return status;
}

lrd_status_t lrd_settings_write_json(const lrd_settings_t *settings, lrd_json_writer_t *writer)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    const char *section = NULL;
    lrd_json_open(writer, '{');
    for (int i = 0; i < LRD_N_KEYS; i++) {
        const lrd_setting_info_t *info = &lrd_setting_info[i];
        if (section == NULL || strcmp(section, info->section) != 0) {
            if (section != NULL)
                lrd_json_close(writer, '}');
            section = info->section;
            lrd_json_key(writer, section);
            lrd_json_open(writer, '{');
        }
        const lrd_setting_value_t value = lrd_setting_get(settings, i);
        LRD_TRY(lrd_setting_to_json(info, &value, &json));
        lrd_json_key(writer, info->name);
        lrd_json_value(writer, json);
        json_decref(json);
        json = NULL;
    }
    lrd_json_close(writer, '}');
    lrd_json_close(writer, '}');
    LRD_TRY(lrd_json_writer_status(writer));
out:
    json_decref(json);
    return status;
}

/* One value as compact JSON. */
static lrd_status_t value_text(const lrd_settings_t *settings, lrd_key_t key, lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    lrd_json_writer_t writer = {.buf = buf, .utf8 = true};
    const lrd_setting_value_t value = lrd_setting_get(settings, key);
    LRD_TRY(lrd_setting_to_json(&lrd_setting_info[key], &value, &json));
    lrd_buf_clear(buf);
    lrd_json_value(&writer, json);
    LRD_TRY(lrd_json_writer_status(&writer));
out:
    json_decref(json);
    return status;
}

lrd_status_t lrd_settings_compare(const lrd_settings_t *a, const lrd_settings_t *b,
                                  lrd_settings_differs_t *differs, void *user)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text_a = {0}, text_b = {0};
    for (int i = 0; i < LRD_N_KEYS; i++) {
        LRD_TRY(value_text(a, i, &text_a));
        LRD_TRY(value_text(b, i, &text_b));
        if (strcmp(text_a.data, text_b.data) != 0)
            differs(user, i, text_a.data, text_b.data);
    }
out:
    lrd_buf_release(&text_a);
    lrd_buf_release(&text_b);
    return status;
}
