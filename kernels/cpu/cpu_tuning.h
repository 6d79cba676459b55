/* kernels/cpu/cpu_tuning.h -- the tuning file: which route each product takes on this machine.
 *
 * A choice made by timing can differ between ranks and runs, and with it the bits; so it is made
 * once, by `lora-dist tune`, and kept in a file that runs name. The file says for which processor
 * and instruction set it was made; on any other it is refused.
 */
#ifndef LRD_CPU_TUNING_H
#define LRD_CPU_TUNING_H

#include "base/status.h"
#include "kernels/cpu/cpu_micro.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct tuning tuning_t;

lrd_status_t tuning_load(const char *path, const micro_isa_t *isa, tuning_t **tuning_out);
void tuning_free(tuning_t *tuning); /* NULL is fine */

/* False: the file says nothing of this shape (or there is no file). */
bool tuning_find(const tuning_t *tuning, int64_t n, int64_t k, bool transposed, bool *native_out);

/* What /proc/cpuinfo calls this machine, and the instruction set: text[160]. */
void tuning_machine(const micro_isa_t *isa, char text[160]);

#endif /* LRD_CPU_TUNING_H */
