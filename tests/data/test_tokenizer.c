/* The tokenizer against reference results of the Hugging Face library: ids, begins, decoding; the
 * fast splitter against Oniguruma; long words; threads. */
#include "tokenizer_records.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"
#include "data/unicode_class.h"

#include <stdio.h>
#include <string.h>

static void check_file(const lrd_tokenizer_t *tokenizer, const char *path, size_t at_least)
{
    checker_t checker = {.tokenizer = tokenizer, .name = path, .plain = true};
    assert_ok(lrd_encoder_new(tokenizer, &checker.encoder));
    assert_true(for_each_record(path, check_record, &checker) >= at_least);
    lrd_encoder_free(checker.encoder);
}

static void test_golden(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    assert_int_equal(lrd_tokenizer_size(tokenizer), 720);
    check_file(tokenizer, lrd_test_golden("tokenizer/cases.jsonl"), 300);
    check_file(tokenizer, lrd_test_golden("tokenizer/decode.jsonl"), 80);
    lrd_tokenizer_free(tokenizer);
}

static const char *shared_or_skip(const char *relative)
{
    const char *path = lrd_test_shared(relative);
    if (path == NULL) {
        print_message("SKIPPED: ../shared/%s is not there\n", relative);
        skip();
    }
    return path;
}

static void test_shared(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(shared_or_skip("golden/tokenizer/bloom-8k"));
    check_file(tokenizer, lrd_test_shared("golden/tokenizer/cases.jsonl"), 2000);
    check_file(tokenizer, lrd_test_shared("golden/tokenizer/decode.jsonl"), 300);
    lrd_tokenizer_free(tokenizer);
}

/* ---- variants of tokenizer.json -------------------------------------------------------------- */

static json_t *patched(const json_t *base, const json_t *root, const json_t *model)
{
    json_t *json = json_deep_copy(base);
    assert_non_null(json);
    assert_int_equal(json_object_update(json, (json_t *)root), 0);
    assert_int_equal(json_object_update(json_object_get(json, "model"), (json_t *)model), 0);
    return json;
}

static void check_variant(const json_t *variant, void *context)
{
    json_t *json =
        patched(context, json_object_get(variant, "root"), json_object_get(variant, "model"));
    lrd_tokenizer_t *tokenizer = parse_tokenizer(json);
    checker_t checker = {.tokenizer = tokenizer,
                         .name = json_string_value(json_object_get(variant, "name"))};
    assert_ok(lrd_encoder_new(tokenizer, &checker.encoder));
    size_t i;
    json_t *record;
    for (int pass = 0; pass < 2; pass++) /* the second finds its words in the cache */
        json_array_foreach(json_object_get(variant, "cases"), i, record)
            check_record(record, &checker);
    lrd_encoder_free(checker.encoder);
    lrd_tokenizer_free(tokenizer);
    json_decref(json);
}

static void test_variants(void **state)
{
    json_t *base = load_json(lrd_test_golden("tokenizer/tokenizer.json"));
    assert_true(for_each_record(lrd_test_golden("tokenizer/variants.jsonl"), check_variant, base) >=
                25);
    json_decref(base);
}

/* Merges written "a b" mean the same as ["a", "b"]; a line "#version" counts for nothing. */
static void check_line_merges(const char *folder, const char *cases)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    json_t *json = load_json(path);
    json_t *model = json_object_get(json, "model"), *pairs = json_object_get(model, "merges");
    json_t *lines = json_array();
    size_t i;
    json_t *pair;
    json_array_append_new(lines, json_string("#version: 0.2"));
    json_array_foreach(pairs, i, pair) json_array_append_new(
        lines, json_sprintf("%s %s", json_string_value(json_array_get(pair, 0)),
                            json_string_value(json_array_get(pair, 1))));
    assert_true(json_array_size(lines) > 1);
    json_object_set_new(model, "merges", lines);
    lrd_tokenizer_t *tokenizer = parse_tokenizer(json);
    check_file(tokenizer, cases, 1);
    lrd_tokenizer_free(tokenizer);
    json_decref(json);
}

static void test_line_merges(void **state)
{
    check_line_merges(lrd_test_golden("tokenizer"), lrd_test_golden("tokenizer/cases.jsonl"));
}

static void test_line_merges_shared(void **state)
{
    check_line_merges(shared_or_skip("golden/tokenizer/bloom-8k"),
                      lrd_test_shared("golden/tokenizer/cases.jsonl"));
}

/* ---- SQuAD: the hash of all ids -------------------------------------------------------------- */

static void hash_text(lrd_encoder_t *encoder, lrd_sha256_t *hash, const json_t *text, size_t *n)
{
    lrd_tokens_t tokens = encode(encoder, json_string_value(text), json_string_length(text));
    assert_ok(lrd_sha256_add(hash, tokens.id, tokens.n * sizeof *tokens.id)); /* little-endian */
    *n += tokens.n;
    lrd_tokens_release(&tokens);
}

static void check_article(lrd_encoder_t *encoder, const json_t *article, const json_t *expected)
{
    lrd_sha256_t *hash;
    char hex[LRD_SHA256_HEX];
    size_t n_tokens = 0, i, k;
    json_t *paragraph, *question;
    assert_ok(lrd_sha256_begin(&hash));
    json_array_foreach(json_object_get(article, "paragraphs"), i, paragraph)
    {
        hash_text(encoder, hash, json_object_get(paragraph, "context"), &n_tokens);
        json_array_foreach(json_object_get(paragraph, "qas"), k, question)
            hash_text(encoder, hash, json_object_get(question, "question"), &n_tokens);
    }
    assert_ok(lrd_sha256_end(hash, hex));
    lrd_sha256_free(hash);
    assert_int_equal(n_tokens, json_integer_value(json_object_get(expected, "tokens")));
    assert_string_equal(hex, json_string_value(json_object_get(expected, "sha256")));
}

static void test_squad(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(shared_or_skip("golden/tokenizer/bloom-8k"));
    json_t *files = load_json(shared_or_skip("golden/tokenizer/squad.json"));
    lrd_encoder_t *encoder;
    const char *name;
    json_t *file;
    size_t n_files = 0;
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    json_object_foreach(json_object_get(files, "files"), name, file)
    {
        char relative[256];
        snprintf(relative, sizeof relative, "data/squad/%s", name);
        json_t *squad = load_json(shared_or_skip(relative));
        const json_t *articles = json_object_get(squad, "data");
        const json_t *expected = json_object_get(file, "articles");
        assert_int_equal(json_array_size(articles), json_array_size(expected));
        for (size_t i = 0; i < json_array_size(articles); i++)
            check_article(encoder, json_array_get(articles, i), json_array_get(expected, i));
        json_decref(squad);
        n_files++;
    }
    assert_int_equal(n_files, 2);
    lrd_encoder_free(encoder);
    json_decref(files);
    lrd_tokenizer_free(tokenizer);
}

/* ---- pieces: BLOOM's pattern by hand against Oniguruma --------------------------------------- */

static size_t put_utf8(int32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(0xf00 >> n | code);
    return (size_t)n;
}

static void check_split(lrd_splitter_t *splitter, lrd_pieces_t *fast, lrd_pieces_t *slow,
                        const char *text, size_t bytes)
{
    splitter->regex_only = false;
    assert_ok(lrd_splitter_split(splitter, text, (int32_t)bytes, fast));
    splitter->regex_only = true;
    assert_ok(lrd_splitter_split(splitter, text, (int32_t)bytes, slow));
    if (fast->n != slow->n || memcmp(fast->end, slow->end, fast->n * sizeof *fast->end) != 0)
        fail_msg("\"%s\" is split differently", text);
}

/* Every character. Under a sanitizer every 61st of those beyond
 * plane 2, which takes 4 s, not 20. */
#ifdef __SANITIZE_ADDRESS__
enum { RARE_STEP = 61 };
#else
enum { RARE_STEP = 1 };
#endif

static void test_split(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    lrd_splitter_t *splitter = &tokenizer->splitter;
    assert_int_equal(splitter->n_stages, 1);
    assert_true(splitter->stage[0].is_bloom);
    lrd_pieces_t fast, slow;
    assert_ok(lrd_pieces_init(&fast));
    assert_ok(lrd_pieces_init(&slow));
    int n_apart = 0; /* characters that part the letters around them */
    for (int32_t code = 0; code < 0x110000; code++) {
        if (code >= 0x30000 && code % RARE_STEP != 0)
            continue;
        if (code >= 0xd800 && code < 0xe000)
            continue;
        char text[32] = "a"; /* a c b space c c space space */
        size_t bytes = 1;
        bytes += put_utf8(code, text + bytes);
        text[bytes++] = 'b';
        text[bytes++] = ' ';
        bytes += put_utf8(code, text + bytes);
        bytes += put_utf8(code, text + bytes);
        text[bytes++] = ' ';
        text[bytes++] = ' ';
        check_split(splitter, &fast, &slow, text, bytes);
        n_apart += fast.end[0] == 1;
    }
    assert_int_equal(n_apart, 39);
    static const int32_t hot[] = {' ',    ' ',    ' ',    'a',    'b',    '.',    '\n',   0,
                                  0x7f,   0x85,   0xa0,   0xa1,   0x60c,  0x61f,  0x964,  0x965,
                                  0x2000, 0x200a, 0x200b, 0x2026, 0x2027, 0x3000, 0x3003, 0x1f600};
    uint64_t seed = 5;
    for (int i = 0; i < 20000; i++) {
        char text[100];
        size_t bytes = 0;
        for (int64_t n = 1 + lrd_test_random_int(&seed, 24); n > 0; n--)
            bytes +=
                put_utf8(hot[lrd_test_random_int(&seed, sizeof hot / sizeof *hot)], text + bytes);
        text[bytes] = '\0';
        check_split(splitter, &fast, &slow, text, bytes);
    }
    lrd_pieces_release(&fast);
    lrd_pieces_release(&slow);
    splitter->regex_only = false;
    lrd_tokenizer_free(tokenizer);
}

/* ---- long words ------------------------------------------------------------------------------ */

/* BPE as it is defined: of all pairs the one of lowest rank, the leftmost of equals. */
static size_t naive_bpe(const lrd_bpe_t *bpe, int32_t *id, size_t n)
{
    for (;;) {
        size_t best = n;
        uint32_t best_rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            const uint64_t pair = (uint64_t)(uint32_t)id[i] << 32 | (uint32_t)id[i + 1];
            for (uint32_t s = 0; s <= bpe->slot_mask; s++)
                if (bpe->slot[s].pair == pair && bpe->slot[s].rank < best_rank) {
                    best = i;
                    best_rank = bpe->slot[s].rank;
                }
        }
        if (best == n)
            return n;
        id[best] = bpe->merged[best_rank];
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        n--;
    }
}

/* Words of every length around the change of method, in a vocabulary whose
 * merges are in any order. */
static void test_word_lengths(void **state)
{
    json_t *base = load_json(lrd_test_golden("tokenizer/tokenizer.json"));
    json_t *merges = json_object_get(json_object_get(base, "model"), "merges");
    uint64_t seed = 11;
    for (size_t i = json_array_size(merges); i > 1; i--) { /* shuffle */
        const size_t k = (size_t)lrd_test_random_int(&seed, (int64_t)i);
        json_t *a = json_deep_copy(json_array_get(merges, i - 1));
        json_array_set(merges, i - 1, json_array_get(merges, k));
        json_array_set_new(merges, k, a);
    }
    lrd_tokenizer_t *tokenizer = parse_tokenizer(base);
    lrd_encoder_t *encoder;
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    for (size_t n = 1; n < 120; n++) {
        char word[120];
        int32_t id[120];
        for (size_t i = 0; i < n; i++) {
            word[i] = "thenriado"[lrd_test_random_int(&seed, 9)];
            id[i] = tokenizer->bpe.byte_id[(uint8_t)word[i]];
        }
        lrd_tokens_t tokens = encode(encoder, word, n);
        const size_t n_ids = naive_bpe(&tokenizer->bpe, id, n);
        assert_equal_ids(tokens.id, tokens.n, id, n_ids);
        lrd_tokens_release(&tokens);
    }
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
    json_decref(base);
}

/* Encodes, decodes and gives the seconds that took. */
static double round_trip(lrd_encoder_t *encoder, const lrd_tokenizer_t *tokenizer, const char *text,
                         size_t bytes)
{
    lrd_buf_t decoded = {0};
    const double begin = lrd_clock_seconds();
    lrd_tokens_t tokens = encode(encoder, text, bytes);
    assert_ok(lrd_tokenizer_decode(tokenizer, tokens.id, tokens.n, false, &decoded));
    const double seconds = lrd_clock_seconds() - begin;
    assert_int_equal(decoded.size, bytes);
    assert_memory_equal(decoded.data, text, bytes);
    lrd_buf_release(&decoded);
    lrd_tokens_release(&tokens);
    return seconds;
}

/* One word of a megabyte. Quadratic time would be hours;
 * a second is what it takes on a slow machine under a sanitizer. */
static void test_megabyte_word(void **state)
{
    enum { BYTES = 1 << 20 };
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    lrd_encoder_t *encoder;
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    char *text = lrd_malloc(BYTES);
    assert_non_null(text);
    static const char *const alphabet[] = {"a", "th", "theandr", "abcdefghijklmnopqrstuvwxyz0123",
                                           " ", ".",  " \n"};
    uint64_t seed = 3;
    for (size_t k = 0; k < sizeof alphabet / sizeof *alphabet; k++) {
        for (size_t i = 0; i < BYTES; i++)
            text[i] = alphabet[k][lrd_test_random_int(&seed, (int64_t)strlen(alphabet[k]))];
        assert_true(round_trip(encoder, tokenizer, text, BYTES) < 20.0);
    }
    lrd_free(text);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
}

/* A megabyte of spaces, with added tokens that each look at all of them. */
static void test_megabyte_of_white(void **state)
{
    enum { BYTES = 1 << 20 };
    json_t *json = load_json(lrd_test_golden("tokenizer/tokenizer.json"));
    json_t *added =
        json_pack("[{s:i,s:s,s:b,s:b,s:b,s:b,s:b}]", "id", 720, "content", "  ", "single_word", 0,
                  "lstrip", 1, "rstrip", 1, "normalized", 0, "special", 0);
    json_object_set_new(json, "added_tokens", added);
    lrd_tokenizer_t *tokenizer = parse_tokenizer(json);
    lrd_encoder_t *encoder;
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    char *text = lrd_malloc(BYTES);
    assert_non_null(text);
    memset(text, ' ', BYTES);
    const double begin = lrd_clock_seconds();
    lrd_tokens_t tokens = encode(encoder, text, BYTES);
    assert_true(lrd_clock_seconds() - begin < 20.0);
    assert_int_equal(tokens.n, 1); /* the first one takes all */
    lrd_tokens_release(&tokens);
    lrd_free(text);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
    json_decref(json);
}

/* ---- many texts on several threads ----------------------------------------------------------- */

typedef struct text_list {
    json_t *records[4096];
    lrd_text_t text[4096];
    size_t n;
} text_list_t;

static void keep_text(const json_t *record, void *context)
{
    text_list_t *list = context;
    const json_t *text = json_object_get(record, "text");
    assert_true(list->n < 4096);
    list->records[list->n] = json_incref((json_t *)record);
    list->text[list->n++] =
        (lrd_text_t){.data = json_string_value(text), .bytes = json_string_length(text)};
}

static void check_batch(const lrd_tokenizer_t *tokenizer, lrd_encoder_t *encoder,
                        const lrd_text_t *text, size_t n, int n_threads)
{
    lrd_token_batch_t batch = {0};
    assert_ok(lrd_tokenizer_encode_batch(tokenizer, text, n, n_threads, true, &batch));
    assert_int_equal(batch.n, n);
    assert_int_equal(batch.first[0], 0);
    assert_int_equal(batch.first[n], batch.tokens.n);
    for (size_t i = 0; i < n; i++) {
        lrd_tokens_t tokens = encode(encoder, text[i].data, text[i].bytes);
        const size_t first = batch.first[i], n_ids = batch.first[i + 1] - first;
        assert_equal_ids(batch.tokens.id + first, n_ids, tokens.id, tokens.n);
        assert_equal_ids(batch.tokens.begin + first, n_ids, tokens.begin, tokens.n);
        lrd_tokens_release(&tokens);
    }
    lrd_token_batch_release(&batch);
}

static void test_batch(void **state)
{
    static text_list_t list;
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    for_each_record(lrd_test_golden("tokenizer/cases.jsonl"), keep_text, &list);
    lrd_encoder_t *encoder;
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    static const int n_threads[] = {1, 2, 3, 8, 0};
    const size_t sizes[] = {0, 1, 63, 64, 65, 200, list.n};
    for (size_t k = 0; k < sizeof n_threads / sizeof *n_threads; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            check_batch(tokenizer, encoder, list.text, sizes[s], n_threads[k]);
    for (size_t i = 0; i < list.n; i++)
        json_decref(list.records[i]);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
}

/* The failure is that of the first bad text, whatever the number of threads. */
static void test_batch_failure(void **state)
{
    enum { N = 1000 };
    static lrd_text_t text[N];
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    for (size_t i = 0; i < N; i++)
        text[i] = (lrd_text_t){.data = "fine", .bytes = 4};
    text[333] = (lrd_text_t){.data = "bad \xe2\x82 text", .bytes = 11};
    for (size_t i = 400; i < N; i += 50)
        text[i] = (lrd_text_t){.data = "\xff", .bytes = 1};
    for (int n_threads = 1; n_threads < 9; n_threads++) {
        lrd_token_batch_t batch = {0};
        assert_fails(lrd_tokenizer_encode_batch(tokenizer, text, N, n_threads, false, &batch),
                     LRD_ERR_FORMAT, "text 333: the text is not valid UTF-8 at byte 4 (0xe2)");
        assert_null(batch.first);
    }
    lrd_token_batch_t batch = {0};
    assert_fails(lrd_tokenizer_encode_batch(tokenizer, text, N, -1, false, &batch), LRD_ERR_ARG,
                 "-1 threads");
    lrd_tokenizer_free(tokenizer);
}

/* ---- odds and ends --------------------------------------------------------------------------- */

static void test_bad_text(void **state)
{
    static const struct {
        const char *text;
        size_t bytes, at;
    } bad[] = {
        {"\x80", 1, 0},         {"abcdefghij\xc3", 11, 10},   {"a\xc0\x80", 3, 1},
        {"\xed\xa0\x80", 3, 0}, {"ab\xf4\x90\x80\x80", 6, 2}, {"12345678\xff 12345678", 18, 8}};
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    lrd_encoder_t *encoder;
    lrd_tokens_t tokens = {0};
    assert_ok(lrd_encoder_new(tokenizer, &encoder));
    assert_ok(lrd_encoder_encode(encoder, "one", 3, &tokens));
    const size_t n = tokens.n;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char message[64];
        snprintf(message, sizeof message, "not valid UTF-8 at byte %zu ", bad[i].at);
        assert_fails(lrd_encoder_encode(encoder, bad[i].text, bad[i].bytes, &tokens),
                     LRD_ERR_FORMAT, message);
        assert_int_equal(tokens.n, n);
    }
    assert_fails(lrd_encoder_encode(encoder, "", (size_t)1 << 31, &tokens), LRD_ERR_ARG,
                 "2147483648 bytes");
    assert_null(tokens.begin); /* not asked for */
    lrd_tokens_release(&tokens);
    lrd_encoder_free(encoder);
    lrd_tokenizer_free(tokenizer);
}

static void test_lookup(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer/tokenizer.json"));
    char hex[LRD_SHA256_HEX];
    assert_ok(lrd_sha256_file(lrd_test_golden("tokenizer/tokenizer.json"), hex));
    assert_string_equal(lrd_tokenizer_sha256(tokenizer), hex);
    assert_int_equal(lrd_tokenizer_find(tokenizer, "</s>"), 2);
    assert_int_equal(lrd_tokenizer_find(tokenizer, "!"), 4);
    assert_int_equal(lrd_tokenizer_find(tokenizer, ""), -1);
    assert_int_equal(lrd_tokenizer_find(tokenizer, "no such token"), -1);
    assert_true(lrd_tokenizer_is_special(tokenizer, 3));
    assert_false(lrd_tokenizer_is_special(tokenizer, 4));
    assert_false(lrd_tokenizer_is_special(tokenizer, -1));
    assert_false(lrd_tokenizer_is_special(tokenizer, 720));
    lrd_buf_t text = {0};
    assert_ok(
        lrd_tokenizer_decode(tokenizer, (const int32_t[]){-1, INT32_MIN, 2}, 3, false, &text));
    assert_string_equal(text.data, "</s>");
    lrd_buf_release(&text);
    lrd_tokenizer_free(tokenizer);
}

/* Unicode 16.0: 25 characters are White_Space; 144,667 are in \w, as the library answers. */
static void test_unicode_classes(void **state)
{
    int n_word = 0, n_white = 0;
    for (int32_t code = -1; code <= 0x110000; code++) {
        n_word += lrd_unicode_is_word(code);
        n_white += lrd_unicode_is_white(code);
    }
    assert_int_equal(n_word, 144667);
    assert_int_equal(n_white, 25);
}

/* The symbols of the 256 bytes are all different, and decode to their bytes. */
static void test_byte_symbols(void **state)
{
    lrd_tokenizer_t *tokenizer = load_tokenizer(lrd_test_golden("tokenizer"));
    for (int byte = 0; byte < 256; byte++) {
        char symbol[2];
        const size_t n = lrd_byte_symbol((uint8_t)byte, symbol);
        const int64_t found = lrd_vocab_find(&tokenizer->vocab, symbol, n);
        assert_true(found >= 0);
        const lrd_vocab_token_t *token = &tokenizer->vocab.token[found];
        assert_int_equal(token->n_bytes, 1);
        assert_int_equal((uint8_t)tokenizer->vocab.bytes.data[token->bytes], byte);
    }
    lrd_tokenizer_free(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_line_merges),
        cmocka_unit_test(test_line_merges_shared),
        cmocka_unit_test(test_squad),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_word_lengths),
        cmocka_unit_test(test_megabyte_word),
        cmocka_unit_test(test_megabyte_of_white),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_batch_failure),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_unicode_classes),
        cmocka_unit_test(test_byte_symbols),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
