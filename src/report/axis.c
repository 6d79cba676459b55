#include "report/axis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double largest = 1e300; /* so that differences are finite */

static double clamp(double value, double lo, double hi)
{
    return value < lo ? lo : value > hi ? hi : value;
}

/* mantissa x 10^exponent */
typedef struct step {
    int mantissa, exponent;
} step_t;

/* Exact where the result is a decimal number of few digits: one rounding. */
static double times_step(double k, step_t s)
{
    const double units = k * s.mantissa;
    return s.exponent >= 0 ? units * pow(10, s.exponent) : units / pow(10, -s.exponent);
}

static step_t next_step(step_t s)
{
    if (s.mantissa == 5)
        return (step_t){1, s.exponent + 1};
    return (step_t){s.mantissa == 1 ? 2 : 5, s.exponent};
}

/* A range in which neighbouring ticks are different numbers. */
static void widen(double *lo, double *hi)
{
    const double size = fmax(fabs(*lo), fabs(*hi));
    if (*hi - *lo > 1e-12 * size && *hi - *lo > 1e-290)
        return;
    const double pad = size > 1e-280 ? 0.05 * size : 1;
    *lo -= pad;
    *hi += pad;
}

static void put_ticks(lrd_axis_t *a, double first, double last, step_t s)
{
    a->decimals = -s.exponent;
    for (double k = first; k <= last && a->n_ticks < LRD_AXIS_MAX_TICKS; k++)
        a->tick[a->n_ticks++] = times_step(k, s);
}

/* k * step <= value, and the largest such k; rounding of the quotient is made good. */
static double floor_of(double value, step_t s)
{
    double k = floor(value / times_step(1, s));
    while (times_step(k, s) > value)
        k--;
    while (times_step(k + 1, s) <= value)
        k++;
    return k;
}

static double ceil_of(double value, step_t s)
{
    const double k = floor_of(value, s);
    return times_step(k, s) == value ? k : k + 1;
}

static step_t first_step(double lo, double hi, int most)
{
    return (step_t){1, (int)floor(log10((hi - lo) / most)) - 1};
}

static lrd_axis_t linear(double lo, double hi, int most)
{
    lrd_axis_t a = {.kind = LRD_AXIS_LINEAR};
    lo = clamp(lo, -largest, largest);
    hi = clamp(hi, -largest, largest);
    widen(&lo, &hi);
    step_t s = first_step(lo, hi, most);
    while (ceil_of(hi, s) - floor_of(lo, s) + 1 > most)
        s = next_step(s);
    put_ticks(&a, floor_of(lo, s), ceil_of(hi, s), s);
    a.lo = a.tick[0];
    a.hi = a.tick[a.n_ticks - 1];
    return a;
}

lrd_axis_t lrd_axis_exact(double lo, double hi, int most, double least_step)
{
    lrd_axis_t a = {.kind = LRD_AXIS_LINEAR};
    lo = clamp(lo, -largest, largest);
    hi = clamp(hi, -largest, largest);
    widen(&lo, &hi);
    step_t s = first_step(lo, hi, most);
    while (floor_of(hi, s) - ceil_of(lo, s) + 1 > most || times_step(1, s) < least_step)
        s = next_step(s);
    put_ticks(&a, ceil_of(lo, s), floor_of(hi, s), s);
    a.lo = lo;
    a.hi = hi;
    return a;
}

/* Tick number k of an axis that has `per` of them in a decade: 1, 2, 5; or every -per-th decade. */
static double decimal_tick(int k, int per)
{
    static const double mantissa[3] = {1, 2, 5};
    if (per < 0)
        return pow(10, (double)k * -per);
    const int decade = (int)floor(k / 3.0);
    const double power = pow(10, abs(decade));
    const double m = mantissa[k - 3 * decade];
    return decade < 0 ? m / power : m * power;
}

static double binary_tick(int k, int per)
{
    return ldexp(1, k * -per);
}

typedef double tick_at_t(int k, int per);

static lrd_axis_t logarithmic(lrd_axis_kind_t kind, double lo, double hi, int most)
{
    lrd_axis_t a = {.kind = kind};
    tick_at_t *const tick = kind == LRD_AXIS_LOG ? decimal_tick : binary_tick;
    const double base = kind == LRD_AXIS_LOG ? 10 : 2;
    lo = clamp(lo, 1 / largest, largest);
    hi = clamp(hi, 1 / largest, largest);
    for (int per = kind == LRD_AXIS_LOG ? 3 : -1;; per = per == 3 ? -1 : per - 1) {
        const double ticks = per > 0 ? per : -1.0 / per;
        int first = (int)floor(log(lo) / log(base) * ticks) - 1;
        while (tick(first + 1, per) <= lo)
            first++;
        int last = first + 1;
        while (tick(last, per) < hi)
            last++;
        if (last - first + 1 > most)
            continue;
        for (int k = first; k <= last; k++)
            a.tick[a.n_ticks++] = tick(k, per);
        a.lo = a.tick[0];
        a.hi = a.tick[a.n_ticks - 1];
        return a;
    }
}

lrd_axis_t lrd_axis_round(lrd_axis_kind_t kind, double lo, double hi, int most)
{
    if (kind == LRD_AXIS_LINEAR || !(lo > 0))
        return linear(lo, hi, most);
    return logarithmic(kind, lo, hi, most);
}

double lrd_axis_at(const lrd_axis_t *a, double value)
{
    if (a->kind == LRD_AXIS_LINEAR)
        return (value - a->lo) / (a->hi - a->lo);
    return log(value / a->lo) / log(a->hi / a->lo);
}

/* "2.00e-05" is "2e-5". */
static void shorten_exponent(char *text)
{
    char *e = strchr(text, 'e'), *end = e;
    if (e == NULL)
        return;
    const bool is_negative = e[1] == '-';
    const char *digits = e + 2, *point = memchr(text, '.', (size_t)(e - text));
    while (*digits == '0' && digits[1] != '\0')
        digits++;
    while (point != NULL && end[-1] == '0')
        end--;
    if (end - 1 == point)
        end--;
    *end++ = 'e';
    if (is_negative)
        *end++ = '-';
    memmove(end, digits, strlen(digits) + 1);
}

/* All ticks of an axis have the unit of its largest value. */
static void with_unit(double value, double largest_value, int decimals,
                      char text[LRD_AXIS_LABEL_BYTES])
{
    static const char unit[] = " kMGT";
    int power = 0;
    while (largest_value >= 1000 && unit[power + 1] != '\0') {
        largest_value /= 1000;
        value /= 1000;
        decimals += 3;
        power++;
    }
    snprintf(text, LRD_AXIS_LABEL_BYTES, "%.*f%.*s", decimals > 0 ? decimals : 0, value, power > 0,
             unit + power);
}

static void label_linear(const lrd_axis_t *a, double tick, char text[LRD_AXIS_LABEL_BYTES])
{
    const double size = fmax(fabs(a->lo), fabs(a->hi));
    if (tick == 0) {
        snprintf(text, LRD_AXIS_LABEL_BYTES, "0");
    } else if (size >= 1e-3 && size < 1e4) {
        snprintf(text, LRD_AXIS_LABEL_BYTES, "%.*f", a->decimals > 0 ? a->decimals : 0, tick);
    } else if (size >= 1e4 && size < 1e15) {
        with_unit(tick, size, a->decimals, text);
    } else {
        const int digits = (int)floor(log10(fabs(tick))) + a->decimals;
        snprintf(text, LRD_AXIS_LABEL_BYTES, "%.*e", digits > 0 ? digits : 0, tick);
        shorten_exponent(text);
    }
}

static void label_logarithmic(const lrd_axis_t *a, double tick, char text[LRD_AXIS_LABEL_BYTES])
{
    if (a->kind == LRD_AXIS_LOG2 ? tick >= 1 && tick < 1e6 : tick >= 1e-3 && tick < 1e4) {
        snprintf(text, LRD_AXIS_LABEL_BYTES, "%g", tick);
    } else if (a->kind == LRD_AXIS_LOG && tick >= 1e4 && tick < 1e15) {
        with_unit(tick, tick, -(int)floor(log10(tick)), text);
    } else {
        snprintf(text, LRD_AXIS_LABEL_BYTES, a->kind == LRD_AXIS_LOG ? "%.0e" : "%.3g", tick);
        shorten_exponent(text);
    }
}

void lrd_axis_label(const lrd_axis_t *a, double tick, char text[LRD_AXIS_LABEL_BYTES])
{
    if (a->kind == LRD_AXIS_LINEAR)
        label_linear(a, tick, text);
    else
        label_logarithmic(a, tick, text);
}
