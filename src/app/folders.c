#include "app/folders.h"

#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* What is looked for. */
typedef struct target {
    lrd_hub_kind_t kind;
    lrd_hub_data_name_t name; /* .repo of all; the rest of LRD_HUB_SPLIT */
    lrd_names_t files;        /* of LRD_HUB_SPLIT: what was found */
} target_t;

static lrd_status_t find_target(lrd_hub_t *hub, target_t *t, bool is_here, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    if (t->kind == LRD_HUB_SPLIT && is_here)
        LRD_TRY(lrd_hub_find_data(hub, &t->name, true, folder_out, &t->files));
    else if (is_here)
        LRD_TRY(lrd_hub_find_here(hub, &t->name.repo, t->kind, folder_out));
    if (*folder_out != NULL)
        goto out;
    if (t->kind == LRD_HUB_SPLIT)
        LRD_TRY(lrd_hub_find_data(hub, &t->name, false, folder_out, &t->files));
    else
        LRD_TRY(lrd_hub_find(hub, &t->name.repo, t->kind, folder_out));
out:
    return status;
}

/* One rank's look-up; is_here: another rank of this host has made it. What goes wrong is told with what was
 * named, which may have been meant as a folder or a file. */
static lrd_status_t find_on_hub(const lrd_stop_t *stop, target_t *t, bool is_here,
                                char **folder_out)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    char why[900];
    LRD_TRY(lrd_hub_open(stop, &hub));
    LRD_TRY(find_target(hub, t, is_here, folder_out));
out:
    lrd_hub_close(hub);
    if (status == LRD_OK || status == LRD_ERR_INTERRUPTED || status == LRD_ERR_NO_MEMORY)
        return status;
    snprintf(why, sizeof why, "%s", lrd_error_text(status));
    lrd_error_clear();
    return lrd_fail(status, __FILE__, __LINE__, "no %s %s here, and as a name of the Hub: %s",
                    t->kind == LRD_HUB_SPLIT ? "file" : "folder", t->name.repo.repo, why);
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
static lrd_status_t find_together(lrd_comm_t *comm, const lrd_stop_t *stop, target_t *t,
                                  char **folder_out)
{
    lrd_status_t status = LRD_OK;
    char commit[LRD_HUB_COMMIT_HEX] = "";
    const int rank = lrd_comm_rank(comm), local = lrd_comm_local_rank(comm);
    for (int turn = 0; turn < 3; turn++) {
        const bool mine = (turn == 0 && rank == 0) || (turn == 1 && rank != 0 && local == 0) ||
                          (turn == 2 && rank != 0 && local != 0);
        if (mine)
            status = find_on_hub(stop, t, turn == 2, folder_out);
        LRD_TRY(lrd_agree_unless_stopped(comm, status, stop));
        if (turn > 0)
            continue;
        if (rank == 0)
            snprintf(commit, sizeof commit, "%s", lrd_hub_commit_of(*folder_out));
        LRD_TRY(lrd_comm_broadcast(comm, commit, sizeof commit, 0));
        snprintf(t->name.repo.revision, sizeof t->name.repo.revision, "%s", commit);
    }
out:
    return status;
}

/* By one rank, or by all. */
static lrd_status_t find_wherever(lrd_comm_t *comm, const lrd_stop_t *stop, target_t *t,
                                  char **folder_out)
{
    return comm == NULL ? find_on_hub(stop, t, false, folder_out)
                        : find_together(comm, stop, t, folder_out);
}

lrd_status_t lrd_find_folder(lrd_comm_t *comm, const lrd_stop_t *stop, const char *given,
                             const char *revision, lrd_hub_kind_t kind, char **folder_out)
{
    lrd_status_t status = LRD_OK;
    target_t target = {.kind = kind};
    bool is_name = false;
    char *folder = NULL;
    LRD_TRY(decide(comm, given, revision, &is_name, &target.name.repo));
    if (is_name)
        LRD_TRY(find_wherever(comm, stop, &target, &folder));
    else
        folder = lrd_strdup(given);
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

/* Whether it can only be meant as a file. */
static bool ends_as_file(const char *given)
{
    static const char *const end[] = {".json", ".jsonl", ".ndjson", ".parquet"};
    const char *dot = strrchr(given, '.');
    for (size_t i = 0; dot != NULL && i < sizeof end / sizeof end[0]; i++) {
        if (strcmp(dot, end[i]) == 0)
            return true;
    }
    return false;
}

lrd_status_t lrd_find_data(lrd_comm_t *comm, const lrd_stop_t *stop, const char *given,
                           const char *split, lrd_names_t *files_out)
{
    lrd_status_t status = LRD_OK;
    target_t target = {.kind = LRD_HUB_SPLIT};
    char *folder = NULL;
    if (given == NULL)
        goto out;
    const bool is_name = !ends_as_file(given) && lrd_hub_data_name_read(given, split, &target.name);
    bool here = lrd_file_exists(given);
    if (comm != NULL)
        LRD_TRY(lrd_comm_broadcast(comm, &here, sizeof here, 0));
    if (here)
        goto out;
    LRD_CHECK(
        is_name, LRD_ERR_IO,
        "%.300s is no file here, and no name of the Hub: a data set there is called ORG/NAME, "
        "ORG/NAME@REVISION, ORG/NAME#SPLIT or ORG/NAME#CONFIGURATION/SPLIT",
        given);
    LRD_TRY(find_wherever(comm, stop, &target, &folder));
    *files_out = target.files;
    target.files = (lrd_names_t){0};
out:
    lrd_names_free(&target.files);
    lrd_free(folder);
    return status;
}

lrd_status_t lrd_find_data_files(lrd_comm_t *comm, const lrd_stop_t *stop,
                                 const lrd_settings_t *settings, lrd_data_files_t *files_out)
{
    lrd_status_t status = LRD_OK;
    lrd_data_files_t files = {.train = {0}};
    LRD_TRY(lrd_find_data(comm, stop, settings->data.train_file, LRD_SPLIT_TRAIN, &files.train));
    LRD_TRY(lrd_find_data(comm, stop, settings->data.eval_file, LRD_SPLIT_EVAL, &files.eval));
    *files_out = files;
    files = (lrd_data_files_t){.train = {0}};
out:
    lrd_data_files_release(&files);
    return status;
}

void lrd_data_files_release(lrd_data_files_t *files)
{
    lrd_names_free(&files->train);
    lrd_names_free(&files->eval);
}

const lrd_names_t *lrd_data_files_or_null(const lrd_names_t *files)
{
    return files->n > 0 ? files : NULL;
}
