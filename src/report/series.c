#include "report/series.h"

#include "base/mem.h"

#include <math.h>

lrd_status_t lrd_series_add(lrd_series_t *s, double x, double y)
{
    lrd_status_t status = LRD_OK;
    if (s->n == s->capacity) {
        const size_t capacity = 2 * s->capacity + 64;
        double *grown;
        LRD_ALLOC(grown, lrd_realloc_array(s->x, capacity, sizeof *grown));
        s->x = grown;
        LRD_ALLOC(grown, lrd_realloc_array(s->y, capacity, sizeof *grown));
        s->y = grown;
        s->capacity = capacity;
    }
    s->x[s->n] = x;
    s->y[s->n++] = y;
out:
    return status;
}

void lrd_series_release(lrd_series_t *s)
{
    lrd_free(s->x);
    lrd_free(s->y);
    *s = (lrd_series_t){0};
}

void lrd_series_cut(lrd_series_t *s, double x)
{
    while (s->n > 0 && s->x[s->n - 1] > x)
        s->n--;
}

bool lrd_series_range(const lrd_series_t *s, double *least_out, double *most_out)
{
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < s->n; i++) {
        if (isfinite(s->y[i])) {
            least = fmin(least, s->y[i]);
            most = fmax(most, s->y[i]);
        }
    }
    *least_out = least;
    *most_out = most;
    return least <= most;
}

size_t lrd_series_count_nonfinite(const lrd_series_t *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++)
        n += !isfinite(s->y[i]);
    return n;
}

size_t lrd_series_window(const lrd_series_t *s)
{
    return s->n < 75 ? 0 : s->n / 25;
}

lrd_status_t lrd_series_smooth(const lrd_series_t *s, size_t window, lrd_series_t *smooth_out)
{
    lrd_status_t status = LRD_OK;
    lrd_series_t smooth = {0};
    double *sum = NULL; /* [n + 1] of the finite ones before i, relative to the first of them */
    size_t *count = NULL;
    double origin = 0;
    LRD_NEW(sum, s->n + 1);
    LRD_NEW(count, s->n + 1);
    for (size_t i = 0; i < s->n; i++) {
        const bool is_finite = isfinite(s->y[i]);
        if (is_finite && count[i] == 0)
            origin = s->y[i];
        sum[i + 1] = sum[i] + (is_finite ? s->y[i] - origin : 0);
        count[i + 1] = count[i] + is_finite;
    }
    for (size_t i = 0; i < s->n; i++) {
        const size_t before = (window - 1) / 2, behind = window / 2;
        const size_t first = i > before ? i - before : 0;
        const size_t last = i + behind + 1 < s->n ? i + behind + 1 : s->n;
        const size_t n = count[last] - count[first];
        if (n > 0)
            LRD_TRY(
                lrd_series_add(&smooth, s->x[i], origin + (sum[last] - sum[first]) / (double)n));
    }
    *smooth_out = smooth;
    smooth = (lrd_series_t){0};
out:
    lrd_series_release(&smooth);
    lrd_free(count);
    lrd_free(sum);
    return status;
}

/* What a column keeps, as places in the series. */
typedef struct column {
    size_t first, least, most, last;
    bool any;
} column_t;

static void take(column_t *c, const lrd_series_t *s, size_t i)
{
    if (!c->any)
        *c = (column_t){i, i, i, i, true};
    if (s->y[i] < s->y[c->least])
        c->least = i;
    if (s->y[i] > s->y[c->most])
        c->most = i;
    c->last = i;
}

static lrd_status_t put(const column_t *c, const lrd_series_t *s, lrd_series_t *thin)
{
    lrd_status_t status = LRD_OK;
    const size_t a = c->least < c->most ? c->least : c->most;
    const size_t b = c->least < c->most ? c->most : c->least;
    const size_t kept[4] = {c->first, a, b, c->last};
    for (int k = 0; k < 4 && c->any; k++) {
        if (k == 0 || kept[k] != kept[k - 1])
            LRD_TRY(lrd_series_add(thin, s->x[kept[k]], s->y[kept[k]]));
    }
out:
    return status;
}

lrd_status_t lrd_series_thin(const lrd_series_t *s, double lo, double hi, size_t columns,
                             lrd_series_t *thin_out)
{
    lrd_status_t status = LRD_OK;
    lrd_series_t thin = {0};
    column_t column = {.any = false};
    double at = -1;
    for (size_t i = 0; i < s->n; i++) {
        const double place = floor((s->x[i] - lo) / (hi - lo) * (double)columns);
        const double here = fmax(0, fmin(place, (double)columns - 1));
        if (!isfinite(s->y[i]))
            continue;
        if (here != at) {
            LRD_TRY(put(&column, s, &thin));
            column.any = false;
            at = here;
        }
        take(&column, s, i);
    }
    LRD_TRY(put(&column, s, &thin));
    *thin_out = thin;
    thin = (lrd_series_t){0};
out:
    lrd_series_release(&thin);
    return status;
}
