/* The Hub by hand: fetch a model or an adapter, publish an adapter. */
#include "app/command.h"

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

lrd_status_t lrd_command_download(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t name;
    lrd_hub_t *hub = NULL;
    char *folder = NULL;
    LRD_TRY(lrd_hub_name_parse(app->cli->repo, &name));
    LRD_TRY(lrd_hub_open(app->stop, &hub));
    LRD_TRY(lrd_hub_find(hub, &name, LRD_HUB_EITHER, &folder));
    LRD_TRY(put_line(folder));
out:
    lrd_free(folder);
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
