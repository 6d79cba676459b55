#include "train/forecast.h"

#include "base/mem.h"
#include "base/share.h"

#include <math.h>

enum { MOST_UPDATES = 8 };

/* A run's two passes of the usual micro-batch, with the copies of what it receives and sends. */
static void find_passes(const lrd_session_t *s, const lrd_placement_t *p, int run,
                        const lrd_pass_times_t *times, double *forward_out, double *backward_out)
{
    const lrd_span_t span = lrd_placement_run(p, run);
    const lrd_pass_times_t *t = &times[run % p->n_stages];
    const int lowest = s->adapter->lowest_layer;
    const bool has_lowest = span.first <= lowest && lowest < span.last;
    const int above = span.last - (span.first > lowest + 1 ? span.first : lowest + 1);
    const int messages = p->n_stages > 1 ? (span.embed ? 0 : 1) + (span.head ? 0 : 1) : 0;
    *forward_out = (span.embed ? t->embed : 0) + (span.last - span.first) * t->forward +
                   (span.head ? t->head : 0) + messages * t->copy;
    *backward_out = (has_lowest ? t->lowest_backward : 0) + (above > 0 ? above : 0) * t->backward +
                    messages * t->copy;
}

static double count_tokens(const lrd_session_t *s, const lrd_update_t *u, int64_t micro_batch)
{
    int64_t tokens = 0;
    for (int64_t i = u->first[micro_batch]; i < u->first[micro_batch + 1]; i++)
        tokens += lrd_dataset_record(s->train, u->record[i]).n_tokens;
    return (double)tokens;
}

/* One update: its slowest replica. size: [micro-batches of the update] memory to work in. */
static lrd_status_t forecast_update(const lrd_session_t *s, const lrd_placement_t *p,
                                    int n_replicas, lrd_pipe_cost_t cost, const lrd_update_t *u,
                                    double *size, lrd_forecast_t *slowest_out)
{
    lrd_status_t status = LRD_OK;
    const double usual = lrd_calibrate_usual_tokens(s);
    lrd_forecast_t slowest = {0, 1};
    for (int64_t i = 0; i < u->n_micro_batches; i++)
        size[i] = count_tokens(s, u, i) / usual;
    for (int r = 0; r < n_replicas; r++) {
        const int64_t first = lrd_share_begin(u->n_micro_batches, r, n_replicas);
        const lrd_pipe_shape_t shape = {p->n_stages, p->n_runs / p->n_stages,
                                        lrd_share_begin(u->n_micro_batches, r + 1, n_replicas) -
                                            first,
                                        lrd_pipeline_lowest(p, s->adapter)};
        lrd_forecast_t f;
        cost.size = size + first;
        LRD_TRY(lrd_pipe_predict(shape, &cost, &f.seconds, &f.utilisation));
        if (f.seconds > slowest.seconds)
            slowest = f;
    }
    *slowest_out = slowest;
out:
    return status;
}

lrd_status_t lrd_forecast(const lrd_session_t *s, const lrd_placement_t *p, int n_ranks,
                          const lrd_pass_times_t *times, lrd_forecast_t *forecast_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_training_settings_t *x = &s->o.settings->training;
    lrd_stage_limits_t limits;
    int64_t micro_batches;
    lrd_loader_t *loader = NULL;
    lrd_forecast_t sum = {0, 0};
    double *pass = NULL, *size = NULL;
    LRD_TRY(lrd_session_limits(s, n_ranks / p->n_stages, &limits, &micro_batches, &loader));
    const int64_t all = lrd_loader_total_updates(loader, x->max_steps, x->num_train_epochs);
    const int64_t n = all < MOST_UPDATES ? all : MOST_UPDATES;
    LRD_NEW(pass, 2 * p->n_runs);
    LRD_NEW(size, micro_batches);
    for (int run = 0; run < p->n_runs; run++)
        find_passes(s, p, run, times, &pass[run], &pass[p->n_runs + run]);
    for (int64_t i = 0; i < n; i++) {
        lrd_update_t update;
        lrd_forecast_t f;
        LRD_TRY(lrd_loader_update(loader, i, &update));
        LRD_TRY(forecast_update(
            s, p, n_ranks / p->n_stages,
            (lrd_pipe_cost_t){.forward = pass, .backward = pass + p->n_runs, .hop = times->copy},
            &update, size, &f));
        sum.seconds += f.seconds;
        sum.utilisation += f.utilisation;
    }
    *forecast_out = (lrd_forecast_t){sum.seconds / (double)n, sum.utilisation / (double)n};
out:
    lrd_free(size);
    lrd_free(pass);
    lrd_loader_free(loader);
    return status;
}
