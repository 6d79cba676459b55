/* kernels/tuning.h -- the tuning file: which way each product takes on this machine.
 *
 * A choice made by timing can differ between ranks and runs, and with it the bits; so it is made
 * once, by `lora-dist tune`, and kept in a file that runs name. The file says for which machine it
 * was made; a backend refuses that of another.
 */
#ifndef LRD_KERNELS_TUNING_H
#define LRD_KERNELS_TUNING_H

#include "base/buf.h"
#include "kernels/ops.h"

/* Reads a file; lrd_tuning_release frees it, {0} is fine. LRD_ERR_FORMAT, with the place. */
lrd_status_t lrd_tuning_read(const char *path, lrd_tuning_t *tuning_out);
void lrd_tuning_release(lrd_tuning_t *tuning);

/* Appends the file's text. */
lrd_status_t lrd_tuning_write(const lrd_tuning_t *tuning, lrd_buf_t *buf);

#endif /* LRD_KERNELS_TUNING_H */
