#include "train/spread.h"

#include "base/mem.h"

/* The number of stages that the settings ask for. */
static lrd_status_t count_stages(const lrd_parallel_settings_t *p, int n_ranks, int *n_out)
{
    lrd_status_t status = LRD_OK;
    const bool has_data = p->data != LRD_SETTING_AUTO, has_stages = p->pipeline != LRD_SETTING_AUTO;
    const int64_t data = has_data ? p->data : has_stages ? n_ranks / p->pipeline : n_ranks;
    const int64_t stages = has_stages ? p->pipeline : has_data ? n_ranks / p->data : 1;
    LRD_CHECK(data * stages == n_ranks, LRD_ERR_CONFIG,
              "parallel.data and parallel.pipeline: %lld x %lld is not the %d rank%s of this run. "
              "Start as many, or leave one of the two out",
              (long long)data, (long long)stages, n_ranks, n_ranks == 1 ? "" : "s");
    *n_out = (int)stages;
out:
    return status;
}

/* Multiplications per token: what a matrix has elements, forward; the same backward. */
static double block_cost(const lrd_model_config_t *c)
{
    double sum = 0;
    for (int i = 0; i < c->family->n_linears; i++) {
        const lrd_tensor_decl_t *w = &c->family->block_tensors[c->family->linears[i].weight];
        sum += (double)lrd_dim_size(c, w->shape[0]) * (double)lrd_dim_size(c, w->shape[1]);
    }
    return sum;
}

lrd_status_t lrd_spread_find(const lrd_settings_t *settings, const lrd_model_config_t *config,
                             const lrd_adapter_t *adapter, int n_ranks,
                             lrd_placement_t *placement_out)
{
    lrd_status_t status = LRD_OK;
    const lrd_parallel_settings_t *p = &settings->parallel;
    const int n_layers = (int)config->n_layers;
    int n_stages = 1;
    double *layer = NULL;
    LRD_TRY(count_stages(p, n_ranks, &n_stages));
    const int64_t chunks = p->pipeline_chunks != LRD_SETTING_AUTO ? p->pipeline_chunks : 1;
    LRD_CHECK(chunks == 1 || (n_stages > 1 && chunks <= n_layers), LRD_ERR_CONFIG,
              "parallel.pipeline_chunks: %lld runs of layers on each of %d stage%s: the model has "
              "%d blocks. Leave it out, or raise parallel.pipeline",
              (long long)chunks, n_stages, n_stages == 1 ? "" : "s", n_layers);
    LRD_NEW(layer, n_layers);
    for (int i = 0; i < n_layers; i++)
        layer[i] = block_cost(config) * (i < adapter->lowest_layer ? 1 : 2);
    LRD_TRY(lrd_placement_balance(
        &(lrd_placement_costs_t){.n_layers = n_layers,
                                 .layer = layer,
                                 .head = 2.0 * (double)(config->vocab_size * config->hidden)},
        n_stages, (int)chunks, placement_out));
out:
    lrd_free(layer);
    return status;
}

lrd_status_t lrd_spread_part(const lrd_placement_t *placement, const lrd_adapter_t *whole,
                             int stage, lrd_adapter_t **part_out)
{
    lrd_status_t status = LRD_OK;
    bool *keep = NULL;
    LRD_NEW(keep, whole->n_layers);
    for (int layer = 0; layer < whole->n_layers; layer++)
        keep[layer] = lrd_placement_stage_of(placement, layer) == stage;
    LRD_TRY(lrd_adapter_part(whole, keep, part_out));
out:
    lrd_free(keep);
    return status;
}
