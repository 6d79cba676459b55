/* base/safetensors.h -- the safetensors file format: 8 bytes of little-endian header length N,
 * N bytes of JSON header, the tensors' bytes. Source of the rules: the safetensors format
 * description, and what its own reader accepts. */
#ifndef LRD_BASE_SAFETENSORS_H
#define LRD_BASE_SAFETENSORS_H

#include "base/dtype.h"
#include "base/file.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LRD_TENSOR_MAX_DIMS = 8 };

/* One tensor of a file: row-major, contiguous. */
typedef struct lrd_tensor_entry {
    const char *name; /* owned by the file object */
    lrd_dtype_t dtype;
    int n_dims;
    int64_t shape[LRD_TENSOR_MAX_DIMS];
    int64_t n_elements; /* product of shape; 1 when n_dims == 0 */
    size_t offset;      /* of its first byte, from the start of the file */
    size_t bytes;
} lrd_tensor_entry_t;

/* A file mapped for reading. Touching entry data reads it from disk;
 * nothing else of the file is touched. */
typedef struct lrd_safetensors {
    char *path;
    lrd_map_t map;
    lrd_tensor_entry_t *entry; /* sorted bytewise by name */
    size_t n_entries;
    bool owns_map; /* private */
} lrd_safetensors_t;

/* Opens and checks: header length and JSON; every entry's dtype, shape and range; the entries tile
 * the data from its start to the end of the file without gap or overlap; no name twice. Whatever
 * the bytes are, this either succeeds or fails with LRD_ERR_FORMAT (what, where) or LRD_ERR_IO.
 * Header entries in any order, white space, unknown members of an entry, scalars and empty tensors
 * are accepted; dtypes outside LRD_DTYPE_LIST are refused by name, and so are more than
 * LRD_TENSOR_MAX_DIMS dimensions, U+0000 in a name, and nesting beyond base/json.h's. */
lrd_status_t lrd_safetensors_open(const char *path, lrd_safetensors_t **file_out);
void lrd_safetensors_close(lrd_safetensors_t *file); /* NULL is fine */

/* NULL: no tensor of that name. */
const lrd_tensor_entry_t *lrd_safetensors_find(const lrd_safetensors_t *file, const char *name);
const void *lrd_safetensors_data(const lrd_safetensors_t *file, const lrd_tensor_entry_t *entry);

/* Bytes before the data: the header and its length. */
size_t lrd_safetensors_data_begin(const lrd_safetensors_t *file);

/* Reads entry's elements as float32 (from F32, F16, BF16 or F64) into out[n_elements].
 * Other dtypes: LRD_ERR_FORMAT. */
lrd_status_t lrd_safetensors_read_f32(const lrd_safetensors_t *file,
                                      const lrd_tensor_entry_t *entry, float *out);

/* Writing: the same bytes that the safetensors library writes for these tensors
 * (metadata {"format":"pt"} first, then tensors by dtype rank and name, header padded
 * with spaces to a multiple of 8).
 *
 *   begin(path, spec, n)  ->  add(i, data) for i = order[0], order[1], ...  ->  commit
 *
 * The data of one tensor may come in several pieces. Tensors must come in the
 * file's order, which begin gives.
 */
typedef struct lrd_tensor_spec {
    const char *name; /* borrowed during begin */
    lrd_dtype_t dtype;
    int n_dims;
    int64_t shape[LRD_TENSOR_MAX_DIMS];
} lrd_tensor_spec_t;

typedef struct lrd_safetensors_writer lrd_safetensors_writer_t;

/* order_out[n] (may be NULL): indices of spec in the order in which their data must be added;
 * undefined on failure. LRD_ERR_ARG: a name twice, or a shape that no file can hold. */
lrd_status_t lrd_safetensors_begin(const char *path, const lrd_tensor_spec_t *spec, size_t n,
                                   size_t *order_out, lrd_safetensors_writer_t **writer_out);
/* The next bytes of the file's data. LRD_ERR_ARG: more than the specs announced. */
lrd_status_t lrd_safetensors_add(lrd_safetensors_writer_t *writer, const void *data, size_t bytes);
/* Flushes and renames into place. LRD_ERR_ARG: bytes are missing.
 * Frees the writer and sets it to NULL in any case. */
lrd_status_t lrd_safetensors_commit(lrd_safetensors_writer_t **writer);
void lrd_safetensors_abandon(lrd_safetensors_writer_t *writer); /* NULL is fine */

/* The above in one call, data[i] belonging to spec[i]. */
lrd_status_t lrd_safetensors_write(const char *path, const lrd_tensor_spec_t *spec,
                                   const void *const *data, size_t n);

#endif /* LRD_BASE_SAFETENSORS_H */
