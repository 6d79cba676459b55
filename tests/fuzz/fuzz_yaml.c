/* A run's settings as YAML through the reader, --set, the rules between keys and the writers.
 * Settings that were accepted read back equal from what was written of them. */
#include "fuzz/fuzz_target.h"

#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/settings.h"

#include <string.h>

enum { MAX_ASSIGNMENT = 4096 };

static void differs(void *user, lrd_key_t key, const char *value_a, const char *value_b)
{
    fprintf(stderr, "key %d: %s, then %s\n", (int)key, value_a, value_b);
    ++*(int *)user;
}

static void write_and_read(const lrd_settings_t *settings)
{
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf, .indent = 0};
    json_t *json = NULL;
    lrd_settings_t *again = NULL;
    int n_differences = 0;
    FUZZ_CHECK(lrd_settings_write_json(settings, &w) == LRD_OK);
    FUZZ_CHECK(lrd_json_writer_status(&w) == LRD_OK);
    FUZZ_CHECK(lrd_json_parse(buf.data, buf.size, "written", &json) == LRD_OK);
    FUZZ_CHECK(lrd_settings_read_json(json, "written", &again) == LRD_OK);
    FUZZ_CHECK(lrd_settings_compare(settings, again, differs, &n_differences) == LRD_OK);
    FUZZ_CHECK(n_differences == 0);
    lrd_settings_free(again);
    json_decref(json);
    lrd_buf_release(&buf);
}

static void read_file(const char *text, size_t bytes)
{
    lrd_settings_t *settings = NULL;
    const lrd_status_t status = lrd_settings_parse(text, bytes, "fuzz", &settings);
    if (status == LRD_OK) {
        write_and_read(settings);
        (void)lrd_settings_check(settings); /* either answer will do */
        lrd_settings_free(settings);
    } else {
        FUZZ_CHECK(status == LRD_ERR_CONFIG && settings == NULL);
        FUZZ_CHECK(strlen(lrd_error_text(status)) > 0);
    }
    lrd_error_clear();
}

/* The input as an argument of --set, which ends at its first NUL. */
static void read_assignment(const char *text, size_t bytes)
{
    char assignment[MAX_ASSIGNMENT + 1];
    lrd_settings_t *settings = NULL;
    if (bytes > MAX_ASSIGNMENT)
        return;
    if (bytes > 0)
        memcpy(assignment, text, bytes);
    assignment[bytes] = '\0';
    FUZZ_CHECK(lrd_settings_create(&settings) == LRD_OK);
    if (lrd_settings_set(settings, assignment) == LRD_OK)
        write_and_read(settings);
    lrd_settings_free(settings);
    lrd_error_clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_log_set_level(LRD_LOG_ERROR); /* warnings about accepted settings are of no interest */
    read_file((const char *)data, size);
    read_assignment((const char *)data, size);
    return 0;
}
