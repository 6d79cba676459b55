#include "base/log.h"

#include "base/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const format_names[] = {"text", "json"};

enum { MAX_WARNINGS = 32 };

static struct {
    pthread_mutex_t lock;
    lrd_log_level_t level;
    lrd_log_format_t format;
    int rank, size;
    char status_line[512]; /* empty: none is shown */
    char warning[MAX_WARNINGS][LRD_LOG_WARNING_BYTES];
    int n_warnings;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER, .level = LRD_LOG_INFO, .size = 1};

void lrd_log_set_level(lrd_log_level_t level)
{
    state.level = level;
}

void lrd_log_set_format(lrd_log_format_t format)
{
    state.format = format;
}

void lrd_log_set_rank(int rank, int size)
{
    state.rank = rank;
    state.size = size;
}

bool lrd_log_level_parse(const char *name, lrd_log_level_t *level_out)
{
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *level_out = (lrd_log_level_t)i;
            return true;
        }
    }
    return false;
}

bool lrd_log_format_parse(const char *name, lrd_log_format_t *format_out)
{
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *format_out = (lrd_log_format_t)i;
            return true;
        }
    }
    return false;
}

bool lrd_log_enabled(lrd_log_level_t level)
{
    if (level > state.level)
        return false;
    return state.rank == 0 || level == LRD_LOG_ERROR || state.level == LRD_LOG_DEBUG;
}

/* Of the terminal that standard error ends at; 0: it does not. mpirun puts a pipe between, so
 * launch/ranks.sh, which sees the terminal, tells its width. */
static int terminal_columns(void)
{
    struct winsize size = {.ws_col = 0};
    if (isatty(STDERR_FILENO)) {
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size);
        return size.ws_col > 0 ? size.ws_col : 80;
    }
    const char *text = getenv("LRD_TERMINAL_COLUMNS");
    const long columns = text != NULL ? strtol(text, NULL, 10) : 0;
    return columns > 0 && columns < 10000 ? (int)columns : 0;
}

bool lrd_log_is_terminal(void)
{
    return state.format == LRD_LOG_TEXT && terminal_columns() > 0;
}

/* The fewest escapes that make a JSON string; bytes of UTF-8 pass through. */
static void print_json_string(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s != '\0'; s++) {
        const unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            fprintf(f, "\\%c", c);
        else if (c < 0x20)
            fprintf(f, "\\u%04x", c);
        else
            fputc(c, f);
    }
    fputc('"', f);
}

static void erase_status_line(void)
{
    if (state.status_line[0] != '\0')
        fputs("\r\033[K", stderr);
}

static void draw_status_line(void)
{
    if (state.status_line[0] != '\0')
        fprintf(stderr, "%.*s", terminal_columns() - 1,
                state.status_line); /* a longer one would wrap */
}

void lrd_log(lrd_log_level_t level, const char *format, ...)
{
    if (!lrd_log_enabled(level))
        return;
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    pthread_mutex_lock(&state.lock);
    if (level == LRD_LOG_WARN && state.n_warnings < MAX_WARNINGS)
        snprintf(state.warning[state.n_warnings++], LRD_LOG_WARNING_BYTES, "%.*s",
                 LRD_LOG_WARNING_BYTES - 1, text);
    if (state.format == LRD_LOG_JSON) {
        fprintf(stderr, "{\"time\":%.3f,\"level\":\"%s\",\"rank\":%d,\"message\":",
                lrd_clock_unix_seconds(), level_names[level], state.rank);
        print_json_string(stderr, text);
        fputs("}\n", stderr);
    } else {
        erase_status_line();
        char who[32] = "";
        if (state.size > 1 && state.rank != 0)
            snprintf(who, sizeof who, "[rank %d] ", state.rank);
        static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
        fprintf(stderr, "%s%s%s\n", who, prefix[level], text);
        draw_status_line();
    }
    fflush(stderr);
    pthread_mutex_unlock(&state.lock);
}

bool lrd_log_warning(int i, char text[LRD_LOG_WARNING_BYTES])
{
    pthread_mutex_lock(&state.lock);
    const bool is_there = i >= 0 && i < state.n_warnings;
    if (is_there)
        memcpy(text, state.warning[i], LRD_LOG_WARNING_BYTES);
    pthread_mutex_unlock(&state.lock);
    return is_there;
}

void lrd_log_status_line(const char *text)
{
    if (!lrd_log_is_terminal())
        return;
    pthread_mutex_lock(&state.lock);
    erase_status_line();
    snprintf(state.status_line, sizeof state.status_line, "%s", text != NULL ? text : "");
    draw_status_line();
    fflush(stderr);
    pthread_mutex_unlock(&state.lock);
}
