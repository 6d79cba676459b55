/* Text of others cannot become markup, and numbers are written for people. */
#include "support/test_support.h"

#include "report/html.h"

#include <math.h>
#include <string.h>

static void check_text(const char *text, size_t bytes, size_t most, const char *expected)
{
    lrd_buf_t buf = {0};
    lrd_html_t h = {.buf = &buf};
    lrd_html_raw(&h, ">");
    lrd_html_bytes(&h, text, bytes, most);
    assert_ok(h.status);
    assert_string_equal(buf.data + 1, expected);
    lrd_buf_release(&buf);
}

static void text_is_escaped(void **unused)
{
    (void)unused;
    const struct {
        const char *text, *expected;
    } c[] = {
        {"plain", "plain"},
        {"<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"},
        {"\" onload=\"x", "&quot; onload=&quot;x"},
        {"a & b &amp; c", "a &amp; b &amp;amp; c"},
        {"]]>-->", "]]&gt;--&gt;"},
        {"line\nbreak\ttab", "line&#10;break&#9;tab"},
        {"\x01\x1b[31m\r\x7f", "\xef\xbf\xbd\xef\xbf\xbd[31m\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xff\xc3", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc3\xa9 \xf0\x9f\x8e\xbb", "\xc3\xa9 \xf0\x9f\x8e\xbb"},
        {"\xef\xbf\xbe\xef\xbf\xbf", "\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++)
        check_text(c[i].text, strlen(c[i].text), 0, c[i].expected);
    check_text("a\0b", 3, 0,
               "a\xef\xbf\xbd"
               "b");
    check_text("12345678", 8, 4, "1234\xe2\x80\xa6");
    check_text("123\xc3\xa9", 5, 4, "123\xe2\x80\xa6"); /* no half characters */
    check_text("1234", 4, 4, "1234");
}

static void check_words(void (*write)(double, char[LRD_NUMBER_BYTES]), double value,
                        const char *expected)
{
    char text[LRD_NUMBER_BYTES];
    write(value, text);
    assert_string_equal(text, expected);
}

static void numbers_for_people(void **unused)
{
    (void)unused;
    check_words(lrd_format_number, 0, "0");
    check_words(lrd_format_number, 1234567, "1,234,567");
    check_words(lrd_format_number, -1234, "-1,234");
    check_words(lrd_format_number, 999, "999");
    check_words(lrd_format_number, 12345.678, "12,346");
    check_words(lrd_format_number, 123.456, "123.5");
    check_words(lrd_format_number, 1.5, "1.5");
    check_words(lrd_format_number, 0.41327, "0.4133");
    check_words(lrd_format_number, 0.01, "0.01");
    check_words(lrd_format_number, 1.0 / 120, "0.008333");
    check_words(lrd_format_number, 9.99996, "10");
    check_words(lrd_format_number, 3.21e-7, "3.21e-07");
    check_words(lrd_format_number, 1e300, "1e+300");
    check_words(lrd_format_number, NAN, "NaN");
    check_words(lrd_format_number, -INFINITY, "-Infinity");
    check_words(lrd_format_bytes, 512, "512 bytes");
    check_words(lrd_format_bytes, 1536, "1.5 KiB");
    check_words(lrd_format_bytes, 149192, "146 KiB");
    check_words(lrd_format_bytes, 0x1p33, "8.0 GiB");
    check_words(lrd_format_bytes, 0x1p60, "1048576 TiB");
    check_words(lrd_format_seconds, 0.0123, "12.3 ms");
    check_words(lrd_format_seconds, 12.34, "12.3 s");
    check_words(lrd_format_seconds, 59.96, "1 min 00 s");
    check_words(lrd_format_seconds, 3599.4, "59 min 59 s");
    check_words(lrd_format_seconds, 3600, "1 h 00 min");
    check_words(lrd_format_seconds, 100000, "27 h 46 min");
    check_words(lrd_format_seconds, INFINITY, "Infinity");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(text_is_escaped),
                                       cmocka_unit_test(numbers_for_people)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
