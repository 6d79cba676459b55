#include "kernels/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The folder that the program lies in; empty when the system does not say. */
static void own_folder(char folder[PATH_MAX])
{
    const ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
}

static void *open_library(const char *file, const char *variable)
{
    const char *named = getenv(variable);
    char folder[PATH_MAX], path[PATH_MAX + 256];
    if (named != NULL)
        return dlopen(named, RTLD_NOW | RTLD_LOCAL);
    own_folder(folder);
    static const char *const places[] = {"/", "/../lib/"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s%s%s", folder, places[i], file);
        if (access(path, R_OK) == 0)
            return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    return dlopen(file, RTLD_NOW | RTLD_LOCAL);
}

lrd_status_t lrd_plugin_open(const lrd_plugin_t *plugin, const void **table_out)
{
    static const lrd_plugin_host_t host = {lrd_fail};
    lrd_status_t status = LRD_OK;
    lrd_plugin_entry_t *entry = NULL;
    uint32_t version;
    void *library = open_library(plugin->file, plugin->variable);
    const char *named = getenv(plugin->variable);
    const char *file = named != NULL ? named : plugin->file; /* for messages */
    LRD_CHECK(library != NULL, LRD_ERR_UNAVAILABLE, "%s", dlerror());
    void *symbol = dlsym(library, plugin->entry);
    LRD_CHECK(symbol != NULL, LRD_ERR_UNAVAILABLE, "%s has no %s", file, plugin->entry);
    memcpy(&entry, &symbol, sizeof entry); /* ISO C knows no cast from data to function */
    const void *table = entry(&host);
    memcpy(&version, table, sizeof version);
    LRD_CHECK(version == plugin->abi_version, LRD_ERR_UNAVAILABLE,
              "%s was built for version %u of %s, this program has version %u: build both from one "
              "source tree",
              file, version, plugin->header, plugin->abi_version);
    *table_out = table;
    library = NULL; /* kept: its functions are in use from now on */
out:
    if (library != NULL)
        dlclose(library);
    return status;
}
