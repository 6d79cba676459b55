/* Element types. The oracle for float16 and bfloat16 is a table of their values,
 * built from their definition with ldexp: what a float becomes is the nearest of the table,
 * the even code on ties. */
#include "support/test_support.h"

#include "base/dtype.h"

#include <math.h>
#include <stdio.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

typedef struct half {
    int fraction_bits, exponent_bits;
    uint16_t (*narrow)(float);
    float (*widen)(uint16_t);
    /* Of the codes from 0 up to infinity, for which the next power of two stands. */
    double value[1 << 15];
    int infinity;
} half_t;

static half_t f16 = {
    .fraction_bits = 10, .exponent_bits = 5, .narrow = lrd_f32_to_f16, .widen = lrd_f16_to_f32};
static half_t bf16 = {
    .fraction_bits = 7, .exponent_bits = 8, .narrow = lrd_f32_to_bf16, .widen = lrd_bf16_to_f32};

static int build_tables(void **state)
{
    half_t *halves[] = {&f16, &bf16};
    for (int k = 0; k < 2; k++) {
        half_t *h = halves[k];
        const int bias = (1 << (h->exponent_bits - 1)) - 1, ones = (1 << h->exponent_bits) - 1;
        h->infinity = ones << h->fraction_bits;
        for (int code = 0; code <= h->infinity; code++) {
            const int exponent = code >> h->fraction_bits,
                      fraction = code & ((1 << h->fraction_bits) - 1);
            const int significand = exponent > 0 ? fraction | 1 << h->fraction_bits : fraction;
            h->value[code] =
                ldexp(significand, (exponent > 0 ? exponent : 1) - bias - h->fraction_bits);
        }
    }
    return 0;
}

/* The code whose value is nearest to |f|; distances are exact in double. */
static int nearest(const half_t *h, float f)
{
    const double x = fabs((double)f);
    if (x >= h->value[h->infinity])
        return h->infinity;
    int low = 0, high = h->infinity; /* value[low] <= x < value[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (h->value[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    const double below = x - h->value[low], above = h->value[high] - x;
    return below < above || (below == above && low % 2 == 0) ? low : high;
}

static float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void check_narrow(const half_t *h, uint32_t bits)
{
    const float f = float_of(bits);
    const unsigned got = h->narrow(f), sign = bits >> 31 << 15;
    const bool right = isnan(f) ? (got & 0x7fff) > (unsigned)h->infinity && (got & 0x8000) == sign
                                : got == (sign | (unsigned)nearest(h, f));
    if (!right)
        fail_msg("%a (0x%08x) became 0x%04x with %d fraction bits", (double)f, bits, got,
                 h->fraction_bits);
}

static void check_widen(const half_t *h)
{
    for (unsigned code = 0; code < 1 << 16; code++) {
        const int magnitude = (int)(code & 0x7fff);
        const float f = h->widen((uint16_t)code);
        if (magnitude > h->infinity) {
            assert_true(isnan(f));
            assert_true((h->narrow(f) & 0x7fff) > h->infinity); /* NaN stays NaN */
        } else {
            const double expected =
                magnitude == h->infinity ? (double)INFINITY : h->value[magnitude];
            assert_true((double)f == (code & 0x8000 ? -expected : expected));
            assert_true(!signbit(f) == !(code & 0x8000));
            assert_int_equal(h->narrow(f), code); /* and back */
        }
    }
}

static void test_every_f16_widens_and_returns(void **state)
{
    check_widen(&f16);
}

static void test_every_bf16_widens_and_returns(void **state)
{
    check_widen(&bf16);
}

/* Every value of the narrow type, every point halfway to the next,
 * and their neighbours on both sides. */
static void check_rounding_points(const half_t *h)
{
    for (int code = 0; code < h->infinity; code++) {
        const double middle = (h->value[code] + h->value[code + 1]) / 2;
        const double points[] = {h->value[code], middle};
        for (int k = 0; k < 2; k++) {
            const float f = (float)points[k];
            assert_true((double)f == points[k]); /* float32 has them all */
            uint32_t bits;
            memcpy(&bits, &f, sizeof bits);
            for (uint32_t near = bits > 2 ? bits - 2 : 0; near <= bits + 2; near++) {
                check_narrow(h, near);
                check_narrow(h, near | 0x80000000u);
            }
        }
    }
}

/* A stride that is prime to 2^32 visits all exponents and fraction patterns. */
static void check_many(const half_t *h)
{
    for (uint64_t bits = 0; bits < 1ull << 32; bits += 4099)
        check_narrow(h, (uint32_t)bits);
    static const uint32_t special[] = {0x7f800000, 0xff800000, 0x7fc00000, 0xffc00000, 0x7f800001,
                                       0xff800001, 0x7fffffff, 0xffffffff, 0x7f7fffff, 0xff7fffff,
                                       0x00000001, 0x80000001, 0x477fefff, 0x477ff000, 0x7f7f7fff,
                                       0x7f7f8000, 0x33000000, 0x33000001};
    for (size_t i = 0; i < sizeof special / sizeof special[0]; i++)
        check_narrow(h, special[i]);
}

static void test_f32_rounds_to_f16(void **state)
{
    check_rounding_points(&f16);
    check_many(&f16);
}

static void test_f32_rounds_to_bf16(void **state)
{
    check_rounding_points(&bf16);
    check_many(&bf16);
}

#if defined(__x86_64__)
__attribute__((target("f16c"))) static void compare_with_f16c(void)
{
    for (uint64_t bits = 0; bits < 1ull << 32; bits += 1031) {
        const float f = float_of((uint32_t)bits);
        if (!isnan(f))
            assert_int_equal(lrd_f32_to_f16(f), _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT));
    }
    for (unsigned code = 0; code < 1 << 16; code++) {
        const float ours = lrd_f16_to_f32((uint16_t)code), theirs = _cvtsh_ss((unsigned short)code);
        assert_true(isnan(ours) ? isnan(theirs) : ours == theirs);
    }
}
#endif

static void test_f16_as_the_processor(void **state)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C) != 0 && (c & bit_OSXSAVE) != 0) {
        compare_with_f16c();
        return;
    }
#endif
    printf("SKIPPED: this processor has no F16C\n");
    skip();
}

static void test_names_and_sizes(void **state)
{
    static const struct {
        lrd_dtype_t dtype;
        size_t bytes;
        const char *file_name, *setting_name;
    } all[] = {
        {LRD_F32, 4, "F32", "float32"}, {LRD_BF16, 2, "BF16", "bfloat16"},
        {LRD_F16, 2, "F16", "float16"}, {LRD_F64, 8, "F64", "float64"},
        {LRD_I64, 8, "I64", ""},        {LRD_U64, 8, "U64", ""},
        {LRD_I32, 4, "I32", ""},        {LRD_U32, 4, "U32", ""},
        {LRD_I16, 2, "I16", ""},        {LRD_U16, 2, "U16", ""},
        {LRD_I8, 1, "I8", ""},          {LRD_U8, 1, "U8", ""},
        {LRD_BOOL, 1, "BOOL", ""},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        assert_int_equal(lrd_dtype_bytes(all[i].dtype), all[i].bytes);
        assert_string_equal(lrd_dtype_file_name(all[i].dtype), all[i].file_name);
        assert_string_equal(lrd_dtype_setting_name(all[i].dtype), all[i].setting_name);
        assert_int_equal(lrd_dtype_parse(all[i].file_name), all[i].dtype);
        if (all[i].setting_name[0] != '\0')
            assert_int_equal(lrd_dtype_parse(all[i].setting_name), all[i].dtype);
    }
    assert_true(lrd_dtype_parse("") < 0);
    assert_true(lrd_dtype_parse("f32") < 0);
    assert_true(lrd_dtype_parse("F8_E4M3") < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_f16_widens_and_returns),
        cmocka_unit_test(test_every_bf16_widens_and_returns),
        cmocka_unit_test(test_f32_rounds_to_f16),
        cmocka_unit_test(test_f32_rounds_to_bf16),
        cmocka_unit_test(test_f16_as_the_processor),
        cmocka_unit_test(test_names_and_sizes),
    };
    return cmocka_run_group_tests(tests, build_tables, NULL);
}
