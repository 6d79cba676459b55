/* kernels/cpu/cpu_backend.h -- the CPU backend's own state, and where its ops live.
 *
 * An op runs at once, on n_threads OpenMP threads. Work is cut into items whose shape depends on
 * the arguments alone; threads take items as they come. Every item is computed by one thread, in
 * one order, so that the number of threads changes nothing but the time.
 */
#ifndef LRD_CPU_BACKEND_H
#define LRD_CPU_BACKEND_H

#include "kernels/cpu/cpu_micro.h"
#include "kernels/ops.h"

typedef struct tuning tuning_t; /* cpu_tuning.c */

typedef struct cpu_backend {
    lrd_backend_t base;
    int n_threads;
    const micro_isa_t *isa;
    tuning_t *tuning; /* NULL: the rule alone */
    bool tunes;       /* products are timed when they are met first */
} cpu_backend_t;

static inline cpu_backend_t *cpu_backend_of(lrd_stream_t *st)
{
    return (cpu_backend_t *)st->backend;
}

/* Scratch: what all threads share, then an equal part for each thread. Both are multiples of 64
 * bytes. */
typedef struct cpu_scratch {
    uint8_t *shared, *threads;
    size_t thread_bytes;
} cpu_scratch_t;

static inline size_t cpu_round(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* LRD_ERR_ARG: the scratch is smaller than the op needs. */
lrd_status_t cpu_scratch_split(const cpu_backend_t *be, lrd_scratch_t scratch, size_t shared_bytes,
                               size_t thread_bytes, cpu_scratch_t *split_out);

static inline void *cpu_scratch_of_thread(const cpu_scratch_t *s, int thread)
{
    return s->threads + (size_t)thread * s->thread_bytes;
}

/* What each family of ops needs at most; lrd_scratch_bytes is the largest. */
size_t cpu_linear_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);
size_t cpu_attn_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);
size_t cpu_attn_cached_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);
size_t cpu_linear_ce_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);
size_t cpu_norm_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);
size_t cpu_sample_scratch(const cpu_backend_t *be, const lrd_limits_t *limits);

size_t cpu_kv_cache_bytes(const lrd_backend_t *be, const lrd_kv_shape_t *shape);

#define OP(name, args) \
    lrd_status_t cpu_##name(lrd_stream_t *st, lrd_scratch_t scratch, const args *a);
LRD_OP_LIST(OP)
#undef OP

extern const lrd_ops_t lrd_cpu_ops;

#endif /* LRD_CPU_BACKEND_H */
