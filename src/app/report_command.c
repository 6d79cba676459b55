/* One page about one run or several. */
#include "app/command.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "report/report.h"

#include <string.h>

lrd_status_t lrd_command_report(lrd_app_t *app)
{
    lrd_status_t status = LRD_OK;
    const lrd_cli_t *cli = app->cli;
    lrd_buf_t page = {0};
    char *path = NULL;
    LRD_TRY(lrd_report_print(cli->folders.text, cli->folders.n, &page));
    app->work_began = true;
    if (cli->out != NULL && strcmp(cli->out, "-") == 0) {
        status = lrd_put_result(page.data, page.size);
        goto out;
    }
    if (cli->out != NULL)
        LRD_ALLOC(path, lrd_strdup(cli->out));
    else
        LRD_ALLOC(path, lrd_path_join(cli->folders.text[0], "report.html"));
    LRD_TRY(lrd_file_write(path, page.data, page.size));
    lrd_info("Wrote %s", path);
out:
    lrd_free(path);
    lrd_buf_release(&page);
    return status;
}
