/* Publishing an adapter: what of its files differs from what is there is uploaded and committed at once. */
#include "hub/hub_upload.h"

#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "hub/hub_call.h"

#include <openssl/evp.h>
#include <string.h>

enum { SAMPLE_BYTES = 512 };

/* All that is published of a folder. */
static const char *const names[] = {"README.md", "adapter_config.json",
                                    "adapter_model.safetensors"};
enum { N_FILES = sizeof names / sizeof names[0], README = 0 };

typedef struct push {
    lrd_hub_t *hub;
    const lrd_hub_push_t *o;
    const char *revision;
    lrd_hub_local_t file[N_FILES];
    size_t n; /* files that are here */
} push_t;

/* One request of JSON; codes from 400 on are left to the caller. */
static lrd_status_t post(const push_t *p, const char *url, const lrd_buf_t *body, const char *type,
                         int attempts, lrd_http_reply_t *reply)
{
    return lrd_http_send(p->hub->http,
                         &(lrd_http_request_t){.method = "POST",
                                               .url = url,
                                               .content_type = type,
                                               .body = body->data,
                                               .body_bytes = body->size,
                                               .attempts = attempts},
                         reply);
}

static lrd_status_t check(const lrd_hub_t *hub, const lrd_hub_push_t *o)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t name;
    LRD_CHECK(!hub->config.offline, LRD_ERR_CONFIG,
              "HF_HUB_OFFLINE is set, which forbids to publish %s", o->repo);
    LRD_TRY(lrd_hub_name_parse(o->repo, &name));
    LRD_CHECK(name.revision[0] == '\0', LRD_ERR_ARG, "%s: --revision names the branch", o->repo);
    LRD_CHECK(o->revision == NULL || (lrd_hub_is_safe_path(o->revision) &&
                                      strlen(o->revision) < LRD_HUB_REVISION_BYTES),
              LRD_ERR_ARG, "\"%.80s\" is not a branch's name", o->revision);
    LRD_CHECK(hub->config.token != NULL, LRD_ERR_CONFIG,
              "publishing needs a token that may write: put it in HF_TOKEN, or run "
              "`hf auth login`, which leaves it in a file. %s/settings/tokens makes one",
              hub->config.endpoint);
    LRD_CHECK(lrd_http_has_token(hub->http), LRD_ERR_CONFIG,
              "%s: a token is sent to an https:// address only", hub->config.endpoint);
out:
    return status;
}

lrd_status_t lrd_hub_own_repo(lrd_hub_t *hub, const char *path, char **repo_out)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    char *url = NULL, *user = NULL, *repo = NULL;
    lrd_hub_name_t name;
    LRD_TRY(check(hub, &(lrd_hub_push_t){.repo = "own/repository"}));
    LRD_TRY(lrd_hub_url(hub, "/api/whoami-v2", NULL, "", &url));
    LRD_TRY(lrd_http_send(
        hub->http, &(lrd_http_request_t){.method = "GET", .url = url, .attempts = LRD_HUB_ATTEMPTS},
        &reply));
    if (reply.code != 200)
        LRD_TRY(lrd_hub_refuse(hub, &reply, "the account of the token", NULL, NULL));
    LRD_TRY(lrd_hub_read_text(reply.body.data != NULL ? reply.body.data : "", reply.body.size, url,
                              "name", &user));
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    LRD_ALLOC(repo, lrd_asprintf("%s/%.*s", user, (int)(end - begin), path + begin));
    LRD_CHECK(lrd_hub_name_read(repo, &name), LRD_ERR_CONFIG,
              "\"%s\" is no repository's name: training.hub_model_id names one", repo);
    *repo_out = repo;
    repo = NULL;
out:
    lrd_free(repo);
    lrd_free(user);
    lrd_free(url);
    lrd_http_reply_release(&reply);
    return status;
}

/* One that may not make repositories may still write to this one, if it is there. */
static lrd_status_t is_there(const push_t *p, bool *there_out)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    char *path = NULL, *url = NULL;
    LRD_ALLOC(path, lrd_asprintf("/api/models/%s", p->o->repo));
    LRD_TRY(lrd_hub_url(p->hub, path, NULL, "", &url));
    LRD_TRY(lrd_http_send(
        p->hub->http,
        &(lrd_http_request_t){.method = "GET", .url = url, .attempts = LRD_HUB_ATTEMPTS}, &reply));
    *there_out = reply.code == 200;
out:
    lrd_http_reply_release(&reply);
    lrd_free(url);
    lrd_free(path);
    return status;
}

lrd_status_t lrd_hub_create(lrd_hub_t *hub, const lrd_hub_push_t *o)
{
    lrd_status_t status = LRD_OK;
    const push_t p = {.hub = hub, .o = o};
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    lrd_json_writer_t w = {.buf = &body, .indent = -1};
    char *url = NULL;
    bool there = false;
    LRD_TRY(check(hub, o));
    const char *slash = strchr(o->repo, '/');
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "name");
    lrd_json_text(&w, slash + 1);
    lrd_json_key(&w, "organization");
    lrd_json_bytes(&w, o->repo, (size_t)(slash - o->repo));
    lrd_json_key(&w, "type");
    lrd_json_text(&w, "model");
    if (o->is_private) {
        lrd_json_key(&w, "visibility");
        lrd_json_text(&w, "private");
    }
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_hub_url(hub, "/api/repos/create", NULL, "", &url));
    LRD_TRY(post(&p, url, &body, "application/json", LRD_HUB_ATTEMPTS, &reply));
    if (reply.code == 401 || reply.code == 402 || reply.code == 403)
        LRD_TRY(is_there(&p, &there));
    if (reply.code >= 300 && reply.code != 409 && !there)
        LRD_TRY(lrd_hub_refuse(hub, &reply, o->repo, NULL, NULL));
out:
    lrd_http_reply_release(&reply);
    lrd_free(url);
    lrd_buf_release(&body);
    return status;
}

static lrd_status_t open_files(push_t *p)
{
    lrd_status_t status = LRD_OK;
    char *path = NULL;
    for (int i = 0; i < N_FILES; i++) {
        LRD_ALLOC(path, lrd_path_join(p->o->folder, names[i]));
        const bool here = lrd_file_exists(path);
        LRD_CHECK(here || i == README, LRD_ERR_IO,
                  "%s: no %s there: it is not the folder of an adapter", p->o->folder, names[i]);
        if (here) {
            lrd_hub_local_t *file = &p->file[p->n++];
            file->name = names[i];
            LRD_TRY(lrd_file_map(path, &file->map));
            LRD_TRY(lrd_sha256_file(path, file->sha256));
            LRD_TRY(lrd_git_blob(file->map.data, file->map.size, file->git_blob));
        }
        lrd_free(path);
        path = NULL;
    }
out:
    lrd_free(path);
    return status;
}

static void close_files(push_t *p)
{
    for (size_t i = 0; i < p->n; i++)
        lrd_file_unmap(&p->file[i].map);
}

static lrd_status_t write_base64(lrd_json_writer_t *w, const uint8_t *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    unsigned char *text = NULL;
    LRD_CHECK(bytes <= 64 << 20, LRD_ERR_FORMAT,
              "the server wants a file of %zu bytes inside the commit, where it cannot be", bytes);
    LRD_NEW(text, (bytes + 2) / 3 * 4 + 1);
    if (bytes > 0)
        EVP_EncodeBlock(text, data, (int)bytes);
    lrd_json_text(w, (const char *)text);
out:
    lrd_free(text);
    return status;
}

/* Asks of every file whether and how it is to be uploaded. */
static lrd_status_t ask_modes(push_t *p)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    lrd_json_writer_t w = {.buf = &body, .indent = -1};
    char *before = NULL, *url = NULL;
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "files");
    lrd_json_open(&w, '[');
    for (size_t i = 0; i < p->n; i++) {
        const lrd_map_t *map = &p->file[i].map;
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "path");
        lrd_json_text(&w, p->file[i].name);
        lrd_json_key(&w, "sample");
        LRD_TRY(write_base64(&w, map->data, map->size < SAMPLE_BYTES ? map->size : SAMPLE_BYTES));
        lrd_json_key(&w, "size");
        lrd_json_int(&w, (int64_t)map->size);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_ALLOC(before, lrd_asprintf("/api/models/%s/preupload/", p->o->repo));
    LRD_TRY(lrd_hub_url(p->hub, before, p->revision, "", &url));
    LRD_TRY(post(p, url, &body, "application/json", LRD_HUB_ATTEMPTS, &reply));
    if (reply.code != 200)
        LRD_TRY(lrd_hub_refuse(p->hub, &reply, p->o->repo, p->revision, NULL));
    for (size_t i = 0; i < p->n; i++) {
        lrd_hub_local_t *f = &p->file[i];
        LRD_TRY(lrd_hub_read_mode(reply.body.data != NULL ? reply.body.data : "", reply.body.size,
                                  url, f->name, &f->mode));
        if (f->map.size == 0)
            f->mode.lfs = false;
        if (f->mode.ignored)
            lrd_warn("%s: .gitignore there leaves %s out", p->o->repo, f->name);
    }
out:
    lrd_http_reply_release(&reply);
    lrd_free(url);
    lrd_free(before);
    lrd_buf_release(&body);
    return status;
}

static bool is_new(const lrd_hub_local_t *f)
{
    return !f->mode.ignored && strcmp(f->mode.oid, f->mode.lfs ? f->sha256 : f->git_blob) != 0;
}

static lrd_status_t write_file(lrd_json_writer_t *w, const lrd_hub_local_t *f)
{
    lrd_status_t status = LRD_OK;
    lrd_json_open(w, '{');
    lrd_json_key(w, "key");
    lrd_json_text(w, f->mode.lfs ? "lfsFile" : "file");
    lrd_json_key(w, "value");
    lrd_json_open(w, '{');
    lrd_json_key(w, "path");
    lrd_json_text(w, f->name);
    if (f->mode.lfs) {
        lrd_json_key(w, "algo");
        lrd_json_text(w, "sha256");
        lrd_json_key(w, "oid");
        lrd_json_text(w, f->sha256);
        lrd_json_key(w, "size");
        lrd_json_int(w, (int64_t)f->map.size);
    } else {
        lrd_json_key(w, "encoding");
        lrd_json_text(w, "base64");
        lrd_json_key(w, "content");
        LRD_TRY(write_base64(w, f->map.data, f->map.size));
    }
    lrd_json_close(w, '}');
    lrd_json_close(w, '}');
    LRD_TRY(lrd_json_writer_status(w));
    LRD_TRY(lrd_buf_add_text(w->buf, "\n"));
out:
    return status;
}

/* Lines of JSON: what the commit is, then its files. */
static lrd_status_t write_commit(const push_t *p, lrd_buf_t *body)
{
    lrd_status_t status = LRD_OK;
    lrd_json_writer_t w = {.buf = body, .indent = -1};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "key");
    lrd_json_text(&w, "header");
    lrd_json_key(&w, "value");
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "summary");
    lrd_json_text(&w, p->o->message != NULL ? p->o->message : "Upload model");
    lrd_json_key(&w, "description");
    lrd_json_text(&w, "");
    lrd_json_close(&w, '}');
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(lrd_buf_add_text(body, "\n"));
    for (size_t i = 0; i < p->n; i++) {
        if (is_new(&p->file[i]))
            LRD_TRY(write_file(&w, &p->file[i]));
    }
out:
    return status;
}

static lrd_status_t commit(const push_t *p)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    char *before = NULL, *url = NULL, *page = NULL;
    LRD_TRY(write_commit(p, &body));
    LRD_ALLOC(before, lrd_asprintf("/api/models/%s/commit/", p->o->repo));
    LRD_TRY(lrd_hub_url(p->hub, before, p->revision, "", &url));
    LRD_TRY(post(p, url, &body, "application/x-ndjson", 1, &reply));
    if (reply.code != 200)
        LRD_TRY(lrd_hub_refuse(p->hub, &reply, p->o->repo, p->revision, NULL));
    LRD_TRY(lrd_hub_read_text(reply.body.data != NULL ? reply.body.data : "", reply.body.size, url,
                              "commitUrl", &page));
    lrd_info("Published %s", page);
out:
    lrd_http_reply_release(&reply);
    lrd_free(page);
    lrd_free(url);
    lrd_free(before);
    lrd_buf_release(&body);
    return status;
}

/* What differs goes to the large file storage, or later into the commit. */
static lrd_status_t upload(push_t *p, bool *any_out)
{
    lrd_status_t status = LRD_OK;
    *any_out = false;
    LRD_TRY(ask_modes(p));
    for (size_t i = 0; i < p->n; i++) {
        const lrd_hub_local_t *f = &p->file[i];
        *any_out = *any_out || is_new(f);
        if (is_new(f) && f->mode.lfs)
            LRD_TRY(lrd_hub_upload(p->hub, p->o->repo, p->revision, f));
    }
out:
    return status;
}

/* A commit whose answer is lost may have been made: what is asked then is whether files still differ. */
static lrd_status_t publish(push_t *p)
{
    lrd_status_t status = LRD_OK;
    bool any;
    for (int attempt = 1;; attempt++) {
        LRD_TRY(upload(p, &any));
        if (!any)
            break;
        status = commit(p);
        if (status != LRD_ERR_NETWORK || attempt == LRD_HUB_ATTEMPTS)
            goto out;
        lrd_warn("%s; trying again in %d s", lrd_error_text(status), attempt);
        lrd_error_clear();
        LRD_TRY(lrd_http_pause(p->hub->http, attempt));
    }
    lrd_info("%s has all of %s", p->o->repo, p->o->folder);
out:
    return status;
}

lrd_status_t lrd_hub_push(lrd_hub_t *hub, const lrd_hub_push_t *o, char **url_out)
{
    lrd_status_t status = LRD_OK;
    push_t p = {.hub = hub, .o = o, .revision = o->revision != NULL ? o->revision : "main"};
    LRD_TRY(check(hub, o));
    LRD_TRY(open_files(&p));
    LRD_TRY(lrd_hub_create(hub, o));
    LRD_TRY(publish(&p));
    LRD_ALLOC(*url_out, lrd_asprintf("%s/%s", hub->config.endpoint, o->repo));
out:
    close_files(&p);
    return status;
}
