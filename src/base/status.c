#include "base/status.h"

#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static struct {
    pthread_mutex_t lock;
    char text[2048]; /* empty: nothing recorded */
} recorded = {.lock = PTHREAD_MUTEX_INITIALIZER};

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
    char text[sizeof recorded.text];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    pthread_mutex_lock(&recorded.lock);
    const int first = recorded.text[0] == '\0';
    if (first)
        memcpy(recorded.text, text, sizeof text);
    pthread_mutex_unlock(&recorded.lock);
    lrd_debug("%s:%d: %s%s", file, line, first ? "" : "(after another failure) ", text);
    return status;
}

const char *lrd_error_text(lrd_status_t status)
{
    return recorded.text[0] != '\0' ? recorded.text : lrd_status_text(status);
}

void lrd_error_clear(void)
{
    pthread_mutex_lock(&recorded.lock);
    recorded.text[0] = '\0';
    pthread_mutex_unlock(&recorded.lock);
}
