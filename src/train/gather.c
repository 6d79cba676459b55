#include "train/gather.h"

#include "base/mem.h"
#include "train/planner.h"

/* A state's arrays as one allocation. */
static lrd_status_t allocate(int64_t n_params, lrd_optimizer_state_t *state, float **memory_out)
{
    lrd_status_t status = LRD_OK;
    float *memory;
    LRD_NEW(memory, 3 * n_params);
    *memory_out = memory;
    *state = (lrd_optimizer_state_t){
        .params = memory, .m = memory + n_params, .v = memory + 2 * n_params};
out:
    return status;
}

static void insert(const lrd_adapter_t *part, const lrd_adapter_t *whole, const float *own,
                   lrd_optimizer_state_t *state)
{
    lrd_adapter_insert(part, whole, own, state->params);
    lrd_adapter_insert(part, whole, own + part->n_params, state->m);
    lrd_adapter_insert(part, whole, own + 2 * part->n_params, state->v);
}

/* Takes over what another stage of this replica sends. */
static lrd_status_t receive_part(const lrd_session_t *s, int stage, lrd_optimizer_state_t *state)
{
    lrd_status_t status = LRD_OK;
    lrd_adapter_t *part = NULL;
    lrd_message_t message = {.pending = false};
    float *own = NULL;
    LRD_TRY(lrd_planner_part(&s->placement, s->adapter, stage, &part));
    LRD_NEW(own, 3 * part->n_params);
    LRD_TRY(lrd_comm_receive(s->grid.row, own, 3 * (size_t)part->n_params * sizeof(float), stage, 0,
                             &message));
    LRD_TRY(lrd_comm_wait(s->grid.row, &message));
    insert(part, s->adapter, own, state);
out:
    lrd_free(own);
    lrd_adapter_free(part);
    return status;
}

static lrd_status_t send_part(const lrd_session_t *s, const float *own)
{
    lrd_status_t status = LRD_OK;
    lrd_message_t message = {.pending = false};
    LRD_TRY(lrd_comm_send(s->grid.row, own, 3 * (size_t)s->part->n_params * sizeof(float), 0, 0,
                          &message));
    LRD_TRY(lrd_comm_wait(s->grid.row, &message));
out:
    return status;
}

lrd_status_t lrd_gather_state(lrd_session_t *s, lrd_optimizer_state_t *whole)
{
    lrd_status_t status = LRD_OK;
    lrd_optimizer_state_t own;
    float *memory = NULL;
    if (s->grid.replica != 0)
        goto out;
    if (s->grid.n_stages == 1) {
        LRD_TRY(lrd_optimizer_download(&s->optimizer, whole));
        goto out;
    }
    LRD_TRY(allocate(s->part->n_params, &own, &memory));
    LRD_TRY(lrd_optimizer_download(&s->optimizer, &own));
    if (s->grid.stage != 0) {
        LRD_TRY(send_part(s, memory));
        goto out;
    }
    insert(s->part, s->adapter, memory, whole);
    whole->clock = own.clock;
    for (int stage = 1; stage < s->grid.n_stages; stage++)
        LRD_TRY(receive_part(s, stage, whole));
out:
    lrd_free(memory);
    return status;
}
