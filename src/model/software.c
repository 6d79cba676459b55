#include "model/software.h"

#include "comm/comm.h"

#include <gnu/libc-version.h>
#include <hdf5.h>
#include <oniguruma.h>
#include <stdio.h>
#include <string.h>

#ifdef __clang__
static const char compiler[] = __VERSION__; /* which says that it is clang's */
#else
static const char compiler[] = "gcc " __VERSION__;
#endif

void lrd_software_list(lrd_software_fact_t *fact, void *context)
{
    char text[96];
    unsigned major, minor, release;
    fact(context, "compiler", compiler);
    fact(context, "C library", gnu_get_libc_version());
    lrd_comm_library(text);
    fact(context, "MPI", text);
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    fact(context, "HDF5", text);
    fact(context, "Oniguruma", onig_version());
}

/* Lines "name<tab>value". */
void lrd_software_list_backend(lrd_backend_t *backend, lrd_software_fact_t *fact, void *context)
{
    char text[LRD_SOFTWARE], *rest = text;
    lrd_backend_software(backend, text);
    for (char *line = strsep(&rest, "\n"); line != NULL; line = strsep(&rest, "\n")) {
        char *value = line;
        const char *name = strsep(&value, "\t");
        if (value != NULL)
            fact(context, name, value);
    }
}
