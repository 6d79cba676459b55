#include "train/evaluate.h"

#include "base/mem.h"
#include "base/share.h"

#include <math.h>

/* Cuts the batches of this replica into pieces; counts them while there is no memory for them. */
static int64_t cut(lrd_evaluator_t *e)
{
    const lrd_stage_limits_t *limits = &e->stage->limits;
    const int64_t n_records = lrd_dataset_info(e->set)->n_records;
    int64_t n = 0;
    for (int64_t b = e->begin; b < e->end; b++) {
        const int64_t first = b * e->records_per_batch;
        const int64_t end = first + e->records_per_batch;
        const int64_t last = end < n_records ? end : n_records;
        for (int64_t at = first, more; at < last; at += more, n++) {
            int64_t tokens = lrd_dataset_record(e->set, at).n_tokens;
            for (more = 1; at + more < last && more < limits->sequences; more++) {
                tokens += lrd_dataset_record(e->set, at + more).n_tokens;
                if (tokens > limits->tokens)
                    break;
            }
            if (e->piece != NULL)
                e->piece[n] = (lrd_eval_piece_t){.batch = b, .first = at, .n = more};
        }
    }
    return n;
}

/* Losses come from the stages with the head. */
static void plan_exchange(lrd_evaluator_t *e)
{
    const lrd_grid_t *g = e->grid;
    for (int r = 0; r <= g->n_replicas * g->n_stages; r++)
        e->offset[r] =
            (size_t)lrd_share_begin(e->n_batches, r / g->n_stages, g->n_replicas) * sizeof(double);
}

lrd_status_t lrd_evaluator_open(lrd_evaluator_t *e)
{
    lrd_status_t status = LRD_OK;
    const lrd_grid_t *g = e->grid;
    if (e->set == NULL)
        goto out;
    e->n_batches = lrd_eval_n_batches(e->set, e->records_per_batch);
    e->begin = lrd_share_begin(e->n_batches, g->replica, g->n_replicas);
    e->end = lrd_share_begin(e->n_batches, g->replica + 1, g->n_replicas);
    e->n_pieces = cut(e);
    LRD_NEW(e->piece, e->n_pieces);
    cut(e);
    LRD_NEW(e->record, e->records_per_batch);
    LRD_NEW(e->loss, e->n_batches);
    LRD_NEW(e->offset, g->n_replicas * g->n_stages + 1);
    plan_exchange(e);
    LRD_TRY(lrd_mem_alloc(e->stage->stream->backend, LRD_MEM_PINNED,
                          ((size_t)e->n_pieces + 1) * sizeof(double), (void **)&e->pinned));
out:
    return status;
}

void lrd_evaluator_close(lrd_evaluator_t *e)
{
    if (e->pinned != NULL)
        lrd_mem_free(e->stage->stream->backend, LRD_MEM_PINNED, e->pinned,
                     ((size_t)e->n_pieces + 1) * sizeof(double));
    lrd_free(e->offset);
    lrd_free(e->loss);
    lrd_free(e->record);
    lrd_free(e->piece);
    *e = (lrd_evaluator_t){.set = NULL};
}

void lrd_evaluator_layout(lrd_evaluator_t *e, lrd_arena_t *arena)
{
    e->nll = lrd_arena_take(arena, "buffers", (size_t)e->n_pieces * sizeof *e->nll);
}

static lrd_status_t pack(void *context, int64_t micro_batch, lrd_batch_t *batch_out)
{
    lrd_status_t status = LRD_OK;
    lrd_evaluator_t *e = context;
    lrd_eval_piece_t *piece = &e->piece[micro_batch];
    for (int64_t i = 0; i < piece->n; i++)
        e->record[i] = piece->first + i;
    LRD_TRY(lrd_batch_pack(e->set, e->record, piece->n, 0, batch_out));
    piece->n_targets = batch_out->n_targets;
    lrd_progress_update(&e->progress, piece->batch - e->begin, NULL);
out:
    return status;
}

/* The batches of this replica's share; their losses, where the head is. */
static lrd_status_t evaluate_share(lrd_evaluator_t *e)
{
    lrd_status_t status = LRD_OK;
    lrd_stream_t *st = e->stage->stream;
    lrd_progress_begin(&e->progress, "Evaluating", "batches", 0, e->end - e->begin);
    e->progress.quiet = true;
    LRD_TRY(lrd_pipeline_run(e->pipeline, &(lrd_pipeline_work_t){.n_micro_batches = e->n_pieces,
                                                                 .loss = {.nll = e->nll},
                                                                 .stop = e->stop,
                                                                 .context = e,
                                                                 .pack = pack}));
    if (e->stage->weights->has_head)
        LRD_TRY(
            lrd_copy(st, LRD_COPY_D2H, e->pinned, e->nll, (size_t)e->n_pieces * sizeof *e->nll));
    LRD_TRY(lrd_stream_sync(st));
    lrd_progress_end(&e->progress, e->end - e->begin);
out:
    return status;
}

/* The losses of batches from those of their pieces, in order. */
static void add_pieces(lrd_evaluator_t *e)
{
    for (int64_t i = 0, next; i < e->n_pieces; i = next) {
        double nll = 0;
        int64_t n_targets = 0;
        for (next = i; next < e->n_pieces && e->piece[next].batch == e->piece[i].batch; next++) {
            nll += e->pinned[next];
            n_targets += e->piece[next].n_targets;
        }
        e->loss[e->piece[i].batch] = n_targets > 0 ? nll / (double)n_targets : NAN;
    }
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
    lrd_comm_t *world = e->grid->world;
    status = evaluate_share(e);
    if (e->grid->n_stages > 1) /* the other stages wait for messages */
        status = lrd_comm_abort(world, status);
    LRD_TRY(lrd_agree(world, status));
    if (e->stage->weights->has_head)
        add_pieces(e);
    LRD_TRY(lrd_comm_all_gather(world, e->loss + e->begin, e->loss, e->offset));
    *loss_out = combine(e);
out:
    return status;
}
