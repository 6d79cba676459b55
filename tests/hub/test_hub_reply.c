/* What a server says is read as what an unknown server may say. */
#include "hub/hub_name.h"
#include "hub/hub_reply.h"

#include "support/test_support.h"

#include <string.h>

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

static void names_of_repositories(void **state)
{
    static const struct {
        const char *text, *repo, *revision; /* repo NULL: no name */
    } cases[] = {
        {"bigscience/bloom-560m", "bigscience/bloom-560m", ""},
        {"a/b@main", "a/b", "main"},
        {"a/b@refs/pr/1", "a/b", "refs/pr/1"},
        {"A_1/b.c-d", "A_1/b.c-d", ""},
        {"bloom", NULL, NULL},
        {"a/b/c", NULL, NULL},
        {"/a", NULL, NULL},
        {"a/", NULL, NULL},
        {"./a", NULL, NULL},
        {"../a", NULL, NULL},
        {"a/..", NULL, NULL},
        {"a/b--c", NULL, NULL},
        {"a/b..c", NULL, NULL},
        {"a/-b", NULL, NULL},
        {"a/b.", NULL, NULL},
        {"a/b.git", NULL, NULL},
        {"a b/c", NULL, NULL},
        {"a/b@", NULL, NULL},
        {"a/b@../../x", NULL, NULL},
        {"a/b@/x", NULL, NULL},
        {"a/b@x//y", NULL, NULL},
        {"a/b@x\ny", NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_hub_name_t name = {.repo = ""};
        const bool is_name = lrd_hub_name_read(cases[i].text, &name);
        assert_int_equal(is_name, cases[i].repo != NULL);
        if (!is_name)
            continue;
        assert_string_equal(name.repo, cases[i].repo);
        assert_string_equal(name.revision, cases[i].revision);
    }
}

static void longest_names(void **state)
{
    char text[400] = "a/";
    lrd_hub_name_t name;
    (void)state;
    memset(text + 2, 'b', 95);
    assert_true(lrd_hub_name_read(text, &name));
    memcpy(text + 2 + 95, "bb", 2);
    assert_false(lrd_hub_name_read(text, &name));
    memset(text, 0, sizeof text);
    memcpy(text, "a/b@", 4);
    memset(text + 4, 'c', LRD_HUB_REVISION_BYTES - 1);
    assert_true(lrd_hub_name_read(text, &name));
    text[4 + LRD_HUB_REVISION_BYTES - 1] = 'c';
    assert_false(lrd_hub_name_read(text, &name));
}

static void paths_that_stay(void **state)
{
    static const char *const good[] = {"config.json", "a/b.c", "...", ".gitattributes", "a b"};
    static const char *const bad[] = {"",       "/a",  "a/",   "a//b", ".",   "..",
                                      "a/../b", "./a", "a\\b", "a\tb", "\x7f"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(lrd_hub_is_safe_path(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(lrd_hub_is_safe_path(bad[i]));
    assert_true(lrd_hub_is_safe_tag("d41d8cd98f00-2"));
    assert_false(lrd_hub_is_safe_tag(""));
    assert_false(lrd_hub_is_safe_tag(".."));
    assert_false(lrd_hub_is_safe_tag("a/b"));
}

static void listing_is_read(void **state)
{
    static const char text[] =
        "{\"sha\": \"" COMMIT "\", \"siblings\": [{\"rfilename\": \"config.json\", \"size\": 5, "
        "\"blobId\": \"" COMMIT "\"}, {\"rfilename\": \"a/b\", \"blobId\": \"nothing\"}]}";
    lrd_hub_listing_t x;
    (void)state;
    assert_ok(lrd_hub_read_listing(text, strlen(text), "answer", &x));
    assert_string_equal(x.commit, COMMIT);
    assert_int_equal(x.n, 2);
    assert_int_equal(lrd_hub_listing_find(&x, "config.json")->size, 5);
    assert_string_equal(lrd_hub_listing_find(&x, "config.json")->git_blob, COMMIT);
    assert_int_equal(lrd_hub_listing_find(&x, "a/b")->size, -1);
    assert_string_equal(lrd_hub_listing_find(&x, "a/b")->git_blob, "");
    assert_null(lrd_hub_listing_find(&x, "b"));
    lrd_hub_listing_release(&x);
}

static void parts_are_put_in_order(void **state)
{
    static const char text[] =
        "{\"objects\": [{\"oid\": \"x\", \"size\": 25, \"actions\": {\"upload\": {\"href\": "
        "\"done\", "
        "\"header\": {\"chunk_size\": \"10\", \"00003\": \"c\", \"1\": \"a\", \"2\": \"b\", "
        "\"other\": \"d\"}}, \"verify\": {\"href\": \"v\"}}}]}";
    lrd_hub_upload_t u;
    (void)state;
    assert_ok(lrd_hub_read_upload(text, strlen(text), "answer", "x", 25, &u));
    assert_string_equal(u.href, "done");
    assert_string_equal(u.verify, "v");
    assert_int_equal(u.part_bytes, 10);
    assert_int_equal(u.n_parts, 3);
    assert_string_equal(u.part[0], "a");
    assert_string_equal(u.part[1], "b");
    assert_string_equal(u.part[2], "c");
    lrd_hub_upload_release(&u);
    /* One more or fewer than the file has, or one twice. */
    for (int size = 5; size <= 35; size += 15)
        assert_fails(lrd_hub_read_upload(text, strlen(text), "answer", "x", size, &u),
                     LRD_ERR_FORMAT, "part");
}

static void what_is_there_needs_no_upload(void **state)
{
    static const char text[] = "{\"objects\": [{\"oid\": \"x\", \"size\": 25}]}";
    lrd_hub_upload_t u;
    (void)state;
    assert_ok(lrd_hub_read_upload(text, strlen(text), "answer", "x", 25, &u));
    assert_null(u.href);
    assert_null(u.refusal);
    lrd_hub_upload_release(&u);
}

static void shards_once_each(void **state)
{
    static const char text[] = "{\"weight_map\": {\"a\": \"1.safetensors\", \"b\": "
                               "\"2.safetensors\", \"c\": \"1.safetensors\"}}";
    static const char *const bad[] = {"{}",
                                      "[]",
                                      "{\"weight_map\": {}}",
                                      "{\"weight_map\": {\"a\": 1}}",
                                      "{\"weight_map\": {\"a\": \"x/y\"}}",
                                      "{\"weight_map\": {\"a\": \"..\"}}",
                                      "{\"weight_map\": {\"a\": \"x\\u0000y\"}}"};
    lrd_hub_shards_t x;
    (void)state;
    assert_ok(lrd_hub_read_shards(text, strlen(text), "index", &x));
    assert_int_equal(x.n, 2);
    assert_string_equal(x.name[0], "1.safetensors");
    assert_string_equal(x.name[1], "2.safetensors");
    lrd_hub_shards_release(&x);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(lrd_hub_read_shards(bad[i], strlen(bad[i]), "index", &x), LRD_ERR_FORMAT);
        lrd_error_clear();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_repositories),  cmocka_unit_test(longest_names),
        cmocka_unit_test(paths_that_stay),        cmocka_unit_test(listing_is_read),
        cmocka_unit_test(parts_are_put_in_order), cmocka_unit_test(what_is_there_needs_no_upload),
        cmocka_unit_test(shards_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
