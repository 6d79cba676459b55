/* JSON text through the parser, the getters and the writer. Whatever was read and written again
 * reads as an equal value, in every style of the writer. */
#include "fuzz/fuzz_target.h"

#include "base/json.h"
#include "base/json_writer.h"

#include <string.h>

static void use_getters(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        int64_t n = 0;
        double x = 0;
        bool flag = false;
        const char *text = "";
        if (lrd_json_get_int(object, "fuzz", key, 1, -1000, 1000, &n) == LRD_OK)
            FUZZ_CHECK(n >= -1000 && n <= 1000);
        if (lrd_json_get_real(object, "fuzz", key, 0.5, &x) == LRD_OK && json_is_null(value))
            FUZZ_CHECK(x == 0.5);
        if (lrd_json_get_bool(object, "fuzz", key, true, &flag) == LRD_OK)
            FUZZ_CHECK(flag == !json_is_false(value));
        if (lrd_json_get_text(object, "fuzz", key, "", &text) == LRD_OK && json_is_string(value))
            FUZZ_CHECK(strlen(text) == json_string_length(value));
        lrd_error_clear();
    }
}

static void write_and_read(const json_t *json, int indent, bool utf8)
{
    lrd_buf_t buf = {0};
    lrd_json_writer_t w = {.buf = &buf, .indent = indent, .utf8 = utf8};
    lrd_json_value(&w, json);
    FUZZ_CHECK(lrd_json_writer_status(&w) == LRD_OK);
    json_t *again = NULL;
    FUZZ_CHECK(lrd_json_parse(buf.data, buf.size, "written", &again) == LRD_OK);
    FUZZ_CHECK(json_equal(json, again));
    json_decref(again);
    lrd_buf_release(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    if (lrd_json_parse((const char *)data, size, "fuzz", &json) == LRD_OK) {
        use_getters(json);
        write_and_read(json, -1, true);
        write_and_read(json, 0, false);
        write_and_read(json, 2, false);
    } else {
        FUZZ_CHECK(json == NULL);
    }
    json_decref(json);
    lrd_error_clear();
    return 0;
}
