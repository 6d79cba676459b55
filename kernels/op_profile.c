#include "kernels/op_profile.h"

#include <string.h>

static struct {
    bool on;
    lrd_op_cost_t cost[LRD_N_OPS];
} profile;

static const char *const names[] = {
#define OP(name, args) #name,
    LRD_OP_LIST(OP)
#undef OP
};

void lrd_profile_start(void)
{
    memset(&profile, 0, sizeof profile);
    profile.on = true;
}

void lrd_profile_stop(void)
{
    profile.on = false;
}

bool lrd_profile_is_on(void)
{
    return profile.on;
}

lrd_op_cost_t lrd_profile_read(lrd_op_t op)
{
    return profile.cost[op];
}

const char *lrd_op_name(lrd_op_t op)
{
    return names[op];
}

void lrd_profile_add(lrd_op_t op, double seconds, double flops, double bytes)
{
    lrd_op_cost_t *c = &profile.cost[op];
    c->seconds += seconds;
    c->flops += flops;
    c->bytes += bytes;
    c->calls++;
}
