/* Who computed what, and the memory it took. */
#include "report/page.h"

#include "report/pyjson.h"

#include <math.h>
#include <string.h>

enum { MOST_RANKS = 64, MOST_LAYERS = 1000, COLOURS = 6 };

static double number(const json_t *object, const char *key)
{
    double value = 0;
    return lrd_pyjson_real(object, key, &value) && isfinite(value) && value > 0 ? value : 0;
}

static void bytes_cell(lrd_html_t *h, double bytes)
{
    char text[LRD_NUMBER_BYTES] = "";
    if (bytes > 0)
        lrd_format_bytes(bytes, text);
    lrd_html_print(h, "<td class=\"num\">%s</td>", text);
}

/* The first block of a run of layers and the one behind its last; false: it is damaged. */
static bool read_span(const json_t *run, int layers, int *first_out, int *last_out)
{
    const json_int_t first = json_integer_value(json_array_get(run, 0));
    const json_int_t last = json_integer_value(json_array_get(run, 1));
    *first_out = (int)first;
    *last_out = (int)last;
    return first >= 0 && first <= last && last <= layers;
}

/* "0-6, 12-18" */
static void layers_in_words(lrd_html_t *h, const json_t *runs, int layers)
{
    size_t i;
    const json_t *run;
    bool any = false;
    json_array_foreach(runs, i, run)
    {
        int first, last;
        if (!read_span(run, layers, &first, &last) || first == last)
            continue;
        lrd_html_print(h, last - first > 1 ? "%s%d\xe2\x80\x93%d" : "%s%d", any ? ", " : "", first,
                       last - 1);
        any = true;
    }
    if (!any)
        lrd_html_raw(h, "none");
}

/* The model as a strip, this stage's layers coloured. */
static void strip(lrd_html_t *h, const json_t *runs, int layers, size_t stage)
{
    size_t i;
    const json_t *run;
    lrd_html_print(h,
                   "<svg class=\"layers\" viewBox=\"0 0 %d 1\" preserveAspectRatio=\"none\"><rect "
                   "class=\"f6\" width=\"%d\" height=\"1\" />",
                   layers, layers);
    json_array_foreach(runs, i, run)
    {
        int first, last;
        if (read_span(run, layers, &first, &last) && first < last)
            lrd_html_print(h, "<rect class=\"f%d\" x=\"%d\" width=\"%d\" height=\"1\" />",
                           (int)(stage % COLOURS), first, last - first);
    }
    lrd_html_raw(h, "</svg>");
}

static void stages(const lrd_facts_t *f, lrd_html_t *h)
{
    const json_t *stage = json_object_get(f->start, "stages"), *runs;
    const double replicas = number(f->start, "replicas");
    const double layers = number(json_object_get(f->start, "model"), "layers");
    const size_t n = json_array_size(stage);
    size_t i;
    if (n == 0 || layers < 1 || layers > MOST_LAYERS)
        return;
    if (n == 1) {
        lrd_html_print(
            h, "<p>%.0f replica%s of the whole model: every rank holds all %.0f layers.</p>\n",
            replicas, replicas == 1 ? "" : "s", layers);
        return;
    }
    lrd_html_print(h,
                   "<p>%.0f replica%s of %zu stages; rank = replica \xc3\x97 %zu + stage.</p>\n"
                   "<div class=\"card\"><table>\n<tr><th>stage</th><th>layers</th><th "
                   "style=\"width:60%%\"></th></tr>\n",
                   replicas, replicas == 1 ? "" : "s", n, n);
    json_array_foreach(stage, i, runs)
    {
        if (i == MOST_RANKS)
            break;
        lrd_html_print(h, "<tr><td>%zu</td><td>", i);
        lrd_html_raw(h, i == 0 ? "embeddings, " : "");
        layers_in_words(h, runs, (int)layers);
        lrd_html_raw(h, i == n - 1 ? ", head" : "");
        lrd_html_raw(h, "</td><td>");
        strip(h, runs, (int)layers, i);
        lrd_html_raw(h, "</td></tr>\n");
    }
    lrd_html_raw(h, "</table></div>\n");
}

static void rank_row(lrd_html_t *h, size_t r, const json_t *start, const json_t *end)
{
    const double updating = number(end, "updating");
    lrd_html_print(h, "<tr><td>%zu</td><td>", r);
    lrd_html_text(h, lrd_pyjson_text(start, "host"));
    lrd_html_raw(h, "</td><td>");
    lrd_html_text(h, lrd_pyjson_text(start, "machine"));
    lrd_html_raw(h, "</td>");
    bytes_cell(h, number(start, "weights"));
    bytes_cell(h, number(start, "activations"));
    bytes_cell(h, number(start, "rest"));
    bytes_cell(h, number(start, "room"));
    bytes_cell(h, number(end, "peak"));
    lrd_html_raw(h, "<td class=\"num\">");
    if (updating > 0)
        lrd_html_print(h, "%.1f %%", 100 * number(end, "waited") / updating);
    lrd_html_raw(h, "</td></tr>\n");
}

static void ranks(const lrd_facts_t *f, lrd_html_t *h)
{
    const json_t *start = json_object_get(f->start, "ranks"), *rank;
    const json_t *end = json_object_get(f->end, "ranks");
    const size_t n = json_array_size(start);
    size_t r;
    lrd_html_raw(
        h, "<div class=\"card\"><table id=\"ranks\">\n<tr><th>rank</th><th>host</th><th>computes "
           "with</th><th class=\"num\">weights</th><th class=\"num\">activations</th><th "
           "class=\"num\">rest</th><th class=\"num\">may use</th><th class=\"num\">peak</th><th "
           "class=\"num\">waited</th></tr>\n");
    json_array_foreach(start, r, rank)
    {
        if (r < MOST_RANKS)
            rank_row(h, r, rank, json_array_get(end, r));
    }
    lrd_html_raw(h, "</table></div>\n");
    if (n > MOST_RANKS)
        lrd_html_print(h, "<p class=\"soft\">The first %d of %zu ranks.</p>\n", MOST_RANKS, n);
    lrd_html_raw(
        h, "<p class=\"soft\">Weights, activations and the rest as they were planned; the peak "
           "is what the system counted as resident in host memory, mapped files included. Waited: "
           "share of "
           "the time of updates spent on other ranks and the network.</p>\n");
}

typedef struct part {
    const char *name;
    double bytes;
} part_t;

/* The largest first; what there are no colours for is summed up as the last. */
static int sort_parts(const json_t *memory, part_t part[COLOURS + 1], double *all_out)
{
    const char *key;
    const json_t *value;
    int n = 0;
    double all = 0;
    json_object_foreach((json_t *)memory, key, value)
    {
        double bytes;
        if (!lrd_pyjson_number(value, &bytes) || !(bytes > 0 && bytes < 1e18))
            continue;
        all += bytes;
        int at = n < COLOURS ? n++ : n;
        for (; at > 0 && part[at - 1].bytes < bytes; at--)
            if (at < COLOURS)
                part[at] = part[at - 1];
        if (at < COLOURS)
            part[at] = (part_t){key, bytes};
    }
    double rest = all;
    for (int i = 0; i < n; i++)
        rest -= part[i].bytes;
    if (rest > 0)
        part[n++] = (part_t){"others", rest};
    *all_out = all;
    return n;
}

/* One bar of bytes; its width is in proportion to `most`. */
static void memory_bar(lrd_html_t *h, const part_t *part, int n, double most)
{
    lrd_html_raw(h, "<div class=\"bar\">");
    for (int i = 0; i < n; i++)
        lrd_html_print(h, "<span class=\"b%d\" style=\"width:%.3f%%\"></span>", i,
                       100 * part[i].bytes / most);
    lrd_html_raw(h, "</div>\n<div class=\"swatches\">");
    for (int i = 0; i < n; i++) {
        char text[LRD_NUMBER_BYTES];
        lrd_format_bytes(part[i].bytes, text);
        lrd_html_print(h, "<span><span class=\"swatch b%d\"></span>", i);
        lrd_html_bytes(h, part[i].name, strlen(part[i].name), 60);
        lrd_html_print(h, " %s</span>", text);
    }
    lrd_html_raw(h, "</div>\n");
}

static void memory(const lrd_facts_t *f, lrd_html_t *h)
{
    part_t part[COLOURS + 1] = {{NULL, 0}};
    double planned;
    const double peak = number(json_array_get(json_object_get(f->end, "ranks"), 0), "peak");
    const int n = sort_parts(json_object_get(f->start, "memory"), part, &planned);
    const json_t *rank = json_array_get(json_object_get(f->start, "ranks"), 0);
    const bool on_device =
        lrd_pyjson_text(rank, "device") != NULL; /* whose memory is not the host's */
    const double most = on_device ? planned : fmax(planned, peak);
    char text[LRD_NUMBER_BYTES];
    if (n == 0)
        return;
    lrd_html_raw(h, "<h2>Memory of rank 0</h2>\n");
    lrd_format_bytes(planned, text);
    lrd_html_print(h, "<div class=\"barname\">Planned: %s</div>\n", text);
    memory_bar(h, part, n, most);
    if (peak <= 0)
        return;
    lrd_format_bytes(peak, text);
    lrd_html_print(h, "<div class=\"barname\">Peak of its host memory%s: %s</div>\n",
                   on_device ? ", beside the device's" : "", text);
    if (!on_device)
        lrd_html_print(
            h, "<div class=\"bar\"><span class=\"b6\" style=\"width:%.3f%%\"></span></div>\n",
            100 * peak / most);
}

void lrd_page_machines(const lrd_facts_t *f, lrd_html_t *h)
{
    if (json_array_size(json_object_get(f->start, "ranks")) == 0)
        return;
    lrd_html_raw(h, "<h2>Who computed what</h2>\n");
    stages(f, h);
    ranks(f, h);
    memory(f, h);
}
