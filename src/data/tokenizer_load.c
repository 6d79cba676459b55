#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/tokenizer_parts.h"

#include <inttypes.h>
#include <string.h>

enum { MAX_FILE_BYTES = 256 << 20 };

/* ---- model ----------------------------------------------------------------------------------- */

static lrd_status_t read_vocab(lrd_vocab_t *vocab, const json_t *model, const char *where)
{
    lrd_status_t status = LRD_OK;
    json_t *list = json_object_get(model, "vocab");
    const char *text;
    json_t *id;
    LRD_CHECK(json_is_object(list), LRD_ERR_FORMAT,
              "%s.vocab is not an object of tokens and their ids", where);
    json_object_foreach(list, text, id)
    {
        LRD_CHECK(json_is_integer(id) && json_integer_value(id) >= 0 &&
                      json_integer_value(id) < INT32_MAX,
                  LRD_ERR_FORMAT, "%s.vocab: the id of \"%.100s\" is not an integer in 0..2^31-2",
                  where, text);
        LRD_TRY(lrd_vocab_add(vocab, text, strlen(text), (int32_t)json_integer_value(id)));
    }
    vocab->n_model = vocab->n_tokens;
    LRD_TRY(lrd_vocab_index(vocab, where));
out:
    return status;
}

/* What the merges are read with. */
typedef struct merge_reader {
    const lrd_vocab_t *vocab;
    const char *where;
    lrd_buf_t text; /* of the merged token */
} merge_reader_t;

static lrd_status_t find_part(const merge_reader_t *reader, size_t i, const char *text,
                              size_t bytes, int32_t *id_out)
{
    lrd_status_t status = LRD_OK;
    const int64_t found = lrd_vocab_find(reader->vocab, text, bytes);
    LRD_CHECK(found >= 0, LRD_ERR_FORMAT, "%s.merges[%zu]: \"%.*s\" is not in the vocabulary",
              reader->where, i, bytes < 100 ? (int)bytes : 100, text);
    *id_out = reader->vocab->token[found].id;
out:
    return status;
}

static lrd_status_t add_merge(merge_reader_t *reader, lrd_bpe_t *bpe, size_t i, uint32_t rank,
                              const char *left, size_t left_bytes, const char *right,
                              size_t right_bytes)
{
    lrd_status_t status = LRD_OK;
    int32_t left_id, right_id, id;
    lrd_buf_clear(&reader->text);
    LRD_TRY(lrd_buf_add(&reader->text, left, left_bytes));
    LRD_TRY(lrd_buf_add(&reader->text, right, right_bytes));
    LRD_TRY(find_part(reader, i, left, left_bytes, &left_id));
    LRD_TRY(find_part(reader, i, right, right_bytes, &right_id));
    LRD_TRY(find_part(reader, i, reader->text.data, reader->text.size, &id));
    lrd_bpe_add(bpe, rank, left_id, right_id, id);
out:
    return status;
}

/* Pairs ["a", "b"], as newer versions of the library write them. */
static lrd_status_t read_pairs(merge_reader_t *reader, lrd_bpe_t *bpe, const json_t *list)
{
    lrd_status_t status = LRD_OK;
    size_t i;
    const json_t *pair;
    json_array_foreach(list, i, pair)
    {
        const json_t *left = json_array_get(pair, 0), *right = json_array_get(pair, 1);
        LRD_CHECK(json_is_string(left) && json_is_string(right) && json_array_size(pair) == 2,
                  LRD_ERR_FORMAT, "%s.merges[%zu] is not a pair of strings, as merges[0] is",
                  reader->where, i);
        LRD_TRY(add_merge(reader, bpe, i, (uint32_t)i, json_string_value(left),
                          json_string_length(left), json_string_value(right),
                          json_string_length(right)));
    }
out:
    return status;
}

/* Strings "a b". One that begins with "#version" is a comment and has no rank. */
static lrd_status_t read_lines(merge_reader_t *reader, lrd_bpe_t *bpe, const json_t *list)
{
    lrd_status_t status = LRD_OK;
    size_t i;
    const json_t *line;
    uint32_t rank = 0;
    json_array_foreach(list, i, line)
    {
        const char *text = json_string_value(line);
        const size_t bytes = json_string_length(line);
        LRD_CHECK(text != NULL, LRD_ERR_FORMAT, "%s.merges[%zu] is not a string, as merges[0] is",
                  reader->where, i);
        if (strncmp(text, "#version", 8) == 0)
            continue;
        const char *space = memchr(text, ' ', bytes);
        const char *right = space + 1;
        LRD_CHECK(space != NULL && memchr(right, ' ', bytes - (size_t)(right - text)) == NULL,
                  LRD_ERR_FORMAT,
                  "%s.merges[%zu]: \"%.100s\" is not two tokens with a space between",
                  reader->where, i, text);
        LRD_TRY(add_merge(reader, bpe, i, rank++, text, (size_t)(space - text), right,
                          bytes - (size_t)(right - text)));
    }
out:
    return status;
}

static lrd_status_t read_merges(lrd_tokenizer_t *tokenizer, const json_t *model, const char *where)
{
    lrd_status_t status = LRD_OK;
    merge_reader_t reader = {.vocab = &tokenizer->vocab, .where = where};
    const json_t *list = json_object_get(model, "merges");
    LRD_CHECK(json_is_array(list), LRD_ERR_FORMAT, "%s.merges is not a list", where);
    LRD_CHECK(json_array_size(list) < UINT32_MAX / 4, LRD_ERR_FORMAT, "%s.merges: too many", where);
    LRD_TRY(lrd_bpe_reserve(&tokenizer->bpe, (uint32_t)json_array_size(list)));
    if (json_is_string(json_array_get(list, 0)))
        LRD_TRY(read_lines(&reader, &tokenizer->bpe, list));
    else
        LRD_TRY(read_pairs(&reader, &tokenizer->bpe, list));
out:
    lrd_buf_release(&reader.text);
    return status;
}

/* The symbols of the 256 bytes, and what stands for those that the vocabulary lacks. */
static lrd_status_t read_symbols(lrd_tokenizer_t *tokenizer, const json_t *model, const char *where)
{
    lrd_status_t status = LRD_OK;
    lrd_bpe_t *bpe = &tokenizer->bpe;
    const lrd_vocab_t *vocab = &tokenizer->vocab;
    const char *unk;
    bpe->complete = true;
    for (int byte = 0; byte < 256; byte++) {
        char symbol[2];
        const size_t bytes = lrd_byte_symbol((uint8_t)byte, symbol);
        const int64_t found = lrd_vocab_find(vocab, symbol, bytes);
        bpe->byte_id[byte] = found >= 0 ? vocab->token[found].id : -1;
        bpe->complete = bpe->complete && found >= 0;
    }
    bpe->unk_id = -1;
    LRD_TRY(lrd_json_get_text(model, where, "unk_token", NULL, &unk));
    if (unk != NULL && !bpe->complete) {
        const int64_t found = lrd_vocab_find(vocab, unk, strlen(unk));
        LRD_CHECK(found >= 0, LRD_ERR_FORMAT,
                  "%s: \"unk_token\" \"%.100s\" is not in the vocabulary, which lacks symbols of "
                  "some bytes",
                  where, unk);
        bpe->unk_id = vocab->token[found].id;
    }
out:
    return status;
}

/* A text member that must be absent, null or empty. */
static lrd_status_t expect_no_text(const json_t *object, const char *where, const char *key)
{
    lrd_status_t status = LRD_OK;
    const char *text;
    LRD_TRY(lrd_json_get_text(object, where, key, "", &text));
    LRD_CHECK(text[0] == '\0', LRD_ERR_UNSUPPORTED, "%s: \"%s\" \"%.100s\" is not supported", where,
              key, text);
out:
    return status;
}

static lrd_status_t read_model(lrd_tokenizer_t *tokenizer, const json_t *model, const char *name)
{
    lrd_status_t status = LRD_OK;
    char *where = NULL;
    const char *type;
    double dropout;
    bool byte_fallback;
    LRD_ALLOC(where, lrd_asprintf("%s: model", name));
    LRD_CHECK(json_is_object(model), LRD_ERR_FORMAT, "%s is not an object", where);
    LRD_TRY(lrd_json_get_text(model, where, "type", "BPE", &type));
    LRD_CHECK(strcmp(type, "BPE") == 0, LRD_ERR_UNSUPPORTED,
              "%s: type \"%.100s\" is not supported, only BPE", where, type);
    LRD_TRY(lrd_json_get_real(model, where, "dropout", 0.0, &dropout));
    LRD_CHECK(dropout == 0.0, LRD_ERR_UNSUPPORTED,
              "%s: \"dropout\" %g is not supported: the same text must give the same ids", where,
              dropout);
    LRD_TRY(expect_no_text(model, where, "continuing_subword_prefix"));
    LRD_TRY(expect_no_text(model, where, "end_of_word_suffix"));
    LRD_TRY(lrd_json_get_bool(model, where, "byte_fallback", false, &byte_fallback));
    LRD_CHECK(!byte_fallback, LRD_ERR_UNSUPPORTED, "%s: \"byte_fallback\": true is not supported",
              where);
    LRD_TRY(lrd_json_get_bool(model, where, "fuse_unk", false, &tokenizer->bpe.fuse_unk));
    LRD_TRY(lrd_json_get_bool(model, where, "ignore_merges", false, &tokenizer->bpe.ignore_merges));
    LRD_TRY(read_vocab(&tokenizer->vocab, model, where));
    LRD_TRY(read_merges(tokenizer, model, where));
    LRD_TRY(read_symbols(tokenizer, model, where));
out:
    lrd_free(where);
    return status;
}

/* ---- the other components -------------------------------------------------------------------- */

/* A component that must be a ByteLevel, or null where that is allowed. */
static lrd_status_t expect_byte_level(const json_t *root, const char *name, const char *key,
                                      bool or_null)
{
    lrd_status_t status = LRD_OK;
    const char *type = "null";
    const json_t *component = json_object_get(root, key);
    if (component != NULL && !json_is_null(component)) {
        LRD_CHECK(json_is_object(component), LRD_ERR_FORMAT, "%s: \"%s\" is not an object", name,
                  key);
        LRD_TRY(lrd_json_get_text(component, name, "type", "", &type));
        LRD_CHECK(strcmp(type, "ByteLevel") == 0, LRD_ERR_UNSUPPORTED,
                  "%s: %s: type \"%.100s\" is not supported, only ByteLevel%s", name, key, type,
                  or_null ? " or null" : "");
    } else {
        LRD_CHECK(or_null, LRD_ERR_UNSUPPORTED,
                  "%s: \"%s\" is absent or null: only ByteLevel is supported", name, key);
    }
out:
    return status;
}

static lrd_status_t read_root(lrd_tokenizer_t *tokenizer, const json_t *root, const char *name)
{
    lrd_status_t status = LRD_OK;
    const char *version, *type = "";
    LRD_CHECK(json_is_object(root), LRD_ERR_FORMAT, "%s is not a JSON object", name);
    LRD_TRY(lrd_json_get_text(root, name, "version", "1.0", &version));
    LRD_CHECK(strcmp(version, "1.0") == 0, LRD_ERR_UNSUPPORTED,
              "%s: version \"%.100s\" is not supported, only 1.0", name, version);
    const json_t *normalizer = json_object_get(root, "normalizer");
    if (normalizer != NULL && !json_is_null(normalizer)) {
        LRD_TRY(lrd_json_get_text(normalizer, name, "type", "", &type));
        LRD_FAIL(LRD_ERR_UNSUPPORTED,
                 "%s: normalizer: type \"%.100s\" is not supported, only null (as BLOOM has it)",
                 name, type);
    }
    LRD_TRY(expect_byte_level(root, name, "post_processor", true));
    LRD_TRY(expect_byte_level(root, name, "decoder", false));
    LRD_TRY(lrd_splitter_read(&tokenizer->splitter, json_object_get(root, "pre_tokenizer"), name));
    LRD_TRY(read_model(tokenizer, json_object_get(root, "model"), name));
    LRD_TRY(lrd_added_read(tokenizer, json_object_get(root, "added_tokens"), name));
out:
    return status;
}

static lrd_status_t hash_bytes(const char *data, size_t bytes, char hex_out[LRD_SHA256_HEX])
{
    lrd_status_t status = LRD_OK;
    lrd_sha256_t *hash = NULL;
    LRD_TRY(lrd_sha256_begin(&hash));
    LRD_TRY(lrd_sha256_add(hash, data, bytes));
    LRD_TRY(lrd_sha256_end(hash, hex_out));
out:
    lrd_sha256_free(hash);
    return status;
}

lrd_status_t lrd_tokenizer_parse(const char *json, size_t bytes, const char *name,
                                 lrd_tokenizer_t **tokenizer_out)
{
    lrd_status_t status = LRD_OK;
    lrd_tokenizer_t *tokenizer = NULL;
    json_t *root = NULL;
    LRD_NEW(tokenizer, 1);
    LRD_TRY(hash_bytes(json, bytes, tokenizer->sha256));
    LRD_TRY(lrd_json_parse(json, bytes, name, &root));
    LRD_TRY(read_root(tokenizer, root, name));
    *tokenizer_out = tokenizer;
    tokenizer = NULL;
out:
    json_decref(root);
    lrd_tokenizer_free(tokenizer);
    return status;
}

lrd_status_t lrd_tokenizer_load(const char *path, lrd_tokenizer_t **tokenizer_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t buf = {0};
    char *joined = NULL;
    if (lrd_folder_exists(path)) {
        LRD_ALLOC(joined, lrd_path_join(path, "tokenizer.json"));
        path = joined;
    }
    LRD_TRY(lrd_file_read(path, MAX_FILE_BYTES, &buf));
    LRD_TRY(lrd_tokenizer_parse(buf.data != NULL ? buf.data : "", buf.size, path, tokenizer_out));
out:
    lrd_buf_release(&buf);
    lrd_free(joined);
    return status;
}

void lrd_tokenizer_free(lrd_tokenizer_t *tokenizer)
{
    if (tokenizer == NULL)
        return;
    lrd_vocab_release(&tokenizer->vocab);
    lrd_bpe_release(&tokenizer->bpe);
    lrd_splitter_release(&tokenizer->splitter);
    lrd_added_release(&tokenizer->added);
    lrd_free(tokenizer);
}

int32_t lrd_tokenizer_size(const lrd_tokenizer_t *tokenizer)
{
    return tokenizer->vocab.size;
}

int32_t lrd_tokenizer_find(const lrd_tokenizer_t *tokenizer, const char *token)
{
    const int64_t found = lrd_vocab_find(&tokenizer->vocab, token, strlen(token));
    return found >= 0 ? tokenizer->vocab.token[found].id : -1;
}

bool lrd_tokenizer_is_special(const lrd_tokenizer_t *tokenizer, int32_t id)
{
    const lrd_vocab_token_t *token = lrd_vocab_by_id(&tokenizer->vocab, id);
    return token != NULL && token->special;
}

const char *lrd_tokenizer_sha256(const lrd_tokenizer_t *tokenizer)
{
    return tokenizer->sha256;
}
