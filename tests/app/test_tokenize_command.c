/* lora-dist tokenize against reference results of the Hugging Face library
 * (tests/golden/tokenizer/README.md): a process for all texts, one for all ids,
 * and one without special tokens; and input that is none. */
#include "support/test_support.h"

#include "base/buf.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { MAX_RECORDS = 4096 };

typedef struct records {
    json_t *at[MAX_RECORDS];
    int n;
} records_t;

static void read_records(const char *name, records_t *r)
{
    char path[64];
    char *line = NULL;
    size_t capacity = 0;
    snprintf(path, sizeof path, "tokenizer/%s", name);
    FILE *file = fopen(lrd_test_golden(path), "r");
    assert_non_null(file);
    for (r->n = 0; getline(&line, &capacity, file) >= 0; r->n++) {
        assert_true(r->n < MAX_RECORDS);
        assert_ok(lrd_json_parse(line, strlen(line), path, &r->at[r->n]));
    }
    free(line);
    fclose(file);
    assert_true(r->n > 50);
}

static void release_records(records_t *r)
{
    for (int i = 0; i < r->n; i++)
        json_decref(r->at[i]);
}

/* What a record decodes to: see the README. */
static const json_t *decoded(const json_t *record, bool skip)
{
    const json_t *value = skip ? json_object_get(record, "decoded_skip_special") : NULL;
    if (value == NULL)
        value = json_object_get(record, "decoded");
    return value != NULL ? value : json_object_get(record, "text");
}

static FILE *start(const char *options, const char *input, const char *more)
{
    char command[4096];
    const char *program = getenv("LRD_PROGRAM");
    assert_non_null(program);
    snprintf(command, sizeof command, "'%s' tokenize --model '%s' %s < '%s' %s", program,
             lrd_test_golden("tokenizer"), options, input, more);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    return pipe;
}

static void assert_closes(FILE *pipe, int expected)
{
    const int code = pclose(pipe);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), expected);
}

/* One line out for each line in, equal as JSON to what is expected. */
static void check(const records_t *r, const char *options, const char *member, bool skip)
{
    const char *input = lrd_test_temporary("input");
    FILE *file = fopen(input, "w");
    char *line = NULL;
    size_t capacity = 0;
    assert_non_null(file);
    for (int i = 0; i < r->n; i++) {
        char *text =
            json_dumps(json_object_get(r->at[i], member), JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
        assert_non_null(text);
        fprintf(file, "%s\n", text);
        free(text);
    }
    assert_int_equal(fclose(file), 0);
    FILE *pipe = start(options, input, "");
    for (int i = 0; i < r->n; i++) {
        json_t *have;
        const bool encodes = strcmp(member, "text") == 0;
        const json_t *want = encodes ? json_object_get(r->at[i], "ids") : decoded(r->at[i], skip);
        assert_true(getline(&line, &capacity, pipe) >= 0);
        assert_ok(lrd_json_parse(line, strlen(line), "output", &have));
        if (!json_equal(have, (json_t *)want))
            fail_msg("%s, line %d: %s", options, i + 1, line);
        json_decref(have);
    }
    assert_true(getline(&line, &capacity, pipe) < 0);
    free(line);
    assert_closes(pipe, 0);
}

static void test_encode(void **state)
{
    static records_t cases;
    read_records("cases.jsonl", &cases);
    check(&cases, "", "text", false);
    release_records(&cases);
}

static void test_decode(void **state)
{
    static const char *const names[] = {"cases.jsonl", "decode.jsonl"};
    static records_t cases;
    for (int i = 0; i < 2; i++) {
        read_records(names[i], &cases);
        check(&cases, "--decode", "ids", false);
        check(&cases, "--decode --skip-special-tokens", "ids", true);
        release_records(&cases);
    }
}

/* The lines before a bad one are answered, and the bad one is named. */
static void assert_bad(const char *options, const char *bytes, size_t n, const char *text)
{
    const char *input = lrd_test_temporary("input");
    char said[2048];
    FILE *file = fopen(input, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
    FILE *pipe = start(options, input, "2>&1 > /dev/null");
    said[fread(said, 1, sizeof said - 1, pipe)] = '\0';
    assert_closes(pipe, 1);
    if (!lrd_test_contains(said, text) || strncmp(said, "error: ", 7) != 0)
        fail_msg("\"%s\" does not say \"%s\"", said, text);
}

#define BAD(options, bytes, text) assert_bad(options, bytes, sizeof bytes - 1, text)

static void test_bad_lines(void **state)
{
    BAD("", "\"a\"\n[1]\n", "standard input:2: expected a string");
    BAD("", "\"a\n", "standard input:1");
    BAD("", "\"a\" \"b\"\n", "standard input:1");
    BAD("", "\"\377\"\n", "standard input:1");
    BAD("", "\n", "standard input:1");
    BAD("", "\"a\0b\"\n", "standard input:1");
    BAD("", "\"\\ud800\"\n", "standard input:1");
    BAD("--decode", "[1]\n\"a\"\n", "standard input:2: expected a list of ids");
    BAD("--decode", "[1,\"a\"]\n", "element 1 is not a token id");
    BAD("--decode", "[1.0]\n", "element 0 is not a token id");
    BAD("--decode", "[2147483648]\n", "element 0 is not a token id");
    BAD("--decode", "[99999999999999999999]\n", "standard input:1");
}

/* Nothing in, nothing out; a last line without an end counts. */
static void test_ends(void **state)
{
    const char *input = lrd_test_temporary("input");
    char said[64];
    FILE *pipe = start("", "/dev/null", "");
    assert_int_equal(fread(said, 1, sizeof said, pipe), 0);
    assert_closes(pipe, 0);
    FILE *file = fopen(input, "w");
    assert_non_null(file);
    fputs("[]\n[68]", file);
    fclose(file);
    pipe = start("--decode", input, "");
    said[fread(said, 1, sizeof said - 1, pipe)] = '\0';
    assert_string_equal(said, "\"\"\n\"a\"\n");
    assert_closes(pipe, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
