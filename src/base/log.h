/* base/log.h -- messages for people, on standard error.
 *
 * One line a message. Rank 0 speaks for the job: other ranks print errors only (at level debug,
 * everything). A transient status line (a progress bar) may stand below the messages
 * on a terminal; see base/progress.h.
 */
#ifndef LRD_BASE_LOG_H
#define LRD_BASE_LOG_H

#include <stdbool.h>

typedef enum lrd_log_level {
    LRD_LOG_ERROR,
    LRD_LOG_WARN,
    LRD_LOG_INFO,
    LRD_LOG_DEBUG
} lrd_log_level_t;
typedef enum lrd_log_format { LRD_LOG_TEXT, LRD_LOG_JSON } lrd_log_format_t;

/* Defaults before any call: level info, text, rank 0 of 1. */
void lrd_log_set_level(lrd_log_level_t level);
void lrd_log_set_format(lrd_log_format_t format);
void lrd_log_set_rank(int rank, int size);

/* Names as on the command line ("error", "warn", "info", "debug"; "text", "json").
 * False: no such name. */
bool lrd_log_level_parse(const char *name, lrd_log_level_t *level_out);
bool lrd_log_format_parse(const char *name, lrd_log_format_t *format_out);

/* True when a message of this level would be printed by this rank. */
bool lrd_log_enabled(lrd_log_level_t level);

void lrd_log(lrd_log_level_t level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define lrd_error(...) lrd_log(LRD_LOG_ERROR, __VA_ARGS__)
#define lrd_warn(...)  lrd_log(LRD_LOG_WARN, __VA_ARGS__)
#define lrd_info(...)  lrd_log(LRD_LOG_INFO, __VA_ARGS__)
#define lrd_debug(...) lrd_log(LRD_LOG_DEBUG, __VA_ARGS__)

/* The first 32 warnings that this process has printed, cut at LRD_LOG_WARNING_BYTES - 1 bytes: the i-th
 * from 0 into text; false: there is none. */
enum { LRD_LOG_WARNING_BYTES = 512 };
bool lrd_log_warning(int i, char text[LRD_LOG_WARNING_BYTES]);

/* The transient line below the messages: drawn again after each message; NULL removes it. Only on a
 * terminal and in text format; elsewhere a no-op. The text is copied, cut at 512 bytes. */
void lrd_log_status_line(const char *text);

/* True when standard error is seen on a terminal and the format is text: transient lines and colours
 * make sense. LRD_TERMINAL_COLUMNS says so of a pipe that leads to one. */
bool lrd_log_is_terminal(void);

#endif /* LRD_BASE_LOG_H */
