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
    *name_out = (lrd_hub_name_t){.is_data = false};
    snprintf(name_out->repo, sizeof name_out->repo, "%.*s", (int)n, text);
    snprintf(name_out->revision, sizeof name_out->revision, "%s", revision);
    return true;
}

/* A configuration or a split: one part of a path. */
static bool take_word(const char *text, size_t n, char word_out[LRD_HUB_WORD_BYTES])
{
    if (n == 0 || n >= LRD_HUB_WORD_BYTES || memchr(text, '/', n) != NULL)
        return false;
    snprintf(word_out, LRD_HUB_WORD_BYTES, "%.*s", (int)n, text);
    return lrd_hub_is_safe_path(word_out);
}

/* What stands behind the "#". */
static bool take_split(const char *text, lrd_hub_data_name_t *name)
{
    const char *slash = strrchr(text, '/');
    const char *split = slash != NULL ? slash + 1 : text;
    return (slash == NULL || take_word(text, (size_t)(slash - text), name->config)) &&
           take_word(split, strlen(split), name->split);
}

/* What stands before it. */
static bool take_repo(const char *text, lrd_hub_name_t *repo)
{
    const size_t n = strcspn(text, "@");
    const char *revision = text[n] == '@' ? text + n + 1 : "";
    if (memchr(text, '/', n) != NULL)
        return lrd_hub_name_read(text, repo);
    if (!is_repo_part(text, n) || memmem(text, n, "--", 2) != NULL ||
        memmem(text, n, "..", 2) != NULL || (text[n] == '@' && !lrd_hub_is_safe_path(revision)))
        return false;
    snprintf(repo->repo, sizeof repo->repo, "%.*s", (int)n, text);
    return (size_t)snprintf(repo->revision, sizeof repo->revision, "%s", revision) <
           sizeof repo->revision;
}

bool lrd_hub_data_name_read(const char *text, const char *split, lrd_hub_data_name_t *name_out)
{
    char repo[LRD_HUB_REPO_BYTES + LRD_HUB_REVISION_BYTES];
    const size_t n = strcspn(text, "#");
    *name_out = (lrd_hub_data_name_t){.config = ""};
    if (n >= sizeof repo)
        return false;
    snprintf(repo, sizeof repo, "%.*s", (int)n, text);
    if (!take_repo(repo, &name_out->repo))
        return false;
    name_out->repo.is_data = true;
    return text[n] == '#' ? take_split(text + n + 1, name_out)
                          : take_word(split, strlen(split), name_out->split);
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
