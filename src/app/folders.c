#include "app/folders.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* One rank's look-up; is_here: another rank of this host has made it. What goes wrong is told with what was
 * named, which may have been meant as a folder. */
static lrd_status_t find_on_hub(const lrd_stop_t *stop, const lrd_hub_name_t *name,
                                lrd_hub_kind_t kind, bool is_here, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    char why[900];
    LRD_TRY(lrd_hub_open(stop, &hub));
    if (is_here)
        LRD_TRY(lrd_hub_find_here(hub, name, kind, folder_out));
    if (*folder_out == NULL)
        LRD_TRY(lrd_hub_find(hub, name, kind, folder_out));
out:
    lrd_hub_close(hub);
    if (status == LRD_OK || status == LRD_ERR_INTERRUPTED || status == LRD_ERR_NO_MEMORY)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    return lrd_fail(status, __FILE__, __LINE__, "no folder %s here, and as a name of the Hub: %s",
                    name->repo, why);
}

/* Whether `given` is meant as a name of the Hub, and which: rank 0 looks for a folder, so that all decide alike. */
static lrd_status_t decide(lrd_comm_t *comm, const char *given, const char *revision,
                           bool *is_name_out, lrd_hub_name_t *name_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t name = {.repo = ""};
    bool is_name = lrd_hub_name_read(given, &name), here = lrd_folder_exists(given);
    if (comm != NULL)
        LRD_TRY(lrd_comm_broadcast(comm, &here, sizeof here, 0));
    is_name = is_name && !here;
    if (is_name && name.revision[0] == '\0' && revision != NULL) {
        LRD_CHECK(lrd_hub_is_safe_path(revision) && strlen(revision) < sizeof name.revision,
                  LRD_ERR_CONFIG, "\"%.80s\" is no branch, tag or commit", revision);
        snprintf(name.revision, sizeof name.revision, "%s", revision);
    }
    *is_name_out = is_name;
    *name_out = name;
out:
    return status;
}

/* Each rank's own folder of the commit that rank 0 has found. */
static lrd_status_t find_together(lrd_comm_t *comm, const lrd_stop_t *stop, lrd_hub_name_t *name,
                                  lrd_hub_kind_t kind, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    char commit[LRD_HUB_COMMIT_HEX] = "";
    const int rank = lrd_comm_rank(comm), local = lrd_comm_local_rank(comm);
    for (int turn = 0; turn < 3; turn++) {
        const bool mine = (turn == 0 && rank == 0) || (turn == 1 && rank != 0 && local == 0) ||
                          (turn == 2 && rank != 0 && local != 0);
        if (mine)
            status = find_on_hub(stop, name, kind, turn == 2, folder_out);
        LRD_TRY(lrd_agree_unless_stopped(comm, status, stop));
        if (turn > 0)
            continue;
        if (rank == 0)
            snprintf(commit, sizeof commit, "%s", lrd_hub_commit_of(*folder_out));
        LRD_TRY(lrd_comm_broadcast(comm, commit, sizeof commit, 0));
        snprintf(name->revision, sizeof name->revision, "%s", commit);
    }
out:
    return status;
}

lrd_status_t lrd_find_folder(lrd_comm_t *comm, const lrd_stop_t *stop, const char *given,
                             const char *revision, lrd_hub_kind_t kind, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t name;
    bool is_name = false;
    char *folder = NULL;
    LRD_TRY(decide(comm, given, revision, &is_name, &name));
    if (!is_name)
        folder = lrd_strdup(given);
    else if (comm == NULL)
        LRD_TRY(find_on_hub(stop, &name, kind, false, &folder));
    else
        LRD_TRY(find_together(comm, stop, &name, kind, &folder));
    status = folder != NULL ? LRD_OK : LRD_ERR_NO_MEMORY;
    if (comm != NULL)
        status = lrd_agree(comm, status);
    LRD_TRY(status);
    *folder_out = folder;
    folder = NULL;
out:
    lrd_free(folder);
    return status;
}

lrd_status_t lrd_find_model(const lrd_app_t *app, lrd_comm_t *comm, const lrd_settings_t *settings,
                            lrd_hub_kind_t kind, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    const char *given = app->cli->model;
    lrd_hub_name_t name;
    if (given == NULL) {
        given = settings->model.name_or_path;
        LRD_TRY(lrd_settings_require(settings, LRD_KEY_model_name_or_path));
        LRD_CHECK(strchr(given, '@') == NULL || lrd_folder_exists(given) ||
                      !lrd_hub_name_read(given, &name),
                  LRD_ERR_CONFIG,
                  "model.name_or_path: \"%.160s\": the revision of a model of the Hub stands in "
                  "model.revision",
                  given);
    }
    LRD_TRY(lrd_find_folder(comm, app->stop, given, settings->model.revision, kind, folder_out));
out:
    return status;
}

lrd_status_t lrd_find_adapter(const lrd_app_t *app, lrd_comm_t *comm, const char *given,
                              char **folder_out)
{
    *folder_out = NULL;
    return given == NULL
               ? LRD_OK
               : lrd_find_folder(comm, app->stop, given, NULL, LRD_HUB_ADAPTER, folder_out);
}

static lrd_status_t check_data_file(const char *key, const char *path)
{
    lrd_status_t status = LRD_OK;
    const char *dot = path != NULL ? strrchr(lrd_path_base(path), '.') : NULL;
    if (path == NULL)
        goto out;
    const bool is_parquet = dot != NULL && strcmp(dot, ".parquet") == 0;
    LRD_CHECK(!is_parquet && (dot != NULL || lrd_file_exists(path)), LRD_ERR_UNSUPPORTED,
              "%s: %s%s. Data sets of the Hub are Parquet files, which are not read. SQuAD v2.0 as "
              "it is read is at https://rajpurkar.github.io/SQuAD-explorer/dataset/train-v2.0.json "
              "and dev-v2.0.json; any other becomes data.format: jsonl by to_json() of the Python "
              "package datasets",
              key, path, is_parquet ? "" : " is no file here");
out:
    return status;
}

lrd_status_t lrd_check_data_files(const lrd_settings_t *settings)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(check_data_file("data.train_file", settings->data.train_file));
    LRD_TRY(check_data_file("data.eval_file", settings->data.eval_file));
out:
    return status;
}
