/* Linked into every plugin, not into the program. C that is also C++: the emulated device compiles it as
 * such. */
#include "kernels/plugin.h"

#include <stdarg.h>
#include <stdio.h>

static const lrd_plugin_host_t *program;

void lrd_plugin_attach(const lrd_plugin_host_t *host)
{
    program = host;
}

/* This library's lrd_fail: it hands the cause to the program. */
lrd_status_t lrd_fail(lrd_status_t status, const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return program->fail(status, file, line, "%s", text);
}
