/* hub/hub_call.h -- what src/hub shares inside: an open hub, and calls of its interface. */
#ifndef LRD_HUB_HUB_CALL_H
#define LRD_HUB_HUB_CALL_H

#include "hub/http.h"
#include "hub/hub.h"

enum {
    LRD_HUB_ATTEMPTS = 5,
    LRD_HUB_FIRST_ATTEMPTS = 3 /* of what may be a folder that is not there */
};

struct lrd_hub {
    lrd_hub_config_t config;
    lrd_http_t *http;
    const lrd_stop_t *stop;
};

/* What an answer with an error code means, in words that say what to do: never LRD_OK. `revision` and `path` (may be
 * NULL) are what was asked for of `repo`. */
lrd_status_t lrd_hub_refuse(const lrd_hub_t *hub, const lrd_http_reply_t *reply, const char *repo,
                            const char *revision, const char *path);

/* "<endpoint><before><text, quoted><after>"; text may be NULL. lrd_free it. */
lrd_status_t lrd_hub_url(const lrd_hub_t *hub, const char *before, const char *text,
                         const char *after, char **url_out);

#endif /* LRD_HUB_HUB_CALL_H */
