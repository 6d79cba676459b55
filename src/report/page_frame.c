/* What every page begins and ends with. */
#include "report/page.h"

void lrd_page_begin(lrd_html_t *h, const char *title)
{
    lrd_html_raw(
        h, "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n"
           "<meta charset=\"utf-8\" />\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\" />\n"
           "<meta name=\"color-scheme\" content=\"light dark\" />\n<title>");
    lrd_html_text(h, title);
    lrd_html_raw(h, "</title>\n<style>\n");
    lrd_html_raw(h, lrd_page_style);
    lrd_html_raw(h, "</style>\n</head>\n<body>\n<main>\n");
}

void lrd_page_end(lrd_html_t *h)
{
    lrd_html_raw(h, "</main>\n<script>\n");
    lrd_html_raw(h, lrd_page_script);
    lrd_html_raw(h, "</script>\n</body>\n</html>\n");
}
