#include "hub/hub_name.h"

#include <stdio.h>
#include <string.h>

static bool is_word_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* As huggingface_hub's validate_repo_id: of "-_." and alphanumerics, not "-" or "." at its ends. */
static bool is_repo_part(const char *text, size_t n)
{
    if (n == 0 || n > 96 || !is_word_char(text[0]) || !is_word_char(text[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!is_word_char(text[i]) && text[i] != '-' && text[i] != '.')
            return false;
    }
    return true;
}

static bool is_repo(const char *text, size_t n)
{
    const char *slash = memchr(text, '/', n);
    if (slash == NULL || n >= LRD_HUB_REPO_BYTES ||
        (n >= 4 && memcmp(text + n - 4, ".git", 4) == 0))
        return false;
    const size_t at = (size_t)(slash - text);
    return is_repo_part(text, at) && is_repo_part(slash + 1, n - at - 1) &&
           memmem(text, n, "--", 2) == NULL && memmem(text, n, "..", 2) == NULL;
}

bool lrd_hub_is_safe_path(const char *path)
{
    const char *part = path;
    for (const char *at = path;; at++) {
        if (*at == '/' || *at == '\0') {
            const size_t n = (size_t)(at - part);
            if (n == 0 || n > 255 || (n == 1 && part[0] == '.') ||
                (n == 2 && part[0] == '.' && part[1] == '.'))
                return false;
            if (*at == '\0')
                return true;
            part = at + 1;
        } else if ((unsigned char)*at < 0x20 || *at == 0x7f || *at == '\\') {
            return false;
        }
    }
}

bool lrd_hub_is_safe_tag(const char *tag)
{
    const size_t n = strlen(tag);
    for (size_t i = 0; i < n; i++) {
        if (!is_word_char(tag[i]) && tag[i] != '-' && tag[i] != '.')
            return false;
    }
    return n > 0 && n <= 128 && tag[0] != '.';
}

bool lrd_hub_is_commit(const char *revision)
{
    return strlen(revision) == LRD_HUB_COMMIT_HEX - 1 &&
           strspn(revision, "0123456789abcdef") == LRD_HUB_COMMIT_HEX - 1;
}

bool lrd_hub_name_read(const char *text, lrd_hub_name_t *name_out)
{
    const char *at = strchr(text, '@');
    const size_t n = at != NULL ? (size_t)(at - text) : strlen(text);
    const char *revision = at != NULL ? at + 1 : "";
    if (!is_repo(text, n) || strlen(revision) >= sizeof name_out->revision ||
        (at != NULL && !lrd_hub_is_safe_path(revision)))
        return false;
    snprintf(name_out->repo, sizeof name_out->repo, "%.*s", (int)n, text);
    snprintf(name_out->revision, sizeof name_out->revision, "%s", revision);
    return true;
}

lrd_status_t lrd_hub_name_parse(const char *text, lrd_hub_name_t *name_out)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(lrd_hub_name_read(text, name_out), LRD_ERR_ARG,
              "\"%.160s\" is not a repository of the Hub: such a name is ORG/NAME or "
              "ORG/NAME@REVISION, as bigscience/bloom-560m",
              text);
out:
    return status;
}
