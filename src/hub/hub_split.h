/* hub/hub_split.h -- which files of a data set's repository are a split of it, as the Python package datasets finds them: what
 * its card says (hub/hub_card.h), else by names.
 *
 *   data/train-00000-of-00002.parquet    data/SPLIT-NNNNN-of-NNNNN*.*, where there is any such file; else
 *   en/train/a.jsonl, train-1/b.json     a folder's name with the word train, validation, test or the like; else
 *   train.jsonl, my-dev_2.json           a file's; else
 *   alpaca.json                          all files are the split train
 *
 * Source: datasets/data_files.py and load.py. Not looked at are hidden files, folders that begin with "__", and what is no
 * data; of files of several kinds the most count.
 */
#ifndef LRD_HUB_HUB_SPLIT_H
#define LRD_HUB_HUB_SPLIT_H

#include "base/file.h"
#include "hub/hub_card.h"
#include "hub/hub_name.h"

/* `path` are the files of the repository; *files_out, in the order in which they are read (lrd_names_free). *complete_out:
 * by their names none can be missing, where `path` are only those that are here. LRD_ERR_CONFIG: there is no such
 * configuration or split, and which there are. LRD_ERR_UNSUPPORTED: files of other kinds. LRD_ERR_FORMAT: the card names what is not there. */
lrd_status_t lrd_hub_split_find(const lrd_hub_card_t *card, const lrd_names_t *path,
                                const lrd_hub_data_name_t *name, lrd_names_t *files_out,
                                bool *complete_out);

/* Whether a path is one that the pattern describes: "*" and "?" stand for characters of one part, "[a-z]" for one of these,
 * "**" for any number of parts, at the end for one or more. */
bool lrd_hub_pattern_matches(const char *pattern, const char *path);

#endif /* LRD_HUB_HUB_SPLIT_H */
