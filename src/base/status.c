#include "base/status.h"

#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char recorded[LRD_ERROR_BYTES]; /* empty: nothing */

const char *lrd_status_text(lrd_status_t status)
{
    switch (status) {
#define X(name, value, text) \
    case name:               \
        return text;
        LRD_STATUS_LIST(X)
#undef X
    }
    return "unknown status";
}

lrd_status_t lrd_fail(lrd_status_t status, const char *file, int line, const char *format, ...)
{
    char text[LRD_ERROR_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    const int first = recorded[0] == '\0';
    if (first)
        memcpy(recorded, text, sizeof text);
    lrd_debug("%s:%d: %s%s", file, line, first ? "" : "(after another failure) ", text);
    return status;
}

const char *lrd_error_text(lrd_status_t status)
{
    return recorded[0] != '\0' ? recorded : lrd_status_text(status);
}

void lrd_error_clear(void)
{
    recorded[0] = '\0';
}
