#include "train/schedule.h"

#include <math.h>

int64_t lrd_schedule_warmup(const lrd_training_settings_t *s, int64_t total)
{
    if (s->warmup_steps >= 1)
        return (int64_t)s->warmup_steps;
    const double ratio = s->warmup_steps > 0 ? s->warmup_steps : s->warmup_ratio;
    return (int64_t)ceil((double)total * ratio);
}

/* What the base learning rate is multiplied with. */
static double factor(const lrd_training_settings_t *s, int64_t k, int64_t warmup, int64_t total)
{
    if (s->lr_scheduler_type == LRD_SCHEDULE_CONSTANT)
        return 1.0;
    if (k < warmup)
        return (double)k / (double)(warmup > 1 ? warmup : 1);
    const double left = (double)(total - warmup > 1 ? total - warmup : 1);
    if (s->lr_scheduler_type == LRD_SCHEDULE_LINEAR)
        return fmax(0.0, (double)(total - k) / left);
    if (s->lr_scheduler_type == LRD_SCHEDULE_COSINE)
        return fmax(0.0, 0.5 * (1.0 + cos(3.14159265358979323846 * 0.5 * 2.0 *
                                          ((double)(k - warmup) / left))));
    return 1.0;
}

void lrd_schedule_fill(const lrd_training_settings_t *s, int64_t total, double *lr)
{
    const int64_t warmup = lrd_schedule_warmup(s, total);
    for (int64_t k = 0; k < total; k++)
        lr[k] = s->learning_rate * factor(s, k, warmup, total);
}
