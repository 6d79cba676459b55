#include "data/squad_records.h"

#include "base/mem.h"
#include "data/rows.h"

#include <inttypes.h>

static const lrd_parquet_want_t members[] = {{.name = "id"},
                                             {"title", true},
                                             {.name = "context"},
                                             {.name = "question"},
                                             {.name = "answers"}};

lrd_status_t lrd_squad_records_begin(const void *data, size_t bytes, bool *records_out)
{
    lrd_status_t status = LRD_OK;
    lrd_jsonl_t lines;
    json_t *first = NULL;
    *records_out = lrd_parquet_begins(data, bytes) || lrd_jsonl_first_byte(data, bytes) == '[';
    if (*records_out)
        goto out;
    lrd_jsonl_begin(&lines, "", data, bytes);
    status = lrd_jsonl_next(&lines, &first);
    if (status == LRD_ERR_FORMAT) { /* SQuAD's own form: any number of lines, of any length */
        lrd_error_clear();
        status = LRD_OK;
    }
    *records_out = json_object_get(first, "question") != NULL;
out:
    json_decref(first);
    return status;
}

/* Where the next record goes. */
typedef struct tree {
    json_t *articles, *paragraphs,
        *qas;                /* the last two: of the article and the paragraph in work */
    json_t *title, *context; /* theirs, borrowed */
} tree_t;

/* Takes over `value`, also on failure. */
static lrd_status_t put(json_t *object, const char *key, json_t *value)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(json_object_set_new(object, key, value) == 0, LRD_ERR_NO_MEMORY,
              "out of memory: a record");
out:
    return status;
}

/* A new object at the end of the list, with a list under `key`; both are borrowed. */
static lrd_status_t append(json_t *list, const char *key, json_t **object_out, json_t **inner_out)
{
    lrd_status_t status = LRD_OK;
    json_t *object = json_object();
    LRD_CHECK(json_array_append_new(list, object) == 0, LRD_ERR_NO_MEMORY,
              "out of memory: a record");
    LRD_TRY(put(object, key, json_array()));
    *object_out = object;
    *inner_out = json_object_get(object, key);
out:
    return status;
}

/* A record's text; absent: "", where that may be. */
static lrd_status_t get_text(const lrd_rows_t *rows, json_t *record, const char *key, bool needed,
                             json_t **text_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_jsonl_t *at = lrd_rows_reader(rows);
    json_t *text = json_object_get(record, key);
    if (!needed && (text == NULL || json_is_null(text))) {
        LRD_TRY(put(record, key, json_string("")));
        text = json_object_get(record, key);
    }
    LRD_CHECK(text != NULL, LRD_ERR_FORMAT, "%s:%" PRId64 ": \"%s\" is missing, expected a string",
              at->name, at->line, key);
    LRD_CHECK(json_is_string(text), LRD_ERR_FORMAT,
              "%s:%" PRId64 ": \"%s\" is %s, expected a string", at->name, at->line, key,
              lrd_json_type_name(text));
    *text_out = text;
out:
    return status;
}

/* The texts of a record's answers: {"text": [...]}, or a list as SQuAD's own files have it. */
static lrd_status_t take_answers(const lrd_rows_t *rows, const json_t *record, json_t *answers)
{
    lrd_status_t status = LRD_OK;
    const lrd_jsonl_t *at = lrd_rows_reader(rows);
    const json_t *given = json_object_get(record, "answers");
    const bool is_list = json_is_array(given);
    const json_t *list = is_list ? given : json_object_get(given, "text");
    LRD_CHECK(json_is_array(list), LRD_ERR_FORMAT,
              "%s:%" PRId64
              ": \"answers\" has no list \"text\", expected {\"text\": [...], \"answer_start\": "
              "[...]}",
              at->name, at->line);
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *text = json_array_get(list, i), *answer = NULL;
        if (is_list)
            text = json_object_get(text, "text");
        LRD_CHECK(json_is_string(text), LRD_ERR_FORMAT,
                  "%s:%" PRId64 ": text %zu of \"answers\" is %s, expected a string", at->name,
                  at->line, i, text != NULL ? lrd_json_type_name(text) : "missing");
        answer = json_object();
        LRD_CHECK(json_array_append_new(answers, answer) == 0, LRD_ERR_NO_MEMORY,
                  "out of memory: a record");
        LRD_TRY(put(answer, "text", json_incref(text)));
    }
out:
    return status;
}

static lrd_status_t add_record(tree_t *t, const lrd_rows_t *rows, json_t *record)
{
    lrd_status_t status = LRD_OK;
    json_t *id, *title, *context, *question, *object = NULL, *answers = NULL;
    LRD_TRY(get_text(rows, record, "id", true, &id));
    LRD_TRY(get_text(rows, record, "title", false, &title));
    LRD_TRY(get_text(rows, record, "context", true, &context));
    LRD_TRY(get_text(rows, record, "question", true, &question));
    const bool new_article = t->title == NULL || !json_equal(title, t->title);
    if (new_article) {
        LRD_TRY(append(t->articles, "paragraphs", &object, &t->paragraphs));
        LRD_TRY(put(object, "title", json_incref(title)));
        t->title = title;
    }
    if (new_article || !json_equal(context, t->context)) {
        LRD_TRY(append(t->paragraphs, "qas", &object, &t->qas));
        LRD_TRY(put(object, "context", json_incref(context)));
        t->context = context;
    }
    LRD_TRY(append(t->qas, "answers", &object, &answers));
    LRD_TRY(put(object, "id", json_incref(id)));
    LRD_TRY(put(object, "question", json_incref(question)));
    LRD_TRY(take_answers(rows, record, answers));
out:
    return status;
}

lrd_status_t lrd_squad_records_read(const char *name, const lrd_names_t *files, json_t **root_out)
{
    lrd_status_t status = LRD_OK;
    lrd_rows_t *rows = NULL;
    json_t *root = NULL, *record = NULL;
    tree_t tree = {.articles = NULL};
    int64_t number;
    LRD_ALLOC(root, json_object());
    LRD_TRY(put(root, "data", json_array()));
    tree.articles = json_object_get(root, "data");
    LRD_TRY(lrd_rows_open(name, files, members, sizeof members / sizeof members[0], &rows));
    for (;;) {
        LRD_TRY(lrd_rows_next(rows, &record, &number));
        if (record == NULL)
            break;
        LRD_TRY(add_record(&tree, rows, record));
        json_decref(record);
        record = NULL;
    }
    *root_out = root;
    root = NULL;
out:
    json_decref(record);
    json_decref(root);
    lrd_rows_close(rows);
    return status;
}
