/* data/h5_file.h -- the little of HDF5 that is used here, with the project's errors.
 *
 * The library prints nothing: what it has to say goes into the recorded cause. Files are not locked
 * (network file systems often refuse locks; files are written under another name and renamed).
 * Metadata carries checksums; arrays are contiguous and begin at a multiple of 4,096 bytes,
 * so that they can be mapped.
 */
#ifndef LRD_DATA_H5_FILE_H
#define LRD_DATA_H5_FILE_H

#include "base/buf.h"
#include "base/status.h"

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Innermost message of the call that has just failed on this thread. Never NULL. */
enum { LRD_H5_MESSAGE = 256 };
const char *lrd_h5_message(char text[LRD_H5_MESSAGE]);

/* The call answered what it should, or the function fails with the library's message behind
 * `format`, which takes at least one argument. */
#define LRD_H5_CHECK(condition, code, format, ...)                                 \
    do {                                                                           \
        if (!(condition)) {                                                        \
            char h5_text[LRD_H5_MESSAGE];                                          \
            LRD_FAIL((code), format ": %s", __VA_ARGS__, lrd_h5_message(h5_text)); \
        }                                                                          \
    } while (0)

/* A new file (an old one of the name is emptied), or an existing one for reading. Close with
 * lrd_h5_close, which is where writing may fail last, or, on the way out of a failure, H5Fclose.
 * LRD_ERR_IO: cannot be created. LRD_ERR_FORMAT: is no sound HDF5 file. */
lrd_status_t lrd_h5_create(const char *path, hid_t *file_out);
lrd_status_t lrd_h5_open(const char *path, hid_t *file_out);
lrd_status_t lrd_h5_close(hid_t *file, const char *path); /* sets it to -1 also on failure */

/* Attributes of the root group. `path` stands in messages. Texts of more than 32,000 bytes are cut
 * when they are written (attributes hold at most 64 KiB). */
lrd_status_t lrd_h5_put_text(hid_t file, const char *path, const char *name, const char *text);
lrd_status_t lrd_h5_put_int(hid_t file, const char *path, const char *name, int64_t value);
lrd_status_t lrd_h5_get_text(hid_t file, const char *path, const char *name, lrd_buf_t *text);
lrd_status_t lrd_h5_get_int(hid_t file, const char *path, const char *name, int64_t *value_out);

bool lrd_h5_has(hid_t file, const char *name); /* such an attribute */

/* One-dimensional arrays of a file type such as H5T_STD_I32LE, which is also that of the memory. */
lrd_status_t lrd_h5_put_array(hid_t file, const char *path, const char *name, hid_t type, size_t n,
                              const void *data);

/* Offset in the file of the array's first byte; 0 when n == 0. LRD_ERR_FORMAT: there is no such
 * array of n elements of this type in one contiguous piece. */
lrd_status_t lrd_h5_find_array(hid_t file, const char *path, const char *name, hid_t type, size_t n,
                               uint64_t *offset_out);

#endif /* LRD_DATA_H5_FILE_H */
