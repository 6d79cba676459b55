#include "train/evaluate.h"

#include "base/mem.h"
#include "base/progress.h"
#include "base/share.h"

#include <math.h>

void lrd_evaluator_layout(lrd_evaluator_t *e, lrd_arena_t *arena)
{
    e->nll = lrd_arena_take(arena, "buffers", sizeof *e->nll);
}

/* A run of work: buffers that live as long as one evaluation. */
typedef struct work {
    lrd_batch_t batch;
    int64_t *record; /* [records_per_batch] */
    double *pinned;  /* [1] */
    double *loss;    /* [batches]: mean over the batch's targets, NaN without any */
} work_t;

/* The loss of the records first .. last - 1 of the data set, one batch, in pieces that fit. */
static lrd_status_t evaluate_batch(lrd_evaluator_t *e, work_t *w, int64_t first, int64_t last,
                                   double *loss_out)
{
    lrd_status_t status = LRD_OK;
    double nll = 0;
    int64_t n_targets = 0;
    for (int64_t at = first; at < last;) {
        int64_t n = 0, tokens = 0;
        while (at + n < last && n < e->feed->max_sequences) {
            const int64_t more = lrd_dataset_record(e->set, at + n).n_tokens;
            if (n > 0 && tokens + more > e->feed->max_tokens)
                break;
            tokens += more;
            w->record[n] = at + n;
            n++;
        }
        lrd_micro_batch_t batch;
        LRD_TRY(lrd_batch_pack(e->set, w->record, n, 0, &w->batch));
        LRD_TRY(lrd_feed_upload(e->feed, &w->batch, &batch));
        LRD_TRY(lrd_stage_evaluate(e->stage, &batch, &(lrd_stage_loss_t){.nll = e->nll}));
        LRD_TRY(lrd_copy(e->stage->stream, LRD_COPY_D2H, w->pinned, e->nll, sizeof *e->nll));
        LRD_TRY(lrd_stream_sync(e->stage->stream));
        nll += *w->pinned;
        n_targets += w->batch.n_targets;
        at += n;
    }
    *loss_out = n_targets > 0 ? nll / (double)n_targets : NAN;
out:
    return status;
}

static lrd_status_t evaluate_share(lrd_evaluator_t *e, work_t *w, int64_t n_batches)
{
    lrd_status_t status = LRD_OK;
    const int rank = lrd_comm_rank(e->comm), size = lrd_comm_size(e->comm);
    const int64_t n_records = lrd_dataset_info(e->set)->n_records;
    const int64_t begin = lrd_share_begin(n_batches, rank, size),
                  end = lrd_share_begin(n_batches, rank + 1, size);
    lrd_progress_t progress;
    lrd_progress_begin(&progress, "Evaluating", "batches", 0, end - begin);
    progress.quiet = true;
    for (int64_t b = begin; b < end; b++) {
        const int64_t first = b * e->records_per_batch;
        const int64_t last =
            first + e->records_per_batch < n_records ? first + e->records_per_batch : n_records;
        LRD_TRY(evaluate_batch(e, w, first, last, &w->loss[b]));
        lrd_progress_update(&progress, b + 1 - begin, NULL);
    }
    lrd_progress_end(&progress, end - begin);
out:
    return status;
}

/* Mean over records of their batch's loss, batches without targets left out. */
static double combine(const lrd_evaluator_t *e, const double *loss, int64_t n_batches)
{
    const int64_t n_records = lrd_dataset_info(e->set)->n_records;
    double sum = 0, weight = 0;
    for (int64_t b = 0; b < n_batches; b++) {
        const int64_t left = n_records - b * e->records_per_batch;
        const double n = (double)(left < e->records_per_batch ? left : e->records_per_batch);
        if (!isnan(loss[b])) {
            sum += n * loss[b];
            weight += n;
        }
    }
    return weight > 0 ? sum / weight : NAN;
}

lrd_status_t lrd_evaluate(lrd_evaluator_t *e, double *loss_out)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(e->comm), rank = lrd_comm_rank(e->comm);
    const int64_t n_batches = lrd_eval_n_batches(e->set, e->records_per_batch);
    lrd_backend_t *be = e->stage->stream->backend;
    work_t w = {0};
    size_t *offset = NULL;
    LRD_NEW(w.record, e->records_per_batch);
    LRD_NEW(w.loss, n_batches);
    LRD_NEW(offset, size + 1);
    LRD_TRY(lrd_mem_alloc(be, LRD_MEM_PINNED, sizeof(double), (void **)&w.pinned));
    LRD_TRY(evaluate_share(e, &w, n_batches));
out:
    status = lrd_agree(e->comm, status);
    if (status == LRD_OK) {
        for (int r = 0; r <= size; r++)
            offset[r] = (size_t)lrd_share_begin(n_batches, r, size) * sizeof(double);
        status = lrd_comm_all_gather(e->comm, (char *)w.loss + offset[rank], w.loss, offset);
    }
    if (status == LRD_OK)
        *loss_out = combine(e, w.loss, n_batches);
    lrd_mem_free(be, LRD_MEM_PINNED, w.pinned, sizeof(double));
    lrd_batch_release(&w.batch);
    lrd_free(offset);
    lrd_free(w.loss);
    lrd_free(w.record);
    return status;
}
