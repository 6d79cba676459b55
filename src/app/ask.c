#include "app/ask.h"

#include "base/file.h"
#include "base/mem.h"

#include <string.h>

lrd_status_t lrd_ask_sampling(const lrd_cli_t *cli, lrd_sampling_t *sampling_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_sampling_t neutral = lrd_sampling_default();
    lrd_sampling_t s = {.do_sample = cli->do_sample,
                        .temperature = (float)cli->temperature,
                        .top_p = (float)cli->top_p,
                        .min_p = (float)cli->min_p,
                        .repetition_penalty = (float)cli->repetition_penalty,
                        .top_k = cli->top_k,
                        .seed = (uint64_t)cli->seed};
    LRD_CHECK(s.do_sample || (s.temperature == neutral.temperature && s.top_k == neutral.top_k &&
                              s.top_p == neutral.top_p && s.min_p == neutral.min_p),
              LRD_ERR_ARG,
              "--temperature, --top-k, --top-p and --min-p choose among tokens: they need "
              "--do-sample (without it the most probable token is taken)");
    *sampling_out = s;
out:
    return status;
}

/* One that was given no name, and is of the Hub, is called as its repository: its folder is named after a commit. */
static lrd_status_t name_adapter(const char *option, const char *given, lrd_ask_adapter_t *a)
{
    lrd_status_t status = LRD_OK;
    lrd_hub_name_t repo;
    if (given != option)
        LRD_ALLOC(a->name, lrd_strndup(option, (size_t)(given - option) - 1));
    else if (strcmp(a->folder, given) != 0 && lrd_hub_name_read(given, &repo))
        LRD_ALLOC(a->name, lrd_strdup(lrd_path_base(repo.repo)));
out:
    return status;
}

lrd_status_t lrd_ask_find_adapter(const lrd_app_t *app, lrd_comm_t *comm, const char *option,
                                  lrd_ask_adapter_t *adapter_out)
{
    lrd_status_t status = LRD_OK;
    lrd_ask_adapter_t a = {.name = NULL};
    const char *equals = strchr(option, '='), *given = option;
    if (equals != NULL && !lrd_folder_exists(option)) /* a folder may have '=' in its name */
        given = equals + 1;
    LRD_TRY(lrd_find_adapter(app, comm, given, &a.folder));
    status = name_adapter(option, given, &a);
    LRD_TRY(comm != NULL ? lrd_agree(comm, status) : status);
    *adapter_out = a;
    a = (lrd_ask_adapter_t){.name = NULL};
out:
    lrd_ask_adapter_release(&a);
    return status;
}

void lrd_ask_adapter_release(lrd_ask_adapter_t *adapter)
{
    lrd_free(adapter->name);
    lrd_free(adapter->folder);
    *adapter = (lrd_ask_adapter_t){.name = NULL};
}
