/* comm/devices.h -- every rank has a device of its own, or shares it on purpose. */
#ifndef LRD_COMM_DEVICES_H
#define LRD_COMM_DEVICES_H

#include "comm/comm.h"
#include "kernels/ops.h"

/* `be` is this rank's. LRD_ERR_CONFIG, on all ranks: more than `most` of them have the same device.
 * Devices without an id are shared as one likes. Collective. */
lrd_status_t lrd_devices_check(lrd_comm_t *comm, lrd_backend_t *be, int64_t most);

/* Do two ranks have the same device? Collective; failures are agreed on. */
lrd_status_t lrd_devices_shared(lrd_comm_t *comm, lrd_backend_t *be, bool *shared_out);

#endif /* LRD_COMM_DEVICES_H */
