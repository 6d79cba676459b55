#include "comm/alike.h"

#include "base/buf.h"
#include "base/mem.h"

#include <string.h>

/* A piece of text that is not its own. */
typedef struct piece {
    const char *at;
    size_t n;
} piece_t;

/* Everyone's lines. */
typedef struct world {
    const char *text;
    const size_t *offset; /* [size + 1] */
    int size;
} world_t;

static bool equals(piece_t a, piece_t b)
{
    return a.n == b.n && memcmp(a.at, b.at, a.n) == 0;
}

/* The line at *at, cut at its tab; false: there is none. */
static bool next_line(const char **at, const char *end, piece_t *what, piece_t *value)
{
    const char *newline = *at < end ? memchr(*at, '\n', (size_t)(end - *at)) : NULL;
    const char *tab = newline != NULL ? memchr(*at, '\t', (size_t)(newline - *at)) : NULL;
    if (tab == NULL)
        return false;
    *what = (piece_t){*at, (size_t)(tab - *at)};
    *value = (piece_t){tab + 1, (size_t)(newline - tab - 1)};
    *at = newline + 1;
    return true;
}

/* What rank r says of it. */
static piece_t find(const world_t *w, int r, piece_t wanted)
{
    static const char nothing[] = "nothing";
    const char *at = w->text + w->offset[r];
    piece_t what, value;
    while (next_line(&at, w->text + w->offset[r + 1], &what, &value)) {
        if (equals(what, wanted))
            return value;
    }
    return (piece_t){nothing, sizeof nothing - 1};
}

/* Ranks in a row that say the same as rank `first`. */
static int find_end(const world_t *w, piece_t what, int first)
{
    int end = first + 1;
    while (end < w->size && equals(find(w, end, what), find(w, first, what)))
        end++;
    return end;
}

/* "rank 0: on; ranks 1-3: off". */
static lrd_status_t describe(const world_t *w, piece_t what, lrd_buf_t *text)
{
    enum { MOST = 8, MOST_BYTES = 80 }; /* rows of ranks that are named, and of each value */
    lrd_status_t status = LRD_OK;
    for (int r = 0, n = 0; r < w->size; n++) {
        const int end = find_end(w, what, r);
        const piece_t value = find(w, r, what);
        if (n == MOST) {
            LRD_TRY(lrd_buf_add_text(text, "; ..."));
            break;
        }
        LRD_TRY(lrd_buf_printf(text, n > 0 ? "; rank" : "rank"));
        LRD_TRY(end - r > 1 ? lrd_buf_printf(text, "s %d-%d", r, end - 1)
                            : lrd_buf_printf(text, " %d", r));
        LRD_TRY(lrd_buf_printf(text, ": %.*s", value.n < MOST_BYTES ? (int)value.n : MOST_BYTES,
                               value.at));
        r = end;
    }
out:
    return status;
}

/* The first line of some rank that another one has not like that. */
static lrd_status_t check(const world_t *w)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    for (int r = 0; r < w->size; r++) {
        const char *at = w->text + w->offset[r];
        piece_t what, value;
        while (next_line(&at, w->text + w->offset[r + 1], &what, &value)) {
            if (find_end(w, what, 0) == w->size)
                continue;
            LRD_TRY(describe(w, what, &text));
            LRD_FAIL(LRD_ERR_CONFIG,
                     "the ranks differ in %.*s: %s. It decides bits, or who waits for whom: start "
                     "all of them with the same program, libraries, settings and environment "
                     "(mpirun -x NAME)",
                     (int)what.n, what.at, text.data);
        }
    }
out:
    lrd_buf_release(&text);
    return status;
}

/* They do differ. */
static lrd_status_t compare(lrd_comm_t *comm, const char *facts)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(comm);
    size_t *offset = NULL;
    char *all = NULL;
    LRD_NEW(offset, size + 1);
out:
    status = lrd_agree(comm, status);
    if (status == LRD_OK)
        status = lrd_comm_collect(comm, facts, strlen(facts), offset, &all);
    if (status == LRD_OK)
        status = check(&(world_t){all, offset, size});
    lrd_free(all);
    lrd_free(offset);
    return status;
}

lrd_status_t lrd_alike_check(lrd_comm_t *comm, const char *facts)
{
    lrd_status_t status = LRD_OK;
    bool same = true;
    LRD_TRY(lrd_comm_same(comm, facts, strlen(facts), &same));
    if (!same)
        LRD_TRY(compare(comm, facts));
out:
    return status;
}
