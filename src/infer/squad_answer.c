#include "infer/squad_answer.h"

#include "base/mem.h"
#include "base/progress.h"
#include "infer/squad_text.h"

#include <string.h>

lrd_status_t lrd_squad_prompts_open(const lrd_squad_prompts_spec_t *spec,
                                    lrd_squad_prompts_t *prompts_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_prompts_t p = {.max_new_tokens = spec->max_new_tokens};
    lrd_data_settings_t settings = *spec->settings;
    settings.format = LRD_FORMAT_SQUAD;
    settings.max_length -= spec->max_new_tokens;
    LRD_CHECK(settings.max_length > 0, LRD_ERR_CONFIG,
              "--max-new-tokens %d leaves no room for a question: data.max_length is %lld",
              spec->max_new_tokens, (long long)spec->settings->max_length);
    LRD_TRY(lrd_squad_read_files(spec->path, spec->files, &p.data));
    LRD_TRY(lrd_tokenizer_load(spec->model_folder, &p.tokenizer));
    LRD_TRY(lrd_dataset_tokenize(&(lrd_dataset_spec_t){.path = spec->path,
                                                       .files = spec->files,
                                                       .settings = &settings,
                                                       .tokenizer = p.tokenizer,
                                                       .vocab_size = spec->vocab_size,
                                                       .n_threads = spec->n_threads,
                                                       .prompt_only = true,
                                                       .stop = spec->stop},
                                 &p.prompts));
    LRD_ALLOC(p.no_answer_text, lrd_strdup(spec->settings->no_answer_text));
    p.n = spec->question != NULL ? spec->n_questions : lrd_squad_n_questions(p.data);
    if (spec->limit > 0 && spec->limit < p.n)
        p.n = spec->limit;
    LRD_NEW(p.question, p.n);
    for (size_t i = 0; i < p.n; i++)
        p.question[i] = spec->question != NULL ? spec->question[i] : (int64_t)i;
    *prompts_out = p;
    p = (lrd_squad_prompts_t){0};
out:
    lrd_squad_prompts_close(&p);
    return status;
}

void lrd_squad_prompts_close(lrd_squad_prompts_t *p)
{
    lrd_free(p->question);
    lrd_free(p->no_answer_text);
    lrd_dataset_close(p->prompts);
    lrd_tokenizer_free(p->tokenizer);
    lrd_squad_free(p->data);
    *p = (lrd_squad_prompts_t){0};
}

int32_t lrd_squad_prompts_capacity(const lrd_squad_prompts_t *p)
{
    int64_t longest = 0;
    for (size_t i = 0; i < p->n; i++) {
        const int64_t n = lrd_dataset_record(p->prompts, p->question[i]).n_tokens;
        longest = n > longest ? n : longest;
    }
    return (int32_t)longest + p->max_new_tokens;
}

/* One rank's work. */
typedef struct work {
    const lrd_squad_prompts_t *p;
    lrd_request_t *request; /* [n] */
    lrd_reply_t *reply;     /* [n] */
    size_t n, n_done;
    lrd_progress_t progress;
    lrd_buf_t text; /* answers in order, each with its length before it */
} work_t;

static lrd_status_t note_done(void *context, size_t i, const lrd_reply_t *reply)
{
    (void)i;
    (void)reply;
    work_t *w = context;
    lrd_progress_update(&w->progress, (int64_t)++w->n_done, NULL);
    return LRD_OK;
}

/* Appends the answer that the tokens are. */
static lrd_status_t add_answer(work_t *w, const lrd_reply_t *reply)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_t text = {0};
    LRD_TRY(lrd_tokenizer_decode(w->p->tokenizer, reply->token, (size_t)reply->n, true, &text));
    lrd_text_t answer = lrd_squad_strip((lrd_text_t){text.data, text.size});
    const size_t n = strlen(w->p->no_answer_text);
    if (answer.bytes == n && memcmp(answer.data, w->p->no_answer_text, n) == 0)
        answer.bytes = 0;
    const uint64_t bytes = answer.bytes;
    LRD_TRY(lrd_buf_add(&w->text, &bytes, sizeof bytes));
    LRD_TRY(lrd_buf_add(&w->text, answer.data, answer.bytes));
out:
    lrd_buf_release(&text);
    return status;
}

/* Questions rank, rank + size, ...: lengths differ from paragraph to paragraph, so that neighbours
 * are shared out. */
static lrd_status_t answer_share(work_t *w, size_t rank, size_t size, lrd_generator_t *generator,
                                 const lrd_sampling_t *sampling, lrd_adapter_use_t use,
                                 const lrd_stop_t *cancel)
{
    lrd_status_t status = LRD_OK;
    const size_t n = w->p->n > rank ? (w->p->n - rank - 1) / size + 1 : 0;
    LRD_NEW(w->request, n);
    LRD_NEW(w->reply, n);
    w->n = n;
    for (size_t i = 0; i < n; i++) {
        const int64_t question = w->p->question[rank + i * size];
        const lrd_record_t r = lrd_dataset_record(w->p->prompts, question);
        w->request[i] = (lrd_request_t){.prompt = r.token,
                                        .n_prompt = (int32_t)r.n_tokens,
                                        .max_new_tokens = w->p->max_new_tokens,
                                        .use = use,
                                        .number = (uint64_t)question};
    }
    lrd_progress_begin(&w->progress, "Answering", "questions", 0, (int64_t)n);
    const lrd_listener_t listener = {.context = w, .done = note_done, .cancel = cancel};
    LRD_TRY(lrd_generate(generator, sampling, w->request, n, &listener, w->reply));
    lrd_progress_end(&w->progress, (int64_t)n);
    for (size_t i = 0; i < n; i++)
        LRD_TRY(add_answer(w, &w->reply[i]));
out:
    return status;
}

lrd_status_t lrd_squad_answer_all(lrd_comm_t *comm, const lrd_squad_prompts_t *prompts,
                                  lrd_generator_t *generator, const lrd_sampling_t *sampling,
                                  lrd_adapter_use_t use, const lrd_stop_t *cancel,
                                  lrd_squad_replies_t *replies_out)
{
    lrd_status_t status = LRD_OK;
    const size_t size = (size_t)lrd_comm_size(comm), rank = (size_t)lrd_comm_rank(comm);
    work_t w = {.p = prompts};
    lrd_squad_replies_t replies = {.n = prompts->n};
    size_t *offset = NULL;
    LRD_NEW(offset, size + 1);
    LRD_NEW(replies.text, prompts->n);
    LRD_TRY(lrd_generator_abort(generator,
                                answer_share(&w, rank, size, generator, sampling, use, cancel)));
out:
    status = lrd_agree(comm, status);
    if (status == LRD_OK)
        status = lrd_comm_collect(comm, w.text.data, w.text.size, offset, &replies.bytes);
    for (size_t i = 0; status == LRD_OK && i < prompts->n; i++) {
        uint64_t bytes;
        size_t *at = &offset[i % size];
        memcpy(&bytes, replies.bytes + *at, sizeof bytes);
        replies.text[i] = (lrd_text_t){replies.bytes + *at + sizeof bytes, bytes};
        *at += sizeof bytes + bytes;
    }
    if (status == LRD_OK) {
        *replies_out = replies;
        replies = (lrd_squad_replies_t){0};
    }
    lrd_squad_replies_release(&replies);
    lrd_replies_release(w.reply, w.n);
    lrd_free(w.reply);
    lrd_free(w.request);
    lrd_buf_release(&w.text);
    lrd_free(offset);
    return status;
}

lrd_status_t lrd_squad_replies_score(const lrd_squad_prompts_t *prompts,
                                     const lrd_squad_replies_t *replies, double *exact_out,
                                     double *f1_out)
{
    lrd_status_t status = LRD_OK;
    lrd_squad_scorer_t scorer = {.gold = {0}};
    double exact = 0, f1 = 0;
    for (size_t i = 0; i < replies->n; i++) {
        double one_exact, one_f1;
        LRD_TRY(lrd_squad_score_question(&scorer, prompts->data, (size_t)prompts->question[i],
                                         replies->text[i], &one_exact, &one_f1));
        exact += one_exact;
        f1 += one_f1;
    }
    *exact_out = replies->n > 0 ? 100.0 * exact / (double)replies->n : 0;
    *f1_out = replies->n > 0 ? 100.0 * f1 / (double)replies->n : 0;
out:
    lrd_squad_scorer_release(&scorer);
    return status;
}

void lrd_squad_replies_release(lrd_squad_replies_t *replies)
{
    lrd_free(replies->text);
    lrd_free(replies->bytes);
    *replies = (lrd_squad_replies_t){0};
}
