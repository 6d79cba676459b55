/* kernels/backend_list.h -- the backends of this program, in order of preference. A backend is its
 * table of functions; a later one adds its line here. */
#ifndef LRD_BACKEND_LIST_H
#define LRD_BACKEND_LIST_H

/*  name on the command line, table */
#define LRD_BACKEND_LIST(BACKEND) \
    BACKEND("cpu", lrd_cpu_ops)   \
    BACKEND("cpu_checked", lrd_cpu_checked_ops)

#endif /* LRD_BACKEND_LIST_H */
