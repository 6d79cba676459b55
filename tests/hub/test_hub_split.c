/* Names of data sets, patterns, and what a card says. What datasets itself finds is asked in data_test.py. */
#include "hub/hub_split.h"

#include "support/test_support.h"

#include <string.h>

static void names_of_data_sets(void **state)
{
    static const struct {
        const char *text, *repo, *revision, *config, *split; /* repo NULL: no name */
    } cases[] = {
        {"squad_v2", "squad_v2", "", "", "train"},
        {"rajpurkar/squad_v2", "rajpurkar/squad_v2", "", "", "train"},
        {"a/b#dev", "a/b", "", "", "dev"},
        {"a/b@refs/pr/1#en-de/test", "a/b", "refs/pr/1", "en-de", "test"},
        {"b@v1.0#x/y", "b", "v1.0", "x", "y"},
        {"a/b#", NULL, NULL, NULL, NULL},
        {"a/b#x/", NULL, NULL, NULL, NULL},
        {"a/b#/x", NULL, NULL, NULL, NULL},
        {"a/b#x/y/z", NULL, NULL, NULL, NULL},
        {"a/b#..", NULL, NULL, NULL, NULL},
        {"a/b@#x", NULL, NULL, NULL, NULL},
        {"a/b/c", NULL, NULL, NULL, NULL},
        {"..", NULL, NULL, NULL, NULL},
        {"a--b", NULL, NULL, NULL, NULL},
        {"", NULL, NULL, NULL, NULL},
        {"#train", NULL, NULL, NULL, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        lrd_hub_data_name_t name;
        const bool is_name = lrd_hub_data_name_read(cases[i].text, "train", &name);
        if (is_name != (cases[i].repo != NULL))
            fail_msg("\"%s\" is %s name", cases[i].text, is_name ? "a" : "no");
        if (!is_name)
            continue;
        assert_true(name.repo.is_data);
        assert_string_equal(name.repo.repo, cases[i].repo);
        assert_string_equal(name.repo.revision, cases[i].revision);
        assert_string_equal(name.config, cases[i].config);
        assert_string_equal(name.split, cases[i].split);
    }
}

static void patterns(void **state)
{
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"a", "a", true},
        {"a", "a/b", false},
        {"a/b", "a", false},
        {"*", "ab", true},
        {"*", "a/b", false},
        {"a*c*e", "abcde", true},
        {"a*c*e", "abcdef", false},
        {"?b", "ab", true},
        {"?b", "b", false},
        {"[a-c]x", "bx", true},
        {"[a-c]x", "dx", false},
        {"[!a-c]x", "dx", true},
        {"[!a-c]x", "ax", false},
        {"[-._ 0-9]x", "-x", true},
        {"[-._ 0-9]x", "5x", true},
        {"[]]", "]", true},
        {"[a", "[a", true},
        {"**", "a/b/c", true},
        {"a/**", "a/b/c", true},
        {"a/**", "a", false},
        {"**/c", "c", true},
        {"**/c", "a/b/c", true},
        {"**/b/*", "a/b/b/c", true},
        {"a/**/d", "a/d", true},
        {"a/**/d", "a/b/c/d", true},
        {"a/**/d", "a/b/c/e", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (lrd_hub_pattern_matches(cases[i].pattern, cases[i].path) != cases[i].matches)
            fail_msg("%s and %s: expected %s", cases[i].pattern, cases[i].path,
                     cases[i].matches ? "a match" : "none");
    }
}

static void cards(void **state)
{
    static const char text[] = "---\r\nconfigs:\r\n- data_files: a.json\r\n- config_name: two\r\n"
                               "  default: true\r\n  data_dir: d\r\n  data_files:\r\n"
                               "  - split: test\r\n    path: [b, c]\r\n---\r\n# T\r\n";
    lrd_hub_card_t card = {.n = 0};
    (void)state;
    assert_ok(lrd_hub_card_read(text, strlen(text), "README.md", &card));
    assert_int_equal(card.n, 2);
    assert_string_equal(card.config[0].name, "default");
    assert_false(card.config[0].is_default);
    assert_int_equal(card.config[0].rules.n, 1);
    assert_string_equal(card.config[0].rules.rule[0].split, "train");
    assert_string_equal(card.config[0].rules.rule[0].pattern, "a.json");
    assert_string_equal(card.config[1].name, "two");
    assert_string_equal(card.config[1].data_dir, "d");
    assert_true(card.config[1].is_default);
    assert_int_equal(card.config[1].rules.n, 2);
    assert_string_equal(card.config[1].rules.rule[1].split, "test");
    assert_string_equal(card.config[1].rules.rule[1].pattern, "c");
    lrd_hub_card_release(&card);
}

static void cards_without_configurations(void **state)
{
    static const char *const text[] = {
        "",   "# T\n", "---\nlicense: mit\n---\n", "---\nconfigs: 1\n", "----\n", "---\n---\n",
        "--", "---"};
    lrd_hub_card_t card = {.n = 0};
    (void)state;
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        assert_ok(lrd_hub_card_read(text[i], strlen(text[i]), "README.md", &card));
        assert_int_equal(card.n, 0);
    }
}

static void cards_that_are_wrong(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"---\nconfigs: [\n---\n", "README.md: the YAML at its top cannot be read"},
        {"---\nconfigs: x\n---\n", "\"configs\" in the YAML at its top: it is no list"},
        {"---\nconfigs: [x]\n---\n", "an entry is no map"},
        {"---\nconfigs: [{data_files: {a: b}}]\n---\n", "a path is neither text nor a list"},
        {"---\nconfigs: [{data_files: [[a]]}]\n---\n", "a path is no text"},
        {"---\nconfigs: [{data_files: [{path: a}]}]\n---\n", "data_files without a split"},
        {"---\nconfigs: [{data_files: [{split: a}]}]\n---\n", "a path is neither text nor a list"},
    };
    lrd_hub_card_t card = {.n = 0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_fails(lrd_hub_card_read(cases[i].text, strlen(cases[i].text), "README.md", &card),
                     LRD_ERR_FORMAT, cases[i].message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_data_sets),
        cmocka_unit_test(patterns),
        cmocka_unit_test(cards),
        cmocka_unit_test(cards_without_configurations),
        cmocka_unit_test(cards_that_are_wrong),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
