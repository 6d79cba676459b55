/* report/html.h -- writing a page: text of files is escaped, numbers are for people.
 *
 * The page is HTML that is also well-formed XML. Errors (no memory only) are kept in the writer and
 * returned once, by its status.
 */
#ifndef LRD_REPORT_HTML_H
#define LRD_REPORT_HTML_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lrd_html {
    lrd_buf_t *buf; /* borrowed: output is appended */
    lrd_status_t status;
} lrd_html_t;

/* Our own markup; what comes from outside goes through lrd_html_text. */
void lrd_html_raw(lrd_html_t *h, const char *markup);
void lrd_html_print(lrd_html_t *h, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Any bytes, as the content of an element or of an attribute in double quotes: escaped, and what is not
 * UTF-8 or not allowed in XML as U+FFFD. NULL: nothing. `most` cuts it after so many bytes, with an
 * ellipsis; 0: LRD_HTML_MOST_TEXT. */
enum { LRD_HTML_MOST_TEXT = 4000 };
void lrd_html_text(lrd_html_t *h, const char *text);
void lrd_html_bytes(lrd_html_t *h, const char *text, size_t bytes, size_t most);

/* Numbers for people, text[40]: at most four digits, and all of a whole number's: "0.4132", "12,345", "3.2e-7",
 * "NaN"; "148 KiB"; "1 h 02 min", "3.2 s". */
enum { LRD_NUMBER_BYTES = 40 };
void lrd_format_number(double value, char text[LRD_NUMBER_BYTES]);
void lrd_format_bytes(double bytes, char text[LRD_NUMBER_BYTES]);
void lrd_format_seconds(double seconds, char text[LRD_NUMBER_BYTES]);

/* The same into the page. */
void lrd_html_number(lrd_html_t *h, double value);

#endif /* LRD_REPORT_HTML_H */
