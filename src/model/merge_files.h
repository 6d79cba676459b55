/* model/merge_files.h -- where a merged model goes, and what there is in its folder beside the
 * weights. Included by merge.c only. */
#ifndef LRD_MODEL_MERGE_FILES_H
#define LRD_MODEL_MERGE_FILES_H

#include "model/weights_files.h"

#include <stdint.h>

/* LRD_ERR_ARG: something is at that place, and is no empty folder. */
lrd_status_t lrd_merge_check_empty(const char *folder);

/* `out` without links and trailing slashes. LRD_ERR_ARG: it is a file, is not empty, lies in the
 * model, or building it would touch the model or the adapter. */
lrd_status_t lrd_merge_place(const char *model, const char *adapter, const char *out,
                             char **resolved_out);

/* The files of the base's folder that the result has too, the index of its shards included: not its
 * card, not an adapter beside it, no weights. */
lrd_status_t lrd_merge_list_files(const lrd_weights_files_t *files, lrd_names_t *names_out,
                                  uint64_t *bytes_out);

/* Copies them. */
lrd_status_t lrd_merge_copy_files(const char *model, const lrd_names_t *names, const char *folder);

/* README.md: what was merged with what. */
lrd_status_t lrd_merge_write_card(const char *folder, const char *base, const char *adapter);

#endif /* LRD_MODEL_MERGE_FILES_H */
