#include "model/placement.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>

/* The best way to put the first `last` blocks into the first `runs` runs. */
typedef struct best {
    double slowest, squares;
    int begin; /* of the last of these runs; -1: there is no way */
} best_t;

static bool is_better(const best_t *a, const best_t *b)
{
    if (b->begin < 0 || a->slowest != b->slowest)
        return b->begin < 0 || a->slowest < b->slowest;
    return a->squares < b->squares;
}

static double cost_of(const lrd_placement_costs_t *c, int stage, lrd_span_t run)
{
    double blocks = 0;
    for (int layer = run.first; layer < run.last; layer++)
        blocks += c->layer[layer];
    return (run.embed ? c->embed : 0) + (run.head ? c->head : 0) +
           blocks * (c->pace != NULL ? c->pace[stage] : 1);
}

/* Fills row `run` + 1 of the table [n_runs + 1][n_layers + 1] from row `run`. */
static void extend(const lrd_placement_costs_t *c, int run, int n_runs, int n_stages, best_t *table)
{
    const int width = c->n_layers + 1;
    const best_t *before = table + run * width;
    for (int last = 0; last <= c->n_layers; last++) {
        best_t *best = &table[(run + 1) * width + last];
        *best = (best_t){.begin = -1};
        for (int first = 0; first <= last; first++) {
            const lrd_span_t span = {first, last, run == 0, run == n_runs - 1};
            if (before[first].begin < 0 || (first == last && (!span.head || span.embed)) ||
                (c->fits != NULL && !c->fits(c->context, run % n_stages, span)))
                continue;
            const double cost = cost_of(c, run % n_stages, span);
            const best_t way = {fmax(before[first].slowest, cost),
                                before[first].squares + cost * cost, first};
            if (is_better(&way, best))
                *best = way;
        }
    }
}

lrd_status_t lrd_placement_balance(const lrd_placement_costs_t *c, int n_stages, int n_chunks,
                                   lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const int n_runs = n_stages * n_chunks, width = c->n_layers + 1;
    lrd_placement_t p = {.n_stages = n_stages, .n_runs = n_runs};
    best_t *table = NULL;
    LRD_CHECK(n_runs <= (n_runs > 1 ? c->n_layers + 1 : c->n_layers), LRD_ERR_CONFIG,
              "%d runs of layers (%d stages of %d each): the model has %d blocks, and each run but "
              "that of the head needs one. Lower parallel.pipeline or parallel.pipeline_chunks",
              n_runs, n_stages, n_chunks, c->n_layers);
    LRD_NEW(table, (n_runs + 1) * width);
    LRD_NEW(p.begin, n_runs + 1);
    for (int last = 1; last < width; last++)
        table[last].begin = -1;
    for (int run = 0; run < n_runs; run++)
        extend(c, run, n_runs, n_stages, table);
    *placement_out = (lrd_placement_t){.begin = NULL};
    if (table[n_runs * width + c->n_layers].begin < 0)
        goto out;
    p.begin[n_runs] = c->n_layers;
    for (int run = n_runs; run > 0; run--)
        p.begin[run - 1] = table[run * width + p.begin[run]].begin;
    *placement_out = p;
    p.begin = NULL;
out:
    lrd_placement_release(&p);
    lrd_free(table);
    return status;
}

void lrd_placement_release(lrd_placement_t *p)
{
    lrd_free(p->home);
    lrd_free(p->begin);
    *p = (lrd_placement_t){0};
}

lrd_status_t lrd_placement_stage(const lrd_placement_t *p, int stage, lrd_runs_t *runs_out)
{
    lrd_status_t status = LRD_OK;
    lrd_runs_t runs = {.n = p->n_runs / p->n_stages, .home = p->home};
    LRD_NEW(runs.run, runs.n);
    for (int chunk = 0; chunk < runs.n; chunk++)
        runs.run[chunk] = lrd_placement_run(p, chunk * p->n_stages + stage);
    *runs_out = runs;
out:
    return status;
}

int lrd_placement_stage_of(const lrd_placement_t *p, int layer)
{
    int run = 0;
    while (layer >= p->begin[run + 1])
        run++;
    return run % p->n_stages;
}

lrd_status_t lrd_placement_set_home(lrd_placement_t *p, lrd_home_t home)
{
    lrd_status_t status = LRD_OK;
    const int n_layers = p->begin[p->n_runs];
    lrd_home_t *homes;
    LRD_NEW(homes, n_layers);
    for (int layer = 0; layer < n_layers; layer++)
        homes[layer] = home;
    lrd_free(p->home);
    p->home = homes;
out:
    return status;
}

int lrd_placement_count_home(const lrd_placement_t *p, int stage, lrd_home_t home)
{
    int n = 0;
    for (int layer = 0; layer < p->begin[p->n_runs]; layer++)
        n += lrd_placement_stage_of(p, layer) == stage &&
             (p->home != NULL ? p->home[layer] : LRD_HOME_DEVICE) == home;
    return n;
}

static lrd_status_t put(lrd_buf_t *text, int part, const char *module, int stage)
{
    return lrd_buf_printf(text, "%s'%s': %d", part > 0 ? ", " : "{", module, stage);
}

static lrd_status_t put_block(const lrd_placement_t *p, int layer, lrd_buf_t *text)
{
    char name[32];
    snprintf(name, sizeof name, "transformer.h.%d", layer);
    if (p->home == NULL || p->home[layer] == LRD_HOME_DEVICE)
        return put(text, 2, name, lrd_placement_stage_of(p, layer));
    return lrd_buf_printf(text, ", '%s': '%s'", name,
                          p->home[layer] == LRD_HOME_HOST ? "cpu" : "disk");
}

/* accelerate's order: of assignment, a tied head beside the embedding. */
lrd_status_t lrd_placement_print_map(const lrd_placement_t *p, lrd_buf_t *text)
{
    lrd_status_t status = LRD_OK;
    const int last = p->n_stages - 1, n_layers = p->begin[p->n_runs];
    if (p->n_stages == 1 && p->home == NULL)
        return lrd_buf_printf(text, "{'': 0}");
    LRD_TRY(put(text, 0, "transformer.word_embeddings", 0));
    LRD_TRY(put(text, 1, "transformer.word_embeddings_layernorm", 0));
    for (int layer = 0; layer < n_layers; layer++)
        LRD_TRY(put_block(p, layer, text));
    LRD_TRY(put(text, 3, "transformer.ln_f", last));
    LRD_TRY(put(text, 4, "lm_head", last));
    LRD_TRY(lrd_buf_printf(text, "}"));
out:
    return status;
}
