/* hub/hub_card.h -- what the README.md of a data set's repository says of its files: the list "configs" of the YAML at its
 * top.
 *
 *   ---
 *   configs:
 *   - config_name: plain_text
 *     default: true
 *     data_dir: en
 *     data_files:
 *     - split: train
 *       path: plain_text/train-*
 *   ---
 *
 * data_files may also be one path or a list of them, which are then the split train. Source: the documentation of the Hub,
 * "Manual Configuration".
 */
#ifndef LRD_HUB_HUB_CARD_H
#define LRD_HUB_HUB_CARD_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

/* Files of a split: a pattern. */
typedef struct lrd_hub_rule {
    char *split, *pattern;
} lrd_hub_rule_t;

typedef struct lrd_hub_rules {
    lrd_hub_rule_t *rule; /* [n] */
    size_t n, capacity;
} lrd_hub_rules_t;

typedef struct lrd_hub_card_config {
    char *name;
    char *data_dir; /* what patterns are relative to; "": the repository */
    bool is_default;
    lrd_hub_rules_t rules; /* none: by the files' names */
} lrd_hub_card_config_t;

typedef struct lrd_hub_card {
    lrd_hub_card_config_t *config; /* [n] */
    size_t n, capacity;
} lrd_hub_card_t;

/* Of a README's text; without such a list there are no configurations. `name` stands in messages. LRD_ERR_FORMAT: the YAML
 * cannot be read, or the list is none. */
lrd_status_t lrd_hub_card_read(const char *text, size_t bytes, const char *name,
                               lrd_hub_card_t *card_out);
void lrd_hub_card_release(lrd_hub_card_t *card); /* {0} is fine */

/* Adds copies. */
lrd_status_t lrd_hub_rules_add(lrd_hub_rules_t *rules, const char *split, const char *pattern);
void lrd_hub_rules_release(lrd_hub_rules_t *rules); /* {0} is fine */

#endif /* LRD_HUB_HUB_CARD_H */
