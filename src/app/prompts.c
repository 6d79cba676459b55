#include "app/prompts.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/jsonl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void lrd_prompts_release(lrd_prompts_t *prompts)
{
    for (size_t i = 0; i < prompts->n; i++)
        lrd_free(prompts->request[i].token);
    lrd_free(prompts->request);
    *prompts = (lrd_prompts_t){0};
}

/* Appends the tokens, which it takes over. */
static lrd_status_t push(lrd_prompts_t *prompts, int32_t **token, size_t n,
                         const lrd_pool_entry_t *adapter)
{
    lrd_status_t status = LRD_OK;
    LRD_GROW(prompts->request, prompts->n, prompts->capacity);
    prompts->request[prompts->n++] = (lrd_prompt_request_t){*token, (int32_t)n, adapter};
    *token = NULL;
out:
    return status;
}

static lrd_status_t push_copy(lrd_prompts_t *prompts, const lrd_prompts_reader_t *r,
                              const char *place, const int32_t *id, size_t n,
                              const lrd_pool_entry_t *adapter)
{
    lrd_status_t status = LRD_OK;
    int32_t *token = NULL;
    for (size_t i = 0; i < n; i++)
        LRD_CHECK(id[i] >= 0 && id[i] < r->vocab_size, LRD_ERR_FORMAT,
                  "%s: token id %d lies outside the model's vocabulary of %" PRId64
                  ": tokenizer and model do not match",
                  place, (int)id[i], r->vocab_size);
    LRD_NEW(token, n);
    memcpy(token, id, n * sizeof *token);
    LRD_TRY(push(prompts, &token, n, adapter));
out:
    lrd_free(token);
    return status;
}

lrd_status_t lrd_prompts_add(lrd_prompts_t *prompts, const lrd_prompts_reader_t *r,
                             const char *place, const char *text, size_t bytes,
                             const lrd_pool_entry_t *adapter)
{
    lrd_status_t status = LRD_OK;
    lrd_tokens_t tokens = {0};
    const int32_t bos = (int32_t)r->bos;
    LRD_TRY(lrd_encoder_encode(r->encoder, text, bytes, &tokens));
    LRD_CHECK(tokens.n > 0 || bos >= 0, LRD_ERR_FORMAT,
              "%s: the prompt is empty, and config.json names no bos_token_id to begin with",
              place);
    LRD_TRY(push_copy(prompts, r, place, tokens.n > 0 ? tokens.id : &bos,
                      tokens.n > 0 ? tokens.n : 1, adapter));
out:
    lrd_tokens_release(&tokens);
    return status;
}

static lrd_status_t read_adapter(const json_t *object, const lrd_prompts_reader_t *r,
                                 const char *place, const lrd_pool_entry_t **adapter_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *name = json_object_get(object, "adapter");
    char before[520];
    *adapter_out = name == NULL ? r->fallback : NULL;
    if (name == NULL || json_is_null(name))
        goto out;
    LRD_CHECK(json_is_string(name), LRD_ERR_FORMAT,
              "%s: \"adapter\" is %s, expected a name or null", place, lrd_json_type_name(name));
    snprintf(before, sizeof before, "%s: ", place);
    LRD_TRY(lrd_pool_find(r->pool, before, json_string_value(name), adapter_out));
out:
    return status;
}

static lrd_status_t read_line(lrd_prompts_t *prompts, const lrd_prompts_reader_t *r,
                              const lrd_jsonl_t *lines, const json_t *object,
                              lrd_jsonl_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const json_t *text = json_object_get(object, "prompt");
    const bool has_ids = json_object_get(object, "input_ids") != NULL;
    const lrd_pool_entry_t *adapter;
    char place[512];
    snprintf(place, sizeof place, "%s:%" PRId64, lines->name, lines->line);
    LRD_CHECK((text != NULL) != has_ids, LRD_ERR_FORMAT,
              "%s: expected one of \"prompt\" and \"input_ids\"", place);
    LRD_TRY(read_adapter(object, r, place, &adapter));
    if (has_ids) {
        LRD_TRY(lrd_jsonl_tokens(lines, object, r->vocab_size, tokens));
        LRD_TRY(push_copy(prompts, r, place, tokens->token, tokens->n, adapter));
        goto out;
    }
    LRD_CHECK(json_is_string(text), LRD_ERR_FORMAT, "%s: \"prompt\" is %s, expected a string",
              place, lrd_json_type_name(text));
    LRD_TRY(lrd_prompts_add(prompts, r, place, json_string_value(text), json_string_length(text),
                            adapter));
out:
    return status;
}

lrd_status_t lrd_prompts_read(lrd_prompts_t *prompts, const lrd_prompts_reader_t *r,
                              const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_map_t map = {0};
    lrd_jsonl_t lines;
    lrd_jsonl_tokens_t tokens = {0};
    json_t *object = NULL;
    LRD_TRY(lrd_file_map(path, &map));
    lrd_jsonl_begin(&lines, path, map.data, map.size);
    for (;;) {
        LRD_TRY(lrd_jsonl_next(&lines, &object));
        if (object == NULL)
            break;
        LRD_TRY(read_line(prompts, r, &lines, object, &tokens));
        json_decref(object);
        object = NULL;
    }
    LRD_CHECK(prompts->n > 0, LRD_ERR_FORMAT, "%s holds no prompts", path);
out:
    json_decref(object);
    lrd_jsonl_tokens_release(&tokens);
    lrd_file_unmap(&map);
    return status;
}
