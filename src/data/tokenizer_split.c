#include "base/json.h"
#include "base/mem.h"
#include "base/utf8.h"
#include "data/tokenizer_parts.h"

#include <oniguruma.h>
#include <pthread.h>
#include <string.h>

enum { MAX_PATTERN_BYTES = 4096 };

/* BLOOM's pattern. The class leaves out ( ) |, white space, and . , ! ? and their like in other
 * scripts: 39 characters, of which non_word() knows those beyond ASCII. */
static const char bloom_pattern[] = " ?[^(\\s|[.,!?…。，、।۔،])]+";

/* ByteLevel's own pattern, that of GPT-2. */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- BLOOM's pattern by hand ----------------------------------------------------------------- */

/* By first byte: a character of this length that matches the class, NOT for ASCII that does not,
 * SEE where it depends on the other bytes. */
enum { NOT = 0, SEE = 5 };
static const uint8_t first_byte[256] = {
    /* 00 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1,
    /* 10 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 20 */ 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 1, 0, 1,
    /* 30 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0,
    /* 40 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 50 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 60 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    /* 70 */ 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1,
    /* 80 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 90 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* a0 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* b0 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* c0 */ 0, 0, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
    /* d0 */ 2, 2, 2, 2, 2, 2, 2, 2, 5, 2, 2, 5, 2, 2, 2, 2,
    /* e0 */ 5, 5, 5, 5, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 5,
    /* f0 */ 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

/* Beyond ASCII: the length of the character if it is not in the class, else 0. */
static int32_t non_word(const uint8_t *s)
{
    const uint32_t two = (uint32_t)s[0] << 8 | s[1];
    switch (two) {
    case 0xc285: /* 0085 */
    case 0xc2a0: /* 00A0 */
    case 0xd88c: /* 060C */
    case 0xdb94: /* 06D4 */
        return 2;
    case 0xe0a5: /* 0964 */
        return s[2] == 0xa4 ? 3 : 0;
    case 0xe19a: /* 1680 */
        return s[2] == 0x80 ? 3 : 0;
    case 0xe280: /* 2000-200A, 2026, 2028, 2029, 202F */
        return s[2] <= 0x8a || s[2] == 0xa6 || s[2] == 0xa8 || s[2] == 0xa9 || s[2] == 0xaf ? 3 : 0;
    case 0xe281: /* 205F */
        return s[2] == 0x9f ? 3 : 0;
    case 0xe380: /* 3000-3002 */
        return s[2] <= 0x82 ? 3 : 0;
    case 0xefbc: /* FF0C */
        return s[2] == 0x8c ? 3 : 0;
    default:
        return 0;
    }
}

/* The length of the character if it matches the class, else 0. */
static inline int32_t word_char(const uint8_t *s)
{
    const int32_t length = first_byte[s[0]];
    if (__builtin_expect(length != SEE, 1))
        return length;
    return non_word(s) > 0 ? 0 : s[0] < 0xe0 ? 2 : 3;
}

/* ` ?[class]+` from left to right: matches, and the runs between them. */
static size_t split_bloom(const uint8_t *s, int32_t n, int32_t *end)
{
    size_t n_pieces = 0;
    for (int32_t i = 0, length; i < n;) {
        int32_t word = i + (s[i] == ' ');
        if (word < n && (length = word_char(s + word)) > 0) {
            do {
                word += length;
            } while (word < n && (length = word_char(s + word)) > 0);
            i = word;
        } else { /* up to the next match */
            do {
                i += s[i] < 0x80 ? 1 : non_word(s + i);
                word = i + (i < n && s[i] == ' ');
            } while (i < n && (word == n || word_char(s + word) == 0));
        }
        end[n_pieces++] = i;
    }
    return n_pieces;
}

/* ---- any pattern, by Oniguruma --------------------------------------------------------------- */

static pthread_once_t onig_once = PTHREAD_ONCE_INIT;
static int onig_started;

static void onig_start(void)
{
    OnigEncoding encoding[] = {ONIG_ENCODING_UTF8};
    onig_started = onig_initialize(encoding, 1);
}

void lrd_splitter_release(lrd_splitter_t *splitter)
{
    for (int i = 0; i < splitter->n_stages; i++)
        onig_free(splitter->stage[i].regex);
    *splitter = (lrd_splitter_t){0};
}

lrd_status_t lrd_splitter_add(lrd_splitter_t *splitter, const char *pattern, size_t bytes,
                              const char *where)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(splitter->n_stages < LRD_SPLIT_MAX_STAGES, LRD_ERR_UNSUPPORTED,
              "%s: more than %d patterns, one after the other, are not supported", where,
              LRD_SPLIT_MAX_STAGES);
    LRD_CHECK(bytes <= MAX_PATTERN_BYTES, LRD_ERR_UNSUPPORTED,
              "%s: a pattern of %zu bytes is not supported: more than %d", where, bytes,
              MAX_PATTERN_BYTES);
    pthread_once(&onig_once, onig_start);
    LRD_CHECK(onig_started == ONIG_NORMAL, LRD_ERR_INTERNAL, "Oniguruma does not start: %d",
              onig_started);
    regex_t *regex = NULL;
    OnigErrorInfo info = {0};
    const OnigUChar *begin = (const OnigUChar *)pattern;
    const int error = onig_new(&regex, begin, begin + bytes, ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                               ONIG_SYNTAX_ONIGURUMA, &info);
    if (error != ONIG_NORMAL) {
        OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
        onig_error_code_to_str(text, error, &info);
        LRD_FAIL(error == ONIGERR_MEMORY ? LRD_ERR_NO_MEMORY : LRD_ERR_FORMAT,
                 "%s: not a valid regular expression: %s", where, (const char *)text);
    }
    lrd_split_stage_t *stage = &splitter->stage[splitter->n_stages++];
    stage->regex = regex;
    stage->is_bloom =
        bytes == sizeof bloom_pattern - 1 && memcmp(pattern, bloom_pattern, bytes) == 0;
out:
    return status;
}

lrd_status_t lrd_pieces_init(lrd_pieces_t *pieces)
{
    lrd_status_t status = LRD_OK;
    *pieces = (lrd_pieces_t){0};
    LRD_ALLOC(pieces->region, onig_region_new());
out:
    return status;
}

void lrd_pieces_release(lrd_pieces_t *pieces)
{
    lrd_free(pieces->end);
    lrd_free(pieces->other);
    if (pieces->region != NULL)
        onig_region_free(pieces->region, 1);
    *pieces = (lrd_pieces_t){0};
}

static lrd_status_t ends_reserve(int32_t **end, size_t *capacity, size_t n)
{
    lrd_status_t status = LRD_OK;
    if (n > *capacity) {
        int32_t *grown;
        LRD_ALLOC(grown, lrd_realloc_array(*end, n + n / 2, sizeof *grown));
        *end = grown;
        *capacity = n + n / 2;
    }
out:
    return status;
}

/* Adds the pieces of text[from..to), which a pattern splits on its own: matches, and what lies
 * between them. After an empty match where the match before it ended, the search goes on one
 * character further. pieces->end has room for one piece a byte. */
static lrd_status_t split_regex(regex_t *regex, const char *text, int32_t from, int32_t to,
                                lrd_pieces_t *pieces)
{
    lrd_status_t status = LRD_OK;
    const OnigUChar *const begin = (const OnigUChar *)text + from;
    const OnigUChar *const end = (const OnigUChar *)text + to;
    const OnigUChar *search = begin, *last_match = NULL;
    OnigRegion *region = pieces->region;
    int32_t done = from;
    while (search <= end) {
        const int found = onig_search(regex, begin, end, search, end, region, ONIG_OPTION_NONE);
        if (found == ONIG_MISMATCH)
            break;
        if (found < 0) {
            OnigUChar why[ONIG_MAX_ERROR_MESSAGE_LEN];
            onig_error_code_to_str(why, found);
            LRD_FAIL(found == ONIGERR_MEMORY ? LRD_ERR_NO_MEMORY : LRD_ERR_FORMAT,
                     "the tokenizer's regular expression gave up on this text: %s",
                     (const char *)why);
        }
        const OnigUChar *match_end = begin + region->end[0];
        if (region->beg[0] == region->end[0] && match_end == last_match) {
            int32_t code;
            search += search < end
                          ? lrd_utf8_next((const char *)search, (size_t)(end - search), &code)
                          : 1;
            continue;
        }
        search = last_match = match_end;
        const int32_t match = from + region->beg[0];
        if (match > done)
            pieces->end[pieces->n++] = match;
        done = from + region->end[0];
        if (done > match)
            pieces->end[pieces->n++] = done;
    }
    if (done < to)
        pieces->end[pieces->n++] = to;
out:
    return status;
}

lrd_status_t lrd_splitter_split(const lrd_splitter_t *splitter, const char *text, int32_t bytes,
                                lrd_pieces_t *pieces)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(ends_reserve(&pieces->end, &pieces->capacity, (size_t)bytes));
    pieces->end[0] = bytes;
    pieces->n = 1;
    for (int k = 0; k < splitter->n_stages; k++) {
        const lrd_split_stage_t *stage = &splitter->stage[k];
        if (k == 0 && stage->is_bloom && !splitter->regex_only) {
            pieces->n = split_bloom((const uint8_t *)text, bytes, pieces->end);
            continue;
        }
        LRD_TRY(ends_reserve(&pieces->other, &pieces->other_capacity, pieces->n));
        memcpy(pieces->other, pieces->end, pieces->n * sizeof *pieces->end);
        const size_t n = pieces->n;
        pieces->n = 0;
        for (size_t i = 0; i < n; i++)
            LRD_TRY(split_regex(stage->regex, text, i > 0 ? pieces->other[i - 1] : 0,
                                pieces->other[i], pieces));
    }
out:
    return status;
}

/* ---- reading it from tokenizer.json ---------------------------------------------------------- */

/* A String pattern as a regular expression that matches just that. */
static lrd_status_t quote(const char *text, size_t bytes, lrd_buf_t *pattern)
{
    lrd_status_t status = LRD_OK;
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] != '\0' && strchr("\\.+*?()|[]{}^$#&-~", text[i]) != NULL)
            LRD_TRY(lrd_buf_add(pattern, "\\", 1));
        LRD_TRY(lrd_buf_add(pattern, text + i, 1));
    }
out:
    return status;
}

static lrd_status_t read_split(lrd_splitter_t *splitter, const json_t *split, const char *name)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t quoted = {0};
    const char *behavior;
    bool invert;
    LRD_TRY(lrd_json_get_text(split, name, "behavior", "", &behavior));
    LRD_CHECK(strcmp(behavior, "Isolated") == 0, LRD_ERR_UNSUPPORTED,
              "%s: behavior \"%s\" is not supported, only \"Isolated\" (as BLOOM has it)", name,
              behavior);
    LRD_TRY(lrd_json_get_bool(split, name, "invert", false, &invert)); /* Isolated: no difference */
    const json_t *pattern = json_object_get(split, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *text = json_object_get(pattern, "String");
    LRD_CHECK(json_is_object(pattern) && json_object_size(pattern) == 1 &&
                  (json_is_string(regex) || json_is_string(text)),
              LRD_ERR_FORMAT,
              "%s: \"pattern\" must be {\"Regex\": \"...\"} or {\"String\": \"...\"}", name);
    if (text != NULL) {
        LRD_TRY(quote(json_string_value(text), json_string_length(text), &quoted));
        LRD_TRY(
            lrd_splitter_add(splitter, quoted.data != NULL ? quoted.data : "", quoted.size, name));
    } else {
        LRD_TRY(
            lrd_splitter_add(splitter, json_string_value(regex), json_string_length(regex), name));
    }
out:
    lrd_buf_release(&quoted);
    return status;
}

static lrd_status_t read_byte_level(lrd_splitter_t *splitter, const json_t *level, const char *name)
{
    lrd_status_t status = LRD_OK;
    bool add_prefix_space, use_regex;
    LRD_TRY(lrd_json_get_bool(level, name, "add_prefix_space", true, &add_prefix_space));
    LRD_CHECK(!add_prefix_space, LRD_ERR_UNSUPPORTED,
              "%s: \"add_prefix_space\": true is not supported (BLOOM has false)", name);
    LRD_TRY(lrd_json_get_bool(level, name, "use_regex", true, &use_regex));
    if (use_regex)
        LRD_TRY(
            lrd_splitter_add(splitter, byte_level_pattern, sizeof byte_level_pattern - 1, name));
out:
    return status;
}

/* One component, which may be a Sequence. *done: a ByteLevel, after which none may follow, was
 * read. Depth is bounded by the JSON reader. */
static lrd_status_t read_component(lrd_splitter_t *splitter, const json_t *component,
                                   const char *name, bool *done)
{
    lrd_status_t status = LRD_OK;
    char *inner = NULL;
    const char *type;
    LRD_CHECK(json_is_object(component), LRD_ERR_FORMAT,
              "%s is not an object: expected a Split, a ByteLevel or a Sequence of them", name);
    LRD_TRY(lrd_json_get_text(component, name, "type", "", &type));
    LRD_CHECK(!*done, LRD_ERR_UNSUPPORTED,
              "%s: a \"%s\" behind ByteLevel is not supported: ByteLevel must be the last", name,
              type);
    if (strcmp(type, "Split") == 0) {
        LRD_TRY(read_split(splitter, component, name));
    } else if (strcmp(type, "ByteLevel") == 0) {
        LRD_TRY(read_byte_level(splitter, component, name));
        *done = true;
    } else {
        LRD_CHECK(strcmp(type, "Sequence") == 0, LRD_ERR_UNSUPPORTED,
                  "%s: type \"%s\" is not supported, only Split, ByteLevel and Sequence", name,
                  type);
        const json_t *list = json_object_get(component, "pretokenizers");
        LRD_CHECK(json_is_array(list), LRD_ERR_FORMAT, "%s: \"pretokenizers\" is not a list", name);
        for (size_t i = 0; i < json_array_size(list); i++) {
            LRD_ALLOC(inner, lrd_asprintf("%s.pretokenizers[%zu]", name, i));
            LRD_TRY(read_component(splitter, json_array_get(list, i), inner, done));
            lrd_free(inner);
            inner = NULL;
        }
    }
out:
    lrd_free(inner);
    return status;
}

lrd_status_t lrd_splitter_read(lrd_splitter_t *splitter, const json_t *pre_tokenizer,
                               const char *name)
{
    lrd_status_t status = LRD_OK;
    char *where = NULL;
    bool done = false;
    LRD_ALLOC(where, lrd_asprintf("%s: pre_tokenizer", name));
    LRD_CHECK(pre_tokenizer != NULL && !json_is_null(pre_tokenizer), LRD_ERR_UNSUPPORTED,
              "%s is absent or null: only byte-level tokenizers are supported", where);
    LRD_TRY(read_component(splitter, pre_tokenizer, where, &done));
    LRD_CHECK(done, LRD_ERR_UNSUPPORTED,
              "%s has no ByteLevel: only byte-level tokenizers are supported", where);
out:
    lrd_free(where);
    return status;
}
