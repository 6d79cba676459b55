/* base/settings_private.h -- what the source files of base/settings.h share,
 * and nobody else includes. */
#ifndef LRD_BASE_SETTINGS_PRIVATE_H
#define LRD_BASE_SETTINGS_PRIVATE_H

#include "base/settings.h"

/* Every kind, and what messages expect of a value. */
#define LRD_SETTING_KIND_LIST(X)                                               \
    X(TEXT, "text")                                                            \
    X(INTEGER, "a whole number")                                               \
    X(NULL_INTEGER, "a whole number or null")                                  \
    X(AUTO_INTEGER, "a whole number or auto")                                  \
    X(REAL, "a number")                                                        \
    X(BOOLEAN, "true or false")                                                \
    X(CHOICE, "one of the names")                                              \
    X(TEXTS, "a list of names or a single text")                               \
    X(INTEGERS, "a whole number or a list of them")                            \
    X(INTEGER_MAP, "a map of patterns to whole numbers")                       \
    X(REAL_MAP, "a map of patterns to numbers")                                \
    X(RESUME, "true, false or a folder")                                       \
    X(DEVICE_MAP, "auto, balanced, sequential or a map of modules to devices") \
    X(MAX_MEMORY, "a list of sizes such as 24GiB, or a map of devices to sizes")

typedef enum lrd_setting_kind {
#define X(kind, expected) LRD_KIND_##kind,
    LRD_SETTING_KIND_LIST(X)
#undef X
} lrd_setting_kind_t;

/* A value of any kind. */
typedef union lrd_setting_value {
#define X(kind, expected) lrd_setting_##kind##_t kind;
    LRD_SETTING_KIND_LIST(X)
#undef X
} lrd_setting_value_t;

enum { LRD_N_SECTIONS = 5, LRD_SETTING_MAX_ENTRIES = 4096 /* of a list or map */ };

typedef struct lrd_section_info {
    const char *name, *help;
} lrd_section_info_t;

/* A row of base/settings_table.h. */
typedef struct lrd_setting_info {
    const char *section, *name, *full_name, *default_text, *help;
    lrd_setting_kind_t kind;
    size_t offset;             /* in lrd_settings_t */
    double min, max;           /* of numbers */
    bool above_min, below_max; /* the bound itself is excluded */
    bool not_empty;            /* texts and lists */
    const char *const *choice; /* of CHOICE, NULL-terminated */
} lrd_setting_info_t;

extern const lrd_section_info_t lrd_section_info[LRD_N_SECTIONS];
extern const lrd_setting_info_t lrd_setting_info[LRD_N_KEYS];

/* Negative: there is none. */
int lrd_section_find(const char *section);
int lrd_key_find(const char *section, const char *name);

/* Records that there is no such section, or no such key in a section that exists, and names the one
 * that was probably meant. `where` stands before it: "squad.yaml:12", or "--set". */
lrd_status_t lrd_section_unknown(const char *where, const char *section);
lrd_status_t lrd_key_unknown(const char *where, const char *section, const char *name);

/* settings = the value that `json` says, null being the default. `place` is kept in
 * settings->place. On failure the settings stay as they were. */
lrd_status_t lrd_setting_assign(lrd_settings_t *settings, lrd_key_t key, const json_t *json,
                                const char *where, int place);

/* From JSON to a setting's own type, checked; `where` stands in messages. JSON null gives the null
 * of the kind. The value is owned by the caller. */
lrd_status_t lrd_setting_from_json(const lrd_setting_info_t *info, const json_t *json,
                                   const char *where, lrd_setting_value_t *value_out);
/* The way back. LRD_ERR_NO_MEMORY only. */
lrd_status_t lrd_setting_to_json(const lrd_setting_info_t *info, const lrd_setting_value_t *value,
                                 json_t **json_out);
/* Frees what the value owns; it is the null of its kind then. */
void lrd_setting_release(const lrd_setting_info_t *info, lrd_setting_value_t *value);
/* The value of a key; what it points to stays the settings'. */
lrd_setting_value_t lrd_setting_get(const lrd_settings_t *settings, lrd_key_t key);

/* What is allowed beyond the kind: "1 to 65536", "above 0",
 * "at least 0 and below 1"; empty: all. */
void lrd_setting_limit_text(const lrd_setting_info_t *info, char text[96]);

/* YAML's meaning of an unquoted scalar: null, true or false, a whole number, a real number, or
 * else text. LRD_ERR_CONFIG: a number that is not finite or does not fit in 64 bits. */
lrd_status_t lrd_yaml_scalar(const char *text, size_t bytes, const char *where, json_t **json_out);
/* One value, as after "key: ". Nothing at all is null. */
lrd_status_t lrd_yaml_value(const char *text, size_t bytes, const char *where, json_t **json_out);
/* A settings file into settings that hold the defaults. */
lrd_status_t lrd_yaml_settings(const char *text, size_t bytes, const char *name,
                               lrd_settings_t *settings);

#endif /* LRD_BASE_SETTINGS_PRIVATE_H */
