#include "base/mem.h"
#include "data/tokenizer_parts.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_TEXTS = 64, MAX_THREADS = 256 };

/* What the threads of one call share. Chunks of consecutive texts are handed out in order, so that
 * every text before the first failure is tried, whatever the number of threads. */
typedef struct batch_job {
    const lrd_tokenizer_t *tokenizer;
    const lrd_text_t *text;
    size_t n;
    size_t *n_tokens;          /* [n], of each text */
    struct batch_chunk *chunk; /* [n_chunks] */
    size_t n_chunks;
    pthread_mutex_t lock; /* for what follows */
    size_t next_chunk;
    size_t failed; /* first text that failed; n: none */
    lrd_status_t status;
} batch_job_t;

typedef struct batch_worker {
    batch_job_t *job;
    lrd_tokens_t tokens; /* of its chunks, one after the other */
    pthread_t thread;
} batch_worker_t;

typedef struct batch_chunk {
    const batch_worker_t *worker; /* that encoded it */
    size_t first;                 /* its first token there */
} batch_chunk_t;

void lrd_token_batch_release(lrd_token_batch_t *batch)
{
    lrd_tokens_release(&batch->tokens);
    lrd_free(batch->first);
    *batch = (lrd_token_batch_t){0};
}

/* The next chunk to do; false: none is left, or all that are left lie behind a failure. */
static bool take_chunk(batch_job_t *job, size_t *chunk_out)
{
    pthread_mutex_lock(&job->lock);
    const size_t chunk = job->next_chunk;
    const bool more = chunk < job->n_chunks && chunk * CHUNK_TEXTS < job->failed;
    job->next_chunk += more;
    pthread_mutex_unlock(&job->lock);
    *chunk_out = chunk;
    return more;
}

static void note_failure(batch_job_t *job, size_t i, lrd_status_t status)
{
    pthread_mutex_lock(&job->lock);
    if (i < job->failed) {
        job->failed = i;
        job->status = status;
    }
    pthread_mutex_unlock(&job->lock);
}

static void *run_worker(void *arg)
{
    batch_worker_t *worker = arg;
    batch_job_t *job = worker->job;
    lrd_encoder_t *encoder = NULL;
    size_t chunk;
    lrd_status_t status = lrd_encoder_new(job->tokenizer, &encoder);
    if (status != LRD_OK)
        note_failure(job, 0, status); /* no text is at fault: the first one stands for all */
    while (status == LRD_OK && take_chunk(job, &chunk)) {
        job->chunk[chunk] = (batch_chunk_t){.worker = worker, .first = worker->tokens.n};
        const size_t end = (chunk + 1) * CHUNK_TEXTS < job->n ? (chunk + 1) * CHUNK_TEXTS : job->n;
        for (size_t i = chunk * CHUNK_TEXTS; i < end && status == LRD_OK; i++) {
            const size_t n_before = worker->tokens.n;
            status =
                lrd_encoder_encode(encoder, job->text[i].data, job->text[i].bytes, &worker->tokens);
            if (status != LRD_OK)
                note_failure(job, i, status);
            job->n_tokens[i] = worker->tokens.n - n_before;
        }
    }
    lrd_encoder_free(encoder);
    return NULL;
}

/* Runs the job on the calling thread and as many others as are wanted and can be had. */
static void run_workers(batch_worker_t *worker, int n_workers)
{
    int n_started = 1;
    while (n_started < n_workers &&
           pthread_create(&worker[n_started].thread, NULL, run_worker, &worker[n_started]) == 0)
        n_started++;
    run_worker(&worker[0]);
    for (int i = 1; i < n_started; i++)
        pthread_join(worker[i].thread, NULL);
}

/* The failure of text job->failed, recorded as if the texts had been encoded one by one: another
 * thread has met it, or this one has met that of another text, too. */
static lrd_status_t report_failure(const batch_job_t *job)
{
    lrd_status_t status = LRD_OK;
    lrd_encoder_t *encoder = NULL;
    lrd_tokens_t tokens = {0};
    char where[40];
    snprintf(where, sizeof where, "text %zu: ", job->failed);
    lrd_error_clear();
    LRD_TRY(lrd_encoder_new(job->tokenizer, &encoder));
    LRD_TRY(lrd_encoder_encode_named(encoder, job->text[job->failed].data,
                                     job->text[job->failed].bytes, where, &tokens));
    LRD_FAIL(job->status, "%s%s", where, lrd_status_text(job->status)); /* memory is back by now */
out:
    lrd_tokens_release(&tokens);
    lrd_encoder_free(encoder);
    return status;
}

/* Turns the numbers of tokens in first[1..n] into offsets, and puts the chunks' tokens in order. */
static lrd_status_t gather(const batch_job_t *job, batch_worker_t *worker, int n_workers,
                           size_t *first, lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    first[0] = 0;
    for (size_t i = 0; i < job->n; i++)
        first[i + 1] += first[i];
    if (n_workers == 1) { /* they are in order */
        *tokens = worker->tokens;
        worker->tokens = (lrd_tokens_t){0};
        goto out;
    }
    LRD_TRY(lrd_tokens_reserve(tokens, first[job->n]));
    for (size_t c = 0; c < job->n_chunks; c++) {
        const size_t end = (c + 1) * CHUNK_TEXTS < job->n ? (c + 1) * CHUNK_TEXTS : job->n;
        const size_t n = first[end] - first[c * CHUNK_TEXTS];
        const lrd_tokens_t *from = &job->chunk[c].worker->tokens;
        if (n == 0)
            continue;
        memcpy(tokens->id + tokens->n, from->id + job->chunk[c].first, n * sizeof *tokens->id);
        if (tokens->with_begins)
            memcpy(tokens->begin + tokens->n, from->begin + job->chunk[c].first,
                   n * sizeof *tokens->begin);
        tokens->n += n;
    }
out:
    return status;
}

static int count_processors(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

lrd_status_t lrd_tokenizer_encode_batch(const lrd_tokenizer_t *tokenizer, const lrd_text_t *text,
                                        size_t n, int n_threads, bool with_begins,
                                        lrd_token_batch_t *batch_out)
{
    lrd_status_t status = LRD_OK;
    lrd_token_batch_t batch = {.tokens.with_begins = with_begins, .n = n};
    batch_worker_t *worker = NULL;
    batch_job_t job = {
        .tokenizer = tokenizer,
        .text = text,
        .n = n,
        .n_chunks = (n + CHUNK_TEXTS - 1) / CHUNK_TEXTS,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .failed = n,
    };
    LRD_CHECK(n_threads >= 0, LRD_ERR_ARG, "tokenizer: %d threads", n_threads);
    int n_workers = n_threads > 0 ? n_threads : count_processors();
    n_workers = n_workers > MAX_THREADS ? MAX_THREADS : n_workers;
    if ((size_t)n_workers > job.n_chunks)
        n_workers = job.n_chunks > 1 ? (int)job.n_chunks : 1;
    LRD_NEW(worker, n_workers);
    LRD_NEW(job.chunk, job.n_chunks);
    LRD_NEW(batch.first, n + 1);
    job.n_tokens = batch.first + 1;
    for (int i = 0; i < n_workers; i++)
        worker[i] = (batch_worker_t){.job = &job, .tokens.with_begins = with_begins};
    run_workers(worker, n_workers);
    if (job.failed < n)
        LRD_TRY(report_failure(&job));
    LRD_TRY(gather(&job, worker, n_workers, batch.first, &batch.tokens));
    *batch_out = batch;
    batch = (lrd_token_batch_t){0};
out:
    for (int i = 0; worker != NULL && i < n_workers; i++)
        lrd_tokens_release(&worker[i].tokens);
    lrd_free(worker);
    lrd_free(job.chunk);
    lrd_token_batch_release(&batch);
    return status;
}
