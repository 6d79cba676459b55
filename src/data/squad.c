#include "data/squad.h"

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "data/squad_records.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const size_t max_file_bytes = (size_t)1 << 30;

/* The parsed JSON stays, and all texts point into it: nothing is copied. */
struct lrd_squad {
    char *name;
    json_t *root;
    size_t n_articles, n_questions, capacity;
    lrd_squad_question_t *question;
    const json_t **answers; /* [n_questions] */
    bool of_records;
};

/* Where the reader stands: data[i].paragraphs[j].qas[k].answers[l]; -1 from the
 * first level that is not entered. */
typedef struct place {
    const char *name;
    int64_t level[4];
} place_t;

static const char *describe(const place_t *place, char text[160])
{
    static const char *const list[4] = {"data", "paragraphs", "qas", "answers"};
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < 4 && place->level[i] >= 0; i++)
        used += (size_t)snprintf(text + used, 160 - used, "%s%s[%" PRId64 "]", i > 0 ? "." : " ",
                                 list[i], place->level[i]);
    if (used > 0)
        snprintf(text + used, 160 - used, ":");
    return text;
}

#define FAIL_AT(place, ...)                                                               \
    do {                                                                                  \
        char fail_text[160], fail_what[160];                                              \
        snprintf(fail_what, sizeof fail_what, __VA_ARGS__);                               \
        LRD_FAIL(LRD_ERR_FORMAT, "%s:%s %s", (place)->name, describe((place), fail_text), \
                 fail_what);                                                              \
    } while (0)

static lrd_status_t get_list(const json_t *object, const place_t *place, const char *key,
                             const json_t **list_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        FAIL_AT(place, "\"%s\" is missing, expected a list", key);
    if (!json_is_array(value))
        FAIL_AT(place, "\"%s\" is %s, expected a list", key, lrd_json_type_name(value));
    *list_out = value;
out:
    return status;
}

static lrd_status_t get_text(const json_t *object, const place_t *place, const char *key,
                             lrd_text_t *text_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_object_get(object, key);
    if (value == NULL)
        FAIL_AT(place, "\"%s\" is missing, expected a string", key);
    if (!json_is_string(value))
        FAIL_AT(place, "\"%s\" is %s, expected a string", key, lrd_json_type_name(value));
    *text_out = (lrd_text_t){json_string_value(value), json_string_length(value)};
out:
    return status;
}

/* list[i] must be an object. The place already names it. */
static lrd_status_t get_object(const json_t *list, size_t i, const place_t *place,
                               const json_t **object_out)
{
    lrd_status_t status = LRD_OK;
    const json_t *value = json_array_get(list, i);
    if (!json_is_object(value))
        FAIL_AT(place, "is %s, expected an object", lrd_json_type_name(value));
    *object_out = value;
out:
    return status;
}

static lrd_status_t grow(lrd_squad_t *s)
{
    lrd_status_t status = LRD_OK;
    if (s->n_questions < s->capacity)
        goto out;
    const size_t capacity = s->capacity + (s->capacity >> 1) + 64;
    lrd_squad_question_t *question;
    LRD_ALLOC(question, lrd_realloc_array(s->question, capacity, sizeof *question));
    s->question = question;
    const json_t **answers;
    LRD_ALLOC(answers, lrd_realloc_array(s->answers, capacity, sizeof *answers));
    s->answers = answers;
    s->capacity = capacity;
out:
    return status;
}

/* `row` holds what the levels above have set; `qas` is the question's object. */
static lrd_status_t read_question(lrd_squad_t *s, const json_t *qas, lrd_squad_question_t row,
                                  place_t *place)
{
    lrd_status_t status = LRD_OK;
    const json_t *answers = NULL, *answer = NULL;
    lrd_text_t text;
    LRD_TRY(get_text(qas, place, "id", &row.id));
    LRD_TRY(get_text(qas, place, "question", &row.question));
    LRD_TRY(get_list(qas, place, "answers", &answers));
    row.n_answers = json_array_size(answers);
    for (size_t l = 0; l < row.n_answers; l++) {
        place->level[3] = (int64_t)l;
        LRD_TRY(get_object(answers, l, place, &answer));
        LRD_TRY(get_text(answer, place, "text", &text));
    }
    place->level[3] = -1;
    LRD_TRY(grow(s));
    s->question[s->n_questions] = row;
    s->answers[s->n_questions++] = answers;
out:
    return status;
}

static lrd_status_t read_paragraph(lrd_squad_t *s, const json_t *paragraph,
                                   lrd_squad_question_t row, place_t *place)
{
    lrd_status_t status = LRD_OK;
    const json_t *list = NULL, *qas = NULL;
    LRD_TRY(get_text(paragraph, place, "context", &row.context));
    LRD_TRY(get_list(paragraph, place, "qas", &list));
    for (size_t k = 0; k < json_array_size(list); k++) {
        place->level[2] = (int64_t)k;
        row.qas = (uint32_t)k;
        LRD_TRY(get_object(list, k, place, &qas));
        LRD_TRY(read_question(s, qas, row, place));
    }
    place->level[2] = -1;
out:
    return status;
}

static lrd_status_t read_article(lrd_squad_t *s, const json_t *article, lrd_squad_question_t row,
                                 place_t *place)
{
    lrd_status_t status = LRD_OK;
    const json_t *list = NULL, *paragraph = NULL;
    row.title = (lrd_text_t){"", 0};
    if (json_object_get(article, "title") != NULL)
        LRD_TRY(get_text(article, place, "title", &row.title));
    LRD_TRY(get_list(article, place, "paragraphs", &list));
    for (size_t j = 0; j < json_array_size(list); j++) {
        place->level[1] = (int64_t)j;
        row.paragraph = (uint32_t)j;
        LRD_TRY(get_object(list, j, place, &paragraph));
        LRD_TRY(read_paragraph(s, paragraph, row, place));
    }
    place->level[1] = -1;
out:
    return status;
}

static lrd_status_t read_articles(lrd_squad_t *s)
{
    lrd_status_t status = LRD_OK;
    place_t place = {s->name, {-1, -1, -1, -1}};
    const json_t *list = NULL, *article = NULL;
    if (!json_is_object(s->root))
        FAIL_AT(&place, "is %s, expected an object with the list \"data\" (SQuAD v2.0)",
                lrd_json_type_name(s->root));
    LRD_TRY(get_list(s->root, &place, "data", &list));
    s->n_articles = json_array_size(list);
    for (size_t i = 0; i < s->n_articles; i++) {
        lrd_squad_question_t row = {.article = (uint32_t)i};
        place.level[0] = (int64_t)i;
        LRD_TRY(get_object(list, i, &place, &article));
        LRD_TRY(read_article(s, article, row, &place));
    }
out:
    return status;
}

lrd_status_t lrd_squad_parse(const char *text, size_t bytes, const char *name,
                             lrd_squad_t **squad_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_t *s = NULL;
    LRD_NEW(s, 1);
    LRD_ALLOC(s->name, lrd_strdup(name));
    LRD_CHECK(bytes > 0, LRD_ERR_FORMAT, "%s is empty, expected SQuAD v2.0 JSON", name);
    const size_t mark = bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0; /* BOM */
    LRD_TRY(lrd_json_parse(text + mark, bytes - mark, name, &s->root));
    LRD_TRY(read_articles(s));
    *squad_out = s;
    s = NULL;
out:
    lrd_squad_free(s);
    return status;
}

/* Numbers articles by their titles, in the order in which they first stand. */
static lrd_status_t group_by_title(lrd_squad_t *s)
{
    lrd_status_t status = LRD_OK;
    json_t *seen = NULL;
    LRD_ALLOC(seen, json_object());
    for (size_t i = 0; i < s->n_questions; i++) {
        lrd_squad_question_t *q = &s->question[i];
        const lrd_text_t key = q->title.bytes > 0 ? q->title : q->context;
        const json_t *known = json_object_getn(seen, key.data, key.bytes);
        q->article =
            (uint32_t)(known != NULL ? (size_t)json_integer_value(known) : json_object_size(seen));
        LRD_CHECK(known != NULL || json_object_setn_new(seen, key.data, key.bytes,
                                                        json_integer(q->article)) == 0,
                  LRD_ERR_NO_MEMORY, "out of memory: titles");
    }
    s->n_articles = json_object_size(seen);
out:
    json_decref(seen);
    return status;
}

static lrd_status_t read_records(const char *name, const lrd_names_t *files,
                                 lrd_squad_t **squad_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_t *s = NULL;
    LRD_NEW(s, 1);
    s->of_records = true;
    LRD_ALLOC(s->name, lrd_strdup(name));
    LRD_TRY(lrd_squad_records_read(name, files, &s->root));
    LRD_TRY(read_articles(s));
    LRD_TRY(group_by_title(s));
    *squad_out = s;
    s = NULL;
out:
    lrd_squad_free(s);
    return status;
}

lrd_status_t lrd_squad_read_files(const char *name, const lrd_names_t *files,
                                  lrd_squad_t **squad_out)
{
    lrd_status_t status = LRD_OK;
    const char *path = files != NULL ? files->name[0] : name;
    lrd_map_t map = {0};
    bool records = false;
    LRD_TRY(lrd_file_map(path, &map));
    LRD_TRY(lrd_squad_records_begin(map.data, map.size, &records));
    if (records) {
        LRD_TRY(read_records(name, files, squad_out));
        goto out;
    }
    LRD_CHECK(files == NULL || files->n == 1, LRD_ERR_UNSUPPORTED,
              "%s: %zu files, of which %s is no Parquet file and has no JSON record in its first "
              "line: SQuAD's own form is read from one file",
              name, files->n, path);
    LRD_CHECK(map.size <= max_file_bytes, LRD_ERR_FORMAT,
              "%s has %zu bytes; SQuAD files of up to %zu are read", path, map.size,
              max_file_bytes);
    LRD_TRY(lrd_squad_parse((const char *)map.data, map.size, path, squad_out));
out:
    lrd_file_unmap(&map);
    return status;
}

lrd_status_t lrd_squad_read(const char *path, lrd_squad_t **squad_out)
{
    return lrd_squad_read_files(path, NULL, squad_out);
}

void lrd_squad_free(lrd_squad_t *squad)
{
    if (squad == NULL)
        return;
    lrd_free(squad->question);
    lrd_free(squad->answers);
    json_decref(squad->root);
    lrd_free(squad->name);
    lrd_free(squad);
}

size_t lrd_squad_n_articles(const lrd_squad_t *squad)
{
    return squad->n_articles;
}

size_t lrd_squad_n_questions(const lrd_squad_t *squad)
{
    return squad->n_questions;
}

const lrd_squad_question_t *lrd_squad_question(const lrd_squad_t *squad, size_t i)
{
    return &squad->question[i];
}

lrd_text_t lrd_squad_answer(const lrd_squad_t *squad, size_t i, size_t k)
{
    const json_t *text = json_object_get(json_array_get(squad->answers[i], k), "text");
    return (lrd_text_t){json_string_value(text), json_string_length(text)};
}

lrd_status_t lrd_squad_place(const lrd_squad_t *squad, size_t i, lrd_buf_t *buf)
{
    const lrd_squad_question_t *q = &squad->question[i];
    const int shown = q->id.bytes < 64 ? (int)q->id.bytes : 64;
    if (squad->of_records)
        return lrd_buf_printf(buf, "%s: record %zu (id %.*s)", squad->name, i + 1, shown,
                              q->id.data);
    return lrd_buf_printf(buf, "%s: data[%u].paragraphs[%u].qas[%u] (id %.*s)", squad->name,
                          q->article, q->paragraph, q->qas, shown, q->id.data);
}
