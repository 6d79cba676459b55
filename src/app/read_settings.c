/* Settings that are the same on all ranks. A file that they read differently (a copy per host), or a command line of
 * their own (mpirun's contexts), would train nonsense, or let them wait for each other for ever. */
#include "app/command.h"

#include "base/buf.h"
#include "base/mem.h"
#include "comm/alike.h"

#include <jansson.h>
#include <string.h>

/* A line for each key of a section, as lrd_alike_check reads them. */
static lrd_status_t add_section(const char *section, const json_t *keys, lrd_buf_t *facts)
{
    lrd_status_t status = LRD_OK;
    char *value = NULL;
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)keys, key, item)
    {
        LRD_ALLOC(value, json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT));
        LRD_TRY(lrd_buf_printf(facts, "%s.%s\t%s\n", section, key, value));
        lrd_free(value);
        value = NULL;
    }
out:
    lrd_free(value);
    return status;
}

static lrd_status_t make_facts(const lrd_settings_t *settings, lrd_buf_t *facts)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    lrd_json_writer_t w = {.buf = &text, .indent = -1};
    json_t *all = NULL, *keys;
    const char *section;
    LRD_TRY(lrd_settings_write_json(settings, &w));
    LRD_ALLOC(all, json_loadb(text.data, text.size, 0, NULL));
    json_object_foreach(all, section, keys) LRD_TRY(add_section(section, keys, facts));
out:
    json_decref(all);
    lrd_buf_release(&text);
    return status;
}

lrd_status_t lrd_read_settings(const lrd_app_t *app, lrd_settings_t **settings_out)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    lrd_buf_t facts = {0};
    LRD_TRY(lrd_agree(app->comm, lrd_cli_read_settings(app->cli, &settings)));
    LRD_TRY(lrd_agree(app->comm, make_facts(settings, &facts)));
    LRD_TRY(lrd_alike_check(app->comm, facts.data));
    *settings_out = settings;
    settings = NULL;
out:
    lrd_buf_release(&facts);
    lrd_settings_free(settings);
    return status;
}
