#include "tokenizer_records.h"

#include "base/file.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"

#include <string.h>

enum { MAX_BYTES = 1 << 28 };

size_t for_each_record(const char *path, record_fn *check, void *context)
{
    lrd_buf_t buf = {0};
    assert_ok(lrd_file_read(path, MAX_BYTES, &buf));
    size_t n = 0;
    for (char *line = buf.data, *end; line < buf.data + buf.size; line = end + 1, n++) {
        end = memchr(line, '\n', (size_t)(buf.data + buf.size - line));
        assert_non_null(end);
        json_t *record;
        assert_ok(lrd_json_parse(line, (size_t)(end - line), path, &record));
        check(record, context);
        json_decref(record);
    }
    lrd_buf_release(&buf);
    assert_true(n > 0);
    return n;
}

lrd_tokenizer_t *load_tokenizer(const char *path)
{
    lrd_tokenizer_t *tokenizer;
    assert_ok(lrd_tokenizer_load(path, &tokenizer));
    return tokenizer;
}

json_t *load_json(const char *path)
{
    json_t *json;
    assert_ok(lrd_json_read(path, MAX_BYTES, &json));
    return json;
}

lrd_tokenizer_t *parse_tokenizer(const json_t *json)
{
    lrd_tokenizer_t *tokenizer;
    char *text = json_dumps(json, JSON_COMPACT);
    assert_non_null(text);
    assert_ok(lrd_tokenizer_parse(text, strlen(text), "tokenizer.json", &tokenizer));
    free(text);
    return tokenizer;
}

lrd_tokens_t encode(lrd_encoder_t *encoder, const char *text, size_t bytes)
{
    lrd_tokens_t tokens = {.with_begins = true};
    assert_ok(lrd_encoder_encode(encoder, text, bytes, &tokens));
    return tokens;
}

void assert_equal_ids(const int32_t *id, size_t n, const int32_t *expected, size_t n_expected)
{
    assert_int_equal(n, n_expected);
    if (n > 0)
        assert_memory_equal(id, expected, n * sizeof *id);
}

/* The array of integers under `key`; NULL: there is none. Freed by the caller. */
static int32_t *int_list(const json_t *record, const char *key, size_t *n_out)
{
    const json_t *list = json_object_get(record, key);
    if (list == NULL)
        return NULL;
    *n_out = json_array_size(list);
    int32_t *ints = lrd_calloc(*n_out, sizeof *ints);
    assert_non_null(ints);
    for (size_t i = 0; i < *n_out; i++)
        ints[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ints;
}

/* A begin is inside the character that the library says, never before the one of the token before,
 * and, for a plain tokenizer, the text between two begins is what the token stands for. */
static void check_begins(const checker_t *checker, const json_t *record, const char *text,
                         size_t bytes, const lrd_tokens_t *tokens)
{
    size_t n_begins = 0;
    int32_t *begin = int_list(record, "begins", &n_begins);
    if (begin != NULL)
        assert_int_equal(n_begins, tokens->n);
    for (size_t i = 0; i < tokens->n; i++) {
        const int32_t at = tokens->begin[i];
        const int32_t end = i + 1 < tokens->n ? tokens->begin[i + 1] : (int32_t)bytes;
        if (at < 0 || end < at || end > (int32_t)bytes)
            fail_msg("%s: token %zu of \"%s\" is %d..%d", checker->name, i, text, at, end);
        if (checker->plain) {
            const lrd_vocab_t *vocab = &checker->tokenizer->vocab;
            const lrd_vocab_token_t *token = lrd_vocab_by_id(vocab, tokens->id[i]);
            assert_int_equal(token->n_bytes, end - at);
            assert_memory_equal(vocab->bytes.data + token->bytes, text + at, token->n_bytes);
        }
        bool inside = begin == NULL || at >= begin[i];
        for (int32_t k = begin != NULL ? begin[i] + 1 : at + 1; k <= at; k++)
            inside = inside && ((uint8_t)text[k] & 0xc0) == 0x80;
        if (!inside)
            fail_msg("%s: token %zu of \"%s\" begins at %d, not in the character at %d",
                     checker->name, i, text, at, begin[i]);
    }
    lrd_free(begin);
}

static void check_decoding(const checker_t *checker, const int32_t *id, size_t n, bool skip_special,
                           const json_t *expected)
{
    lrd_buf_t text = {0};
    assert_ok(lrd_buf_add_text(&text, "kept"));
    assert_ok(lrd_tokenizer_decode(checker->tokenizer, id, n, skip_special, &text));
    if (text.size != 4 + json_string_length(expected) || memcmp(text.data, "kept", 4) != 0 ||
        memcmp(text.data + 4, json_string_value(expected), text.size - 4) != 0)
        fail_msg("%s: %zu ids%s decode to \"%s\", not \"%s\"", checker->name, n,
                 skip_special ? " without special ones" : "", text.data + 4,
                 json_string_value(expected));
    lrd_buf_release(&text);
}

void check_record(const json_t *record, void *context)
{
    const checker_t *checker = context;
    const json_t *text = json_object_get(record, "text");
    size_t n_ids = 0;
    int32_t *id = int_list(record, "ids", &n_ids);
    assert_non_null(id);
    if (text != NULL) {
        lrd_tokens_t tokens =
            encode(checker->encoder, json_string_value(text), json_string_length(text));
        size_t same = 0;
        while (same < tokens.n && same < n_ids && tokens.id[same] == id[same])
            same++;
        if (same < tokens.n || same < n_ids)
            fail_msg("%s: \"%.200s\" gives %zu tokens, expected %zu, and they differ from %zu on",
                     checker->name, json_string_value(text), tokens.n, n_ids, same);
        check_begins(checker, record, json_string_value(text), json_string_length(text), &tokens);
        lrd_tokens_release(&tokens);
    }
    const json_t *decoded = json_object_get(record, "decoded");
    const json_t *skipped = json_object_get(record, "decoded_skip_special");
    decoded = decoded != NULL ? decoded : text;
    check_decoding(checker, id, n_ids, false, decoded);
    check_decoding(checker, id, n_ids, true, skipped != NULL ? skipped : decoded);
    lrd_free(id);
}
