#include "report/results.h"

#include "report/pyjson.h"

#include <math.h>

bool lrd_result_last(const lrd_facts_t *f, lrd_curve_t curve, double *value_out)
{
    const lrd_series_t *s = &f->curve[curve];
    if (s->n > 0)
        *value_out = s->y[s->n - 1];
    return s->n > 0;
}

bool lrd_result_best(const lrd_facts_t *f, lrd_curve_t curve, bool largest, double *value_out,
                     double *step_out)
{
    const lrd_series_t *s = &f->curve[curve];
    size_t best = s->n;
    for (size_t i = 0; i < s->n; i++) {
        if (isfinite(s->y[i]) &&
            (best == s->n || (largest ? s->y[i] > s->y[best] : s->y[i] < s->y[best])))
            best = i;
    }
    if (best == s->n)
        return false;
    *value_out = s->y[best];
    *step_out = s->x[best];
    return true;
}

bool lrd_result_token_rate(const lrd_facts_t *f, double *rate_out)
{
    const lrd_series_t *time = &f->curve[LRD_CURVE_TIME], *rate = &f->curve[LRD_CURVE_TOKEN_RATE];
    double tokens = 0, before = 0;
    for (size_t i = 0; i < time->n && i < rate->n; i++) {
        tokens += rate->y[i] * (time->y[i] - before);
        before = time->y[i];
    }
    *rate_out = tokens / before;
    return before > 0;
}

bool lrd_result_waiting(const lrd_facts_t *f, double *share_out)
{
    const json_t *ranks = json_object_get(f->end, "ranks");
    double waited = 0, updating = 0;
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        double w = 0, u = 0;
        lrd_pyjson_real(json_array_get(ranks, i), "waited", &w);
        lrd_pyjson_real(json_array_get(ranks, i), "updating", &u);
        waited += w;
        updating += u;
    }
    *share_out = waited / updating;
    return updating > 0 && isfinite(*share_out);
}

bool lrd_result_peak(const lrd_facts_t *f, double *bytes_out)
{
    const json_t *ranks = json_object_get(f->end, "ranks");
    double most = 0, peak;
    for (size_t i = 0; i < json_array_size(ranks); i++) {
        if (lrd_pyjson_real(json_array_get(ranks, i), "peak", &peak) && peak > most)
            most = peak;
    }
    *bytes_out = most;
    return most > 0;
}

/* An evaluation is of the adapter if it names one. */
bool lrd_result_answers(const lrd_facts_t *f, double *exact_out, double *f1_out)
{
    size_t i;
    const json_t *e;
    json_array_foreach(f->evaluations, i, e)
    {
        const json_t *metrics = json_object_get(e, "metrics");
        if (lrd_pyjson_text(e, "adapter") != NULL && lrd_pyjson_real(metrics, "exact", exact_out) &&
            lrd_pyjson_real(metrics, "f1", f1_out))
            return true;
    }
    return lrd_result_last(f, LRD_CURVE_EVAL_EXACT, exact_out) &&
           lrd_result_last(f, LRD_CURVE_EVAL_F1, f1_out);
}
