#include "report/html.h"

#include "base/utf8.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void keep(lrd_html_t *h, lrd_status_t status)
{
    if (h->status == LRD_OK)
        h->status = status;
}

void lrd_html_raw(lrd_html_t *h, const char *markup)
{
    if (h->status == LRD_OK)
        keep(h, lrd_buf_add_text(h->buf, markup));
}

void lrd_html_print(lrd_html_t *h, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    lrd_html_raw(h, text);
}

static bool is_allowed(int32_t code)
{
    return code >= 0x20 ? code != 0x7f && (code & 0xfffe) != 0xfffe : code == '\n' || code == '\t';
}

static const char *escape_of(int32_t code)
{
    return code == '&'        ? "&amp;"
           : code == '<'      ? "&lt;"
           : code == '>'      ? "&gt;"
           : code == '"'      ? "&quot;"
           : code == '\''     ? "&#39;"
           : code == '\n'     ? "&#10;"
           : code == '\t'     ? "&#9;"
           : is_allowed(code) ? NULL
                              : "\xef\xbf\xbd";
}

void lrd_html_bytes(lrd_html_t *h, const char *text, size_t bytes, size_t most)
{
    if (most == 0)
        most = LRD_HTML_MOST_TEXT;
    for (size_t at = 0; at < bytes && h->status == LRD_OK;) {
        int32_t code;
        const size_t n = lrd_utf8_next(text + at, bytes - at, &code);
        if (at + n > most) {
            lrd_html_raw(h, "\xe2\x80\xa6");
            return;
        }
        const char *escape = escape_of(code);
        if (escape != NULL)
            lrd_html_raw(h, escape);
        else
            keep(h, lrd_buf_add(h->buf, text + at, n));
        at += n;
    }
}

void lrd_html_text(lrd_html_t *h, const char *text)
{
    if (text != NULL)
        lrd_html_bytes(h, text, strlen(text), 0);
}

/* 1234567 as "1,234,567". */
static void group_digits(double value, char text[LRD_NUMBER_BYTES])
{
    char digits[24];
    const int n = snprintf(digits, sizeof digits, "%.0f", fabs(value));
    int at = 0;
    if (value < 0)
        text[at++] = '-';
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = '\0';
}

void lrd_format_number(double value, char text[LRD_NUMBER_BYTES])
{
    const double size = fabs(value);
    if (!isfinite(value)) {
        snprintf(text, LRD_NUMBER_BYTES, "%s",
                 isnan(value) ? "NaN"
                 : value > 0  ? "Infinity"
                              : "-Infinity");
    } else if (size < 1e15 && (value == floor(value) || size >= 1000)) {
        group_digits(value, text);
    } else if (size >= 1e-3 && size < 1e15) {
        snprintf(text, LRD_NUMBER_BYTES, "%.*f", 3 - (int)floor(log10(size)), value);
        char *end = text + strlen(text);
        while (end[-1] == '0')
            end--;
        end[end[-1] == '.' ? -1 : 0] = '\0';
    } else {
        snprintf(text, LRD_NUMBER_BYTES, "%.4g", value);
    }
}

void lrd_format_bytes(double bytes, char text[LRD_NUMBER_BYTES])
{
    static const char *const unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    int power = 0;
    while (bytes >= 1024 && power < 4) {
        bytes /= 1024;
        power++;
    }
    snprintf(text, LRD_NUMBER_BYTES, "%.*f %s", power > 0 && bytes < 10, bytes, unit[power]);
}

void lrd_format_seconds(double seconds, char text[LRD_NUMBER_BYTES])
{
    if (!isfinite(seconds) || seconds > 1e12) {
        lrd_format_number(seconds, text);
        return;
    }
    const int64_t whole = (int64_t)(seconds + 0.5);
    if (seconds < 0.0995)
        snprintf(text, LRD_NUMBER_BYTES, "%.3g ms", seconds * 1e3);
    else if (seconds < 59.95)
        snprintf(text, LRD_NUMBER_BYTES, "%.*f s", seconds < 0.995 ? 2 : 1, seconds);
    else if (whole < 3600)
        snprintf(text, LRD_NUMBER_BYTES, "%d min %02d s", (int)(whole / 60), (int)(whole % 60));
    else
        snprintf(text, LRD_NUMBER_BYTES, "%lld h %02d min", (long long)(whole / 3600),
                 (int)(whole % 3600 / 60));
}

void lrd_html_number(lrd_html_t *h, double value)
{
    char text[LRD_NUMBER_BYTES];
    lrd_format_number(value, text);
    lrd_html_raw(h, text);
}
