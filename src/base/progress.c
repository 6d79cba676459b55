#include "base/progress.h"

#include "base/beat.h"
#include "base/clock.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const double terminal_interval = 0.1, log_interval = 10.0;

void lrd_format_duration(double seconds, char text[24])
{
    const int s = seconds > 0 && seconds < 1e9 ? (int)(seconds + 0.5) : 0;
    if (s >= 3600)
        snprintf(text, 24, "%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, 24, "%d:%02d", s / 60, s % 60);
}

/* Without the bar itself when bar_width is 0. */
static void format(const lrd_progress_t *p, int64_t done, const char *note, int bar_width,
                   char *line, size_t size)
{
    const double elapsed = lrd_clock_seconds() - p->begun;
    const double rate = elapsed > 0 ? (double)(done - p->start) / elapsed : 0;
    char bar[64] = "", left[40] = "", amount[64];
    if (p->total > 0) {
        const double share = (double)done / (double)p->total;
        const int filled = (int)(share * bar_width);
        if (bar_width > 0)
            snprintf(bar, sizeof bar, " %3d%% |%.*s%*s|", (int)(100 * share), filled,
                     "########################################", bar_width - filled, "");
        if (rate > 0) {
            char duration[24];
            lrd_format_duration((double)(p->total - done) / rate, duration);
            snprintf(left, sizeof left, "  %s left", duration);
        }
        snprintf(amount, sizeof amount, "%" PRId64 "/%" PRId64, done, p->total);
    } else {
        snprintf(amount, sizeof amount, "%" PRId64, done);
    }
    snprintf(line, size, "%s%s %s %s  %.*f/s%s%s%s", p->what, bar, amount, p->unit,
             rate < 10 ? 2 : 0, rate, left, note != NULL ? "  " : "", note != NULL ? note : "");
}

void lrd_progress_begin(lrd_progress_t *p, const char *what, const char *unit, int64_t start,
                        int64_t total)
{
    const double now = lrd_clock_seconds();
    *p = (lrd_progress_t){
        .what = what, .unit = unit, .total = total, .start = start, .begun = now, .drawn = now};
}

void lrd_progress_update(lrd_progress_t *p, int64_t done, const char *note)
{
    lrd_beat();
    if (!lrd_log_enabled(LRD_LOG_INFO))
        return;
    const bool terminal = lrd_log_is_terminal();
    const double now = lrd_clock_seconds();
    if (now - p->drawn < (terminal ? terminal_interval : log_interval))
        return;
    p->drawn = now;
    char line[400];
    format(p, done, note, terminal ? 24 : 0, line, sizeof line);
    if (terminal)
        lrd_log_status_line(line);
    else if (!p->quiet)
        lrd_info("%s", line);
}

void lrd_progress_end(lrd_progress_t *p, int64_t done)
{
    if (!lrd_log_enabled(LRD_LOG_INFO))
        return;
    lrd_log_status_line(NULL);
    if (p->quiet)
        return;
    const double elapsed = lrd_clock_seconds() - p->begun;
    char duration[24];
    lrd_format_duration(elapsed, duration);
    lrd_info("%s: %" PRId64 " %s in %s", p->what, done, p->unit, duration);
}
