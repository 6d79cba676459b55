#include "base/log.h"
#include "base/mem.h"
#include "base/progress.h"
#include "data/dataset_source.h"
#include "data/dataset_store.h"
#include "data/rows.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* Rows are tokenized in rounds: read in order by one thread, rendered and encoded by all, added to
 * the store in order by one. What a round holds does not depend on the number of threads, and
 * neither does anything else. */
enum { ROUND_ROWS = 4096, MAX_THREADS = 256 };
static const size_t round_bytes = (size_t)32 << 20;

/* What can be wrong with one record. Workers only note it:
 * the first one in file order is reported. */
typedef enum problem {
    PROBLEM_NONE,
    PROBLEM_EMPTY,    /* no tokens */
    PROBLEM_ID,       /* an id outside the vocabulary */
    PROBLEM_TOO_LONG, /* on_too_long: error */
    PROBLEM_NO_FIT    /* truncate_context: not even without the context */
} problem_t;

typedef struct outcome {
    lrd_status_t status;
    problem_t problem;
    int64_t n_full;  /* tokens before anything was cut */
    int64_t n;       /* tokens to keep, at worker[].kept.id[at] */
    int64_t culprit; /* PROBLEM_ID: the id; PROBLEM_NO_FIT: tokens with an empty context */
    int64_t label_start;
    size_t at;
    int worker;
    bool dropped, truncated, straddled;
} outcome_t;

typedef struct worker {
    lrd_encoder_t *encoder;
    lrd_buf_t text;
    lrd_tokens_t tokens, best, context; /* with begins */
    size_t last_at, best_last_at; /* where the last field begins in what tokens, best encode */
    size_t text_bytes, best_text_bytes;
    lrd_text_t *value; /* [fields of the prompt] */
    lrd_tokens_t kept; /* of this round */
} worker_t;

typedef struct build {
    const lrd_dataset_spec_t *spec;
    const lrd_data_settings_t *settings;
    lrd_source_t *source;
    lrd_store_t *store;
    worker_t *worker;
    int n_workers;
    lrd_source_row_t *row; /* [ROUND_ROWS] */
    lrd_text_t *value;     /* of the rows */
    outcome_t *outcome;    /* [ROUND_ROWS] */
} build_t;

/* Tokens of the record with these values into w->tokens. */
static lrd_status_t encode(const build_t *b, worker_t *w, const lrd_text_t *value)
{
    lrd_status_t status = LRD_OK;
    w->text.size = 0;
    w->tokens.n = 0;
    if (b->spec->prompt_only)
        LRD_TRY(lrd_prompt_render_head(lrd_source_prompt(b->source), value, &w->text));
    else
        LRD_TRY(lrd_prompt_render(lrd_source_prompt(b->source), value, &w->text, &w->last_at));
    w->text_bytes = w->text.size;
    LRD_TRY(lrd_encoder_encode(w->encoder, w->text.data, w->text.size, &w->tokens));
out:
    return status;
}

static void keep_best(worker_t *w)
{
    const lrd_tokens_t tokens = w->tokens;
    w->tokens = w->best;
    w->best = tokens;
    w->best_last_at = w->last_at;
    w->best_text_bytes = w->text_bytes;
}

/* The length of a text cut at `at`, without the piece of a character at its end. */
static size_t whole_characters(lrd_text_t text, size_t at)
{
    while (at > 0 && at < text.bytes && ((unsigned char)text.data[at] & 0xc0u) == 0x80u)
        at--;
    return at;
}

/* Encodes the record with the first m tokens of its context. */
static lrd_status_t encode_cut(const build_t *b, worker_t *w, const lrd_source_row_t *row,
                               int64_t m)
{
    const int field = lrd_source_context_field(b->source);
    memcpy(w->value, row->value,
           lrd_prompt_n_fields(lrd_source_prompt(b->source)) * sizeof w->value[0]);
    if (m < (int64_t)w->context.n)
        w->value[field].bytes = whole_characters(row->value[field], (size_t)w->context.begin[m]);
    return encode(b, w, w->value);
}

/* Shortens the context as lrd_dataset_tokenize says; the result is in w->best. */
static lrd_status_t truncate_context(const build_t *b, worker_t *w, const lrd_source_row_t *row,
                                     outcome_t *o)
{
    lrd_status_t status = LRD_OK;
    const int field = lrd_source_context_field(b->source);
    const int64_t uses = (int64_t)lrd_prompt_n_uses(lrd_source_prompt(b->source), (size_t)field),
                  limit = b->settings->max_length;
    const lrd_text_t context = row->value[field];
    w->context.n = 0;
    LRD_TRY(lrd_encoder_encode(w->encoder, context.data, context.bytes, &w->context));
    const int64_t k = (int64_t)w->context.n;
    int64_t m = k;
    while ((int64_t)w->tokens.n > limit) {
        if (m == 0) {
            o->problem = PROBLEM_NO_FIT;
            o->culprit = (int64_t)w->tokens.n;
            goto out;
        }
        const int64_t less = ((int64_t)w->tokens.n - limit + uses - 1) / uses;
        m = m > less ? m - less : 0;
        LRD_TRY(encode_cut(b, w, row, m));
    }
    keep_best(w);
    for (; m + 1 < k; m++) {
        LRD_TRY(encode_cut(b, w, row, m + 1));
        if ((int64_t)w->tokens.n > limit)
            break;
        keep_best(w);
    }
    o->truncated = true;
out:
    return status;
}

/* loss_on: answer: the first token that begins at or after the answer's first byte. */
static void find_answer(const worker_t *w, outcome_t *o)
{
    const lrd_tokens_t *t = &w->best;
    size_t k = 0;
    while (k < t->n && (size_t)t->begin[k] < w->best_last_at)
        k++;
    o->label_start = (int64_t)k;
    const size_t next = k < t->n ? (size_t)t->begin[k] : w->best_text_bytes;
    o->straddled = next > w->best_last_at;
}

static void check_ids(const build_t *b, const lrd_tokens_t *tokens, outcome_t *o)
{
    for (size_t i = 0; i < tokens->n; i++) {
        if (tokens->id[i] >= b->spec->vocab_size) {
            o->problem = PROBLEM_ID;
            o->culprit = tokens->id[i];
            return;
        }
    }
}

static lrd_status_t keep(worker_t *w, outcome_t *o)
{
    lrd_status_t status = LRD_OK;
    lrd_tokens_t *kept = &w->kept;
    const size_t need = kept->n + w->best.n;
    if (need > kept->capacity) {
        int32_t *grown;
        LRD_ALLOC(grown, lrd_realloc_array(kept->id, need + (need >> 1), sizeof *grown));
        kept->id = grown;
        kept->capacity = need + (need >> 1);
    }
    memcpy(kept->id + kept->n, w->best.id, w->best.n * sizeof kept->id[0]);
    o->at = kept->n;
    o->n = (int64_t)w->best.n;
    kept->n = need;
out:
    return status;
}

/* Shortens a prompt: its context, and if that is not enough, from the front. */
static lrd_status_t truncate_prompt(const build_t *b, worker_t *w, const lrd_source_row_t *row,
                                    outcome_t *o)
{
    lrd_status_t status = LRD_OK;
    if (lrd_source_context_field(b->source) >= 0)
        LRD_TRY(truncate_context(b, w, row, o));
    else
        o->problem = PROBLEM_NO_FIT;
    if (o->problem == PROBLEM_NO_FIT) {
        const size_t limit = (size_t)b->settings->max_length, n = w->tokens.n;
        memmove(w->tokens.id, w->tokens.id + (n - limit), limit * sizeof w->tokens.id[0]);
        w->tokens.n = limit;
        keep_best(w);
        o->problem = PROBLEM_NONE;
        o->truncated = true;
    }
out:
    return status;
}

static lrd_status_t tokenize_row(const build_t *b, worker_t *w, const lrd_source_row_t *row,
                                 outcome_t *o)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(encode(b, w, row->value));
    o->n_full = (int64_t)w->tokens.n;
    if (o->n_full == 0) {
        o->problem = PROBLEM_EMPTY;
    } else if (o->n_full <= b->settings->max_length) {
        keep_best(w);
    } else if (b->spec->prompt_only) {
        LRD_TRY(truncate_prompt(b, w, row, o));
    } else if (b->settings->on_too_long == LRD_TOO_LONG_ERROR) {
        o->problem = PROBLEM_TOO_LONG;
    } else if (b->settings->on_too_long == LRD_TOO_LONG_DROP) {
        o->dropped = true;
    } else {
        LRD_TRY(truncate_context(b, w, row, o));
    }
    if (o->problem != PROBLEM_NONE || o->dropped)
        goto out;
    check_ids(b, &w->best, o);
    if (b->settings->loss_on == LRD_LOSS_ON_ANSWER && !b->spec->prompt_only)
        find_answer(w, o);
    LRD_TRY(keep(w, o));
out:
    return status;
}

static void tokenize_round(build_t *b, int n)
{
    for (int i = 0; i < b->n_workers; i++)
        b->worker[i].kept.n = 0;
    memset(b->outcome, 0, (size_t)n * sizeof b->outcome[0]);
#pragma omp parallel for schedule(dynamic, 8) num_threads(b->n_workers)
    for (int i = 0; i < n; i++) {
        outcome_t *o = &b->outcome[i];
#ifdef _OPENMP
        o->worker = omp_get_thread_num();
#endif
        o->status = tokenize_row(b, &b->worker[o->worker], &b->row[i], o);
    }
}

/* The encoder failed, in whatever thread: run the first such row in file order again in this one,
 * which records the cause, and name it. */
static lrd_status_t report_failure(build_t *b, const lrd_source_row_t *row, lrd_status_t first)
{
    lrd_status_t status = first;
    lrd_buf_t place = {0};
    char *cause = NULL;
    if (first == LRD_ERR_NO_MEMORY)
        return first;
    lrd_error_clear();
    outcome_t o = {0};
    status = tokenize_row(b, &b->worker[0], row, &o);
    LRD_CHECK(status != LRD_OK, LRD_ERR_INTERNAL, "a record failed once and not twice");
    LRD_ALLOC(cause, lrd_strdup(lrd_error_text(status)));
    first = status;
    lrd_error_clear();
    LRD_TRY(lrd_source_place(b->source, row, &place));
    LRD_FAIL(first, "%s: %s", place.data, cause);
out:
    lrd_free(cause);
    lrd_buf_release(&place);
    return status;
}

static lrd_status_t report_problem(const build_t *b, const lrd_source_row_t *row,
                                   const outcome_t *o)
{
    lrd_status_t status = LRD_OK;
    const int64_t limit = b->settings->max_length;
    lrd_buf_t place = {0};
    LRD_TRY(lrd_source_place(b->source, row, &place));
    switch (o->problem) {
    case PROBLEM_EMPTY:
        LRD_FAIL(LRD_ERR_FORMAT, "%s: the record's text is empty, it has no tokens", place.data);
    case PROBLEM_ID:
        LRD_FAIL(LRD_ERR_FORMAT,
                 "%s: token id %" PRId64 " lies outside the model's vocabulary of %" PRId64
                 ": tokenizer and model do not match",
                 place.data, o->culprit, b->spec->vocab_size);
    case PROBLEM_TOO_LONG:
        LRD_FAIL(LRD_ERR_FORMAT,
                 "%s has %" PRId64 " tokens, more than data.max_length %" PRId64
                 "; raise it, or set data.on_too_long to drop or truncate_context",
                 place.data, o->n_full, limit);
    case PROBLEM_NO_FIT:
        LRD_FAIL(LRD_ERR_FORMAT,
                 "%s has %" PRId64 " tokens, and %" PRId64
                 " with an empty context, still more than data.max_length %" PRId64
                 "; raise it, or set data.on_too_long to drop",
                 place.data, o->n_full, o->culprit, limit);
    case PROBLEM_NONE:
        break;
    }
out:
    lrd_buf_release(&place);
    return status;
}

static lrd_status_t store_round(build_t *b, int n)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *s = b->store;
    for (int i = 0; i < n; i++) {
        const outcome_t *o = &b->outcome[i];
        if (o->status != LRD_OK)
            LRD_TRY(report_failure(b, &b->row[i], o->status));
        LRD_TRY(report_problem(b, &b->row[i], o));
        s->n_source_records++;
        s->n_dropped += o->dropped;
        s->n_truncated += o->truncated;
        s->n_straddled += o->straddled;
        if (!o->dropped)
            LRD_TRY(lrd_store_add(s, b->worker[o->worker].kept.id + o->at, (size_t)o->n,
                                  o->label_start, NULL, b->row[i].source, b->row[i].group));
    }
out:
    return status;
}

/* Reads rows until the round is full. The rows read so far are counted also on failure. */
static lrd_status_t read_round(build_t *b, int *n, bool *more)
{
    lrd_status_t status = LRD_OK;
    const size_t n_fields = lrd_prompt_n_fields(lrd_source_prompt(b->source));
    size_t bytes = 0;
    while (*n < ROUND_ROWS && bytes < round_bytes) {
        lrd_source_row_t *row = &b->row[*n];
        row->value = b->value + (size_t)*n * n_fields;
        LRD_TRY(lrd_source_next(b->source, row, more));
        if (!*more)
            break;
        for (size_t f = 0; f < n_fields; f++)
            bytes += row->value[f].bytes;
        ++*n;
    }
out:
    return status;
}

static lrd_status_t run_rounds(build_t *b)
{
    lrd_status_t status = LRD_OK;
    char what[160];
    lrd_progress_t progress;
    int n = 0;
    bool more = true;
    snprintf(what, sizeof what, "Tokenizing %s", lrd_path_base(b->spec->path));
    lrd_progress_begin(&progress, what, "records", 0, lrd_source_total(b->source));
    progress.quiet = true;
    while (more) {
        LRD_CHECK_STOP(b->spec->stop);
        LRD_TRY(read_round(b, &n, &more));
        tokenize_round(b, n);
        LRD_TRY(store_round(b, n));
        while (n > 0)
            lrd_source_row_release(&b->row[--n]);
        lrd_progress_update(&progress, b->store->n_source_records, NULL);
    }
    b->store->n_groups = lrd_source_n_groups(b->source);
out:
    while (n > 0)
        lrd_source_row_release(&b->row[--n]);
    lrd_progress_end(&progress, b->store->n_source_records);
    return status;
}

static int choose_threads(int wanted)
{
#ifdef _OPENMP
    const int n = wanted > 0 ? wanted : omp_get_max_threads();
    return n < MAX_THREADS ? n : MAX_THREADS;
#else
    return 1;
#endif
}

static lrd_status_t make_workers(build_t *b)
{
    lrd_status_t status = LRD_OK;
    const size_t n_fields = lrd_prompt_n_fields(lrd_source_prompt(b->source));
    const int n = choose_threads(b->spec->n_threads);
    LRD_NEW(b->row, ROUND_ROWS);
    LRD_NEW(b->value, ROUND_ROWS * n_fields);
    LRD_NEW(b->outcome, ROUND_ROWS);
    LRD_NEW(b->worker, n);
    b->n_workers = n;
    for (int i = 0; i < n; i++) {
        worker_t *w = &b->worker[i];
        w->tokens.with_begins = w->best.with_begins = w->context.with_begins = true;
        LRD_NEW(w->value, n_fields);
        LRD_TRY(lrd_encoder_new(b->spec->tokenizer, &w->encoder));
    }
out:
    return status;
}

static void free_workers(build_t *b)
{
    for (int i = 0; i < b->n_workers; i++) {
        worker_t *w = &b->worker[i];
        lrd_encoder_free(w->encoder);
        lrd_buf_release(&w->text);
        lrd_tokens_release(&w->tokens);
        lrd_tokens_release(&w->best);
        lrd_tokens_release(&w->context);
        lrd_tokens_release(&w->kept);
        lrd_free(w->value);
    }
    lrd_free(b->worker);
    lrd_free(b->outcome);
    lrd_free(b->value);
    lrd_free(b->row);
}

static lrd_status_t build_text(const lrd_dataset_spec_t *spec, lrd_store_t *store)
{
    lrd_status_t status = LRD_OK;
    build_t b = {.spec = spec, .settings = spec->settings, .store = store};
    LRD_CHECK(spec->tokenizer != NULL, LRD_ERR_ARG, "%s: text needs a tokenizer", spec->path);
    LRD_TRY(lrd_source_open(spec, &b.source));
    LRD_TRY(make_workers(&b));
    LRD_TRY(run_rounds(&b));
out:
    free_workers(&b);
    lrd_source_close(b.source);
    return status;
}

/* Adds one record of ready-made tokens, or drops it. */
static lrd_status_t add_tokens(const lrd_dataset_spec_t *spec, const lrd_rows_t *rows,
                               int64_t number, const lrd_jsonl_tokens_t *t, lrd_store_t *store)
{
    lrd_status_t status = LRD_OK;
    const int64_t limit = spec->settings->max_length;
    const lrd_jsonl_t *lines = lrd_rows_reader(rows);
    if ((int64_t)t->n > limit) {
        LRD_CHECK(spec->settings->on_too_long == LRD_TOO_LONG_DROP, LRD_ERR_FORMAT,
                  "%s:%" PRId64 " has %zu tokens, more than data.max_length %" PRId64
                  "; raise it, or set data.on_too_long to drop",
                  lines->name, lines->line, t->n, limit);
        store->n_dropped++;
    } else {
        LRD_TRY(lrd_store_add(store, t->token, t->n, lrd_label_start(t->token, t->label, t->n),
                              t->label, number, store->n_source_records));
    }
    store->n_groups = ++store->n_source_records;
out:
    return status;
}

static lrd_status_t build_tokenized(const lrd_dataset_spec_t *spec, lrd_store_t *store)
{
    static const lrd_parquet_want_t want[] = {
        {.name = "input_ids"}, {"labels", true}, {"attention_mask", true}};
    lrd_status_t status = LRD_OK;
    lrd_rows_t *rows = NULL;
    lrd_jsonl_tokens_t tokens = {0};
    json_t *object = NULL;
    int64_t number;
    LRD_CHECK(
        spec->settings->on_too_long != LRD_TOO_LONG_TRUNCATE_CONTEXT, LRD_ERR_CONFIG,
        "data.on_too_long is truncate_context, but records of format tokenized have no context; "
        "choose error or drop");
    LRD_TRY(lrd_rows_open(spec->path, spec->files, want, sizeof want / sizeof want[0], &rows));
    for (;;) {
        LRD_CHECK_STOP(spec->stop);
        LRD_TRY(lrd_rows_next(rows, &object, &number));
        if (object == NULL)
            break;
        LRD_TRY(lrd_jsonl_tokens(lrd_rows_reader(rows), object, spec->vocab_size, &tokens));
        LRD_TRY(add_tokens(spec, rows, number, &tokens, store));
        json_decref(object);
        object = NULL;
    }
out:
    json_decref(object);
    lrd_jsonl_tokens_release(&tokens);
    lrd_rows_close(rows);
    return status;
}

lrd_status_t lrd_store_build(const lrd_dataset_spec_t *spec, lrd_store_t **store_out)
{
    lrd_status_t status = LRD_OK;
    lrd_store_t *store = NULL;
    const int64_t max_length = spec->settings->max_length;
    LRD_CHECK(max_length >= 1 && max_length <= LRD_RECORD_MAX_TOKENS, LRD_ERR_CONFIG,
              "data.max_length is %" PRId64 ", expected 1 to %d", max_length,
              LRD_RECORD_MAX_TOKENS);
    LRD_TRY(lrd_store_create(spec->path, &store));
    store->vocab_size = spec->vocab_size;
    if (spec->settings->format == LRD_FORMAT_TOKENIZED)
        LRD_TRY(build_tokenized(spec, store));
    else
        LRD_TRY(build_text(spec, store));
    LRD_CHECK(store->n_source_records > 0, LRD_ERR_FORMAT, "%s holds no records", spec->path);
    LRD_CHECK(store->n_records > 0, LRD_ERR_FORMAT,
              "%s: all %" PRId64 " records are longer than data.max_length %" PRId64
              " and were dropped",
              spec->path, store->n_source_records, max_length);
    LRD_TRY(lrd_store_finish(store));
    *store_out = store;
    store = NULL;
out:
    lrd_store_release(store);
    return status;
}
