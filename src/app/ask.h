/* app/ask.h -- what `generate` and `eval` share of the command line: how tokens are chosen. */
#ifndef LRD_APP_ASK_H
#define LRD_APP_ASK_H

#include "app/folders.h"
#include "infer/generator.h"

/* The sampling that the options ask for. LRD_ERR_ARG: one that does nothing without --do-sample. */
lrd_status_t lrd_ask_sampling(const lrd_cli_t *cli, lrd_sampling_t *sampling_out);

/* An adapter that was named as "NAME=DIR" or "DIR". DIR may be a name of the Hub. */
typedef struct lrd_ask_adapter {
    char *name; /* NULL: as its folder is called */
    char *folder;
} lrd_ask_adapter_t;

/* Collective, where comm is not NULL. */
lrd_status_t lrd_ask_find_adapter(const lrd_app_t *app, lrd_comm_t *comm, const char *option,
                                  lrd_ask_adapter_t *adapter_out);
void lrd_ask_adapter_release(lrd_ask_adapter_t *adapter); /* {0} is fine */

#endif /* LRD_APP_ASK_H */
