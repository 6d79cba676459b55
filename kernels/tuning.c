#include "kernels/tuning.h"

#include "base/json.h"
#include "base/json_writer.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 };

/* A text of an object, which must be there and fit. */
static lrd_status_t read_text(const json_t *object, const char *where, const char *key, char *text,
                              size_t size)
{
    lrd_status_t status = LRD_OK;
    const char *value;
    LRD_TRY(lrd_json_get_text(object, where, key, "", &value));
    const size_t n = strlen(value);
    LRD_CHECK(n > 0 && n < size, LRD_ERR_FORMAT, "%s: \"%s\" is %s", where, key,
              n == 0 ? "missing or empty" : "too long");
    memcpy(text, value, n + 1);
out:
    return status;
}

lrd_status_t lrd_tuning_read(const char *path, lrd_tuning_t *tuning_out)
{
    lrd_status_t status = LRD_OK;
    json_t *json = NULL;
    lrd_choice_t *choice = NULL;
    lrd_tuning_t tuning = {.n = 0};
    LRD_TRY(lrd_json_read(path, MOST_BYTES, &json));
    LRD_TRY(read_text(json, path, "machine", tuning.machine, sizeof tuning.machine));
    const json_t *list = json_object_get(json, "products");
    LRD_CHECK(json_is_array(list), LRD_ERR_FORMAT, "%s: \"products\" is not a list", path);
    LRD_NEW(choice, json_array_size(list) + 1);
    for (; tuning.n < json_array_size(list); tuning.n++) {
        const json_t *item = json_array_get(list, tuning.n);
        lrd_choice_t *c = &choice[tuning.n];
        char where[512];
        snprintf(where, sizeof where, "%s: products[%zu]", path, tuning.n);
        LRD_TRY(read_text(item, where, "product", c->product, sizeof c->product));
        LRD_TRY(read_text(item, where, "route", c->route, sizeof c->route));
    }
    tuning.choice = choice;
    *tuning_out = tuning;
    choice = NULL;
out:
    lrd_free(choice);
    json_decref(json);
    return status;
}

void lrd_tuning_release(lrd_tuning_t *tuning)
{
    lrd_free((lrd_choice_t *)tuning->choice);
    *tuning = (lrd_tuning_t){.n = 0};
}

lrd_status_t lrd_tuning_write(const lrd_tuning_t *tuning, lrd_buf_t *buf)
{
    lrd_json_writer_t w = {.buf = buf, .indent = 2};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "machine");
    lrd_json_text(&w, tuning->machine);
    lrd_json_key(&w, "products");
    lrd_json_open(&w, '[');
    for (size_t i = 0; i < tuning->n; i++) {
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "product");
        lrd_json_text(&w, tuning->choice[i].product);
        lrd_json_key(&w, "route");
        lrd_json_text(&w, tuning->choice[i].route);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    lrd_json_close(&w, '}');
    return lrd_json_writer_status(&w);
}
