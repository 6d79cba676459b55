/* What a report is made of: two bytes tell how much of the input is run.jsonl, two more how much of the rest is
 * trainer_state.json; what is left is an evaluation. Of all of it a page is made, twice, alone and beside itself; it is UTF-8
 * without control characters, and has no markup but the report's own. */
#include "fuzz/fuzz_folder.h"

#include "base/log.h"
#include "base/utf8.h"
#include "report/report.h"

#include <string.h>

static size_t take(const uint8_t **data, size_t *size, const char *name)
{
    if (*size < 2)
        return 0;
    size_t n = (*data)[0] + 256u * (*data)[1];
    *data += 2;
    *size -= 2;
    n = n < *size ? n : *size;
    fuzz_folder_put(name, *data, n);
    *data += n;
    *size -= n;
    return n;
}

static size_t count(const char *page, const char *words)
{
    size_t n = 0;
    for (const char *at = page; (at = strstr(at, words)) != NULL; at++)
        n++;
    return n;
}

static void check_page(const lrd_buf_t *page)
{
    size_t opened = 0, closed = 0;
    FUZZ_CHECK(strlen(page->data) == page->size);
    for (size_t at = 0; at < page->size;) {
        int32_t code;
        const size_t n = lrd_utf8_next(page->data + at, page->size - at, &code);
        FUZZ_CHECK(code == '\n' || (code >= 0x20 && code != 0x7f));
        opened += code == '<';
        closed += code == '<' && page->data[at + 1] == '/';
        at += n;
    }
    FUZZ_CHECK(count(page->data, "<script") == 1 && count(page->data, "</html>") == 1);
    FUZZ_CHECK(opened ==
               2 * closed + count(page->data, " />") + 1); /* the document type has no end */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lrd_buf_t page = {0}, again = {0}, both = {0};
    lrd_log_set_level(LRD_LOG_ERROR);
    take(&data, &size, "run.jsonl");
    take(&data, &size, "trainer_state.json");
    fuzz_folder_put("x.evaluation.json", data, size);
    const char *folders[] = {fuzz_folder, fuzz_folder};
    FUZZ_CHECK(lrd_report_print(folders, 1, &page) == LRD_OK);
    FUZZ_CHECK(lrd_report_print(folders, 1, &again) == LRD_OK);
    FUZZ_CHECK(page.size == again.size && memcmp(page.data, again.data, page.size) == 0);
    FUZZ_CHECK(lrd_report_print(folders, 2, &both) == LRD_OK);
    check_page(&page);
    check_page(&both);
    lrd_buf_release(&both);
    lrd_buf_release(&again);
    lrd_buf_release(&page);
    lrd_error_clear();
    return 0;
}
