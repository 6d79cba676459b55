/* kernels/cpu/cpu_tuning.h -- which route a bfloat16 product takes on this processor, where that was timed
 * (kernels/tuning.h). In a tuning file: "7680 x 2560" (n x k, " transposed" behind), native or widened. */
#ifndef LRD_CPU_TUNING_H
#define LRD_CPU_TUNING_H

#include "kernels/cpu/cpu_micro.h"
#include "kernels/ops.h"

typedef struct tuning tuning_t;

/* What a file says, or nothing yet (from NULL). LRD_ERR_CONFIG: it was made for another machine; path is for
 * messages. */
lrd_status_t tuning_open(const lrd_tuning_t *from, const char *path, const micro_isa_t *isa,
                         tuning_t **tuning_out);
void tuning_free(tuning_t *tuning); /* NULL is fine */

/* False: nothing is known of this shape (or there is no tuning). */
bool tuning_find(const tuning_t *tuning, int64_t n, int64_t k, bool transposed, bool *native_out);

/* What was timed: seconds of the widened and of the native route; by_rule is the one taken untimed. Beyond
 * some hundred shapes nothing is kept. */
void tuning_add(tuning_t *tuning, int64_t n, int64_t k, bool transposed, const double seconds[2],
                bool by_rule);

/* All that is known; it is the tuning's. */
lrd_status_t tuning_list(tuning_t *tuning, const micro_isa_t *isa, lrd_tuning_t *tuning_out);

/* What /proc/cpuinfo calls this machine, and the instruction set: text[160]. */
void tuning_machine(const micro_isa_t *isa, char text[160]);

#endif /* LRD_CPU_TUNING_H */
