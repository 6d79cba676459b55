/* What a tokenizer.json may hold and what is refused, by what message; ids of added tokens;
 * running out of memory. */
#include "tokenizer_records.h"

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- changed files --------------------------------------------------------------------------- */

/* The golden tokenizer.json with the member at `path` ("model.merges.3") replaced by a JSON value,
 * or removed if that is NULL. */
static json_t *changed(const char *path, const char *value)
{
    json_t *root = load_json(lrd_test_golden("tokenizer/tokenizer.json"));
    json_t *parent = root;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    char *key = copy;
    for (char *dot; (dot = strchr(key, '.')) != NULL; key = dot + 1) {
        *dot = '\0';
        parent = json_is_array(parent) ? json_array_get(parent, strtoul(key, NULL, 10))
                                       : json_object_get(parent, key);
        assert_non_null(parent);
    }
    json_t *json = value != NULL ? json_loads(value, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL) : NULL;
    assert_true(value == NULL || json != NULL);
    if (json_is_array(parent))
        assert_int_equal(json_array_set_new(parent, strtoul(key, NULL, 10), json), 0);
    else if (json != NULL)
        assert_int_equal(json_object_set_new(parent, key, json), 0);
    else
        assert_int_equal(json_object_del(parent, key), 0);
    return root;
}

static lrd_status_t parse_changed(const char *path, const char *value, lrd_tokenizer_t **out)
{
    json_t *json = changed(path, value);
    char *text = json_dumps(json, JSON_COMPACT);
    assert_non_null(text);
    const lrd_status_t status = lrd_tokenizer_parse(text, strlen(text), "t.json", out);
    free(text);
    json_decref(json);
    return status;
}

#define FORMAT      LRD_ERR_FORMAT
#define UNSUPPORTED LRD_ERR_UNSUPPORTED
#define TOKEN(more)                                                                              \
    "{\"id\":720,\"content\":\"<x>\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"" \
    "normalized\":false" more "}"
#define PRE   "pre_tokenizer"
#define SPLIT "pre_tokenizer.pretokenizers.0"
#define BYTES "pre_tokenizer.pretokenizers.1"

static const struct refusal {
    const char *path, *value; /* NULL: removed */
    lrd_status_t status;
    const char *message;
} refusal[] = {
    {"version", "\"2.0\"", UNSUPPORTED, "t.json: version \"2.0\" is not supported, only 1.0"},
    {"version", "1", FORMAT, "t.json: \"version\" is not a string"},
    {"normalizer", "{\"type\":\"NFC\"}", UNSUPPORTED, "normalizer: type \"NFC\" is not supported"},
    {"normalizer", "3", UNSUPPORTED, "normalizer: type \"\" is not supported"},
    {"post_processor", "{\"type\":\"TemplateProcessing\"}", UNSUPPORTED,
     "post_processor: type \"TemplateProcessing\" is not supported, only ByteLevel or null"},
    {"post_processor", "[]", FORMAT, "\"post_processor\" is not an object"},
    {"decoder", "{\"type\":\"Metaspace\"}", UNSUPPORTED,
     "decoder: type \"Metaspace\" is not supported, only ByteLevel"},
    {"decoder", NULL, UNSUPPORTED, "\"decoder\" is absent or null: only ByteLevel is supported"},
    {"decoder", "null", UNSUPPORTED, "\"decoder\" is absent or null"},
    {PRE, NULL, UNSUPPORTED, "pre_tokenizer is absent or null: only byte-level"},
    {PRE, "[]", FORMAT, "pre_tokenizer is not an object"},
    {PRE, "{\"type\":\"Whitespace\"}", UNSUPPORTED,
     "pre_tokenizer: type \"Whitespace\" is not supported, only Split, ByteLevel and Sequence"},
    {PRE, "{}", UNSUPPORTED, "pre_tokenizer: type \"\" is not supported"},
    {PRE, "{\"type\":\"Sequence\",\"pretokenizers\":[]}", UNSUPPORTED,
     "pre_tokenizer has no ByteLevel"},
    {PRE, "{\"type\":\"Sequence\"}", FORMAT, "\"pretokenizers\" is not a list"},
    {PRE, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}", UNSUPPORTED,
     "\"add_prefix_space\": true is not supported"},
    {PRE, "{\"type\":\"ByteLevel\"}", UNSUPPORTED, "\"add_prefix_space\": true is not supported"},
    {SPLIT, "{\"type\":\"Digits\"}", UNSUPPORTED,
     "t.json: pre_tokenizer.pretokenizers[0]: type \"Digits\" is not supported"},
    {SPLIT, "7", FORMAT, "pretokenizers[0] is not an object"},
    {SPLIT, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", UNSUPPORTED,
     "pretokenizers[1]: a \"ByteLevel\" behind ByteLevel is not supported"},
    {SPLIT ".behavior", "\"Removed\"", UNSUPPORTED, "behavior \"Removed\" is not supported"},
    {SPLIT ".behavior", NULL, UNSUPPORTED, "behavior \"\" is not supported"},
    {SPLIT ".invert", "0", FORMAT, "\"invert\" is not true or false"},
    {SPLIT ".pattern", "\"x\"", FORMAT, "\"pattern\" must be"},
    {SPLIT ".pattern", "{\"Regex\":1}", FORMAT, "\"pattern\" must be"},
    {SPLIT ".pattern", "{\"Regex\":\"a(b\"}", FORMAT,
     "pretokenizers[0]: not a valid regular expression: end pattern with unmatched parenthesis"},
    {BYTES ".use_regex", "\"no\"", FORMAT, "\"use_regex\" is not true or false"},
    {"model", NULL, FORMAT, "t.json: model is not an object"},
    {"model.type", "\"Unigram\"", UNSUPPORTED,
     "t.json: model: type \"Unigram\" is not supported, only BPE"},
    {"model.dropout", "0.1", UNSUPPORTED, "model: \"dropout\" 0.1 is not supported"},
    {"model.dropout", "\"0.1\"", FORMAT, "model: \"dropout\" is not a number"},
    {"model.continuing_subword_prefix", "\"##\"", UNSUPPORTED,
     "\"continuing_subword_prefix\" \"##\" is not supported"},
    {"model.end_of_word_suffix", "\"</w>\"", UNSUPPORTED,
     "\"end_of_word_suffix\" \"</w>\" is not supported"},
    {"model.byte_fallback", "true", UNSUPPORTED, "\"byte_fallback\": true is not supported"},
    {"model.ignore_merges", "1", FORMAT, "\"ignore_merges\" is not true or false"},
    {"model.fuse_unk", "[]", FORMAT, "\"fuse_unk\" is not true or false"},
    {"model.unk_token", "5", FORMAT, "\"unk_token\" is not a string"},
    {"model", "{\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"<u>\"}", FORMAT,
     "model: \"unk_token\" \"<u>\" is not in the vocabulary, which lacks symbols of some bytes"},
    {"model.vocab", NULL, FORMAT, "model.vocab is not an object"},
    {"model.vocab", "[]", FORMAT, "model.vocab is not an object"},
    {"model.vocab.!", "-1", FORMAT, "model.vocab: the id of \"!\" is not an integer"},
    {"model.vocab.!", "\"4\"", FORMAT, "model.vocab: the id of \"!\" is not an integer"},
    {"model.vocab.!", "4.0", FORMAT, "the id of \"!\" is not an integer"},
    {"model.vocab.!", "4294967296", FORMAT, "the id of \"!\" is not an integer"},
    {"model.vocab.!", "5", FORMAT, "model: \"!\" and \"\"\" have the same id 5"},
    {"model.vocab.!", "2000000000", FORMAT,
     "the highest token id is 2000000000 but there are only 720 tokens"},
    {"model.merges", NULL, FORMAT, "model.merges is not a list"},
    {"model.merges", "{}", FORMAT, "model.merges is not a list"},
    {"model.merges", "[[\"a\"]]", FORMAT, "model.merges[0] is not a pair of strings"},
    {"model.merges", "[[\"a\",\"b\",\"c\"]]", FORMAT, "model.merges[0] is not a pair of strings"},
    {"model.merges", "[3]", FORMAT, "model.merges[0] is not a pair of strings"},
    {"model.merges.7", "\"a b\"", FORMAT, "model.merges[7] is not a pair of strings"},
    {"model.merges.7", "[\"a\",1]", FORMAT, "model.merges[7] is not a pair of strings"},
    {"model.merges.7", "[\"zzz\",\"a\"]", FORMAT,
     "model.merges[7]: \"zzz\" is not in the vocabulary"},
    {"model.merges.7", "[\"a\",\"\"]", FORMAT, "model.merges[7]: \"\" is not in the vocabulary"},
    {"model.merges.7", "[\"z\",\"q\"]", FORMAT, "model.merges[7]: \"zq\" is not in the vocabulary"},
    {"model.merges", "[\"h e\",[\"h\",\"e\"]]", FORMAT, "model.merges[1] is not a string"},
    {"model.merges", "[\"th\"]", FORMAT,
     "model.merges[0]: \"th\" is not two tokens with a space between"},
    {"model.merges", "[\"t h e\"]", FORMAT, "model.merges[0]: \"t h e\" is not two tokens"},
    {"model.merges", "[\"t \"]", FORMAT, "model.merges[0]: \"\" is not in the vocabulary"},
    {"model.merges", "[\"#version\",\"t q\"]", FORMAT, "model.merges[1]: \"tq\" is not in"},
    {"added_tokens", "{}", FORMAT, "t.json: \"added_tokens\" is not a list"},
    {"added_tokens.0", "1", FORMAT, "t.json: added_tokens[0] is not an object"},
    {"added_tokens.1", "{\"id\":1}", FORMAT, "added_tokens[1]: \"content\" is not a string"},
    {"added_tokens.1.id", "-1", FORMAT, "added_tokens[1]: \"id\" is -1, expected 0 to"},
    {"added_tokens.1.id", NULL, FORMAT, "added_tokens[1]: \"id\" is absent"},
    {"added_tokens.1.lstrip", NULL, FORMAT, "added_tokens[1]: \"lstrip\" is not true or false"},
    {"added_tokens.1.rstrip", "null", FORMAT, "added_tokens[1]: \"rstrip\" is not true or false"},
    {"added_tokens.1.single_word", "1", FORMAT, "\"single_word\" is not true or false"},
    {"added_tokens.1.normalized", "\"\"", FORMAT, "\"normalized\" is not true or false"},
    {"added_tokens.0", TOKEN(""), FORMAT, "added_tokens[0]: \"special\" is not true or false"},
};

static void test_refusals(void **state)
{
    for (size_t i = 0; i < sizeof refusal / sizeof *refusal; i++) {
        lrd_tokenizer_t *tokenizer = NULL;
        const lrd_status_t status = parse_changed(refusal[i].path, refusal[i].value, &tokenizer);
        const char *text = status == LRD_OK ? "success" : lrd_error_text(status);
        if (status != refusal[i].status || !lrd_test_contains(text, refusal[i].message))
            fail_msg("%s = %s: %d \"%s\", expected %d \"%s\"", refusal[i].path, refusal[i].value,
                     (int)status, text, (int)refusal[i].status, refusal[i].message);
        assert_null(tokenizer);
        lrd_error_clear();
    }
}

/* Differences that change nothing. */
static void test_accepted(void **state)
{
    static const char *const same[][2] = {
        {"version", NULL},
        {"truncation", "{\"max_length\":5}"},
        {"padding", "{\"strategy\":\"BatchLongest\"}"},
        {"post_processor", NULL},
        {"normalizer", NULL},
        {"model.type", NULL},
        {"model.dropout", "0.0"},
        {"model.dropout", "0"},
        {"model.dropout", NULL},
        {"model.continuing_subword_prefix", "\"\""},
        {"model.fuse_unk", NULL},
        {"model.fuse_unk", "true"},
        {"model.byte_fallback", "null"},
        {"model.ignore_merges", "null"},
        {"model.unk_token", "\"not in the vocabulary\""}, /* as no byte lacks a symbol */
        {"model.unk_token", "\"<unk>\""},
        {"decoder.use_regex", NULL},
        {SPLIT ".invert", "true"},
        {"something new", "1"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        lrd_tokenizer_t *tokenizer;
        assert_ok(parse_changed(same[i][0], same[i][1], &tokenizer));
        checker_t checker = {.tokenizer = tokenizer, .name = same[i][0], .plain = true};
        assert_ok(lrd_encoder_new(tokenizer, &checker.encoder));
        for_each_record(lrd_test_golden("tokenizer/cases.jsonl"), check_record, &checker);
        lrd_encoder_free(checker.encoder);
        lrd_tokenizer_free(tokenizer);
    }
}

static void test_limits(void **state)
{
    lrd_tokenizer_t *tokenizer = NULL;
    lrd_buf_t value = {0};
    assert_ok(lrd_buf_add_text(&value, "{\"type\":\"Sequence\",\"pretokenizers\":["));
    for (int i = 0; i <= LRD_SPLIT_MAX_STAGES; i++)
        assert_ok(lrd_buf_add_text(&value, "{\"type\":\"Split\",\"behavior\":\"Isolated\","
                                           "\"pattern\":{\"String\":\"a\"}},"));
    assert_ok(lrd_buf_add_text(&value, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]}"));
    assert_fails(parse_changed(PRE, value.data, &tokenizer), UNSUPPORTED, "more than 8 patterns");
    lrd_buf_clear(&value);
    assert_ok(lrd_buf_add_text(&value, "\""));
    for (int i = 0; i <= 4096; i++)
        assert_ok(lrd_buf_add_text(&value, "a"));
    assert_ok(lrd_buf_add_text(&value, "\""));
    assert_fails(parse_changed(SPLIT ".pattern.Regex", value.data, &tokenizer), UNSUPPORTED,
                 "a pattern of 4097 bytes is not supported");
    lrd_buf_release(&value);
}

/* A search that would take for ever gives up, and says so. */
static void test_hopeless_regex(void **state)
{
    lrd_tokenizer_t *tokenizer;
    lrd_encoder_t *encoder;
    lrd_tokens_t tokens = {0};
    assert_ok(parse_changed(SPLIT ".pattern.Regex", "\"(a|aa|a?b?a)+$\"", &tokenizer));
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    char text[101];
    memset(text, 'a', 100);
    text[100] = 'c';
    assert_fails(lrd_encoder_encode(encoder, text, sizeof text, &tokens), FORMAT,
                 "regular expression gave up on this text: retry-limit-in-match over");
    lrd_tokens_release(&tokens);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void test_files(void **state)
{
    lrd_tokenizer_t *tokenizer = NULL;
    const char *path = lrd_test_temporary("tokenizer.json");
    assert_fails(lrd_tokenizer_load(path, &tokenizer), LRD_ERR_IO, path);
    assert_ok(lrd_file_write(path, "", 0));
    assert_fails(lrd_tokenizer_load(path, &tokenizer), FORMAT, path);
    assert_ok(lrd_file_write(path, "[]", 2));
    assert_fails(lrd_tokenizer_load(lrd_test_temporary(""), &tokenizer), FORMAT,
                 "tokenizer.json is not a JSON object");
    assert_ok(lrd_file_write(path, "{\"model\":", 9));
    assert_fails(lrd_tokenizer_load(path, &tokenizer), FORMAT, "not valid JSON");
    assert_null(tokenizer);
}

/* A file cut anywhere is refused. */
static void test_truncated(void **state)
{
    lrd_buf_t buf = {0};
    assert_ok(lrd_file_read(lrd_test_golden("tokenizer/tokenizer.json"), 1 << 20, &buf));
    size_t whole = buf.size;
    while (buf.data[whole - 1] != '}')
        whole--;
    for (size_t n = 0; n < whole; n += n < 300 ? 1 : 331) {
        lrd_tokenizer_t *tokenizer = NULL;
        assert_fails(lrd_tokenizer_parse(buf.data, n, "t.json", &tokenizer), FORMAT, "t.json");
    }
    lrd_buf_release(&buf);
}

/* ---- ids of added tokens: as the library gives them ------------------------------------------ */

static void test_added_ids(void **state)
{
    lrd_log_set_level(LRD_LOG_ERROR); /* that the ids differ from the file's is warned of */
    lrd_tokenizer_t *tokenizer;
    assert_ok(parse_changed(
        "added_tokens",
        "[" TOKEN(",\"special\":true") "," TOKEN(
            ",\"special\":false") ","
                                  "{\"id\":9,\"content\":\"<y>\",\"single_word\":false,\"lstrip\":"
                                  "false,"
                                  "\"rstrip\":false,\"normalized\":true,\"special\":false},"
                                  "{\"id\":9,\"content\":\"\",\"single_word\":false,\"lstrip\":"
                                  "false,"
                                  "\"rstrip\":false,\"normalized\":true,\"special\":false},"
                                  "{\"id\":9,\"content\":\"</"
                                  "s>\",\"single_word\":false,\"lstrip\":false,"
                                  "\"rstrip\":false,\"normalized\":true,\"special\":true}]",
        &tokenizer));
    assert_int_equal(lrd_tokenizer_find(tokenizer, "<x>"), 720);
    assert_int_equal(lrd_tokenizer_find(tokenizer, "<y>"), 721);
    assert_int_equal(lrd_tokenizer_find(tokenizer, "</s>"), 2);
    assert_int_equal(lrd_tokenizer_find(tokenizer, ""), -1);
    assert_int_equal(lrd_tokenizer_size(tokenizer), 722);
    assert_true(lrd_tokenizer_is_special(tokenizer, 720)); /* once is enough */
    assert_false(lrd_tokenizer_is_special(tokenizer, 721));
    assert_true(lrd_tokenizer_is_special(tokenizer, 2));
    assert_false(lrd_tokenizer_is_special(tokenizer, 0)); /* no longer an added token */
    lrd_tokenizer_free(tokenizer);
    /* Where the vocabulary leaves id 5 out and goes up to 720, the library gives <x>
     * the id 720 a second time. */
    assert_ok(parse_changed("model.vocab.!", "720", &tokenizer));
    assert_int_equal(lrd_tokenizer_size(tokenizer), 721);
    lrd_tokenizer_free(tokenizer);
    json_t *json = changed("model.vocab.!", "720");
    json_array_append_new(json_object_get(json, "added_tokens"),
                          json_loads(TOKEN(",\"special\":true"), 0, NULL));
    char *text = json_dumps(json, 0);
    assert_fails(lrd_tokenizer_parse(text, strlen(text), "t.json", &tokenizer), FORMAT,
                 "t.json: \"!\" and \"<x>\" have the same id 720");
    free(text);
    json_decref(json);
    lrd_log_set_level(LRD_LOG_INFO);
}

/* ---- out of memory --------------------------------------------------------------------------- */

enum { EXIT_WHOLE = 0, EXIT_NO_MEMORY = 3, EXIT_WRONG = 4 };

/* All that the tokenizer does, in a process of its own in which an allocation fails. */
static int run_once(void)
{
    lrd_status_t status = LRD_OK;
    lrd_tokenizer_t *tokenizer = NULL;
    lrd_encoder_t *encoder = NULL;
    lrd_tokens_t tokens = {.with_begins = true};
    lrd_token_batch_t batch = {0};
    lrd_buf_t text = {0};
    char word[200];
    memset(word, 'a', sizeof word);
    lrd_text_t texts[200];
    for (size_t i = 0; i < 200; i++)
        texts[i] = (lrd_text_t){.data = word, .bytes = i};
    const char *path = getenv("TEST_TOKENIZER_PATH");
    LRD_TRY(lrd_tokenizer_load(path, &tokenizer));
    LRD_TRY(lrd_encoder_new(tokenizer, &encoder));
    LRD_TRY(lrd_encoder_encode(encoder, "the harbour</s> x", 17, &tokens));
    LRD_TRY(lrd_encoder_encode(encoder, word, sizeof word, &tokens));
    LRD_TRY(lrd_tokenizer_decode(tokenizer, tokens.id, tokens.n, false, &text));
    LRD_TRY(lrd_tokenizer_encode_batch(tokenizer, texts, 200, 2, true, &batch));
out:
    lrd_tokens_release(&tokens);
    lrd_token_batch_release(&batch);
    lrd_buf_release(&text);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
    return status == LRD_OK              ? EXIT_WHOLE
           : status == LRD_ERR_NO_MEMORY ? EXIT_NO_MEMORY
                                         : EXIT_WRONG;
}

static int run_with_failure(const char *path, int n, bool with_json)
{
    setenv("TEST_TOKENIZER_PATH", path, 1);
    return lrd_test_with_failure(
        n, (const char *[]){"test_tokenizer_load", with_json ? "--once-json" : "--once", NULL});
}

/* A tokenizer of the 256 bytes and one merge: a process loads it in little time. */
static const char *small_tokenizer(void)
{
    const char *path = lrd_test_temporary("small.json");
    json_t *json = changed("model.merges", "[[\"a\",\"a\"]]");
    json_t *vocab = json_object_get(json_object_get(json, "model"), "vocab"), *id;
    const char *token;
    void *next;
    json_object_foreach_safe(vocab, next, token, id) if (json_integer_value(id) >= 260)
        json_object_del(vocab, token);
    json_object_set_new(vocab, "aa", json_integer(260));
    assert_int_equal(json_dump_file(json, path, JSON_COMPACT), 0);
    json_decref(json);
    return path;
}

/* Each allocation fails in turn: the calls say so, and nothing leaks (a sanitizer's exit code would
 * be seen). jansson's are thousands, of which some are tried. */
static void test_no_memory(void **state)
{
    const char *path = small_tokenizer();
    int n = 1, code;
    while ((code = run_with_failure(path, n, false)) == EXIT_NO_MEMORY)
        n++;
    if (code != EXIT_WHOLE)
        fail_msg("when allocation %d fails the exit code is %d", n, code);
    print_message("%d\n", n);
    assert_true(n > 30);
    uint64_t seed = 17;
    for (int i = 0; i < 20; i++) {
        n = (int)(1 + lrd_test_random_int(&seed, 1500));
        code = run_with_failure(path, n, true);
        if (code != EXIT_NO_MEMORY && code != EXIT_WHOLE)
            fail_msg("when allocation %d, jansson's too, fails the exit code is %d", n, code);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        if (strcmp(argv[1], "--once-json") == 0)
            lrd_mem_adopt_json();
        return run_once();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),  cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_hopeless_regex),
        cmocka_unit_test(test_files),     cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_added_ids), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
