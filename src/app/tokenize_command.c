/* Lines of JSON in, lines of JSON out. */
#include "app/folders.h"

#include "base/json.h"
#include "base/json_writer.h"
#include "base/mem.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct tokenize {
    const lrd_cli_t *cli;
    lrd_tokenizer_t *tokenizer;
    lrd_encoder_t *encoder;
    lrd_tokens_t tokens;
    lrd_buf_t text, line;
} tokenize_t;

static lrd_status_t encode(tokenize_t *t, const json_t *json, const char *place)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = &t->line};
    LRD_CHECK(json_is_string(json), LRD_ERR_FORMAT, "%s: expected a string, found %s", place,
              lrd_json_type_name(json));
    t->tokens.n = 0;
    LRD_TRY(lrd_encoder_encode(t->encoder, json_string_value(json), json_string_length(json),
                               &t->tokens));
    lrd_json_open(&w, '[');
    for (size_t i = 0; i < t->tokens.n; i++)
        lrd_json_int(&w, t->tokens.id[i]);
    lrd_json_close(&w, ']');
    LRD_TRY(lrd_json_writer_status(&w));
out:
    return status;
}

static lrd_status_t decode(tokenize_t *t, const json_t *json, const char *place)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = &t->line, .utf8 = true};
    const size_t n = json_array_size(json);
    int32_t *id = NULL;
    LRD_CHECK(json_is_array(json), LRD_ERR_FORMAT, "%s: expected a list of ids, found %s", place,
              lrd_json_type_name(json));
    LRD_NEW(id, n + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(json, i);
        const json_int_t v = json_integer_value(value);
        LRD_CHECK(json_is_integer(value) && v >= INT32_MIN && v <= INT32_MAX, LRD_ERR_FORMAT,
                  "%s: element %zu is not a token id", place, i);
        id[i] = (int32_t)v;
    }
    lrd_buf_clear(&t->text);
    LRD_TRY(lrd_tokenizer_decode(t->tokenizer, id, n, t->cli->skip_special_tokens, &t->text));
    lrd_json_bytes(&w, t->text.data != NULL ? t->text.data : "", t->text.size);
    LRD_TRY(lrd_json_writer_status(&w));
out:
    lrd_free(id);
    return status;
}

static lrd_status_t convert_line(tokenize_t *t, const char *line, size_t bytes, long number)
{
    lrd_status_t status = LRD_OK;
    char place[48];
    json_t *json = NULL;
    snprintf(place, sizeof place, "standard input:%ld", number);
    lrd_buf_clear(&t->line);
    LRD_TRY(lrd_json_parse(line, bytes, place, &json));
    LRD_TRY(t->cli->decode ? decode(t, json, place) : encode(t, json, place));
    LRD_TRY(lrd_buf_add_text(&t->line, "\n"));
    LRD_TRY(lrd_put_result(t->line.data, t->line.size));
out:
    json_decref(json);
    return status;
}

lrd_status_t lrd_command_tokenize(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    tokenize_t t = {.cli = app->cli};
    lrd_settings_t *settings = NULL;
    char *line = NULL, *folder = NULL;
    size_t capacity = 0;
    ssize_t bytes;
    LRD_TRY(lrd_cli_read_settings(app->cli, &settings));
    LRD_TRY(lrd_find_model(app, NULL, settings, LRD_HUB_MODEL_OUTLINE, &folder));
    LRD_TRY(lrd_tokenizer_load(folder, &t.tokenizer));
    LRD_TRY(lrd_encoder_new(t.tokenizer, &t.encoder));
    app->work_began = true;
    for (long number = 1; (bytes = getline(&line, &capacity, stdin)) >= 0; number++) {
        if (bytes > 0 && line[bytes - 1] == '\n')
            bytes--;
        LRD_TRY(convert_line(&t, line, (size_t)bytes, number));
    }
    LRD_CHECK(feof(stdin), LRD_ERR_IO, "cannot read standard input");
out:
    free(line);
    lrd_free(folder);
    lrd_settings_free(settings);
    lrd_buf_release(&t.line);
    lrd_buf_release(&t.text);
    lrd_tokens_release(&t.tokens);
    lrd_encoder_free(t.encoder);
    lrd_tokenizer_free(t.tokenizer);
    return status;
}
