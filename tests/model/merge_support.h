/* tests/model/merge_support.h -- merging as the command does it, and where its input is. */
#ifndef LRD_TEST_MERGE_SUPPORT_H
#define LRD_TEST_MERGE_SUPPORT_H

#include "lora/peft.h"
#include "model/merge.h"
#include "support/model_folder.h"
#include "support/test_support.h"

/* What a merge needs. */
typedef struct setting {
    lrd_settings_t *settings;
    lrd_model_config_t config;
    lrd_adapter_t *adapter;
    lrd_backend_t *backend;
    lrd_stream_t *stream;
} setting_t;

lrd_status_t setting_open(const char *model, const char *adapter, const char *backend,
                          setting_t *s);
void setting_close(setting_t *s);

/* stop may be NULL. */
lrd_status_t merge(const char *model, const char *adapter, const char *out, const char *backend,
                   const volatile sig_atomic_t *stop);

/* A path below a temporary folder; it lives until the program ends. */
const char *in(const char *folder, const char *name);

/* A folder of a case; NULL: not in this checkout. */
const char *case_folder(const char *name, const char *part);

/* A copy of post-layernorm's model, to be spoiled. */
const char *fresh_model(const char *name);

#endif /* LRD_TEST_MERGE_SUPPORT_H */
