/* model/software.h -- what this program is made with and runs on: what one wants to know where two runs differ.
 * The library between GPUs tells its own name (comm/devcomm.h). */
#ifndef LRD_MODEL_SOFTWARE_H
#define LRD_MODEL_SOFTWARE_H

#include "kernels/ops.h"

/* Told of each: "HDF5", "1.10.8". The texts are gone afterwards. */
typedef void lrd_software_fact_t(void *context, const char *name, const char *value);

/* Compiler, C library, MPI, HDF5 and Oniguruma. */
void lrd_software_list(lrd_software_fact_t *fact, void *context);

/* The same of a back end: lrd_backend_software. */
void lrd_software_list_backend(lrd_backend_t *backend, lrd_software_fact_t *fact, void *context);

#endif /* LRD_MODEL_SOFTWARE_H */
