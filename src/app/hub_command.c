/* The Hub by hand: fetch a model, an adapter or a data set, publish an adapter. */
#include "app/command.h"
#include "app/folders.h"

#include "base/log.h"
#include "base/mem.h"
#include "hub/hub.h"

static lrd_status_t put_line(const char *text)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t line = {0};
    LRD_TRY(lrd_buf_printf(&line, "%s\n", text));
    LRD_TRY(lrd_put_result(line.data, line.size));
out:
    lrd_buf_release(&line);
    return status;
}

/* The files of a split, a line each. */
static lrd_status_t download_data(lrd_hub_t *hub, const char *given)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_data_name_t name;
    lrd_names_t files = {0};
    char *folder = NULL;
    LRD_CHECK(lrd_hub_data_name_read(given, LRD_SPLIT_TRAIN, &name), LRD_ERR_ARG,
              "\"%.160s\" is not a data set of the Hub: such a name is ORG/NAME, "
              "ORG/NAME@REVISION, ORG/NAME#SPLIT or ORG/NAME#CONFIGURATION/SPLIT, as "
              "rajpurkar/squad_v2#validation",
              given);
    LRD_TRY(lrd_hub_find_data(hub, &name, false, &folder, &files));
    for (size_t i = 0; i < files.n; i++)
        LRD_TRY(put_line(files.name[i]));
out:
    lrd_names_free(&files);
    lrd_free(folder);
    return status;
}

static lrd_status_t download_folder(lrd_hub_t *hub, const char *given)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t name;
    char *folder = NULL;
    LRD_TRY(lrd_hub_name_parse(given, &name));
    LRD_TRY(lrd_hub_find(hub, &name, LRD_HUB_EITHER, &folder));
    LRD_TRY(put_line(folder));
out:
    lrd_free(folder);
    return status;
}

lrd_status_t lrd_command_download(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_t *hub = NULL;
    LRD_TRY(lrd_hub_open(app->stop, &hub));
    LRD_TRY(app->cli->is_dataset ? download_data(hub, app->cli->repo)
                                 : download_folder(hub, app->cli->repo));
out:
    lrd_hub_close(hub);
    if (status == LRD_ERR_INTERRUPTED)
        lrd_info("What is here stays: the same command goes on");
    return status;
}

lrd_status_t lrd_command_push(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = app->cli;
    lrd_hub_t *hub = NULL;
    char *url = NULL;
    LRD_TRY(lrd_hub_open(app->stop, &hub));
    LRD_TRY(lrd_hub_push(hub,
                         &(lrd_hub_push_t){.folder = cli->adapter,
                                           .repo = cli->repo,
                                           .revision = cli->revision,
                                           .message = cli->message,
                                           .is_private = cli->is_private},
                         &url));
    LRD_TRY(put_line(url));
out:
    lrd_free(url);
    lrd_hub_close(hub);
    return status;
}
