#include "merge_support.h"

#include "base/file.h"

#include <stdio.h>
#include <string.h>

lrd_status_t setting_open(const char *model, const char *adapter, const char *backend, setting_t *s)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_model_config_read(model, &s->config));
    LRD_TRY(lrd_peft_read_config(adapter, &s->settings));
    LRD_TRY(lrd_model_adapter_create(&s->config, &s->settings->lora, &s->adapter));
    LRD_TRY(lrd_backend_open(backend, &(lrd_backend_options_t){0, 1, NULL}, &s->backend));
    LRD_TRY(lrd_stream_create(s->backend, &s->stream));
out:
    return status;
}

void setting_close(setting_t *s)
{
    lrd_stream_destroy(s->stream);
    lrd_backend_close(s->backend);
    lrd_adapter_free(s->adapter);
    lrd_settings_free(s->settings);
}

lrd_status_t merge(const char *model, const char *adapter, const char *out, const char *backend,
                   const volatile sig_atomic_t *stop)
{
    lrd_status_t status = LRD_OK;
    setting_t s = {0};
    lrd_merge_t *m = NULL;
    LRD_TRY(setting_open(model, adapter, backend, &s));
    LRD_TRY(lrd_merge_open(&(lrd_merge_spec_t){model, adapter, out, model, adapter, &s.config,
                                               s.adapter, s.stream, stop},
                           &m));
    LRD_TRY(lrd_merge_write(m));
out:
    lrd_merge_close(m);
    setting_close(&s);
    return status;
}

const char *in(const char *folder, const char *name)
{
    char text[2048];
    const char *root = lrd_test_temporary("");
    snprintf(text, sizeof text, "%s/%s", folder, name);
    const size_t n = strlen(root);
    return strncmp(text, root, n) == 0 ? lrd_test_temporary(text + n) : NULL;
}

const char *case_folder(const char *name, const char *part)
{
    char path[256];
    snprintf(path, sizeof path, "runs/%s/%s", name, part);
    const char *committed = lrd_test_golden(path);
    if (lrd_folder_exists(committed))
        return committed;
    snprintf(path, sizeof path, "golden/%s/%s", name, part);
    return lrd_test_shared(path);
}

const char *fresh_model(const char *name)
{
    const char *folder = lrd_test_temporary(name);
    assert_ok(lrd_folder_remove(folder));
    test_copy_folder(case_folder("post-layernorm", "model"), folder);
    return folder;
}
