/* hub/http.h -- requests over HTTP (libcurl): who gets the token, redirects, retries, stop.
 *
 * The token goes to the endpoint's own scheme, host and port and nowhere else, whatever a redirect or an upload link
 * says; over http only where the endpoint is this machine. Where the endpoint is https, nothing is asked over http.
 */
#ifndef LRD_HUB_HTTP_H
#define LRD_HUB_HTTP_H

#include "base/buf.h"
#include "base/stop.h"
#include "hub/hub_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lrd_http lrd_http_t;

/* config and stop are borrowed. */
lrd_status_t lrd_http_open(const lrd_hub_config_t *config, const lrd_stop_t *stop,
                           lrd_http_t **http_out);
void lrd_http_close(lrd_http_t *http); /* NULL is fine */

/* Whether there is a token that may be sent to the endpoint. */
bool lrd_http_has_token(const lrd_http_t *http);

/* Takes a piece of a file; `offset` is where in the file it belongs. A failure ends the request. */
typedef lrd_status_t lrd_http_sink_t(void *context, int64_t offset, const void *data, size_t bytes);

typedef struct lrd_http_request {
    const char *method;       /* "GET", "HEAD", "POST" or "PUT" */
    const char *url;          /* absolute */
    const char *content_type; /* NULL: none is named */
    const char *accept;       /* NULL: anything */
    const void *body;         /* of POST and PUT */
    size_t body_bytes;
    lrd_http_sink_t *sink; /* takes the body of a success; NULL: it is kept in the reply */
    void *context;         /* of sink */
    const int64_t *
        have; /* with sink: bytes of the file that are here already, which the sink counts on; NULL: 0 */
    int attempts; /* in all, without a byte of progress */
} lrd_http_request_t;

typedef struct lrd_http_reply {
    long code;
    lrd_buf_t body; /* where no sink took it; at most 16 MiB */
    char *location; /* of a HEAD that another server is to go on with; NULL: none */
    char etag
        [160]; /* without quotes; "": none. Of what a link stands for, where the server says so. */
    char plain_etag[160]; /* of this answer, as it came */
    char commit[64];
    char error_code[64];
    char error_message[300];
    int64_t size;       /* of the file; -1: not said */
    double retry_after; /* seconds; -1: not said */
} lrd_http_reply_t;
void lrd_http_reply_release(lrd_http_reply_t *reply);

/* Sends it, and again after a second, two, four... or as the server asks where that can help: no connection, a broken
 * one, 408, 429, 5xx. Any other answer, also 404, is LRD_OK. LRD_ERR_NETWORK: none of the attempts was answered;
 * LRD_ERR_INTERRUPTED: asked to stop. HEAD follows redirects on the endpoint alone. */
lrd_status_t lrd_http_send(lrd_http_t *http, const lrd_http_request_t *request,
                           lrd_http_reply_t *reply_out);

/* Waits, unless asked to stop. */
lrd_status_t lrd_http_pause(const lrd_http_t *http, double seconds);

/* Appends text as a part of a URL: letters, digits and "-._~" as they are. */
lrd_status_t lrd_http_quote(lrd_buf_t *url, const char *text);

/* Copies what a server said into a message: one line of printable ASCII, without the token. */
void lrd_http_clean(const lrd_http_t *http, const char *said, char *text, size_t size);

/* libcurl's version. */
const char *lrd_http_library(void);

#endif /* LRD_HUB_HTTP_H */
