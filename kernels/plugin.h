/* kernels/plugin.h -- back ends in shared libraries, opened at run time, so that one program runs
 * where the library's own libraries (CUDA's) are not installed.
 *
 * A plugin exports one function, lrd_plugin_entry, and needs nothing of the program but what it is
 * handed there.
 */
#ifndef LRD_KERNELS_PLUGIN_H
#define LRD_KERNELS_PLUGIN_H

#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the program lends a plugin, for as long as the process lives. */
typedef struct lrd_plugin_host {
    uint32_t abi_version; /* LRD_OPS_ABI_VERSION of the program */
    /* lrd_fail (base/status.h): causes of failures are recorded in the program. */
    lrd_status_t (*fail)(lrd_status_t status, const char *file, int line, const char *format, ...);
} lrd_plugin_host_t;

/* The plugin's function of the name LRD_PLUGIN_ENTRY. Returns its table, which lives as long as the
 * process; its abi_version may differ from the program's, which then refuses it. */
typedef const lrd_ops_t *lrd_plugin_entry_t(const lrd_plugin_host_t *host);
#define LRD_PLUGIN_ENTRY "lrd_plugin_entry"

/* Opens a plugin once per process: the file that the environment variable names, where it is set,
 * else `file` beside the program, in ../lib from there, or where the dynamic linker looks.
 * LRD_ERR_UNAVAILABLE: it cannot be opened, with the linker's reason. Not for several threads at
 * once. */
lrd_status_t lrd_plugin_open(const char *file, const char *variable, const lrd_ops_t **ops_out);

#ifdef __cplusplus
}
#endif
#endif /* LRD_KERNELS_PLUGIN_H */
