/* A plugin of another source tree: its table is of a version that no program knows. */
#include "kernels/plugin.h"

lrd_plugin_entry_t lrd_plugin_entry;

const void *lrd_plugin_entry(const lrd_plugin_host_t *host)
{
    static const lrd_ops_t ops = {.name = "stale", .abi_version = 0xffffffffu};
    (void)host;
    return &ops;
}
