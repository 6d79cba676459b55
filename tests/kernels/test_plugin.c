/* Back ends in shared libraries: what cannot be opened says why, and `auto` goes on without it.
 *
 *   test_plugin STALE   a plugin of another version
 */
#include "kernels/ops.h"
#include "support/test_support.h"

#include <stdlib.h>

static const char *stale;
static const lrd_backend_options_t options = {0, 1, NULL};

static void refused(const char *library, const char *text)
{
    lrd_backend_t *be = NULL;
    assert_int_equal(setenv("LRD_CUDA_PLUGIN", library, 1), 0);
    assert_fails(lrd_backend_open("cuda", &options, &be), LRD_ERR_UNAVAILABLE, text);
    assert_null(be);
    assert_ok(lrd_backend_open("auto", &options, &be));
    assert_string_equal(be->ops->name, "cpu");
    lrd_backend_close(be);
}

static void test_missing(void **state)
{
    (void)state;
    refused("/no/such/library.so", "/no/such/library.so: cannot open");
}

static void test_no_plugin(void **state)
{
    (void)state;
    refused("libm.so.6", "libm.so.6 has no lrd_plugin_entry");
}

static void test_stale(void **state)
{
    (void)state;
    refused(stale, "was built for version 4294967295 of kernels/ops.h, this program has version");
}

/* Without the variable: beside the program, where there is none. */
static void test_beside(void **state)
{
    (void)state;
    lrd_backend_t *be = NULL;
    assert_int_equal(unsetenv("LRD_CUDA_PLUGIN"), 0);
    assert_fails(lrd_backend_open("cuda", &options, &be), LRD_ERR_UNAVAILABLE, "liblrd_cuda.so");
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return lrd_test_skip("wants a plugin of another version");
    stale = argv[1];
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_missing),
                                       cmocka_unit_test(test_no_plugin),
                                       cmocka_unit_test(test_stale), cmocka_unit_test(test_beside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
