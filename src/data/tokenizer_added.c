#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "data/tokenizer_parts.h"
#include "data/unicode_class.h"

#include <inttypes.h>
#include <string.h>

void lrd_added_release(lrd_added_t *added)
{
    lrd_free(added->token);
    for (int pass = 0; pass < LRD_ADDED_PASSES; pass++)
        lrd_free(added->trie[pass].node);
    *added = (lrd_added_t){0};
}

/* ---- the trie -------------------------------------------------------------------------------- */

static int32_t child_of(const lrd_added_trie_t *trie, int32_t parent, uint8_t byte)
{
    if (parent == 0)
        return trie->root[byte];
    int32_t child = trie->node[parent].child;
    while (child != 0 && trie->node[child].byte != byte)
        child = trie->node[child].sibling;
    return child;
}

lrd_status_t lrd_added_insert(lrd_added_t *added, int pass, const char *text, size_t bytes,
                              int32_t index)
{
    lrd_status_t status = LRD_OK;
    lrd_added_trie_t *trie = &added->trie[pass];
    const size_t n = (size_t)trie->n_nodes + bytes + 1;
    if (n > (size_t)trie->capacity) {
        lrd_added_node_t *grown;
        LRD_CHECK(n < INT32_MAX / 2, LRD_ERR_NO_MEMORY, "out of memory: %zu bytes of added tokens",
                  n);
        LRD_ALLOC(grown, lrd_realloc_array(trie->node, 2 * n, sizeof *grown));
        trie->node = grown;
        trie->capacity = (int32_t)(2 * n);
    }
    if (trie->n_nodes == 0)
        trie->node[trie->n_nodes++] = (lrd_added_node_t){.token = -1};
    int32_t at = 0;
    for (size_t i = 0; i < bytes; i++) {
        const uint8_t byte = (uint8_t)text[i];
        int32_t child = child_of(trie, at, byte);
        if (child == 0) {
            child = trie->n_nodes++;
            trie->node[child] =
                (lrd_added_node_t){.byte = byte, .token = -1, .sibling = trie->node[at].child};
            trie->node[at].child = child;
            if (at == 0)
                trie->root[byte] = child;
        }
        at = child;
    }
    trie->node[at].token = index;
out:
    return status;
}

/* The longest token that begins at text[from], or -1; its end. */
static int32_t longest(const lrd_added_trie_t *trie, const char *text, int32_t from, int32_t bytes,
                       int32_t *end_out)
{
    int32_t found = -1;
    int32_t node = trie->root[(uint8_t)text[from]];
    for (int32_t i = from + 1; node != 0; i++) {
        if (trie->node[node].token >= 0) {
            found = trie->node[node].token;
            *end_out = i;
        }
        node = i < bytes ? child_of(trie, node, (uint8_t)text[i]) : 0;
    }
    return found;
}

/* ---- matching -------------------------------------------------------------------------------- */

static int32_t char_after(const char *text, int32_t at, int32_t bytes, int32_t *length_out)
{
    int32_t code;
    *length_out = (int32_t)lrd_utf8_next(text + at, (size_t)(bytes - at), &code);
    return code;
}

static int32_t char_before(const char *text, int32_t at, int32_t *length_out)
{
    int32_t begin = at - 1;
    while (begin > 0 && ((uint8_t)text[begin] & 0xc0) == 0x80)
        begin--;
    *length_out = at - begin;
    int32_t length;
    return char_after(text, begin, at, &length);
}

static bool is_single_word(const char *text, int32_t begin, int32_t end, int32_t bytes)
{
    int32_t length;
    return !(begin > 0 && lrd_unicode_is_word(char_before(text, begin, &length))) &&
           !(end < bytes && lrd_unicode_is_word(char_after(text, end, bytes, &length)));
}

/* The end of the white space that begins at `at`. What was seen to be white before is not looked at
 * again: many tokens in one long run of spaces would take quadratic time. */
static int32_t white_end(const char *text, int32_t at, int32_t bytes, lrd_added_part_t *part)
{
    if (at >= part->white_begin && at < part->white_end)
        return part->white_end;
    int32_t end = at, length;
    while (end < bytes && lrd_unicode_is_white(char_after(text, end, bytes, &length)))
        end += length;
    part->white_begin = at;
    part->white_end = end;
    return end;
}

/* The begin of the white space that ends at `at`, not before `floor`. */
static int32_t white_begin(const char *text, int32_t at, int32_t floor)
{
    int32_t begin = at, length;
    while (begin > floor && lrd_unicode_is_white(char_before(text, begin, &length)))
        begin -= length;
    return begin;
}

/* The next match from part->search on that is not discarded: leftmost, of several there the
 * longest. Where it is discarded no shorter one is tried, and the search goes on behind it. The
 * search also goes on behind the match itself and not behind the white space that rstrip swallows:
 * a token that begins in there is found too. */
static bool find_match(const lrd_added_t *added, const lrd_added_trie_t *trie, const char *text,
                       int32_t bytes, lrd_added_part_t *part)
{
    for (;;) {
        int32_t begin = part->search, end = 0, index = -1;
        while (begin < bytes && (trie->root[(uint8_t)text[begin]] == 0 ||
                                 (index = longest(trie, text, begin, bytes, &end)) < 0))
            begin++;
        part->search = index < 0 ? bytes : end;
        if (index < 0)
            return false;
        const lrd_added_token_t *token = &added->token[index];
        if (token->single_word && !is_single_word(text, begin, end, bytes))
            continue;
        if (token->rstrip)
            end = white_end(text, end, bytes, part);
        if (token->lstrip) {
            begin = part->cut >= begin ? part->cut : white_begin(text, begin, part->cut);
            if (begin >= end) /* an rstrip before it took all of it */
                continue;
        }
        part->match_begin = begin;
        part->match_end = end;
        part->match_id = token->id;
        return true;
    }
}

bool lrd_added_next(const lrd_added_t *added, int pass, const char *text, int32_t bytes,
                    lrd_added_part_t *part)
{
    const lrd_added_trie_t *trie = &added->trie[pass];
    if (!part->waiting && trie->n_nodes > 0)
        part->waiting = find_match(added, trie, text, bytes, part);
    const int32_t next = part->waiting ? part->match_begin : bytes;
    if (part->cut < next) { /* the text before it */
        part->begin = part->cut;
        part->end = part->cut = next;
        part->id = -1;
        return true;
    }
    if (!part->waiting)
        return false;
    part->begin = part->match_begin;
    part->end = part->cut = part->match_end;
    part->id = part->match_id;
    part->waiting = false;
    return true;
}

/* ---- reading them from tokenizer.json -------------------------------------------------------- */

/* One entry of added_tokens. */
typedef struct entry {
    const char *content; /* borrowed from the JSON; may hold U+0000 */
    size_t bytes;
    int64_t id;
    lrd_added_token_t flags;
    bool normalized, special;
} entry_t;

static lrd_status_t read_flag(const json_t *object, const char *where, const char *key,
                              bool *flag_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(object, key);
    LRD_CHECK(json_is_boolean(value), LRD_ERR_FORMAT, "%s: \"%s\" is not true or false", where,
              key);
    *flag_out = json_is_true(value);
out:
    return status;
}

static lrd_status_t read_entry(const json_t *object, const char *name, size_t i, entry_t *entry)
{
    lrd_status_t status = LRD_OK;
    char *where = NULL;
    LRD_ALLOC(where, lrd_asprintf("%s: added_tokens[%zu]", name, i));
    LRD_CHECK(json_is_object(object), LRD_ERR_FORMAT, "%s is not an object", where);
    const json_t *content = json_object_get(object, "content");
    LRD_CHECK(json_is_string(content), LRD_ERR_FORMAT, "%s: \"content\" is not a string", where);
    entry->content = json_string_value(content);
    entry->bytes = json_string_length(content);
    LRD_TRY(lrd_json_get_int(object, where, "id", -1, 0, INT32_MAX, &entry->id));
    LRD_CHECK(entry->id >= 0, LRD_ERR_FORMAT, "%s: \"id\" is absent", where);
    LRD_TRY(read_flag(object, where, "single_word", &entry->flags.single_word));
    LRD_TRY(read_flag(object, where, "lstrip", &entry->flags.lstrip));
    LRD_TRY(read_flag(object, where, "rstrip", &entry->flags.rstrip));
    LRD_TRY(read_flag(object, where, "normalized", &entry->normalized));
    LRD_TRY(read_flag(object, where, "special", &entry->special));
out:
    lrd_free(where);
    return status;
}

/* Gives each entry the id that the library gives it: that of the model's token of this text, or the
 * next one behind the vocabulary. */
static lrd_status_t assign_ids(lrd_vocab_t *vocab, entry_t *entry, size_t n, const char *name)
{
    lrd_status_t status = LRD_OK;
    int64_t highest = -1;
    size_t n_moved = 0;
    const entry_t *moved = NULL;
    for (size_t i = 0; i < n; i++) {
        if (entry[i].bytes == 0)
            continue;
        const int64_t known = lrd_vocab_find(vocab, entry[i].content, entry[i].bytes);
        int64_t id = vocab->n_model;
        if (known >= 0)
            id = vocab->token[known].id;
        else if (highest >= id || (id == 0 && highest >= 0))
            id = highest + 1;
        LRD_CHECK(id < INT32_MAX, LRD_ERR_FORMAT, "%s: added_tokens: no id is left", name);
        if (known < 0)
            LRD_TRY(lrd_vocab_add(vocab, entry[i].content, entry[i].bytes, (int32_t)id));
        highest = id > highest ? id : highest;
        entry[i].flags.id = (int32_t)id;
        if (id != entry[i].id && n_moved++ == 0)
            moved = &entry[i];
    }
    if (moved != NULL)
        lrd_warn("%s: added token \"%s\" is %" PRId64
                 " in the file, but gets id %d, as in the tokenizers library (%zu such token%s)",
                 name, moved->content, moved->id, moved->flags.id, n_moved,
                 n_moved == 1 ? "" : "s");
    LRD_TRY(lrd_vocab_index(vocab, name));
out:
    return status;
}

/* Where a text comes more than once, the last entry's flags count,
 * but it is special if one of them is. */
static lrd_status_t insert_entries(lrd_tokenizer_t *tokenizer, const entry_t *entry, size_t n)
{
    lrd_status_t status = LRD_OK;
    lrd_vocab_t *vocab = &tokenizer->vocab;
    lrd_added_t *added = &tokenizer->added;
    bool *seen = NULL; /* [n_tokens], of the vocabulary */
    LRD_NEW(seen, vocab->n_tokens);
    LRD_NEW(added->token, n);
    for (size_t i = n; i-- > 0;) {
        if (entry[i].bytes == 0)
            continue;
        const int32_t token = vocab->by_id[entry[i].flags.id];
        vocab->token[token].special = vocab->token[token].special || entry[i].special;
        if (seen[token])
            continue;
        seen[token] = true;
        added->token[added->n_tokens] = entry[i].flags;
        LRD_TRY(lrd_added_insert(added, entry[i].normalized, entry[i].content, entry[i].bytes,
                                 (int32_t)added->n_tokens++));
    }
out:
    lrd_free(seen);
    return status;
}

lrd_status_t lrd_added_read(lrd_tokenizer_t *tokenizer, const json_t *added_tokens,
                            const char *name)
{
    lrd_status_t status = LRD_OK;
    entry_t *entry = NULL;
    LRD_CHECK(added_tokens == NULL || json_is_array(added_tokens), LRD_ERR_FORMAT,
              "%s: \"added_tokens\" is not a list", name);
    const size_t n = json_array_size(added_tokens);
    LRD_NEW(entry, n);
    for (size_t i = 0; i < n; i++)
        LRD_TRY(read_entry(json_array_get(added_tokens, i), name, i, &entry[i]));
    LRD_TRY(assign_ids(&tokenizer->vocab, entry, n, name));
    LRD_TRY(insert_entries(tokenizer, entry, n));
out:
    lrd_free(entry);
    return status;
}
