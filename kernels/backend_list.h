/* kernels/backend_list.h -- the back ends, in order of preference. A back end is its table of
 * functions; a later one adds its line here. */
#ifndef LRD_BACKEND_LIST_H
#define LRD_BACKEND_LIST_H

/*  name on the command line, shared library (kernels/plugin.h), variable that names another one.
 *  "auto" takes the first of these that opens. */
#define LRD_PLUGIN_LIST(PLUGIN) PLUGIN("cuda", "liblrd_cuda.so", "LRD_CUDA_PLUGIN")

/*  name on the command line, table */
#define LRD_BACKEND_LIST(BACKEND) \
    BACKEND("cpu", lrd_cpu_ops)   \
    BACKEND("cpu_checked", lrd_cpu_checked_ops)

#endif /* LRD_BACKEND_LIST_H */
