/* hub/hub.h -- the Hugging Face Hub: models, adapters and data sets by name, adapters published.
 *
 * What is downloaded lies where huggingface_hub keeps it, and what that has downloaded is found (docs/formats.md).
 * A file appears under its name when it is whole, has the size that the server named, and the hash, where the
 * server named one. Nothing here is collective: the caller chooses who asks.
 */
#ifndef LRD_HUB_HUB_H
#define LRD_HUB_HUB_H

#include "base/file.h"
#include "base/stop.h"
#include "hub/hub_name.h"

#include <stdbool.h>

typedef struct lrd_hub lrd_hub_t;

/* Reads the environment (hub/hub_config.h); asks no server. `stop` is borrowed; NULL is fine. */
lrd_status_t lrd_hub_open(const lrd_stop_t *stop, lrd_hub_t **hub_out);
void lrd_hub_close(lrd_hub_t *hub); /* NULL is fine */

/* What a repository is wanted for. */
typedef enum lrd_hub_kind {
    LRD_HUB_MODEL,         /* config.json, tokenizer, safetensors */
    LRD_HUB_MODEL_OUTLINE, /* the same without weights */
    LRD_HUB_ADAPTER,       /* PEFT's adapter_config.json and adapter_model.safetensors */
    LRD_HUB_EITHER,        /* a model or an adapter, whichever it is */
    LRD_HUB_SPLIT          /* of a data set: lrd_hub_find_data */
} lrd_hub_kind_t;

/* The folder that holds what `kind` names of a repository, downloaded where it is not here yet; lrd_free it. A branch
 * or tag is looked up on the server each time, as transformers does; a commit that is here needs no server. Where the server
 * does not answer, what is here is used, with a warning. Other processes that want the same files wait for each other.
 *
 * LRD_ERR_IO: no such repository, revision or right to read, no room, or nothing of the kind there. LRD_ERR_NETWORK: the
 * server cannot be reached. LRD_ERR_FORMAT: it says or sends what cannot be. LRD_ERR_INTERRUPTED. */
lrd_status_t lrd_hub_find(lrd_hub_t *hub, const lrd_hub_name_t *name, lrd_hub_kind_t kind,
                          char **folder_out);

/* The same where it is here already, and no server needs to be asked: *folder_out stays NULL where it is not. Whether the
 * tokenizer is here too is not looked at. */
lrd_status_t lrd_hub_find_here(lrd_hub_t *hub, const lrd_hub_name_t *name, lrd_hub_kind_t kind,
                               char **folder_out);

/* The files of a data set's split, in the order in which they are read (lrd_names_free), and the folder of their commit, as
 * lrd_hub_find has it; the rest of the data set is not fetched. `here`: another process of this host has just fetched that commit's split; no
 * server is asked, and *folder_out stays NULL where it is not here all the same. Errors: of lrd_hub_find, and those of
 * lrd_hub_split_find (hub/hub_split.h), which says what files a split has. */
lrd_status_t lrd_hub_find_data(lrd_hub_t *hub, const lrd_hub_data_name_t *name, bool here,
                               char **folder_out, lrd_names_t *files_out);

/* The commit that a folder of lrd_hub_find is of: points into folder. */
const char *lrd_hub_commit_of(const char *folder);

/* The same of any folder: NULL where it does not lie as one of a cache does. */
const char *lrd_hub_commit_if_any(const char *folder);

typedef struct lrd_hub_push {
    const char
        *folder; /* with adapter_config.json, adapter_model.safetensors and perhaps README.md */
    const char *repo;     /* "ORG/NAME" */
    const char *revision; /* an existing branch; NULL: main */
    const char *message;  /* NULL: "Upload model", as push_to_hub has it */
    bool is_private;      /* if it is made now */
} lrd_hub_push_t;

/* "USER/<last part of path>", for a user's own account. Asks the server who the token belongs to. lrd_free it. */
lrd_status_t lrd_hub_own_repo(lrd_hub_t *hub, const char *path, char **repo_out);

/* Makes the repository unless it is there: fails early where there is no token, or no right to write. */
lrd_status_t lrd_hub_create(lrd_hub_t *hub, const lrd_hub_push_t *push);

/* The adapter's files in one commit, of those that differ from what is there. *url_out is the repository's page;
 * lrd_free it. */
lrd_status_t lrd_hub_push(lrd_hub_t *hub, const lrd_hub_push_t *push, char **url_out);

/* libcurl's version. */
const char *lrd_hub_library(void);

#endif /* LRD_HUB_HUB_H */
