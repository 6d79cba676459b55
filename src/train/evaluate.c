#include "train/evaluate.h"

#include "base/mem.h"
#include "base/progress.h"
#include "base/share.h"

#include <math.h>

lrd_status_t lrd_evaluator_open(lrd_evaluator_t *e)
{
    lrd_status_t status = LRD_OK;
    const int size = lrd_comm_size(e->comm);
    if (e->set == NULL)
        goto out;
    e->n_batches = lrd_eval_n_batches(e->set, e->records_per_batch);
    LRD_NEW(e->record, e->records_per_batch);
    LRD_NEW(e->loss, e->n_batches);
    LRD_NEW(e->offset, size + 1);
    for (int r = 0; r <= size; r++)
        e->offset[r] = (size_t)lrd_share_begin(e->n_batches, r, size) * sizeof(double);
    LRD_TRY(lrd_mem_alloc(e->stage->stream->backend, LRD_MEM_PINNED, sizeof(double),
                          (void **)&e->pinned));
out:
    return status;
}

void lrd_evaluator_close(lrd_evaluator_t *e)
{
    if (e->pinned != NULL)
        lrd_mem_free(e->stage->stream->backend, LRD_MEM_PINNED, e->pinned, sizeof(double));
    lrd_free(e->offset);
    lrd_free(e->loss);
    lrd_free(e->record);
    lrd_batch_release(&e->batch);
    *e = (lrd_evaluator_t){0};
}

void lrd_evaluator_layout(lrd_evaluator_t *e, lrd_arena_t *arena)
{
    e->nll = lrd_arena_take(arena, "buffers", sizeof *e->nll);
}

/* The loss of the records first .. last - 1 of the data set, one batch, in pieces that fit. */
static lrd_status_t evaluate_batch(lrd_evaluator_t *e, int64_t first, int64_t last,
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
            e->record[n] = at + n;
            n++;
        }
        lrd_micro_batch_t batch;
        LRD_TRY(lrd_batch_pack(e->set, e->record, n, 0, &e->batch));
        LRD_TRY(lrd_feed_upload(e->feed, &e->batch, &batch));
        LRD_TRY(lrd_stage_evaluate(e->stage, &batch, &(lrd_stage_loss_t){.nll = e->nll}));
        LRD_TRY(lrd_copy(e->stage->stream, LRD_COPY_D2H, e->pinned, e->nll, sizeof *e->nll));
        LRD_TRY(lrd_stream_sync(e->stage->stream));
        nll += *e->pinned;
        n_targets += e->batch.n_targets;
        at += n;
    }
    *loss_out = n_targets > 0 ? nll / (double)n_targets : NAN;
out:
    return status;
}

/* The batches of this rank's share. */
static lrd_status_t evaluate_share(lrd_evaluator_t *e)
{
    lrd_status_t status = LRD_OK;
    const int rank = lrd_comm_rank(e->comm), size = lrd_comm_size(e->comm);
    const int64_t n_records = lrd_dataset_info(e->set)->n_records;
    const int64_t begin = lrd_share_begin(e->n_batches, rank, size),
                  end = lrd_share_begin(e->n_batches, rank + 1, size);
    lrd_progress_t progress;
    lrd_progress_begin(&progress, "Evaluating", "batches", 0, end - begin);
    progress.quiet = true;
    for (int64_t b = begin; b < end; b++) {
        LRD_CHECK_STOP(e->stop);
        const int64_t first = b * e->records_per_batch;
        const int64_t last =
            first + e->records_per_batch < n_records ? first + e->records_per_batch : n_records;
        LRD_TRY(evaluate_batch(e, first, last, &e->loss[b]));
        lrd_progress_update(&progress, b + 1 - begin, NULL);
    }
    lrd_progress_end(&progress, end - begin);
out:
    return status;
}

/* Mean over records of their batch's loss, batches without targets left out. */
static double combine(const lrd_evaluator_t *e)
{
    const int64_t n_records = lrd_dataset_info(e->set)->n_records;
    double sum = 0, weight = 0;
    for (int64_t b = 0; b < e->n_batches; b++) {
        const int64_t left = n_records - b * e->records_per_batch;
        const double n = (double)(left < e->records_per_batch ? left : e->records_per_batch);
        if (!isnan(e->loss[b])) {
            sum += n * e->loss[b];
            weight += n;
        }
    }
    return weight > 0 ? sum / weight : NAN;
}

lrd_status_t lrd_evaluate(lrd_evaluator_t *e, double *loss_out)
{
    lrd_status_t status = LRD_OK;
    const int rank = lrd_comm_rank(e->comm), size = lrd_comm_size(e->comm);
    LRD_TRY(lrd_agree(e->comm, evaluate_share(e)));
    LRD_TRY(lrd_comm_all_gather(e->comm, e->loss + lrd_share_begin(e->n_batches, rank, size),
                                e->loss, e->offset));
    *loss_out = combine(e);
out:
    return status;
}
