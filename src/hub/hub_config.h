/* hub/hub_config.h -- what the environment says about the Hub, in huggingface_hub's own variables:
 *
 *   HF_ENDPOINT                                  the server; https://huggingface.co
 *   HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME        the cache: $HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub
 *   HF_TOKEN, HF_TOKEN_PATH                      who one is; else the file $HF_HOME/token
 *   HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE         1: no server is asked
 *   HF_HUB_DOWNLOAD_TIMEOUT                      seconds without an answer or a byte; 10
 *
 * The token stands nowhere but in the header of a request. It is never printed or written.
 */
#ifndef LRD_HUB_HUB_CONFIG_H
#define LRD_HUB_HUB_CONFIG_H

#include "base/status.h"

#include <stdbool.h>

typedef struct lrd_hub_config {
    char *endpoint; /* without "/" at its end */
    char *cache;    /* folder; need not be there */
    char *token;    /* NULL: none */
    bool offline;
    long timeout_seconds;
} lrd_hub_config_t;

/* LRD_ERR_CONFIG: a variable cannot be used. Token files that are not there count as none. */
lrd_status_t lrd_hub_config_read(lrd_hub_config_t *config_out);
void lrd_hub_config_release(lrd_hub_config_t *config); /* {0} is fine; overwrites the token */

#endif /* LRD_HUB_HUB_CONFIG_H */
