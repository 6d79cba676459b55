/* kernels/plugin.h -- tables of functions in shared libraries that are opened at run time, so that one
 * program runs where the libraries behind them (CUDA's, NCCL) are not installed: back ends
 * (kernels/ops.h), and what moves device memory between ranks (comm/devcomm_table.h).
 *
 * A plugin exports one function, and needs nothing of the program but what it is handed there.
 */
#ifndef LRD_KERNELS_PLUGIN_H
#define LRD_KERNELS_PLUGIN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the program lends a plugin, for as long as the process lives. */
typedef struct lrd_plugin_host {
    /* lrd_fail (base/status.h): causes of failures are recorded in the program. */
    lrd_status_t (*fail)(lrd_status_t status, const char *file, int line, const char *format, ...);
} lrd_plugin_host_t;

/* The plugin's function. Returns its table, which lives as long as the process and begins with a
 * uint32_t: the version of the header that declares it, as the plugin was built with. */
typedef const void *lrd_plugin_entry_t(const lrd_plugin_host_t *host);
#define LRD_OPS_ENTRY "lrd_plugin_entry" /* the function's name in a back end */

typedef struct lrd_plugin {
    const char *file, *variable; /* the library; an environment variable that names another one */
    const char *entry;           /* its function */
    const char *header;          /* that declares the table, and the version of it that is meant */
    uint32_t abi_version;
} lrd_plugin_t;

/* Opens a plugin once per process: the file that the variable names, where it is set, else `file`
 * beside the program, in ../lib from there, or where the dynamic linker looks.
 * LRD_ERR_UNAVAILABLE: it cannot be opened, with the linker's reason, or is of another version. Not
 * for several threads at once. */
lrd_status_t lrd_plugin_open(const lrd_plugin_t *plugin, const void **table_out);

/* For the plugin's own side (plugin_side.c, which holds its lrd_fail): failures go to this program. */
void lrd_plugin_attach(const lrd_plugin_host_t *host);

#ifdef __cplusplus
}
#endif
#endif /* LRD_KERNELS_PLUGIN_H */
