#include "data/dataset_source.h"

#include "base/mem.h"
#include "data/rows.h"
#include "data/squad.h"

#include <string.h>

/* What {name} may name in a template for squad. */
enum { ID, TITLE, CONTEXT, QUESTION, ANSWER, N_SQUAD_FIELDS };
static const char *const squad_field[N_SQUAD_FIELDS] = {"id", "title", "context", "question",
                                                        "answer"};

static const char template_key[] = "data.prompt_template";

struct lrd_source {
    const lrd_dataset_spec_t *spec;
    lrd_prompt_t *prompt;
    int context_field;
    int64_t n_read;
    /* squad */
    lrd_squad_t *squad;
    int *column; /* [fields of the prompt] which of squad_field */
    /* jsonl */
    lrd_rows_t *rows;
};

static lrd_status_t check_squad_template(lrd_source_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t n = lrd_prompt_n_fields(s->prompt);
    LRD_NEW(s->column, n);
    for (size_t i = 0; i < n; i++) {
        const char *name = lrd_prompt_field(s->prompt, i);
        int c = 0;
        while (c < N_SQUAD_FIELDS && strcmp(name, squad_field[c]) != 0)
            c++;
        LRD_CHECK(
            c < N_SQUAD_FIELDS, LRD_ERR_CONFIG,
            "%s: {%s} is no field of format squad; its fields are context, question, answer, id "
            "and title",
            template_key, name);
        s->column[i] = c;
    }
    const int answer = lrd_prompt_find(s->prompt, squad_field[ANSWER]);
    LRD_CHECK(answer >= 0, LRD_ERR_CONFIG,
              "%s does not name {answer}, which format squad needs: the model would never see an "
              "answer",
              template_key);
    LRD_CHECK(
        (size_t)answer == lrd_prompt_last(s->prompt), LRD_ERR_CONFIG,
        "%s: the last field is {%s}, but format squad needs {answer} last: the text before it is "
        "what a question is asked with",
        template_key, lrd_prompt_field(s->prompt, lrd_prompt_last(s->prompt)));
    LRD_CHECK(s->spec->settings->no_answer_text != NULL, LRD_ERR_CONFIG,
              "data.no_answer_text is not set; format squad needs it");
out:
    return status;
}

static lrd_status_t check_template(lrd_source_t *s)
{
    lrd_status_t status = LRD_OK;
    const lrd_data_settings_t *d = s->spec->settings;
    LRD_CHECK(d->prompt_template != NULL, LRD_ERR_CONFIG,
              "%s is not set; formats squad and jsonl need it", template_key);
    LRD_TRY(lrd_prompt_create(d->prompt_template, template_key, &s->prompt));
    if (d->format == LRD_FORMAT_SQUAD)
        LRD_TRY(check_squad_template(s));
    s->context_field = -1;
    if (s->spec->prompt_only) {
        s->context_field = lrd_prompt_find(s->prompt, squad_field[CONTEXT]);
        if (s->context_field >= 0 && (size_t)s->context_field == lrd_prompt_last(s->prompt))
            s->context_field = -1;
    } else if (d->on_too_long == LRD_TOO_LONG_TRUNCATE_CONTEXT) {
        s->context_field = lrd_prompt_find(s->prompt, squad_field[CONTEXT]);
        LRD_CHECK(s->context_field >= 0, LRD_ERR_CONFIG,
                  "data.on_too_long is truncate_context, but %s does not name {context}",
                  template_key);
        LRD_CHECK(
            (size_t)s->context_field != lrd_prompt_last(s->prompt), LRD_ERR_CONFIG,
            "data.on_too_long is truncate_context, but {context} is the last field of %s, that "
            "is, the answer",
            template_key);
    }
out:
    return status;
}

/* The members that the template names. */
static lrd_status_t open_rows(lrd_source_t *s)
{
    lrd_status_t status = LRD_OK;
    const size_t n = lrd_prompt_n_fields(s->prompt);
    lrd_parquet_want_t *want = NULL;
    LRD_NEW(want, n);
    for (size_t i = 0; i < n; i++)
        want[i].name = lrd_prompt_field(s->prompt, i);
    LRD_TRY(lrd_rows_open(s->spec->path, s->spec->files, want, n, &s->rows));
out:
    lrd_free(want);
    return status;
}

lrd_status_t lrd_source_open(const lrd_dataset_spec_t *spec, lrd_source_t **source_out)
{
    lrd_status_t status = LRD_OK;
    lrd_source_t *s = NULL;
    LRD_NEW(s, 1);
    s->spec = spec;
    LRD_TRY(check_template(s));
    if (spec->settings->format == LRD_FORMAT_SQUAD)
        LRD_TRY(lrd_squad_read_files(spec->path, spec->files, &s->squad));
    else
        LRD_TRY(open_rows(s));
    *source_out = s;
    s = NULL;
out:
    lrd_source_close(s);
    return status;
}

void lrd_source_close(lrd_source_t *source)
{
    if (source == NULL)
        return;
    lrd_rows_close(source->rows);
    lrd_free(source->column);
    lrd_squad_free(source->squad);
    lrd_prompt_free(source->prompt);
    lrd_free(source);
}

const lrd_prompt_t *lrd_source_prompt(const lrd_source_t *source)
{
    return source->prompt;
}

int lrd_source_context_field(const lrd_source_t *source)
{
    return source->context_field;
}

int64_t lrd_source_total(const lrd_source_t *source)
{
    return source->squad != NULL ? (int64_t)lrd_squad_n_questions(source->squad)
                                 : lrd_rows_total(source->rows);
}

int64_t lrd_source_n_groups(const lrd_source_t *source)
{
    return source->squad != NULL ? (int64_t)lrd_squad_n_articles(source->squad) : source->n_read;
}

static lrd_text_t squad_value(const lrd_source_t *s, int64_t i, int column)
{
    const lrd_squad_question_t *q = lrd_squad_question(s->squad, (size_t)i);
    const char *none = s->spec->settings->no_answer_text;
    switch (column) {
    case ID:
        return q->id;
    case TITLE:
        return q->title;
    case CONTEXT:
        return q->context;
    case QUESTION:
        return q->question;
    default:
        if (q->n_answers > 0)
            return lrd_squad_answer(s->squad, (size_t)i, 0);
        return (lrd_text_t){none, strlen(none)};
    }
}

static void next_question(lrd_source_t *s, lrd_source_row_t *row)
{
    const int64_t i = s->n_read;
    for (size_t f = 0; f < lrd_prompt_n_fields(s->prompt); f++)
        row->value[f] = squad_value(s, i, s->column[f]);
    row->source = i;
    row->group = lrd_squad_question(s->squad, (size_t)i)->article;
}

lrd_status_t lrd_source_next(lrd_source_t *source, lrd_source_row_t *row, bool *more_out)
{
    lrd_status_t status = LRD_OK;
    lrd_source_t *s = source;
    json_t *object = NULL;
    bool more = true;
    row->owner = NULL;
    if (s->squad != NULL) {
        more = s->n_read < (int64_t)lrd_squad_n_questions(s->squad);
        if (more)
            next_question(s, row);
    } else {
        LRD_TRY(lrd_rows_next(s->rows, &object, &row->source));
        more = object != NULL;
        if (more)
            LRD_TRY(lrd_jsonl_fields(lrd_rows_reader(s->rows), object, s->prompt, row->value));
        row->owner = object;
        row->group = s->n_read;
        object = NULL;
    }
    s->n_read += more;
    *more_out = more;
out:
    json_decref(object);
    return status;
}

void lrd_source_row_release(lrd_source_row_t *row)
{
    json_decref(row->owner);
    row->owner = NULL;
}

lrd_status_t lrd_source_place(const lrd_source_t *source, const lrd_source_row_t *row,
                              lrd_buf_t *buf)
{
    if (source->squad != NULL)
        return lrd_squad_place(source->squad, (size_t)row->source, buf);
    return lrd_rows_place(source->rows, row->source, buf);
}
