/* base/safetensors_header.h -- the two halves of safetensors.c that need no file: reading from
 * memory, and making a header. Included by safetensors.c, its tests and its fuzz target only. */
#ifndef LRD_BASE_SAFETENSORS_HEADER_H
#define LRD_BASE_SAFETENSORS_HEADER_H

#include "base/buf.h"
#include "base/safetensors.h"

/* Checks `size` bytes as lrd_safetensors_open does; `name` stands in messages.
 * The file object refers to the data, which stays the caller's and must outlive it.
 * LRD_ERR_FORMAT, LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_safetensors_parse(const void *data, size_t size, const char *name,
                                   lrd_safetensors_t **file_out);

/* Appends the length and the JSON header of a file of these n tensors. `name`, order_out and errors
 * are those of lrd_safetensors_begin; *data_bytes_out is the size of what must follow. */
lrd_status_t lrd_safetensors_header(const char *name, const lrd_tensor_spec_t *spec, size_t n,
                                    size_t *order_out, lrd_buf_t *buf, size_t *data_bytes_out);

#endif /* LRD_BASE_SAFETENSORS_HEADER_H */
