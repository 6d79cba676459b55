#include "infer/squad_predictions.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "infer/squad_ids.h"

#include <inttypes.h>
#include <string.h>

static const size_t max_file_bytes = (size_t)1 << 30;
static const json_int_t max_integer = (json_int_t)1 << 53; /* doubles hold all up to it */

static lrd_status_t parse_object(const char *text, size_t bytes, const char *name, const char *what,
                                 json_t **root_out)
{
    lrd_status_t status = LRD_OK;
    json_t *root = NULL;
    LRD_CHECK(bytes > 0, LRD_ERR_FORMAT, "%s is empty, expected JSON: {\"id\": %s, ...}", name,
              what);
    LRD_TRY(lrd_json_parse(text, bytes, name, &root));
    LRD_CHECK(json_is_object(root), LRD_ERR_FORMAT,
              "%s is %s, expected an object {\"id\": %s, ...}", name, lrd_json_type_name(root),
              what);
    *root_out = root;
    root = NULL;
out:
    json_decref(root);
    return status;
}

/* The member for a question, NULL if there is none. A key holds no U+0000, jansson refuses that. */
static const json_t *find(const json_t *root, lrd_text_t id)
{
    return memchr(id.data, '\0', id.bytes) == NULL ? json_object_get(root, id.data) : NULL;
}

/* The place of the first of n_missing questions, for a message. */
static lrd_status_t describe_missing(const lrd_squad_t *data, size_t n_missing, size_t first,
                                     lrd_buf_t *buf)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(lrd_buf_printf(buf, "for %zu of %zu questions, the first is ", n_missing,
                           lrd_squad_n_questions(data)));
    LRD_TRY(lrd_squad_place(data, first, buf));
out:
    return status;
}

lrd_status_t lrd_squad_predictions_parse(const char *text, size_t bytes, const char *name,
                                         const lrd_squad_t *data,
                                         lrd_squad_predictions_t *predictions_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_predictions_t p = {0};
    lrd_buf_t missing = {0};
    const size_t n = lrd_squad_n_questions(data);
    size_t first = n;
    LRD_TRY(parse_object(text, bytes, name, "\"text\"", &p.root));
    LRD_NEW(p.text, n);
    for (size_t i = 0; i < n; i++) {
        const lrd_text_t id = lrd_squad_question(data, i)->id;
        const json_t *value = find(p.root, id);
        if (value == NULL) {
            first = p.n_missing++ == 0 ? i : first;
            continue;
        }
        LRD_CHECK(json_is_string(value), LRD_ERR_FORMAT,
                  "%s: the prediction for \"%.64s\" is %s, expected a string", name, id.data,
                  lrd_json_type_name(value));
        p.text[i] = (lrd_text_t){json_string_value(value), json_string_length(value)};
    }
    if (p.n_missing > 0) {
        LRD_TRY(describe_missing(data, p.n_missing, first, &missing));
        lrd_warn("%s: no prediction %s; they count as answered with \"\"", name, missing.data);
    }
    *predictions_out = p;
    p = (lrd_squad_predictions_t){0};
out:
    lrd_buf_release(&missing);
    lrd_squad_predictions_release(&p);
    return status;
}

void lrd_squad_predictions_release(lrd_squad_predictions_t *predictions)
{
    lrd_free(predictions->text);
    json_decref(predictions->root);
    *predictions = (lrd_squad_predictions_t){0};
}

static lrd_status_t read_prob(const json_t *value, const char *id, const char *name,
                              lrd_squad_na_prob_t *prob)
{
    lrd_status_t status = LRD_OK;
    LRD_CHECK(json_is_number(value), LRD_ERR_FORMAT,
              "%s: the probability for \"%.64s\" is %s, expected a number", name, id,
              lrd_json_type_name(value));
    if (json_is_integer(value)) {
        const json_int_t integer = json_integer_value(value);
        LRD_CHECK(integer >= -max_integer && integer <= max_integer, LRD_ERR_FORMAT,
                  "%s: the probability for \"%.64s\" is out of range: %" JSON_INTEGER_FORMAT, name,
                  id, integer);
    }
    prob->value = json_number_value(value);
    prob->is_integer = json_is_integer(value);
out:
    return status;
}

/* Every question has one. */
static lrd_status_t check_complete(const json_t *root, const char *name, const lrd_squad_t *data)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t missing = {0};
    size_t n_missing = 0, first = 0;
    for (size_t i = 0; i < lrd_squad_n_questions(data); i++) {
        if (find(root, lrd_squad_question(data, i)->id) == NULL)
            first = n_missing++ == 0 ? i : first;
    }
    if (n_missing == 0)
        goto out;
    LRD_TRY(describe_missing(data, n_missing, first, &missing));
    LRD_FAIL(LRD_ERR_FORMAT, "%s: no probability %s", name, missing.data);
out:
    lrd_buf_release(&missing);
    return status;
}

lrd_status_t lrd_squad_na_probs_parse(const char *text, size_t bytes, const char *name,
                                      const lrd_squad_t *data, lrd_squad_na_prob_t **na_prob_out,
                                      size_t *n_out)
{
    lrd_status_t status = LRD_OK;
    json_t *root = NULL;
    lrd_squad_na_prob_t *prob = NULL;
    lrd_squad_ids_t ids = {0};
    size_t n = 0;
    LRD_TRY(parse_object(text, bytes, name, "number", &root));
    LRD_TRY(check_complete(root, name, data));
    LRD_TRY(lrd_squad_ids_create(data, lrd_squad_n_questions(data), &ids));
    LRD_NEW(prob, json_object_size(root));
    for (void *at = json_object_iter(root); at != NULL; at = json_object_iter_next(root, at)) {
        const char *id = json_object_iter_key(at);
        const size_t question = lrd_squad_ids_find(&ids, (lrd_text_t){id, strlen(id)});
        if (question == LRD_SQUAD_NO_QUESTION)
            continue;
        prob[n].question = question;
        LRD_TRY(read_prob(json_object_iter_value(at), id, name, &prob[n++]));
    }
    *na_prob_out = prob;
    *n_out = n;
    prob = NULL;
out:
    lrd_squad_ids_release(&ids);
    lrd_free(prob);
    json_decref(root);
    return status;
}

lrd_status_t lrd_squad_predictions_read(const char *path, const lrd_squad_t *data,
                                        lrd_squad_predictions_t *predictions_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_file_read(path, max_file_bytes, &text));
    LRD_TRY(lrd_squad_predictions_parse(text.data, text.size, path, data, predictions_out));
out:
    lrd_buf_release(&text);
    return status;
}

lrd_status_t lrd_squad_na_probs_read(const char *path, const lrd_squad_t *data,
                                     lrd_squad_na_prob_t **na_prob_out, size_t *n_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_file_read(path, max_file_bytes, &text));
    LRD_TRY(lrd_squad_na_probs_parse(text.data, text.size, path, data, na_prob_out, n_out));
out:
    lrd_buf_release(&text);
    return status;
}
