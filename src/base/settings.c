#include "base/settings.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/nearest.h"
#include "base/settings_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILE_BYTES = 1 << 20 };

const lrd_section_info_t lrd_section_info[LRD_N_SECTIONS] = {
#define LRD_SECTION(section, help) {#section, help},
#define LRD_SETTING(section, name, kind, value, limit, help)
#define LRD_SECTION_END(section)
#include "base/settings_table.h"
};

#define CHOICE_NAME(enumerator, text) text,
#define ANY                           .min = -INFINITY, .max = INFINITY
#define NOT_EMPTY                     ANY, .not_empty = true
#define AT_LEAST(a)                   .min = (a), .max = INFINITY
#define BETWEEN(a, b)                 .min = (a), .max = (b)
#define ABOVE(a)                      .min = (a), .max = INFINITY, .above_min = true
#define FROM_BELOW(a, b)              .min = (a), .max = (b), .below_max = true
#define ONE_OF(list)                \
    .choice = (const char *const[]) \
    {                               \
        list(CHOICE_NAME) NULL      \
    }
const lrd_setting_info_t lrd_setting_info[LRD_N_KEYS] = {
#define LRD_SECTION(section, help)
#define LRD_SETTING(section_, name_, kind_, value_, limit, help_) \
    {.section = #section_,                                        \
     .name = #name_,                                              \
     .full_name = #section_ "." #name_,                           \
     .default_text = value_,                                      \
     .help = help_,                                               \
     .kind = LRD_KIND_##kind_,                                    \
     .offset = offsetof(lrd_settings_t, section_.name_),          \
     limit},
#define LRD_SECTION_END(section)
#include "base/settings_table.h"
};

/* Keys of PEFT and transformers that people bring along, and what to write instead. */
static const struct {
    const char *section, *name, *advice;
} foreign[] = {
    {"lora", "use_dora", "DoRA is not supported"},
    {"lora", "modules_to_save", "training whole modules is not supported: the base stays frozen"},
    {"lora", "lora_bias", "biases are not supported"},
    {"lora", "fan_in_fan_out", "leave it out: BLOOM's layers are all linear"},
    {"lora", "layers_pattern", "leave it out: blocks are numbered by their place in the model"},
    {"lora", "task_type", "leave it out: it is always CAUSAL_LM"},
    {"lora", "peft_type", "leave it out: it is always LORA"},
    {"training", "fp16", "write model.dtype: float16"},
    {"training", "bf16", "write model.dtype: bfloat16"},
    {"training", "optim", "leave it out: the optimizer is always AdamW"},
    {"training", "eval_strategy", "leave it out: eval_steps says whether and when"},
    {"training", "save_strategy", "leave it out: save_steps says when"},
    {"training", "logging_strategy", "leave it out: logging_steps says when"},
    {"training", "report_to", "leave it out"},
};

int lrd_section_find(const char *section)
{
    for (int i = 0; i < LRD_N_SECTIONS; i++) {
        if (strcmp(lrd_section_info[i].name, section) == 0)
            return i;
    }
    return -1;
}

int lrd_key_find(const char *section, const char *name)
{
    for (int i = 0; i < LRD_N_KEYS; i++) {
        if (strcmp(lrd_setting_info[i].section, section) == 0 &&
            strcmp(lrd_setting_info[i].name, name) == 0)
            return i;
    }
    return -1;
}

const char *lrd_key_name(lrd_key_t key)
{
    return lrd_setting_info[key].full_name;
}

/* The first section that has a key of this name, or NULL. */
static const char *section_of_key(const char *name)
{
    for (int i = 0; i < LRD_N_KEYS; i++) {
        if (strcmp(lrd_setting_info[i].name, name) == 0)
            return lrd_setting_info[i].section;
    }
    return NULL;
}

lrd_status_t lrd_section_unknown(const char *where, const char *section)
{
    lrd_status_t status = LRD_OK;
    const char *names[LRD_N_SECTIONS];
    for (int i = 0; i < LRD_N_SECTIONS; i++)
        names[i] = lrd_section_info[i].name;
    const char *of_key = section_of_key(section);
    LRD_CHECK(of_key == NULL, LRD_ERR_CONFIG,
              "%s: %.80s: unknown section; %s is a key of the section %s", where, section, section,
              of_key);
    const char *meant = lrd_nearest(section, names, LRD_N_SECTIONS);
    LRD_CHECK(meant == NULL, LRD_ERR_CONFIG, "%s: %.80s: unknown section; did you mean %s?", where,
              section, meant);
    LRD_FAIL(LRD_ERR_CONFIG,
             "%s: %.80s: unknown section; there are model, lora, data, training, parallel", where,
             section);
out:
    return status;
}

lrd_status_t lrd_key_unknown(const char *where, const char *section, const char *name)
{
    lrd_status_t status = LRD_OK;
    const char *names[LRD_N_KEYS];
    size_t n = 0;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        if (strcmp(foreign[i].section, section) == 0 && strcmp(foreign[i].name, name) == 0)
            LRD_FAIL(LRD_ERR_CONFIG, "%s: %s.%s: unknown key; %s", where, section, name,
                     foreign[i].advice);
    }
    const char *elsewhere = section_of_key(name);
    LRD_CHECK(elsewhere == NULL, LRD_ERR_CONFIG,
              "%s: %s.%.80s: unknown key; %s belongs to the section %s", where, section, name, name,
              elsewhere);
    for (int i = 0; i < LRD_N_KEYS; i++) {
        if (strcmp(lrd_setting_info[i].section, section) == 0)
            names[n++] = lrd_setting_info[i].name;
    }
    const char *meant = lrd_nearest(name, names, n);
    LRD_CHECK(meant == NULL, LRD_ERR_CONFIG, "%s: %s.%.80s: unknown key; did you mean %s?", where,
              section, name, meant);
    for (int i = 0; i < LRD_N_KEYS; i++)
        names[i] = lrd_setting_info[i].name;
    meant = lrd_nearest(name, names, LRD_N_KEYS);
    LRD_CHECK(meant == NULL, LRD_ERR_CONFIG, "%s: %s.%.80s: unknown key; did you mean %s.%s?",
              where, section, name, section_of_key(meant), meant);
    LRD_FAIL(LRD_ERR_CONFIG, "%s: %s.%.80s: unknown key (lora-dist train --help lists them)", where,
             section, name);
out:
    return status;
}

static size_t value_bytes(lrd_setting_kind_t kind)
{
    static const size_t bytes[] = {
#define X(kind, expected) sizeof(lrd_setting_##kind##_t),
        LRD_SETTING_KIND_LIST(X)
#undef X
    };
    return bytes[kind];
}

lrd_setting_value_t lrd_setting_get(const lrd_settings_t *settings, lrd_key_t key)
{
    lrd_setting_value_t value;
    memcpy(&value, (const char *)settings + lrd_setting_info[key].offset,
           value_bytes(lrd_setting_info[key].kind));
    return value;
}

static void put_value(lrd_settings_t *settings, lrd_key_t key, const lrd_setting_value_t *value)
{
    memcpy((char *)settings + lrd_setting_info[key].offset, value,
           value_bytes(lrd_setting_info[key].kind));
}

/* The table's defaults are unquoted scalars, an empty map apart: no YAML parser is needed. */
static lrd_status_t default_value(const lrd_setting_info_t *info, lrd_setting_value_t *value_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    const char *text = info->default_text;
    if (strcmp(text, "{}") == 0)
        LRD_ALLOC(json, json_object());
    else
        LRD_TRY(lrd_yaml_scalar(text, strlen(text), info->full_name, &json));
    LRD_TRY(lrd_setting_from_json(info, json, info->full_name, value_out));
out:
    json_decref(json);
    return status;
}

lrd_status_t lrd_setting_assign(lrd_settings_t *settings, lrd_key_t key, const json_t *json,
                                const char *where, int place)
{
    lrd_status_t status = LRD_OK;
    const lrd_setting_info_t *info = &lrd_setting_info[key];
    lrd_setting_value_t value;
    if (json_is_null(json)) {
        LRD_TRY(default_value(info, &value));
        place = LRD_PLACE_DEFAULT;
    } else {
        LRD_TRY(lrd_setting_from_json(info, json, where, &value));
    }
    lrd_setting_value_t old = lrd_setting_get(settings, key);
    lrd_setting_release(info, &old);
    put_value(settings, key, &value);
    settings->place[key] = place;
out:
    return status;
}

lrd_status_t lrd_settings_create(lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *s = NULL;
    LRD_NEW(s, 1);
    for (int i = 0; i < LRD_N_KEYS; i++) {
        lrd_setting_value_t value;
        LRD_TRY(default_value(&lrd_setting_info[i], &value));
        put_value(s, i, &value);
    }
    *settings_out = s;
    s = NULL;
out:
    lrd_settings_free(s);
    return status;
}

void lrd_settings_free(lrd_settings_t *settings)
{
    if (settings == NULL)
        return;
    for (int i = 0; i < LRD_N_KEYS; i++) {
        lrd_setting_value_t value = lrd_setting_get(settings, i);
        lrd_setting_release(&lrd_setting_info[i], &value);
    }
    lrd_free(settings->name);
    lrd_free(settings);
}

lrd_status_t lrd_settings_parse(const char *text, size_t bytes, const char *name,
                                lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *s = NULL;
    LRD_TRY(lrd_settings_create(&s));
    LRD_ALLOC(s->name, lrd_strdup(name));
    LRD_CHECK(bytes <= MAX_FILE_BYTES, LRD_ERR_CONFIG,
              "%s: %zu bytes of settings, more than the %d that are read", name, bytes,
              MAX_FILE_BYTES);
    LRD_TRY(lrd_yaml_settings(text, bytes, name, s));
    *settings_out = s;
    s = NULL;
out:
    lrd_settings_free(s);
    return status;
}

lrd_status_t lrd_settings_read(const char *path, lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    LRD_TRY(lrd_file_read(path, MAX_FILE_BYTES, &buf));
    LRD_TRY(lrd_settings_parse(buf.size > 0 ? buf.data : "", buf.size, path, settings_out));
out:
    lrd_buf_release(&buf);
    return status;
}

/* The members of one section. */
static lrd_status_t read_json_section(lrd_settings_t *s, const char *section, const json_t *json)
{
    lrd_status_t status = LRD_OK;
    char *where = NULL;
    const char *name;
    json_t *value;
    LRD_CHECK(json_is_object(json), LRD_ERR_CONFIG, "%s: %s: expected an object", s->name, section);
    json_object_foreach((json_t *)json, name, value)
    {
        const int key = lrd_key_find(section, name);
        if (key < 0)
            LRD_TRY(lrd_key_unknown(s->name, section, name));
        lrd_free(where);
        LRD_ALLOC(where, lrd_asprintf("%s: %s", s->name, lrd_key_name(key)));
        LRD_TRY(lrd_setting_assign(s, key, value, where, LRD_PLACE_JSON));
    }
out:
    lrd_free(where);
    return status;
}

lrd_status_t lrd_settings_read_json(const json_t *json, const char *name,
                                    lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *s = NULL;
    const char *section;
    json_t *members;
    LRD_TRY(lrd_settings_create(&s));
    LRD_ALLOC(s->name, lrd_strdup(name));
    LRD_CHECK(json_is_object(json), LRD_ERR_CONFIG, "%s: expected an object of sections", name);
    json_object_foreach((json_t *)json, section, members)
    {
        if (lrd_section_find(section) < 0)
            LRD_TRY(lrd_section_unknown(name, section));
        LRD_TRY(read_json_section(s, section, members));
    }
    *settings_out = s;
    s = NULL;
out:
    lrd_settings_free(s);
    return status;
}

lrd_status_t lrd_settings_set(lrd_settings_t *settings, const char *assignment)
{
    lrd_status_t status = LRD_OK;
    char *section = NULL, *where = NULL;
    json_t *json = NULL;
    const char *equals = strchr(assignment, '=');
    LRD_CHECK(equals != NULL, LRD_ERR_CONFIG,
              "--set %.80s: expected section.key=value, such as training.max_steps=10", assignment);
    LRD_ALLOC(section, lrd_strndup(assignment, (size_t)(equals - assignment)));
    char *name = strchr(section, '.');
    if (name == NULL) {
        const char *of_key = section_of_key(section);
        LRD_CHECK(of_key == NULL, LRD_ERR_CONFIG, "--set %s: did you mean %s.%s=%s?", section,
                  of_key, section, equals + 1);
        LRD_FAIL(LRD_ERR_CONFIG,
                 "--set %.80s: expected section.key=value, such as training.max_steps=10",
                 assignment);
    }
    *name++ = '\0';
    if (lrd_section_find(section) < 0)
        LRD_TRY(lrd_section_unknown("--set", section));
    const int key = lrd_key_find(section, name);
    if (key < 0)
        LRD_TRY(lrd_key_unknown("--set", section, name));
    LRD_ALLOC(where, lrd_asprintf("--set %s", lrd_key_name(key)));
    LRD_TRY(lrd_yaml_value(equals + 1, strlen(equals + 1), where, &json));
    LRD_TRY(lrd_setting_assign(settings, key, json, where, LRD_PLACE_SET));
out:
    json_decref(json);
    lrd_free(where);
    lrd_free(section);
    return status;
}

bool lrd_settings_written(const lrd_settings_t *settings, lrd_key_t key)
{
    return settings->place[key] != LRD_PLACE_DEFAULT;
}

lrd_status_t lrd_settings_require(const lrd_settings_t *settings, lrd_key_t key)
{
    lrd_status_t status = LRD_OK;
    const lrd_setting_info_t *info = &lrd_setting_info[key];
    if (lrd_settings_written(settings, key))
        goto out;
    LRD_FAIL(LRD_ERR_CONFIG, "%s%s%s is needed: write %s in the section %s, or --set %s=...",
             settings->name != NULL ? settings->name : "", settings->name != NULL ? ": " : "",
             info->full_name, info->name, info->section, info->full_name);
out:
    return status;
}
