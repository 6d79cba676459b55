/* torch's CPU generator. Expected values: torch 2.13.0, and the C++ standard's for MT19937. */
#include "support/test_support.h"

#include "base/dtype.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/torch_rng.h"

#include <math.h>

static lrd_torch_rng_t seeded(uint64_t seed)
{
    lrd_torch_rng_t rng;
    lrd_torch_rng_seed(&rng, seed);
    return rng;
}

/* C++17 [rand.predef]: the 10,000th number of a default-constructed mt19937, whose seed is 5489. */
static void test_mt19937(void **state)
{
    lrd_torch_rng_t rng = seeded(5489);
    for (int i = 0; i < 9999; i++)
        lrd_torch_rng_draw(&rng);
    assert_int_equal(lrd_torch_rng_draw(&rng), 4123659995u);
}

static void test_first_draws(void **state)
{
    static const uint32_t expected[] = {1608637542u, 3421126067u, 4083286876u, 787846414u};
    lrd_torch_rng_t rng = seeded(42), high = seeded(42 + (1ull << 32));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(lrd_torch_rng_draw(&rng), expected[i]);
        assert_int_equal(lrd_torch_rng_draw(&high), expected[i]); /* only the low 32 bits seed */
    }
}

/* torch.manual_seed(42); torch.rand(4) */
static void test_rand(void **state)
{
    static const float expected[] = {0.8822692633f, 0.9150039554f, 0.3828637600f, 0.9593056440f};
    lrd_torch_rng_t rng = seeded(42);
    for (int i = 0; i < 4; i++) {
        const float x = lrd_torch_rng_uniform(&rng, 0, 1);
        assert_memory_equal(&x, &expected[i], sizeof x);
    }
}

/* torch.manual_seed(7); torch.empty(20000).uniform_(-1/sqrt(1536), 1/sqrt(1536)) */
static void test_uniform(void **state)
{
    enum { N = 20000 };
    static float x[N];
    const float bound = (float)(1 / sqrt(1536));
    lrd_torch_rng_t rng = seeded(7);
    for (int i = 0; i < N; i++)
        x[i] = lrd_torch_rng_uniform(&rng, -bound, bound);
    assert_true(x[0] == 0x1.d32cf4p-10f && x[N - 1] == -0x1.8ecf0ap-9f);
    lrd_sha256_t *hash;
    char hex[LRD_SHA256_HEX];
    assert_ok(lrd_sha256_begin(&hash));
    assert_ok(lrd_sha256_add(hash, x, sizeof x));
    assert_ok(lrd_sha256_end(hash, hex));
    lrd_sha256_free(hash);
    assert_string_equal(hex, "0c6ecae80bb6234659281437f61634727f1318e3784e2c9e1b89e9b71a577887");
}

static void assert_permutation(uint64_t seed, int64_t n, const int *expected)
{
    int64_t out[10];
    lrd_torch_rng_t rng = seeded(seed);
    lrd_torch_rng_permutation(&rng, n, out);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(out[i], expected[i]);
}

static void test_permutations(void **state)
{
    assert_permutation(42, 10, (const int[]){2, 6, 1, 8, 4, 5, 0, 9, 3, 7});
    assert_permutation(43, 10, (const int[]){8, 4, 9, 0, 5, 1, 6, 7, 2, 3});
    assert_permutation(44, 10, (const int[]){2, 6, 3, 8, 7, 9, 1, 4, 5, 0});
    assert_permutation(42, 9, (const int[]){6, 4, 0, 7, 5, 8, 3, 2, 1});
    assert_permutation(42, 5, (const int[]){2, 4, 3, 0, 1});
    assert_permutation(43, 5, (const int[]){3, 1, 4, 2, 0});
    assert_permutation(44, 5, (const int[]){2, 4, 3, 1, 0});
    assert_permutation(42, 3, (const int[]){0, 2, 1});
    assert_permutation(0, 6, (const int[]){2, 5, 3, 0, 1, 4});
    assert_permutation(INT64_MAX, 6, (const int[]){3, 4, 2, 0, 1, 5});
    assert_permutation(42, 1, (const int[]){0});
    assert_permutation(42, 0, NULL);
}

/* The generator goes on: torch.randperm(8) twice from seed 1, then torch.rand(1). */
static void test_permutations_in_a_row(void **state)
{
    static const int64_t expected[2][8] = {{5, 4, 2, 6, 7, 3, 1, 0}, {5, 1, 2, 6, 0, 3, 7, 4}};
    lrd_torch_rng_t rng = seeded(1);
    for (int i = 0; i < 2; i++) {
        int64_t out[8];
        lrd_torch_rng_permutation(&rng, 8, out);
        assert_memory_equal(out, expected[i], sizeof out);
    }
    assert_true(lrd_torch_rng_uniform(&rng, 0, 1) == 0x1.daabb4p-2f);
}

/* torch.manual_seed(42); torch.randperm(130319): as many as SQuAD has training questions. */
static void test_a_large_permutation(void **state)
{
    enum { N = 130319 };
    int64_t sum = 0;
    int64_t *out = lrd_malloc(N * sizeof *out);
    assert_non_null(out);
    lrd_torch_rng_t rng = seeded(42);
    lrd_torch_rng_permutation(&rng, N, out);
    for (int64_t i = 0; i < N; i++)
        sum += i * out[i];
    assert_int_equal(sum, 553741162781507);
    assert_int_equal(out[0], 110125);
    assert_int_equal(out[N - 1], 82086);
    lrd_free(out);
}

/* PEFT's A of the first module: the constructors of A and B draw first,
 * r x in and out x r numbers. */
static lrd_torch_rng_t before_fill(int r, int in, int out)
{
    lrd_torch_rng_t rng = seeded(42);
    for (int i = 0; i < r * in + out * r; i++)
        lrd_torch_rng_draw(&rng);
    return rng;
}

static void assert_fill(lrd_torch_rng_t rng, int in, const float *expected)
{
    const float bound = (float)(1 / sqrt(in));
    for (int i = 0; i < 4; i++) {
        const float x = lrd_torch_rng_uniform(&rng, -bound, bound);
        assert_memory_equal(&x, &expected[i], sizeof x);
    }
}

static void test_lora_a(void **state)
{
    assert_fill(before_fill(8, 1024, 3072), 1024,
                (const float[]){0x1.d77a4p-10f, -0x1.bf3d34p-6f, 0x1.e2b41p-8f, 0x1.3efa18p-7f});
    assert_fill(before_fill(8, 32, 96), 32,
                (const float[]){0x1.934c76p-4f, -0x1.b07962p-6f, 0x1.33861cp-4f, -0x1.a909b8p-4f});
    /* Over a float16 or bfloat16 base the values are rounded to it. */
    assert_true(lrd_f16_to_f32(lrd_f32_to_f16(0.0984615907f)) == 0.0984497070f);
    assert_true(lrd_f16_to_f32(lrd_f32_to_f16(-0.0263961274f)) == -0.0263977051f);
    assert_true(lrd_bf16_to_f32(lrd_f32_to_bf16(0.0984615907f)) == 0.0986328125f);
    assert_true(lrd_bf16_to_f32(lrd_f32_to_bf16(-0.0263961274f)) == -0.0263671875f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mt19937),
        cmocka_unit_test(test_first_draws),
        cmocka_unit_test(test_rand),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_permutations),
        cmocka_unit_test(test_permutations_in_a_row),
        cmocka_unit_test(test_a_large_permutation),
        cmocka_unit_test(test_lora_a),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
