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

lrd_status_t lrd_ask_adapter(const char *option, char **name_out, const char **folder_out)
{
    lrd_status_t status = LRD_OK;
    const char *equals = strchr(option, '=');
    *name_out = NULL;
    *folder_out = option;
    /* A folder may have '=' in its name. */
    if (equals == NULL || lrd_folder_exists(option))
        goto out;
    LRD_ALLOC(*name_out, lrd_strndup(option, (size_t)(equals - option)));
    *folder_out = equals + 1;
out:
    return status;
}
