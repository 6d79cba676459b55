/* app/folders.h -- what --model, --adapter, --data and the settings name: a folder or file that is here, or a repository of
 * the Hub, which becomes one.
 *
 * Of several ranks rank 0 looks it up, so that all get the same commit; then the first rank of each host that does not see
 * rank 0's files downloads that commit, and the others of the host find it there.
 */
#ifndef LRD_APP_FOLDERS_H
#define LRD_APP_FOLDERS_H

#include "app/command.h"
#include "hub/hub.h"

/* `given` as it is where it is a folder, or no name of the Hub; else the folder of that repository. `revision` (may be
 * NULL) holds where `given` names none behind an "@". `comm` NULL: this rank alone; else collective, and all ranks return the
 * same status. lrd_free *folder_out. */
lrd_status_t lrd_find_folder(lrd_comm_t *comm, const lrd_stop_t *stop, const char *given,
                             const char *revision, lrd_hub_kind_t kind, char **folder_out);

/* The model: of --model, or else of model.name_or_path, which has to be written then. The latter names no revision behind an
 * "@": model.revision does. */
lrd_status_t lrd_find_model(const lrd_app_t *app, lrd_comm_t *comm, const lrd_settings_t *settings,
                            lrd_hub_kind_t kind, char **folder_out);

/* An adapter; *folder_out is NULL where `given` is. */
lrd_status_t lrd_find_adapter(const lrd_app_t *app, lrd_comm_t *comm, const char *given,
                              char **folder_out);

#define LRD_SPLIT_TRAIN "train"
#define LRD_SPLIT_EVAL  "validation"

/* Data: the files of a split of a data set of the Hub (lrd_hub_data_name_read), which is `split` where `given` names none;
 * or no files where `given` is NULL, or a file that is here. `comm` as above. LRD_ERR_IO: neither file nor name.
 * lrd_names_free. */
lrd_status_t lrd_find_data(lrd_comm_t *comm, const lrd_stop_t *stop, const char *given,
                           const char *split, lrd_names_t *files_out);

/* The same of data.train_file and data.eval_file. */
typedef struct lrd_data_files {
    lrd_names_t train, eval;
} lrd_data_files_t;
lrd_status_t lrd_find_data_files(lrd_comm_t *comm, const lrd_stop_t *stop,
                                 const lrd_settings_t *settings, lrd_data_files_t *files_out);
void lrd_data_files_release(lrd_data_files_t *files); /* {0} is fine */

/* As readers of data take them: NULL where there are none, and the file is as it was named. */
const lrd_names_t *lrd_data_files_or_null(const lrd_names_t *files);

#endif /* LRD_APP_FOLDERS_H */
