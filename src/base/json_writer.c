#include "base/json_writer.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(lrd_json_writer_t *w, const char *data, size_t bytes)
{
    if (w->status == LRD_OK)
        w->status = lrd_buf_add(w->buf, data, bytes);
}

static void put_text(lrd_json_writer_t *w, const char *text)
{
    put(w, text, strlen(text));
}

static void new_line(lrd_json_writer_t *w)
{
    static const char spaces[] = "                ";
    put(w, "\n", 1);
    for (int left = w->depth * w->indent; left > 0; left -= (int)sizeof spaces - 1)
        put(w, spaces, left < (int)sizeof spaces - 1 ? (size_t)left : sizeof spaces - 1);
}

/* What stands before a key, or before a value that has none. */
static void begin_item(lrd_json_writer_t *w)
{
    if (w->after_key || w->depth == 0) {
        w->after_key = false;
        return;
    }
    if (w->has_items)
        put_text(w, w->indent == 0 ? ", " : ",");
    if (w->indent > 0)
        new_line(w);
    w->has_items = true;
}

void lrd_json_open(lrd_json_writer_t *w, char bracket)
{
    begin_item(w);
    put(w, &bracket, 1);
    w->depth++;
    w->has_items = false;
}

void lrd_json_close(lrd_json_writer_t *w, char bracket)
{
    w->depth--;
    if (w->has_items && w->indent > 0)
        new_line(w);
    put(w, &bracket, 1);
    w->has_items = true; /* the level around it holds this one */
}

static void put_escaped(lrd_json_writer_t *w, int32_t code)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *found = code > 0 && code < 0x80 ? strchr(from, (char)code) : NULL;
    char text[16];
    if (found != NULL) {
        const char pair[2] = {'\\', to[found - from]};
        put(w, pair, 2);
        return;
    }
    if (code >= 0x10000)
        snprintf(text, sizeof text, "\\u%04" PRIx32 "\\u%04" PRIx32,
                 0xd800 + ((uint32_t)(code - 0x10000) >> 10),
                 0xdc00 + ((uint32_t)(code - 0x10000) & 0x3ff));
    else
        snprintf(text, sizeof text, "\\u%04" PRIx32, (uint32_t)code);
    put_text(w, text);
}

/* Runs of characters that stand for themselves are copied whole. */
static void put_string(lrd_json_writer_t *w, const char *text, size_t bytes)
{
    put(w, "\"", 1);
    size_t run = 0, at = 0;
    while (at < bytes) {
        int32_t code;
        const size_t length = lrd_utf8_next(text + at, bytes - at, &code);
        const bool plain = code >= 0x20 && code != '"' && code != '\\' && (code < 0x7f || w->utf8);
        if (!plain) {
            put(w, text + run, at - run);
            if (code >= 0)
                put_escaped(w, code);
            else
                put_text(w, w->utf8 ? "\xef\xbf\xbd" : "\\ufffd");
            run = at + length;
        }
        at += length;
    }
    put(w, text + run, bytes - run);
    put(w, "\"", 1);
}

void lrd_json_key_bytes(lrd_json_writer_t *w, const char *key, size_t bytes)
{
    begin_item(w);
    put_string(w, key, bytes);
    put_text(w, w->indent < 0 ? ":" : ": ");
    w->after_key = true;
}

void lrd_json_key(lrd_json_writer_t *w, const char *key)
{
    lrd_json_key_bytes(w, key, strlen(key));
}

void lrd_json_bytes(lrd_json_writer_t *w, const char *text, size_t bytes)
{
    begin_item(w);
    put_string(w, text, bytes);
}

void lrd_json_text(lrd_json_writer_t *w, const char *text)
{
    if (text != NULL)
        lrd_json_bytes(w, text, strlen(text));
    else
        lrd_json_null(w);
}

static void put_item(lrd_json_writer_t *w, const char *text)
{
    begin_item(w);
    put_text(w, text);
}

void lrd_json_int(lrd_json_writer_t *w, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    put_item(w, text);
}

void lrd_json_real(lrd_json_writer_t *w, double value)
{
    char text[32];
    lrd_format_real(value, text);
    put_item(w, text);
}

void lrd_json_bool(lrd_json_writer_t *w, bool value)
{
    put_item(w, value ? "true" : "false");
}

void lrd_json_null(lrd_json_writer_t *w)
{
    put_item(w, "null");
}

void lrd_json_value(lrd_json_writer_t *w, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        lrd_json_open(w, '{');
        for (void *at = json_object_iter((json_t *)value); at != NULL;
             at = json_object_iter_next((json_t *)value, at)) {
            lrd_json_key(w, json_object_iter_key(at));
            lrd_json_value(w, json_object_iter_value(at));
        }
        lrd_json_close(w, '}');
        break;
    case JSON_ARRAY:
        lrd_json_open(w, '[');
        for (size_t i = 0; i < json_array_size(value); i++)
            lrd_json_value(w, json_array_get(value, i));
        lrd_json_close(w, ']');
        break;
    case JSON_STRING:
        lrd_json_bytes(w, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        lrd_json_int(w, json_integer_value(value));
        break;
    case JSON_REAL:
        lrd_json_real(w, json_real_value(value));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        lrd_json_bool(w, json_is_true(value));
        break;
    case JSON_NULL:
        lrd_json_null(w);
        break;
    }
}

lrd_status_t lrd_json_writer_status(const lrd_json_writer_t *w)
{
    return w->status;
}

/* A positive number as digits[0].digits[1].. x 10^exponent. */
typedef struct decimal {
    char digits[20];
    int n, exponent;
} decimal_t;

/* The n digits that are nearest to value; the decimal point,
 * which depends on the locale, is dropped. */
static decimal_t nearest_decimal(double value, int n)
{
    decimal_t d = {.n = n};
    char text[48];
    snprintf(text, sizeof text, "%.*e", n - 1, value);
    char *exponent = strchr(text, 'e');
    int got = 0;
    for (const char *c = text; c < exponent && got < n; c++) {
        if (*c >= '0' && *c <= '9')
            d.digits[got++] = *c;
    }
    d.exponent = (int)strtol(exponent + 1, NULL, 10);
    return d;
}

static bool reads_back(const decimal_t *d, double value)
{
    char text[48];
    snprintf(text, sizeof text, "%.*se%d", d->n, d->digits, d->exponent - (d->n - 1));
    return strtod(text, NULL) == value;
}

static void next_decimal(decimal_t *d)
{
    int i = d->n - 1;
    while (i >= 0 && d->digits[i] == '9')
        d->digits[i--] = '0';
    if (i >= 0) {
        d->digits[i]++;
    } else {
        d->digits[0] = '1';
        d->exponent++;
    }
}

/* The fewest digits that read back, and among those the nearest. Every decimal of up to 15 digits
 * survives a double of the normal range, so nothing shorter than 15 need be tried there, trailing
 * zeros apart. Just above a power of two doubles lie twice as far apart as below it: there the next
 * decimal can read back where the nearest one, which is below, does not. */
static decimal_t shortest_decimal(double value)
{
    int exponent;
    const bool power_of_two = frexp(value, &exponent) == 0.5;
    for (int n = isnormal(value) ? 15 : 1; n < 17; n++) {
        decimal_t d = nearest_decimal(value, n);
        if (reads_back(&d, value))
            return d;
        if (power_of_two) {
            next_decimal(&d);
            if (reads_back(&d, value))
                return d;
        }
    }
    return nearest_decimal(value, 17);
}

/* As Python lays the digits out: positional for exponents of -4 to 15, with at least
 * one digit behind the point. */
void lrd_format_real(double value, char text[32])
{
    enum { SIZE = 32 };
    const char *sign = signbit(value) && !isnan(value) ? "-" : "";
    if (isnan(value) || isinf(value)) {
        snprintf(text, SIZE, "%s%s", sign, isnan(value) ? "NaN" : "Infinity");
        return;
    }
    if (value == 0.0) {
        snprintf(text, SIZE, "%s0.0", sign);
        return;
    }
    decimal_t d = shortest_decimal(fabs(value));
    while (d.n > 1 && d.digits[d.n - 1] == '0')
        d.n--;
    const int point = d.exponent + 1; /* digits before the point */
    if (point > 16 || point < -3)
        snprintf(text, SIZE, "%s%c%s%.*se%+03d", sign, d.digits[0], d.n > 1 ? "." : "", d.n - 1,
                 d.digits + 1, d.exponent);
    else if (point <= 0)
        snprintf(text, SIZE, "%s0.%.*s%.*s", sign, -point, "000", d.n, d.digits);
    else if (point >= d.n)
        snprintf(text, SIZE, "%s%.*s%.*s.0", sign, d.n, d.digits, point - d.n, "000000000000000");
    else
        snprintf(text, SIZE, "%s%.*s.%.*s", sign, point, d.digits, d.n - point, d.digits + point);
}
