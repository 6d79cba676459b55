/* app/ask.h -- what `generate` and `eval` share of the command line: how tokens are chosen. */
#ifndef LRD_APP_ASK_H
#define LRD_APP_ASK_H

#include "app/command.h"
#include "infer/generator.h"

/* The sampling that the options ask for. LRD_ERR_ARG: one that does nothing without --do-sample. */
lrd_status_t lrd_ask_sampling(const lrd_cli_t *cli, lrd_sampling_t *sampling_out);

/* "NAME=DIR" or "DIR": *name_out (lrd_free it) is NULL for the latter; *folder_out points into
 * option. */
lrd_status_t lrd_ask_adapter(const char *option, char **name_out, const char **folder_out);

#endif /* LRD_APP_ASK_H */
