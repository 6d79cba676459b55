/* hub/hub_name.h -- names that come from outside: repositories, revisions, files in them. */
#ifndef LRD_HUB_HUB_NAME_H
#define LRD_HUB_HUB_NAME_H

#include "base/status.h"

#include <stdbool.h>

enum { LRD_HUB_REPO_BYTES = 98, LRD_HUB_REVISION_BYTES = 200, LRD_HUB_COMMIT_HEX = 41 };

typedef struct lrd_hub_name {
    char repo[LRD_HUB_REPO_BYTES];         /* "ORG/NAME" */
    char revision[LRD_HUB_REVISION_BYTES]; /* branch, tag or commit; "": none was named */
    bool is_data;                          /* a data set's repository, else a model's */
} lrd_hub_name_t;

/* A split of a data set. */
enum { LRD_HUB_WORD_BYTES = 128 };
typedef struct lrd_hub_data_name {
    lrd_hub_name_t repo; /* "ORG/NAME", or "NAME" alone, as the first data sets were called */
    char config[LRD_HUB_WORD_BYTES]; /* "": the default one */
    char split[LRD_HUB_WORD_BYTES];
} lrd_hub_data_name_t;

/* Reads "ORG/NAME", "NAME@REVISION", "ORG/NAME#SPLIT", "ORG/NAME@REVISION#CONFIGURATION/SPLIT"; `split` holds where none is
 * named. False: it is none, such as a path of other depth. */
bool lrd_hub_data_name_read(const char *text, const char *split, lrd_hub_data_name_t *name_out);

/* Reads "ORG/NAME" or "ORG/NAME@REVISION". False: it is none, such as a path of other depth. */
bool lrd_hub_name_read(const char *text, lrd_hub_name_t *name_out);

/* The same, or LRD_ERR_ARG, which says how names look. */
lrd_status_t lrd_hub_name_parse(const char *text, lrd_hub_name_t *name_out);

/* A whole commit hash: such a revision never changes. */
bool lrd_hub_is_commit(const char *revision);

/* A relative path that stays where it is put: no "..", no empty part, no control character. */
bool lrd_hub_is_safe_path(const char *path);

/* One part of such a path that a server may name a file in our cache by: letters, digits, "-_.". */
bool lrd_hub_is_safe_tag(const char *tag);

#endif /* LRD_HUB_HUB_NAME_H */
