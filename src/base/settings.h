/* base/settings.h -- the settings of a run: one YAML file, five sections, one typed table.
 *
 * Every key stands once, in base/settings_table.h: section, name, kind, default, bounds, help. The
 * structs below, the defaults, the parser's key list, the bounds checks, the help text and
 * docs/configuration.md are all made from it.
 *
 *   lrd_settings_t *s = NULL;
 *   LRD_TRY(lrd_settings_read("squad.yaml", &s));
 *   LRD_TRY(lrd_settings_set(s, "training.max_steps=10"));
 *   LRD_TRY(lrd_settings_check(s));
 *   ... s->training.max_steps ...
 * out:
 *   lrd_settings_free(s);
 *
 * Reading prints nothing and depends on nothing but the text, so that every rank may read the same
 * file. Failures are LRD_ERR_CONFIG unless said otherwise, and their text names file, line and key.
 */
#ifndef LRD_BASE_SETTINGS_H
#define LRD_BASE_SETTINGS_H

#include "base/buf.h"
#include "base/json_writer.h"
#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an integer setting holds in place of a number. */
enum {
    LRD_SETTING_NULL = -1, /* nothing written, and the default is null */
    LRD_SETTING_AUTO = -2  /* "auto" */
};

/* Named values of settings. Enumerators index the names in the order given. */
#define LRD_MODEL_DTYPE_LIST(X)           \
    X(LRD_MODEL_DTYPE_AUTO, "auto")       \
    X(LRD_MODEL_DTYPE_FLOAT32, "float32") \
    X(LRD_MODEL_DTYPE_FLOAT16, "float16") \
    X(LRD_MODEL_DTYPE_BFLOAT16, "bfloat16")
#define LRD_LORA_BIAS_LIST(X) X(LRD_LORA_BIAS_NONE, "none")
#define LRD_LORA_INIT_LIST(X)       \
    X(LRD_LORA_INIT_TRUE, "true")   \
    X(LRD_LORA_INIT_FALSE, "false") \
    X(LRD_LORA_INIT_GAUSSIAN, "gaussian")
#define LRD_FORMAT_LIST(X)       \
    X(LRD_FORMAT_SQUAD, "squad") \
    X(LRD_FORMAT_JSONL, "jsonl") \
    X(LRD_FORMAT_TOKENIZED, "tokenized")
#define LRD_LOSS_ON_LIST(X)   \
    X(LRD_LOSS_ON_ALL, "all") \
    X(LRD_LOSS_ON_ANSWER, "answer")
#define LRD_TOO_LONG_LIST(X)       \
    X(LRD_TOO_LONG_ERROR, "error") \
    X(LRD_TOO_LONG_DROP, "drop")   \
    X(LRD_TOO_LONG_TRUNCATE_CONTEXT, "truncate_context")
#define LRD_SCHEDULE_LIST(X)             \
    X(LRD_SCHEDULE_LINEAR, "linear")     \
    X(LRD_SCHEDULE_COSINE, "cosine")     \
    X(LRD_SCHEDULE_CONSTANT, "constant") \
    X(LRD_SCHEDULE_CONSTANT_WITH_WARMUP, "constant_with_warmup")
#define LRD_CHECKPOINTING_LIST(X)               \
    X(LRD_CHECKPOINTING_NONE, "none")           \
    X(LRD_CHECKPOINTING_ATTENTION, "attention") \
    X(LRD_CHECKPOINTING_BLOCK, "block")         \
    X(LRD_CHECKPOINTING_AUTO, "auto")
#define LRD_METRIC_LIST(X)       \
    X(LRD_METRIC_LOSS, "loss")   \
    X(LRD_METRIC_EXACT, "exact") \
    X(LRD_METRIC_F1, "f1")
#define LRD_REDUCTION_LIST(X)                     \
    X(LRD_REDUCTION_REPRODUCIBLE, "reproducible") \
    X(LRD_REDUCTION_FAST, "fast")
#define LRD_SHARES_LIST(X)     \
    X(LRD_SHARES_AUTO, "auto") \
    X(LRD_SHARES_EVEN, "even")
#define LRD_TRANSPORT_LIST(X)     \
    X(LRD_TRANSPORT_AUTO, "auto") \
    X(LRD_TRANSPORT_NCCL, "nccl") \
    X(LRD_TRANSPORT_MPI, "mpi")

#define X(name, text) name,
typedef enum lrd_model_dtype { LRD_MODEL_DTYPE_LIST(X) } lrd_model_dtype_t;
typedef enum lrd_lora_bias { LRD_LORA_BIAS_LIST(X) } lrd_lora_bias_t;
typedef enum lrd_lora_init { LRD_LORA_INIT_LIST(X) } lrd_lora_init_t;
typedef enum lrd_format { LRD_FORMAT_LIST(X) } lrd_format_t;
typedef enum lrd_loss_on { LRD_LOSS_ON_LIST(X) } lrd_loss_on_t;
typedef enum lrd_too_long { LRD_TOO_LONG_LIST(X) } lrd_too_long_t;
typedef enum lrd_schedule { LRD_SCHEDULE_LIST(X) } lrd_schedule_t;
typedef enum lrd_checkpointing { LRD_CHECKPOINTING_LIST(X) } lrd_checkpointing_t;
typedef enum lrd_metric { LRD_METRIC_LIST(X) } lrd_metric_t;
typedef enum lrd_reduction { LRD_REDUCTION_LIST(X) } lrd_reduction_t;
typedef enum lrd_shares_choice { LRD_SHARES_LIST(X) } lrd_shares_choice_t;
typedef enum lrd_transport { LRD_TRANSPORT_LIST(X) } lrd_transport_t;
#undef X

/* A list of texts, or one text that stands for itself: a regular expression or "all-linear".
 * n == 0: null (or, where the table allows it, an empty list). */
typedef struct lrd_texts {
    char **text;
    size_t n;
    bool is_single; /* written as a text, not as a list of one: n == 1 */
} lrd_texts_t;

/* A list of whole numbers; one number alone is a list of one. n == 0: null. */
typedef struct lrd_integers {
    int64_t *value;
    size_t n;
} lrd_integers_t;

/* Pattern -> number, in the order written: the first that matches wins. */
typedef struct lrd_patterns {
    struct lrd_pattern {
        char *text;
        double value; /* a whole number in rank_pattern */
    } * entry;
    size_t n;
} lrd_patterns_t;

typedef struct lrd_resume {
    enum lrd_resume_kind {
        LRD_RESUME_INTERRUPTED, /* null: where an interrupted run of the same settings left off */
        LRD_RESUME_NEWEST,      /* true */
        LRD_RESUME_NEVER,       /* false */
        LRD_RESUME_FOLDER
    } kind;
    char *folder; /* of LRD_RESUME_FOLDER; else NULL */
} lrd_resume_t;

/* Devices that have no number. */
enum { LRD_DEVICE_CPU = -1, LRD_DEVICE_DISK = -2 };

typedef struct lrd_device_map {
    enum lrd_device_map_kind {
        LRD_DEVICE_MAP_AUTO,
        LRD_DEVICE_MAP_BALANCED,
        LRD_DEVICE_MAP_SEQUENTIAL,
        LRD_DEVICE_MAP_EXPLICIT
    } kind;
    struct lrd_device_map_entry {
        char *module;   /* "transformer.h.3"; "" stands for the whole model */
        int64_t device; /* a number, LRD_DEVICE_CPU or LRD_DEVICE_DISK */
    } * entry;          /* of LRD_DEVICE_MAP_EXPLICIT, in the order written; else NULL */
    size_t n;
} lrd_device_map_t;

/* n == 0: null, no limit but what the devices have. */
typedef struct lrd_max_memory {
    struct lrd_max_memory_entry {
        int64_t device; /* a number (a list's place), LRD_DEVICE_CPU or LRD_DEVICE_DISK */
        int64_t bytes;
    } * entry;
    size_t n;
} lrd_max_memory_t;

/* The C type of each kind of setting. Texts and lists are owned by the settings. */
typedef char *lrd_setting_TEXT_t;           /* NULL: null */
typedef int64_t lrd_setting_INTEGER_t;      /* never null */
typedef int64_t lrd_setting_NULL_INTEGER_t; /* LRD_SETTING_NULL: null */
typedef int64_t lrd_setting_AUTO_INTEGER_t; /* LRD_SETTING_AUTO: auto */
typedef double lrd_setting_REAL_t;          /* finite */
typedef bool lrd_setting_BOOLEAN_t;
typedef int lrd_setting_CHOICE_t; /* one of the enumerators above */
typedef lrd_texts_t lrd_setting_TEXTS_t;
typedef lrd_integers_t lrd_setting_INTEGERS_t;
typedef lrd_patterns_t lrd_setting_INTEGER_MAP_t;
typedef lrd_patterns_t lrd_setting_REAL_MAP_t;
typedef lrd_resume_t lrd_setting_RESUME_t;
typedef lrd_device_map_t lrd_setting_DEVICE_MAP_t;
typedef lrd_max_memory_t lrd_setting_MAX_MEMORY_t;

/* lrd_model_settings_t, lrd_lora_settings_t, lrd_data_settings_t, lrd_training_settings_t,
 * lrd_parallel_settings_t: a member for each key of the section. */
#define LRD_SECTION(section, help)                           typedef struct lrd_##section##_settings {
#define LRD_SETTING(section, name, kind, value, limit, help) lrd_setting_##kind##_t name;
#define LRD_SECTION_END(section) \
    }                            \
    lrd_##section##_settings_t;
#include "base/settings_table.h"

/* LRD_KEY_training_max_steps and so on, in table order. */
typedef enum lrd_key {
#define LRD_SECTION(section, help)
#define LRD_SETTING(section, name, kind, value, limit, help) LRD_KEY_##section##_##name,
#define LRD_SECTION_END(section)
#include "base/settings_table.h"
    LRD_N_KEYS
} lrd_key_t;

typedef struct lrd_settings {
    lrd_model_settings_t model;
    lrd_lora_settings_t lora;
    lrd_data_settings_t data;
    lrd_training_settings_t training;
    lrd_parallel_settings_t parallel;
    char *name;            /* the file they were read from, for messages; NULL: none */
    int place[LRD_N_KEYS]; /* where the key was written: a line of the file, or one of below */
} lrd_settings_t;
enum { LRD_PLACE_DEFAULT = 0, LRD_PLACE_SET = -1, LRD_PLACE_JSON = -2 };

/* The defaults: those of peft.LoraConfig and transformers.TrainingArguments
 * where they have the key. */
lrd_status_t lrd_settings_create(lrd_settings_t **settings_out);
void lrd_settings_free(lrd_settings_t *settings); /* NULL is fine */

/* Reads one YAML document of at most 1 MiB: a map of sections, each a map of keys. Refused with
 * file, line and key: unknown keys and sections (with the nearest right one), repeated keys, values
 * of a wrong type or out of range, anchors, aliases, tags, several documents, nothing at all.
 * LRD_ERR_IO: the file cannot be read. A key whose value is null counts as not written. Rules
 * between keys are lrd_settings_check's. */
lrd_status_t lrd_settings_read(const char *path, lrd_settings_t **settings_out);

/* The same for text in memory; `name` stands for the file in messages. */
lrd_status_t lrd_settings_parse(const char *text, size_t bytes, const char *name,
                                lrd_settings_t **settings_out);

/* What lrd_settings_write_json wrote. Members that are not null count as written; keys that are
 * missing (the writer was an older version) have their defaults. */
lrd_status_t lrd_settings_read_json(const json_t *json, const char *name,
                                    lrd_settings_t **settings_out);

/* Applies "section.key=value", the value parsed as YAML; empty or null: the default again. Messages
 * name --set as the place. On failure the settings stay as they were. */
lrd_status_t lrd_settings_set(lrd_settings_t *settings, const char *assignment);

/* True when the key was written, in the file or with --set, and is not null. */
bool lrd_settings_written(const lrd_settings_t *settings, lrd_key_t key);

/* Fails unless the key was written: "squad.yaml: data.train_file is needed: ...". */
lrd_status_t lrd_settings_require(const lrd_settings_t *settings, lrd_key_t key);

/* The rules between keys (docs/configuration.md lists them).
 * What is allowed but without effect is an lrd_warn. */
lrd_status_t lrd_settings_check(const lrd_settings_t *settings);

/* All values as an object of sections, in table order. Errors are kept in the writer; the status
 * returned is its own or LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_settings_write_json(const lrd_settings_t *settings, lrd_json_writer_t *writer);

/* Calls `differs` for each key whose values differ, in table order;
 * values as compact JSON. LRD_ERR_NO_MEMORY only. */
typedef void lrd_settings_differs_t(void *user, lrd_key_t key, const char *value_a,
                                    const char *value_b);
lrd_status_t lrd_settings_compare(const lrd_settings_t *a, const lrd_settings_t *b,
                                  lrd_settings_differs_t *differs, void *user);

/* "training.max_steps". */
const char *lrd_key_name(lrd_key_t key);

/* Appends the reference in Markdown (docs/configuration.md), or the same in short for a terminal
 * (`lora-dist train --help`). */
lrd_status_t lrd_settings_print_reference(lrd_buf_t *buf);
lrd_status_t lrd_settings_print_help(lrd_buf_t *buf);

#endif /* LRD_BASE_SETTINGS_H */
