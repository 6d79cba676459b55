#include "hub/hub_upload.h"

#include "base/json_writer.h"
#include "base/log.h"
#include "base/mem.h"
#include "hub/hub_call.h"

#include <string.h>

static const char lfs_type[] = "application/vnd.git-lfs+json";

typedef struct job {
    lrd_hub_t *hub;
    const char *repo, *revision;
    const lrd_hub_local_t *file;
    lrd_hub_upload_t plan;
    char (*etag)[160]; /* [n_parts] */
} job_t;

static lrd_status_t send_lfs(const job_t *j, const char *url, const lrd_buf_t *body,
                             lrd_http_reply_t *reply)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_http_send(j->hub->http,
                          &(lrd_http_request_t){.method = "POST",
                                                .url = url,
                                                .content_type = lfs_type,
                                                .accept = lfs_type,
                                                .body = body->data,
                                                .body_bytes = body->size,
                                                .attempts = LRD_HUB_ATTEMPTS},
                          reply));
    if (reply->code >= 300)
        LRD_TRY(lrd_hub_refuse(j->hub, reply, j->repo, j->revision, j->file->name));
out:
    return status;
}

static void write_object(lrd_json_writer_t *w, const lrd_hub_local_t *file)
{
    lrd_json_open(w, '{');
    lrd_json_key(w, "oid");
    lrd_json_text(w, file->sha256);
    lrd_json_key(w, "size");
    lrd_json_int(w, (int64_t)file->map.size);
    lrd_json_close(w, '}');
}

static lrd_status_t write_batch(const job_t *j, lrd_buf_t *body)
{
    lrd_json_writer_t w = {.buf = body, .indent = -1};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "operation");
    lrd_json_text(&w, "upload");
    lrd_json_key(&w, "transfers");
    lrd_json_open(&w, '[');
    lrd_json_text(&w, "basic");
    lrd_json_text(&w, "multipart");
    lrd_json_close(&w, ']');
    lrd_json_key(&w, "objects");
    lrd_json_open(&w, '[');
    write_object(&w, j->file);
    lrd_json_close(&w, ']');
    lrd_json_key(&w, "hash_algo");
    lrd_json_text(&w, "sha256");
    lrd_json_key(&w, "ref");
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "name");
    lrd_json_text(&w, j->revision);
    lrd_json_close(&w, '}');
    lrd_json_close(&w, '}');
    return lrd_json_writer_status(&w);
}

/* Asks where to. */
static lrd_status_t ask(job_t *j)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    char *path = NULL, *url = NULL, words[300];
    LRD_TRY(write_batch(j, &body));
    LRD_ALLOC(path, lrd_asprintf("/%s.git/info/lfs/objects/batch", j->repo));
    LRD_TRY(lrd_hub_url(j->hub, path, NULL, "", &url));
    LRD_TRY(send_lfs(j, url, &body, &reply));
    LRD_TRY(lrd_hub_read_upload(reply.body.data != NULL ? reply.body.data : "", reply.body.size,
                                url, j->file->sha256, (int64_t)j->file->map.size, &j->plan));
    if (j->plan.refusal != NULL) {
        lrd_http_clean(j->hub->http, j->plan.refusal, words, sizeof words);
        LRD_FAIL(LRD_ERR_IO, "%s: the server refuses %s: %s", j->repo, j->file->name, words);
    }
out:
    lrd_http_reply_release(&reply);
    lrd_free(url);
    lrd_free(path);
    lrd_buf_release(&body);
    return status;
}

/* Bytes of the file to an address that the server named; no token goes there. */
static lrd_status_t put(const job_t *j, const char *url, size_t begin, size_t bytes, char *etag)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    LRD_TRY(lrd_http_send(j->hub->http,
                          &(lrd_http_request_t){.method = "PUT",
                                                .url = url,
                                                .body = j->file->map.data + begin,
                                                .body_bytes = bytes,
                                                .attempts = LRD_HUB_ATTEMPTS},
                          &reply));
    if (reply.code >= 300)
        LRD_TRY(lrd_hub_refuse(j->hub, &reply, j->repo, j->revision, j->file->name));
    if (etag != NULL)
        memcpy(etag, reply.plain_etag, sizeof reply.plain_etag);
out:
    lrd_http_reply_release(&reply);
    return status;
}

/* All parts are there: their tags, in order. */
static lrd_status_t complete(const job_t *j)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    lrd_json_writer_t w = {.buf = &body, .indent = -1};
    lrd_json_open(&w, '{');
    lrd_json_key(&w, "oid");
    lrd_json_text(&w, j->file->sha256);
    lrd_json_key(&w, "parts");
    lrd_json_open(&w, '[');
    for (size_t i = 0; i < j->plan.n_parts; i++) {
        lrd_json_open(&w, '{');
        lrd_json_key(&w, "partNumber");
        lrd_json_int(&w, (int64_t)i + 1);
        lrd_json_key(&w, "etag");
        lrd_json_text(&w, j->etag[i]);
        lrd_json_close(&w, '}');
    }
    lrd_json_close(&w, ']');
    lrd_json_close(&w, '}');
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(send_lfs(j, j->plan.href, &body, &reply));
out:
    lrd_http_reply_release(&reply);
    lrd_buf_release(&body);
    return status;
}

static lrd_status_t put_parts(job_t *j)
{
    lrd_status_t status = LRD_OK;
    const size_t size = j->file->map.size, part = (size_t)j->plan.part_bytes;
    LRD_NEW(j->etag, j->plan.n_parts);
    for (size_t i = 0; i < j->plan.n_parts; i++) {
        const size_t begin = i * part, left = size - begin;
        LRD_TRY(put(j, j->plan.part[i], begin, left < part ? left : part, j->etag[i]));
        LRD_CHECK(j->etag[i][0] != '\0', LRD_ERR_FORMAT,
                  "%s: the storage does not confirm part %zu of %s", j->repo, i + 1, j->file->name);
    }
    LRD_TRY(complete(j));
out:
    return status;
}

static lrd_status_t verify(const job_t *j)
{
    lrd_status_t status = LRD_OK;
    lrd_http_reply_t reply = {.code = 0};
    lrd_buf_t body = {0};
    lrd_json_writer_t w = {.buf = &body, .indent = -1};
    write_object(&w, j->file);
    LRD_TRY(lrd_json_writer_status(&w));
    LRD_TRY(send_lfs(j, j->plan.verify, &body, &reply));
out:
    lrd_http_reply_release(&reply);
    lrd_buf_release(&body);
    return status;
}

lrd_status_t lrd_hub_upload(lrd_hub_t *hub, const char *repo, const char *revision,
                            const lrd_hub_local_t *file)
{
    lrd_status_t status = LRD_OK;
    job_t j = {.hub = hub, .repo = repo, .revision = revision, .file = file};
    LRD_TRY(ask(&j));
    if (j.plan.href == NULL)
        goto out;
    lrd_info("Uploading %s, %.1f MiB", file->name, (double)file->map.size / 0x1p20);
    if (j.plan.n_parts > 0)
        LRD_TRY(put_parts(&j));
    else
        LRD_TRY(put(&j, j.plan.href, 0, file->map.size, NULL));
    if (j.plan.verify != NULL)
        LRD_TRY(verify(&j));
out:
    lrd_free(j.etag);
    lrd_hub_upload_release(&j.plan);
    return status;
}
