#include "hub/http.h"

#include "base/beat.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/version.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MAX_REPLY = 16 << 20, MAX_HOPS = 5, MAX_RETRY_AFTER = 300, MAX_DOUBLINGS = 3 };

typedef struct origin {
    char text[300]; /* scheme://host:port */
    bool secure, loopback;
} origin_t;

struct lrd_http {
    const lrd_hub_config_t *config;
    const lrd_stop_t *stop;
    CURL *curl;
    origin_t endpoint;
};

/* One request under way. */
typedef struct exchange {
    lrd_http_t *http;
    const lrd_http_request_t *request;
    lrd_http_reply_t *reply;
    int64_t have;   /* what the request asks to be left out */
    int64_t offset; /* of the next piece; -1: none came yet */
    lrd_status_t status;
} exchange_t;

static bool is_loopback(const char *host)
{
    return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
           (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == strlen(host));
}

/* A URL without its query, which may hold a signature, for messages. */
static int shown(const char *url)
{
    const size_t n = strcspn(url, "?#");
    return n < 300 ? (int)n : 300;
}

static lrd_status_t read_origin(const char *url, origin_t *origin_out)
{
    lrd_status_t status = LRD_OK;
    CURLU *parts = NULL;
    char *scheme = NULL, *host = NULL, *port = NULL;
    LRD_ALLOC(parts, curl_url());
    LRD_CHECK(curl_url_set(parts, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
                  curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                  curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
                  curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK,
              LRD_ERR_FORMAT, "\"%.*s\" is not the address of a server", shown(url), url);
    origin_out->secure = strcmp(scheme, "https") == 0;
    origin_out->loopback = is_loopback(host);
    LRD_CHECK((origin_out->secure || strcmp(scheme, "http") == 0) &&
                  (size_t)snprintf(origin_out->text, sizeof origin_out->text, "%s://%s:%s", scheme,
                                   host, port) < sizeof origin_out->text,
              LRD_ERR_FORMAT, "\"%.*s\": expected an address that begins with https://", shown(url),
              url);
out:
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return status;
}

lrd_status_t lrd_http_open(const lrd_hub_config_t *config, const lrd_stop_t *stop,
                           lrd_http_t **http_out)
{
    lrd_status_t status = LRD_OK;
    lrd_http_t *http = NULL;
    LRD_NEW(http, 1);
    http->config = config;
    http->stop = stop;
    LRD_CHECK(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK, LRD_ERR_UNAVAILABLE,
              "libcurl cannot be used here");
    LRD_ALLOC(http->curl, curl_easy_init());
    LRD_TRY(read_origin(config->endpoint, &http->endpoint));
    *http_out = http;
    http = NULL;
out:
    lrd_http_close(http);
    return status;
}

void lrd_http_close(lrd_http_t *http)
{
    if (http == NULL)
        return;
    curl_easy_cleanup(http->curl);
    lrd_free(http);
}

bool lrd_http_has_token(const lrd_http_t *http)
{
    return http->config->token != NULL && (http->endpoint.secure || http->endpoint.loopback);
}

void lrd_http_reply_release(lrd_http_reply_t *reply)
{
    lrd_buf_release(&reply->body);
    lrd_free(reply->location);
    *reply = (lrd_http_reply_t){.code = 0};
}

const char *lrd_http_library(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}

void lrd_http_clean(const lrd_http_t *http, const char *said, char *text, size_t size)
{
    const char *token = http->config->token;
    const size_t token_bytes = token != NULL ? strlen(token) : 0;
    size_t n = 0;
    for (const char *at = said; *at != '\0' && n + 4 < size;) {
        if (token_bytes > 0 && strncmp(at, token, token_bytes) == 0) {
            memcpy(text + n, "***", 3);
            n += 3;
            at += token_bytes;
        } else {
            text[n++] = *at >= ' ' && *at < 0x7f ? *at : ' ';
            at++;
        }
    }
    text[n] = '\0';
}

lrd_status_t lrd_http_quote(lrd_buf_t *url, const char *text)
{
    lrd_status_t status = LRD_OK;
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
    for (const char *at = text; *at != '\0'; at++) {
        if (strchr(plain, *at) != NULL)
            LRD_TRY(lrd_buf_add(url, at, 1));
        else
            LRD_TRY(lrd_buf_printf(url, "%%%02X", (unsigned)(unsigned char)*at));
    }
out:
    return status;
}

lrd_status_t lrd_http_pause(const lrd_http_t *http, double seconds)
{
    lrd_status_t status = LRD_OK;
    enum { SLICES_PER_SECOND = 20 };
    for (int i = 0; i < (int)(seconds * SLICES_PER_SECOND); i++) {
        LRD_CHECK_STOP(http->stop);
        lrd_beat();
        nanosleep(&(struct timespec){.tv_nsec = 1000000000L / SLICES_PER_SECOND}, NULL);
    }
    LRD_CHECK_STOP(http->stop);
out:
    return status;
}

/* The value of a header line of the last answer; NULL: there is none. */
static const char *header(CURL *curl, const char *name)
{
    struct curl_header *h = NULL;
    return curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &h) == CURLHE_OK ? h->value : NULL;
}

static int64_t read_size(const char *text)
{
    const size_t n = text != NULL ? strspn(text, "0123456789") : 0;
    return n > 0 && n < 19 && text[n] == '\0' ? (int64_t)strtoll(text, NULL, 10) : -1;
}

/* W/"etag" and "etag", as huggingface_hub reads them. */
static void read_etag(const char *text, char *etag, size_t size)
{
    text += strspn(text, "W/");
    text += strspn(text, "\"");
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '"')
        n--;
    snprintf(etag, size, "%.*s", n < size ? (int)n : 0, text);
}

static void read_headers(exchange_t *x)
{
    CURL *curl = x->http->curl;
    lrd_http_reply_t *r = x->reply;
    const char *linked = header(curl, "x-linked-etag"), *etag = header(curl, "etag"),
               *size = header(curl, "x-linked-size"), *commit = header(curl, "x-repo-commit"),
               *code = header(curl, "x-error-code"), *message = header(curl, "x-error-message");
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &r->code);
    if (linked != NULL || etag != NULL)
        read_etag(linked != NULL ? linked : etag, r->etag, sizeof r->etag);
    snprintf(r->plain_etag, sizeof r->plain_etag, "%s", etag != NULL ? etag : "");
    if (size == NULL && r->code < 300)
        size = header(curl, "content-length");
    r->size = read_size(size);
    const int64_t wait = read_size(header(curl, "retry-after"));
    r->retry_after = wait > MAX_RETRY_AFTER ? MAX_RETRY_AFTER : (double)wait;
    snprintf(r->commit, sizeof r->commit, "%s", commit != NULL ? commit : "");
    lrd_http_clean(x->http, code != NULL ? code : "", r->error_code, sizeof r->error_code);
    lrd_http_clean(x->http, message != NULL ? message : "", r->error_message,
                   sizeof r->error_message);
}

static lrd_status_t take(exchange_t *x, const char *data, size_t bytes)
{
    lrd_status_t status = LRD_OK;
    const lrd_http_request_t *q = x->request;
    long code = 0;
    curl_easy_getinfo(x->http->curl, CURLINFO_RESPONSE_CODE, &code);
    if (q->sink == NULL || (code != 200 && code != 206)) {
        LRD_CHECK(x->reply->body.size + bytes <= MAX_REPLY, LRD_ERR_FORMAT,
                  "%.*s: the answer is larger than %d MiB", shown(q->url), q->url, MAX_REPLY >> 20);
        LRD_TRY(lrd_buf_add(&x->reply->body, data, bytes));
        goto out;
    }
    if (x->offset < 0) {
        const char *range = header(x->http->curl, "content-range");
        x->offset = code == 200 ? 0 : x->have;
        char expected[40];
        snprintf(expected, sizeof expected, "bytes %lld-", (long long)x->have);
        LRD_CHECK(code == 200 ||
                      (range != NULL && strncasecmp(range, expected, strlen(expected)) == 0),
                  LRD_ERR_FORMAT, "%.*s: asked for what follows byte %lld, got something else",
                  shown(q->url), q->url, (long long)x->have);
    }
    LRD_TRY(q->sink(q->context, x->offset, data, bytes));
    x->offset += (int64_t)bytes;
out:
    return status;
}

static size_t on_data(char *data, size_t one, size_t n, void *user)
{
    exchange_t *x = user;
    x->status = take(x, data, one * n);
    return x->status == LRD_OK ? n : CURL_WRITEFUNC_ERROR;
}

/* Also about once a second while nothing comes. */
static int on_progress(void *user, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                       curl_off_t up)
{
    const exchange_t *x = user;
    lrd_beat();
    return x->http->stop != NULL && *x->http->stop != 0;
}

/* "name: value"; a value that is "" takes a line away that libcurl would write, NULL changes nothing. */
static lrd_status_t add_header(struct curl_slist **list, const char *name, const char *value)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    if (value == NULL)
        goto out;
    LRD_TRY(lrd_buf_printf(&line, "%s:%s%s", name, value[0] != '\0' ? " " : "", value));
    struct curl_slist *longer = curl_slist_append(*list, line.data);
    LRD_CHECK(longer != NULL, LRD_ERR_NO_MEMORY, "out of memory");
    *list = longer;
out:
    if (line.data != NULL)
        explicit_bzero(line.data, line.size);
    lrd_buf_release(&line);
    return status;
}

static lrd_status_t make_headers(const exchange_t *x, bool to_endpoint, struct curl_slist **list)
{
    lrd_status_t status = LRD_OK;
    const lrd_http_request_t *q = x->request;
    char range[40];
    lrd_buf_t bearer = {0};
    LRD_TRY(add_header(list, "Accept", q->accept));
    LRD_TRY(add_header(list, "Content-Type", q->content_type != NULL ? q->content_type : ""));
    LRD_TRY(add_header(list, "Accept-Encoding", "identity")); /* sizes are those of the files */
    snprintf(range, sizeof range, "bytes=%lld-", (long long)x->have);
    LRD_TRY(add_header(list, "Range", x->have > 0 ? range : NULL));
    if (to_endpoint && lrd_http_has_token(x->http)) {
        LRD_TRY(lrd_buf_printf(&bearer, "Bearer %s", x->http->config->token));
        LRD_TRY(add_header(list, "Authorization", bearer.data));
    }
out:
    if (bearer.data != NULL)
        explicit_bzero(bearer.data, bearer.size);
    lrd_buf_release(&bearer);
    return status;
}

static void set_options(exchange_t *x, const char *url, const origin_t *origin)
{
    CURL *curl = x->http->curl;
    const lrd_http_request_t *q = x->request;
    const long patience = x->http->config->timeout_seconds;
    curl_easy_reset(curl); /* connections stay */
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "lora-dist/" LRD_VERSION);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, patience);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, patience);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x);
    if (origin->loopback)
        curl_easy_setopt(curl, CURLOPT_PROXY, "");
    if (strcmp(q->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (q->attempts == 1) /* on an older connection, libcurl would send it twice if that is gone */
        curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    if (q->body != NULL) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, q->body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body_bytes);
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, q->method);
    }
}

/* What libcurl's answer means. */
static lrd_status_t judge(const exchange_t *x, CURLcode code, const char *url, const char *why)
{
    lrd_status_t status = LRD_OK;
    if (code == CURLE_OK)
        goto out;
    LRD_TRY(x->status); /* the sink's own failure */
    LRD_CHECK_STOP(x->http->stop);
    LRD_CHECK(code != CURLE_OUT_OF_MEMORY, LRD_ERR_NO_MEMORY, "out of memory");
    LRD_CHECK(code != CURLE_PEER_FAILED_VERIFICATION, LRD_ERR_IO,
              "%.*s: the server's certificate is not accepted: %s", shown(url), url, why);
    LRD_FAIL(LRD_ERR_NETWORK, "%.*s: %s", shown(url), url,
             why[0] != '\0' ? why : curl_easy_strerror(code));
out:
    return status;
}

/* One request, one answer; *next_out (curl_free it) is where a redirect leads, or NULL. */
static lrd_status_t perform(exchange_t *x, const char *url, char **next_out)
{
    lrd_status_t status = LRD_OK;
    CURL *curl = x->http->curl;
    const origin_t *endpoint = &x->http->endpoint;
    struct curl_slist *headers = NULL;
    char why[CURL_ERROR_SIZE] = "", *next = NULL;
    origin_t origin;
    lrd_http_reply_release(x->reply);
    x->reply->size = -1;
    x->reply->retry_after = -1;
    x->offset = -1;
    x->status = LRD_OK;
    LRD_TRY(read_origin(url, &origin));
    LRD_CHECK(origin.secure || !endpoint->secure, LRD_ERR_IO,
              "%.*s: a server behind %s asks for an unprotected connection, which is refused",
              shown(url), url, x->http->config->endpoint);
    set_options(x, url, &origin);
    LRD_TRY(make_headers(x, strcmp(origin.text, endpoint->text) == 0, &headers));
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    const CURLcode code = curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
    LRD_TRY(judge(x, code, url, why));
    read_headers(x);
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &next);
    if (next != NULL)
        LRD_ALLOC(*next_out, lrd_strdup(next));
out:
    curl_slist_free_all(headers);
    return status;
}

/* Whether the request is sent again to where the answer points. */
static lrd_status_t may_follow(const exchange_t *x, const char *next, bool *follow_out)
{
    lrd_status_t status = LRD_OK;
    const char *method = x->request->method;
    origin_t origin;
    LRD_TRY(read_origin(next, &origin));
    const bool stays = strcmp(origin.text, x->http->endpoint.text) == 0;
    LRD_CHECK(x->request->body == NULL ||
                  (stays && (x->reply->code == 307 || x->reply->code == 308)),
              LRD_ERR_IO, "%.*s: the answer leads elsewhere, to %.*s", shown(x->request->url),
              x->request->url, shown(next), next);
    *follow_out = stays || strcmp(method, "HEAD") != 0;
out:
    return status;
}

static lrd_status_t send_once(exchange_t *x)
{
    lrd_status_t status = LRD_OK;
    char *url = NULL, *next = NULL;
    LRD_ALLOC(url, lrd_strdup(x->request->url));
    for (int hop = 0;; hop++) {
        bool follow = false;
        LRD_TRY(perform(x, url, &next));
        if (next == NULL)
            break;
        LRD_CHECK(hop < MAX_HOPS, LRD_ERR_IO, "%.*s: more than %d redirects",
                  shown(x->request->url), x->request->url, MAX_HOPS);
        LRD_TRY(may_follow(x, next, &follow));
        if (!follow) {
            x->reply->location = next;
            next = NULL;
            break;
        }
        lrd_free(url);
        url = next;
        next = NULL;
    }
out:
    lrd_free(next);
    lrd_free(url);
    return status;
}

static bool is_transient(long code)
{
    return code == 408 || code == 429 || code >= 500;
}

/* Whether what happened may pass, and why it is tried again. */
static bool may_pass(const exchange_t *x, lrd_status_t status, char *why, size_t size)
{
    const char *url = x->request->url;
    if (status == LRD_ERR_NETWORK)
        snprintf(why, size, "%s", lrd_error_text(status));
    else if (status == LRD_OK && is_transient(x->reply->code))
        snprintf(why, size, "%.*s: the server answered %ld%s%s", shown(url), url, x->reply->code,
                 x->reply->error_message[0] != '\0' ? ": " : "", x->reply->error_message);
    else
        return false;
    return true;
}

lrd_status_t lrd_http_send(lrd_http_t *http, const lrd_http_request_t *request,
                           lrd_http_reply_t *reply_out)
{
    lrd_status_t status = LRD_OK;
    exchange_t x = {.http = http, .request = request, .reply = reply_out};
    char why[800];
    for (int attempt = 1;; attempt++) {
        x.have = request->have != NULL ? *request->have : 0;
        status = send_once(&x);
        if (!may_pass(&x, status, why, sizeof why))
            goto out;
        if (request->have != NULL && *request->have > x.have)
            attempt = 1; /* it goes on, if in pieces */
        lrd_error_clear();
        LRD_CHECK(attempt < request->attempts, LRD_ERR_NETWORK, "%s", why);
        const int doublings = attempt - 1 < MAX_DOUBLINGS ? attempt - 1 : MAX_DOUBLINGS;
        const double wait = x.reply->retry_after >= 0 ? x.reply->retry_after : 1 << doublings;
        lrd_warn("%s; trying again in %.0f s", why, wait);
        LRD_TRY(lrd_http_pause(http, wait));
    }
out:
    if (status != LRD_OK)
        lrd_http_reply_release(reply_out);
    return status;
}
