/* report/chart.h -- lines over the updates of a run, as HTML with an inline SVG.
 *
 * The plot stretches to any width: lines are drawn in an SVG of 1000 x 1000 without aspect ratio, with strokes
 * that do not scale; text stands around it as HTML, so that it keeps its size on a phone and in print.
 * What the chart shows is in the page without any script; one that is there reads data-hover.
 */
#ifndef LRD_REPORT_CHART_H
#define LRD_REPORT_CHART_H

#include "report/axis.h"
#include "report/html.h"
#include "report/series.h"

typedef enum lrd_line_style {
    LRD_LINE_SOLID,
    LRD_LINE_FAINT, /* thin, behind the others; not in the legend's first place */
    LRD_LINE_DOTS   /* a dot at each point */
} lrd_line_style_t;

typedef struct lrd_line {
    const char *label; /* any text */
    lrd_series_t series;
    lrd_line_style_t style;
    int colour; /* 0 .. LRD_CHART_COLOURS - 1 */
} lrd_line_t;

enum { LRD_CHART_COLOURS = 12, LRD_CHART_MAX_LINES = 24 };

typedef enum lrd_chart_scale {
    LRD_SCALE_AUTO,   /* logarithmic where values span more than a factor of 8, else linear */
    LRD_SCALE_LINEAR, /* of what lies close together */
    LRD_SCALE_ZERO,   /* linear, from zero */
    LRD_SCALE_LOG2
} lrd_chart_scale_t;

typedef struct lrd_chart {
    const char *id;    /* of the element; our own */
    const char *title; /* our own, as are the following */
    const char *about; /* a few words more, or NULL */
    const char *x_label;
    const lrd_line_t *line;
    int n_lines; /* at most LRD_CHART_MAX_LINES */
    lrd_chart_scale_t scale;
    bool is_wide, names_at_lines; /* labels stand at the ends of lines, too */
    bool x_is_whole;              /* updates: no ticks between them */
    double mark;                  /* a horizontal line, if it is > 0 */
    const char *mark_label;
} lrd_chart_t;

/* Writes it; nothing where there is no number. Values that are not finite are marked at the lower edge and
 * counted below. */
lrd_status_t lrd_chart_write(const lrd_chart_t *chart, lrd_html_t *h);

#endif /* LRD_REPORT_CHART_H */
