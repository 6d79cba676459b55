#include "report/report.h"

#include "base/mem.h"
#include "base/version.h"
#include "report/page.h"

#include <stdio.h>
#include <string.h>

static lrd_status_t one_run(const lrd_facts_t *f, lrd_html_t *h)
{
    lrd_status_t status = LRD_OK;
    lrd_page_begin(h, f->name);
    LRD_TRY(lrd_page_head(f, h));
    LRD_TRY(lrd_page_curves(f, h));
    lrd_page_answers(f, h);
    lrd_page_machines(f, h);
    lrd_page_kept(f, h);
    lrd_page_remarks(f, h);
    LRD_TRY(lrd_page_settings(f, h));
out:
    return status;
}

static lrd_status_t several_runs(const lrd_facts_t *f, int n, lrd_html_t *h)
{
    char title[32];
    snprintf(title, sizeof title, "%d runs", n);
    lrd_page_begin(h, title);
    return lrd_page_compare(f, n, h);
}

/* Where two runs have one name, a/out and b/out, each has its folder's instead. */
static lrd_status_t tell_apart(lrd_facts_t *f, size_t n)
{
    lrd_status_t status = LRD_OK;
    bool same[LRD_REPORT_MOST_RUNS] = {false};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++)
            same[i] = same[i] || (k != i && strcmp(f[i].name, f[k].name) == 0);
    }
    for (size_t i = 0; i < n; i++) {
        if (!same[i])
            continue;
        char *name;
        LRD_ALLOC(name, lrd_strdup(f[i].folder));
        lrd_free(f[i].name);
        f[i].name = name;
    }
out:
    return status;
}

lrd_status_t lrd_report_print(const char *const *folder, size_t n, lrd_buf_t *page)
{
    lrd_status_t status = LRD_OK;
    lrd_facts_t facts[LRD_REPORT_MOST_RUNS] = {{0}};
    lrd_html_t h = {.buf = page};
    LRD_CHECK(n >= 1 && n <= LRD_REPORT_MOST_RUNS, LRD_ERR_ARG,
              "a report is of 1 to %d runs, not %zu", LRD_REPORT_MOST_RUNS, n);
    for (size_t i = 0; i < n; i++)
        LRD_TRY(lrd_facts_read(folder[i], &facts[i]));
    LRD_TRY(tell_apart(facts, n));
    LRD_TRY(n == 1 ? one_run(facts, &h) : several_runs(facts, (int)n, &h));
    lrd_html_raw(&h, "<footer>Made by lora-dist " LRD_VERSION " from the files of the run"
                     " (docs/report.md says which).</footer>\n");
    lrd_page_end(&h);
    status = h.status;
out:
    for (size_t i = 0; i < n && i < LRD_REPORT_MOST_RUNS; i++)
        lrd_facts_close(&facts[i]);
    return status;
}
