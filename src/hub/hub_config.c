#include "hub/hub_config.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* NULL: not set, or empty. */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool is_true(const char *name)
{
    const char *value = variable(name);
    return value != NULL && (strcmp(value, "1") == 0 || strcasecmp(value, "on") == 0 ||
                             strcasecmp(value, "yes") == 0 || strcasecmp(value, "true") == 0);
}

/* Of a folder's or file's name, "~/" being the home. */
static lrd_status_t expand(const char *path, char **expanded_out)
{
    lrd_status_t status = LRD_OK;
    const char *home = variable("HOME");
    if (strncmp(path, "~/", 2) == 0 && home != NULL)
        LRD_ALLOC(*expanded_out, lrd_path_join(home, path + 2));
    else
        LRD_ALLOC(*expanded_out, lrd_strdup(path));
out:
    return status;
}

/* $HF_HOME, or huggingface/ in the user's cache. */
static lrd_status_t find_home(char **home_out)
{
    lrd_status_t status = LRD_OK;
    char *folder = NULL;
    if (variable("HF_HOME") != NULL) {
        LRD_TRY(expand(variable("HF_HOME"), home_out));
        goto out;
    }
    const char *cache = variable("XDG_CACHE_HOME");
    LRD_CHECK(cache != NULL || variable("HOME") != NULL, LRD_ERR_CONFIG,
              "HOME is not set: name the folder for what comes from the Hub in HF_HOME");
    LRD_TRY(expand(cache != NULL ? cache : "~/.cache", &folder));
    LRD_ALLOC(*home_out, lrd_path_join(folder, "huggingface"));
out:
    lrd_free(folder);
    return status;
}

static lrd_status_t find_cache(const char *home, char **cache_out)
{
    lrd_status_t status = LRD_OK;
    const char *named = variable("HF_HUB_CACHE");
    if (named == NULL)
        named = variable("HUGGINGFACE_HUB_CACHE");
    if (named != NULL)
        LRD_TRY(expand(named, cache_out));
    else
        LRD_ALLOC(*cache_out, lrd_path_join(home, "hub"));
out:
    return status;
}

/* Without the white space around it; a header line holds nothing but visible ASCII. */
static lrd_status_t take_token(const char *text, const char *where, char **token_out)
{
    lrd_status_t status = LRD_OK;
    static const char space[] = " \t\r\n";
    const char *begin = text + strspn(text, space);
    size_t n = strlen(begin);
    while (n > 0 && strchr(space, begin[n - 1]) != NULL)
        n--;
    for (size_t i = 0; i < n; i++)
        LRD_CHECK(begin[i] > 0x20 && begin[i] < 0x7f, LRD_ERR_CONFIG,
                  "%s: not a token of the Hub: it holds blanks or other than ASCII characters",
                  where);
    if (n > 0)
        LRD_ALLOC(*token_out, lrd_strndup(begin, n));
out:
    return status;
}

static lrd_status_t find_token(const char *home, char **token_out)
{
    lrd_status_t status = LRD_OK;
    const char *text = variable("HF_TOKEN");
    char *path = NULL;
    lrd_buf_t file = {0};
    if (text == NULL)
        text = variable("HUGGING_FACE_HUB_TOKEN");
    if (text != NULL) {
        LRD_TRY(take_token(text, "HF_TOKEN", token_out));
        goto out;
    }
    if (variable("HF_TOKEN_PATH") != NULL)
        LRD_TRY(expand(variable("HF_TOKEN_PATH"), &path));
    else
        LRD_ALLOC(path, lrd_path_join(home, "token"));
    if (!lrd_file_exists(path))
        goto out;
    LRD_TRY(lrd_file_read(path, 1 << 16, &file));
    if (file.data != NULL)
        LRD_TRY(take_token(file.data, path, token_out));
out:
    if (file.data != NULL)
        explicit_bzero(file.data, file.size);
    lrd_buf_release(&file);
    lrd_free(path);
    return status;
}

static lrd_status_t find_endpoint(char **endpoint_out)
{
    lrd_status_t status = LRD_OK;
    const char *text = variable("HF_ENDPOINT");
    if (text == NULL)
        text = "https://huggingface.co";
    LRD_CHECK(strncmp(text, "https://", 8) == 0 || strncmp(text, "http://", 7) == 0, LRD_ERR_CONFIG,
              "HF_ENDPOINT: expected the address of a server, such as https://huggingface.co");
    size_t n = strlen(text);
    while (text[n - 1] == '/')
        n--;
    LRD_ALLOC(*endpoint_out, lrd_strndup(text, n));
out:
    return status;
}

static lrd_status_t find_timeout(long *seconds_out)
{
    lrd_status_t status = LRD_OK;
    const char *text = variable("HF_HUB_DOWNLOAD_TIMEOUT");
    char *end = NULL;
    *seconds_out = 10;
    if (text == NULL)
        goto out;
    errno = 0;
    const long seconds = strtol(text, &end, 10);
    LRD_CHECK(errno == 0 && *end == '\0' && seconds > 0 && seconds <= 86400, LRD_ERR_CONFIG,
              "HF_HUB_DOWNLOAD_TIMEOUT: expected seconds, from 1 to 86400");
    *seconds_out = seconds;
out:
    return status;
}

lrd_status_t lrd_hub_config_read(lrd_hub_config_t *config_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_config_t c = {.offline = is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE")};
    char *home = NULL;
    LRD_TRY(find_home(&home));
    LRD_TRY(find_cache(home, &c.cache));
    LRD_TRY(find_token(home, &c.token));
    LRD_TRY(find_endpoint(&c.endpoint));
    LRD_TRY(find_timeout(&c.timeout_seconds));
    *config_out = c;
    c = (lrd_hub_config_t){.endpoint = NULL};
out:
    lrd_hub_config_release(&c);
    lrd_free(home);
    return status;
}

void lrd_hub_config_release(lrd_hub_config_t *config)
{
    if (config->token != NULL)
        explicit_bzero(config->token, strlen(config->token));
    lrd_free(config->token);
    lrd_free(config->endpoint);
    lrd_free(config->cache);
    *config = (lrd_hub_config_t){.endpoint = NULL};
}
