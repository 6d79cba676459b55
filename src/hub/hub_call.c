#include "hub/hub_call.h"

#include "base/json.h"
#include "base/mem.h"

#include <string.h>

lrd_status_t lrd_hub_open(const lrd_stop_t *stop, lrd_hub_t **hub_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    LRD_NEW(hub, 1);
    hub->stop = stop;
    LRD_TRY(lrd_hub_config_read(&hub->config));
    LRD_TRY(lrd_http_open(&hub->config, stop, &hub->http));
    *hub_out = hub;
    hub = NULL;
out:
    lrd_hub_close(hub);
    return status;
}

void lrd_hub_close(lrd_hub_t *hub)
{
    if (hub == NULL)
        return;
    lrd_http_close(hub->http);
    lrd_hub_config_release(&hub->config);
    lrd_free(hub);
}

const char *lrd_hub_library(void)
{
    return lrd_http_library();
}

lrd_status_t lrd_hub_url(const lrd_hub_t *hub, const char *before, const char *text,
                         const char *after, char **url_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t url = {0};
    LRD_TRY(lrd_buf_printf(&url, "%s%s", hub->config.endpoint, before));
    if (text != NULL)
        LRD_TRY(lrd_http_quote(&url, text));
    LRD_TRY(lrd_buf_add_text(&url, after));
    *url_out = url.data;
    url = (lrd_buf_t){0};
out:
    lrd_buf_release(&url);
    return status;
}

/* What the server says is wrong: in a header, or as {"error": ...}. */
static void find_words(const lrd_hub_t *hub, const lrd_http_reply_t *reply, char *text, size_t size)
{
    json_t *json = NULL;
    const char *said = reply->error_message;
    if (said[0] == '\0' && reply->body.data != NULL &&
        lrd_json_parse(reply->body.data, reply->body.size, "answer", &json) != LRD_OK)
        lrd_error_clear();
    const char *error = json_string_value(json_object_get(json, "error"));
    lrd_http_clean(hub->http, error != NULL ? error : said, text, size);
    json_decref(json);
}

lrd_status_t lrd_hub_refuse(const lrd_hub_t *hub, const lrd_http_reply_t *reply, const char *repo,
                            const char *revision, const char *path)
{
    lrd_status_t status = LRD_OK;
    const char *endpoint = hub->config.endpoint, *code = reply->error_code;
    const bool known = lrd_http_has_token(hub->http);
    char words[300];
    find_words(hub, reply, words, sizeof words);
    if (strcmp(code, "GatedRepo") == 0)
        LRD_FAIL(
            LRD_ERR_IO,
            "%s is open to those alone who have accepted its conditions: accept them at %s/%s, %s",
            repo, endpoint, repo,
            known ? "with the account that the token belongs to"
                  : "and give a token of that account (HF_TOKEN, or `hf auth login`)");
    if (strcmp(code, "RevisionNotFound") == 0)
        LRD_FAIL(LRD_ERR_IO, "%s has no branch, tag or commit \"%s\" (%s)", repo,
                 revision != NULL ? revision : "main", endpoint);
    if (strcmp(code, "EntryNotFound") == 0)
        LRD_FAIL(LRD_ERR_IO, "%s has no file %s (%s)", repo, path != NULL ? path : "of that name",
                 endpoint);
    if (reply->code == 401 && strstr(words, "nvalid credentials") != NULL)
        LRD_FAIL(LRD_ERR_IO,
                 "%s does not know the token (HF_TOKEN, or the file that `hf auth login` writes)",
                 endpoint);
    if (reply->code == 401 || reply->code == 404)
        LRD_FAIL(LRD_ERR_IO, "%s has no repository %s, or does not show it: %s", endpoint, repo,
                 known ? "the token's account may not read it"
                       : "a private one needs a token (HF_TOKEN, or `hf auth login`)");
    if (reply->code == 403)
        LRD_FAIL(LRD_ERR_IO, "%s: %s does not allow it%s%s. Does the token have the right?", repo,
                 endpoint, words[0] != '\0' ? ": " : "", words);
    LRD_FAIL(LRD_ERR_IO, "%s: %s answered %ld%s%s", repo, endpoint, reply->code,
             words[0] != '\0' ? ": " : "", words);
out:
    return status;
}
